//! What the table leaves out: the times, counts and words inside a job, a few commands after its submission.

use std::sync::Arc;

use serde_json::json;

use shared::id::{Attempt, Instance};
use shared::job::{
    AttemptEnd, Cancel, Claim, Command, EventKind, Exit, Failure, Job, KeyAnswer, KeyAsker, KeyRefusal, Limit,
    Progress, Rejection, State, StateName, WorkerWord, submit,
};
use shared::log::LogSummary;
use shared::time::{Period, Time};

use super::builders::{
    HOLDER, OTHER, after, at, cancel, cancel_with_grace, checked_out, claim, claim_id, client, decline, end, exit,
    failed, give_back, job_id, key_try, lost, park, plain, prepared, says, step_started, submitted, worker,
};

#[test]
fn a_cancel_is_confirmed_by_the_last_attempts_worker_alone() {
    let confirmed = |job: &Job| match &job.state {
        State::Canceled { canceled } => canceled.confirmed,
        state => panic!("not canceled: {state:?}"),
    };
    let cancelled = |job: &Job| after(job, Command::Cancel(cancel()), at(9));
    let job = submitted(prepared(&json!({}))).job;
    assert!(confirmed(&cancelled(&job)), "no worker ever had it");

    let held = granted(&job);
    assert!(confirmed(&cancelled(&after(&held, says(&held, decline()), at(2)))), "declined");
    assert!(confirmed(&cancelled(&after(&held, says(&held, park()), at(2)))), "parked");
    assert!(!confirmed(&cancelled(&after(&held, lost(held.attempt), at(2)))), "a lost worker may still run it");

    let again = granted(&after(&held, lost(held.attempt), at(2)));
    assert!(confirmed(&cancelled(&after(&again, says(&again, decline()), at(3)))), "the second worker has said so");

    let canceling = cancelled(&held);
    for word in [end(AttemptEnd::Stopped), end(AttemptEnd::Succeeded), failed(exit(1)), decline(), park()] {
        assert!(confirmed(&after(&canceling, says(&canceling, word), at(10))));
    }
    assert!(!confirmed(&after(&canceling, lost(held.attempt), at(10))));
    assert!(!confirmed(&after(&canceling, Command::Wake, at(9 + 10 + 5))), "grace and margin have passed");
}

#[test]
fn a_canceled_job_says_who_when_and_why_of_the_first_cancel() {
    let job = granted(&submitted(plain(&json!({}))).job);
    let canceling = after(&job, Command::Cancel(cancel()), at(3));
    let other = Cancel { by: shared::id::Actor::Client("bob".to_owned()), why: None, force: true, grace: None };
    let forced = after(&canceling, Command::Cancel(other), at(4));
    let job = after(&forced, says(&forced, end(AttemptEnd::Stopped)), at(5));
    let State::Canceled { canceled } = job.state else { panic!("not canceled: {:?}", job.state) };
    assert_eq!((canceled.by, canceled.at), (client(), at(3)));
    assert_eq!((canceled.why.as_deref(), canceled.confirmed), (Some("not wanted any more"), true));
    assert_eq!(job.finished_at, Some(at(5)));
}

#[test]
fn a_cancel_waits_for_its_grace_and_five_seconds_more() {
    let job = granted(&submitted(plain(&json!({"grace": "20s"}))).job);
    for (cancel, seconds) in
        [(cancel(), 20), (cancel_with_grace(3), 3), (Cancel { force: true, ..cancel_with_grace(3) }, 0)]
    {
        let canceling = after(&job, Command::Cancel(cancel), at(100));
        assert_eq!(canceling.state.wake_at(), Some(at(100 + seconds + 5)));
    }
}

#[test]
fn a_later_cancel_shortens_the_grace_from_its_own_time_on() {
    let job = granted(&submitted(plain(&json!({}))).job);
    let canceling = after(&job, Command::Cancel(cancel()), at(100));
    let sooner = after(&canceling, Command::Cancel(cancel_with_grace(2)), at(103));
    assert_eq!(sooner.state.wake_at(), Some(at(103 + 2 + 5)));
    let no_sooner = canceling.apply(Command::Cancel(cancel_with_grace(7)), at(103)).expect("heard");
    assert!(no_sooner.is_empty(), "it would end when the first does: {no_sooner:?}");
}

