//! Puts a commit of a repository on the worker's own host into an empty work tree, with the system's git.
//!
//! The objects are borrowed from the repository instead of copied, so that the size of its history costs nothing; none of
//! its hooks and nobody's configuration takes part. git runs under the attempt's keeper like a step, but its output isn't
//! the job's: of a failure one line is told. Submodules and large files kept elsewhere are not fetched.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared::id::CommitId;
use shared::job::{Exit, Failure};
use shared::spec::Repository;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::attempt::directories::Directories;
use crate::attempt::environment::Environment;
use crate::attempt::processes::{Cut, Processes};
use crate::deploy_key::FetchedKey;
use crate::keeper::Command;
use crate::output::pump::{WriteEnds, pipe};

/// The most bytes of git's answer that are looked at: 64 KiB. What is asked for is a few lines.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// What git said.
struct Answer {
    exit: Exit,
    out: String,
    err: String,
}

/// Where a repository keeps what a work tree of it needs.
struct Source {
    /// The repository as the specification names it.
    name: String,
    path: PathBuf,
    objects: PathBuf,
    shallow: PathBuf,
    format: String,
}

/// The git of one attempt.
pub struct Git<'a> {
    pub processes: &'a mut Processes,
    pub directories: &'a Directories,
    /// What says whose the process is, and the PATH.
    pub env: Environment,
    /// What opens the repository, if the job names a key; it lives no longer than this.
    #[expect(dead_code, reason = "only repositories on this host can be checked out yet, and they need none")]
    pub key: Option<FetchedKey>,
}

