//! What a trouble excuses, and what it doesn't: each pair differs in the trouble alone.

use serde_json::json;
use shared::time::Time;
use tests::chaos::history::{Ask, Asked, Kind, May, Noted, Target};

use super::assert_broken;
use super::truth::{Truth, plain};

const CUT_OFF: &str = "attempts overlap only while the older one's worker is cut off";
const NEVER: &str = "attempts of a job that stops without contact never overlap";
const AHEAD: &str = "a job was not seen as it was to become";
const STATUS: &str = "an answer has a status that is true of what was asked";
const STEP_FAILED: &str = "a step fails only as it was asked to";
const LOST: &str = "no worker is lost without a trouble";
const INTERNAL: &str = "nothing but a full disk fails a checkout or the worker itself";
const AFTER_CANCEL: &str = "no step begins after a cancel";
const SURVIVED: &str = "nothing of an attempt runs on when its worker was killed";
const GIVEN_UP: &str = "no step begins in an attempt that was given up when its worker can be told";
const EARLY: &str = "no worker is given up before its lease ends";
const DEATH: &str = "no process under test ends by itself";
const OFFER: &str = "no offer is left";

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
        (Kind::Delay, Target::WorkersWay(0)),
        (Kind::WipeOffers, Target::Nats),
        // Where these were troubled, the lease began anew.
        (Kind::Freeze, Target::Nats),
        (Kind::Freeze, Target::Coordinator(0)),
        (Kind::Deafen, Target::WayToNats(0)),
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

#[test]
fn an_overlap_is_excused_only_by_what_lasted_for_most_of_a_lease() {
    for (kind, target) in [(Kind::Freeze, Target::Worker(0)), (Kind::Cut, Target::WorkersWay(0))] {
        for (lasted, expected) in [(7_500_000, vec![CUT_OFF]), (8_500_000, vec![])] {
            let mut truth = overlap(kind, target);
            let trouble = truth.history.troubles.first_mut().expect("it is the first");
            trouble.to.0 = trouble.from.0 + lasted;
            assert_broken(&truth, &expected, &format!("{kind:?} of {target:?} for {lasted} us"));
        }
    }
}

#[test]
fn what_happened_to_nats_adds_to_what_cut_the_older_ones_worker_off_and_time_is_counted_once() {
    for (second, expected) in [(Target::Nats, vec![]), (Target::WorkersWay(0), vec![CUT_OFF])] {
        let mut truth = overlap(Kind::Cut, Target::WorkersWay(0));
        let first = truth.history.troubles.first_mut().expect("it is the first");
        first.to.0 = first.from.0 + 5_000_000;
        let mut more = first.clone();
        more.target = second;
        if second == Target::Nats {
            (more.from.0, more.to.0) = (more.from.0 + 5_000_000, more.to.0 + 5_000_000);
        }
        truth.history.troubles.push(more);
        assert_broken(&truth, &expected, &format!("five seconds more of {second:?}"));
    }
}

#[test]
fn a_worker_is_lost_at_once_when_it_was_killed_and_else_only_when_cut_off_for_most_of_a_lease() {
    for (kind, target, expected) in [
        (Kind::Kill, Target::Worker(0), vec![]),
        (Kind::Freeze, Target::Worker(0), vec![LOST]),
        (Kind::Cut, Target::WorkersWay(0), vec![LOST]),
        (Kind::Delay, Target::WorkersWay(0), vec![LOST]),
    ] {
        let mut truth = loss(kind, target, 5);
        let trouble = truth.history.troubles.first_mut().expect("it is the first");
        trouble.from.0 = trouble.to.0 - 100_000;
        assert_broken(&truth, &expected, &format!("{kind:?} of {target:?} for a moment"));
    }
}

#[test]
fn a_step_may_begin_in_an_attempt_that_was_given_up_only_while_its_worker_cannot_be_told() {
    let trouble = [
        (Kind::Freeze, Target::Worker(0), vec![]),
        (Kind::Cut, Target::WorkersWay(0), vec![]),
        (Kind::Stall, Target::Nats, vec![]),
        (Kind::Freeze, Target::Coordinator(1), vec![]),
        (Kind::FullDisk, Target::Worker(0), vec![GIVEN_UP]),
        (Kind::Cut, Target::WorkersWay(1), vec![GIVEN_UP]),
        (Kind::Cut, Target::WayToCoordinator(0), vec![GIVEN_UP]),
    ];
    for (kind, target, expected) in trouble {
        let mut truth = Truth::new();
        let job = truth.submit(plain());
        truth.grant(job, 0);
        truth.step(job, 0, 0);
        truth.trouble(Kind::Cut, Target::WorkersWay(0), 16);
        truth.pass(15);
        truth.lose(job);
        truth.pass(3);
        truth.trouble(kind, target, 10);
        truth.pass(5);
        let fence = truth.fence_of(job);
        truth.note_of(job, Noted::Begin, (1, 1, fence));
        truth.retry(job, json!({"reason": "worker_lost", "message": "not heard"}));
        truth.succeed(job, 1);
        assert_broken(&truth, &expected, &format!("{kind:?} of {target:?}"));
    }
}

