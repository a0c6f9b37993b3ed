//! `windlass dev` killed with SIGKILL while jobs run, and started again: what was accepted comes to its end, once.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use shared::clock;
use shared::time::{Period, Time};
use tempfile::TempDir;
use tests::dev::Dev;
use tests::http::Client;
use tests::process::{Mark, escape, is_alive, noted};
use tests::wait::eventually;

/// Ten times what the end of a tree may take once nobody waits for it any more.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// How long a round's first job may wait for those that are run again.
const RUNS_WITHIN: Duration = Duration::from_mins(1);
/// How often dev is killed.
const KILLS: usize = 5;
/// The jobs of a round. Those from [`BEFORE`] on are submitted while dev is being killed.
const KINDS: [Kind; 9] = [
    Kind::Long,
    Kind::Quick,
    Kind::Alone,
    Kind::Scheduled,
    Kind::Failing,
    Kind::Stubborn,
    Kind::Canceled,
    Kind::Retrying,
    Kind::Quick,
];
const BEFORE: usize = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quick,
    /// Runs for two seconds.
    Long,
    /// The same, and a lost worker ends it.
    Alone,
    /// Runs later.
    Scheduled,
    /// Ends with code 3.
    Failing,
    /// Leaves a process behind that is hard to get rid of.
    Stubborn,
    /// Is canceled while dev is being killed.
    Canceled,
    /// Ends with code 9 the first time, and is run again for that.
    Retrying,
}

/// A job that is to be accepted.
struct Planned {
    kind: Kind,
    /// The name of its notes, and its Idempotency-Key.
    key: String,
    spec: Value,
    /// None until it is known.
    id: Option<String>,
}

struct Story {
    dev: Dev,
    notes: TempDir,
    mark: Mark,
    jobs: Vec<Planned>,
}

impl Kind {
    /// What it does between its two notes.
    fn script(self, notes: &str) -> String {
        match self {
            Self::Quick | Self::Scheduled | Self::Failing => "true".to_owned(),
            Self::Long | Self::Alone => "sleep 2".to_owned(),
            Self::Stubborn => format!("{}; sleep 1", escape(format!("{notes}.$WINDLASS_ATTEMPT").as_ref())),
            Self::Canceled => "sleep 1000".to_owned(),
            Self::Retrying => format!("if mkdir {notes}.failed; then note end; exit 9; fi"),
        }
    }
}

impl Planned {
    fn new(kind: Kind, key: String, notes: &TempDir, mark: &Mark) -> Self {
        let path = notes.path().join(&key).display().to_string();
        let code = if kind == Kind::Failing { 3 } else { 0 };
        // Whatever is left of an attempt holds the lock, so that two that overlap are seen.
        let script = format!(
            "note() {{ echo \"$1 $WINDLASS_ATTEMPT\" >> {path}.notes; }}\nexec 9> {path}.lock\n\
             flock -n 9 || note overlap\nnote begin\n{}\nnote end\nexit {code}",
            kind.script(&path)
        );
        let (name, value) = mark.entry();
        let attempts = if kind == Kind::Alone { 1 } else { 10 };
        let retry = json!({"max_attempts": attempts, "on": ["worker_lost", "exit:9"], "backoff": {"first": "100ms"}});
        let mut spec = json!({"steps": [{"run": script}], "env": {name: value}, "grace": "1s", "retry": retry});
        if kind == Kind::Scheduled {
            spec["run_at"] = json!(clock::now().plus(Period::from_secs(3)));
        }
        Self { kind, key, spec, id: None }
    }

    /// Submits it, again where it may have been before; whether there was an answer.
    fn submit(&mut self, client: &Client) -> bool {
        let headers = [("content-type", "application/json"), ("idempotency-key", self.key.as_str())];
        let answer = client.try_send("POST", "/api/v1/jobs", &headers, self.spec.to_string().as_bytes());
        let Ok(answer) = answer else { return false };
        assert!(matches!(answer.status, 200 | 201), "submitting {}: {}", self.key, answer.text);
        let id = answer.json["id"].as_str().expect("a job has an id").to_owned();
        assert!(self.id.get_or_insert_with(|| id.clone()) == &id, "{} became two jobs", self.key);
        true
    }

