//! What lies on a worker's disk, and what its keeper and it say to each other: the spool, the identity, frames.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use shared::id::{Attempt, Epoch, JobId};
use shared::log::LogSummary;
use worker::fuzzed::{Entry, Identity, Record, Spool, count_start, events, framed, orders, spooled};

use super::campaign::{Bounds, alone, campaign, campaign_of, share};
use super::samples::{all, at, ends, job, json_of, shard, worker};

/// How much of the socket is read at once.
const READ_BYTES: usize = 64 * 1024;
const FILE: Bounds = Bounds { largest: 4 * 1024 * 1024, peak: 32, total: 64, fixed: 1 << 20 };
/// A frame may have 16 MiB; a quarter of that tells as much.
const FRAMES: Bounds = Bounds { largest: 4 * 1024 * 1024, peak: 40, total: 100, fixed: 1 << 20 };

fn entries() -> Vec<Entry> {
    let entry = |outcome| serde_json::from_value(outcome).expect("an entry");
    let log = LogSummary::default();
    let whole = |end| {
        entry(json!({"job": job(), "attempt": 1, "cgroup": "/sys/fs/cgroup/x", "outcome": {"end": end, "log": log}}))
    };
    let mut all: Vec<Entry> = ends().into_iter().map(|end| whole(json!(end))).collect();
    all.push(whole(json!({"let_go": "park", "key": "app", "wait": "10m"})));
    all.push(whole(json!({"let_go": "give_back"})));
    all.push(Entry { job: job(), attempt: Attempt(2), epoch: Epoch(3), cgroup: None, outcome: None });
    all
}

/// What is in the spool, in an order.
fn found(spool: &Path) -> Vec<Entry> {
    let mut entries = spooled(spool).expect("the spool can be read");
    entries.sort_by_key(|entry| (entry.job, entry.attempt));
    for entry in &entries {
        assert_eq!(serde_json::from_slice::<Entry>(&json_of(entry)).expect("it can be read again"), *entry);
        drop(entry.outcome.clone().map(|outcome| (outcome.end.to_string(), outcome.report(entry.job, entry.attempt))));
    }
    entries
}

/// What a start makes of it: nothing is lost, and what is left is a journal that can be read, and what was put aside.
fn opened(spool: &Path, is_spoiled: impl FnOnce() -> bool) {
    let before = found(spool);
    let (_writer, mut left) = Spool::open(spool.to_owned()).expect("a spool");
    left.sort_by_key(|entry| (entry.job, entry.attempt));
    assert_eq!((&left, found(spool)), (&before, before.clone()));
    let has = |path: &PathBuf, ending| path.extension().is_some_and(|extension| extension == ending);
    let files = fs::read_dir(spool).expect("a directory").map(|file| file.expect("a file").path());
    let (journal, aside): (Vec<_>, Vec<_>) = files.partition(|path| has(path, "journal"));
    assert!(aside.iter().all(|path| has(path, "unreadable")), "{aside:?}");
    assert_eq!((journal.len(), aside.len()), (1, usize::from(is_spoiled())), "{journal:?} {aside:?}");
    journal.iter().chain(&aside).for_each(|path| fs::remove_file(path).expect("a file less"));
}

fn record(record: &Record<Entry>) -> Vec<u8> {
    framed(&json_of(record))
}

/// The same entry of another job, which is in no sample.
fn others(number: u8) -> Entry {
    Entry { job: JobId::mint(shard(), at(1), [number; 10]), ..entries().remove(0) }
}

#[test]
fn any_file_that_an_older_version_has_left_in_the_spool_is_read_or_put_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("one.json");
    let samples = all(&entries());
    for sample in &samples {
        fs::write(&file, sample).expect("a file");
        assert_eq!(found(dir.path()).len(), 1);
    }
    campaign("a file of the spool", FILE, &samples, |bytes| {
        fs::write(&file, bytes).expect("a file");
        assert!(found(dir.path()).len() <= 1);
    });
    campaign_of("a file of the spool that is opened", share(4), FILE, &samples, |bytes| {
        fs::write(&file, bytes).expect("a file");
        let is_spoiled = found(dir.path()).is_empty();
        opened(dir.path(), || is_spoiled);
    });
}

