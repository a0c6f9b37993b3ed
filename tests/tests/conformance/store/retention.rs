//! What goes of what is old, what stays, and what the database never lets go.

use coordinator::store::{EndedJob, Error, NewJob, RemovedExpired, RemovedJobs, Token, TokenKind};
use serde_json::json;
use shared::clock;
use shared::id::{JobId, Seq, Shard, ShardSeq};
use shared::job::{Job, submit};
use shared::log::{Chunk, Segment, Stream};
use shared::time::Time;
use shared::wire::LogAnswer;

use super::Database;
use super::writer::{
    Writer, all_shards, at, audit_line, cancel, client, keyed_job, new_job, said, shard, spec, token, worker,
};

/// What ended before that time is old here.
const OLD: i64 = 1000;

pub async fn a_job_that_is_old_goes_with_all_that_is_about_it(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let id = JobId::mint(shard(1), at(0), clock::random());
    let transition = submit(id, spec(json!({})), true, None, client(), at(0));
    let new = NewJob { transition, secrets: Some(vec![1]), ..keyed_job(shard(1), "k", 1, at(0)) };
    let job = writer.submit(new).await;
    let job = ended(&mut writer, &job, 2).await;
    published(&writer, &[shard(1)]).await;
    assert_eq!(writer.store.remove_expired(writer.id, at(2 * 24 * 3600), 10).await.map(|gone| gone.keys), Ok(1));

    let found = writer.store.ended_jobs(&all_shards(), at(OLD), None, 10).await;
    assert_eq!(found, Ok(vec![EndedJob { id: job.id, events: job.seq.0 }]));
    assert_eq!(removed(&writer, &[&job], 10).await, RemovedJobs { jobs: 1, chunks: 2, more: false });

    assert!(!is_there(&writer, &job).await);
    for table in ["jobs", "job_events", "log_chunks", "log_totals", "secrets", "idempotency_keys"] {
        let fails = format!("UPDATE shards SET epoch = NULL WHERE EXISTS (SELECT 1 FROM {table})");
        assert_eq!(database.raw(&fails).await, Ok(()), "{table} is empty");
    }
    assert_eq!(removed(&writer, &[&job], 10).await, RemovedJobs::default(), "what is gone is no error");
}

pub async fn what_is_not_old_or_ended_or_published_or_ours_stays(database: &dyn Database) {
    let mut writer = Writer::beside(database.open().await).await;
    let shards: Vec<Shard> = (1..6).map(shard).collect();
    writer = writer.taking(&shards).await;
    let queued = writer.submit_plain(shard(1)).await;
    let running = writer.submit_plain(shard(1)).await;
    let running = writer.grant(&running, worker()).await;
    let scheduled = writer.submit(new_job(shard(1), json!({"run_at": "2200-01-01T00:00:00Z"}), at(0))).await;
    let young = writer.submit_plain(shard(2)).await;
    let young = ended(&mut writer, &young, OLD).await;
    let old = writer.submit_plain(shard(3)).await;
    let old = ended(&mut writer, &old, OLD - 1).await;
    let unpublished = writer.submit_plain(shard(4)).await;
    let unpublished = ended(&mut writer, &unpublished, 2).await;
    let others = writer.submit_plain(shard(5)).await;
    let others = ended(&mut writer, &others, 2).await;
    published(&writer, &shards).await;
    let nearly = ShardSeq(writer.last[&shard(4)].0);
    let back = format!("UPDATE shards SET published_seq = {} WHERE shard = 4", nearly.0 - 1);
    database.raw(&back).await.unwrap();
    database.raw("UPDATE shards SET owner = NULL WHERE shard = 5").await.unwrap();

    let mine = &all_shards()[..5];
    let found: Vec<JobId> =
        writer.store.ended_jobs(mine, at(OLD), None, 10).await.unwrap().iter().map(|job| job.id).collect();
    let mut expected = [old.id, unpublished.id];
    expected.sort_unstable();
    assert_eq!(found, expected);

    let all = [&queued, &running, &scheduled, &young, &old, &unpublished, &others];
    assert_eq!(removed(&writer, &all, 100).await, RemovedJobs { jobs: 1, chunks: 2, more: false });
    for job in all {
        let stays = job.id != old.id;
        assert_eq!(is_there(&writer, job).await, stays, "{:?}", job.state);
        let chunks = writer.store.chunk_count(job.id, job.attempt).await.unwrap();
        assert_eq!(chunks, if stays && job.is_terminal() { 2 } else { 0 }, "the log of one that stays does too");
    }
    writer.store.move_cursors(writer.id, &[(shard(4), nearly)]).await.unwrap();
    assert_eq!(removed(&writer, &all, 100).await.jobs, 1, "what is published by now goes");
    assert!(!is_there(&writer, &unpublished).await);
}

