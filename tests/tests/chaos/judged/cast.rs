//! A true history in which much happens: each of its jobs ends in another way.

use std::collections::BTreeSet;

use serde_json::json;
use tests::chaos::history::{Ask, Asked, Kind, May, Noted, Target};

use super::truth::{Job, Truth, plain, that_may};

/// The history and its jobs.
pub struct Cast {
    pub truth: Truth,
    pub succeeded: Job,
    /// Its second of three steps exits with 3.
    pub failed: Job,
    /// Runs `failed` again by hand, and fails in the same way.
    pub again: Job,
    /// Fails twice, as it is to be tried again once.
    pub tried_twice: Job,
    /// Canceled before its claim, and while it ran.
    pub canceled_early: Job,
    pub canceled: Job,
    /// Canceled while its worker was cut off, which it went on without.
    pub unconfirmed: Job,
    /// Waited for its deploy key, and got it.
    pub parked: Job,
    /// Waited for its deploy key, and never got it.
    pub keyless: Job,
    /// Its worker was killed, and another ran it.
    pub lost: Job,
    /// Its worker was cut off, another ran it, and both ran at once for a while.
    pub overlapped: Job,
    /// The same, but it was to stop without contact, and did.
    pub stopped: Job,
    pub timed_out: Job,
    pub expired: Job,
    /// One of two that were stopped together by a filter.
    pub swept: Job,
}

impl Cast {
    pub fn new() -> Self {
        let mut truth = Truth::new();
        let succeeded = succeeded(&mut truth);
        let failed = failed(&mut truth);
        let again = truth.run_again(failed);
        fails(&mut truth, again, 1);
        truth.fail(again, json!({"reason": "step_failed", "step": 1, "exit_code": 3}));
        let tried_twice = tried_twice(&mut truth);
        let (canceled_early, canceled) = canceled(&mut truth);
        let parked = parked(&mut truth);
        let keyless = keyless(&mut truth);
        let lost = lost(&mut truth);
        truth.pass(100);
        let overlapped = overlapped(&mut truth);
        truth.pass(100);
        let stopped = stopped(&mut truth);
        truth.pass(100);
        let unconfirmed = unconfirmed(&mut truth);
        truth.pass(100);
        let (timed_out, expired) = out_of_time(&mut truth);
        let swept = swept(&mut truth);
        truth.pass(100);
        Self {
            truth,
            succeeded,
            failed,
            again,
            tried_twice,
            canceled_early,
            canceled,
            unconfirmed,
            parked,
            keyless,
            lost,
            overlapped,
            stopped,
            timed_out,
            expired,
            swept,
        }
    }
}

/// It is submitted twice, and looked at on its way.
fn succeeded(truth: &mut Truth) -> Job {
    let job = truth.submit(plain());
    truth.look(job);
    truth.grant(job, 0);
    truth.step(job, 0, 0);
    truth.look(job);
    let (keys, seen) = (vec![truth.key(job)], truth.seen(job));
    truth.call(Ask::Submit { keys }, 200, vec![seen]);
    let (first, not_ended) = (truth.id(job), vec![]);
    truth.call(Ask::Retry { job: first }, 409, not_ended);
    truth.step(job, 1, 0);
    truth.finish(job, "succeeded", json!({}));
    truth.look(job);
    truth.answer_cancel(job, 200, truth.now());
    // A coordinator that takes over tells again what it doesn't know to be told.
    let repeated: Vec<_> = truth.history.told.iter().rev().take(3).rev().cloned().collect();
    truth.history.told.extend(repeated);
    job
}

fn failed(truth: &mut Truth) -> Job {
    let job = truth.submit(Asked { exits: vec![0, 3, 0], ..plain() });
    fails(truth, job, 1);
    truth.fail(job, json!({"reason": "step_failed", "step": 1, "exit_code": 3}));
    truth.look(job);
    job
}

/// A worker runs it up to its second step, which exits with 3.
fn fails(truth: &mut Truth, job: Job, number: usize) {
    truth.grant(job, number);
    truth.step(job, 0, 0);
    truth.step(job, 1, 3);
}

fn tried_twice(truth: &mut Truth) -> Job {
    let job = truth.submit(Asked { exits: vec![0, 3], retries_failures: true, ..plain() });
    fails(truth, job, 1);
    truth.retry(job, json!({"reason": "step_failed", "step": 1, "exit_code": 3}));
    truth.look(job);
    fails(truth, job, 2);
    truth.fail(job, json!({"reason": "step_failed", "step": 1, "exit_code": 3}));
    job
}

fn canceled(truth: &mut Truth) -> (Job, Job) {
    let early = truth.submit(plain());
    truth.cancel_at_once(early, true);
    truth.look(early);
    let running = truth.submit(plain());
    truth.grant(running, 2);
    truth.begin(running, 0);
    truth.cancel(running);
    truth.look(running);
    truth.canceled(running, true);
    truth.look(running);
    (early, running)
}

