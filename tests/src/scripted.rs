//! A worker in this process, and a coordinator that a test plays by a script over the real bus.
//!
//! The script enrols the worker, answers whatever it says and can prove, under an epoch that a test may change, keeps what
//! it has heard, and can be told to lose answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use serde_json::Value;
use shared::bus::local::LocalBus;
use shared::bus::{Address, Bus, Request, Service};
use shared::clock;
use shared::id::{Attempt, CommitId, CoordinatorId, Epoch, Fence, Instance, JobId, Shard, WorkerId};
use shared::job::{AttemptEnd, Offer, Progress, Rejection, StopOrder};
use shared::log::{Chunk, LogSummary, Stream};
use shared::proof::ProofKey;
use shared::seal;
use shared::secret::{Secret, Secrets};
use shared::spec::{Submission, parse_single};
use shared::time::Period;
use shared::wire::{
    self, Answer, Answers, Control, Enrol, Enrolment, Grant, Heartbeat, HeartbeatReply, Hello, LogAnswer, LogBatch,
    LogReply, Report, ReportKind, Reports, ShardAnswers, Welcome, Word, Words, WorkerMode,
};
use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot, watch};
use worker::{Config, Worker};

use crate::played::DEADLINE;
use crate::wait;
use keys::{Keys, LetGo};

pub mod keys;

/// The shard of every scripted job, unless a test wants the other one.
pub const SHARD: u16 = 7;
pub const OTHER_SHARD: u16 = 8;
/// The permits of an open gate: whoever holds them all has closed it.
pub const GATE: u32 = 1000;
/// The token that a worker enrols with.
pub const JOIN_TOKEN: &str = "a join token";

