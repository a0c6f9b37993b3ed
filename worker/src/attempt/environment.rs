//! The environment of a step: exactly what is listed here and what the specification gives, and nothing of the worker's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use shared::id::CommitId;
use shared::secret::Secrets;
use shared::wire::Grant;

use super::directories::Directories;

/// The variables that name the job and the attempt.
pub const JOB_ID: &str = "WINDLASS_JOB_ID";
pub const ATTEMPT: &str = "WINDLASS_ATTEMPT";

/// Names and values, by name.
pub type Environment = BTreeMap<OsString, OsString>;

/// Where programs are looked for when the worker itself has no PATH.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Messages in English, text in UTF-8: the same on every worker.
const LANG: &str = "C.UTF-8";
/// What only Windlass says: whoever else sets one of these is not heard.
const OURS: [&str; 7] =
    [JOB_ID, ATTEMPT, "WINDLASS_FENCE", "WINDLASS_COMMIT", "WINDLASS_REF", "WINDLASS_REPOSITORY", "WINDLASS_STEP"];

/// What the environment is made of besides the grant.
pub struct Sources<'a> {
    /// Below all others but our own defaults, which it replaces.
    pub base: &'a [(OsString, OsString)],
    /// The worker's PATH.
    pub path: Option<OsString>,
    pub directories: &'a Directories,
    pub secrets: &'a Secrets,
    /// What stands in the work tree.
    pub commit: Option<&'a CommitId>,
    /// What lets the steps use the deploy key, where they may.
    pub agent: &'a Environment,
}

/// The environment of the step of index `step`. What comes later here wins: our defaults, the base, CI and TMPDIR, the
/// deploy key's agent, the specification, the secrets, and what says which attempt it is.
pub fn of_step(sources: &Sources, grant: &Grant, step: usize) -> Environment {
    let mut all = Environment::new();
    let mut set = |name: &OsStr, value: &OsStr| {
        all.insert(name.to_owned(), value.to_owned());
    };
    set("PATH".as_ref(), sources.path.as_deref().unwrap_or(PATH_DEFAULT.as_ref()));
    set("HOME".as_ref(), sources.directories.home().as_os_str());
    set("LANG".as_ref(), LANG.as_ref());
    sources.base.iter().for_each(|(name, value)| set(name, value));
    set("CI".as_ref(), "true".as_ref());
    set("TMPDIR".as_ref(), sources.directories.tmp().as_os_str());
    sources.agent.iter().for_each(|(name, value)| set(name, value));
    grant.spec.env.iter().for_each(|(name, value)| set(name.as_ref(), value.as_ref()));
    sources.secrets.0.iter().for_each(|(name, secret)| set(name.as_ref(), secret.reveal().as_ref()));
    for name in OURS {
        all.remove(OsStr::new(name));
    }
    for (name, value) in identity(grant) {
        all.insert(name.into(), value.into());
    }
    if let Some(repository) = &grant.spec.repository {
        all.insert("WINDLASS_REPOSITORY".into(), repository.url.clone().into());
        all.insert("WINDLASS_REF".into(), repository.reference.as_deref().unwrap_or("HEAD").into());
    }
    if let Some(commit) = sources.commit {
        all.insert("WINDLASS_COMMIT".into(), commit.as_str().into());
    }
    all.insert("WINDLASS_STEP".into(), step.to_string().into());
    all
}

/// What says whose a process is. Everything that runs for an attempt has it, and a later start of the worker finds by it
/// what a crash has left.
pub fn identity(grant: &Grant) -> [(&'static str, String); 3] {
    [(JOB_ID, grant.job.to_string()), (ATTEMPT, grant.attempt.to_string()), ("WINDLASS_FENCE", grant.fence.to_string())]
}
