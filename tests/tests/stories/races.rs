//! A job's end and its cancel at the same time, over the whole stack: one of them wins, everywhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::dev::Dev;
use tests::wait::eventually;

/// Each is canceled a little later after the word to end than the one before.
const JOBS: u32 = 40;

/// A job that ends when it is told to.
struct Racer {
    id: String,
    number: u32,
    fifo: PathBuf,
}

impl Racer {
    fn submit(dev: &Dev, dir: &TempDir, number: u32) -> Self {
        let fifo = dir.path().join(format!("{number}.fifo"));
        let status = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
        assert!(status.success());
        let script = format!("read word < {}", fifo.display());
        let id = dev.submit(&json!({"steps": [{"run": script}], "grace": "1s"}));
        Self { id, number, fifo }
    }

    /// Tells the job to end, and cancels it at the same time or shortly after: the cancel's answer.
    fn race(&self, dev: &Dev) -> (u16, String) {
        let both = Barrier::new(2);
        // Opening blocks until the job reads.
        let mut fifo = std::fs::File::options().write(true).open(&self.fifo).expect("the job reads");
        thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                writeln!(fifo, "end").expect("the job reads");
            });
            both.wait();
            // Each look takes about a millisecond; the last cancel finds an end for sure.
            (0..self.number).for_each(|_| drop(dev.job(&self.id)));
            if self.number + 1 == JOBS {
                dev.ended(&self.id);
            }
            dev.cancel(&self.id, &json!({"grace": "0s"}))
        })
    }
}

#[test]
fn of_an_end_and_a_cancel_at_once_one_wins_everywhere() {
    let dev = Dev::start_with(&["--slots", "4"]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let racers: Vec<Racer> = (0..JOBS).map(|number| Racer::submit(&dev, &dir, number)).collect();
    let mut tally: BTreeMap<String, u32> = BTreeMap::new();
    for four in racers.chunks(4) {
        thread::scope(|scope| {
            let under_way: Vec<_> = four.iter().map(|racer| (racer, scope.spawn(|| racer.race(&dev)))).collect();
            for (racer, race) in under_way {
                let answer = race.join().expect("an answer");
                let state = check(&dev, &racer.id, &answer);
                *tally.entry(format!("{} {} → {state}", answer.0, answer.1)).or_default() += 1;
            }
        });
    }
    println!("{tally:#?}");
    assert!(tally.contains_key("200 succeeded → succeeded"), "{tally:?}");
    // Late words of the worker change nothing either.
    let listed = dev.client.get("/api/v1/jobs?limit=1000").json;
    for row in listed["jobs"].as_array().expect("jobs") {
        let id = row["id"].as_str().expect("an id");
        assert_eq!(terminal(&dev, id), [row["state"].clone()], "{id}");
    }
}

/// The job has one end, the same for whoever asks; returns it.
fn check(dev: &Dev, id: &str, answer: &(u16, String)) -> String {
    let row = dev.ended(id);
    let state = row["state"].as_str().expect("a state").to_owned();
    match (answer.0, answer.1.as_str()) {
        (202, "canceling" | "canceled") => {
            assert_eq!((state.as_str(), &row["outcome"]["by"]), ("canceled", &json!("client:dev")), "{row}");
        }
        (200, ended) => {
            assert_eq!((state.as_str(), &row["outcome"]), (ended, &Value::Null), "{row}");
            assert_eq!(ended, "succeeded");
        }
        other => panic!("the cancel of {id} was answered with {other:?}"),
    }
    let events = eventually(Duration::from_secs(10), "one terminal event", || {
        Some(terminal(dev, id)).filter(|events| !events.is_empty())
    });
    assert_eq!(events, [json!(state)], "{row}");
    assert_eq!(dev.cancel(id, &json!({})), (200, state.clone()), "a cancel after the end");
    assert_eq!(dev.job(id), row, "a terminal row stays as it is");
    state
}

/// The kinds of the job's terminal events.
fn terminal(dev: &Dev, id: &str) -> Vec<Value> {
    let kinds = dev.events(id).into_iter().map(|event| event["kind"].clone());
    kinds.filter(|kind| ["succeeded", "failed", "canceled"].iter().any(|name| kind == name)).collect()
}