#[test]
fn what_a_killed_worker_ran_may_go_on_for_two_seconds_and_what_another_runs_for_ever() {
    for (number, millis, expected) in [(1, 1_500, vec![]), (1, 2_500, vec![SURVIVED]), (2, 2_500, vec![])] {
        let mut truth = Truth::new();
        let job = truth.submit(plain());
        truth.grant(job, 1);
        truth.begin(job, 0);
        truth.trouble(Kind::Kill, Target::Worker(number), 5);
        let killed = truth.now();
        truth.end(job, 0, 0);
        truth.notes_mut(job).last_mut().expect("it was noted").at.0 = killed.0 + millis * 1_000;
        truth.pass(5);
        truth.retry(job, json!({"reason": "worker_lost", "message": "it was started anew"}));
        truth.succeed(job, 1);
        let expected: &[&str] = if number == 2 { &[LOST] } else { &expected };
        assert_broken(&truth, expected, &format!("worker {number} was killed {millis} ms before"));
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
    truth.trouble(Kind::Terminate, Target::Worker(0), 1);
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
        assert_broken(&truth, &[AFTER_CANCEL], "another is cut off");
    }
}

#[test]
fn a_cancel_that_nobody_confirmed_excuses_a_step_only_by_a_trouble_that_lasts_until_then() {
    for (lasted, expected) in [(30, vec![]), (12, vec![]), (8, vec![AFTER_CANCEL])] {
        for target in [Target::WorkersWay(0), Target::Nats, Target::WayToNats(1)] {
            let mut truth = begun_after_cancel(Kind::Cut, target, false);
            let trouble = truth.history.troubles.first_mut().expect("it is the first");
            trouble.to.0 = trouble.from.0 + lasted * 1_000_000;
            assert_broken(&truth, &expected, &format!("{target:?} was cut for {lasted} s of 16"));
        }
    }
}

#[test]
fn an_order_to_stop_counts_from_when_it_was_given_even_if_that_was_told_after_the_step() {
    let mut truth = Truth::new();
    truth.trouble(Kind::ClockBehind, Target::Postgres, 30);
    let job = truth.submit(plain());
    truth.grant(job, 0);
    truth.step(job, 0, 0);
    truth.trouble(Kind::Cut, Target::WorkersWay(0), 30);
    truth.cancel(job);
    truth.pass(15);
    truth.canceled(job, false);
    truth.look(job);
    truth.note(job, Noted::Begin, 1);
    truth.pass(20);
    let later = truth.now();
    for kind in ["cancel_requested", "canceling", "canceled"] {
        truth.told_mut(job, kind).at = later;
    }
    assert_broken(&truth, &[], "nobody could tell of it before");
}

#[test]
fn a_step_may_die_of_the_signal_that_it_was_asked_to_die_of() {
    for (may, signal, expected) in [
        (vec![May::DieOfSignal], 9, vec![]),
        (vec![May::DieOfSignal], 15, vec![STEP_FAILED]),
        (vec![], 9, vec![STEP_FAILED]),
    ] {
        let mut truth = Truth::new();
        let job = truth.submit(Asked { exits: vec![128 + 9], may: may.into_iter().collect(), ..plain() });
        truth.grant(job, 0);
        truth.begin(job, 0);
        truth.fail(job, json!({"reason": "step_failed", "step": 0, "signal": signal}));
        assert_broken(&truth, &expected, &format!("a step dies of signal {signal}"));
    }
}

#[test]
fn a_worker_may_end_what_is_to_stop_without_contact_while_nobody_answers_it() {
    for (stops, expected) in [(true, vec![]), (false, vec![LOST])] {
        let mut truth = Truth::new();
        truth.trouble(Kind::Kill, Target::Postgres, 20);
        let job = truth.submit(Asked { stops_without_contact: stops, ..plain() });
        truth.grant(job, 0);
        truth.pass(13);
        truth.retry(job, json!({"reason": "worker_lost", "message": "contact was lost, and the job is to stop then"}));
        truth.succeed(job, 1);
        assert_broken(&truth, &expected, &format!("it is to stop: {stops}"));
    }
}

#[test]
fn a_request_may_time_out_where_its_way_or_its_coordinator_stands_still() {
    for (replica, expected) in [(1, vec![]), (0, vec![STATUS])] {
        let mut truth = Truth::new();
        truth.trouble(Kind::Stall, Target::WayToCoordinator(1), 5);
        truth.call(Ask::Submit { keys: vec![] }, 408, vec![]).replica = replica;
        assert_broken(&truth, &expected, &format!("asked of coordinator {replica}"));
    }
}

