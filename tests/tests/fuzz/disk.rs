//! What lies on a worker's disk, and what its keeper and it say to each other: the spool, the identity, frames.

use std::fs;

use serde_json::json;
use shared::id::Attempt;
use shared::log::LogSummary;
use worker::fuzzed::{Entry, Identity, Spool, count_start, events, orders};

use super::campaign::{Bounds, alone, campaign, campaign_of, share};
use super::samples::{all, ends, job, json_of, worker};

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
    all.push(Entry { job: job(), attempt: Attempt(2), cgroup: None, outcome: None });
    all
}

#[test]
fn any_file_of_the_spool_is_read_or_put_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = Spool::open(dir.path().join("spool")).expect("a spool");
    let file = dir.path().join("spool/one.json");
    campaign("a file of the spool", FILE, &all(&entries()), |bytes| {
        fs::write(&file, bytes).expect("a file");
        let read = spool.entries().expect("the spool can be read");
        assert_eq!(read.len(), usize::from(file.exists()), "what isn't read is put aside");
        for entry in read {
            assert_eq!(serde_json::from_slice::<Entry>(&json_of(&entry)).expect("it can be read again"), entry);
            drop(entry.outcome.map(|outcome| (outcome.end.to_string(), outcome.report(entry.job, entry.attempt))));
        }
    });
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
fn framed(json: &[u8]) -> Vec<u8> {
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
    let together = |messages: &[serde_json::Value]| messages.iter().flat_map(|one| framed(&json_of(one))).collect();
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
        let frame = framed(bytes);
        drop((orders(frame.chunks(READ_BYTES)), events(frame.chunks(READ_BYTES))));
    });
    let small = framed(b"\"Watch\"").repeat(100_000);
    alone("many small frames", FRAMES, &small, |bytes| {
        assert!(orders(bytes.chunks(READ_BYTES)).is_ok_and(|count| count == 100_000));
    });
}
