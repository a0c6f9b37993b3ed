//! Logs: what is stored of an attempt, for whom and how long, and how a reader finds his way through it.

use serde_json::json;
use shared::id::{Attempt, JobId, WorkerId};
use shared::job::{AttemptEnd, Failure, Job, WorkerWord};
use shared::log::{ATTEMPT_BYTES_MAX, CHUNK_BYTES_MAX, Chunk, LINES_PER_ATTEMPT, Line, LogSummary, Segment, Stream};
use shared::time::Time;
use shared::wire::LogAnswer::{self, Refused, Stored};

use super::Database;
use super::writer::{Writer, at, new_job, said, shard, worker};

pub async fn lines_are_numbered_over_chunks_and_attempts(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let (job, first) = running(&mut writer).await;
    append(&writer, first, &[chunk(&job, 1, 1, "a\nb\n"), chunk(&job, 2, 3, "c\nno newline")], at(2)).await;
    let job = declined(&mut writer, &job).await;
    let second = worker();
    let job = writer.grant(&job, second).await;
    append(&writer, second, &[chunk(&job, 1, 1, "d\n")], at(3)).await;
    let read = async |attempt: Option<u32>, after, limit| {
        texts(&writer.store.lines(job.id, attempt.map(Attempt), after, limit).await.unwrap())
    };
    let two = LINES_PER_ATTEMPT + 1;
    let whole = [(1, "a"), (2, "b"), (3, "c"), (4, "no newline"), (two, "d")].map(|(n, text)| (n, text.to_owned()));

    assert_eq!(read(None, 0, 100).await, whole);
    assert_eq!(read(Some(1), 0, 100).await, whole[..4]);
    assert_eq!(read(Some(2), 0, 100).await, whole[4..]);
    assert_eq!(read(Some(2), 3, 100).await, whole[4..]);
    assert_eq!(read(Some(1), two, 100).await, []);
    assert_eq!(read(Some(3), 0, 100).await, []);
    assert_eq!(read(None, LINES_PER_ATTEMPT, 100).await, whole[4..]);
    assert_eq!(read(None, two, 100).await, []);
    let lines = writer.store.lines(job.id, None, 3, 2).await.unwrap();
    assert_eq!((lines[0].partial, lines[1].partial), (true, false));
    assert_eq!((lines[0].attempt, lines[1].attempt), (Attempt(1), Attempt(2)));
}