#[test]
fn what_the_database_says_of_the_time_counts_for_nothing_while_its_clock_is_wrong() {
    for (target, expected) in [(Target::Postgres, vec![]), (Target::Worker(0), vec![AHEAD])] {
        let mut truth = Truth::new();
        truth.trouble(Kind::ClockAhead, target, 20);
        let job = truth.submit(plain());
        truth.succeed(job, 0);
        let late = Time::from_micros(i64::try_from(truth.now().0).unwrap() + 30_000_000);
        truth.told_mut(job, "succeeded").data["at"] = late.to_string().into();
        truth.look(job);
        assert_broken(&truth, &expected, &format!("the clock of {target:?} was ahead"));
    }
}

#[test]
fn a_jump_of_the_databases_clock_excuses_no_more_than_it_can_have_done() {
    for (kind, seconds, expected) in [
        // A clock that is ahead is so by less than that, and one that is behind says nothing later than it was.
        (Kind::ClockAhead, 60, vec![AHEAD]),
        (Kind::ClockAhead, 30, vec![]),
        (Kind::ClockBehind, 30, vec![AHEAD]),
    ] {
        let mut truth = Truth::new();
        truth.trouble(kind, Target::Postgres, 20);
        let job = truth.submit(plain());
        truth.succeed(job, 0);
        let late = Time::from_micros(i64::try_from(truth.now().0).unwrap() + seconds * 1_000_000);
        truth.told_mut(job, "succeeded").data["at"] = late.to_string().into();
        truth.look(job);
        assert_broken(&truth, &expected, &format!("{kind:?}, and it says {seconds} s later"));
    }
}

#[test]
fn a_lease_that_ended_early_is_seen_by_when_its_end_was_told_while_the_databases_clock_is_wrong() {
    for (kind, before, passed, expected) in [
        (Kind::ClockBehind, true, 10, vec![EARLY]),
        (Kind::ClockBehind, true, 15, vec![]),
        (Kind::ClockAhead, false, 10, vec![EARLY]),
        // How long before what it says the grant was nobody knows.
        (Kind::ClockAhead, true, 10, vec![]),
    ] {
        let mut truth = Truth::new();
        let job = truth.submit(plain());
        if before {
            truth.trouble(kind, Target::Postgres, 30);
        }
        truth.grant(job, 0);
        truth.trouble(Kind::Cut, Target::WorkersWay(0), 20);
        if !before {
            truth.trouble(kind, Target::Postgres, 30);
        }
        truth.pass(passed);
        truth.lose(job);
        truth.retry(job, json!({"reason": "worker_lost", "message": "not heard"}));
        truth.succeed(job, 1);
        assert_broken(&truth, &expected, &format!("{kind:?}, before the grant: {before}, {passed} s after it"));
    }
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

#[test]
fn an_offer_is_left_only_where_its_attempt_was_granted_and_its_server_killed() {
    for (kind, attempt, expected) in
        [(Kind::Kill, 1, vec![]), (Kind::Kill, 2, vec![OFFER]), (Kind::Terminate, 1, vec![OFFER])]
    {
        let mut truth = Truth::new();
        let job = truth.submit(plain());
        truth.grant(job, 0);
        truth.trouble(kind, Target::Nats, 1);
        truth.pass(2);
        truth.step(job, 0, 0);
        truth.step(job, 1, 0);
        truth.finish(job, "succeeded", json!({}));
        let id = truth.history.rows[job.0].id.0.clone();
        truth.history.end.offers.push(format!("windlass.offer.e3b0.normal.{id}.{attempt}"));
        assert_broken(&truth, &expected, &format!("{kind:?}, attempt {attempt}"));
    }
}

#[test]
fn a_consumer_waits_for_nothing_only_where_its_server_was_killed() {
    let waits = "lane-high has 0 to deliver, 1 unacknowledged, 4 pulls";
    let delivers = "lane-high has 1 to deliver, 0 unacknowledged, 4 pulls";
    for (kind, said, expected) in
        [(Kind::Kill, waits, vec![]), (Kind::Terminate, waits, vec![OFFER]), (Kind::Kill, delivers, vec![OFFER])]
    {
        let mut truth = Truth::new();
        truth.trouble(kind, Target::Nats, 1);
        truth.history.end.offers.push(said.to_owned());
        assert_broken(&truth, &expected, &format!("{kind:?}: {said}"));
    }
}

#[test]
fn a_worker_ends_by_itself_only_where_it_starts_on_a_full_disk() {
    const START: &str = "worker-1 ended by itself (exit status: 1):\nwindlass: starting the worker: counting a start";
    let full = format!("{START}: No space left on device (os error 28)");
    for (worker, said, expected) in [(1, &*full, vec![]), (0, &*full, vec![DEATH]), (1, START, vec![DEATH])] {
        let mut truth = Truth::new();
        truth.trouble(Kind::FullDisk, Target::Worker(worker), 10);
        truth.history.end.deaths.push(said.to_owned());
        assert_broken(&truth, &expected, &format!("the disk of worker {worker} is full, and it says: {said}"));
    }
}
