//! What a step prints, through one worker and one coordinator into Postgres, with a secret masked in it. The clock runs from the
//! step's start, as the coordinator has committed it, to the moment at which the job has succeeded and the last chunk is stored.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use shared::clock;

use super::Settings;
use super::results::Results;
use super::rig::Rig;
use crate::wait;

const NAME: &str = "logs";
/// How much a step prints, in bytes: below what is stored of an attempt.
const PRINTED: usize = 50_000_000;
/// How many print at once where several do.
const AT_ONCE: u32 = 2;
/// From one line with the secret to the next.
const SECRET_EVERY: usize = 100;
const SECRET: &str = "correct-horse-battery-staple";
/// What stands in its place.
const MASK: &str = "***";
/// How long all may take.
const WITHIN: Duration = Duration::from_mins(5);

/// See the module.
pub fn run(settings: &Settings, results: &mut Results) {
    for _ in 0..settings.runs {
        let mut rig = Rig::with_coordinators(1);
        rig.cluster.add_worker_with(&["--slots", &AT_ONCE.to_string()], &[]);
        let file = rig.cluster.notes().join("output");
        fs::write(&file, output()).expect("a file");
        once(&rig, &file, 1, "one job", results);
        once(&rig, &file, AT_ONCE, &format!("{AT_ONCE} jobs at once"), results);
    }
}

fn once(rig: &Rig, file: &Path, jobs: u32, name: &str, results: &mut Results) {
    let meter = rig.meter();
    let job = json!({"steps": [{"run": format!("cat {}", file.display())}], "secrets": {"TOKEN": SECRET}});
    let ids: Vec<String> = (0..jobs).map(|_| rig.cluster.submit(&job)).collect();
    for id in &ids {
        until_stored(rig, id);
    }
    let (ended, used) = (clock::now(), meter.read());

    let list = ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
    let started = "SELECT (extract(epoch FROM min(at)) * 1000000)::bigint::text FROM job_events";
    let started = rig.number(&format!("{started} WHERE kind = 'step_started' AND job_id IN ({list})"));
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century are exact")]
    let took = (ended.micros() as f64 - started) / 1e6;
    #[expect(clippy::cast_precision_loss, reason = "some megabytes are exact")]
    let megabytes = f64::from(jobs) * PRINTED as f64 / 1e6;
    for id in &ids {
        check(rig, id);
    }
    results.add(NAME, name, "MB/s", megabytes / took);
    for (process, seconds) in used {
        results.add(NAME, &format!("CPU, {process}, {name}"), "s/100 MB", seconds / megabytes * 100.0);
    }
}

/// Lines as a compiler prints them, some with the secret in it.
fn output() -> String {
    let mut text = String::with_capacity(PRINTED + 200);
    for number in 1.. {
        let token = if number % SECRET_EVERY == 0 { SECRET } else { "none" };
        let line = "compiling one of the many crates of this workspace, with all that it depends upon; token";
        writeln!(text, "{number:08} {line} {token}").expect("a line");
        if text.len() >= PRINTED {
            break;
        }
    }
    text
}

/// Waits until the job has succeeded and its log is there to the last chunk that its worker told of.
fn until_stored(rig: &Rig, id: &str) {
    let begun = clock::instant();
    let client = rig.cluster.client();
    let succeeded = || client.get(&format!("/api/v1/jobs/{id}")).json["state"] == "succeeded";
    let missing = format!(
        "SELECT ((told::jsonb -> 'log' ->> 'chunks')::bigint - (SELECT count(*) FROM log_chunks WHERE job_id = id))::text \
         FROM jobs WHERE id = '{id}'"
    );
    while !succeeded() || rig.number(&missing) > 0.0 {
        assert!(begun.elapsed() < WITHIN, "job {id} or its log is not complete after {WITHIN:?}");
        wait::between_samples();
    }
}

/// What is stored is what was printed, but for the secret.
fn check(rig: &Rig, id: &str) {
    let (stored, expected) = (rig.cluster.text(id), output().replace(SECRET, MASK));
    let mut lines = stored.lines().zip(expected.lines());
    let wrong = lines.find(|(stored, expected)| stored != expected);
    assert_eq!(wrong, None, "a line of job {id}, and what it should be");
    assert_eq!(stored.lines().count(), expected.lines().count(), "lines of job {id}");
}
