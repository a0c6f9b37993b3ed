//! Steps that ran twice, out of order, too late, or for nobody; and fences that fence nothing.

use tests::chaos::history::{Kind, Note, Noted, Target};

use crate::chaos::judged::Falsehood;
use crate::chaos::judged::cast::Cast;
use crate::chaos::judged::truth::{Job, Truth, plain};

const IN_ORDER: &str = "a step begins only after the one before it has ended well";
const END_ONCE: &str = "a step ends at most once in an attempt, and after it has begun";
const OWN: &str = "an attempt has one fence, which no other has";

const CONFIRMED: &str = "nothing of an attempt runs after its worker has confirmed its cancel";

pub const ALL: [Falsehood; 22] = [
    Falsehood {
        rule: "a step begins at most once in an attempt",
        what: "a step's first line is there twice",
        done: |Cast { truth, succeeded, .. }| double(truth, *succeeded, 0),
    },
    Falsehood {
        rule: END_ONCE,
        what: "a step's last line is there twice",
        done: |Cast { truth, succeeded, .. }| double(truth, *succeeded, 1),
    },
    Falsehood {
        rule: END_ONCE,
        what: "a step ends that never began",
        done: |Cast { truth, canceled, .. }| {
            let first = truth.notes_mut(*canceled)[0].clone();
            truth.notes_mut(*canceled).push(Note { what: Noted::End, step: 1, ..first });
        },
    },
    Falsehood {
        rule: IN_ORDER,
        what: "the second step begins before the first has ended",
        done: |Cast { truth, succeeded, .. }| truth.notes_mut(*succeeded).swap(1, 2),
    },
    Falsehood {
        rule: IN_ORDER,
        what: "a step begins after one that has failed",
        done: |Cast { truth, again, .. }| {
            let id = truth.id(*again);
            let notes = truth.notes_mut(*again);
            let last = notes.iter().rfind(|note| note.job == id).expect("it has run").clone();
            notes.push(Note { what: Noted::Begin, step: 2, ..last });
        },
    },
    Falsehood {
        rule: IN_ORDER,
        what: "the first step is left out",
        done: |Cast { truth, canceled, .. }| truth.notes_mut(*canceled)[0].step = 1,
    },
    Falsehood {
        rule: "whatever runs was granted",
        what: "a second attempt runs that nobody was granted",
        done: |Cast { truth, succeeded, .. }| {
            let first = truth.notes_mut(*succeeded)[0].clone();
            truth.notes_mut(*succeeded).push(Note { attempt: 2, fence: 9999, ..first });
        },
    },
    Falsehood {
        rule: "whatever runs was granted",
        what: "a job runs that expired before anybody had it",
        done: |Cast { truth, expired, .. }| truth.note_of(*expired, Noted::Begin, (1, 0, 9999)),
    },
    Falsehood {
        rule: "a job that was canceled before its claim never starts",
        what: "a job runs that was canceled before anybody had it",
        done: |Cast { truth, canceled_early, .. }| truth.note_of(*canceled_early, Noted::Begin, (1, 0, 9999)),
    },
    Falsehood {
        rule: "a job notes under its own key",
        what: "a job's steps write into another's notes",
        done: |Cast { truth, succeeded, failed, .. }| {
            let notes = std::mem::take(truth.notes_mut(*succeeded));
            truth.notes_mut(*failed).extend(notes);
        },
    },
    Falsehood {
        rule: "nothing of an attempt runs after its worker has told its end",
        what: "a step goes on after the success of its job was told",
        done: |Cast { truth, succeeded, .. }| {
            let now = truth.now();
            truth.notes_mut(*succeeded).last_mut().expect("it has run").at = now;
        },
    },
    Falsehood {
        rule: "nothing of an attempt runs after its worker has told its end",
        what: "a step goes on after its attempt was tried again",
        done: |Cast { truth, tried_twice, .. }| {
            let mut later = truth.told_mut(*tried_twice, "retried").at;
            later.0 += 1_000_000;
            truth.notes_mut(*tried_twice)[3].at = later;
        },
    },
    Falsehood {
        rule: OWN,
        what: "an attempt's fence changes",
        done: |Cast { truth, succeeded, .. }| truth.notes_mut(*succeeded)[1].fence = 9999,
    },
    Falsehood {
        rule: OWN,
        what: "two jobs have one fence",
        done: |Cast { truth, succeeded, canceled, .. }| {
            let fence = truth.notes_mut(*succeeded)[0].fence;
            truth.notes_mut(*canceled)[0].fence = fence;
        },
    },
    Falsehood {
        rule: "a later attempt's fence is higher",
        what: "the first attempt of a job has the higher fence",
        done: |Cast { truth, tried_twice, .. }| {
            for note in truth.notes_mut(*tried_twice).iter_mut().filter(|note| note.attempt == 1) {
                note.fence += 1000;
            }
        },
    },
    Falsehood {
        rule: CONFIRMED,
        what: "a step begins after its worker has confirmed the cancel",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.step(job, 0, 0);
            truth.cancel(job);
            truth.canceled(job, true);
            truth.note(job, Noted::Begin, 1);
        },
    },
    Falsehood {
        rule: CONFIRMED,
        what: "a step begins after a cancel that was answered, though nobody had told of it",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.step(job, 0, 0);
            truth.cancel(job);
            truth.canceled(job, true);
            let now = truth.now();
            truth.answer_cancel(job, 200, now);
            truth.note(job, Noted::Begin, 1);
            truth.pass(10);
            let later = truth.now();
            truth.told_mut(job, "canceled").at = later;
        },
    },
    Falsehood {
        rule: CONFIRMED,
        what: "a step ends after its worker has confirmed the cancel",
        done: |Cast { truth, canceled, .. }| {
            let fence = truth.fence_of(*canceled);
            truth.note_of(*canceled, Noted::End, (1, 0, fence));
        },
    },
    Falsehood {
        rule: "nothing of an attempt runs on when its worker was killed",
        what: "a step ends three seconds after its worker was killed",
        done: |Cast { truth, lost, .. }| {
            let mut note = truth.notes_mut(*lost)[0].clone();
            (note.what, note.at.0) = (Noted::End, note.at.0 + 3_100_000);
            truth.notes_mut(*lost).insert(1, note);
        },
    },
    Falsehood {
        rule: "no step begins in an attempt that was given up when its worker can be told",
        what: "a step begins twenty seconds after its worker was given up and there again",
        done: |Cast { truth, overlapped, .. }| {
            let notes = truth.notes_mut(*overlapped);
            let mut note = notes[0].clone();
            (note.what, note.at.0) = (Noted::End, note.at.0 + 1_000_000);
            notes.insert(1, note.clone());
            (note.what, note.step, note.at.0) = (Noted::Begin, 1, note.at.0 + 34_000_000);
            notes.insert(2, note);
        },
    },
    Falsehood {
        rule: "no step begins after a cancel",
        what: "a step begins after a cancel that nobody confirmed, and its worker could be reached",
        done: |Cast { truth, .. }| {
            let job = truth.submit(plain());
            truth.grant(job, 0);
            truth.step(job, 0, 0);
            truth.cancel(job);
            truth.pass(15);
            truth.canceled(job, false);
            truth.note(job, Noted::Begin, 1);
        },
    },
    Falsehood {
        rule: "no step begins after a cancel",
        what: "a step begins after a cancel that nobody confirmed, and only clients were cut off",
        done: |Cast { truth, unconfirmed, .. }| {
            let begun = truth.notes_mut(*unconfirmed).last().expect("it ran on").at;
            let mut troubles = truth.history.troubles.iter_mut();
            let frozen =
                troubles.find(|trouble| trouble.from < begun && begun < trouble.to).expect("its worker was stopped");
            (frozen.kind, frozen.target) = (Kind::Cut, Target::WayToCoordinator(0));
        },
    },
];

/// Writes the note at that place twice.
fn double(truth: &mut Truth, job: Job, place: usize) {
    let notes = truth.notes_mut(job);
    let note = notes[place].clone();
    notes.insert(place, note);
}
