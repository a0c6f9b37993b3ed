//! What a subscriber was told, and isn't so.

use tests::chaos::history::Told;

use crate::chaos::judged::Falsehood;
use crate::chaos::judged::cast::Cast;

const SAME: &str = "what is told is what is stored, also when it is told again";

pub const ALL: [Falsehood; 8] = [
    Falsehood {
        rule: "nothing is told that isn't stored",
        what: "an event is told that no row of the database holds",
        done: |Cast { truth, succeeded, .. }| {
            let told = truth.told_mut(*succeeded, "succeeded").clone();
            truth.history.told.push(Told { seq: told.seq + 1, ..told });
        },
    },
    Falsehood {
        rule: SAME,
        what: "another step is told than is stored",
        done: |Cast { truth, succeeded, .. }| truth.told_mut(*succeeded, "step_started").data["step"] = 7.into(),
    },
    Falsehood {
        rule: SAME,
        what: "less is told than is stored",
        done: |Cast { truth, failed, .. }| {
            truth.told_mut(*failed, "failed").data.as_object_mut().expect("data is an object").remove("exit_code");
        },
    },
    Falsehood {
        rule: SAME,
        what: "another kind is told than is stored",
        done: |Cast { truth, succeeded, .. }| truth.told_mut(*succeeded, "started").kind = "checked_out".into(),
    },
    Falsehood {
        rule: SAME,
        what: "an event is told again as of another attempt",
        done: |Cast { truth, succeeded, .. }| {
            let told = truth.told_mut(*succeeded, "succeeded").clone();
            truth.history.told.push(Told { attempt: 2, ..told });
        },
    },
    Falsehood {
        rule: "a job's events are told in their order",
        what: "the second event of a job is told before the first",
        done: |Cast { truth, failed, .. }| {
            let [first, second] = ["submitted", "queued"].map(|kind| truth.told_place(*failed, kind));
            truth.history.told.swap(first, second);
        },
    },
    Falsehood {
        rule: "whatever is stored is told",
        what: "an event in the middle was never told",
        done: |Cast { truth, failed, .. }| {
            let place = truth.told_place(*failed, "started");
            truth.history.told.remove(place);
        },
    },
    Falsehood {
        rule: "whatever is stored is told",
        what: "the end of a job was never told",
        done: |Cast { truth, failed, .. }| {
            let place = truth.told_place(*failed, "failed");
            truth.history.told.remove(place);
        },
    },
];
