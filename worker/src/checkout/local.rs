//! A checkout of a repository on the worker's own host.
//!
//! The objects are borrowed from the repository instead of copied, so that the size of its history costs nothing; none of
//! its hooks takes part.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared::id::CommitId;
use shared::job::Failure;
use shared::spec::Repository;

use super::{Git, config, refused};
use crate::attempt::processes::Cut;

/// No repository is fetched from: its objects are there.
const NOWHERE: &str = "";

/// Where a repository keeps what a work tree of it needs.
struct Source {
    /// The repository as the specification names it.
    name: String,
    path: PathBuf,
    objects: PathBuf,
    shallow: PathBuf,
    format: String,
}

impl Git<'_> {
    /// Puts `commit` into the work tree, or what the repository's ref is resolved to where there is none.
    pub(super) async fn check_out_local(
        &mut self,
        repository: &Repository,
        path: &str,
        commit: Option<&CommitId>,
    ) -> Result<CommitId, Cut> {
        let source = self.source(path).await?;
        let commit = match commit {
            Some(commit) => self.find(&source, commit.as_str(), commit.as_str()).await?,
            None => self.resolve(&source, repository.reference.as_deref()).await?,
        };
        self.borrow(&source, repository.submodules).await?;
        let tree = self.directories.tree();
        let arguments = ["checkout", "--quiet", "--detach", "--force", commit.as_str()];
        let answer = self.run(&tree, NOWHERE, &arguments).await?;
        answer.success(|why| format!("git could not check out {commit} of {path}: {why}"))?;
        Ok(commit)
    }

    /// Finds the repository at `path`: its top or its git directory.
    async fn source(&mut self, path: &str) -> Result<Source, Cut> {
        let name = path.to_owned();
        let (given, git_config) = (PathBuf::from(path), self.directories.git_config());
        let own = self.own.to_owned();
        let found = self.processes.aside(move || {
            let real = fs::canonicalize(&given)?;
            let is_dir = real.is_dir();
            Ok::<_, io::Error>((config(&[&given, &real]), is_in(&real, &own)?, real, is_dir))
        });
        let (config, real) = match found.await? {
            Ok((_, true, ..)) => return Err(the_workers(&name)),
            Ok((config, _, real, true)) => (config, real),
            Ok(_) => return Err(refused(format!("repository {name} is not a directory"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(refused(format!("repository {name} does not exist")));
            }
            Err(error) => return Err(refused(format!("repository {name} can't be read: {error}"))),
        };
        self.processes.aside(move || fs::write(git_config, config)).await??;
        let facts =
            ["rev-parse", "--show-prefix", "--git-path", "objects", "--git-path", "shallow", "--show-object-format"];
        let answer = self.run(&real, NOWHERE, &facts).await?;
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
        let (objects, own) = (real.join(objects), self.own.to_owned());
        let borrowed = objects.clone();
        if self.processes.aside(move || is_in(&borrowed.canonicalize()?, &own)).await?? {
            return Err(the_workers(&name));
        }
        Ok(Source { name, objects, shallow: real.join(shallow), path: real, format })
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
        let answer = self.run(&source.path, NOWHERE, &arguments).await?;
        let name = &source.name;
        let not_found = || refused(format!("ref {reference} not found in {name}"));
        if !answer.exit.is_success() {
            return Err(not_found());
        }
        CommitId::try_from(answer.out.trim().to_owned()).map_err(|_| not_found())
    }

    /// Makes an empty repository in the work tree that has the other one's objects, and its name where it is `named`.
    async fn borrow(&mut self, source: &Source, named: bool) -> Result<(), Cut> {
        let tree = self.directories.tree();
        let format = format!("--object-format={}", source.format);
        let arguments = ["init", "--quiet", "--template=", &format];
        let answer = self.run(&tree, NOWHERE, &arguments).await?;
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
        borrowed.await??;
        if named {
            // What submodules name relative to the repository is found by this.
            let origin = source.path.to_string_lossy();
            let arguments = ["config", "remote.origin.url", &*origin];
            let answer = self.run(&self.directories.tree(), NOWHERE, &arguments).await?;
            answer.success(|why| format!("git could not name the origin: {why}"))?;
        }
        Ok(())
    }
}

/// Whether the canonical path lies in the directory `own`. It blocks.
fn is_in(real: &Path, own: &Path) -> io::Result<bool> {
    match own.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        own => Ok(real.starts_with(own?)),
    }
}

/// Whoever could build what the worker keeps for itself could read what other jobs' keys have opened.
fn the_workers(name: &str) -> Cut {
    refused(format!("repository {name} is the worker's own"))
}