impl Git<'_> {
    /// Puts `commit` into the work tree, or what the repository's ref is resolved to where there is none. Returns the
    /// commit that stands there.
    pub async fn check_out(&mut self, repository: &Repository, commit: Option<&CommitId>) -> Result<CommitId, Cut> {
        let name = &repository.url;
        let path = repository.local_path().ok_or_else(|| refused(format!("{name} is not on this host")))?;
        let source = self.source(path).await?;
        let commit = match commit {
            Some(commit) => self.find(&source, commit.as_str(), commit.as_str()).await?,
            None => self.resolve(&source, repository.reference.as_deref()).await?,
        };
        self.borrow(&source).await?;
        let tree = self.directories.tree();
        let arguments = ["checkout", "--quiet", "--detach", "--force", commit.as_str()];
        let answer = self.run(&tree, &arguments).await?;
        answer.success(|why| format!("git could not check out {commit} of {path}: {why}"))?;
        Ok(commit)
    }

    /// Finds the repository at `path`: its top or its git directory.
    async fn source(&mut self, path: &str) -> Result<Source, Cut> {
        let name = path.to_owned();
        let (given, git_config) = (PathBuf::from(path), self.directories.git_config());
        let found = self.processes.aside(move || {
            let real = fs::canonicalize(&given)?;
            let is_dir = real.is_dir();
            Ok::<_, io::Error>((config(&[&given, &real]), real, is_dir))
        });
        let (config, real) = match found.await? {
            Ok((config, real, true)) => (config, real),
            Ok(_) => return Err(refused(format!("repository {name} is not a directory"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(refused(format!("repository {name} does not exist")));
            }
            Err(error) => return Err(refused(format!("repository {name} can't be read: {error}"))),
        };
        self.processes.aside(move || fs::write(git_config, config)).await??;
        let facts =
            ["rev-parse", "--show-prefix", "--git-path", "objects", "--git-path", "shallow", "--show-object-format"];
        let answer = self.run(&real, &facts).await?;
        if answer.err.contains("not a git repository") {
            return Err(refused(format!("{name} is not a git repository")));
        }
        let out = answer.success(|why| format!("git could not read {name}: {why}"))?;
        let mut lines = out.lines().map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        let (prefix, objects, shallow, format) = (next(), next(), next(), next());
        if !prefix.is_empty() {
            return Err(refused(format!(
                "{name} lies inside of a git repository: name the repository's own directory"
            )));
        }
        Ok(Source { name, objects: real.join(objects), shallow: real.join(shallow), path: real, format })
    }

    /// The commit that a ref of the repository stands for: a branch before a tag, as a clone would take it.
    async fn resolve(&mut self, source: &Source, reference: Option<&str>) -> Result<CommitId, Cut> {
        let Some(reference) = reference else { return self.find(source, "HEAD", "HEAD").await };
        let branch = format!("refs/heads/{reference}");
        match self.find(source, &branch, reference).await {
            Err(Cut::Failed(Failure::CheckoutFailed { .. })) => self.find(source, reference, reference).await,
            found => found,
        }
    }

    async fn find(&mut self, source: &Source, what: &str, reference: &str) -> Result<CommitId, Cut> {
        let commit = format!("{what}^{{commit}}");
        let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &commit];
        let answer = self.run(&source.path, &arguments).await?;
        let name = &source.name;
        let not_found = || refused(format!("ref {reference} not found in {name}"));
        if !answer.exit.is_success() {
            return Err(not_found());
        }
        CommitId::try_from(answer.out.trim().to_owned()).map_err(|_| not_found())
    }

    /// Makes an empty repository in the work tree that has the other one's objects.
    async fn borrow(&mut self, source: &Source) -> Result<(), Cut> {
        let tree = self.directories.tree();
        let format = format!("--object-format={}", source.format);
        let arguments = ["init", "--quiet", "--template=", &format];
        let answer = self.run(&tree, &arguments).await?;
        answer.success(|why| format!("git could not make a work tree: {why}"))?;
        let info = tree.join(".git/objects/info");
        let mut alternates = source.objects.clone().into_os_string();
        alternates.push("\n");
        let shallow = source.shallow.clone();
        let borrowed = self.processes.aside(move || {
            fs::create_dir_all(&info)?;
            fs::write(info.join("alternates"), alternates.as_encoded_bytes())?;
            match fs::copy(&shallow, tree.join(".git/shallow")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        });
        Ok(borrowed.await??)
    }

    async fn run(&mut self, cwd: &Path, arguments: &[&str]) -> Result<Answer, Cut> {
        let (out, stdout) = pipe()?;
        let (err, stderr) = pipe()?;
        let mut env = self.env.clone();
        let (config, home) = (self.directories.git_config(), self.directories.home());
        let ours: [(&str, &OsStr); 6] = [
            ("GIT_CONFIG_GLOBAL", config.as_os_str()),
            ("GIT_CONFIG_NOSYSTEM", "1".as_ref()),
            ("GIT_TERMINAL_PROMPT", "0".as_ref()),
            ("GIT_OPTIONAL_LOCKS", "0".as_ref()),
            ("HOME", home.as_os_str()),
            ("LC_ALL", "C".as_ref()),
        ];
        env.extend(ours.map(|(name, value)| (OsString::from(name), value.to_owned())));
        let argv = std::iter::once("git").chain(arguments.iter().copied()).map(OsStr::new);
        let command = Command::new(argv, env.iter().map(|(k, v)| (k.as_os_str(), v.as_os_str())), cwd);
        let heard = tokio::spawn(async move { tokio::join!(listen(out), listen(err)) });
        let ran = self.processes.run(command, WriteEnds { stdout, stderr }, None).await?;
        let (out, err) = heard.await.unwrap_or_default();
        Ok(Answer { exit: ran.exit, out, err: ran.message.unwrap_or(err) })
    }
}

impl Answer {
    /// What git said when all went well; else a failure in the words of `told`, which is given git's own reason.
    fn success(self, told: impl FnOnce(&str) -> String) -> Result<String, Cut> {
        if self.exit.is_success() {
            return Ok(self.out);
        }
        let lines = || self.err.lines().map(str::trim).filter(|line| !line.is_empty());
        let reason = lines().find_map(|line| line.strip_prefix("fatal: ").or(line.strip_prefix("error: ")));
        let exit = self.exit.to_string();
        Err(refused(told(reason.or(lines().next()).unwrap_or(&exit))))
    }
}

/// A failure that another try on the same host would meet again.
fn refused(message: String) -> Cut {
    Cut::Failed(Failure::CheckoutFailed { transient: false, message })
}

/// What git is configured with, instead of anybody's own configuration. A repository of another user is trusted by name.
fn config(paths: &[&Path]) -> Vec<u8> {
    let mut text =
        b"[core]\n\thooksPath = /dev/null\n[gc]\n\tauto = 0\n[advice]\n\tdetachedHead = false\n[safe]\n".to_vec();
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

/// All that comes, up to [`ANSWER_BYTES_MAX`]; the rest is read and dropped, so that git isn't held up.
async fn listen(mut pipe: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let _ = (&mut pipe).take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
