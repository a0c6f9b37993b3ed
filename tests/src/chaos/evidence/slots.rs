//! Whether all slots are there: as many jobs as there are slots run at once, and one more doesn't.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use shared::clock;

use super::{Site, stored};
use crate::chaos::history::Slots;
use crate::wait::{eventually, pass};

/// How long all slots may take to be filled: an offer that a worker had no slot for comes again after ten seconds, and one
/// that got lost after a minute.
const FILLED_WITHIN: Duration = Duration::from_mins(3);
/// How long nothing more must begin: a worker looks for offers much more often.
const STILL: Duration = Duration::from_secs(3);
const EVERY: Duration = Duration::from_millis(200);
/// How long a submission may take.
const ACCEPTED_WITHIN: Duration = Duration::from_mins(1);

/// Fills the slots of a cluster that has nothing else to do.
///
/// # Panics
/// When its jobs aren't accepted, or don't end.
pub fn counted(site: &Site) -> Slots {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path();
    for number in 0..=site.slots {
        submit(site, number, &job(site, dir, number));
    }
    let full = clock::instant() + FILLED_WITHIN;
    while begun(dir) < site.slots && clock::instant() < full {
        pass(EVERY, "slots are being filled");
    }
    pass(STILL, "no more jobs than there are slots begin");
    let ran_at_once = begun(dir);
    fs::write(dir.join("release"), "").expect("a file");
    eventually(FILLED_WITHIN, "the slots are free again", || {
        stored::unfinished(&site.database).is_empty().then_some(())
    });
    Slots { there: site.slots, ran_at_once }
}

/// A job that says that it has begun, and waits to be released.
fn job(site: &Site, dir: &Path, number: u64) -> Value {
    let dir = dir.display();
    let script = format!(": > '{dir}/begun-{number}'\nwhile [ ! -e '{dir}/release' ]; do sleep 0.1; done");
    let (name, value) = site.mark.entry();
    let labels = json!({"key": format!("slot-{number}")});
    json!({"steps": [{"run": script}], "labels": labels, "env": {name: value}, "timeout": "10m"})
}

/// How many have begun. None of them ends before the release.
fn begun(dir: &Path) -> u64 {
    fs::read_dir(dir).expect("a directory").count() as u64
}

fn submit(site: &Site, number: u64, job: &Value) {
    let key = format!("slot-{number}");
    let mut replicas = site.replicas.iter().cycle();
    eventually(ACCEPTED_WITHIN, "a job is accepted", || {
        let headers = [("content-type", "application/json"), ("idempotency-key", &*key)];
        let replica = replicas.next().expect("there is a replica");
        let answer = replica.try_send("POST", "/api/v1/jobs", &headers, job.to_string().as_bytes()).ok()?;
        match answer.status {
            200 | 201 => Some(()),
            429 | 503 => None,
            _ => panic!("submitting {job}: {}", answer.text),
        }
    });
}
