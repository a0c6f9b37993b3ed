//! The master keys of a coordinator: that they are those of the others, and how they are exchanged.

use std::path::Path;

use coordinator::StartError;
use coordinator::fault;
use coordinator::vault::MasterKeys;
use serde_json::json;
use shared::secret::Secrets;
use shared::spec::parse_single;
use shared::wire::{KeyReply, PRIVATE_KEY_SECRET};
use tests::played::{DEADLINE, Hand, Played, Turn, client};
use tests::wait;

use crate::keys::{needs, register};

/// A master key of that id, as it is given.
fn master_key(id: &str) -> String {
    MasterKeys::generate().1.reveal().replacen("local", id, 1)
}

async fn refused(path: &Path, keys: &str) -> String {
    let Err(error) = Played::start_with(path, keys).await else { panic!("it starts") };
    assert!(matches!(error, StartError::MasterKeys(_)), "{error}");
    let said = format!("{error} {error:?}");
    for key in keys.split(',') {
        assert!(!said.contains(key.split_once(':').unwrap().1), "the key itself is not told");
    }
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_with_other_master_keys_than_the_others_does_not_start() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (old, new) = (master_key("old"), master_key("new"));
    Played::start_with(&path, &old).await.unwrap().coordinator.stop().await;
    let said = refused(&path, &master_key("old")).await;
    assert!(said.contains("the master key old is not the one that the database knows"), "{said}");
    let said = refused(&path, &new).await;
    assert!(said.contains("the master key old is missing") && said.contains("windlass key rekey"), "{said}");
    Played::start_with(&path, &format!("{new},{old}")).await.unwrap().coordinator.stop().await;
    let said = refused(&path, &old).await;
    assert!(said.contains("the master key new is missing"), "{said}");
    Played::start_with(&path, &format!("{old},{new}")).await.unwrap().coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn master_keys_are_exchanged_while_jobs_and_deploy_keys_stay_readable() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (old, new) = (master_key("old"), master_key("new"));
    let played = Played::start_with(&path, &old).await.unwrap();
    register(&played, "app").await;
    let mut spec = needs("app");
    spec["secrets"] = json!({"TOKEN": "hunter2-hunter2"});
    let id = played.submit(spec.clone()).await;
    let submission = parse_single(&spec, Some("once".to_owned())).unwrap();
    let first = played.service.submit(&client(), vec![submission.clone()]).await.unwrap();
    played.coordinator.stop().await;

    let played = Played::start_with(&path, &format!("{new},{old}")).await.unwrap();
    let again = played.service.submit(&client(), vec![submission]).await.unwrap();
    assert!(again[0].existing && again[0].job.id == first[0].job.id, "a repetition is known under another first key");
    let other = parse_single(&needs("app"), Some("once".to_owned())).unwrap();
    let reused = played.service.submit(&client(), vec![other]).await;
    assert_eq!(reused, Err(coordinator::service::Error::KeyReused(0)));
    let moved = played.service.rekey(&client().into()).await.unwrap();
    assert_eq!((moved.values, moved.complete), (3, true), "a deploy key and the secrets of two jobs");
    assert_eq!(played.service.rekey(&client().into()).await.unwrap().values, 0, "once more changes nothing");
    let line = played.store.audited(Some("new"), 10).await.unwrap().pop().unwrap();
    assert_eq!((line.action.as_str(), line.outcome.as_str()), ("vault.rekey", "3 values moved on to this master key"));
    played.coordinator.stop().await;

    let played = Played::start_with(&path, &new).await.expect("nothing is stored under the old key any more");
    let hand = Hand::arrive(&played).await;
    let grant = hand.must_get(id).await;
    assert!(grant.secrets.is_some());
    let (request, once) = hand.key_request(id, grant.attempt, "app");
    let KeyReply::Sealed { key } = hand.ask_key(&request).await else { panic!("it isn't sealed") };
    let Secrets(secrets) = once.open(&key).unwrap();
    assert!(secrets[PRIVATE_KEY_SECRET].reveal().contains("OPENSSH PRIVATE KEY"));
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_master_key_that_was_forgotten_elsewhere_is_known_again() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (master_key("old"), master_key("new"));
    let played = Played::start_with(&dir.path().join("db"), &format!("{new},{old}")).await.unwrap();
    let (owner, store) = (played.service.holdings().id(), &played.store);
    let known =
        async || -> Vec<String> { store.master_keys().await.unwrap().into_iter().map(|check| check.id).collect() };
    // As a rekey at a coordinator with the other order does; right after it the own one notes its key before it ends.
    store.remove_master_keys(owner, &["new".to_owned()]).await.unwrap();
    assert!(played.service.rekey(&client().into()).await.unwrap().complete);
    assert_eq!(known().await, ["new"]);
    store.remove_master_keys(owner, &["new".to_owned()]).await.unwrap();
    let again = async {
        while known().await != ["new"] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("it is noted again");
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_master_key_is_known_again_also_after_a_recovery_under_another_id() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start_with(&dir.path().join("db"), &master_key("new")).await.unwrap();
    let (before, store) = (played.service.holdings().id(), &played.store);
    fault::arm("committer.committed", 1);
    let lost = played.service.submit(&client(), vec![parse_single(&needs("app"), None).unwrap()]).await;
    assert!(lost.is_err(), "its answer is lost: {lost:?}");
    let recovered = || Some(played.service.holdings().id()).filter(|id| *id != before);
    let owner = wait::until(DEADLINE, "it has recovered under another id", recovered).await;
    store.remove_master_keys(owner, &["new".to_owned()]).await.unwrap();
    let again = async {
        while store.master_keys().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("it is noted again");
    played.coordinator.stop().await;
}
