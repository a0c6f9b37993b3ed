//! What a trouble excuses, and what it doesn't: each pair differs in the trouble alone.

use serde_json::json;
use tests::chaos::history::{Ask, Asked, Kind, May, Noted, Target};

use super::assert_broken;
use super::truth::{Truth, plain};

const CUT_OFF: &str = "attempts overlap only while the older one's worker is cut off";
const NEVER: &str = "attempts of a job that stops without contact never overlap";
const LOST: &str = "no worker is lost without a trouble";
const INTERNAL: &str = "nothing but a full disk fails a checkout or the worker itself";
const AFTER_CANCEL: &str = "no step begins after a cancel";

/// A worker with number 0 is lost, another meets what it still runs, during that trouble of 20 seconds.
fn overlap(kind: Kind, target: Target) -> Truth {
    let mut truth = Truth::new();
    let job = truth.submit(plain());
    truth.grant(job, 0);
    truth.begin(job, 0);
    truth.trouble(kind, target, 20);
    // It explains the loss of the worker, and nothing else.
    truth.trouble(Kind::Terminate, Target::Worker(0), 1);
    truth.pass(15);
    truth.lose(job);
    truth.retry(job, json!({"reason": "worker_lost", "message": "not heard"}));
    truth.grant(job, 1);
    truth.note(job, Noted::Overlap { holder: 1 }, 0);
    truth.step(job, 0, 0);
    truth.step(job, 1, 0);
    truth.finish(job, "succeeded", json!({}));
    truth
}

#[test]
fn an_overlap_is_excused_by_what_cuts_the_older_ones_worker_off_and_by_nothing_else() {
    let cut = [
        (Kind::Freeze, Target::Worker(0)),
        (Kind::Cut, Target::WorkersWay(0)),
        (Kind::Stall, Target::WorkersWay(0)),
        (Kind::Deafen, Target::WorkersWay(0)),
        (Kind::Delay, Target::WorkersWay(0)),
        (Kind::Freeze, Target::Nats),
        (Kind::Kill, Target::Nats),
        (Kind::Freeze, Target::Coordinator(1)),
        (Kind::Deafen, Target::WayToNats(0)),
    ];
    for (kind, target) in cut {
        assert_broken(&overlap(kind, target), &[], &format!("{kind:?} of {target:?}"));
    }
    let not_cut = [
        // The keeper ends what a worker ran that was killed.
        (Kind::Kill, Target::Worker(0)),
        (Kind::FullDisk, Target::Worker(0)),
        (Kind::ClockAhead, Target::Worker(0)),
        (Kind::Freeze, Target::Worker(1)),
        (Kind::Cut, Target::WorkersWay(1)),
        (Kind::Snap, Target::WorkersWay(0)),
        (Kind::WipeOffers, Target::Nats),
        (Kind::Kill, Target::Coordinator(0)),
        (Kind::Stall, Target::Postgres),
        (Kind::Cut, Target::WayToCoordinator(0)),
    ];
    for (kind, target) in not_cut {
        assert_broken(&overlap(kind, target), &[CUT_OFF], &format!("{kind:?} of {target:?}"));
    }
}

#[test]
fn an_overlap_long_after_the_trouble_is_not_excused() {
    let mut truth = overlap(Kind::Cut, Target::WorkersWay(0));
    for trouble in truth.history.troubles.iter_mut().filter(|trouble| trouble.kind == Kind::Cut) {
        trouble.to.0 -= 26_000_000;
        trouble.from.0 -= 26_000_000;
    }
    assert_broken(&truth, &[CUT_OFF], "it was over 20 s before");
}

#[test]
fn an_overlap_with_what_its_worker_has_told_to_be_over_is_not_excused() {
    let mut truth = Truth::new();
    let job = truth.submit(Asked { exits: vec![3], retries_failures: true, ..plain() });
    truth.grant(job, 0);
    truth.step(job, 0, 3);
    truth.trouble(Kind::Cut, Target::WorkersWay(0), 20);
    truth.retry(job, json!({"reason": "step_failed", "step": 0, "exit_code": 3}));
    truth.grant(job, 1);
    truth.note(job, Noted::Overlap { holder: 1 }, 0);
    truth.step(job, 0, 3);
    truth.fail(job, json!({"reason": "step_failed", "step": 0, "exit_code": 3}));
    assert_broken(&truth, &[CUT_OFF], "its worker had told its end");
}

/// A job is canceled without its worker's word, run again by hand, and meets itself; during a cut if it is `cut`.
fn overlap_by_hand(asked: Asked, cut: bool) -> Truth {
    let mut truth = Truth::new();
    let first = truth.submit(asked);
    truth.grant(first, 0);
    truth.begin(first, 0);
    if cut {
        truth.trouble(Kind::Cut, Target::WorkersWay(0), 20);
    }
    truth.cancel(first);
    truth.pass(5);
    truth.canceled(first, false);
    let second = truth.run_again(first);
    truth.grant(second, 1);
    truth.note(second, Noted::Overlap { holder: 1 }, 0);
    truth.step(second, 0, 0);
    truth.step(second, 1, 0);
    truth.finish(second, "succeeded", json!({}));
    truth
}

#[test]
fn a_retry_by_hand_may_meet_what_it_repeats_while_that_is_cut_off() {
    assert_broken(&overlap_by_hand(plain(), true), &[], "it is cut off");
    assert_broken(&overlap_by_hand(plain(), false), &[CUT_OFF], "it isn't");
    // A cancel isn't waited for as long as a lease.
    let stops = Asked { stops_without_contact: true, ..plain() };
    assert_broken(&overlap_by_hand(stops, true), &[], "it is to stop when its lease ends");
}