    /// Cancels it where that is what it is for; whether there was an answer.
    fn cancel(&self, client: &Client) -> bool {
        let (Some(id), Kind::Canceled) = (&self.id, self.kind) else { return true };
        let path = format!("/api/v1/jobs/{id}/cancel");
        let Ok(answer) = client.try_send("POST", &path, &[("content-type", "application/json")], b"{}") else {
            return false;
        };
        assert!(matches!(answer.status, 200 | 202), "canceling {}: {}", self.key, answer.text);
        true
    }
}

impl Story {
    fn start() -> Self {
        let notes = tempfile::tempdir().expect("a temporary directory");
        Self { dev: Dev::start_with(&["--slots", "3"]), notes, mark: Mark::fresh(), jobs: Vec::new() }
    }

    /// What the attempts of a job have noted: each word with its attempt.
    fn noted(&self, key: &str) -> Vec<(String, u64)> {
        let text = std::fs::read_to_string(self.notes.path().join(format!("{key}.notes"))).unwrap_or_default();
        let note = |line: &str| line.split_once(' ').map(|(word, n)| (word.to_owned(), n.parse().expect("a number")));
        text.lines().filter_map(note).collect()
    }

    /// The attempts of a job that have begun and not come to their end.
    fn cut_off(&self, key: &str) -> Vec<u64> {
        let noted = self.noted(key);
        let ended = |attempt: &u64| noted.contains(&("end".to_owned(), *attempt));
        noted.iter().filter(|(word, n)| word == "begin" && !ended(n)).map(|(_, n)| *n).collect()
    }

    /// Submits a job of each kind, and kills dev while one runs and others are being submitted: after `answers` more
    /// answers. Then starts it again, and repeats what wasn't answered.
    fn round(&mut self, round: usize, answers: usize) {
        let plan = |(index, kind): (usize, Kind)| {
            Planned::new(kind, format!("{round}-{index}-{kind:?}"), &self.notes, &self.mark)
        };
        let mut fresh: Vec<Planned> = KINDS.into_iter().enumerate().map(plan).collect();
        for job in &mut fresh[..BEFORE] {
            assert!(job.submit(&self.dev.client), "dev runs");
        }
        let first = fresh[0].key.clone();
        eventually(RUNS_WITHIN, "a job runs", || (!self.cut_off(&first).is_empty()).then_some(()));
        let waiting = fresh[..BEFORE].iter().filter(|job| self.noted(&job.key).is_empty()).count();
        assert!(waiting > 0, "with three slots some of {BEFORE} jobs wait");

        let client = self.dev.client.clone();
        let (answered, heard) = mpsc::sync_channel(KINDS.len());
        let submitting = thread::spawn(move || {
            let canceled = fresh.iter().all(|job| job.cancel(&client));
            let told = canceled && answered.send(()).is_ok();
            let submitted =
                told && fresh[BEFORE..].iter_mut().all(|job| job.submit(&client) && answered.send(()).is_ok());
            println!("every answer came before the kill: {submitted}");
            fresh
        });
        (0..answers).for_each(|_| heard.recv().expect("an answer"));
        self.dev.kill();
        self.mark.until_gone(GONE_WITHIN);
        let mut fresh = submitting.join().expect("what was submitted");
        self.dev.restart();
        for job in &mut fresh {
            assert!(job.submit(&self.dev.client) && job.cancel(&self.dev.client), "dev runs");
        }
        self.jobs.append(&mut fresh);
    }

    /// The job has come to one end, and its timeline, its row and what it did say the same.
    fn check(&self, job: &Planned) {
        let id = job.id.as_deref().expect("it was accepted");
        let row = self.dev.ended(id);
        let events = self.dev.events(id);
        let story = format!("{}: {row:#}\n{events:#?}", job.key);

        let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "{story}");
        let kinds: Vec<&str> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
        let terminal = |kind: &&&str| ["succeeded", "failed", "canceled"].contains(*kind);
        assert_eq!(
            kinds.iter().filter(terminal).collect::<Vec<_>>(),
            [&row["state"].as_str().expect("a state")],
            "{story}"
        );
        let last = kinds.iter().rfind(|kind| **kind != "late_report");
        assert!(last.is_some_and(|last| *last == row["state"]), "{story}");

