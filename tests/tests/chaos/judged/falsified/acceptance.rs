//! Jobs that were accepted and aren't there, or there and never asked for.

use tests::chaos::history::{Ask, Call, Id, Key, Note, Noted, Seen};

use crate::chaos::judged::Falsehood;
use crate::chaos::judged::cast::Cast;
use crate::chaos::judged::truth::plain;

pub const ALL: [Falsehood; 17] = [
    Falsehood {
        rule: "an answer names as many jobs as were asked for",
        what: "of two jobs that were submitted together one is answered",
        done: |Cast { truth, succeeded, failed, .. }| {
            let (keys, seen) = (vec![truth.key(*succeeded), truth.key(*failed)], truth.seen(*succeeded));
            truth.call(Ask::Submit { keys }, 200, vec![seen]);
        },
    },
    Falsehood {
        rule: "an answer names as many jobs as were asked for",
        what: "a look at one job shows another",
        done: |Cast { truth, succeeded, failed, .. }| {
            let (job, seen) = (truth.id(*succeeded), truth.seen(*failed));
            truth.call(Ask::Look { job }, 200, vec![seen]);
        },
    },
    Falsehood {
        rule: "an accepted job has one row, under its key",
        what: "a job was answered 201 and isn't there",
        done: |Cast { truth, .. }| {
            let seen = Seen { id: Id("lost".to_owned()), state: "queued".to_owned(), ..Seen::default() };
            truth.call(Ask::Submit { keys: vec![Key("lost".to_owned())] }, 201, vec![seen]);
        },
    },
    Falsehood {
        rule: "an accepted job has one row, under its key",
        what: "a job has two rows",
        done: |Cast { truth, succeeded, .. }| {
            let row = truth.row(*succeeded).clone();
            truth.history.rows.push(row);
        },
    },
    Falsehood {
        rule: "a key stands for one job",
        what: "two jobs were made under one key",
        done: |Cast { truth, succeeded, .. }| {
            let second = truth.accept(truth.key(*succeeded), None, None);
            truth.succeed(second, 0);
        },
    },
    Falsehood {
        rule: "a key stands for one job",
        what: "a key was answered with a job, and later with another, which repeats it by hand",
        done: |Cast { truth, failed, again, .. }| {
            let (keys, seen) = (vec![truth.key(*failed)], truth.seen(*again));
            truth.call(Ask::Submit { keys }, 200, vec![seen]);
        },
    },
    Falsehood {
        rule: "a key is new once",
        what: "a submission that was answered before is answered 201 when it is repeated",
        done: |Cast { truth, succeeded, .. }| {
            let (keys, seen) = (vec![truth.key(*succeeded)], truth.seen(*succeeded));
            truth.call(Ask::Submit { keys }, 201, vec![seen]);
        },
    },
    Falsehood {
        rule: "a key is new once",
        what: "of two submissions of one key at the same time both are answered 201",
        done: |Cast { truth, succeeded, .. }| {
            let (key, id) = (truth.key(*succeeded), truth.id(*succeeded));
            let of_it = |call: &&Call| call.ask == Ask::Submit { keys: vec![key.clone()] };
            let first = truth.history.calls.iter().find(of_it).expect("it was submitted").clone();
            assert_eq!(first.answer.as_ref().map(|answer| answer.jobs[0].id.clone()), Some(id));
            truth.history.calls.push(first);
        },
    },
    Falsehood {
        rule: "a retry by hand repeats a job that has ended, under its key",
        what: "a job repeats one of another key",
        done: |Cast { truth, succeeded, failed, .. }| {
            let job = truth.id(*failed);
            let retry = truth.accept(truth.key(*succeeded), None, Some(job.clone()));
            truth.call(Ask::Retry { job }, 503, vec![]);
            truth.succeed(retry, 0);
        },
    },
    Falsehood {
        rule: "a retry by hand repeats a job that has ended, under its key",
        what: "a retry's first event names no job",
        done: |Cast { truth, again, .. }| {
            truth.rewrite(*again, "submitted", |data| {
                data.remove("retry_of");
            });
        },
    },
    Falsehood {
        rule: "a retry by hand repeats a job that has ended, under its key",
        what: "a retry was made long before the end of what it repeats",
        done: |Cast { truth, .. }| {
            let first = truth.submit(plain());
            let job = truth.id(first);
            let retry = truth.accept(truth.key(first), None, Some(job.clone()));
            truth.call(Ask::Retry { job }, 503, vec![]);
            truth.succeed(retry, 0);
            truth.pass(10);
            truth.succeed(first, 0);
        },
    },
    Falsehood {
        rule: "a retry that was answered has a row that names what it repeats",
        what: "the retry of a job is answered with a job that repeats nothing",
        done: |Cast { truth, succeeded, failed, .. }| {
            let (job, seen) = (truth.id(*failed), truth.seen(*succeeded));
            truth.call(Ask::Retry { job }, 201, vec![seen]);
        },
    },
    Falsehood {
        rule: "a retry makes one job",
        what: "a job that was to be run again once is repeated twice",
        done: |Cast { truth, failed, .. }| {
            let job = truth.accept(truth.key(*failed), None, Some(truth.id(*failed)));
            truth.grant(job, 0);
            truth.cancel(job);
            truth.canceled(job, true);
        },
    },
    Falsehood {
        rule: "a retry makes one job",
        what: "two calls for a retry are answered with the same job",
        done: |Cast { truth, failed, again, .. }| {
            let (job, seen) = (truth.id(*failed), truth.seen(*again));
            truth.call(Ask::Retry { job }, 201, vec![seen]);
        },
    },
    Falsehood {
        rule: "no job is there that nobody asked for",
        what: "a job is there that nobody submitted",
        done: |Cast { truth, .. }| {
            let job = truth.accept(Key("nobody".to_owned()), Some(plain()), None);
            truth.succeed(job, 0);
        },
    },
    Falsehood {
        rule: "no job is there that nobody asked for",
        what: "a step notes for a job that isn't there",
        done: |Cast { truth, succeeded, .. }| {
            let (at, job) = (truth.now(), Id("nobody".to_owned()));
            let note = Note { at, what: Noted::Begin, job, attempt: 1, step: 0, fence: 9999 };
            truth.notes_mut(*succeeded).push(note);
        },
    },
    Falsehood {
        rule: "no job is there that nobody asked for",
        what: "a coordinator shows a job that isn't there",
        done: |Cast { truth, succeeded, .. }| {
            let mut view = truth.view_mut(*succeeded, 0).clone();
            view.job = Id("nobody".to_owned());
            truth.history.views.push(view);
        },
    },
];
