//! Hands a worker's reports to their jobs, and words what each comes to.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};

use shared::id::{Attempt, Epoch, Instance, JobId, Shard, WorkerId};
use shared::job::{AttemptEnd, Claim, Command, Failure, Job, Rejection, State, WorkerMessage, WorkerWord};
use shared::log::LogSummary;
use shared::seal::Sealed;
use shared::wire::{
    self, Answer, Answers, Grant, MESSAGE_BYTES_MAX, REPORTS_MAX, Report, ReportKind, Reports, ShardAnswers, Words,
};

use super::{Parts, decoded, is_ours, word};
use crate::fault;
use crate::supervisor::{Error as JobError, Taken};
use crate::vault;

/// The most bytes of a message of answers without the grants in it: 256 small answers, each in a word of its own.
const ENVELOPE_BYTES_MAX: usize = 48 * 1024;
/// The most bytes that an answer has around a grant.
const ANSWER_BYTES_MAX: usize = 64;

/// Hands the reports of a message to their jobs, in this moment and in order. What is returned waits for their answers and
/// words them: as a word of the shard that they were addressed to where they are all about its jobs, else as a word for each
/// shard.
pub(super) fn begin(
    parts: &Arc<Parts>,
    shard: Shard,
    epoch: Epoch,
    worker: WorkerId,
    body: &[u8],
) -> Option<BoxFuture<'static, Option<Bytes>>> {
    let batch: Reports = decoded(body)?;
    if batch.worker != worker || batch.reports.len() > REPORTS_MAX {
        tracing::warn!(%worker, %shard, "a batch of reports doesn't belong to its subject");
        return None;
    }
    let is_alone = batch.reports.iter().all(|report| report.job.shard() == shard);
    Some(if is_alone { alone(parts, shard, epoch, batch) } else { bundled(parts, shard, epoch, batch) })
}

fn alone(parts: &Arc<Parts>, shard: Shard, epoch: Epoch, batch: Reports) -> BoxFuture<'static, Option<Bytes>> {
    let (parts, answers) = (Arc::clone(parts), hand_over(parts, batch));
    Box::pin(async move {
        let answers = answers.await;
        if are_lost(&answers) { None } else { word(&parts, shard, epoch, Answers { answers: fitting(answers) }) }
    })
}

/// Reports about jobs of several shards. The one that they were addressed to is owned at `epoch`; of the others those that
/// aren't ours get no word, and so do those that cease to be ours meanwhile: they are said again where they belong.
///
/// Nothing waits for these answers when another shard than the addressed one is given away. What was handed to a job
/// before its shard was closed is committed before the shard is handed over, and what comes after finds it closed; either
/// way nothing is said here, and the next owner answers the repeat.
fn bundled(parts: &Arc<Parts>, shard: Shard, epoch: Epoch, batch: Reports) -> BoxFuture<'static, Option<Bytes>> {
    let Reports { worker, instance, mut reports } = batch;
    let mut epochs = HashMap::from([(shard, Some(epoch))]);
    reports.retain(|report| {
        let shard = report.job.shard();
        epochs.entry(shard).or_insert_with(|| parts.holdings.epoch(shard)).is_some()
    });
    let shards: Vec<Shard> = reports.iter().map(|report| report.job.shard()).collect();
    let (parts, answers) = (Arc::clone(parts), hand_over(parts, Reports { worker, instance, reports }));
    Box::pin(async move {
        let answers = answers.await;
        if are_lost(&answers) {
            return None;
        }
        let mut words: Vec<ShardAnswers> = Vec::new();
        let mut places: HashMap<Shard, Option<usize>> = HashMap::new();
        for (shard, answer) in shards.into_iter().zip(fitting(answers)) {
            let place = places.entry(shard).or_insert_with(|| {
                let epoch = epochs.get(&shard).copied().flatten().filter(|epoch| is_ours(&parts, shard, *epoch))?;
                words.push(ShardAnswers { shard, epoch, answers: Vec::new() });
                Some(words.len() - 1)
            });
            if let Some(word) = place.and_then(|place| words.get_mut(place)) {
                word.answers.push(answer);
            }
        }
        let owner = parts.holdings.id();
        (!words.is_empty()).then(|| wire::encode(&Words { owner, words }))
    })
}

/// Whether a test wants these answers to be lost on their way.
fn are_lost(answers: &[Answer]) -> bool {
    let grants = answers.iter().any(|answer| matches!(answer, Answer::Granted(_)));
    fault::is_lost("intake.report_reply") || grants && fault::is_lost("intake.grant_reply")
}

