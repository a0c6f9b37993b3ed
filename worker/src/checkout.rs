//! Puts a commit of a repository into an empty work tree, with the system's git.
//!
//! Where the repository lies decides how: [`local`] borrows from one on the worker's own host, [`remote`] fetches over SSH
//! or HTTPS by way of a [`mirror`]. No hook and nobody's configuration takes part, and nobody is asked for anything. git
//! runs under the attempt's keeper like a step, but its output isn't the job's: of a failure one line is told
//! ([`trouble`]). Large files kept elsewhere are not fetched.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shared::id::CommitId;
use shared::job::{Exit, Failure};
use shared::spec::{History, Repository};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::attempt::directories::{Directories, remove};
use crate::attempt::environment::Environment;
use crate::attempt::processes::{Cut, Processes};
use crate::keeper::Command;
use crate::output::pump::{WriteEnds, pipe};
use heard::Heard;
use mirror::Mirrors;
use ssh::DeployKey;
use tries::Tries;
use trouble::{Asked, Kind, Trouble};

pub(crate) mod heard;
mod local;
pub mod mirror;
pub(crate) mod remote;
pub mod ssh;
mod tries;
pub(crate) mod trouble;

/// How long something that git left behind may hold its output open.
const LEAK_WITHIN: Duration = Duration::from_secs(2);

/// What of the worker's own environment git is given: whom to trust over HTTPS, and by way of whom to go.
const HANDED_ON: [&str; 8] = [
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "NO_PROXY",
    "no_proxy",
];

/// What beats every configuration, also one that somebody has put where git looks.
const ABOVE_ALL: [&str; 5] =
    ["core.hooksPath=/dev/null", "core.fsmonitor=false", "core.askPass=", "credential.helper=", "gc.auto=0"];

/// What git is configured with, instead of anybody's own configuration. A server that sends next to nothing for a minute
/// is given up.
const CONFIG: &str = "[core]\n\thooksPath = /dev/null\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[advice]\n\tdetachedHead = \
                      false\n[protocol]\n\tversion = 2\n[http]\n\tlowSpeedLimit = 1000\n\tlowSpeedTime = 60\n[submodule]\n\trecurse = \
                      false\n[fetch]\n\trecurseSubmodules = false\n";

/// How long git may be busy with a server, so that one that stalls doesn't hold a mirror for a job's whole time. Beyond
/// that it is taken for away.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For its refs: ssh takes at most a minute to notice that nobody answers, and the answer is small.
    pub ask: Duration,
    /// For a fetch: some gigabytes over a slow line.
    pub fetch: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ask: Duration::from_mins(2), fetch: Duration::from_mins(30) }
    }
}

/// What git said.
struct Answer {
    exit: Exit,
    /// The limit that it was killed at.
    overdue: Option<Duration>,
    out: String,
    err: String,
}

/// Why something that may be tried again wasn't done.
enum Miss {
    /// The attempt is over.
    Cut(Cut),
    Trouble(Trouble),
}

/// The git of one attempt.
pub struct Git<'a> {
    pub processes: &'a mut Processes,
    pub directories: &'a Directories,
    /// The worker's own data directory, which no job may build.
    pub own: &'a Path,
    /// What says whose the process is, the PATH, and what is handed on of the worker's own: see [`handed_on`].
    pub env: Environment,
    pub mirrors: &'a Arc<Mirrors>,
    /// What opens the repository, if the job names a key.
    pub key: Option<&'a DeployKey>,
    pub limits: Limits,
    /// Says something in the attempt's log.
    pub say: &'a (dyn Fn(&str) + Sync),
}

/// What git is given of an environment.
pub fn handed_on(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    all.filter(|(name, _)| HANDED_ON.iter().any(|handed_on| name == handed_on)).collect()
}

