//! Jobs that don't end, end twice, or end differently here and there.

use serde_json::json;

use crate::chaos::judged::Falsehood;
use crate::chaos::judged::cast::Cast;
use crate::chaos::judged::truth::plain;

pub const ALL: [Falsehood; 13] = [
    Falsehood {
        rule: "every job ends",
        what: "a job is queued in the end",
        done: |Cast { truth, .. }| {
            truth.submit(plain());
        },
    },
    Falsehood {
        rule: "every job ends",
        what: "a job that has ended hadn't in time",
        done: |Cast { truth, succeeded, .. }| {
            let id = truth.id(*succeeded);
            truth.history.end.unfinished.push(id);
        },
    },
    Falsehood {
        rule: "a job ends once",
        what: "a job succeeds twice",
        done: |Cast { truth, succeeded, .. }| truth.event(*succeeded, "succeeded", "worker:w", "succeeded", json!({})),
    },
    Falsehood {
        rule: "nothing but one late report follows the end",
        what: "a worker tells of its key after the end",
        done: |Cast { truth, succeeded, .. }| truth.event(*succeeded, "key_try", "worker:w", "succeeded", json!({})),
    },
    Falsehood {
        rule: "nothing but one late report follows the end",
        what: "a worker tells the end of a job twice after its end",
        done: |Cast { truth, keyless, .. }| {
            truth.event(*keyless, "late_report", "worker:w", "failed", json!({}));
            truth.event(*keyless, "late_report", "worker:w", "failed", json!({}));
        },
    },
    Falsehood {
        rule: "a job's row ends as its timeline does",
        what: "a row has another exit code than the event",
        done: |Cast { truth, again, .. }| {
            truth.row_mut(*again).outcome.as_mut().expect("it has failed")["failure"]["exit_code"] = 4.into();
            truth.show(*again);
        },
    },
    Falsehood {
        rule: "a job's row ends as its timeline does",
        what: "a row and its event name different people who canceled it",
        done: |Cast { truth, swept, .. }| {
            truth.rewrite(*swept, "canceled", |data| data["canceled"]["by"] = "client:bob".into());
        },
    },
    Falsehood {
        rule: "a job's row ends as its timeline does",
        what: "a row's outcome can't be read",
        done: |Cast { truth, again, .. }| {
            truth.row_mut(*again).outcome = Some(json!({"reason": 3}));
            for replica in 0..2 {
                truth.view_mut(*again, replica).outcome = Some(json!({"reason": 3}));
            }
        },
    },
    Falsehood {
        rule: "every replica says of a job what its row says",
        what: "a coordinator shows a job as failed that has succeeded",
        done: |Cast { truth, succeeded, .. }| truth.view_mut(*succeeded, 1).state = "failed".into(),
    },
    Falsehood {
        rule: "every replica says of a job what its row says",
        what: "a coordinator shows another attempt",
        done: |Cast { truth, lost, .. }| truth.view_mut(*lost, 0).attempt = 1,
    },
    Falsehood {
        rule: "every replica says of a job what its row says",
        what: "a coordinator shows another outcome",
        done: |Cast { truth, failed, .. }| truth.view_mut(*failed, 0).outcome = None,
    },
    Falsehood {
        rule: "every replica says of a job what its row says",
        what: "a coordinator doesn't show a job",
        done: |Cast { truth, succeeded, .. }| {
            truth.history.views.remove(succeeded.0);
        },
    },
    Falsehood {
        rule: "every replica says of a job what its row says",
        what: "a coordinator that was asked shows nothing in the end",
        done: |Cast { truth, .. }| truth.history.calls[0].replica = 2,
    },
];