        let noted = self.noted(&job.key);
        let begun: Vec<u64> = noted.iter().filter(|(word, _)| word == "begin").map(|(_, n)| *n).collect();
        assert!(begun.is_sorted_by(|a, b| a < b), "an attempt ran twice: {noted:?}; {story}");
        assert!(!noted.iter().any(|(word, _)| word == "overlap"), "attempts overlapped: {noted:?}; {story}");
        assert!(begun.last().is_none_or(|last| *last <= row["attempt"].as_u64().unwrap_or(0)), "{noted:?}; {story}");
        for attempt in self.cut_off(&job.key) {
            let told = |event: &&Value| {
                let kind = event["kind"].as_str().unwrap_or_default();
                event["attempt"] == attempt && ["worker_lost", "retried", "canceled"].contains(&kind)
            };
            assert!(
                events.iter().any(|event| told(&event)),
                "attempt {attempt} was cut off and it isn't told: {story}"
            );
        }
        self.check_outcome(job, &row, &story);
    }

    fn check_outcome(&self, job: &Planned, row: &Value, story: &str) {
        let outcome = (row["state"].as_str().unwrap_or_default(), row["outcome"]["reason"].as_str());
        let ran = |attempt: &Value| self.noted(&job.key).iter().any(|(word, n)| word == "end" && attempt == n);
        match job.kind {
            Kind::Failing => {
                assert_eq!(outcome, ("failed", Some("step_failed")), "{story}");
                assert_eq!(row["outcome"]["exit_code"], 3, "{story}");
            }
            Kind::Canceled => assert_eq!(outcome, ("canceled", None), "{story}"),
            Kind::Alone if outcome.0 == "failed" => assert_eq!(outcome.1, Some("worker_lost"), "{story}"),
            Kind::Quick | Kind::Long | Kind::Alone | Kind::Scheduled | Kind::Stubborn | Kind::Retrying => {
                assert_eq!(outcome, ("succeeded", None), "{story}");
                assert!(ran(&row["attempt"]), "{story}");
            }
        }
        if job.kind == Kind::Scheduled {
            let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Time>().ok()).expect("a time");
            assert!(time(&row["started_at"]) >= time(&job.spec["run_at"]), "{story}");
        }
        if job.kind == Kind::Retrying {
            assert!(row["attempt"].as_u64() >= Some(2), "{story}");
        }
    }
}

#[test]
fn every_job_comes_to_one_end_though_dev_is_killed_five_times() {
    let mut story = Story::start();
    for round in 0..KILLS {
        // At once, after the cancel's answer, after one submission's, after all; and at once again.
        story.round(round, round % 4);
    }
    for job in &story.jobs {
        story.check(job);
    }
    let cut_off: usize = story.jobs.iter().map(|job| story.cut_off(&job.key).len()).sum();
    assert!(cut_off >= KILLS, "each kill cut an attempt off, but only {cut_off} were");
    let listed = story.dev.client.get("/api/v1/jobs?limit=1000").json;
    let mut listed: Vec<&str> =
        listed["jobs"].as_array().expect("jobs").iter().filter_map(|j| j["id"].as_str()).collect();
    let mut accepted: Vec<&str> = story.jobs.iter().filter_map(|job| job.id.as_deref()).collect();
    listed.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(listed, accepted);
    assert!(story.mark.is_gone());
}

#[test]
fn nothing_of_a_job_outlives_a_dev_that_is_killed() {
    let (mut dev, mark) = (Dev::start(), Mark::fresh());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let note = dir.path().join("escaped");
    let (name, value) = mark.entry();
    let script = format!("{}; sleep 1000", escape(&note));
    dev.submit(&json!({"steps": [{"run": script}], "env": {name: value}}));
    let escaped = noted(&note);
    assert!(is_alive(escaped) && mark.carriers().contains(&escaped));
    dev.kill();
    mark.until_gone(GONE_WITHIN);
    assert!(!is_alive(escaped));
}
