//! Deploy keys as a worker fetches them: first of all, again and again, and never at the price of its slot for long.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use shared::clock;
use shared::id::JobId;
use shared::job::{AttemptEnd, Failure, KeyAnswer, Limit};
use shared::log::LogSummary;
use shared::spec::{KeyBackoff, KeyRetry};
use shared::time::Period;
use shared::wire::KeyReply;
use tests::repo::Repo;
use tests::scripted::{Script, Staged, until};
use tests::sshd::KeyPair;

use crate::HOST;
use KeyAnswer::{Denied, NotRegistered, Sealed, Unavailable};

/// Longer than any story: a wait that only something else can end.
const LONG: &str = "1h";

/// A job whose repository, which is on this host, names the deploy key `app` and says `more` about it.
fn spec(repo: &Repo, more: &Value) -> Value {
    let mut key = json!({"name": "app"});
    key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"repository": {"url": repo.url(), "deploy_key": key}, "steps": [{"run": "true"}]})
}

/// A policy of so many tries, with that wait between them.
fn retry(tries: u32, wait: &str) -> Value {
    json!({"retry": {"tries": tries, "backoff": "constant", "first": wait, "max": wait, "deadline": "1d"}})
}

/// The numbers and answers of the job's tries.
fn tries(script: &Script, job: JobId) -> Vec<(u32, KeyAnswer)> {
    script.key_tries(job).into_iter().map(|(number, answer, ..)| (number, answer)).collect()
}

