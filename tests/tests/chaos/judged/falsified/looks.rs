//! Jobs that were seen as they weren't, weren't any more, or weren't yet.

use serde_json::json;
use tests::chaos::history::{Ask, Asked, At, Seen};

use crate::chaos::judged::Falsehood;
use crate::chaos::judged::cast::Cast;
use crate::chaos::judged::truth::plain;

const WAS: &str = "a job was seen only as it was";
const AHEAD: &str = "a job was not seen as it was to become";
const BACK: &str = "a job was not seen as it was before";

pub const ALL: [Falsehood; 10] = [
    Falsehood {
        rule: WAS,
        what: "a job was seen blocked that never was",
        done: |Cast { truth, succeeded, .. }| {
            let seen = Seen { state: "blocked".to_owned(), ..truth.seen(*succeeded) };
            truth.call(Ask::Look { job: truth.id(*succeeded) }, 200, vec![seen]);
        },
    },
    Falsehood {
        rule: WAS,
        what: "a job was seen in an attempt that it never had",
        done: |Cast { truth, succeeded, .. }| {
            let seen = Seen { attempt: Some(2), ..truth.seen(*succeeded) };
            truth.call(Ask::Look { job: truth.id(*succeeded) }, 200, vec![seen]);
        },
    },
    Falsehood {
        rule: WAS,
        what: "a job was seen with another outcome",
        done: |Cast { truth, failed, .. }| {
            let outcome = Some(json!({"reason": "step_failed", "step": 1, "exit_code": 4}));
            let seen = Seen { outcome, ..truth.seen(*failed) };
            truth.call(Ask::Look { job: truth.id(*failed) }, 200, vec![seen]);
        },
    },
    Falsehood {
        rule: BACK,
        what: "a job was seen running after somebody had seen its end",
        done: |Cast { truth, succeeded, .. }| {
            let seen = Seen { state: "running".to_owned(), ..truth.seen(*succeeded) };
            truth.call(Ask::Look { job: truth.id(*succeeded) }, 200, vec![seen]);
        },
    },
    Falsehood {
        rule: BACK,
        what: "a job was seen in its first attempt after the second had been told",
        done: |Cast { truth, .. }| {
            let job = truth.submit(Asked { exits: vec![3], retries_failures: true, ..plain() });
            truth.grant(job, 0);
            truth.step(job, 0, 3);
            let before = truth.seen(job);
            truth.retry(job, json!({"reason": "step_failed", "step": 0, "exit_code": 3}));
            truth.grant(job, 1);
            truth.call(Ask::Look { job: truth.id(job) }, 200, vec![before]);
            truth.step(job, 0, 3);
            truth.fail(job, json!({"reason": "step_failed", "step": 0, "exit_code": 3}));
        },
    },
    Falsehood {
        rule: BACK,
        what: "a job ran after the answer to a cancel by filter for its team",
        done: |Cast { truth, .. }| {
            let job = truth.submit(Asked { team: Some("green".to_owned()), ..plain() });
            truth.grant(job, 0);
            truth.call(Ask::CancelTeam { team: "green".to_owned() }, 202, vec![]);
            truth.look(job);
            truth.cancel(job);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: BACK,
        what: "a job couldn't be run again after its end was told",
        done: |Cast { truth, failed, .. }| {
            let job = truth.id(*failed);
            truth.call(Ask::Retry { job }, 409, vec![]);
        },
    },
    Falsehood {
        rule: AHEAD,
        what: "a job was seen to have succeeded ten seconds before it did",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            let before = truth.now();
            truth.pass(10);
            truth.succeed(job, 0);
            let seen = truth.seen(job);
            let call = truth.call(Ask::Look { job: seen.id.clone() }, 200, vec![seen]);
            call.asked_at = before;
            call.answer.as_mut().expect("it was answered").at = At(before.0 + 1000);
        },
    },
    Falsehood {
        rule: AHEAD,
        what: "a cancel by filter was answered, and a job of its team was never stopped",
        done: |Cast { truth, .. }| {
            let job = truth.submit(Asked { team: Some("green".to_owned()), ..plain() });
            truth.call(Ask::CancelTeam { team: "green".to_owned() }, 202, vec![]);
            truth.grant(job, 0);
            truth.step(job, 0, 0);
            truth.step(job, 1, 0);
            truth.pass(10);
            truth.finish(job, "succeeded", json!({}));
        },
    },
    Falsehood {
        rule: BACK,
        what: "a job was seen queued again by somebody else after one had seen it run",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            let queued = truth.seen(job);
            truth.grant(job, 0);
            truth.look(job);
            truth.call(Ask::Look { job: truth.id(job) }, 200, vec![queued]).client = 2;
            truth.step(job, 0, 0);
            truth.step(job, 1, 0);
            truth.finish(job, "succeeded", json!({}));
        },
    },
];