impl<'a> Git<'a> {
    /// Puts `commit` into the work tree, or what the repository's ref is resolved to where there is none. Returns the
    /// commit that stands there.
    pub async fn check_out(&mut self, repository: &Repository, commit: Option<&CommitId>) -> Result<CommitId, Cut> {
        if let Some(key) = self.key {
            let (dir, key) = (self.directories.ssh(), key.clone());
            self.env.insert("GIT_SSH_COMMAND".into(), ssh::command(&dir));
            self.processes.aside(move || ssh::set_up(&dir, &key)).await??;
            self.env.insert("GIT_SSH_VARIANT".into(), "ssh".into());
        }
        let Some(path) = repository.local_path() else { return self.check_out_remote(repository, commit).await };
        let commit = self.check_out_local(repository, path, commit).await?;
        if repository.submodules {
            let asked = self.asked(repository, true);
            let mut tries = Tries::new();
            while let Err(miss) = self.submodules(repository).await {
                self.again(&mut tries, miss, asked).await?;
            }
        }
        Ok(commit)
    }

    fn asked<'b>(&self, repository: &'b Repository, submodule: bool) -> Asked<'b>
    where
        'a: 'b,
    {
        let reference = repository.reference.as_deref().unwrap_or("HEAD");
        Asked { url: &repository.url, key: self.key.map(|key| &*key.name), reference, submodule }
    }

    /// What git may speak to fetch a repository of that kind: SSH with a deploy key alone.
    fn protocols(&self, repository: &Repository) -> String {
        let mut allowed = vec!["https"];
        allowed.extend(repository.local_path().map(|_| "file"));
        allowed.extend(self.key.map(|_| "ssh"));
        allowed.join(":")
    }

    /// Checks the submodules out, and theirs.
    async fn submodules(&mut self, repository: &Repository) -> Result<(), Miss> {
        let shallow = repository.history == History::Shallow;
        match self.update_submodules(repository, shallow).await {
            Err(Miss::Trouble(Trouble { kind: Kind::RefusesIds, .. })) if shallow => {
                // What is there has the tips alone, and would never get more: it is cloned anew.
                let tree = self.directories.tree();
                self.run(&tree, "", &["submodule", "--quiet", "deinit", "--all", "--force"]).await?.checked()?;
                self.processes.aside(move || remove(&tree.join(".git/modules"))).await??;
                self.update_submodules(repository, false).await
            }
            done => done,
        }
    }

    async fn update_submodules(&mut self, repository: &Repository, shallow: bool) -> Result<(), Miss> {
        let tree = self.directories.tree();
        let mut arguments = vec!["submodule", "--quiet", "update", "--init", "--recursive", "--checkout", "--force"];
        if shallow {
            arguments.push("--depth=1");
        }
        let answer = self.run(&tree, &self.protocols(repository), &arguments).await?;
        let named = trouble::submodule(&answer.err);
        answer.checked().map_err(|trouble| trouble.of_submodule(named.as_deref()))?;
        Ok(())
    }

    /// Waits until the next try, if there is to be one.
    async fn again(&mut self, tries: &mut Tries, miss: Miss, asked: Asked<'_>) -> Result<(), Cut> {
        let trouble = match miss {
            Miss::Cut(cut) => return Err(cut),
            Miss::Trouble(trouble) => trouble,
        };
        let next = tries.next(&trouble);
        (self.say)(&tries.told(&trouble, next, asked));
        match next {
            Some(wait) => self.processes.beside(tokio::time::sleep(wait)).await,
            None => Err(Cut::Failed(trouble.failure(asked))),
        }
    }

    /// Runs git in `cwd`, which may speak the `protocols` alone, named and separated by `:`.
    async fn run(&mut self, cwd: &Path, protocols: &str, arguments: &[&str]) -> Result<Answer, Cut> {
        self.run_within(None, cwd, protocols, arguments).await
    }

    /// Runs git like [`Git::run`], for so long at most where there is a limit.
    async fn run_within(
        &mut self,
        limit: Option<Duration>,
        cwd: &Path,
        protocols: &str,
        arguments: &[&str],
    ) -> Result<Answer, Cut> {
        let (out, stdout) = pipe()?;
        let (err, stderr) = pipe()?;
        let mut env = self.env.clone();
        let (config, home, root) = (self.directories.git_config(), self.directories.home(), self.directories.root());
        let ours: [(&str, &OsStr); 8] = [
            ("GIT_ALLOW_PROTOCOL", protocols.as_ref()),
            ("GIT_CEILING_DIRECTORIES", root.as_os_str()),
            ("GIT_CONFIG_GLOBAL", config.as_os_str()),
            ("GIT_CONFIG_NOSYSTEM", "1".as_ref()),
            ("GIT_TERMINAL_PROMPT", "0".as_ref()),
            ("GIT_OPTIONAL_LOCKS", "0".as_ref()),
            ("HOME", home.as_os_str()),
            ("LC_ALL", "C".as_ref()),
        ];
        env.extend(ours.map(|(name, value)| (OsString::from(name), value.to_owned())));
        let above_all = ABOVE_ALL.iter().flat_map(|setting| ["-c", setting]);
        let argv = std::iter::once("git").chain(above_all).chain(arguments.iter().copied()).map(OsStr::new);
        let command = Command::new(argv, env.iter().map(|(k, v)| (k.as_os_str(), v.as_os_str())), cwd);
        let (out_heard, err_heard) = (Heard::default(), Heard::default());
        // Dropped, they end.
        let mut readers = JoinSet::new();
        readers.spawn(out_heard.clone().listen(out));
        readers.spawn(err_heard.clone().listen(err));
        let ends = WriteEnds { stdout, stderr };
        let (ran, overdue) = match limit {
            Some(limit) => self.processes.run_within(command, ends, limit).await?,
            None => (self.processes.run(command, ends, None).await?, false),
        };
        // An ssh whose git died goes on for as long as its server does.
        let all_heard = async { while readers.join_next().await.is_some() {} };
        if self.processes.beside(timeout(LEAK_WITHIN, all_heard)).await?.is_err() {
            self.processes.clear().await?;
        }
        let overdue = limit.filter(|_| overdue);
        Ok(Answer {
            exit: ran.exit,
            overdue,
            out: out_heard.text(),
            err: ran.message.unwrap_or_else(|| err_heard.text()),
        })
    }
}

