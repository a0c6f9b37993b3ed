//! Deploy keys on their way: who gets one, who doesn't, and what the audit says of it.

use coordinator::keys::{Must, NewKey, NewPair};
use coordinator::store::{AuditLine, DeployKey, KeyPut};
use coordinator::vault::{MasterKeys, Vault};
use serde_json::{Value, json};
use shared::bus::{Address, Bus, Error as BusError, Service};
use shared::clock;
use shared::id::{Attempt, Instance, JobId, RequestId};
use shared::job::Progress;
use shared::seal::{OneTimeKey, Sealed};
use shared::secret::{Secret, Secrets};
use shared::wire::{self, Answer, Control, Heard, KNOWN_HOSTS_SECRET, KeyReply, PRIVATE_KEY_SECRET, ReportKind};
use tests::played::{DEADLINE, Hand, Played, Turn, client};

pub const HOSTS: &str =
    "git.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

/// A job whose repository that key opens.
pub fn needs(key: &str) -> Value {
    json!({"repository": {"url": "git@git.example.org:app.git", "deploy_key": key}, "steps": [{"run": "true"}]})
}

/// Registers a fresh key as anybody would.
pub async fn register(played: &Played, name: &str) -> DeployKey {
    let new = NewKey { pair: Some(NewPair::Generated), known_hosts: Some(HOSTS.to_owned()) };
    played.service.put_key(&client().into(), name, &new, Must::BeAsItMay).await.expect("the key is stored").key
}

/// Stores a key as it is, as another replica or whoever has the database could, and tells nobody.
pub async fn store(played: &Played, key: &DeployKey, replaces: Option<u32>) {
    let owner = played.service.holdings().id();
    let line = AuditLine {
        at: clock::now(),
        origin: None,
        actor: client(),
        action: "deploy_key.put".to_owned(),
        subject: key.name.clone(),
        outcome: String::new(),
        job: None,
        attempt: None,
        request: None,
    };
    assert_eq!(played.store.put_key(owner, key, replaces, &line).await, Ok(KeyPut::Stored));
}

/// What the asker finds in a sealed answer.
fn opened(once: &OneTimeKey, sealed: &Sealed) -> Secrets {
    once.open(sealed).expect("it is sealed to the asker")
}

fn why(reply: &KeyReply) -> &str {
    match reply {
        KeyReply::Denied { why } | KeyReply::Unavailable { why } => why,
        KeyReply::Sealed { .. } | KeyReply::NotRegistered {} => panic!("{reply:?}"),
    }
}

