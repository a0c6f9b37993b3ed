//! Answers that aren't true.

use serde_json::json;
use tests::chaos::history::{Ask, Asked, Seen};

use crate::chaos::judged::Falsehood;
use crate::chaos::judged::cast::Cast;
use crate::chaos::judged::truth::plain;

const COUNTS: &str = "a cancel by filter counts the jobs that it stops";
const STATUS: &str = "an answer has a status that is true of what was asked";

pub const ALL: [Falsehood; 16] = [
    Falsehood {
        rule: STATUS,
        what: "a look is answered 500",
        done: |Cast { truth, succeeded, .. }| {
            let job = truth.id(*succeeded);
            truth.call(Ask::Look { job }, 500, vec![]);
        },
    },
    Falsehood {
        rule: STATUS,
        what: "a repeated submission is answered 422",
        done: |Cast { truth, succeeded, .. }| {
            let keys = vec![truth.key(*succeeded)];
            truth.call(Ask::Submit { keys }, 422, vec![]);
        },
    },
    Falsehood {
        rule: STATUS,
        what: "a cancel by filter is answered 200",
        done: |Cast { truth, .. }| {
            truth.call(Ask::CancelTeam { team: "red".to_owned() }, 200, vec![]);
        },
    },
    Falsehood {
        rule: STATUS,
        what: "a submission is answered 404",
        done: |Cast { truth, .. }| {
            truth.call(Ask::Submit { keys: vec![] }, 404, vec![]);
        },
    },
    Falsehood {
        rule: "a job that was accepted is found",
        what: "a look at a job that was accepted is answered 404",
        done: |Cast { truth, succeeded, .. }| {
            let job = truth.id(*succeeded);
            truth.call(Ask::Look { job }, 404, vec![]);
        },
    },
    Falsehood {
        rule: "a job that was accepted is found",
        what: "a cancel of a job that was accepted is answered 404",
        done: |Cast { truth, succeeded, .. }| {
            let job = truth.id(*succeeded);
            truth.call(Ask::Cancel { job, force: false }, 404, vec![]);
        },
    },
    Falsehood {
        rule: "a cancel that was taken ends its job as canceled",
        what: "a job succeeds whose cancel was answered 202",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            let seen = Seen { id: truth.id(job), state: "canceling".to_owned(), ..Seen::default() };
            truth.call(Ask::Cancel { job: truth.id(job), force: false }, 202, vec![seen]);
            truth.step(job, 0, 0);
            truth.step(job, 1, 0);
            truth.finish(job, "succeeded", json!({}));
        },
    },
    Falsehood {
        rule: "a cancel that was taken ends its job as canceled",
        what: "a cancel is answered 202 with a job that runs",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            let seen = truth.seen(job);
            truth.call(Ask::Cancel { job: truth.id(job), force: false }, 202, vec![seen]);
            truth.cancel(job);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: "a cancel that came too late names how the job has ended",
        what: "a cancel is answered with success, and the job has failed",
        done: |Cast { truth, failed, .. }| {
            let seen = Seen { state: "succeeded".to_owned(), ..truth.seen(*failed) };
            truth.call(Ask::Cancel { job: truth.id(*failed), force: false }, 200, vec![seen]);
        },
    },
    Falsehood {
        rule: "a cancel that came too late names how the job has ended",
        what: "a cancel is answered 200 with a job that runs",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            let seen = truth.seen(job);
            truth.call(Ask::Cancel { job: truth.id(job), force: false }, 200, vec![seen]);
            truth.cancel(job);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: COUNTS,
        what: "a cancel by filter counts a job more than there are",
        done: |Cast { truth, .. }| {
            let mut answers = truth.history.calls.iter_mut().filter_map(|call| call.answer.as_mut());
            let counted = answers.find(|answer| answer.matched.is_some()).expect("a team was canceled");
            counted.matched = Some(3);
        },
    },
    Falsehood {
        rule: COUNTS,
        what: "a cancel by filter counts no job, and one was there",
        done: |Cast { truth, .. }| {
            let job = truth.submit(Asked { team: Some("green".to_owned()), ..plain() });
            truth.grant(job, 0);
            truth.event(job, "cancel_requested", "client:ann", "running", json!({"force": false}));
            truth.event(job, "canceling", "client:ann", "canceling", json!({"stop": {"grace": "10s"}}));
            let call = truth.call(Ask::CancelTeam { team: "green".to_owned() }, 202, vec![]);
            call.asked_at.0 -= 250_000;
            call.answer.as_mut().expect("it was answered").matched = Some(0);
            truth.pass(5);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: "no job is canceled that nobody wanted canceled",
        what: "a job is canceled without any call",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.event(job, "cancel_requested", "client:ann", "queued", json!({"force": false}));
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: "no job is canceled that nobody wanted canceled",
        what: "a job is canceled before the first call for it",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.event(job, "cancel_requested", "client:ann", "queued", json!({"force": false}));
            truth.canceled(job, true);
            truth.pass(1);
            let now = truth.now();
            truth.answer_cancel(job, 200, now);
        },
    },
    Falsehood {
        rule: "no job is canceled that nobody wanted canceled",
        what: "a job is canceled with another team's",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.call(Ask::CancelTeam { team: "blue".to_owned() }, 202, vec![]);
            truth.event(job, "cancel_requested", "client:ann", "queued", json!({"force": false}));
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: "no job is canceled that nobody wanted canceled",
        what: "a job that runs is told to stop, and nobody wanted it",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.event(job, "cancel_requested", "coordinator", "running", json!({"force": false}));
            truth.event(job, "canceling", "coordinator", "canceling", json!({"stop": {"grace": "10s"}}));
            truth.canceled(job, true);
        },
    },
];