impl Answer {
    /// What git said when all went well; else a failure in the words of `told`, which is given git's own reason.
    fn success(self, told: impl FnOnce(&str) -> String) -> Result<String, Cut> {
        if self.exit.is_success() {
            return Ok(self.out);
        }
        Err(refused(told(&trouble::reason(&self.err, self.exit))))
    }

    /// What git said when all went well; else what its words mean.
    fn checked(self) -> Result<String, Trouble> {
        match self.overdue {
            _ if self.exit.is_success() => Ok(self.out),
            Some(limit) => Err(trouble::overdue(limit)),
            None => Err(trouble::of(&self.err, self.exit)),
        }
    }
}

impl From<Cut> for Miss {
    fn from(cut: Cut) -> Self {
        Self::Cut(cut)
    }
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Self {
        Self::Cut(error.into())
    }
}

impl From<Trouble> for Miss {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// A failure that another try on the same host would meet again.
fn refused(message: String) -> Cut {
    Cut::Failed(Failure::CheckoutFailed { transient: false, message })
}

/// The configuration for a checkout from `paths`: a repository of another user is trusted by name, and one on this host
/// is copied from rather than linked to.
fn config(paths: &[&Path]) -> Vec<u8> {
    let mut text = CONFIG.as_bytes().to_vec();
    if !paths.is_empty() {
        text.extend_from_slice(b"[url \"file:///\"]\n\tinsteadOf = /\n[safe]\n");
    }
    for path in paths {
        text.extend_from_slice(b"\tdirectory = \"");
        for byte in path.as_os_str().as_encoded_bytes() {
            if matches!(byte, b'"' | b'\\') {
                text.push(b'\\');
            }
            text.push(*byte);
        }
        text.extend_from_slice(b"\"\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_is_given_nothing_of_the_workers_environment_but_trust_and_proxies() {
        let all = ["PATH", "HOME", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_SSL_CAINFO", "https_proxy"];
        let given = handed_on(all.iter().map(|name| ((*name).into(), "x".into())));
        let names: Vec<&str> = given.iter().filter_map(|(name, _)| name.to_str()).collect();
        assert_eq!(names, ["GIT_SSL_CAINFO", "https_proxy"]);
    }
}
