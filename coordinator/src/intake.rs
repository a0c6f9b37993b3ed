//! Takes what workers say over the bus, hands it to the jobs, and answers when it is committed.
//!
//! Decoding and wording are here; deciding is the job's. Log chunks pass the jobs by and go straight to the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use shared::bus::{Address, Bus, Error as BusError, Hint, Request, Requests, Service};
use shared::clock;
use shared::id::{JobId, Shard, WorkerId};
use shared::job::{AttemptEnd, Claim, Command, Failure, Job, Rejection, State, WorkerMessage, WorkerWord};
use shared::log::LogSummary;
use shared::seal::Sealed;
use shared::wire::{
    self, Answer, Answers, Grant, Heartbeat, HeartbeatReply, Hello, LogBatch, LogReply, REPORTS_MAX, Report,
    ReportKind, Reports,
};

use crate::committer::Commits;
use crate::registry::Jobs;
use crate::store::Store;
use crate::supervisor::{Error as JobError, Taken};
use crate::vault::Vault;

/// The most requests that are worked on at once; more wait in their service's queue.
const REQUESTS_MAX: usize = 1024;

/// What the intake works with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub jobs: Jobs,
    pub commits: Commits,
    pub vault: Arc<Vault>,
}

/// The running intake.
pub struct Intake {
    serving: TaskTracker,
    stop: tokio_util::sync::CancellationToken,
}

impl Intake {
    /// Serves the workers of these shards.
    pub async fn start(parts: Parts, shards: &[Shard], runtime: &Handle) -> Result<Self, BusError> {
        let (parts, permits) = (Arc::new(parts), Arc::new(Semaphore::new(REQUESTS_MAX)));
        let intake = Self { serving: TaskTracker::new(), stop: tokio_util::sync::CancellationToken::new() };
        let services = std::iter::once(Service::Hello).chain(shards.iter().map(|shard| Service::Shard(*shard)));
        for service in services {
            let requests = parts.bus.serve(service).await?;
            let serve = serve(Arc::clone(&parts), requests, Arc::clone(&permits), intake.serving.clone());
            let stop = intake.stop.clone();
            intake.serving.spawn_on(async move { stop.run_until_cancelled_owned(serve).await }, runtime);
        }
        Ok(intake)
    }

    /// Takes no more requests and waits for the answers that are under way.
    pub async fn stop(self) {
        self.stop.cancel();
        self.serving.close();
        self.serving.wait().await;
    }
}

async fn serve(parts: Arc<Parts>, mut requests: Requests, permits: Arc<Semaphore>, tasks: TaskTracker) {
    while let Some(request) = requests.recv().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let parts = Arc::clone(&parts);
        // Reports take their places in the mailboxes here, in the order in which they came; only the answers are
        // awaited apart.
        let answer = answer(&parts, request);
        tasks.spawn(async move {
            answer.await;
            drop(permit);
        });
    }
}

/// Begins to work on a request at once; what is returned waits for the outcome and replies.
fn answer(parts: &Arc<Parts>, request: Request) -> impl Future<Output = ()> + Send + use<> {
    let Request { to, body, reply } = request;
    let parts = Arc::clone(parts);
    let reports = match to {
        Address::Report(shard, worker) => read_reports(&parts, shard, worker, &body),
        _ => None,
    };
    async move {
        let answer = match (to, reports) {
            (Address::Report(..), Some(answers)) => Some(wire::encode(&Answers { answers: answers.await })),
            (Address::Heartbeat(shard, worker), _) => heartbeat(&parts, shard, worker, &body).await,
            (Address::Log(shard, worker), _) => log(&parts, shard, worker, &body).await,
            (Address::Hello(worker), _) => hello(&parts, worker, &body).await,
            (Address::Report(..) | Address::Control(_) | Address::Enrol, _) => None,
        };
        let Some(answer) = answer else {
            tracing::warn!(?to, "a request was not answered");
            return;
        };
        // The worker may have stopped waiting; it says it again, and a repeat changes nothing.
        let _ = reply.send(answer);
    }
}

type Awaited = std::pin::Pin<Box<dyn Future<Output = Vec<Answer>> + Send>>;

/// Hands the reports of a batch to their jobs, in order.
fn read_reports(parts: &Arc<Parts>, shard: Shard, worker: WorkerId, body: &[u8]) -> Option<Awaited> {
    let batch: Reports = decoded(body)?;
    let belongs = |report: &Report| report.job.shard() == shard;
    if batch.worker != worker || batch.reports.len() > REPORTS_MAX || !batch.reports.iter().all(belongs) {
        tracing::warn!(%worker, %shard, "a batch of reports doesn't belong to its subject");
        return None;
    }
    let answers: Vec<_> = batch.reports.iter().map(|report| report_one(parts, &batch, report)).collect();
    Some(Box::pin(join_all(answers)))
}

