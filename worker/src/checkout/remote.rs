//! A checkout of a repository over SSH or HTTPS, by way of its mirror on this host.
//!
//! Each try asks the server first, with the job's own key: only who may read the repository now is served, whatever the
//! mirror holds. The ref is resolved once; later tries fetch that commit. What goes into the work tree is copied and
//! checked, and belongs to the job alone.

use std::fs;
use std::io;

use shared::id::CommitId;
use shared::spec::{History, Repository};

use super::mirror::Held;
use super::tries::Tries;
use super::trouble::{Kind, Trouble};
use super::{Git, Miss, config, trouble};
use crate::attempt::directories::{private, remove};
use crate::attempt::processes::Cut;

/// The mirror alone is fetched from.
const MIRROR: &str = "file";
/// Deeper than any history.
const ALL_HISTORY: &str = "--depth=2147483647";
/// Every branch and tag, under its own name.
const BRANCHES: &str = "+refs/heads/*:refs/heads/*";
const TAGS: &str = "+refs/tags/*:refs/tags/*";

/// What is to be checked out.
struct Sought<'a> {
    repository: &'a Repository,
    commit: CommitId,
    /// The ref on the server that stood for the commit, where one did.
    reference: Option<String>,
    /// It was tried before.
    again: bool,
}

impl Git<'_> {
    /// Puts `commit` into the work tree, or what the server says that the ref stands for where there is none.
    pub(super) async fn check_out_remote(
        &mut self,
        repository: &Repository,
        commit: Option<&CommitId>,
    ) -> Result<CommitId, Cut> {
        let git_config = self.directories.git_config();
        self.processes.aside(move || fs::write(git_config, config(&[]))).await??;
        let mut resolved = commit.cloned();
        let mut tries = Tries::new();
        loop {
            let mut in_submodule = false;
            match self.try_once(repository, &mut resolved, &mut in_submodule, tries.any()).await {
                Ok(commit) => return Ok(commit),
                Err(miss) => self.again(&mut tries, miss, self.asked(repository, in_submodule)).await?,
            }
        }
    }

    async fn try_once(
        &mut self,
        repository: &Repository,
        resolved: &mut Option<CommitId>,
        in_submodule: &mut bool,
        again: bool,
    ) -> Result<CommitId, Miss> {
        let sought = self.ask(repository, resolved.clone(), again).await?;
        *resolved = Some(sought.commit.clone());
        if again {
            self.empty_tree().await?;
        }
        self.by_mirror(&sought).await?;
        let tree = self.directories.tree();
        let arguments = ["checkout", "--quiet", "--detach", "--force", sought.commit.as_str()];
        self.run(&tree, MIRROR, &arguments).await?.checked()?;
        if repository.submodules {
            *in_submodule = true;
            self.submodules(repository).await?;
        }
        Ok(sought.commit)
    }

    /// Asks the server for the ref, also where the commit is known: whether it answers is what counts then.
    async fn ask<'b>(
        &mut self,
        repository: &'b Repository,
        known: Option<CommitId>,
        again: bool,
    ) -> Result<Sought<'b>, Miss> {
        let reference = repository.reference.as_deref().unwrap_or("HEAD");
        let known = known.or_else(|| CommitId::try_from(reference.to_ascii_lowercase()).ok());
        let names = names(reference);
        let mut arguments = vec!["ls-remote", "--quiet", "--", repository.url.as_str()];
        arguments.extend(names.iter().map(String::as_str));
        let (limit, home) = (Some(self.limits.ask), self.directories.home());
        let listed = self.run_within(limit, &home, &self.protocols(repository), &arguments).await?.checked()?;
        let found = choose(&listed, &names);
        let (commit, reference) = match (known, found) {
            (Some(known), Some((commit, name))) if known == commit => (known, Some(name)),
            (Some(known), _) => (known, None),
            (None, Some((commit, name))) => (commit, Some(name)),
            (None, None) => return Err(no_ref(reference).into()),
        };
        Ok(Sought { repository, commit, reference, again })
    }

    /// Gets the commit into the work tree's repository. A mirror that is broken is made anew, once.
    async fn by_mirror(&mut self, sought: &Sought<'_>) -> Result<(), Miss> {
        let Repository { url, history, .. } = sought.repository;
        let mirrors = self.mirrors.clone();
        let held = self.processes.beside(mirrors.hold(url, *history)).await?;
        let is_new = !held.exists();
        if is_new {
            self.processes.aside(move || mirrors.make_room()).await?;
        }
        match self.serve(&held, sought).await {
            // What nobody understands may come from what was there before.
            Err(Miss::Trouble(Trouble { kind, reason }))
                if kind == Kind::Broken || (kind == Kind::Other && !is_new) =>
            {
                (self.say)(&format!("the mirror of {url} on this worker is made anew: {reason}"));
                // The copy keeps it held, should the attempt end before it is gone.
                let broken = held.clone();
                self.processes.aside(move || broken.remove()).await??;
                self.empty_tree().await?;
                self.serve(&held, sought).await
            }
            done => done,
        }
    }

    async fn serve(&mut self, held: &Held, sought: &Sought<'_>) -> Result<(), Miss> {
        let (laid_out, commit) = (held.clone(), sought.commit.clone());
        let laid_out = self.processes.aside(move || laid_out.lay_out(&commit)).await?;
        laid_out.map_err(|error| broken(format!("laying it out: {error}")))?;
        match sought.repository.history {
            History::Shallow => self.mirror_commit(held, sought).await?,
            History::Full => self.mirror_all(held, sought).await?,
        }
        // Nobody but the mirror and this host takes part. What may be the host's fault is the mirror's the second time.
        self.copy(held, sought).await.map_err(|miss| match miss {
            Miss::Trouble(Trouble { kind: Kind::NoSpace, .. }) => miss,
            Miss::Trouble(Trouble { kind: Kind::Passing, .. }) if !sought.again => miss,
            Miss::Trouble(trouble) => broken(trouble.reason).into(),
            Miss::Cut(cut) => cut.into(),
        })
    }

    /// Sees to it that the mirror has the commit.
    async fn mirror_commit(&mut self, held: &Held, sought: &Sought<'_>) -> Result<(), Miss> {
        if self.has(held, &sought.commit).await? {
            return Ok(());
        }
        let commit = sought.commit.as_str();
        let by_id = format!("+{commit}:{}", kept(&sought.commit));
        match self.fetch(held, sought, &["--depth=1", "--no-tags"], &[&by_id]).await {
            Err(Miss::Trouble(Trouble { kind: Kind::RefusesIds, .. })) => {}
            done => return done,
        }
        if let Some(reference) = &sought.reference {
            let by_ref = format!("+{reference}:refs/windlass/asked");
            self.fetch(held, sought, &["--depth=1", "--no-tags"], &[&by_ref]).await?;
            if self.keep(held, &sought.commit).await? {
                return Ok(());
            }
        }
        // It isn't the tip of a ref any more: all of them are looked through.
        self.fetch(held, sought, &[ALL_HISTORY, "--prune"], &[BRANCHES, TAGS]).await?;
        if self.keep(held, &sought.commit).await? { Ok(()) } else { Err(no_commit(&sought.commit).into()) }
    }

    /// Sees to it that the mirror has every branch and tag as the server has them, and the commit.
    async fn mirror_all(&mut self, held: &Held, sought: &Sought<'_>) -> Result<(), Miss> {
        self.fetch(held, sought, &["--prune", "--update-shallow"], &[BRANCHES, TAGS]).await?;
        if self.keep(held, &sought.commit).await? {
            return Ok(());
        }
        let what = sought.reference.as_deref().unwrap_or(sought.commit.as_str());
        let by_name = format!("+{what}:{}", kept(&sought.commit));
        self.fetch(held, sought, &["--no-tags", "--update-shallow"], &[&by_name]).await?;
        if self.has(held, &sought.commit).await? { Ok(()) } else { Err(no_commit(&sought.commit).into()) }
    }

    /// Fetches from the server into the mirror.
    async fn fetch(
        &mut self,
        held: &Held,
        Sought { repository, .. }: &Sought<'_>,
        how: &[&str],
        what: &[&str],
    ) -> Result<(), Miss> {
        let mut arguments = vec!["--git-dir=.", "fetch", "--quiet", "--no-auto-gc"];
        arguments.extend(how.iter().chain(&["--", repository.url.as_str()]).chain(what));
        let limit = Some(self.limits.fetch);
        self.run_within(limit, &held.path, &self.protocols(repository), &arguments).await?.checked()?;
        Ok(())
    }

    /// Whether the mirror has been given the commit with all that belongs to it.
    async fn has(&mut self, held: &Held, commit: &CommitId) -> Result<bool, Miss> {
        let wanted = format!("{}^{{commit}}", kept(commit));
        let arguments = ["--git-dir=.", "rev-parse", "--verify", "--quiet", &wanted];
        let answer = self.run(&held.path, MIRROR, &arguments).await?;
        if !answer.err.is_empty() {
            // Of what isn't there git says nothing.
            return Err(broken(trouble::reason(&answer.err, answer.exit)).into());
        }
        Ok(answer.exit.is_success() && answer.out.trim() == commit.as_str())
    }

    /// Makes the mirror keep the commit, if it came with what was fetched.
    async fn keep(&mut self, held: &Held, commit: &CommitId) -> Result<bool, Miss> {
        let arguments = ["--git-dir=.", "update-ref", &kept(commit), commit.as_str()];
        Ok(self.run(&held.path, MIRROR, &arguments).await?.exit.is_success())
    }

    /// Makes the work tree's repository, with the commit out of the mirror and the server as its origin.
    async fn copy(&mut self, held: &Held, sought: &Sought<'_>) -> Result<(), Miss> {
        let (tree, commit) = (self.directories.tree(), sought.commit.as_str());
        let format = format!("--object-format={}", sought.commit.object_format());
        self.run(&tree, MIRROR, &["init", "--quiet", "--template=", &format]).await?.checked()?;
        let origin = ["remote", "add", "--", "origin", sought.repository.url.as_str()];
        self.run(&tree, MIRROR, &origin).await?.checked()?;
        let path = held.path.to_string_lossy();
        let mut arguments = vec!["fetch", "--quiet", "--no-auto-gc", "--no-write-fetch-head", "--no-tags"];
        match sought.repository.history {
            History::Shallow => arguments.extend(["--depth=1", "--", &*path, commit]),
            History::Full => {
                let branches = "+refs/heads/*:refs/remotes/origin/*";
                arguments.extend(["--update-shallow", "--", &*path, branches, TAGS, commit]);
            }
        }
        self.run(&tree, MIRROR, &arguments).await?.checked()?;
        Ok(())
    }

    /// Takes everything out of the work tree that an earlier try has put there.
    async fn empty_tree(&mut self) -> Result<(), Miss> {
        let tree = self.directories.tree();
        let emptied = self.processes.aside(move || remove(&tree).and_then(|()| private(&tree)));
        Ok::<_, io::Error>(emptied.await??)?;
        Ok(())
    }
}

