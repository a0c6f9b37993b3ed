//! A worker in this process, and a coordinator that a test plays by a script over the real bus.
//!
//! The script answers whatever the worker says, keeps what it has heard, and can be told to lose answers.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use serde_json::Value;
use shared::bus::local::LocalBus;
use shared::bus::{Address, Bus, Request, Service};
use shared::clock;
use shared::id::{Attempt, Fence, Instance, JobId, Shard, WorkerId};
use shared::job::{AttemptEnd, Offer, Progress, StopOrder};
use shared::log::{Chunk, LogSummary, Stream};
use shared::seal;
use shared::spec::{Submission, parse_single};
use shared::time::Period;
use shared::wire::{
    self, Answer, Answers, Control, Grant, Heartbeat, HeartbeatReply, Hello, LogAnswer, LogBatch, LogReply, Report,
    ReportKind, Reports, Welcome,
};
use tempfile::TempDir;
use tokio::sync::watch;
use worker::{Config, Worker};

use crate::played::DEADLINE;
use crate::wait;

/// The shard of every scripted job.
const SHARD: u16 = 7;

/// What the script has heard, and what it is to do.
#[derive(Default)]
pub struct Seen {
    pub hellos: Vec<Hello>,
    pub claims: Vec<JobId>,
    pub progress: Vec<(JobId, u32, Progress)>,
    pub ends: Vec<End>,
    pub declines: Vec<(JobId, String)>,
    pub beats: Vec<Heartbeat>,
    pub chunks: BTreeMap<(JobId, u32), Chunk>,
    /// The kinds of what was heard, in order.
    pub order: Vec<&'static str>,
    /// The text of chunks is dropped when they are heard.
    pub forget_text: bool,
    /// So many answers to ends are lost.
    pub lose_ends: u32,
    /// So many answers to log chunks are lost.
    pub lose_logs: u32,
    /// So many answers to claims are lost.
    pub lose_claims: u32,
    /// A stop is sent before the answer to a claim.
    pub stop_before_grant: bool,
    /// What every answer to a heartbeat tells to stop.
    pub stop: Vec<StopOrder>,
    pub tag_sets: Vec<Vec<String>>,
    jobs: HashMap<JobId, Submission>,
    grants: u64,
}

/// How an attempt was told to have ended.
#[derive(Debug, Clone)]
pub struct End {
    pub job: JobId,
    pub end: AttemptEnd,
    pub log: LogSummary,
    pub instance: Instance,
}

/// The coordinator's side.
#[derive(Clone)]
pub struct Script {
    pub bus: Arc<LocalBus>,
    seen: Arc<Mutex<Seen>>,
    changes: watch::Sender<u64>,
}

/// A worker on a directory of its own, with its script.
pub struct Staged {
    pub script: Script,
    pub worker: Worker,
    pub dir: TempDir,
}

impl Staged {
    /// Starts a worker whose keeper is the program at `keeper`; `change` makes its configuration what a test needs.
    pub async fn start(keeper: &str, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let script = Script::start().await;
        let worker = script.worker(keeper, dir.path(), change).await;
        Self { script, worker, dir }
    }