fn report_one(parts: &Arc<Parts>, batch: &Reports, report: &Report) -> impl Future<Output = Answer> + Send + use<> {
    let Report { job, attempt, what } = report.clone();
    let recipient = match &what {
        ReportKind::Claim { recipient, .. } => Some(recipient.clone()),
        _ => None,
    };
    let said = |word| Command::Worker(WorkerMessage { worker: batch.worker, attempt, word });
    let command = match what {
        ReportKind::Claim { claim, wait, .. } => Command::Claim(Claim {
            claim,
            attempt,
            worker: batch.worker,
            instance: batch.instance,
            expires: clock::now().plus(wait),
        }),
        ReportKind::Decline { why } => said(WorkerWord::Decline { why }),
        ReportKind::Progress { number, progress } => said(WorkerWord::Progress { number, progress }),
        ReportKind::Park { key, wait, log } => said(WorkerWord::Park { key, wait, log }),
        ReportKind::End { end, log } => said(WorkerWord::End { end, log }),
    };
    let (parts, taken) = (Arc::clone(parts), parts.jobs.tell(job, command));
    async move {
        match (taken.await, recipient) {
            (Ok(Taken { job, .. }), Some(recipient)) => grant(&parts, &job, &recipient).await,
            (Ok(_), None) => Answer::Taken,
            (Err(JobError::Refused(Rejection::Early)), _) => Answer::TryAgain,
            (Err(JobError::Refused(why)), _) => Answer::Refused { why },
            (Err(JobError::Unknown), _) => Answer::Unknown,
            (Err(JobError::Busy | JobError::Unavailable | JobError::Internal), _) => Answer::TryAgain,
        }
    }
}

/// The grant of a claim that is committed, made from the job as it stands.
async fn grant(parts: &Parts, job: &Job, recipient: &str) -> Answer {
    let (State::Assigned(_) | State::Running(_)) = &job.state else {
        return Answer::Refused { why: Rejection::NotQueued };
    };
    let secrets = match sealed_secrets(parts, job, recipient).await {
        Ok(secrets) => secrets,
        Err(answer) => return answer,
    };
    Answer::Granted(Box::new(Grant {
        job: job.id,
        attempt: job.attempt,
        fence: job.fence,
        spec: (*job.spec).clone(),
        commit: job.commit.clone(),
        secrets,
    }))
}

/// The job's secrets for the claim's recipient, or what to answer without them.
async fn sealed_secrets(parts: &Parts, job: &Job, recipient: &str) -> Result<Option<Sealed>, Answer> {
    if !job.has_secrets {
        return Ok(None);
    }
    let stored = parts.store.secrets(job.id).await.map_err(|error| {
        tracing::warn!(job = %job.id, %error, "reading a job's secrets");
        Answer::TryAgain
    })?;
    match parts.vault.seal(job.id, &stored.unwrap_or_default(), recipient) {
        Ok(sealed) => Ok(Some(sealed)),
        Err(error) => {
            // No repeat will open them: the attempt ends here, with the reason on the timeline.
            tracing::error!(job = %job.id, %error, "a job's secrets can't be handed out");
            let failure = Failure::Internal { message: format!("the job's secrets can't be handed out: {error}") };
            let end = WorkerWord::End { end: AttemptEnd::Failed { failure }, log: LogSummary::default() };
            let holder = job.worker.map(|worker| WorkerMessage { worker, attempt: job.attempt, word: end });
            if let Some(said) = holder {
                drop(parts.jobs.tell(job.id, Command::Worker(said)));
            }
            Err(Answer::Refused { why: Rejection::NotQueued })
        }
    }
}

async fn heartbeat(parts: &Parts, shard: Shard, worker: WorkerId, body: &[u8]) -> Option<Bytes> {
    let beat: Heartbeat = decoded(body)?;
    let belongs = beat.worker == worker && beat.attempts.iter().all(|(job, _)| job.shard() == shard);
    if !belongs {
        tracing::warn!(%worker, %shard, "a heartbeat doesn't belong to its subject");
        return None;
    }
    let stop = parts.jobs.heard(worker, beat.instance, beat.attempts).await;
    Some(wire::encode(&HeartbeatReply { stop }))
}

async fn log(parts: &Parts, shard: Shard, worker: WorkerId, body: &[u8]) -> Option<Bytes> {
    let batch: LogBatch = decoded(body)?;
    let belongs = batch.worker == worker && batch.chunks.iter().all(|chunk| chunk.job.shard() == shard);
    if !belongs {
        tracing::warn!(%worker, %shard, "log chunks don't belong to their subject");
        return None;
    }
    let stored = parts.store.append_log(parts.commits.owner(), worker, &batch.chunks, clock::now()).await;
    match stored {
        Ok(answers) => {
            let jobs: BTreeSet<JobId> = batch.chunks.iter().map(|chunk| chunk.job).collect();
            for job in jobs {
                parts.bus.hint(Hint::Job(job));
            }
            Some(wire::encode(&LogReply { answers }))
        }
        Err(error) => {
            tracing::warn!(%worker, %error, "storing log chunks");
            None
        }
    }
}

async fn hello(parts: &Parts, worker: WorkerId, body: &[u8]) -> Option<Bytes> {
    let hello: Hello = decoded(body)?;
    if hello.worker != worker {
        tracing::warn!(%worker, "a hello doesn't belong to its subject");
        return None;
    }
    match parts.store.welcome(parts.commits.owner(), &hello, clock::now()).await {
        Ok(welcome) => {
            parts.jobs.announced(worker, hello.instance);
            Some(wire::encode(&welcome))
        }
        Err(error) => {
            tracing::warn!(%worker, %error, "noting that a worker is there");
            None
        }
    }
}

fn decoded<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
    wire::decode(body).inspect_err(|error| tracing::warn!(%error, "a request can't be read")).ok()
}