/// The ref of a mirror that keeps the commit and all that belongs to it.
fn kept(commit: &CommitId) -> String {
    format!("refs/windlass/{}", commit.as_str())
}

/// The refs on a server that `reference` may stand for, the likeliest first. A tag is named with the commit under it.
pub fn names(reference: &str) -> Vec<String> {
    let all: &[&str] = match reference {
        "HEAD" => return vec![reference.to_owned()],
        full if full.starts_with("refs/") => &[""],
        // The server is asked for something that every repository has: whether it answers is what counts.
        commit if CommitId::try_from(commit.to_ascii_lowercase()).is_ok() => return vec!["HEAD".to_owned()],
        _ => &["refs/heads/", "refs/tags/"],
    };
    all.iter().flat_map(|below| [format!("{below}{reference}^{{}}"), format!("{below}{reference}")]).collect()
}

/// The first of `names` that a server has listed: its commit and its own name.
pub fn choose(listed: &str, names: &[String]) -> Option<(CommitId, String)> {
    let lines: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    names.iter().find_map(|name| {
        let (commit, _) = lines.iter().find(|(_, listed)| listed == name)?;
        let commit = CommitId::try_from((*commit).to_owned()).ok()?;
        Some((commit, name.trim_end_matches("^{}").to_owned()))
    })
}

