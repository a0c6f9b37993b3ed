//! Checkouts over HTTPS, without credentials.

use serde_json::json;
use shared::job::{AttemptEnd, Failure};
use shared::log::Stream;
use tests::git_https::GitHttps;
use tests::repo::Repo;
use tests::scripted::Staged;

use crate::HOST;

/// A repository behind HTTPS, and a worker that trusts its server.
struct Scene {
    staged: Staged,
    https: GitHttps,
    repo: Repo,
}

impl Scene {
    async fn set() -> Self {
        let repo = Repo::new();
        let https = GitHttps::start(repo.path());
        let certificate = https.certificate();
        let trust = |config: &mut worker::Config| {
            config.git_env = vec![("GIT_SSL_CAINFO".into(), certificate.into())];
        };
        Self { staged: Staged::start(HOST, trust).await, https, repo }
    }

    /// How a job ends that builds the repository of that name, and what it and Windlass have said.
    async fn built(&self, name: &str) -> (AttemptEnd, String, String) {
        let spec = json!({"repository": {"url": self.https.url(name)}, "steps": [{"run": "cat README"}]});
        let job = self.staged.script.offer(spec).await;
        let end = self.staged.script.end(job).await.end;
        let text = |stream| self.staged.script.text(job, stream);
        (end, text(Stream::Stdout), text(Stream::Windlass))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_repository_is_checked_out_over_https() {
    let scene = Scene::set().await;
    let (end, printed, said) = scene.built(".git").await;
    assert_eq!((end, &*printed), (AttemptEnd::Succeeded, "what a job builds\n"), "{said}");
    assert_eq!(said, format!("checked out {} (HEAD) of {}\n", scene.repo.head(), scene.https.url(".git")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_busy_is_asked_again() {
    let scene = Scene::set().await;
    scene.https.refuse(503, 2);
    let (end, printed, said) = scene.built(".git").await;
    assert_eq!((end, &*printed), (AttemptEnd::Succeeded, "what a job builds\n"), "{said}");
    for number in [1, 2] {
        assert!(said.contains(&format!("try {number} of 4 failed: ")), "{said}");
    }
    assert!(said.contains("error: 503; again in ") && !said.contains("try 3"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_asked_once() {
    let scene = Scene::set().await;
    let url = scene.https.url(".git");
    for (status, told) in [
        (401, format!("{url} asks for credentials")),
        (403, format!("{url} asks for credentials")),
        (404, format!("repository {url} not found")),
        (400, format!("git could not fetch {url}")),
    ] {
        let before = scene.https.requests();
        scene.https.refuse(status, 1000);
        match scene.built(".git").await.0 {
            AttemptEnd::Failed { failure: Failure::CheckoutFailed { transient: false, message } } => {
                assert!(message.starts_with(&told), "{status}: {message}");
            }
            end => panic!("{status}: {end:?}"),
        }
        assert_eq!(scene.https.requests() - before, 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_not_trusted() {
    let repo = Repo::new();
    let https = GitHttps::start(repo.path());
    let scene = Scene { staged: Staged::start(HOST, |_| {}).await, https, repo };
    match scene.built(".git").await.0 {
        AttemptEnd::Failed { failure: Failure::CheckoutFailed { transient: false, message } } => {
            assert!(message.contains("certificate"), "{message}");
        }
        end => panic!("{end:?}"),
    }
}
