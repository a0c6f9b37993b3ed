//! A load of jobs whose every attempt notes what it does, so that it can be judged afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use shared::clock;
use tests::cluster::Cluster;
use tests::http::Client;
use tests::wait::pass;
use uuid::Uuid;

/// Jobs that are submitted one after the other, to all coordinators in turn, beside whatever else a test does.
pub struct Load {
    notes: PathBuf,
    accepted: Arc<Mutex<Vec<String>>>,
    servers: Arc<Mutex<Vec<Client>>>,
    enough: Arc<AtomicBool>,
    submitting: JoinHandle<Duration>,
}

impl Load {
    /// Begins to submit `count` jobs; each of them does `work` between its two notes.
    pub fn begin(cluster: &Cluster, count: usize, work: &str) -> Self {
        let notes = cluster.notes();
        let accepted = Arc::new(Mutex::new(Vec::with_capacity(count)));
        let enough = Arc::new(AtomicBool::new(false));
        let servers = Arc::new(Mutex::new(clients_of(cluster)));
        let asked = Arc::clone(&servers);
        let (stored, stop) = (Arc::clone(&accepted), Arc::clone(&enough));
        let jobs: Vec<(String, Value)> = (0..count).map(|_| noting(&notes, work)).collect();
        let submitting = thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            for (turn, (key, job)) in jobs.iter().enumerate() {
                let begun = clock::instant();
                let Some(id) = submitted(&asked, turn, key, job, &stop) else { break };
                slowest = slowest.max(begun.elapsed());
                stored.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            }
            slowest
        });
        Self { notes, accepted, servers, enough, submitting }
    }

    /// From now on the cluster's coordinators as they are now are asked, as behind an address that follows who is ready.
    pub fn serve_by(&self, cluster: &Cluster) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = clients_of(cluster);
    }

    /// The jobs that are accepted so far.
    pub fn accepted(&self) -> Vec<String> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all are submitted, and returns their ids.
    pub fn submitted(self) -> Submitted {
        let slowest = self.submitting.join().expect("the load is submitted");
        let ids = std::mem::take(&mut *self.accepted.lock().unwrap_or_else(PoisonError::into_inner));
        Submitted { ids, notes: self.notes, slowest }
    }

    /// Submits no more, and returns the ids of what was accepted.
    pub fn enough(self) -> Submitted {
        self.enough.store(true, Ordering::Release);
        self.submitted()
    }
}

/// A load that is accepted.
pub struct Submitted {
    pub ids: Vec<String>,
    /// The longest that any of them took from its first try until it was accepted.
    pub slowest: Duration,
    notes: PathBuf,
}

impl Submitted {
    /// No attempt has begun twice, and no two attempts of a job have overlapped.
    pub fn check_notes(&self) {
        let mut attempts = 0;
        for file in fs::read_dir(&self.notes).expect("the notes").flatten() {
            let path = file.path();
            if path.extension().is_none_or(|extension| extension != "notes") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("notes");
            let mut begun: BTreeMap<&str, u32> = BTreeMap::new();
            for line in text.lines() {
                let (what, attempt) = line.split_once(' ').expect("what and attempt");
                assert_ne!(what, "overlap", "two attempts overlapped: {text}");
                *begun.entry(attempt).or_default() += u32::from(what == "begin");
            }
            assert!(begun.values().all(|count| *count == 1), "an attempt ran twice: {text}");
            attempts += begun.len();
        }
        println!("{attempts} attempts of {} jobs ran", self.ids.len());
    }
}

/// A job that notes its beginning and end, and whether another attempt of it is still there; and its key.
pub fn noting(notes: &std::path::Path, work: &str) -> (String, Value) {
    let key = Uuid::new_v4().to_string();
    let path = notes.join(&key).display().to_string();
    let script = format!(
        "note() {{ echo \"$1 $WINDLASS_ATTEMPT\" >> {path}.notes; }}\nexec 9> {path}.lock\nflock -n 9 || note overlap\n\
         note begin\n{work}\nnote end"
    );
    let retry = json!({"max_attempts": 10, "on": ["worker_lost"], "backoff": {"first": "100ms"}});
    (key, json!({"steps": [{"run": script}], "grace": "1s", "retry": retry}))
}

fn clients_of(cluster: &Cluster) -> Vec<Client> {
    cluster.coordinators.iter().map(|coordinator| coordinator.client.clone()).collect()
}

/// Submits a job until somebody accepts it.
fn submitted(servers: &Mutex<Vec<Client>>, turn: usize, key: &str, job: &Value, stop: &AtomicBool) -> Option<String> {
    for turn in turn.. {
        if stop.load(Ordering::Acquire) {
            return None;
        }
        let clients = servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let client = &clients[turn % clients.len()];
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        match client.try_send("POST", "/api/v1/jobs", &headers, job.to_string().as_bytes()) {
            Ok(answer) if matches!(answer.status, 200 | 201) => {
                return Some(answer.json["id"].as_str().expect("a job has an id").to_owned());
            }
            Ok(answer) => assert!(matches!(answer.status, 429 | 503), "submitting: {}", answer.text),
            Err(_) => {}
        }
        pass(Duration::from_millis(20), "between two tries");
    }
    None
}
