//! How a program becomes a worker, and stays the same one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use shared::job::AttemptEnd;
use shared::secret::Secret;
use tests::scripted::Script;
use worker::Error;

use crate::HOST;

fn identity(dir: &Path) -> std::path::PathBuf {
    dir.join("data/worker/identity.json")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_enrols_once_and_proves_itself_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::start().await;
    assert!(!worker::is_enrolled(&dir.path().join("data")));
    let first = script.worker(HOST, dir.path(), |config| config.name = "builder".to_owned()).await;
    let job = script.offer(json!({"steps": [{"run": "echo said"}]})).await;
    assert_eq!(script.end(job).await.end, AttemptEnd::Succeeded);
    first.stop().await;
    assert!(worker::is_enrolled(&dir.path().join("data")));
    assert_eq!(std::fs::metadata(identity(dir.path())).unwrap().permissions().mode() & 0o777, 0o600);

    // With an identity a token is ignored, whatever it is.
    let wrong = Secret::new("another token".to_owned());
    let second = script.worker(HOST, dir.path(), |config| config.join = Some(wrong)).await;
    let third =
        script.until("the second start", |seen| seen.hellos.iter().find(|hello| hello.start == 2).cloned()).await;
    second.stop().await;
    let without = script.worker(HOST, dir.path(), |config| config.join = None).await;
    script.until("the third start", |seen| seen.hellos.iter().any(|hello| hello.start == 3).then_some(())).await;
    without.stop().await;
    let seen = script.seen();
    assert_eq!(seen.enrols, ["builder"]);
    assert_eq!(seen.unproved, 0);
    assert!(seen.hellos.iter().all(|hello| hello.worker == third.worker));
    assert_eq!(seen.hellos[0].start, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_that_is_refused_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::start().await;
    let wrong = Secret::new("no such token".to_owned());
    let error = script.try_worker(HOST, dir.path(), |config| config.join = Some(wrong)).await.err().unwrap();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(error.to_string(), "the join token was refused: it is not known");
    assert!(!identity(dir.path()).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_and_a_token_the_start_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::start().await;
    let error = script.try_worker(HOST, dir.path(), |config| config.join = None).await.err().unwrap();
    let said = error.to_string();
    assert!(said.contains("WINDLASS_JOIN_TOKEN") && said.contains("identity.json"), "{said}");
    assert!(script.seen().enrols.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_that_nobody_answers_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::start().await;
    script.seen().lose_enrols = 2;
    let worker = script.worker(HOST, dir.path(), |_| {}).await;
    assert_eq!(script.seen().enrols.len(), 3);
    worker.stop().await;
}
