//! What is stored in the end: jobs, events, and how far each shard is published.

use std::thread;
use std::time::Duration;

use serde_json::Value;
use shared::job::State;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row as _};
use tokio::time::timeout;

use crate::chaos::history::{Event, Id, Key, Row};

/// How long the server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What a query returns, each value as text and NULL as nothing.
///
/// # Panics
/// When the server isn't there, doesn't answer in time, or refuses the query.
pub fn query(url: &str, query: &str) -> Vec<Vec<String>> {
    let (url, query) = (url.to_owned(), query.to_owned());
    let asking = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let asked = async move {
            let mut session = PgConnection::connect(&url).await.expect("a session");
            let rows = sqlx::raw_sql(AssertSqlSafe(query.clone())).fetch_all(&mut session).await;
            let rows = rows.unwrap_or_else(|error| panic!("{query}: {error}"));
            session.close().await.expect("the session's end");
            rows.iter().map(texts).collect()
        };
        runtime.block_on(async { timeout(ANSWER_WITHIN, asked).await.expect("an answer of Postgres in time") })
    });
    asking.join().expect("an answer")
}

fn texts(row: &PgRow) -> Vec<String> {
    let text = |at| row.try_get_raw(at).ok().and_then(|value| value.as_str().ok().map(str::to_owned));
    (0..row.len()).map(|at| text(at).unwrap_or_default()).collect()
}

/// The table of jobs.
pub fn rows(url: &str) -> Vec<Row> {
    let rows = query(
        url,
        "SELECT id::text, labels::json ->> 'key', shard::text, seq::text, attempt::text, tries::text, state, detail, \
         retry_of::text, (wake_at IS NOT NULL)::text FROM jobs ORDER BY id",
    );
    rows.into_iter().map(row).collect()
}

fn row(texts: Vec<String>) -> Row {
    let [id, key, shard, seq, attempt, tries, state, detail, retry_of, wakes] = fields(texts);
    Row {
        id: Id(id),
        key: Key(key),
        shard: number(&shard),
        seq: number(&seq),
        attempt: number(&attempt),
        tries: number(&tries),
        state,
        outcome: outcome(&detail),
        retry_of: Some(retry_of).filter(|id| !id.is_empty()).map(Id),
        wakes: wakes == "true",
    }
}

/// The outcome within what a row says of its state, in the form that the API gives it.
fn outcome(detail: &str) -> Option<Value> {
    let state: State = serde_json::from_str(detail).unwrap_or_else(|error| panic!("no state: {detail}: {error}"));
    state.outcome().map(|outcome| serde_json::to_value(outcome).expect("an outcome is JSON"))
}

/// The table of events, by job and number.
pub fn events(url: &str) -> Vec<Event> {
    let rows = query(
        url,
        "SELECT job_id::text, seq::text, shard::text, shard_seq::text, kind, attempt::text, data FROM job_events e \
         ORDER BY e.job_id, e.seq",
    );
    rows.into_iter().map(event).collect()
}

fn event(texts: Vec<String>) -> Event {
    let [job, seq, shard, shard_seq, kind, attempt, data] = fields(texts);
    let data: Value = serde_json::from_str(&data).unwrap_or_else(|error| panic!("no event: {data}: {error}"));
    Event {
        job: Id(job),
        seq: number(&seq),
        shard: number(&shard),
        shard_seq: number(&shard_seq),
        worker: data["worker"].as_str().map(|worker| Id(worker.to_owned())),
        kind,
        attempt: number(&attempt),
        data,
    }
}

/// Each shard's cursor and its last event's number, where they differ.
pub fn unpublished(url: &str) -> Vec<(u32, u64, u64)> {
    triples(
        url,
        "SELECT s.shard::text, s.published_seq::text, coalesce(max(e.shard_seq), 0)::text FROM shards s \
         LEFT JOIN job_events e ON e.shard = s.shard GROUP BY s.shard, s.published_seq \
         HAVING coalesce(max(e.shard_seq), 0) <> s.published_seq ORDER BY s.shard",
    )
}

/// The number of events of each shard, and the highest number, where they differ.
pub fn gaps(url: &str) -> Vec<(u32, u64, u64)> {
    triples(
        url,
        "SELECT shard::text, count(*)::text, max(shard_seq)::text FROM job_events GROUP BY shard \
         HAVING count(*) <> max(shard_seq) OR min(shard_seq) <> 1 ORDER BY shard",
    )
}

/// The jobs that haven't ended.
pub fn unfinished(url: &str) -> Vec<Id> {
    let rows = query(url, "SELECT id::text FROM jobs WHERE finished_at IS NULL ORDER BY id");
    rows.into_iter().flatten().map(Id).collect()
}

/// Rows of coordinators that aren't at one of these addresses, or whose lease isn't renewed, and shards that nobody of them
/// owns.
pub fn strays(url: &str, addresses: &[String]) -> Vec<String> {
    let rows =
        query(url, "SELECT id::text, address, (expires_at > clock_timestamp())::text FROM coordinators ORDER BY id");
    let gone = rows.iter().filter(|row| !addresses.contains(&row[1]) || row[2] != "true");
    let mut strays: Vec<String> = gone.map(|row| format!("coordinator {} at {}", row[0], row[1])).collect();
    let doubled = addresses.iter().filter(|address| rows.iter().filter(|row| row[1] == **address).count() > 1);
    strays.extend(doubled.map(|address| format!("several coordinators at {address}")));
    let ownerless =
        "SELECT count(*)::text FROM shards WHERE owner IS NULL OR owner NOT IN (SELECT id FROM coordinators)";
    let count = &query(url, ownerless)[0][0];
    if count != "0" {
        strays.push(format!("{count} shards without an owner"));
    }
    strays
}

fn triples(url: &str, text: &str) -> Vec<(u32, u64, u64)> {
    let triple = |row: Vec<String>| {
        let [shard, first, second] = fields(row);
        (number(&shard), number(&first), number(&second))
    };
    query(url, text).into_iter().map(triple).collect()
}

fn fields<const N: usize>(texts: Vec<String>) -> [String; N] {
    texts.try_into().unwrap_or_else(|texts| panic!("not {N} columns: {texts:?}"))
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().unwrap_or_else(|| panic!("no number: {text:?}"))
}
