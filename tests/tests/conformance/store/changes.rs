//! Transitions: what is taken, what is refused, how events are numbered and fences drawn.

use std::sync::Arc;

use coordinator::store::{Batch, Error, Filter, Submitted, Write, Written};
use serde_json::json;
use shared::id::{CommitId, Fence, JobId, Seq, ShardSeq, Version};
use shared::job::{AttemptEnd, Command, Exit, Failure, GivenBack, Job, KeyAnswer, Progress, StateName, WorkerWord};
use shared::log::LogSummary;
use shared::time::Period;

use super::Database;
use super::writer::{Writer, at, cancel, change, changed, claim, keyed_job, new_job, said, shard, worker};

/// Jobs are led through every state; after each transition the row must be what the supervisor holds.
pub async fn every_state_reads_back_as_it_was(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let run_at = at(3600);
    let fields = json!({"repository": {"url": "/srv/app.git", "deploy_key": "app"}, "run_at": run_at.to_string()});
    let mut seen = Vec::new();
    let paths: [&[Happening]; 5] = [
        &[wake, claimed, parked, registered, claimed, checked_out, started, failed],
        &[wake, claimed, checked_out, started, cancelled, stopped],
        &[wake, claimed, lost, claimed, lost],
        &[wake, claimed, checked_out, started, succeeded],
        &[cancelled],
    ];
    for path in paths {
        let mut job = writer.submit(new_job(shard(1), fields.clone(), at(0))).await;
        for happening in path {
            seen.push(job.state.name());
            job = writer.change(&job, happening(&job), run_at).await;
            assert_eq!(writer.stored(&job).await, job);
            let events = writer.store.events(job.id, Seq(0), 100).await.unwrap();
            assert_eq!(events.last().map(|event| event.seq), Some(job.seq));
        }
        seen.push(job.state.name());
    }
    assert!(StateName::ALL.iter().all(|name| seen.contains(name)), "{seen:?}");
}

pub async fn that_a_job_was_given_back_reads_back_until_somebody_has_an_answer(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let url = "ssh://git@git.example.com/app.git";
    let fields = json!({"repository": {"url": url, "deploy_key": "app"}});
    let mut job = writer.submit(new_job(shard(1), fields, at(0))).await;

    for (times, now) in [(1, at(10)), (2, at(100))] {
        job = writer.change(&job, claim(&job, worker()), now).await;
        let word = WorkerWord::GiveBack { log: LogSummary::default() };
        job = writer.change(&job, said(&job, word), now).await;
        assert_eq!(job.given_back, Some(GivenBack { since: at(10), times }));
        assert_eq!(writer.stored(&job).await, job);
        assert_eq!(writer.store.jobs(&Filter::default(), None, 10).await, Ok(vec![job.clone()]));
        job = writer.change(&job, Command::Wake, now.plus(Period::from_secs(80))).await;
    }
    job = writer.change(&job, claim(&job, worker()), at(300)).await;
    let live = writer.store.live_jobs(&[shard(1)], None, 10).await.unwrap().jobs;
    assert_eq!(live, [job.clone()]);
    assert!(live[0].given_back.is_some());
    let progress = Progress::KeyTry { number: 1, answer: KeyAnswer::Sealed, why: None, next_in: None };
    let answered = writer.change(&job, said(&job, WorkerWord::Progress { number: 1, progress }), at(301)).await;

    assert_eq!(answered.given_back, None);
    assert_eq!(writer.stored(&job).await, answered);
}

pub async fn a_transition_from_another_version_changes_nothing(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let old = writer.submit_plain(shard(1)).await;
    let job = writer.grant(&old, worker()).await;

    let stale = writer.commit_one(changed(&old, cancel(), at(2))).await;
    let early = Write::Change { from: Version(9), transition: Box::new(job.apply(cancel(), at(2)).unwrap()) };
    let early = writer.commit_one(early).await;

    assert_eq!((stale, early), (Written::Conflict, Written::Conflict));
    assert_eq!(writer.stored(&job).await, job);
    assert_eq!(writer.numbers(shard(1)).await, [1, 2, 3, 4]);
}