fn no_ref(reference: &str) -> Trouble {
    let hint = if reference.len() >= 7 && reference.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        "; a commit is named by all of its digits"
    } else {
        ""
    };
    Trouble { kind: Kind::NoCommit, reason: format!("no ref {reference}{hint}") }
}

fn no_commit(commit: &CommitId) -> Trouble {
    Trouble { kind: Kind::NoCommit, reason: format!("no commit {commit} there") }
}

fn broken(reason: String) -> Trouble {
    Trouble { kind: Kind::Broken, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_taken_before_a_tag_and_a_tag_stands_for_its_commit() {
        let [a, b, c] = ["a", "b", "c"].map(|digit| digit.repeat(40));
        let listed = format!(
            "{a}\tHEAD\n{a}\trefs/heads/work\n{b}\trefs/tags/work\n{c}\trefs/tags/work^{{}}\n{b}\trefs/heads/x/main\n"
        );
        for (reference, found) in [
            ("HEAD", Some((&a, "HEAD"))),
            ("work", Some((&a, "refs/heads/work"))),
            ("refs/tags/work", Some((&c, "refs/tags/work"))),
            ("x/main", Some((&b, "refs/heads/x/main"))),
            ("main", None),
            ("wor?", None),
        ] {
            let chosen = choose(&listed, &names(reference));
            let chosen = chosen.as_ref().map(|(commit, name)| (commit.as_str(), name.as_str()));
            assert_eq!(chosen, found.map(|(commit, name)| (commit.as_str(), name)), "{reference}");
        }
        assert_eq!(names(&a), ["HEAD"]);
    }
}
