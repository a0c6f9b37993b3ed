//! A job's life through the actors, word by word.

use coordinator::service::Error;
use serde_json::json;
use shared::id::Attempt;
use shared::job::{AttemptEnd, Cancel, Exit, Failure, Progress, Rejection, StateName};
use shared::log::LogSummary;
use shared::spec::parse_single;
use shared::wire::{Answer, ReportKind};
use tests::played::{Hand, Played, Turn, client, one_step};

pub fn succeeded() -> ReportKind {
    ReportKind::End { end: AttemptEnd::Succeeded, log: LogSummary::default() }
}

fn failed_step() -> ReportKind {
    let failure = Failure::StepFailed { step: 0, exit: Exit::ExitCode(75), message: None };
    ReportKind::End { end: AttemptEnd::Failed { failure }, log: LogSummary::default() }
}

fn progress(number: u32, progress: Progress) -> ReportKind {
    ReportKind::Progress { number, progress }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_claims_a_job_with_secrets_must_say_whom_they_are_sealed_to() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let mut spec = one_step();
    let plain = played.submit(spec.clone()).await;
    spec["secrets"] = json!({"TOKEN": "hunter2-hunter2"});
    let id = played.submit(spec).await;
    let without = async |id| hand.claim_for(id, Attempt(1), None).await;
    assert_eq!(without(id).await, Answer::Refused { why: Rejection::Unsealable });
    // Nothing was applied: the next claim gets the attempt that the offer named.
    let Answer::Granted(grant) = hand.claim_attempt(id, Attempt(1)).await else { panic!("it isn't granted") };
    assert!(grant.secrets.is_some());
    let Answer::Granted(grant) = without(plain).await else { panic!("it isn't granted") };
    assert_eq!((grant.attempt, grant.secrets), (Attempt(1), None));
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_succeeds_and_its_timeline_tells_it_all() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(one_step()).await;
    let grant = hand.must_get(id).await;
    assert!(grant.fence.0 > 0);
    let started = progress(1, Progress::StepStarted { step: 0 });
    assert_eq!(hand.say(id, grant.attempt, started.clone()).await, Answer::Taken);
    assert_eq!(hand.say(id, grant.attempt, started).await, Answer::Taken, "a repeat is taken");
    let finished = progress(2, Progress::StepFinished { step: 0, exit: Exit::ExitCode(0) });
    assert_eq!(hand.say(id, grant.attempt, finished).await, Answer::Taken);
    assert_eq!(hand.say(id, grant.attempt, succeeded()).await, Answer::Taken);
    assert_eq!(hand.say(id, grant.attempt, succeeded()).await, Answer::Taken, "a repeat is taken");
    let kinds = played.kinds(id).await;
    assert_eq!(kinds, ["submitted", "queued", "assigned", "started", "step_started", "step_finished", "succeeded"]);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_attempt_is_refused_whatever_it_says() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let retry = json!({"max_attempts": 2, "on": ["exit:75"], "backoff": {"first": "1ms", "max": "1ms"}});
    let id = played.submit(json!({"steps": [{"run": "true"}], "retry": retry})).await;
    let first = hand.must_get(id).await;
    assert_eq!(hand.say(id, first.attempt, failed_step()).await, Answer::Taken);
    let second = hand.must_get(id).await;
    assert!(second.attempt > first.attempt && second.fence > first.fence);

    let stale = Answer::Refused { why: Rejection::Stale };
    assert_eq!(hand.say(id, first.attempt, succeeded()).await, stale);
    assert_eq!(hand.say(id, first.attempt, progress(9, Progress::StepStarted { step: 0 })).await, stale);
    let stop = hand.beat(id, first.attempt).await.stop;
    assert_eq!(stop.first().map(|stop| stop.attempt), Some(first.attempt), "its worker is told to stop it");
    assert!(hand.beat(id, second.attempt).await.stop.is_empty());

    let other = Hand::arrive(&played).await;
    assert_eq!(other.say(id, second.attempt, succeeded()).await, stale, "another worker doesn't hold it");
    assert_eq!(hand.say(id, second.attempt, succeeded()).await, Answer::Taken);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_is_told_to_the_worker_again_with_every_heartbeat() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(one_step()).await;
    let grant = hand.must_get(id).await;
    let cancel = Cancel { by: client(), why: Some("enough".to_owned()), force: false, grace: None };
    let answer = played.service.cancel(id, cancel).await.unwrap();
    assert_eq!(answer.state, StateName::Canceling);
    for _ in 0..2 {
        let stop = hand.beat(id, grant.attempt).await.stop;
        assert_eq!(stop.len(), 1);
        assert!(stop[0].grace.millis() > 0, "with what is left of its grace");
    }
    let stopped = ReportKind::End { end: AttemptEnd::Stopped, log: LogSummary::default() };
    assert_eq!(hand.say(id, grant.attempt, stopped).await, Answer::Taken);
    let outcome = played.service.job(id).await.unwrap().state.outcome().unwrap();
    assert_eq!(outcome.confirmed, Some(true));
    assert_eq!(outcome.why.as_deref(), Some("enough"));
    assert_eq!(outcome.by.as_deref(), Some("client:tester"));
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_job_is_queued_at_its_time_and_expires_at_its_limit() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let run_at = shared::clock::now().plus(shared::time::Period::from_millis(300)).to_string();
    let spec = json!({"steps": [{"run": "true"}], "run_at": run_at, "queue_timeout": "200ms"});
    let id = played.submit(spec).await;
    assert_eq!(played.service.job(id).await.unwrap().state.name(), StateName::Scheduled);
    let job = played.until(id, "the queued job expires", shared::job::Job::is_terminal).await;
    assert_eq!(job.state.outcome().unwrap().reason.as_deref(), Some("expired"));
    assert_eq!(played.kinds(id).await, ["submitted", "scheduled", "queued", "failed"]);
    let events = played.timeline(id).await;
    assert!(events[2].at.to_string() >= run_at, "not before its time");
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_by_filter_reaches_every_open_job_that_matches_and_no_other() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let mut wanted = Vec::new();
    for n in 0..20 {
        let team = if n % 2 == 0 { "core" } else { "web" };
        let id = played.submit(json!({"steps": [{"run": "true"}], "labels": {"team": team}})).await;
        if n % 2 == 0 {
            wanted.push(id);
        }
    }
    let filter = coordinator::store::Filter {
        label: Some(("team".to_owned(), Some("core".to_owned()))),
        ..coordinator::store::Filter::default()
    };
    let matched = played.service.open_jobs(&filter, None).await.unwrap();
    assert_eq!(matched.len(), 10);
    let cancel = Cancel { by: client(), why: None, force: false, grace: None };
    assert_eq!(played.service.cancel_all(matched, &cancel).await.unwrap(), []);
    let all = played.service.jobs(&coordinator::store::Filter::default(), None, 100).await.unwrap();
    for job in all {
        let expected = if wanted.contains(&job.id) { StateName::Canceled } else { StateName::Queued };
        assert_eq!(job.state.name(), expected);
    }
    assert_eq!(played.service.open_jobs(&filter, None).await.unwrap(), []);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_grant_uses_no_try() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(json!({"steps": [{"run": "true"}], "retry": {"max_attempts": 1}})).await;
    for expected in 1..=3 {
        let grant = hand.must_get(id).await;
        assert_eq!(grant.attempt, Attempt(expected));
        let decline = ReportKind::Decline { claim: None, why: "it came late".to_owned() };
        assert_eq!(hand.say(id, grant.attempt, decline).await, Answer::Taken);
    }
    assert_eq!(played.service.job(id).await.unwrap().tries, 0);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_beyond_what_may_wait_are_refused_whole_and_the_others_stored() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let submit = |team: usize| {
        let spec = json!({"steps": [{"run": "true"}], "labels": {"team": team.to_string()}});
        let submissions = vec![parse_single(&spec, None).unwrap(); 1000];
        let service = played.service.clone();
        tokio::spawn(async move { service.submit(&client(), submissions).await })
    };
    let submitted: Vec<_> = (0..40).map(submit).collect();
    let mut refused = 0;
    for (team, submitted) in submitted.into_iter().enumerate() {
        let answer = submitted.await.unwrap();
        let stored = match answer {
            Ok(accepted) => accepted.len(),
            Err(Error::Busy { .. }) => 0,
            Err(other) => panic!("answered with {other:?}"),
        };
        refused += usize::from(stored == 0);
        let label = Some(("team".to_owned(), Some(team.to_string())));
        let filter = coordinator::store::Filter { label, ..coordinator::store::Filter::default() };
        assert_eq!(played.service.jobs(&filter, None, 1001).await.unwrap().len(), stored);
    }
    assert!(refused > 0, "forty thousand were let in at once");
    played.coordinator.stop().await;
}
