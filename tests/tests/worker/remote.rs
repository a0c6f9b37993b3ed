//! Checkouts over the network: a real sshd or HTTPS server, real git, and a key that a played coordinator hands out.

use serde_json::{Value, json};
use shared::id::{CommitId, JobId};
use shared::job::{AttemptEnd, Failure, Progress};
use shared::log::Stream;
use tests::repo::Repo;
use tests::scripted::{Staged, until};
use tests::sshd::{KeyPair, Sshd};

use crate::HOST;

mod agent;
mod https;
mod kinds;
mod mirrors;
mod refusals;

/// The deploy key of every scene.
const KEY: &str = "app";

/// A repository behind an sshd, a key that opens it, and a worker whose coordinator has that key.
struct Scene {
    staged: Staged,
    sshd: Sshd,
    repo: Repo,
    key: KeyPair,
}

impl Scene {
    async fn set() -> Self {
        Self::with(Sshd::start(), KeyPair::new()).await
    }

    async fn with(sshd: Sshd, key: KeyPair) -> Self {
        Self::whose(sshd, key, |_| {}).await
    }

    /// With a worker that is to be otherwise.
    async fn configured(how: impl FnOnce(&mut worker::Config)) -> Self {
        Self::whose(Sshd::start(), KeyPair::new(), how).await
    }

    async fn whose(sshd: Sshd, key: KeyPair, how: impl FnOnce(&mut worker::Config)) -> Self {
        let repo = Repo::new();
        sshd.allow(&key, repo.path());
        let staged = Staged::start(HOST, how).await;
        let scene = Self { staged, sshd, repo, key };
        scene.register(&scene.key);
        scene
    }

    /// Makes the coordinator hand out that key, with the server's host key as it is now.
    fn register(&self, key: &KeyPair) {
        self.staged.script.register(KEY, &key.private, &self.sshd.known_hosts());
    }

    fn url(&self) -> String {
        // git serves the directory's own repository.
        self.sshd.url(&self.repo.path().join(".git"))
    }

    /// A job that runs `script` in what is checked out; `more` is said of the repository.
    fn spec(&self, script: &str, more: &Value) -> Value {
        let mut repository = json!({"url": self.url(), "deploy_key": KEY});
        repository.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"repository": repository, "steps": [{"run": script}]})
    }

    async fn offer(&self, script: &str, more: &Value) -> JobId {
        self.staged.script.offer(self.spec(script, more)).await
    }

    /// What the job of that script prints.
    async fn printed(&self, script: &str, more: &Value) -> String {
        let job = self.offer(script, more).await;
        self.output(job).await
    }

    /// What a job has printed that succeeds.
    async fn output(&self, job: JobId) -> String {
        let end = self.staged.script.end(job).await.end;
        assert_eq!(end, AttemptEnd::Succeeded, "{}", self.said(job));
        self.staged.script.text(job, Stream::Stdout)
    }

    /// How a job fails that does.
    async fn failure(&self, job: JobId) -> Failure {
        match self.staged.script.end(job).await.end {
            AttemptEnd::Failed { failure } => failure,
            end => panic!("{end:?}: {}", self.said(job)),
        }
    }

    /// Why a checkout fails that can't succeed.
    async fn refused(&self, job: JobId) -> String {
        match self.failure(job).await {
            Failure::CheckoutFailed { transient: false, message } => message,
            failure => panic!("{failure:?}: {}", self.said(job)),
        }
    }

    /// What Windlass itself says in the job's log.
    fn said(&self, job: JobId) -> String {
        self.staged.script.text(job, Stream::Windlass)
    }

    /// The commit that was told to be checked out.
    fn told(&self, job: JobId) -> Option<CommitId> {
        self.staged.script.seen().progress.iter().find_map(|(of, _, progress)| match progress {
            Progress::CheckedOut { commit } if *of == job => Some(commit.clone()),
            _ => None,
        })
    }

    /// Waits until the job's log says `words`.
    async fn until_said(&self, job: JobId, words: &str) {
        until(words, || self.said(job).contains(words)).await;
    }
}