#[test]
fn a_cancel_with_a_long_grace_ends_at_the_attempts_deadline() {
    let job = granted(&submitted(plain(&json!({"timeout": "1m", "grace": "10s"}))).job);
    let canceling = after(&job, Command::Cancel(cancel_with_grace(86_400)), at(30));
    assert_eq!(canceling.state.wake_at(), Some(at(1 + 60 + 10 + 5)));
    assert_eq!(after(&canceling, Command::Wake, at(76)).state.name(), StateName::Canceled);
}

#[test]
fn an_attempt_has_its_timeout_its_grace_and_five_seconds_from_its_grant() {
    let job = submitted(plain(&json!({"timeout": "1h", "grace": "10s"}))).job;
    let job = after(&job, Command::Claim(claim(&job, HOLDER, at(500))), at(500));
    assert_eq!(job.state.wake_at(), Some(at(500 + 3600 + 10 + 5)));
    let over = after(&job, Command::Wake, at(4115));
    assert_eq!(over.state, State::Failed { failure: Failure::TimedOut { limit: Limit::Job } });
}

#[test]
fn the_queue_timeout_counts_anew_from_each_entry() {
    let job = submitted(prepared(&json!({"queue_timeout": "1m"}))).job;
    assert_eq!((job.state.wake_at(), job.queued_at), (Some(at(60)), Some(at(0))));
    let held = granted(&job);
    let again = after(&held, says(&held, decline()), at(50));
    assert_eq!((again.state.wake_at(), again.queued_at), (Some(at(110)), Some(at(50))));
}

#[test]
fn a_job_with_a_time_to_run_at_waits_for_it_only_where_it_is_still_to_come() {
    for (run_at, state) in [(1, StateName::Scheduled), (0, StateName::Queued)] {
        let transition = submitted(plain(&json!({"run_at": at(run_at).to_string()})));
        assert_eq!(transition.job.state.name(), state);
        assert_eq!((transition.job.version.0, transition.job.seq.0, transition.events.len()), (1, 2, 2));
        assert_eq!(transition.events[0].kind, EventKind::Submitted { retry_of: None });
    }
}

#[test]
fn a_decline_that_names_a_claim_is_about_no_other() {
    let job = granted(&submitted(prepared(&json!({}))).job);
    let cancelled = after(&job, Command::Cancel(cancel()), at(1));
    let declines = |claim| says(&job, WorkerWord::Decline { claim, why: "it came late".to_owned() });
    for held in [&job, &cancelled] {
        let other = claim_id(HOLDER, job.attempt.next());
        assert_eq!(
            held.apply(declines(Some(other)), at(2)).err(),
            Some(Rejection::Stale),
            "it was claimed again since"
        );
        for named in [None, Some(claim_id(HOLDER, job.attempt))] {
            assert!(held.apply(declines(named), at(2)).is_ok_and(|moved| !moved.is_empty()));
        }
    }
}

#[test]
fn a_claim_that_secrets_can_not_be_sealed_for_is_refused_where_there_are_some() {
    for has_secrets in [true, false] {
        let job = submit(job_id(), Arc::new(plain(&json!({}))), has_secrets, None, client(), at(0)).job;
        assert_eq!(job.offer().has_secrets, has_secrets);
        let claim = claim(&job, HOLDER, at(1));
        let without = Command::Claim(Claim { has_recipient: false, ..claim.clone() });
        let refused = |job: &Job| job.apply(without.clone(), at(1)).err();
        assert_eq!(refused(&job), has_secrets.then_some(Rejection::Unsealable));
        let granted = after(&job, Command::Claim(claim), at(1));
        assert_eq!(refused(&granted), has_secrets.then_some(Rejection::Unsealable), "a repeat");
    }
}

#[test]
fn a_claim_is_taken_until_its_worker_has_stopped_waiting() {
    let job = submitted(plain(&json!({}))).job;
    let claim = claim(&job, HOLDER, at(1));
    assert!(job.apply(Command::Claim(claim.clone()), claim.expires).is_ok());
    assert!(job.apply(Command::Claim(claim.clone()), claim.expires.plus(Period::from_millis(1))).is_err());
}

#[test]
fn a_parked_job_waits_as_long_as_its_worker_says_from_the_coordinators_clock_on() {
    let job = granted(&submitted(prepared(&json!({}))).job);
    let parked = after(&job, says(&job, park()), at(42));
    assert_eq!(parked.state, State::Blocked { key: "app".to_owned(), until: at(642) });
    let failed = after(&parked, Command::Wake, at(642));
    let State::Failed { failure: Failure::DeployKeyMissing { message } } = failed.state else { panic!("{failed:?}") };
    assert_eq!(message, "the deploy key app was not registered in time (`windlass key add app` registers it)");
}

