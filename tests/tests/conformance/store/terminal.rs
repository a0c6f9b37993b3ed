//! That a terminal job and the log of events can't be changed, by the store or past it.

use coordinator::store::Written;
use serde_json::json;
use shared::id::{Attempt, Seq, ShardSeq};
use shared::job::{AttemptEnd, EventKind, Failure, Job, State, StateName, WorkerWord};
use shared::log::LogSummary;

use super::Database;
use super::writer::{Writer, at, cancel, changed, said, shard, worker};

pub async fn the_database_refuses_to_change_a_terminal_row(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let canceled = writer.submit_plain(shard(1)).await;
    let canceled = writer.change(&canceled, cancel(), at(1)).await;
    let succeeded = writer.submit_plain(shard(1)).await;
    let succeeded = writer.grant(&succeeded, worker()).await;
    let succeeded = writer.finish(&succeeded, at(2)).await;

    for change in [
        "state = 'failed'",
        "state = 'queued', finished_at = NULL, wake_at = created_at",
        "detail = '{\"state\":\"succeeded\",\"by\":\"me\"}'",
        "attempt = attempt + 1",
        "finished_at = (SELECT max(at) FROM job_events WHERE job_events.job_id = jobs.id AND kind = 'queued')",
    ] {
        let refused = database.raw(&format!("UPDATE jobs SET {change}")).await;
        assert!(refused.is_err_and(|why| why.contains("a terminal job keeps")), "{change}");
    }
    for job in [canceled, succeeded] {
        assert_eq!(writer.stored(&job).await, job);
    }
}

pub async fn the_database_refuses_to_alter_or_delete_an_event(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let job = writer.submit_plain(shard(1)).await;
    let events = writer.store.events(job.id, Seq(0), 10).await.unwrap();

    let altered = database.raw("UPDATE job_events SET actor = 'client:you'").await;
    let deleted = database.raw("DELETE FROM job_events").await;

    assert!(altered.is_err_and(|why| why.contains("never altered")));
    assert!(deleted.is_err_and(|why| why.contains("never deleted")));
    assert_eq!(writer.store.events(job.id, Seq(0), 10).await.unwrap(), events);
}

pub async fn a_late_report_on_a_terminal_job_is_noted(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let job = writer.submit_plain(shard(1)).await;
    let job = writer.grant(&job, worker()).await;
    let canceling = writer.change(&job, cancel(), at(2)).await;
    let canceled = writer.change(&canceling, shared::job::Command::Wake, at(1000)).await;
    assert_eq!(canceled.state.name(), StateName::Canceled);

    let late = writer.finish(&canceled, at(1001)).await;

    assert_eq!(writer.stored(&job).await, late);
    assert_eq!((late.state, late.finished_at), (canceled.state, canceled.finished_at));
    assert!(late.told.is_some() && late.version > canceled.version && late.seq > canceled.seq);
    let events = writer.store.events(job.id, canceled.seq, 10).await.unwrap();
    assert!(matches!(events[0].kind, EventKind::LateReport { end: AttemptEnd::Succeeded, .. }), "{events:?}");
}

/// No transition function makes such a change; the store still has to refuse it without failing the batch.
pub async fn a_transition_that_would_change_a_terminal_job_is_a_conflict_and_harms_no_neighbour(
    database: &dyn Database,
) {
    let mut writer = Writer::of(database).await;
    let neighbour = writer.submit_plain(shard(1)).await;
    let job = writer.submit_plain(shard(1)).await;
    let job = writer.grant(&job, worker()).await;
    let done = writer.finish(&job, at(2)).await;
    let end = AttemptEnd::Failed { failure: Failure::Expired };
    // As if it were still running at the version that the terminal row has.
    let alive = Job { version: done.version, seq: done.seq, ..job };
    let wrong = changed(&alive, said(&alive, WorkerWord::End { end, log: LogSummary::default() }), at(3));
    let revived = Job { state: State::Queued { expires: at(9) }, finished_at: None, ..done.clone() };
    let revived = changed(&revived, super::writer::claim(&revived, worker()), at(3));

    let written = writer.commit(vec![wrong, revived, changed(&neighbour, cancel(), at(3))]).await.unwrap();

    let taken = Written::Changed { first: ShardSeq(8), fence: None };
    assert_eq!(written, [Written::Conflict, Written::Conflict, taken]);
    assert_eq!(writer.stored(&done).await, done);
    assert_eq!(writer.stored(&done).await.attempt, Attempt(1));
    assert_eq!(writer.submit(super::writer::new_job(shard(1), json!({}), at(4))).await.version.0, 1);
}