/// Hands reports to their jobs, in this moment: what is said of one job goes to it together. What is returned waits for the
/// answers, one for each report in their order.
fn hand_over(parts: &Arc<Parts>, batch: Reports) -> impl Future<Output = Vec<Answer>> + Send + use<> {
    let Reports { worker, instance, mut reports } = batch;
    let count = reports.len();
    // Of one that was revoked no job hears anything. It is answered for good, so that it forgets what it wanted to tell.
    let unheard = if parts.roster.is_revoked(worker) { Answer::Unknown } else { Answer::TryAgain };
    if unheard == Answer::Unknown {
        reports.clear();
    }
    let mut by_job: Vec<(JobId, Vec<Asked>, Vec<Command>)> = Vec::new();
    let mut places: HashMap<JobId, usize> = HashMap::new();
    for (index, Report { job, attempt, what }) in reports.into_iter().enumerate() {
        let place = *places.entry(job).or_insert(by_job.len());
        if place == by_job.len() {
            by_job.push((job, Vec::new(), Vec::new()));
        }
        let Some((_, asked, commands)) = by_job.get_mut(place) else { continue };
        let asks = match &what {
            ReportKind::Claim { recipient, .. } => Asks::Claim { recipient: recipient.clone() },
            ReportKind::Park { .. } | ReportKind::GiveBack { .. } | ReportKind::End { .. } => Asks::Over,
            ReportKind::Decline { .. } | ReportKind::Progress { .. } => Asks::Nothing,
        };
        asked.push(Asked { index, attempt, asks });
        commands.push(command(parts, worker, instance, attempt, what));
    }
    let told: Vec<_> =
        by_job.into_iter().map(|(job, asked, commands)| (job, asked, parts.jobs.tell_all(job, commands))).collect();
    let parts = Arc::clone(parts);
    async move {
        let answered = told.into_iter().map(|(job, asked, told)| {
            let parts = &parts;
            async move {
                let mut answers = Vec::with_capacity(asked.len());
                for (asked, taken) in asked.into_iter().zip(told.await) {
                    if matches!(asked.asks, Asks::Over) && taken.is_ok() {
                        parts.keys_watched.forget(job, asked.attempt, worker);
                    }
                    answers.push((asked.index, answer_to(parts, taken, asked.asks).await));
                }
                answers
            }
        });
        let mut answers: Vec<Answer> = std::iter::repeat_n(unheard, count).collect();
        for (index, answer) in join_all(answered).await.into_iter().flatten() {
            if let Some(place) = answers.get_mut(index) {
                *place = answer;
            }
        }
        answers
    }
}

/// What is to be known of a report when its answer is made.
struct Asked {
    /// Which one of its message it is.
    index: usize,
    attempt: Attempt,
    asks: Asks,
}

/// What a report asks for beside being taken.
enum Asks {
    /// A grant, its secrets sealed to that recipient.
    Claim {
        recipient: Option<String>,
    },
    /// That nothing of the attempt waits for a key any more.
    Over,
    Nothing,
}

/// A report as its job is told it.
fn command(parts: &Parts, worker: WorkerId, instance: Instance, attempt: Attempt, what: ReportKind) -> Command {
    let word = match what {
        ReportKind::Claim { claim, wait, recipient } => {
            let (has_recipient, expires) = (recipient.is_some(), parts.holdings.now().plus(wait));
            return Command::Claim(Claim { claim, attempt, worker, instance, has_recipient, expires });
        }
        ReportKind::Decline { claim, why } => WorkerWord::Decline { claim, why },
        ReportKind::Progress { number, progress } => WorkerWord::Progress { number, progress },
        ReportKind::Park { key, wait, log } => WorkerWord::Park { key, wait, log },
        ReportKind::GiveBack { log } => WorkerWord::GiveBack { log },
        ReportKind::End { end, log } => WorkerWord::End { end, log },
    };
    Command::Worker(WorkerMessage { worker, attempt, word })
}

async fn answer_to(parts: &Parts, taken: Result<Taken, JobError>, asks: Asks) -> Answer {
    match (taken, asks) {
        (Ok(Taken { job, .. }), Asks::Claim { recipient }) => grant(parts, &job, recipient.as_deref()).await,
        (Ok(_), Asks::Over | Asks::Nothing) => Answer::Taken,
        (Err(JobError::Refused(Rejection::Early)), _) => Answer::TryAgain,
        (Err(JobError::Refused(why)), _) => Answer::Refused { why },
        (Err(JobError::Unknown), _) => Answer::Unknown,
        (Err(JobError::Busy | JobError::Unavailable | JobError::Elsewhere | JobError::Internal), _) => Answer::TryAgain,
    }
}

/// The grant of a claim that is committed, made from the job as it stands.
async fn grant(parts: &Parts, job: &Job, recipient: Option<&str>) -> Answer {
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
async fn sealed_secrets(parts: &Parts, job: &Job, recipient: Option<&str>) -> Result<Option<Sealed>, Answer> {
    if !job.has_secrets {
        return Ok(None);
    }
    // The job has refused such a claim already.
    let recipient = recipient.ok_or(Answer::Refused { why: Rejection::Unsealable })?;
    let stored = parts.store.secrets(job.id).await.map_err(|error| {
        tracing::warn!(job = %job.id, %error, "reading a job's secrets");
        Answer::TryAgain
    })?;
    match parts.vault.seal(job.id, &stored.unwrap_or_default(), recipient) {
        Ok(sealed) => Ok(Some(sealed)),
        Err(error @ vault::Error::KeyMissing(_)) => {
            // A replica that was given it, or this one once it is, can hand them out.
            tracing::error!(job = %job.id, %error, "a job's secrets can't be handed out here");
            Err(Answer::TryAgain)
        }
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

/// As many of the answers as fit into one message; the others are asked for again, and a repeat gets the same grant.
fn fitting(answers: Vec<Answer>) -> Vec<Answer> {
    let mut room = MESSAGE_BYTES_MAX - ENVELOPE_BYTES_MAX;
    let fit = |answer: Answer| match &answer {
        Answer::Granted(grant) => match room.checked_sub(wire::encode(grant).len() + ANSWER_BYTES_MAX) {
            Some(left) => {
                room = left;
                answer
            }
            None => Answer::TryAgain,
        },
        // Each of the others is small, and there are few.
        Answer::Taken | Answer::Refused { .. } | Answer::Unknown | Answer::TryAgain => answer,
    };
    // A grant alone always fits: a job's specification is half as long at most.
    if answers.len() == 1 { answers } else { answers.into_iter().map(fit).collect() }
}