    /// A path that is not in the worker's own directories, for what a job tells the test.
    pub fn note(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Script {
    /// Begins to answer.
    pub async fn start() -> Self {
        let seen = Seen { tag_sets: vec![Vec::new()], ..Seen::default() };
        let script = Self { bus: Arc::default(), seen: Arc::new(Mutex::new(seen)), changes: watch::Sender::new(0) };
        for service in [Service::Hello, Service::Shard(Shard::new(SHARD).expect("a shard"))] {
            let mut requests = script.bus.serve(service).await.expect("the bus is open");
            let script = script.clone();
            tokio::spawn(async move {
                while let Some(Request { to, body, reply }) = requests.recv().await {
                    if let Some(answer) = script.answer(to, &body).await {
                        let _ = reply.send(answer);
                    }
                    script.changes.send_modify(|changes| *changes += 1);
                }
            });
        }
        script
    }

    /// Starts a worker on `dir`.
    pub async fn worker(&self, keeper: &str, dir: &Path, change: impl FnOnce(&mut Config)) -> Worker {
        let mut config = Config::new(dir.join("data"), 2);
        config.keeper = PathBuf::from(keeper);
        change(&mut config);
        worker::start(config, Arc::clone(&self.bus) as Arc<dyn Bus>).await.expect("the worker starts")
    }

    /// What was heard so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics while it holds this")
    }

    /// Offers a job of that specification.
    pub async fn offer(&self, spec: Value) -> JobId {
        let job = JobId::mint(Shard::new(SHARD).expect("a shard"), clock::now(), clock::random());
        let submission = parse_single(&spec, None).expect("the specification is right");
        let offer =
            Offer { job, attempt: Attempt(1), tags: submission.spec.tags.clone(), priority: submission.spec.priority };
        self.seen().jobs.insert(job, submission);
        self.bus.offer(&offer).await.expect("the offer is placed");
        job
    }

    /// Waits until `wanted` finds something in what was heard.
    pub async fn until<T>(&self, what: &str, wanted: impl Fn(&Seen) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        let found = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = wanted(&self.seen()) {
                    return found;
                }
                changes.changed().await.expect("the script goes on");
            }
        };
        let found = tokio::time::timeout(DEADLINE, found).await;
        found.unwrap_or_else(|_| panic!("{what} did not come; heard: {:?}", self.seen().order))
    }

    /// Waits for the job's end.
    pub async fn end(&self, job: JobId) -> End {
        self.until("the end", |seen| seen.ends.iter().find(|end| end.job == job).cloned()).await
    }

    /// Waits until step `step` of the job has started.
    pub async fn started(&self, job: JobId, step: u32) {
        let wanted = (job, Progress::StepStarted { step });
        self.until("the step's start", |seen| {
            seen.progress.iter().any(|(job, _, progress)| (*job, progress) == (wanted.0, &wanted.1)).then_some(())
        })
        .await;
    }

    /// Orders the worker to stop the job, and waits until it has heard.
    pub async fn stop(&self, job: JobId, grace: Period) {
        self.order(self.stop_order(job, grace)).await;
    }

    /// Gives the worker an order, and waits until it has heard.
    pub async fn order(&self, order: StopOrder) {
        let to = Address::Control(order.worker);
        self.bus.request(&to, wire::encode(&Control::Stop(order)), DEADLINE).await.expect("the worker hears it");
    }

    /// The order to stop the job's first attempt.
    pub fn stop_order(&self, job: JobId, grace: Period) -> StopOrder {
        let seen = self.seen();
        let Hello { worker, instance, .. } = seen.hellos.last().expect("a worker is there").clone();
        StopOrder { job, attempt: Attempt(1), worker, instance, grace }
    }

    /// The text of one stream of the job's log.
    pub fn text(&self, job: JobId, stream: Stream) -> String {
        let seen = self.seen();
        let chunks = seen.chunks.range((job, 0)..=(job, u32::MAX));
        let segments = chunks.flat_map(|(_, chunk)| &chunk.segments).filter(|segment| segment.stream == stream);
        segments.map(|segment| segment.text.as_str()).collect()
    }

    async fn answer(&self, to: Address, body: &[u8]) -> Option<Bytes> {
        match to {
            Address::Hello(_) => {
                let mut seen = self.seen();
                seen.hellos.push(wire::decode(body).expect("a hello"));
                seen.order.push("hello");
                Some(wire::encode(&Welcome { tag_sets: seen.tag_sets.clone() }))
            }
            Address::Heartbeat(..) => {
                let mut seen = self.seen();
                seen.beats.push(wire::decode(body).expect("a heartbeat"));
                Some(wire::encode(&HeartbeatReply { stop: seen.stop.clone() }))
            }
            Address::Log(..) => self.log(&wire::decode(body).expect("log chunks")),
            Address::Report(_, worker) => {
                let Reports { instance, reports, .. } = wire::decode(body).expect("reports");
                let mut answers = Vec::new();
                for report in reports {
                    answers.push(self.report(worker, instance, report).await?);
                }
                Some(wire::encode(&Answers { answers }))
            }
            Address::Control(_) => None,
        }
    }

    async fn report(&self, worker: WorkerId, instance: Instance, report: Report) -> Option<Answer> {
        let Report { job, attempt, what } = report;
        match what {
            ReportKind::Claim { recipient, .. } => {
                let (stop, grant) = {
                    let mut seen = self.seen();
                    seen.order.push("claim");
                    seen.claims.push(job);
                    seen.grants += 1;
                    if lost(&mut seen.lose_claims) {
                        return None;
                    }
                    let submission = seen.jobs.get(&job).expect("only what was offered is claimed");
                    (seen.stop_before_grant, grant(job, attempt, Fence(seen.grants), submission, &recipient))
                };
                if stop {
                    let order = StopOrder { job, attempt, worker, instance, grace: Period::ZERO };
                    let body = wire::encode(&Control::Stop(order));
                    self.bus.request(&Address::Control(worker), body, DEADLINE).await.expect("the worker hears it");
                }
                return Some(Answer::Granted(Box::new(grant)));
            }
            ReportKind::Decline { why } => self.seen().declines.push((job, why)),
            ReportKind::Progress { number, progress } => {
                let mut seen = self.seen();
                seen.order.push("progress");
                seen.progress.push((job, number, progress));
            }
            ReportKind::End { end, log } => {
                let mut seen = self.seen();
                seen.order.push("end");
                if lost(&mut seen.lose_ends) {
                    return None;
                }
                seen.ends.push(End { job, end, log, instance });
            }
            ReportKind::Park { .. } => panic!("no scripted job has a deploy key"),
        }
        Some(Answer::Taken)
    }

    fn log(&self, batch: &LogBatch) -> Option<Bytes> {
        let mut seen = self.seen();
        seen.order.push("log");
        if lost(&mut seen.lose_logs) {
            return None;
        }
        for chunk in &batch.chunks {
            let mut chunk = chunk.clone();
            if seen.forget_text {
                chunk.segments.retain(|segment| segment.stream == Stream::Windlass);
            }
            seen.chunks.insert((chunk.job, chunk.number), chunk);
        }
        Some(wire::encode(&LogReply { answers: vec![LogAnswer::Stored; batch.chunks.len()] }))
    }
}

/// Waits until `so` holds: for what has no event.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    wait::until(DEADLINE, what, || so().then_some(())).await;
}

/// The process numbers in a file that a job has written, once it has `count` lines.
pub async fn pids(path: &Path, count: usize) -> Vec<i32> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    until("the process numbers", || read().lines().count() >= count && read().ends_with('\n')).await;
    read().lines().map(|line| line.trim().parse().expect("a number")).collect()
}

/// Whether a process runs; a zombie doesn't.
pub fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn lost(left: &mut u32) -> bool {
    let lost = *left > 0;
    *left = left.saturating_sub(1);
    lost
}

fn grant(job: JobId, attempt: Attempt, fence: Fence, submission: &Submission, recipient: &str) -> Grant {
    let Submission { spec, secrets, .. } = submission;
    let secrets = (!secrets.is_empty()).then(|| seal::seal(secrets, recipient).expect("a recipient"));
    Grant { job, attempt, fence, spec: spec.clone(), commit: None, secrets }
}
