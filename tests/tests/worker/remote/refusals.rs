//! What can't be checked out, and what is tried again.

use std::time::Duration;

use serde_json::json;
use shared::clock;
use shared::job::{AttemptEnd, Failure};
use shared::time::Period;
use tests::scripted::until;
use tests::sshd::{CONNECTION, KeyPair};

use super::{KEY, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_server_refuses_fails_the_attempt_at_once() {
    let scene = Scene::set().await;
    scene.register(&KeyPair::new());
    let before = scene.sshd.said(CONNECTION);
    let job = scene.offer("true", &json!({})).await;
    match scene.failure(job).await {
        Failure::DeployKeyDenied { message } => {
            assert!(message.contains(&format!("refused deploy key {KEY}")), "{message}");
            assert!(message.contains("Permission denied (publickey)"), "{message}");
        }
        failure => panic!("{failure:?}"),
    }
    assert_eq!(scene.sshd.said(CONNECTION) - before, 1);
    let told = format!("checkout of {} failed: ", scene.url());
    assert!(scene.said(job).contains(&told) && !scene.said(job).contains("try 1"), "{}", scene.said(job));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_outlives_its_git_holds_nothing_up() {
    let scene = Scene::set().await;
    scene.sshd.babble();
    let begun = clock::instant();
    let job = scene.offer("true", &json!({})).await;
    let message = scene.refused(job).await;
    assert!(message.contains("protocol error: bad line length character"), "{message}");
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());

    // An order that comes while git is dead already and its ssh isn't is obeyed, or comes after the end.
    let before = scene.sshd.said("Accepted publickey");
    let job = scene.offer("true", &json!({})).await;
    until("the connection", || scene.sshd.said("Accepted publickey") > before).await;
    let asked = clock::instant();
    scene.staged.script.stop(job, Period::from_secs(1000)).await;
    let end = scene.staged.script.end(job).await.end;
    assert!(!matches!(end, AttemptEnd::Succeeded), "{end:?}");
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_that_has_changed_is_refused_by_name_and_not_tried_again() {
    let mut scene = Scene::set().await;
    scene.sshd.change_host_key();
    let before = scene.sshd.said(CONNECTION);
    let job = scene.offer("true", &json!({})).await;
    let message = scene.refused(job).await;
    let host = scene.sshd.known_hosts();
    let host = host.split(' ').next().unwrap();
    assert!(message.contains("isn't the one pinned with deploy key app"), "{message}");
    assert!(message.contains(&format!("Host key for {host} has changed")), "{message}");
    assert_eq!(scene.sshd.said(CONNECTION) - before, 1);

    // No more does a host that nothing is pinned for.
    scene.staged.script.register(KEY, &scene.key.private, "elsewhere.example ssh-ed25519 AAAA");
    let job = scene.offer("true", &json!({})).await;
    let message = scene.refused(job).await;
    assert!(message.contains("don't vouch for") && message.contains(host), "{message}");
    assert_eq!(scene.sshd.said(CONNECTION) - before, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let scene = Scene::set().await;
    let url = scene.url();
    let nowhere = "1".repeat(40);
    let short = &scene.repo.head()[..8];
    for (reference, told) in [
        ("none", "no ref none".to_owned()),
        (short, format!("no ref {short}; a commit is named by all of its digits")),
        (&nowhere, "not our ref".to_owned()),
    ] {
        let job = scene.offer("true", &json!({"ref": reference})).await;
        let message = scene.refused(job).await;
        assert!(message.starts_with(&format!("ref {reference} not found in {url}: ")), "{message}");
        assert!(message.contains(&told), "{message}");
        let said = scene.said(job);
        assert!(said.starts_with(&format!("checkout of {url} failed: ")) && said.contains(&told), "{said}");
    }
    for path in [scene.repo.path().join("none"), scene.staged.dir.path().to_owned()] {
        let url = scene.sshd.url(&path);
        let job = scene.offer("true", &json!({"url": url})).await;
        let message = scene.refused(job).await;
        assert!(message.starts_with(&format!("repository {url} not found")), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_tried_again_until_it_is_back() {
    let mut scene = Scene::set().await;
    scene.sshd.stop();
    let job = scene.offer("cat README", &json!({})).await;
    scene.until_said(job, "try 1 of 4 failed: connect to host 127.0.0.1").await;
    scene.sshd.go_on();
    assert_eq!(scene.output(job).await, "what a job builds\n");
    assert!(scene.said(job).contains("Connection refused; again in "), "{}", scene.said(job));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_fails_the_attempt_as_something_that_may_pass() {
    let mut scene = Scene::set().await;
    scene.sshd.stop();
    let job = scene.offer("true", &json!({})).await;
    match scene.failure(job).await {
        Failure::CheckoutFailed { transient: true, message } => {
            assert!(message.contains("can't be reached: connect to host 127.0.0.1"), "{message}");
        }
        failure => panic!("{failure:?}"),
    }
    let said = scene.said(job);
    assert_eq!(said.matches(" of 4 failed: ").count(), 4, "{said}");
}
