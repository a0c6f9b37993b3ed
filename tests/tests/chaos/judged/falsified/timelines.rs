//! Timelines with gaps, and with an order that can't be.

use serde_json::json;
use tests::chaos::history::{Id, Kind, Noted, Target};

use crate::chaos::judged::Falsehood;
use crate::chaos::judged::cast::Cast;
use crate::chaos::judged::truth::plain;

const ORDER: &str = "a job's events come in an order that can be";
const STEPS: &str = "a worker tells of an attempt's steps in their order";

pub const ALL: [Falsehood; 20] = [
    Falsehood {
        rule: "a job's events are numbered without a gap",
        what: "the last event's number is one too high, stored and told",
        done: |Cast { truth, succeeded, .. }| {
            truth.event_mut(*succeeded, "succeeded").seq += 1;
            truth.row_mut(*succeeded).seq += 1;
            let id = truth.id(*succeeded);
            let told = truth.history.told.iter_mut().filter(|told| told.job == id && told.kind == "succeeded");
            told.for_each(|told| {
                told.seq += 1;
                told.data["seq"] = told.seq.into();
            });
        },
    },
    Falsehood {
        rule: "a job's events are numbered without a gap",
        what: "a row counts one event more than there are",
        done: |Cast { truth, succeeded, .. }| truth.row_mut(*succeeded).seq += 1,
    },
    Falsehood {
        rule: "a shard's events are numbered without a gap",
        what: "the last event of a shard is numbered one too high",
        done: |Cast { truth, swept, .. }| truth.event_mut(*swept, "canceled").shard_seq += 1,
    },
    Falsehood {
        rule: "a job's events follow one another in its shard",
        what: "two events of a job have changed places in its shard",
        done: |Cast { truth, succeeded, .. }| {
            let [first, second] = ["submitted", "queued"].map(|kind| truth.event_mut(*succeeded, kind).shard_seq);
            truth.event_mut(*succeeded, "submitted").shard_seq = second;
            truth.event_mut(*succeeded, "queued").shard_seq = first;
        },
    },
    Falsehood {
        rule: "a job's events follow one another in its shard",
        what: "a row is in another shard than its events",
        done: |Cast { truth, succeeded, .. }| truth.row_mut(*succeeded).shard = 77,
    },
    Falsehood {
        rule: ORDER,
        what: "a worker gets a job that is being canceled",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.cancel(job);
            truth.assign(job, 1);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: ORDER,
        what: "a job starts twice in one attempt",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.start(job);
            truth.step(job, 0, 0);
            truth.step(job, 1, 0);
            truth.finish(job, "succeeded", json!({}));
        },
    },
    Falsehood {
        rule: ORDER,
        what: "a job starts that nobody was granted",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.start(job);
            truth.cancel(job);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: ORDER,
        what: "a worker gets an attempt while another has one",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.succeed(job, 1);
        },
    },
    Falsehood {
        rule: ORDER,
        what: "a job is canceled without a cancel on its timeline",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            let asked_at = truth.now();
            truth.canceled(job, true);
            truth.answer_cancel(job, 202, asked_at);
        },
    },
    Falsehood {
        rule: ORDER,
        what: "a job that is being canceled succeeds, and is canceled all the same",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.cancel(job);
            truth.event(job, "retried", "coordinator", "queued", json!({"reason": "worker_lost", "delay": "0s"}));
            truth.row_mut(job).tries += 1;
            truth.trouble(Kind::Kill, Target::Worker(0), 1);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: ORDER,
        what: "a job that was never submitted is queued",
        done: |Cast { truth, succeeded, .. }| {
            truth.rewrite(*succeeded, "submitted", |data| data["kind"] = "queued".into());
            truth.told_mut(*succeeded, "submitted").kind = "queued".into();
            truth.event_mut(*succeeded, "submitted").kind = "queued".into();
        },
    },
    Falsehood {
        rule: "attempt numbers grow by one with each grant",
        what: "an attempt's number is left out",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.row_mut(job).attempt = 1;
            truth.assign(job, 0);
            truth.start(job);
            truth.step(job, 0, 0);
            truth.step(job, 1, 0);
            truth.finish(job, "succeeded", json!({}));
        },
    },
    Falsehood {
        rule: "attempt numbers grow by one with each grant",
        what: "an attempt's number is used twice",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.assign(job, 0);
            truth.event(job, "declined", "worker:w", "queued", json!({"why": "full"}));
            truth.event(job, "queued", "coordinator", "queued", json!({}));
            truth.row_mut(job).attempt = 0;
            truth.assign(job, 0);
            truth.cancel(job);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: "each attempt is granted to a worker of the cluster",
        what: "a stranger gets an attempt",
        done: |Cast { truth, succeeded, .. }| {
            truth.event_mut(*succeeded, "assigned").worker = Some(Id("stranger".to_owned()));
        },
    },
    Falsehood {
        rule: "each attempt is granted to a worker of the cluster",
        what: "nobody gets an attempt",
        done: |Cast { truth, succeeded, .. }| truth.event_mut(*succeeded, "assigned").worker = None,
    },
    Falsehood {
        rule: STEPS,
        what: "a worker tells the end of a step twice",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.step(job, 0, 0);
            truth.event(job, "step_finished", "worker:w", "running", json!({"step": 0, "exit_code": 0}));
            truth.step(job, 1, 0);
            truth.finish(job, "succeeded", json!({}));
        },
    },
    Falsehood {
        rule: STEPS,
        what: "a worker tells of a step while another is under way",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.begin(job, 0);
            truth.event(job, "step_started", "worker:w", "running", json!({"step": 1}));
            truth.cancel(job);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: STEPS,
        what: "a worker leaves the first step out",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.note(job, Noted::Begin, 0);
            truth.event(job, "step_started", "worker:w", "running", json!({"step": 1}));
            truth.cancel(job);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: "whatever has ended waits for no time, and nothing else waits for none",
        what: "a job that has ended waits for a time",
        done: |Cast { truth, succeeded, .. }| truth.row_mut(*succeeded).wakes = true,
    },
];
