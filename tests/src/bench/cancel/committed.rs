//! From a cancel's request to its answer, which comes when it is committed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use shared::clock;

use super::super::percentiles::{P50, P99, Samples};
use super::super::results::Results;
use super::super::rig::Rig;
use super::{NAME, cancel, connected, waiting};
use crate::http::Client;

/// Cancels so many jobs that no worker takes, with so many requests in flight.
pub fn measure(rig: &Rig, in_flight: u32, jobs: u32, results: &mut Results) {
    let ids = waiting::submit(rig.cluster.client(), 1, jobs, "committed");
    let (next, taken) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let clients: Vec<Client> = (0..in_flight).map(|_| connected(rig.cluster.client())).collect();
    let all_ready = Barrier::new(clients.len());
    thread::scope(|scope| {
        for client in clients {
            let (ids, next, taken, all_ready) = (&ids, &next, &taken, &all_ready);
            scope.spawn(move || {
                all_ready.wait();
                let mut ours = Vec::new();
                while let Some(job) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = clock::instant();
                    assert_eq!(cancel(&client, job), 202, "a cancel is committed");
                    ours.push(begun.elapsed());
                }
                taken.lock().expect("the others haven't panicked").extend(ours);
            });
        }
    });
    let samples: Samples = taken.into_inner().expect("nobody has panicked").into_iter().collect();
    samples.add_to(results, NAME, &format!("committed, {in_flight} in flight"), &[P50, P99]);
}