pub async fn reading_goes_on_in_the_middle_of_a_chunk(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let (job, holder) = running(&mut writer).await;
    let mut chunks = Vec::new();
    for number in 0..5_u32 {
        let lines: Vec<_> = (1..=7).map(|line| format!("line {}\n", number * 7 + line)).collect();
        chunks.push(chunk(&job, number + 1, u64::from(number * 7 + 1), &lines.concat()));
    }
    append(&writer, holder, &chunks, at(2)).await;

    for limit in [1, 2, 3, 7, 8, 34, 35, 36] {
        let mut read = Vec::new();
        loop {
            let after = read.last().map_or(0, |(n, _)| *n);
            let page = writer.store.lines(job.id, None, after, limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            if page.is_empty() {
                break;
            }
            read.extend(texts(&page));
        }
        assert_eq!(read, (1..=35).map(|n| (n, format!("line {n}"))).collect::<Vec<_>>(), "limit {limit}");
    }
}

pub async fn of_thousands_of_long_lines_some_are_returned_at_a_time_and_none_is_lost(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let (job, holder) = running(&mut writer).await;
    for number in 0..100_u32 {
        let lines: Vec<_> = (1..=30).map(|line| format!("{:01000}\n", number * 30 + line)).collect();
        let chunk = chunk(&job, number + 1, u64::from(number * 30 + 1), &lines.concat());
        append(&writer, holder, &[chunk], at(2)).await;
    }
    let mut read = Vec::new();
    loop {
        let page = writer.store.lines(job.id, None, read.len() as u64, 10_000).await.unwrap();
        // A thousand is what may be asked for in any case.
        assert!(page.is_empty() || (page.len() >= 1000.min(3000 - read.len()) && page.len() < 2000), "{}", page.len());
        if page.is_empty() {
            break;
        }
        read.extend(page.into_iter().map(|line| line.n));
    }
    assert_eq!(read, (1..=3000).collect::<Vec<_>>());
    assert_eq!(writer.store.lines(job.id, None, 0, 1000).await.unwrap().len(), 1000);
}

pub async fn a_chunk_that_is_sent_twice_is_stored_once(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let (job, holder) = running(&mut writer).await;
    let (one, two) = (chunk(&job, 1, 1, "a\n"), chunk(&job, 2, 2, "b\n"));

    assert_eq!(append(&writer, holder, &[two.clone(), one.clone(), one.clone()], at(2)).await, [Stored; 3]);
    assert_eq!(append(&writer, holder, &[one, two], at(2)).await, [Stored; 2]);

    let lines = writer.store.lines(job.id, None, 0, 10).await.unwrap();
    assert_eq!(texts(&lines), [(1, "a".to_owned()), (2, "b".to_owned())]);
    assert_eq!(writer.store.chunk_count(job.id, Attempt(1)).await.unwrap(), 2);
    assert_eq!(writer.store.chunk_count(job.id, Attempt(2)).await.unwrap(), 0);
}

pub async fn a_chunk_of_another_worker_or_attempt_is_refused(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let (job, holder) = running(&mut writer).await;
    let queued = writer.submit_plain(shard(1)).await;
    let unknown = new_job(shard(1), json!({}), at(0)).transition.job;
    let good = chunk(&job, 1, 1, "good\n");
    let numbered = |attempt| Chunk { attempt: Attempt(attempt), ..good.clone() };
    let chunks = [numbered(0), chunk(&queued, 1, 1, "a\n"), good.clone(), chunk(&unknown, 1, 1, "a\n"), numbered(2)];

    assert_eq!(append(&writer, worker(), std::slice::from_ref(&good), at(2)).await, [Refused]);
    assert_eq!(append(&writer, holder, &chunks, at(2)).await, [Refused, Refused, Stored, Refused, Refused]);
    let job = declined(&mut writer, &job).await;
    writer.grant(&job, holder).await;
    assert_eq!(append(&writer, holder, &[chunk(&job, 2, 2, "stale\n")], at(3)).await, [Refused]);

    assert_eq!(texts(&writer.store.lines(job.id, None, 0, 10).await.unwrap()), [(1, "good".to_owned())]);
    assert_eq!(writer.store.lines(queued.id, None, 0, 10).await.unwrap(), []);
}

pub async fn an_attempt_that_ended_has_an_hour_for_its_last_chunks(database: &dyn Database) {
    const HOUR: i64 = 60 * 60;
    let mut writer = Writer::of(database).await;
    let (job, holder) = running(&mut writer).await;
    writer.finish(&job, at(10)).await;

    assert_eq!(append(&writer, holder, &[chunk(&job, 1, 1, "a\n")], at(10 + HOUR)).await, [Stored]);
    assert_eq!(append(&writer, holder, &[chunk(&job, 2, 2, "b\n")], at(11 + HOUR)).await, [Refused]);
}

pub async fn an_attempt_that_waits_for_its_retry_can_still_deliver(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let retry = json!({"retry": {"on": ["timed_out"], "backoff": {"first": "1d", "max": "1d"}}});
    let queued = writer.submit(new_job(shard(1), retry, at(0))).await;
    let holder = worker();
    let job = writer.grant(&queued, holder).await;
    let end = AttemptEnd::Failed { failure: Failure::TimedOut { limit: shared::job::Limit::Job } };
    writer.change(&job, said(&job, WorkerWord::End { end, log: LogSummary::default() }), at(10)).await;

    assert_eq!(append(&writer, holder, &[chunk(&job, 1, 1, "a\n")], at(20)).await, [Stored]);
    assert_eq!(append(&writer, holder, &[chunk(&job, 2, 2, "b\n")], at(20_000)).await, [Refused]);
}

pub async fn a_chunk_whose_numbers_are_impossible_is_refused(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let (job, holder) = running(&mut writer).await;
    let chunks = [
        chunk(&job, 0, 1, "a\n"),
        chunk(&job, 1, 0, "a\n"),
        chunk(&job, 1, LINES_PER_ATTEMPT, "a\nb\n"),
        chunk(&job, 1, u64::MAX, "a\n"),
        chunk(&job, 1, LINES_PER_ATTEMPT, "a\n"),
    ];

    assert_eq!(append(&writer, holder, &chunks, at(2)).await, [Refused, Refused, Refused, Refused, Stored]);
    let lines = writer.store.lines(job.id, None, LINES_PER_ATTEMPT - 1, 10).await.unwrap();
    assert_eq!(texts(&lines), [(LINES_PER_ATTEMPT, "a".to_owned())]);
}

pub async fn an_attempt_cannot_fill_the_database(database: &dyn Database) {
    const CHUNKS_PER_CALL: u32 = 64;
    let mut writer = Writer::of(database).await;
    let (job, holder) = running(&mut writer).await;
    let text = "x".repeat(CHUNK_BYTES_MAX);
    let chunk_bytes = CHUNK_BYTES_MAX as u64;
    let mut stored = 0;
    for call in 0.. {
        let chunks: Vec<_> = (1..=CHUNKS_PER_CALL)
            .map(|n| call * CHUNKS_PER_CALL + n)
            .map(|n| chunk(&job, n, u64::from(n), &text))
            .collect();
        let answers = append(&writer, holder, &chunks, at(2)).await;
        stored += answers.iter().filter(|answer| **answer == Stored).count() as u64;
        if answers.contains(&Refused) {
            break;
        }
        assert!(stored * chunk_bytes < 2 * ATTEMPT_BYTES_MAX, "there is no bound");
    }

    assert!(stored * chunk_bytes >= ATTEMPT_BYTES_MAX, "what the worker may send is stored: {stored} chunks");
    assert_eq!(u64::from(writer.store.chunk_count(job.id, Attempt(1)).await.unwrap()), stored);
    // What is there already still counts as stored, and another attempt has its own room.
    assert_eq!(append(&writer, holder, &[chunk(&job, 1, 1, &text)], at(2)).await, [Stored]);
    let job = declined(&mut writer, &job).await;
    let job = writer.grant(&job, holder).await;
    assert_eq!(append(&writer, holder, &[chunk(&job, 1, 1, &text)], at(2)).await, [Stored]);
}

async fn running(writer: &mut Writer) -> (Job, WorkerId) {
    let (job, worker) = (writer.submit_plain(shard(1)).await, worker());
    (writer.grant(&job, worker).await, worker)
}

async fn declined(writer: &mut Writer, job: &Job) -> Job {
    writer.change(job, said(job, WorkerWord::Decline { claim: None, why: "full".to_owned() }), at(2)).await
}

/// A chunk of the job's last attempt.
fn chunk(job: &Job, number: u32, first_line: u64, text: &str) -> Chunk {
    let (job, attempt): (JobId, Attempt) = (job.id, job.attempt);
    let segment = Segment { at: at(2), step: Some(0), stream: Stream::Stdout, text: text.to_owned() };
    Chunk { job, attempt, number, first_line, segments: vec![segment] }
}

async fn append(writer: &Writer, worker: WorkerId, chunks: &[Chunk], now: Time) -> Vec<LogAnswer> {
    writer.store.append_log(writer.id, worker, chunks, now).await.expect("answers")
}

fn texts(lines: &[Line]) -> Vec<(u64, String)> {
    lines.iter().map(|line| (line.n, line.text.clone())).collect()
}
