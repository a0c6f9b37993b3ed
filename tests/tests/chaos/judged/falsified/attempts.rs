//! Attempts that end for what they may not end for, are counted wrongly, or overlap.

use serde_json::json;
use tests::chaos::history::{Asked, Kind, Note, Noted, Target};

use crate::chaos::judged::Falsehood;
use crate::chaos::judged::cast::Cast;
use crate::chaos::judged::truth::{Job, Truth, plain};

const SUCCEEDED: &str = "a job that succeeded has done every step";
const STEP_FAILED: &str = "a step fails only as it was asked to";
const LOST: &str = "no worker is lost without a trouble";
const INTERNAL: &str = "nothing but a full disk fails a checkout or the worker itself";
const KNOWN: &str = "a job fails for no reason but those that were asked for";
const COUNTED: &str = "a job's tries are those that its timeline tells";
const CUT_OFF: &str = "attempts overlap only while the older one's worker is cut off";

pub const ALL: [Falsehood; 26] = [
    Falsehood {
        rule: SUCCEEDED,
        what: "a job succeeds whose last step never came to its end",
        done: |Cast { truth, succeeded, .. }| {
            truth.notes_mut(*succeeded).pop();
        },
    },
    Falsehood {
        rule: SUCCEEDED,
        what: "a job succeeds whose last step was to exit with 1",
        done: |Cast { truth, succeeded, .. }| {
            let key = truth.key(*succeeded);
            truth.history.jobs.get_mut(&key).expect("it was asked for").exits[1] = 1;
        },
    },
    Falsehood {
        rule: SUCCEEDED,
        what: "a job succeeds whose steps were done by an earlier attempt alone",
        done: |Cast { truth, lost, .. }| truth.notes_mut(*lost).retain(|note| note.attempt == 1),
    },
    Falsehood {
        rule: STEP_FAILED,
        what: "a step exits with another code than it was asked to",
        done: |Cast { truth, failed, .. }| {
            let key = truth.key(*failed);
            truth.history.jobs.get_mut(&key).expect("it was asked for").exits[1] = 4;
        },
    },
    Falsehood {
        rule: STEP_FAILED,
        what: "a step dies of a signal that nobody sent it",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            truth.begin(job, 0);
            truth.fail(job, json!({"reason": "step_failed", "step": 0, "signal": 9}));
        },
    },
    Falsehood {
        rule: STEP_FAILED,
        what: "a step fails that never began",
        done: |Cast { truth, .. }| {
            let job = truth.submit(Asked { exits: vec![3], ..plain() });
            truth.grant(job, 0);
            truth.fail(job, json!({"reason": "step_failed", "step": 0, "exit_code": 3}));
        },
    },
    Falsehood {
        rule: STEP_FAILED,
        what: "a step fails though it never came to its end",
        done: |Cast { truth, .. }| {
            let job = truth.submit(Asked { exits: vec![3], ..plain() });
            truth.grant(job, 0);
            truth.begin(job, 0);
            truth.fail(job, json!({"reason": "step_failed", "step": 0, "exit_code": 3}));
        },
    },
    Falsehood {
        rule: "a job times out only where it may",
        what: "a job times out that has all the time",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            truth.fail(job, json!({"reason": "timed_out", "limit": "job"}));
        },
    },
    Falsehood {
        rule: "a job times out only where it may",
        what: "a step times out that has all the time",
        done: |Cast { truth, timed_out, .. }| {
            let key = truth.key(*timed_out);
            truth.history.jobs.get_mut(&key).expect("it was asked for").may.clear();
        },
    },
    Falsehood {
        rule: "a job expires only where it may",
        what: "a job expires that may wait for ever",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.finish(job, "failed", json!({"reason": "expired"}));
        },
    },
    Falsehood {
        rule: "a job lacks its deploy key only where it may",
        what: "a job lacks a deploy key that was registered in time",
        done: |Cast { truth, keyless, .. }| {
            let key = truth.key(*keyless);
            truth.history.jobs.get_mut(&key).expect("it was asked for").may.clear();
        },
    },
    Falsehood {
        rule: LOST,
        what: "a worker is lost to which nothing has happened",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            lost_and_found(truth, job);
        },
    },
    Falsehood {
        rule: LOST,
        what: "a worker is lost when another was killed",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            truth.trouble(Kind::Kill, Target::Worker(1), 20);
            truth.trouble(Kind::Stall, Target::Postgres, 20);
            lost_and_found(truth, job);
        },
    },
    Falsehood {
        rule: LOST,
        what: "a worker stops an attempt by itself",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            truth.retry(job, json!({"reason": "worker_lost", "message": "it was shut down"}));
            truth.succeed(job, 1);
        },
    },
    Falsehood {
        rule: INTERNAL,
        what: "a worker fails at an attempt, and its disk had room",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            truth.trouble(Kind::FullDisk, Target::Worker(1), 20);
            truth.fail(job, json!({"reason": "internal", "message": "no space"}));
        },
    },
    Falsehood {
        rule: INTERNAL,
        what: "a checkout fails",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            truth.fail(job, json!({"reason": "checkout_failed", "transient": false, "message": "no such ref"}));
        },
    },
    Falsehood {
        rule: KNOWN,
        what: "a deploy key is denied",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            truth.fail(job, json!({"reason": "deploy_key_denied", "message": "the attempt is not current"}));
        },
    },
    Falsehood {
        rule: "no job has more tries than it may have",
        what: "a job that may be tried once is tried twice",
        done: |Cast { truth, tried_twice, .. }| {
            let key = truth.key(*tried_twice);
            truth.history.jobs.get_mut(&key).expect("it was asked for").max_attempts = 1;
        },
    },
    Falsehood {
        rule: COUNTED,
        what: "a row counts a try that the timeline doesn't tell",
        done: |Cast { truth, succeeded, .. }| truth.row_mut(*succeeded).tries += 1,
    },
    Falsehood {
        rule: COUNTED,
        what: "a parked attempt is counted as a try",
        done: |Cast { truth, parked, .. }| truth.row_mut(*parked).tries += 1,
    },
    Falsehood {
        rule: "a failed step is tried again only where that was asked for",
        what: "a failed step is tried again, and nobody wanted it",
        done: |Cast { truth, tried_twice, .. }| {
            let key = truth.key(*tried_twice);
            truth.history.jobs.get_mut(&key).expect("it was asked for").retries_failures = false;
        },
    },
    Falsehood {
        rule: "whatever is to be tried again is, while there are tries left",
        what: "a job fails for its worker's loss with a try left",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            truth.trouble(Kind::Kill, Target::Worker(0), 20);
            truth.lose(job);
            truth.fail(job, json!({"reason": "worker_lost", "message": "not heard"}));
        },
    },
    Falsehood {
        rule: "no worker is given up before its lease ends",
        what: "a worker is lost ten seconds after it was cut off",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            truth.trouble(Kind::Cut, Target::WorkersWay(0), 20);
            truth.pass(10);
            truth.lose(job);
            truth.retry(job, json!({"reason": "worker_lost", "message": "not heard"}));
            truth.succeed(job, 1);
        },
    },
    Falsehood {
        rule: "no cancel is given up before its grace ends",
        what: "a cancel is given up after ten seconds of grace",
        done: |Cast { truth, .. }| {
            let job = granted(truth);
            truth.cancel(job);
            truth.pass(10);
            truth.canceled(job, false);
        },
    },
    Falsehood {
        rule: "attempts of a job that stops without contact never overlap",
        what: "an attempt meets the one before it, which was to stop",
        done: |Cast { truth, stopped, .. }| {
            let notes = truth.notes_mut(*stopped);
            let second = notes.iter().position(|note| note.attempt == 2).expect("it ran again");
            let met = Noted::Overlap { holder: 1 };
            notes.insert(second, Note { what: met, ..notes[second].clone() });
        },
    },
    Falsehood {
        rule: CUT_OFF,
        what: "an attempt meets the one before it, whose worker could be reached",
        done: |Cast { truth, overlapped, .. }| {
            let met = truth.notes_mut(*overlapped).iter().find(|note| note.attempt == 2).expect("it ran again").at;
            let mut troubles = truth.history.troubles.iter_mut();
            let cut = troubles.find(|trouble| trouble.from < met && met < trouble.to).expect("its worker was cut off");
            // Killed it was lost as well, but then its keeper ends what it ran.
            (cut.kind, cut.target) = (Kind::Kill, Target::Worker(1));
        },
    },
];

/// A job that the first worker has, long after any trouble.
fn granted(truth: &mut Truth) -> Job {
    truth.pass(100);
    let job = truth.submit(plain());
    truth.grant(job, 0);
    job
}

/// Its worker is lost, and another runs it.
fn lost_and_found(truth: &mut Truth, job: Job) {
    truth.pass(15);
    truth.lose(job);
    truth.retry(job, json!({"reason": "worker_lost", "message": "not heard"}));
    truth.succeed(job, 1);
}