pub async fn a_log_goes_a_few_chunks_at_a_time_before_its_job(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let mut jobs = Vec::new();
    for number in 1..=3 {
        let job = writer.submit_plain(shard(number)).await;
        jobs.push(ended(&mut writer, &job, 2).await);
    }
    published(&writer, &all_shards()).await;
    let all: Vec<&Job> = jobs.iter().collect();
    for _ in 0..2 {
        assert_eq!(removed(&writer, &all, 3).await, RemovedJobs { jobs: 0, chunks: 3, more: true });
        for job in &jobs {
            assert!(is_there(&writer, job).await, "a sweep that is interrupted here leaves it to the next");
        }
    }
    assert_eq!(removed(&writer, &all, 3).await, RemovedJobs { jobs: 3, chunks: 0, more: false });
}

pub async fn old_jobs_are_found_in_order_page_by_page(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let mut ids = Vec::new();
    for number in 0..7 {
        let job = writer.submit_plain(shard(number % 3)).await;
        // Each way to end is one.
        let job = match number % 2 {
            0 => writer.change(&job, cancel(), at(5)).await,
            _ => ended(&mut writer, &job, 5).await,
        };
        ids.push(job.id);
    }
    ids.sort_unstable();
    let page = async |shards: &[Shard], after, limit| -> Vec<JobId> {
        let page = writer.store.ended_jobs(shards, at(OLD), after, limit).await.unwrap();
        page.into_iter().map(|job| job.id).collect()
    };
    assert_eq!(page(&all_shards(), None, 100).await, ids);
    assert_eq!(page(&all_shards(), None, 3).await, ids[..3]);
    assert_eq!(page(&all_shards(), Some(ids[2]), 3).await, ids[3..6]);
    assert_eq!(page(&all_shards(), Some(ids[6]), 3).await, []);
    let of_two: Vec<JobId> = ids.iter().copied().filter(|id| id.shard() != shard(0)).collect();
    assert_eq!(page(&[shard(1), shard(2)], None, 100).await, of_two);
    assert_eq!(writer.store.ended_jobs(&all_shards(), at(5), None, 100).await, Ok(Vec::new()), "not before that time");
}

pub async fn a_fenced_coordinator_removes_nothing(database: &dyn Database) {
    let mut fenced = Writer::of(database).await;
    let job = fenced.submit(keyed_job(shard(1), "k", 1, at(0))).await;
    let job = ended(&mut fenced, &job, 2).await;
    published(&fenced, &[shard(1)]).await;
    let writer = Writer::of(database).await;

    let removed = fenced.store.remove_jobs(fenced.id, &[job.id], at(OLD), 10).await;
    assert_eq!(removed, Err(Error::Fenced));
    assert_eq!(fenced.store.remove_expired(fenced.id, at(10 * 24 * 3600), 10).await, Err(Error::Fenced));
    assert!(is_there(&writer, &job).await);
    assert_eq!(writer.store.chunk_count(job.id, job.attempt).await, Ok(2));
    assert_eq!(writer.store.remove_expired(writer.id, at(10 * 24 * 3600), 10).await.unwrap().keys, 1);
}

pub async fn a_job_that_repeats_one_that_is_gone_still_shows(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let first = writer.submit_plain(shard(1)).await;
    let first = ended(&mut writer, &first, 2).await;
    let id = JobId::mint(shard(1), at(3), clock::random());
    let transition = submit(id, spec(json!({})), false, Some(first.id), client(), at(3));
    let second = writer.submit(NewJob { transition, secrets: None, idempotency: None }).await;
    published(&writer, &[shard(1)]).await;

    assert_eq!(removed(&writer, &[&first], 10).await.jobs, 1);
    assert_eq!(writer.stored(&second).await.retry_of, Some(first.id));
    assert_eq!(writer.store.jobs(&coordinator::store::Filter::default(), None, 10).await, Ok(vec![second]));
}

pub async fn what_a_shard_has_lost_leaves_its_numbers_as_they_were(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let job = writer.submit_plain(shard(1)).await;
    let job = ended(&mut writer, &job, 2).await;
    published(&writer, &[shard(1)]).await;
    assert_eq!(removed(&writer, &[&job], 10).await.jobs, 1);

    let mut next = Writer::of(database).await;
    assert_eq!(next.last[&shard(1)], writer.last[&shard(1)]);
    next.submit_plain(shard(1)).await;
    assert_eq!(next.numbers(shard(1)).await.first(), Some(&(writer.last[&shard(1)].0 + 1)));
}

pub async fn a_word_about_a_job_that_is_gone_is_a_conflict(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let job = writer.submit_plain(shard(1)).await;
    let running = writer.grant(&job, worker()).await;
    let canceling = writer.change(&running, cancel(), at(2)).await;
    let canceled = writer.change(&canceling, shared::job::Command::Wake, at(500)).await;
    published(&writer, &[shard(1)]).await;
    let late = said(&canceled, late_end());
    let late = super::writer::changed(&canceled, late, at(501));
    assert_eq!(removed(&writer, &[&canceled], 10).await.jobs, 1);

    assert_eq!(writer.commit_one(late).await, coordinator::store::Written::Conflict);
    assert_eq!(writer.store.events(job.id, Seq(0), 10).await, Ok(Vec::new()), "and leaves no event behind");
}