#[test]
fn a_job_is_parked_for_the_key_that_it_names_and_no_longer_than_it_says() {
    let spec = |key: &serde_json::Value| prepared(&json!({"repository": {"url": "/srv/app.git", "deploy_key": key}}));
    let parked = |key: &serde_json::Value, word: WorkerWord| {
        let job = granted(&submitted(spec(key)).job);
        job.apply(says(&job, word), at(42)).map(|transition| transition.job.state)
    };
    let park = |key: &str, secs| WorkerWord::Park {
        key: key.to_owned(),
        wait: Period::from_secs(secs),
        log: LogSummary::default(),
    };
    let brief = json!({"name": "app", "wait": "5s"});
    assert_eq!(parked(&brief, park("app", 600)), Ok(State::Blocked { key: "app".to_owned(), until: at(47) }));
    assert_eq!(parked(&brief, park("app", 2)), Ok(State::Blocked { key: "app".to_owned(), until: at(44) }));
    assert_eq!(parked(&brief, park("other", 2)), Err(Rejection::NoKey));
    assert_eq!(parked(&json!({"name": "app", "on_missing": "fail"}), park("app", 2)), Err(Rejection::NoKey));
    assert_eq!(parked(&serde_json::Value::Null, park("app", 2)), Err(Rejection::NoKey));
    assert_eq!(parked(&serde_json::Value::Null, give_back()), Err(Rejection::NoKey));
}

#[test]
fn a_job_that_is_given_back_waits_longer_each_time_and_expires_as_if_it_were_queued() {
    let spec = prepared(&json!({"queue_timeout": "1m", "retry": {"backoff": {"first": "4s", "max": "1h"}}}));
    let mut job = submitted(spec).job;
    let (mut now, mut waits) = (at(1), Vec::new());
    let expired = loop {
        let held = granted_at(&job, now);
        job = after(&held, says(&held, give_back()), now);
        if job.is_terminal() {
            break now;
        }
        assert_eq!((job.tries, job.given_back.map(|given| given.since)), (0, Some(at(1))), "no try, from the first on");
        let until = job.state.wake_at().expect("a timer");
        waits.push(until.since(now).as_millis());
        job = after(&job, Command::Wake, until);
        if job.is_terminal() {
            break until;
        }
        assert_eq!(job.state, State::Queued { expires: at(61) }, "counted from the first return");
        now = until;
    };
    assert_eq!(expired, at(61));
    assert_eq!(job.state, State::Failed { failure: Failure::Expired });
    assert!(waits.len() >= 3 && (2000..=4000).contains(&waits[0]) && (4000..=8000).contains(&waits[1]), "{waits:?}");
}

#[test]
fn what_was_given_back_is_forgotten_when_the_key_comes_or_the_job_is_parked() {
    let job = submitted(prepared(&json!({}))).job;
    let given = |job: &Job, now| {
        let job = granted_at(job, now);
        let job = after(&job, says(&job, give_back()), now);
        after(&job, Command::Wake, job.state.wake_at().expect("a timer"))
    };
    let again = given(&job, at(1));
    assert_eq!(again.given_back.map(|given| given.times), Some(1));
    let again = given(&again, at(10));
    assert_eq!(again.given_back.map(|given| given.times), Some(2));
    let holds = granted_at(&again, at(20));
    for (word, kept) in [
        (key_try(1, KeyAnswer::Unavailable), true),
        (key_try(1, KeyAnswer::NotRegistered), true),
        (key_try(1, KeyAnswer::Sealed), false),
        (park(), false),
    ] {
        let after = after(&holds, says(&holds, word.clone()), at(21));
        assert_eq!(after.given_back.is_some(), kept, "{word:?}");
    }
}