/// Offers a job with that key, and waits until it waits for the key.
async fn waiting(staged: &Staged, repo: &Repo, more: &Value) -> JobId {
    let job = staged.script.offer(spec(repo, more)).await;
    let tried = staged.script.until("a try", |seen| (!seen.progress.is_empty()).then_some(()));
    tried.await;
    job
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

fn unavailable() -> KeyReply {
    KeyReply::Unavailable { why: "the store is away".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_there_is_fetched_before_anything_else() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.register("app", &KeyPair::new().private, "a host key");
    let job = staged.script.offer(spec(&repo, &json!({}))).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert_eq!(staged.script.key_tries(job), [(1, Sealed, None, None)]);
    let (_, number, first) = staged.script.seen().progress[0].clone();
    assert!(number == 1 && matches!(first, shared::job::Progress::KeyTry { .. }), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_ends_the_wait_at_once() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |_| {}).await;
    let job = waiting(&staged, &repo, &retry(5, LONG)).await;
    let [(1, NotRegistered, None, Some(next_in))] = staged.script.key_tries(job)[..] else { panic!("one try") };
    assert!((1_800_000..=3_600_000).contains(&next_in.millis()), "{next_in}");
    // A word for nothing wakes it as well, and uses up nothing.
    staged.script.look_for_key(job).await;
    staged.script.until("another try", |seen| (seen.progress.len() == 2).then_some(())).await;
    staged.script.register("app", &KeyPair::new().private, "a host key");
    staged.script.look_for_key(job).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert_eq!(tries(&staged.script, job), [(1, NotRegistered), (2, NotRegistered), (3, Sealed)]);
    let left = staged.script.key_tries(job)[1].3.unwrap();
    assert!(left <= next_in, "the wait that was interrupted goes on: {left} of {next_in}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_during_a_request_ends_the_next_wait() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.register("app", &KeyPair::new().private, "a host key");
    {
        let mut seen = staged.script.seen();
        seen.keys.answers.push_back(KeyReply::NotRegistered {});
        seen.keys.wake_first = 1;
    }
    let job = staged.script.offer(spec(&repo, &retry(2, LONG))).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert_eq!(tries(&staged.script, job), [(1, NotRegistered), (2, Sealed)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_tries_are_spent_the_job_is_parked_and_the_slot_is_free() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |config| config.slots = 1).await;
    let mut more = retry(3, "10ms");
    more["wait"] = json!("7m");
    let job = staged.script.offer(spec(&repo, &more)).await;
    let gone = staged.script.let_go(job).await;
    assert_eq!(gone.parked, Some(("app".to_owned(), Period::from_secs(7 * 60))));
    assert_eq!(gone.log, LogSummary::default(), "nothing of it was done");
    assert_eq!(tries(&staged.script, job), [1, 2, 3].map(|number| (number, NotRegistered)));
    let waits: Vec<_> = staged.script.key_tries(job).iter().map(|(.., next_in)| next_in.is_some()).collect();
    assert_eq!(waits, [true, true, false]);

    let next = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    assert_eq!(staged.script.end(next).await.end, AttemptEnd::Succeeded);
    assert!(staged.script.seen().ends.iter().all(|end| end.job == next), "a parked attempt has no end");
    let data = staged.dir.path().join("data");
    until("nothing left on disk", || entries(&data.join("work")) + tests::spooled::names(&data).len() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_want_to_be_parked_fails_after_the_same_tries() {
    let repo = Repo::new();
    // The job says nothing of how to try: the worker's own policy counts.
    let millis = Period::from_millis;
    let own = KeyRetry {
        tries: 2,
        backoff: KeyBackoff::Fibonacci,
        first: millis(5),
        max: millis(10),
        deadline: Period::from_secs(60),
    };
    let staged = Staged::start(HOST, |config| config.key_retry = own).await;
    let job = staged.script.offer(spec(&repo, &json!({"on_missing": "fail"}))).await;
    let message = "the deploy key app is not registered (`windlass key add app` registers it)".to_owned();
    let failure = Failure::DeployKeyMissing { message };
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Failed { failure });
    assert_eq!(tries(&staged.script, job), [(1, NotRegistered), (2, NotRegistered)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_denied_is_not_asked_for_again() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |_| {}).await;
    let why = "x".repeat(600);
    staged.script.seen().keys.answers.push_back(KeyReply::Denied { why: why.clone() });
    let job = staged.script.offer(spec(&repo, &retry(5, "10ms"))).await;
    let failure = Failure::DeployKeyDenied { message: format!("the deploy key app was denied: {}", &why[..500]) };
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Failed { failure });
    assert_eq!(staged.script.key_tries(job), [(1, Denied, Some(why[..500].to_owned()), None)]);
    assert_eq!(staged.script.seen().keys.requests.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_that_nobody_answers_are_counted_apart_and_each_request_is_new() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.register("app", &KeyPair::new().private, "a host key");
    {
        let mut seen = staged.script.seen();
        seen.keys.lose = 1;
        seen.keys.answers = [KeyReply::NotRegistered {}, unavailable(), KeyReply::NotRegistered {}].into();
    }
    let job = staged.script.offer(spec(&repo, &retry(3, "10ms"))).await;
    let end = staged.script.end(job).await;
    assert_eq!(end.end, AttemptEnd::Succeeded);
    let expected = [(1, Unavailable), (1, NotRegistered), (2, Unavailable), (2, NotRegistered), (3, Sealed)];
    assert_eq!(tries(&staged.script, job), expected);
    let why = staged.script.key_tries(job)[2].2.clone();
    assert_eq!(why.as_deref(), Some("the store is away"));

    let seen = staged.script.seen();
    let requests = &seen.keys.requests;
    assert_eq!(requests.iter().map(|request| request.request.to_string()).collect::<BTreeSet<_>>().len(), 5);
    assert_eq!(requests.iter().map(|request| &request.recipient).collect::<BTreeSet<_>>().len(), 5);
    for request in requests {
        assert_eq!((request.job, request.attempt.0, request.key.as_str()), (job, 1, "app"));
        assert_eq!((request.worker, request.instance), (seen.hellos[0].worker, end.instance));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_whose_key_nobody_can_say_is_given_back() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |config| {
        config.slots = 1;
        config.key_unanswered = Some(Duration::from_millis(700));
    })
    .await;
    staged.script.seen().keys.lose = u32::MAX;
    let job = staged.script.offer(spec(&repo, &json!({"on_missing": "fail"}))).await;
    assert_eq!(staged.script.let_go(job).await.parked, None);
    let told = tries(&staged.script, job);
    assert!(told.len() >= 2 && told.iter().all(|(_, answer)| *answer == Unavailable), "{told:?}");
    let next = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    assert_eq!(staged.script.end(next).await.end, AttemptEnd::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_wait_at_once_and_a_request_too() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |_| {}).await;
    let job = waiting(&staged, &repo, &retry(5, LONG)).await;
    let asked = clock::instant();
    staged.script.stop(job, Period::from_secs(1000)).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?}", asked.elapsed());

    {
        let mut seen = staged.script.seen();
        (seen.keys.lose, seen.keys.hold) = (u32::MAX, true);
    }
    let job = staged.script.offer(spec(&repo, &json!({}))).await;
    staged.script.asked(2).await;
    let asked = clock::instant();
    staged.script.stop(job, Period::from_secs(1000)).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_own_time_ends_the_wait_too() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |_| {}).await;
    let mut spec = spec(&repo, &retry(5, LONG));
    spec["timeout"] = json!("300ms");
    let job = staged.script.offer(spec).await;
    let failure = Failure::TimedOut { limit: Limit::Job };
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Failed { failure });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetcher_that_dies_twice_goes_on_counting() {
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let repo = Repo::new();
    let staged = Staged::start(HOST, |config| {
        config.faults = Some(|point| {
            let dies = point == "fetcher" && (1..=2).contains(&TURNS.fetch_add(1, Ordering::Relaxed));
            assert!(!dies, "a story wants it");
        });
    })
    .await;
    staged.script.register("app", &KeyPair::new().private, "a host key");
    staged.script.seen().keys.answers = [KeyReply::NotRegistered {}, KeyReply::NotRegistered {}].into();
    let job = staged.script.offer(spec(&repo, &retry(3, "10ms"))).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert_eq!(tries(&staged.script, job), [(1, NotRegistered), (2, NotRegistered), (3, Sealed)]);
    assert_eq!(TURNS.load(Ordering::Relaxed), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetcher_that_dies_of_what_has_woken_it_swallows_nothing() {
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let repo = Repo::new();
    let staged = Staged::start(HOST, |config| {
        config.key_look_every = Some(Duration::from_hours(1));
        config.faults = Some(|point| {
            let dies = point == "fetcher" && TURNS.fetch_add(1, Ordering::Relaxed) == 1;
            assert!(!dies, "a story wants it");
        });
    })
    .await;
    let job = waiting(&staged, &repo, &retry(5, LONG)).await;
    staged.script.register("app", &KeyPair::new().private, "a host key");
    staged.script.look_for_key(job).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert_eq!(tries(&staged.script, job), [(1, NotRegistered), (2, Sealed)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_of_which_no_word_came_is_found_in_the_middle_of_a_long_wait() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |config| config.key_look_every = Some(Duration::from_millis(100))).await;
    let job = waiting(&staged, &repo, &retry(2, LONG)).await;
    staged.script.asked(30).await;
    // What was found nothing by is neither a try nor told.
    assert_eq!(tries(&staged.script, job), [(1, NotRegistered)]);
    staged.script.register("app", &KeyPair::new().private, "a host key");
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert_eq!(tries(&staged.script, job), [(1, NotRegistered), (2, Sealed)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetcher_that_dies_again_and_again_fails_its_attempt_alone() {
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let repo = Repo::new();
    let staged = Staged::start(HOST, |config| {
        config.faults = Some(|point| {
            if point == "fetcher" {
                TURNS.fetch_add(1, Ordering::Relaxed);
                panic!("a story wants it");
            }
        });
    })
    .await;
    let job = staged.script.offer(spec(&repo, &json!({}))).await;
    let AttemptEnd::Failed { failure: Failure::Internal { message } } = staged.script.end(job).await.end else {
        panic!("it fails as internal")
    };
    assert!(message.contains("the fetcher of the deploy key app died"), "{message}");
    assert_eq!(TURNS.load(Ordering::Relaxed), 6, "it is started again five times");
    assert!(staged.script.seen().keys.requests.is_empty());
    let next = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    assert_eq!(staged.script.end(next).await.end, AttemptEnd::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dies_takes_its_fetcher_along() {
    let repo = Repo::new();
    let staged = Staged::start(HOST, |config| config.faults = Some(|point| assert_ne!(point, "runner"))).await;
    let job = waiting(&staged, &repo, &retry(100, "500ms")).await;
    staged.script.stop(job, Period::ZERO).await;
    let failure = Failure::Internal { message: "the attempt's runner died".to_owned() };
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Failed { failure });
    let asked = staged.script.seen().keys.requests.len();
    let next = waiting(&staged, &repo, &retry(100, "500ms")).await;
    let of = |seen: &tests::scripted::Seen, of| seen.keys.requests.iter().filter(|request| request.job == of).count();
    staged.script.until("tries of another", |seen| (of(seen, next) >= 3).then_some(())).await;
    assert_eq!(of(&staged.script.seen(), job), asked, "the dead runner's fetcher goes on asking");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_takes_its_fetchers_along() {
    static STARTS: AtomicU32 = AtomicU32::new(0);
    let repo = Repo::new();
    let staged = Staged::start(HOST, |config| {
        config.faults = Some(|point| {
            let dies = point == "agent" && STARTS.fetch_add(1, Ordering::Relaxed) == 1;
            assert!(!dies, "a story wants it");
        });
    })
    .await;
    let job = waiting(&staged, &repo, &retry(5, LONG)).await;
    staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    let failure = Failure::Internal { message: "the attempt's runner died".to_owned() };
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Failed { failure });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parking_that_was_never_acknowledged_is_told_by_the_next_start_before_its_hello() {
    let repo = Repo::new();
    let dir = tempfile::tempdir().unwrap();
    let deaf = Script::start().await;
    deaf.seen().keys.lose_let_go = u32::MAX;
    let first = deaf.worker(HOST, dir.path(), |_| {}).await;
    let job = deaf.offer(spec(&repo, &retry(1, LONG))).await;
    deaf.until("a parking", |seen| seen.order.contains(&"park").then_some(())).await;
    drop(first);

    let script = Script::start().await;
    let second = script.worker(HOST, dir.path(), |_| {}).await;
    let gone = script.let_go(job).await;
    assert_eq!(gone.parked.unwrap().0, "app");
    let hello = script.until("a hello", |seen| seen.hellos.first().cloned()).await;
    assert_eq!(script.seen().order[..2], ["park", "hello"]);
    assert_eq!(gone.instance, hello.instance);
    until("an empty spool", || tests::spooled::names(&dir.path().join("data")).is_empty()).await;
    second.stop().await;
}