#[test]
fn an_older_attempt_that_meets_the_newer_one_is_judged_alike() {
    for (stops, expected) in [(false, vec![]), (true, vec![NEVER])] {
        let mut truth = overlap(Kind::Cut, Target::WorkersWay(0));
        truth.history.jobs.values_mut().for_each(|asked| asked.stops_without_contact = stops);
        let notes = truth.history.notes.values_mut().next().expect("the job has run");
        let overlap = notes.iter().position(|note| matches!(note.what, Noted::Overlap { .. })).expect("they met");
        notes[overlap].what = Noted::Overlap { holder: 2 };
        notes[overlap].attempt = 1;
        notes[overlap].fence = 1;
        assert_broken(&truth, &expected, "the first attempt meets the second");
    }
}

/// The worker with number 0 is lost during that trouble of ten seconds, which ended that long before.
fn loss(kind: Kind, target: Target, before: u64) -> Truth {
    let mut truth = Truth::new();
    truth.trouble(kind, target, 10);
    truth.pass(10 + before);
    let job = truth.submit(plain());
    truth.grant(job, 0);
    truth.pass(15);
    truth.lose(job);
    truth.retry(job, json!({"reason": "worker_lost", "message": "not heard"}));
    truth.succeed(job, 1);
    truth
}

#[test]
fn a_worker_is_lost_when_it_was_killed_or_cut_off_and_not_otherwise() {
    let causes = [
        (Kind::Kill, Target::Worker(0)),
        (Kind::Terminate, Target::Worker(0)),
        (Kind::Freeze, Target::Worker(0)),
        (Kind::Cut, Target::WorkersWay(0)),
        (Kind::Freeze, Target::Nats),
    ];
    for (kind, target) in causes {
        assert_broken(&loss(kind, target, 5), &[], &format!("{kind:?} of {target:?}"));
        assert_broken(&loss(kind, target, 20), &[LOST], &format!("{kind:?} of {target:?} before it had the job"));
    }
    for (kind, target) in
        [(Kind::Kill, Target::Worker(1)), (Kind::Kill, Target::Postgres), (Kind::FullDisk, Target::Worker(0))]
    {
        assert_broken(&loss(kind, target, 0), &[LOST], &format!("{kind:?} of {target:?}"));
    }
}

#[test]
fn a_full_disk_of_the_same_worker_excuses_an_internal_failure() {
    for (worker, expected) in [(0, vec![]), (1, vec![INTERNAL])] {
        for reason in ["internal", "checkout_failed"] {
            let mut truth = Truth::new();
            truth.trouble(Kind::FullDisk, Target::Worker(worker), 10);
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.fail(job, json!({"reason": reason, "transient": false, "message": "no space"}));
            assert_broken(&truth, &expected, &format!("{reason}, and the disk of worker {worker} was full"));
        }
    }
}

/// A step begins after its job was canceled; `lost` says whether its worker was lost before, or didn't confirm the cancel.
fn begun_after_cancel(kind: Kind, target: Target, lost: bool) -> Truth {
    let mut truth = Truth::new();
    let job = truth.submit(plain());
    truth.grant(job, 0);
    truth.step(job, 0, 0);
    truth.trouble(kind, target, 30);
    truth.trouble(Kind::Kill, Target::Worker(0), 1);
    if lost {
        truth.pass(15);
        truth.lose(job);
        truth.retry(job, json!({"reason": "worker_lost", "message": "not heard"}));
        truth.cancel_at_once(job, false);
    } else {
        truth.cancel(job);
        truth.pass(15);
        truth.canceled(job, false);
    }
    truth.note(job, Noted::Begin, 1);
    truth
}

#[test]
fn a_step_may_begin_after_a_cancel_only_where_its_attempt_was_given_up_while_it_was_cut_off() {
    for lost in [true, false] {
        assert_broken(&begun_after_cancel(Kind::Cut, Target::WorkersWay(0), lost), &[], "it is cut off");
        let truth = begun_after_cancel(Kind::Cut, Target::WorkersWay(1), lost);
        // Where a cancel is waited for but a few seconds, what killed its worker keeps its word back as well.
        let expected: &[&str] = if lost { &[AFTER_CANCEL] } else { &[] };
        assert_broken(&truth, expected, "another is cut off");
    }
}

#[test]
fn what_can_come_of_a_job_by_its_own_making_is_no_fault() {
    let mut truth = Truth::new();
    let job = truth.submit(Asked { may: [May::DieOfSignal].into(), ..plain() });
    truth.grant(job, 0);
    truth.begin(job, 0);
    truth.fail(job, json!({"reason": "step_failed", "step": 0, "signal": 9}));
    assert_broken(&truth, &[], "a step dies of a signal");
}

#[test]
fn calls_without_an_answer_and_refusals_promise_nothing() {
    let mut truth = Truth::new();
    let job = truth.submit(plain());
    let (keys, id) = (vec![truth.key(job)], truth.id(job));
    truth.call(Ask::Submit { keys: keys.clone() }, 503, vec![]);
    truth.call(Ask::Submit { keys }, 429, vec![]).answer = None;
    truth.call(Ask::Cancel { job: id, force: true }, 503, vec![]);
    truth.event(job, "cancel_requested", "client:ann", "queued", json!({"force": true}));
    truth.canceled(job, true);
    assert_broken(&truth, &[], "a cancel that was answered 503 was done");
}
