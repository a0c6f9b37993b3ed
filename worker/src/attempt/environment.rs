//! The environment of a step: exactly what is listed here and what the specification gives, and nothing of the worker's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

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
    /// How the steps use the job's deploy key, where it says that they may.
    pub ssh: Option<&'a StepSsh>,
}

/// The way for steps to use the deploy key of their job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepSsh {
    /// The socket of the attempt's ssh-agent.
    pub agent: PathBuf,
    /// What git is to run for ssh, so that it trusts the pinned hosts alone.
    pub git_ssh_command: OsString,
}

/// The environment of the step of index `step`. What comes later here wins: our defaults, the base, CI, TMPDIR and the
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
    if let Some(ssh) = sources.ssh {
        set("SSH_AUTH_SOCK".as_ref(), ssh.agent.as_os_str());
        set("GIT_SSH_COMMAND".as_ref(), &ssh.git_ssh_command);
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};
    use shared::clock;
    use shared::id::{Attempt, Fence, JobId, Shard};
    use shared::spec::parse_single;

    use super::*;

    fn of(ssh: Option<&StepSsh>, env: &Value) -> Environment {
        let spec = parse_single(&json!({"steps": [{"run": "true"}], "env": env}), None).unwrap().spec;
        let job = JobId::mint(Shard::new(3).unwrap(), clock::now(), clock::random());
        let directories = Directories::of(Path::new("/srv/jobs"), job, Attempt(1));
        let grant = Grant { job, attempt: Attempt(1), fence: Fence(1), spec, commit: None, secrets: None };
        let base = [("SSH_AUTH_SOCK".into(), "/the/callers".into())];
        let secrets = Secrets::default();
        let sources =
            Sources { base: &base, path: None, directories: &directories, secrets: &secrets, commit: None, ssh };
        of_step(&sources, &grant, 0)
    }

    #[test]
    fn the_steps_have_the_deploy_keys_agent_only_where_they_may_and_their_own_word_counts_more() {
        let ssh = StepSsh { agent: "/srv/agent".into(), git_ssh_command: "ssh -F config".into() };
        let value = |env: &Environment, name: &str| env.get(OsStr::new(name)).cloned();
        let without = of(None, &json!({}));
        assert_eq!(value(&without, "SSH_AUTH_SOCK"), Some("/the/callers".into()));
        assert_eq!(value(&without, "GIT_SSH_COMMAND"), None);
        let with = of(Some(&ssh), &json!({}));
        assert_eq!(value(&with, "SSH_AUTH_SOCK"), Some("/srv/agent".into()));
        assert_eq!(value(&with, "GIT_SSH_COMMAND"), Some("ssh -F config".into()));
        let own = of(Some(&ssh), &json!({"GIT_SSH_COMMAND": "ssh -v"}));
        assert_eq!(value(&own, "GIT_SSH_COMMAND"), Some("ssh -v".into()));
    }
}