pub async fn what_has_expired_goes_the_oldest_first_and_the_rest_stays(database: &dyn Database) {
    const DAY: i64 = 24 * 3600;
    let mut writer = Writer::of(database).await;
    let mut jobs = Vec::new();
    for (key, second) in [("a", 0), ("b", 10), ("c", 20)] {
        jobs.push(writer.submit(keyed_job(shard(1), key, 1, at(second))).await);
    }
    let expiring = |second| Token { expires_at: Some(at(second)), ..token(TokenKind::Join) };
    for token in [expiring(DAY), expiring(DAY + 30), token(TokenKind::Join)] {
        assert_eq!(writer.store.add_token(writer.id, &token, &audit_line("token", "")).await, Ok(true));
    }
    let remove = async |writer: &Writer, second, limit| writer.store.remove_expired(writer.id, at(second), limit).await;
    assert_eq!(remove(&writer, DAY, 10).await, Ok(RemovedExpired { keys: 0, tokens: 0 }), "not before its time");
    assert_eq!(remove(&writer, DAY + 15, 1).await, Ok(RemovedExpired { keys: 1, tokens: 1 }));
    assert_eq!(remove(&writer, DAY + 15, 5).await, Ok(RemovedExpired { keys: 1, tokens: 0 }));
    assert_eq!(remove(&writer, DAY + 15, 5).await, Ok(RemovedExpired::default()));
    assert_eq!(writer.store.tokens(at(0)).await.map(|tokens| tokens.len()), Ok(2));
    // The key that stays still stands for its job.
    let again = keyed_job(shard(1), "c", 1, at(21));
    let submitted = writer.commit_one(coordinator::store::Write::Submit(vec![again])).await;
    let existing = coordinator::store::Submitted::Existing(jobs[2].id);
    assert_eq!(submitted, coordinator::store::Written::Submitted(vec![existing]));
}

pub async fn the_database_lets_no_job_go_without_its_events_and_none_that_has_not_ended(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let running = writer.submit_plain(shard(1)).await;
    let running = writer.grant(&running, worker()).await;
    let old = writer.submit_plain(shard(1)).await;
    let old = ended(&mut writer, &old, 2).await;
    published(&writer, &[shard(1)]).await;
    for statement in [
        "DELETE FROM job_events",
        "DELETE FROM job_events WHERE job_id IN (SELECT id FROM jobs WHERE finished_at IS NOT NULL)",
        "DELETE FROM job_events WHERE seq > 1",
        "DELETE FROM jobs",
        "DELETE FROM jobs WHERE finished_at IS NOT NULL",
        "DELETE FROM jobs WHERE finished_at IS NULL",
    ] {
        let refused = database.raw(statement).await;
        assert!(refused.as_ref().is_err_and(|why| why.contains("never deleted")), "{statement}: {refused:?}");
    }
    for job in [&running, &old] {
        assert!(is_there(&writer, job).await);
        assert_eq!(writer.store.events(job.id, Seq(0), 100).await.map(|events| events.len() as u64), Ok(job.seq.0));
    }
}

/// The same job, run to its end at that second, with two chunks of log.
async fn ended(writer: &mut Writer, job: &Job, second: i64) -> Job {
    let holder = worker();
    let job = writer.grant(job, holder).await;
    let chunk = |number: u32| Chunk {
        job: job.id,
        attempt: job.attempt,
        number,
        first_line: u64::from(number),
        segments: vec![Segment { at: at(1), step: Some(0), stream: Stream::Stdout, text: "a\n".to_owned() }],
    };
    let stored = writer.store.append_log(writer.id, holder, &[chunk(1), chunk(2)], at(1)).await;
    assert_eq!(stored, Ok(vec![LogAnswer::Stored, LogAnswer::Stored]));
    writer.finish(&job, at(second)).await
}

fn late_end() -> shared::job::WorkerWord {
    shared::job::WorkerWord::End { end: shared::job::AttemptEnd::Succeeded, log: shared::log::LogSummary::default() }
}

/// Everything that has happened in these shards is published.
async fn published(writer: &Writer, shards: &[Shard]) {
    let cursors: Vec<(Shard, ShardSeq)> = shards.iter().map(|shard| (*shard, writer.last[shard])).collect();
    writer.store.move_cursors(writer.id, &cursors).await.expect("the cursors move");
}

async fn removed(writer: &Writer, jobs: &[&Job], chunks_max: u32) -> RemovedJobs {
    let (ids, before): (Vec<JobId>, Time) = (jobs.iter().map(|job| job.id).collect(), at(OLD));
    writer.store.remove_jobs(writer.id, &ids, before, chunks_max).await.expect("an answer")
}

/// Whether the job is still there, whole or not at all.
async fn is_there(writer: &Writer, job: &Job) -> bool {
    let events = !writer.store.events(job.id, Seq(0), 1).await.expect("an answer").is_empty();
    let stored = writer.store.job(job.id).await.expect("an answer").is_some();
    assert_eq!(events, stored, "a job and its events");
    stored
}