pub async fn a_transition_of_a_job_that_is_not_there_is_a_conflict(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let stranger = new_job(shard(1), json!({}), at(0)).transition.job;

    assert_eq!(writer.commit_one(changed(&stranger, cancel(), at(1))).await, Written::Conflict);
    assert_eq!(writer.store.job(stranger.id).await.unwrap(), None);
    assert!(writer.numbers(shard(1)).await.is_empty());
}

pub async fn a_refused_transition_leaves_no_gap_and_harms_no_neighbour(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(writer.submit_plain(shard(1)).await);
    }
    writer.change(&jobs[1], cancel(), at(1)).await;
    let mut batch: Vec<_> = jobs.iter().map(|job| changed(job, claim(job, worker()), at(2))).collect();
    batch.insert(2, Write::Submit(vec![keyed_job(shard(1), "k", 1, at(2)), keyed_job(shard(1), "k", 2, at(2))]));
    batch.push(Write::Submit(vec![new_job(shard(1), json!({}), at(2))]));

    let written = writer.commit(batch).await.unwrap();

    // Six events of the submissions and two of the cancel came before; each grant has two.
    let granted = |first, fence| Written::Changed { first: ShardSeq(first), fence: Some(fence) };
    let [Written::Changed { fence: Some(one), .. }, _, _, Written::Changed { fence: Some(two), .. }, _] = written[..]
    else {
        panic!("{written:?}");
    };
    let new = Written::Submitted(vec![Submitted::New(ShardSeq(13))]);
    assert_eq!(written, [granted(9, one), Written::Conflict, Written::KeyReused(1), granted(11, two), new]);
    assert_eq!(writer.numbers(shard(1)).await, (1..=14).collect::<Vec<_>>());
    assert_eq!(writer.stored(&jobs[1]).await.state.name(), StateName::Canceled);
}

pub async fn two_transitions_of_one_job_can_be_in_one_batch(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let new = new_job(shard(1), json!({}), at(0));
    let queued = new.transition.job.clone();
    let granted = queued.apply(claim(&queued, worker()), at(1)).unwrap();
    let running = granted.job.clone();
    let cancelled = running.apply(cancel(), at(2)).unwrap();
    let last = cancelled.job.clone();

    let batch = vec![Write::Submit(vec![new]), change(&queued, granted), change(&running, cancelled)];
    let written = writer.commit(batch).await.unwrap();

    let Written::Changed { fence: Some(fence), .. } = written[1] else { panic!("{written:?}") };
    assert_eq!(written[2], Written::Changed { first: ShardSeq(5), fence: None });
    assert_eq!(writer.stored(&last).await, Job { fence, ..last });
    assert_eq!(writer.numbers(shard(1)).await, [1, 2, 3, 4, 5, 6]);
}

pub async fn of_two_transitions_at_once_one_is_taken(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let (one, other) = (database.open().await, database.open().await);
    for round in 0..20 {
        let job = writer.submit_plain(shard(round)).await;
        let last = [(shard(round), ShardSeq(2))];
        let batch = |command| Arc::new(Batch { last: last.into(), writes: vec![changed(&job, command, at(1))] });
        let (cancelled, granted) = (batch(cancel()), batch(claim(&job, worker())));

        let (first, second) = tokio::join!(one.commit(writer.id, cancelled), other.commit(writer.id, granted));

        let answers = [first.unwrap().remove(0), second.unwrap().remove(0)];
        assert_eq!(answers.iter().filter(|answer| **answer == Written::Conflict).count(), 1, "{answers:?}");
        assert_eq!(writer.numbers(shard(round)).await, [1, 2, 3, 4]);
    }
}

