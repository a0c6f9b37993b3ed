//! What is left over.

use tests::chaos::history::Slots;

use crate::chaos::judged::Falsehood;
use crate::chaos::judged::cast::Cast;

const GROWS: &str = "nothing grows with what was done";
const SLOTS: &str = "every slot can be taken, once";

pub const ALL: [Falsehood; 12] = [
    Falsehood {
        rule: "no process of a job is left",
        what: "a keeper is left",
        done: |Cast { truth, .. }| truth.history.end.processes.push("4711 windlass keeper".to_owned()),
    },
    Falsehood {
        rule: "no file of a job is left",
        what: "an entry of a spool is left",
        done: |Cast { truth, .. }| truth.history.end.files.push("worker-1/spool/a-1".to_owned()),
    },
    Falsehood {
        rule: "no process under test ends by itself",
        what: "a coordinator has panicked",
        done: |Cast { truth, .. }| truth.history.end.deaths.push("coordinator 1: panicked".to_owned()),
    },
    Falsehood {
        rule: "every event is published",
        what: "a shard's cursor is behind its last event",
        done: |Cast { truth, .. }| truth.history.end.unpublished.push((7, 3, 4)),
    },
    Falsehood {
        rule: "each shard counts as many events as it numbered",
        what: "a shard has lost an event",
        done: |Cast { truth, .. }| truth.history.end.gaps.push((7, 3, 4)),
    },
    Falsehood {
        rule: "no offer is left",
        what: "an offer is left",
        done: |Cast { truth, .. }| truth.history.end.offers.push("windlass.offer.x.normal.y.1".to_owned()),
    },
    Falsehood {
        rule: "no row is left of what isn't there any more",
        what: "a coordinator's row is left",
        done: |Cast { truth, .. }| truth.history.end.rows.push("coordinators: one that isn't there".to_owned()),
    },
    Falsehood {
        rule: GROWS,
        what: "subscriptions grow",
        done: |Cast { truth, .. }| truth.history.end.measures[0].after = 23,
    },
    Falsehood {
        rule: GROWS,
        what: "nothing was measured",
        done: |Cast { truth, .. }| truth.history.end.measures.clear(),
    },
    Falsehood {
        rule: SLOTS,
        what: "a slot is lost",
        done: |Cast { truth, .. }| truth.history.end.slots = Some(Slots { there: 6, ran_at_once: 5 }),
    },
    Falsehood {
        rule: SLOTS,
        what: "a slot is taken twice",
        done: |Cast { truth, .. }| truth.history.end.slots = Some(Slots { there: 6, ran_at_once: 7 }),
    },
    Falsehood {
        rule: SLOTS,
        what: "the slots weren't measured",
        done: |Cast { truth, .. }| truth.history.end.slots = None,
    },
];