#[test]
fn a_deploy_key_is_for_the_worker_that_prepares_the_current_attempt_of_a_job_that_names_it() {
    let spec = prepared(&json!({"repository": {"url": "git@host:app", "deploy_key": "app"}}));
    let queued = submitted(spec).job;
    let job = granted(&queued);
    let holder =
        KeyAsker { worker: worker(HOLDER), instance: job.state.hold().expect("held").instance, attempt: Attempt(1) };
    assert_eq!(job.may_have_key(holder, "app"), Ok(()));
    assert_eq!(job.may_have_key(holder, "other"), Err(KeyRefusal::NotNamed));
    let other = KeyAsker { worker: worker(OTHER), ..holder };
    assert_eq!(job.may_have_key(other, "app"), Err(KeyRefusal::NotHolder));
    let restarted = KeyAsker { instance: Instance(uuid::Uuid::from_u128(99)), ..holder };
    assert_eq!(job.may_have_key(restarted, "app"), Err(KeyRefusal::NotHolder));
    let next = KeyAsker { attempt: Attempt(2), ..holder };
    assert_eq!(job.may_have_key(next, "app"), Err(KeyRefusal::Stale));
    assert_eq!(queued.may_have_key(holder, "app"), Err(KeyRefusal::Stale));
    let lost = after(&job, lost(job.attempt), at(3));
    assert_eq!(lost.may_have_key(holder, "app"), Err(KeyRefusal::Stale));
    let running = after(&job, says(&job, step_started(1)), at(3));
    assert_eq!(running.may_have_key(holder, "app"), Err(KeyRefusal::NotPreparing));
    let canceling = after(&job, Command::Cancel(cancel()), at(3));
    assert_eq!(canceling.may_have_key(holder, "app"), Err(KeyRefusal::NotPreparing));
    let over = after(&job, says(&job, end(AttemptEnd::Succeeded)), at(3));
    assert_eq!(over.may_have_key(holder, "app"), Err(KeyRefusal::Stale));
}

#[test]
fn a_commit_is_recorded_once_and_every_attempt_is_told_it() {
    let job = granted(&submitted(prepared(&json!({}))).job);
    let job = after(&job, says(&job, checked_out(1)), at(2));
    let commit = job.commit.clone().expect("recorded");
    assert_eq!(commit.as_str(), "a".repeat(40));
    let job = granted(&after(&job, lost(job.attempt), at(3)));
    assert_eq!(job.commit, Some(commit.clone()));
    let other = Progress::CheckedOut { commit: "b".repeat(40).try_into().expect("a commit") };
    let job = after(&job, says(&job, WorkerWord::Progress { number: 1, progress: other }), at(4));
    assert_eq!(job.commit, Some(commit));
}

#[test]
fn the_start_is_that_of_the_last_attempt_which_got_so_far() {
    let started = |job: &Job, time: Time| after(job, says(job, step_started(1)), time);
    let job = granted(&submitted(prepared(&json!({}))).job);
    assert_eq!(job.started_at, None);
    let job = started(&job, at(7));
    assert_eq!(job.started_at, Some(at(7)));
    let job = after(&job, lost(job.attempt), at(9));
    assert_eq!(job.started_at, Some(at(7)));
    assert_eq!(granted(&job).started_at, None);
}

#[test]
fn a_step_is_called_by_its_name_in_the_timeline() {
    let job = granted(&submitted(plain(&json!({}))).job);
    for (step, name) in [(0, Some("test".to_owned())), (1, None), (u32::MAX, None)] {
        let exit = Exit::ExitCode(3);
        let progress = Progress::StepFinished { step, exit };
        let word = WorkerWord::Progress { number: 1, progress };
        let events = job.apply(says(&job, word), at(2)).expect("heard").events;
        assert_eq!(events[0].kind, EventKind::StepFinished { step, name, exit });
    }
}

#[test]
fn a_late_word_tells_what_the_attempts_log_amounts_to() {
    let job = granted(&submitted(plain(&json!({"retry": {"max_attempts": 1}}))).job);
    let job = after(&job, lost(job.attempt), at(3));
    let log = LogSummary { chunks: 2, bytes: 70_000, sha256: "0".repeat(64) };
    let late = after(&job, says(&job, WorkerWord::End { end: AttemptEnd::Succeeded, log: log.clone() }), at(60));
    assert_eq!(late.told.map(|told| (told.attempt, told.log)), Some((job.attempt, log)));
    assert_eq!((late.state, late.finished_at), (job.state, Some(at(3))));
}

#[test]
fn a_grant_is_what_the_store_draws_a_fence_for() {
    let job = submitted(plain(&json!({}))).job;
    let grants = |job: &Job, command| job.apply(command, at(1)).expect("heard").grants();
    assert!(grants(&job, Command::Claim(claim(&job, HOLDER, at(1)))));
    assert!(!grants(&job, Command::Cancel(cancel())));
    assert!(!grants(&granted(&job), Command::Claim(claim(&job, HOLDER, at(1)))), "a repeat");
}

/// The job's next attempt, granted a second after its submission or its last transition.
fn granted(job: &Job) -> Job {
    granted_at(job, job.queued_at.unwrap_or(at(0)).plus(Period::from_secs(1)))
}

fn granted_at(job: &Job, now: Time) -> Job {
    after(job, Command::Claim(claim(job, HOLDER, now)), now)
}
