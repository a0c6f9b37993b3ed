//! One request that cancels many.

use serde_json::json;
use shared::clock;

use super::super::results::Results;
use super::super::rig::Rig;
use super::{NAME, WITHIN, waiting};
use crate::wait::eventually;

/// How many jobs wait.
const JOBS: u32 = 10_000;
/// The value of their label.
const LABEL: &str = "filter";

/// Cancels [`JOBS`] queued jobs by their label; returns how many that were.
pub fn measure(rig: &Rig, results: &mut Results) -> u32 {
    waiting::submit(rig.cluster.client(), 2, JOBS, LABEL);
    let client = rig.cluster.client().within(WITHIN);
    let body = json!({"filter": {"label": format!("bench={LABEL}")}});
    let (begun, mut halves) = (clock::instant(), 0);
    // What isn't reached in time is left over and told so; repeating the request stops the rest.
    loop {
        let answer = client.post("/api/v1/jobs/cancel", &body);
        match answer.status {
            202 => break,
            503 => halves += 1,
            status => panic!("a cancel by filter is answered with {status}: {}", answer.text),
        }
    }
    let answered = begun.elapsed();
    let labeled = format!("SELECT count(*)::text FROM jobs WHERE labels::json ->> 'bench' = '{LABEL}'");
    let open = format!("{labeled} AND state <> 'canceled'");
    // The answer says that all are committed: then the first look finds them so, and the answer's time counts.
    let all = rig.number(&open) < 0.5;
    if !all {
        eventually(WITHIN, "all of them have ended", || (rig.number(&open) < 0.5).then_some(()));
    }
    let took = if all { answered } else { begun.elapsed() };
    let found = rig.number(&labeled);
    assert_eq!(found.to_string(), JOBS.to_string(), "jobs with the label");
    results.add(NAME, "10,000 queued jobs by filter", "s", took.as_secs_f64());
    results.add(NAME, "requests for them that were answered with 503", "", f64::from(halves));
    JOBS
}