fn parked(truth: &mut Truth) -> Job {
    let job = truth.submit(plain());
    truth.assign(job, 0);
    truth.event(
        job,
        "key_try",
        "worker:w",
        "assigned",
        json!({"number": 1, "answer": "not_registered", "next_in": null}),
    );
    truth.event(job, "blocked", "worker:w", "blocked", json!({"key": "app"}));
    truth.look(job);
    truth.event(job, "queued", "coordinator", "queued", json!({"offer": {"attempt": 2}}));
    truth.assign(job, 1);
    truth.event(job, "declined", "worker:w", "queued", json!({"why": "the worker is being shut down"}));
    truth.event(job, "queued", "coordinator", "queued", json!({"offer": {"attempt": 3}}));
    truth.assign(job, 2);
    truth.event(job, "checked_out", "worker:w", "assigned", json!({"commit": "c"}));
    truth.start(job);
    truth.step(job, 0, 0);
    truth.step(job, 1, 0);
    truth.finish(job, "succeeded", json!({}));
    job
}

fn keyless(truth: &mut Truth) -> Job {
    let job = truth.submit(that_may(May::LackItsKey));
    truth.assign(job, 0);
    truth.event(job, "blocked", "worker:w", "blocked", json!({"key": "app"}));
    truth.finish(job, "failed", json!({"reason": "deploy_key_missing", "message": "it was not registered"}));
    job
}

fn lost(truth: &mut Truth) -> Job {
    let job = truth.submit(plain());
    truth.grant(job, 1);
    truth.begin(job, 0);
    truth.trouble(Kind::Kill, Target::Worker(1), 20);
    truth.pass(15);
    truth.lose(job);
    truth.retry(job, json!({"reason": "worker_lost", "message": "not heard"}));
    truth.succeed(job, 0);
    job
}

/// A worker begins it, is cut off for 20 seconds, and is lost; another gets it.
fn cut_off(truth: &mut Truth, asked: Asked) -> Job {
    let job = truth.submit(asked);
    truth.grant(job, 1);
    truth.begin(job, 0);
    truth.trouble(Kind::Cut, Target::WorkersWay(1), 20);
    truth.pass(15);
    truth.lose(job);
    truth.retry(job, json!({"reason": "worker_lost", "message": "not heard"}));
    truth.grant(job, 2);
    job
}

fn overlapped(truth: &mut Truth) -> Job {
    let job = cut_off(truth, plain());
    truth.note(job, Noted::Overlap { holder: 1 }, 0);
    truth.step(job, 0, 0);
    truth.step(job, 1, 0);
    truth.finish(job, "succeeded", json!({}));
    job
}

fn stopped(truth: &mut Truth) -> Job {
    let job = cut_off(truth, Asked { stops_without_contact: true, ..plain() });
    truth.step(job, 0, 0);
    truth.step(job, 1, 0);
    truth.finish(job, "succeeded", json!({}));
    job
}

fn unconfirmed(truth: &mut Truth) -> Job {
    let job = truth.submit(plain());
    truth.grant(job, 1);
    truth.begin(job, 0);
    truth.trouble(Kind::Freeze, Target::Worker(1), 30);
    truth.cancel(job);
    truth.pass(13);
    truth.canceled(job, false);
    truth.look(job);
    truth.answer_cancel(job, 200, truth.now());
    let fence = truth.fence_of(job);
    truth.note_of(job, Noted::End, (1, 0, fence));
    truth.note_of(job, Noted::Begin, (1, 1, fence));
    truth.event(job, "late_report", "worker:w", "canceled", json!({"end": "succeeded", "log": {"chunks": 0}}));
    job
}

fn out_of_time(truth: &mut Truth) -> (Job, Job) {
    let timed_out = truth.submit(that_may(May::TimeOut));
    truth.grant(timed_out, 0);
    truth.begin(timed_out, 0);
    truth.fail(timed_out, json!({"reason": "timed_out", "limit": {"step": 0}}));
    truth.look(timed_out);
    let expired = truth.submit(Asked { may: BTreeSet::from([May::Expire, May::TimeOut]), ..plain() });
    truth.pass(5);
    let offer = json!({"job": truth.id(expired).0, "attempt": 1, "tags": ["linux"], "priority": "normal"});
    truth.finish(expired, "failed", json!({"reason": "expired", "offer": offer}));
    truth.look(expired);
    (timed_out, expired)
}

fn swept(truth: &mut Truth) -> Job {
    let asked = Asked { team: Some("blue".to_owned()), ..plain() };
    let (waiting, running) = (truth.submit(asked.clone()), truth.submit(asked));
    truth.grant(running, 0);
    truth.begin(running, 0);
    let asked_at = truth.now();
    truth.event(waiting, "cancel_requested", "client:ann", "queued", json!({"force": false}));
    truth.canceled(waiting, true);
    truth.event(running, "cancel_requested", "client:ann", "running", json!({"force": false}));
    truth.event(running, "canceling", "client:ann", "canceling", json!({"stop": {"grace": "10s"}}));
    let call = truth.call(Ask::CancelTeam { team: "blue".to_owned() }, 202, vec![]);
    call.asked_at = asked_at;
    call.answer.as_mut().expect("it was answered").matched = Some(2);
    truth.look(running);
    truth.event(running, "late_report", "worker:w", "canceling", json!({"end": "succeeded", "log": {"chunks": 0}}));
    truth.canceled(running, true);
    running
}