pub async fn a_grant_draws_a_fence_and_the_row_keeps_it(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let job = writer.submit_plain(shard(1)).await;

    let granted = writer.grant(&job, worker()).await;
    // A supervisor that hasn't heard of the fence doesn't undo it.
    let forgetful = Job { fence: Fence(0), ..granted.clone() };
    let written = writer.commit_one(changed(&forgetful, cancel(), at(2))).await;

    assert!(granted.fence > Fence(0));
    assert!(matches!(written, Written::Changed { fence: None, .. }), "{written:?}");
    assert_eq!(writer.stored(&job).await.fence, granted.fence);
}

pub async fn fences_only_grow(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let mut fences = Vec::new();
    for round in 0..4 {
        let (job, stale) = (writer.submit_plain(shard(round)).await, new_job(shard(9), json!({}), at(0)));
        let stale = stale.transition.job;
        // A grant that isn't taken may cost a number, never give one out twice.
        writer.commit_one(changed(&stale, claim(&stale, worker()), at(1))).await;
        let granted = writer.grant(&job, worker()).await;
        fences.push(granted.fence);
        let why = "full".to_owned();
        let declined = writer.change(&granted, said(&granted, WorkerWord::Decline { claim: None, why }), at(2)).await;
        fences.push(writer.grant(&declined, worker()).await.fence);
        writer = Writer::of(database).await;
    }
    assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
}

pub async fn a_batch_that_cannot_be_numbered_stores_nothing(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let job = writer.submit_plain(shard(1)).await;
    let new = new_job(shard(2), json!({}), at(0));
    let id: JobId = new.transition.job.id;
    let unknown = [(shard(2), ShardSeq(0))].into();
    let behind = [(shard(2), ShardSeq(0)), (shard(1), ShardSeq(1))].into();

    for last in [unknown, behind] {
        let batch = Batch { last, writes: vec![Write::Submit(vec![new.clone()]), changed(&job, cancel(), at(1))] };
        let refused = writer.store.commit(writer.id, Arc::new(batch)).await;
        assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
        assert_eq!(writer.store.job(id).await.unwrap(), None);
        assert_eq!(writer.stored(&job).await, job);
    }
    // The store goes on.
    writer.change(&job, cancel(), at(1)).await;
}

/// Something that happens to a job.
type Happening = fn(&Job) -> Command;

fn wake(_: &Job) -> Command {
    Command::Wake
}

fn claimed(job: &Job) -> Command {
    claim(job, worker())
}

fn parked(job: &Job) -> Command {
    said(job, WorkerWord::Park { key: "app".to_owned(), wait: Period::from_secs(600), log: LogSummary::default() })
}

fn registered(_: &Job) -> Command {
    Command::KeyRegistered { key: "app".to_owned() }
}

fn checked_out(job: &Job) -> Command {
    let commit = CommitId::try_from("0123456789abcdef".repeat(4)).expect("a commit");
    said(job, WorkerWord::Progress { number: 1, progress: Progress::CheckedOut { commit } })
}

fn started(job: &Job) -> Command {
    said(job, WorkerWord::Progress { number: 2, progress: Progress::StepStarted { step: 0 } })
}

fn lost(job: &Job) -> Command {
    Command::WorkerLost { attempt: job.attempt, message: "no heartbeat".to_owned() }
}

fn cancelled(_: &Job) -> Command {
    cancel()
}

fn succeeded(job: &Job) -> Command {
    said(job, WorkerWord::End { end: AttemptEnd::Succeeded, log: log() })
}

fn failed(job: &Job) -> Command {
    let failure = Failure::StepFailed { step: 0, exit: Exit::Signal(9), message: Some("gone".to_owned()) };
    said(job, WorkerWord::End { end: AttemptEnd::Failed { failure }, log: log() })
}

fn stopped(job: &Job) -> Command {
    said(job, WorkerWord::End { end: AttemptEnd::Stopped, log: log() })
}

fn log() -> LogSummary {
    LogSummary { chunks: 2, bytes: 9, sha256: "ab".repeat(32) }
}