/// The outcomes of what was asked about a key, the oldest first.
async fn asked(played: &Played, key: &str) -> Vec<String> {
    let lines = played.store.audited(Some(key), 100).await.expect("the audit");
    lines.into_iter().rev().filter(|line| line.action == "deploy_key.ask").map(|line| line.outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_sealed_to_the_holder_of_the_attempt_and_every_answer_is_audited() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(needs("app")).await;
    let grant = hand.must_get(id).await;
    let (request, _) = hand.key_request(id, grant.attempt, "app");
    assert_eq!(hand.ask_key(&request).await, KeyReply::NotRegistered {});
    let key = register(&played, "app").await;
    let (request, once) = hand.key_request(id, grant.attempt, "app");
    let KeyReply::Sealed { key: sealed } = hand.ask_key(&request).await else { panic!("it isn't sealed") };
    let Secrets(secrets) = opened(&once, &sealed);
    assert_eq!(secrets[KNOWN_HOSTS_SECRET].reveal(), HOSTS);
    assert!(secrets[PRIVATE_KEY_SECRET].reveal().contains("BEGIN OPENSSH PRIVATE KEY"));
    assert!(!format!("{sealed:?}").contains("OPENSSH"));

    let lines = played.store.audited(Some("app"), 10).await.unwrap();
    assert_eq!(asked(&played, "app").await, ["not_registered", "sealed"]);
    assert_eq!(lines[0].actor.to_string(), format!("worker:{}", hand.id));
    assert_eq!((lines[0].job, lines[0].attempt, lines[0].request), (Some(id), Some(Attempt(1)), Some(request.request)));
    assert_eq!(lines[1].outcome, format!("version 1, {}", key.fingerprint));
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_have_a_key_is_denied_and_audited() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let (hand, other) = (Hand::arrive(&played).await, Hand::arrive(&played).await);
    register(&played, "app").await;
    register(&played, "theirs").await;
    let id = played.submit(needs("app")).await;
    let first = hand.must_get(id).await;
    let decline = ReportKind::Decline { claim: None, why: "once more".to_owned() };
    assert_eq!(hand.say(id, first.attempt, decline).await, Answer::Taken);
    let second = hand.must_get(id).await;

    let ask = async |hand: &Hand, job: JobId, attempt, key: &str| {
        let (request, _) = hand.key_request(job, attempt, key);
        why(&hand.ask_key(&request).await).to_owned()
    };
    assert_eq!(ask(&hand, id, first.attempt, "app").await, "the attempt is not current");
    assert_eq!(ask(&other, id, second.attempt, "app").await, "another worker holds the attempt");
    let former = Hand { instance: Instance(clock::random_uuid()), ..hand.clone() };
    assert_eq!(ask(&former, id, second.attempt, "app").await, "another worker holds the attempt");
    assert_eq!(ask(&hand, id, second.attempt, "theirs").await, "the job does not name this key");
    assert_eq!(ask(&hand, id, second.attempt, "no key\0at all").await, "the job does not name this key");
    let nobody = JobId::mint(id.shard(), clock::now(), [7; 10]);
    assert_eq!(ask(&hand, nobody, Attempt(1), "app").await, "there is no such job");

    let (request, _) = hand.key_request(id, second.attempt, "app");
    assert!(matches!(hand.ask_key(&request).await, KeyReply::Sealed { .. }));
    let (fresh, _) = hand.key_request(id, second.attempt, "app");
    let replayed = wire::KeyRequest { recipient: fresh.recipient, ..request };
    assert_eq!(why(&hand.ask_key(&replayed).await), "the request was answered before");

    let started = ReportKind::Progress { number: 1, progress: Progress::StepStarted { step: 0 } };
    assert_eq!(hand.say(id, second.attempt, started).await, Answer::Taken);
    assert_eq!(ask(&hand, id, second.attempt, "app").await, "the attempt is not preparing");

    let expected = [
        "denied: the attempt is not current",
        "denied: another worker holds the attempt",
        "denied: another worker holds the attempt",
        "denied: there is no such job",
        "sealed",
        "denied: the request was answered before",
        "denied: the attempt is not preparing",
    ];
    assert_eq!(asked(&played, "app").await, expected);
    assert_eq!(asked(&played, "theirs").await, ["denied: the job does not name this key"]);
    assert_eq!(asked(&played, "no?key?at?all").await, ["denied: the job does not name this key"]);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_belong_to_its_subject_is_not_answered() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let (hand, other) = (Hand::arrive(&played).await, Hand::arrive(&played).await);
    register(&played, "app").await;
    let id = played.submit(needs("app")).await;
    let grant = hand.must_get(id).await;
    let (request, _) = hand.key_request(id, grant.attempt, "app");
    let within = std::time::Duration::from_millis(300);
    let other_shard = shared::id::Shard::all().find(|shard| *shard != id.shard()).unwrap();
    for (speaker, shard) in [(&other, id.shard()), (&hand, other_shard)] {
        let to = Address::Key(shard, speaker.id);
        let body = speaker.key.prove(&to, &wire::encode(&request));
        assert_eq!(played.bus.request(&to, body, within).await, Err(BusError::TimedOut(to)));
    }
    assert_eq!(asked(&played, "app").await, [""; 0]);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_asked_in_vain_is_told_when_its_key_is_there() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let (hand, other) = (Hand::arrive(&played).await, Hand::arrive(&played).await);
    let mut orders = played.bus.serve(Service::Worker(hand.id)).await.unwrap();
    let id = played.submit(needs("app")).await;
    let grant = hand.must_get(id).await;
    let (request, _) = hand.key_request(id, grant.attempt, "app");
    assert_eq!(hand.ask_key(&request).await, KeyReply::NotRegistered {});
    // Neither somebody else who asks nor a request that comes a second time takes its place from it.
    assert_eq!(why(&hand.ask_key(&request).await), "the request was answered before");
    let (theirs, _) = other.key_request(id, grant.attempt, "app");
    assert_eq!(why(&other.ask_key(&theirs).await), "another worker holds the attempt");
    register(&played, "other").await;
    register(&played, "app").await;
    let expected = Control::LookForKey { job: id, attempt: grant.attempt };
    // It doesn't hear for a while.
    for _ in 0..4 {
        let order = tokio::time::timeout(DEADLINE, orders.recv()).await.expect("an order").unwrap();
        assert_eq!(wire::decode::<Control>(&order.body).unwrap(), expected);
    }
    let order = tokio::time::timeout(DEADLINE, orders.recv()).await.expect("an order").unwrap();
    order.reply.send(wire::encode(&Heard {})).unwrap();
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_gave_the_attempt_back_is_not_told() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let mut orders = played.bus.serve(Service::Worker(hand.id)).await.unwrap();
    let (id, other) = (played.submit(needs("app")).await, played.submit(needs("app")).await);
    let grants = [hand.must_get(id).await, hand.must_get(other).await];
    for grant in &grants {
        let (request, _) = hand.key_request(grant.job, grant.attempt, "app");
        assert_eq!(hand.ask_key(&request).await, KeyReply::NotRegistered {});
    }
    let given_back = ReportKind::GiveBack { log: shared::log::LogSummary::default() };
    assert_eq!(hand.say(id, grants[0].attempt, given_back).await, Answer::Taken);
    register(&played, "app").await;
    let mut told = Vec::new();
    let within = std::time::Duration::from_secs(2);
    while let Ok(Some(order)) = tokio::time::timeout(within, orders.recv()).await {
        told.push(wire::decode::<Control>(&order.body).unwrap());
        order.reply.send(wire::encode(&Heard {})).unwrap();
    }
    let expected = Control::LookForKey { job: other, attempt: grants[1].attempt };
    assert_eq!(
        told.into_iter().filter(|order| matches!(order, Control::LookForKey { .. })).collect::<Vec<_>>(),
        [expected]
    );
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ciphertexts_that_were_swapped_are_handed_to_nobody_and_the_answer_says_why() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let (app, other) = (register(&played, "app").await, register(&played, "other").await);
    let swapped = DeployKey { private_key: other.private_key, version: 2, ..app.clone() };
    store(&played, &swapped, Some(1)).await;
    let id = played.submit(needs("app")).await;
    let grant = hand.must_get(id).await;
    let (request, _) = hand.key_request(id, grant.attempt, "app");
    let expected = "the deploy key app can't be opened: stored secrets are damaged or belong elsewhere";
    let KeyReply::Denied { why } = hand.ask_key(&request).await else { panic!("it isn't denied") };
    assert_eq!(why, expected);
    assert_eq!(asked(&played, "app").await, [format!("denied: {expected}")]);

    // A key whose master key isn't here may be handed out by another replica.
    let (_, elsewhere) = MasterKeys::generate();
    let elsewhere = Vault::new(MasterKeys::parse(&elsewhere.reveal().replacen("local", "elsewhere", 1)).unwrap());
    let private_key = elsewhere.encrypt_key("app", 3, &Secret::new("a private key".to_owned())).unwrap();
    store(&played, &DeployKey { private_key, version: 3, ..app }, Some(2)).await;
    let (request, _) = hand.key_request(id, grant.attempt, "app");
    let KeyReply::Unavailable { why } = hand.ask_key(&request).await else { panic!("it isn't unavailable") };
    assert_eq!(why, "the master key elsewhere is needed and not given");
    let last = asked(&played, "app").await.pop();
    assert_eq!(last.as_deref(), Some("unavailable: the master key elsewhere is needed and not given"));
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_lost_is_asked_for_anew_under_another_request() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    register(&played, "app").await;
    let id = played.submit(needs("app")).await;
    let grant = hand.must_get(id).await;
    let (request, _) = hand.key_request(id, grant.attempt, "app");
    coordinator::fault::arm_with("intake.key_reply", coordinator::fault::Fault::Lose, 1);
    let to = Address::Key(id.shard(), hand.id);
    let body = hand.key.prove(&to, &wire::encode(&request));
    let within = std::time::Duration::from_secs(2);
    assert_eq!(played.bus.request(&to, body, within).await, Err(BusError::TimedOut(to)));
    let again = wire::KeyRequest { request: RequestId(clock::random_uuid()), ..request };
    assert!(matches!(hand.ask_key(&again).await, KeyReply::Sealed { .. }));
    assert_eq!(asked(&played, "app").await, ["sealed", "sealed"], "what was lost may have been heard");
    played.coordinator.stop().await;
}