#[test]
fn no_damage_of_the_spools_journal_costs_what_stands_before_it_or_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("1.journal");
    let removed = Record::Removed { job: job(), attempt: Attempt(2) };
    let records: Vec<Record<Entry>> = entries().into_iter().map(Record::Put).collect();
    let records: Vec<_> = records.into_iter().chain([removed, Record::Blank(" ".repeat(99))]).collect();
    let whole: Vec<u8> = records.iter().flat_map(record).collect();
    let samples: Vec<_> = records.iter().map(record).chain([whole]).collect();
    let (first, last) = (others(1), others(2));
    let [before, behind] = [&first, &last].map(|entry| record(&Record::Put(entry.clone())));
    let written = |bytes: &[u8]| fs::write(&file, [&before, bytes, b"\n", &behind].concat()).expect("a file");
    let outlived = |entries: &[Entry]| entries.contains(&first) && entries.contains(&last);
    campaign("a journal", FILE, &samples, |bytes| {
        written(bytes);
        assert!(outlived(&found(dir.path())));
    });
    // The same inside of records whose checksum is right.
    let inside: Vec<_> = all(&records);
    campaign("what is in a record", FILE, &inside, |bytes| {
        written(&framed(bytes));
        assert!(outlived(&found(dir.path())));
    });
    campaign_of("a journal that is opened", share(4), FILE, &samples, |bytes| {
        // Without an end it is what a crash has broken off.
        fs::write(&file, [&before, bytes].concat()).expect("a file");
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        let is_spoiled = lines.into_iter().any(|line| !samples.iter().any(|sample| sample == line));
        opened(dir.path(), || is_spoiled);
    });
    let many: Vec<u8> = (0..100_000_u64).flat_map(small).collect();
    alone("many small entries", FILE, &many, |bytes| {
        fs::write(&file, bytes).expect("a file");
        assert_eq!(found(dir.path()).len(), 100_000);
    });
}

/// The smallest entry of a job of its own.
fn small(number: u64) -> Vec<u8> {
    let bytes = [&number.to_be_bytes()[..], &[0; 2]].concat().try_into().expect("ten bytes");
    let job = JobId::mint(shard(), at(2), bytes);
    framed(&json_of(&json!({"put": {"job": job, "attempt": 1, "cgroup": null, "outcome": null}})))
}

#[test]
fn any_identity_is_read_or_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("identity.json");
    let identity = json!({"worker": worker(), "secret": "0123456789abcdef"});
    campaign("an identity", FILE, &all(&[identity]), |bytes| {
        fs::write(&file, bytes).expect("a file");
        if let Ok(identity) = Identity::load(dir.path()) {
            assert!(identity.is_some());
        }
    });
    let starts = dir.path().join("starts");
    let samples = ["0\n", "41\n", "18446744073709551615"].map(|text| text.as_bytes().to_vec());
    campaign_of("a count of starts", share(4), FILE, &samples, |bytes| {
        fs::write(&starts, bytes).expect("a file");
        if let Ok(start) = count_start(dir.path()) {
            assert_eq!(fs::read_to_string(&starts).expect("a number"), format!("{start}\n"));
        }
    });
}

/// One message as a frame.
fn frame(json: &[u8]) -> Vec<u8> {
    [&u32::try_from(json.len()).expect("a short one").to_le_bytes(), json].concat()
}

fn messages() -> [Vec<u8>; 2] {
    let run = json!({"Run": {"argv": ["sh", [255, 254]], "env": [["A", "1"]], "cwd": "/tmp"}});
    let orders = [run, json!("Watch"), json!({"Stop": {"grace_ms": 10_000}})];
    let events = [
        json!("Started"),
        json!({"CannotStart": {"code": 127, "message": "not found"}}),
        json!({"Exited": {"exit": {"exit_code": 1}}}),
        json!("Gone"),
    ];
    let together = |messages: &[serde_json::Value]| messages.iter().flat_map(|one| frame(&json_of(one))).collect();
    [together(&orders), together(&events)]
}

#[test]
fn any_bytes_between_worker_and_keeper_are_frames_or_the_end() {
    campaign("frames", FRAMES, &messages(), |bytes| {
        drop((orders(bytes.chunks(READ_BYTES)), events(bytes.chunks(READ_BYTES))));
    });
    // The same inside of a frame whose length is right.
    let inside = [json!({"Run": {"argv": ["sh"], "env": [["A", "1"]], "cwd": [47]}}), json!({"Stop": {"grace_ms": 1}})];
    campaign("what is in a frame", FRAMES, &all(&inside), |bytes| {
        let whole = frame(bytes);
        drop((orders(whole.chunks(READ_BYTES)), events(whole.chunks(READ_BYTES))));
    });
    let small = frame(b"\"Watch\"").repeat(100_000);
    alone("many small frames", FRAMES, &small, |bytes| {
        assert!(orders(bytes.chunks(READ_BYTES)).is_ok_and(|count| count == 100_000));
    });
}