/// What the script has heard, and what it is to do.
#[derive(Default)]
pub struct Seen {
    pub hellos: Vec<Hello>,
    pub claims: Vec<JobId>,
    /// How many of the claims named a recipient.
    pub keyed: u32,
    pub progress: Vec<(JobId, u32, Progress)>,
    pub ends: Vec<End>,
    pub declines: Vec<(JobId, String)>,
    pub beats: Vec<Heartbeat>,
    pub chunks: BTreeMap<(JobId, u32), Chunk>,
    /// The kinds of what was heard, in order.
    pub order: Vec<&'static str>,
    /// The text of chunks is dropped when they are heard.
    pub forget_text: bool,
    /// What asked to be enrolled, by name.
    pub enrols: Vec<String>,
    /// So many answers to those are lost.
    pub lose_enrols: u32,
    /// Messages whose proof didn't hold; none of them is answered.
    pub unproved: u32,
    /// How many messages of reports have come before the gate.
    pub waiting: u64,
    /// How many reports each message held.
    pub batches: Vec<usize>,
    /// What is answered is said under this epoch.
    pub epoch: Epoch,
    /// By whom; nobody names itself in an older format.
    pub owner: Option<CoordinatorId>,
    /// What people want of the worker.
    pub mode: WorkerMode,
    pub revoked: bool,
    /// So many answers to heartbeats are lost.
    pub lose_beats: u32,
    unanswered: Vec<oneshot::Sender<Bytes>>,
    /// How many reports came before the one that they follow.
    pub early: u32,
    /// So many reports are answered with "try again".
    pub try_again: u32,
    /// So many answers to ends are lost.
    pub lose_ends: u32,
    /// So many answers to log chunks are lost.
    pub lose_logs: u32,
    /// So many answers to claims are lost.
    pub lose_claims: u32,
    /// So many claims count as come too late.
    pub late_claims: u32,
    /// A stop is sent before the answer to a claim.
    pub stop_before_grant: bool,
    /// What every answer to a heartbeat tells to stop.
    pub stop: Vec<StopOrder>,
    pub tag_sets: Vec<Vec<String>>,
    pub keys: Keys,
    /// What the next grants say was checked out by an attempt before.
    pub commit: Option<CommitId>,
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
    /// A permit for each message of reports that may be answered.
    pub gate: Arc<Semaphore>,
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
        let owner = Some(CoordinatorId(clock::random_uuid()));
        let seen = Seen { tag_sets: vec![Vec::new()], epoch: Epoch(1), owner, ..Seen::default() };
        let script = Self {
            bus: Arc::default(),
            gate: Arc::new(Semaphore::new(GATE as usize)),
            seen: Arc::new(Mutex::new(seen)),
            changes: watch::Sender::new(0),
        };
        let shards = [SHARD, OTHER_SHARD].map(|shard| Service::Shard(Shard::new(shard).expect("a shard")));
        for service in shards.into_iter().chain([Service::Hello, Service::Enrol]) {
            let mut requests = script.bus.serve(service).await.expect("the bus is open");
            let script = script.clone();
            tokio::spawn(async move {
                while let Some(request) = requests.recv().await {
                    if let Address::Report(..) = request.to {
                        // Its turn comes when the gate is open; heartbeats and the log go past.
                        tokio::spawn(script.clone().gated(request));
                    } else {
                        script.clone().reply(request).await;
                    }
                }
            });
        }
        script
    }

    /// Starts a worker on `dir`, which enrols where it never did.
    pub async fn worker(&self, keeper: &str, dir: &Path, change: impl FnOnce(&mut Config)) -> Worker {
        self.try_worker(keeper, dir, change).await.expect("the worker starts")
    }

    /// The same, where the start may fail.
    pub async fn try_worker(
        &self,
        keeper: &str,
        dir: &Path,
        change: impl FnOnce(&mut Config),
    ) -> Result<Worker, worker::Error> {
        let mut config = Config::new(dir.join("data"), 2);
        config.keeper = PathBuf::from(keeper);
        config.join = Some(Secret::new(JOIN_TOKEN.to_owned()));
        // Several workers share this process, and its own children are nobody's orphans.
        config.adopts = false;
        change(&mut config);
        worker::start(config, Arc::clone(&self.bus) as Arc<dyn Bus>).await
    }

    async fn gated(self, request: Request) {
        let gate = Arc::clone(&self.gate);
        self.seen().waiting += 1;
        self.changes.send_modify(|changes| *changes += 1);
        let permit = gate.acquire().await.expect("the gate isn't closed for good");
        self.reply(request).await;
        drop(permit);
    }

    async fn reply(self, Request { to, body, reply }: Request) {
        match self.answer(to, &body).await {
            Some(answer) => drop(reply.send(answer)),
            // Whoever asks waits as long as it does for an answer that is lost on its way.
            None if matches!(to, Address::Heartbeat(..) | Address::Key(..)) => {
                let mut seen = self.seen();
                if seen.keys.hold || matches!(to, Address::Heartbeat(..)) {
                    seen.unanswered.push(reply);
                }
            }
            None => {}
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// What was heard so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics while it holds this")
    }

    /// Offers a job of that specification.
    pub async fn offer(&self, spec: Value) -> JobId {
        self.offer_in(SHARD, spec).await
    }

    /// The same in another shard.
    pub async fn offer_in(&self, shard: u16, spec: Value) -> JobId {
        let job = JobId::mint(Shard::new(shard).expect("a shard"), clock::now(), clock::random());
        let submission = parse_single(&spec, None).expect("the specification is right");
        let offer = Offer {
            job,
            attempt: Attempt(1),
            tags: submission.spec.tags.clone(),
            priority: submission.spec.priority,
            has_secrets: !submission.secrets.is_empty(),
        };
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
        self.send(order).await.expect("the worker hears it");
    }

    /// Gives the worker an order that it may not heed.
    pub async fn send(&self, order: StopOrder) -> Result<(), shared::bus::Error> {
        let to = Address::Control(order.worker);
        let control = Control::Stop(self.word(order.job.shard(), order));
        self.bus.request(&to, wire::encode(&control), DEADLINE).await.map(drop)
    }

    /// Waits until that many messages of reports wait for the gate.
    pub async fn until_waiting(&self, count: u64) {
        self.until("messages before the gate", |seen| (seen.waiting >= count).then_some(())).await;
    }

    /// What the owner of a shard says now.
    fn word<T>(&self, shard: Shard, said: T) -> Word<T> {
        let seen = self.seen();
        Word { shard, epoch: seen.epoch, owner: seen.owner, said }
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

    async fn answer(&self, to: Address, body: &Bytes) -> Option<Bytes> {
        let Some(worker) = to.worker() else { return self.enrol(&wire::decode(body).expect("an enrolment")) };
        let Some(body) = ProofKey::of(&secret(worker)).open(&to, body) else {
            self.seen().unproved += 1;
            return None;
        };
        match to {
            Address::Hello(_) => {
                let mut seen = self.seen();
                seen.hellos.push(wire::decode(&body).expect("a hello"));
                seen.order.push("hello");
                Some(wire::encode(&Welcome { tag_sets: seen.tag_sets.clone(), mode: seen.mode, revoked: seen.revoked }))
            }
            Address::Heartbeat(shard, _) => {
                let stop = {
                    let mut seen = self.seen();
                    seen.beats.push(wire::decode(&body).expect("a heartbeat"));
                    if lost(&mut seen.lose_beats) {
                        return None;
                    }
                    seen.stop.clone()
                };
                Some(wire::encode(&self.word(shard, HeartbeatReply { stop })))
            }
            Address::Key(shard, _) => self.key(shard, &body).await,
            Address::Log(shard, _) => {
                let reply = self.log(&wire::decode(&body).expect("log chunks"))?;
                Some(wire::encode(&self.word(shard, reply)))
            }
            Address::Report(shard, worker) => {
                let Reports { instance, reports, .. } = wire::decode(&body).expect("reports");
                self.seen().batches.push(reports.len());
                let shards: BTreeSet<Shard> = reports.iter().map(|report| report.job.shard()).collect();
                let mut answers: BTreeMap<Shard, Vec<Answer>> = BTreeMap::new();
                for report in reports {
                    let of = report.job.shard();
                    answers.entry(of).or_default().push(self.report(worker, instance, report).await?);
                }
                if shards == BTreeSet::from([shard]) {
                    let answers = answers.remove(&shard).unwrap_or_default();
                    return Some(wire::encode(&self.word(shard, Answers { answers })));
                }
                let seen = self.seen();
                let word = |(shard, answers)| ShardAnswers { shard, epoch: seen.epoch, answers };
                let words = answers.into_iter().map(word).collect();
                Some(wire::encode(&Words { owner: seen.owner.expect("who is unnamed gets no bundle"), words }))
            }
            Address::Enrol | Address::Control(_) => None,
        }
    }

    fn enrol(&self, Enrol { token, name, recipient }: &Enrol) -> Option<Bytes> {
        let mut seen = self.seen();
        seen.enrols.push(name.clone());
        if lost(&mut seen.lose_enrols) {
            return None;
        }
        if token.reveal() != JOIN_TOKEN {
            return Some(wire::encode(&Enrolment::Refused { why: "it is not known".to_owned() }));
        }
        let worker = WorkerId(clock::random_uuid());
        let secrets = Secrets([(wire::IDENTITY_SECRET.to_owned(), secret(worker))].into());
        let secret = seal::seal(&secrets, recipient).expect("a recipient");
        Some(wire::encode(&Enrolment::Enrolled { worker, secret }))
    }

    async fn report(&self, worker: WorkerId, instance: Instance, report: Report) -> Option<Answer> {
        let Report { job, attempt, what } = report;
        if lost(&mut self.seen().try_again) {
            return Some(Answer::TryAgain);
        }
        match what {
            ReportKind::Claim { recipient, .. } => {
                let (stop, grant) = {
                    let mut seen = self.seen();
                    seen.order.push("claim");
                    seen.claims.push(job);
                    seen.keyed += u32::from(recipient.is_some());
                    seen.grants += 1;
                    if lost(&mut seen.lose_claims) {
                        return None;
                    }
                    if lost(&mut seen.late_claims) {
                        return Some(Answer::Refused { why: Rejection::Late });
                    }
                    let submission = seen.jobs.get(&job).expect("only what was offered is claimed");
                    let grant = grant(job, attempt, Fence(seen.grants), submission, recipient.as_deref());
                    (seen.stop_before_grant, Grant { commit: seen.commit.clone(), ..grant })
                };
                if stop {
                    let order = StopOrder { job, attempt, worker, instance, grace: Period::ZERO };
                    self.order(order).await;
                }
                return Some(Answer::Granted(Box::new(grant)));
            }
            ReportKind::Decline { why, .. } => self.seen().declines.push((job, why)),
            ReportKind::Progress { number, progress } => {
                let mut seen = self.seen();
                let told = seen.progress.iter().filter(|(of, ..)| *of == job).map(|(_, number, _)| *number).max();
                if number > told.unwrap_or(0) + 1 {
                    // The one before it isn't taken yet.
                    seen.early += 1;
                    return Some(Answer::TryAgain);
                }
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
            ReportKind::Park { key, wait, log } => {
                return self.take_back(LetGo { job, parked: Some((key, wait)), log, instance });
            }
            ReportKind::GiveBack { log } => return self.take_back(LetGo { job, parked: None, log, instance }),
        }
        Some(Answer::Taken)
    }

    fn log(&self, batch: &LogBatch) -> Option<LogReply> {
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
        Some(LogReply { answers: vec![LogAnswer::Stored; batch.chunks.len()] })
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

/// What every script gives a worker of that id: one that goes on after another knows it too.
fn secret(worker: WorkerId) -> Secret {
    Secret::new(format!("the secret of {worker}"))
}

fn lost(left: &mut u32) -> bool {
    let lost = *left > 0;
    *left = left.saturating_sub(1);
    lost
}

fn grant(job: JobId, attempt: Attempt, fence: Fence, submission: &Submission, recipient: Option<&str>) -> Grant {
    let Submission { spec, secrets, .. } = submission;
    let secrets = (!secrets.is_empty()).then(|| seal::seal(secrets, recipient.expect("a recipient")).expect("a key"));
    Grant { job, attempt, fence, spec: spec.clone(), commit: None, secrets }
}
