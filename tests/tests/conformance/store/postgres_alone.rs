//! What only a database that several coordinators share can get wrong: who waits for whom, who is fenced in the middle of a
//! statement, and what a lost answer means. Sessions past the store stand for other coordinators' statements.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coordinator::store::postgres::PostgresStore;
use coordinator::store::{Batch, Error, LEASE_TTL, Store, Submitted, Write, Written};
use serde_json::json;
use shared::id::{Attempt, Epoch, JobId, Shard, ShardSeq};
use shared::job::Job;
use shared::log::{Chunk, Segment, Stream};
use shared::secret::Secret;
use shared::wire::LogAnswer;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};
use tests::postgres::{Database, Durability, Postgres};
use tests::proxy::Proxy;
use tests::wait::eventually;
use tokio::task::JoinHandle;

use super::postgres::PostgresDatabase;
use super::writer::{Writer, all_shards, at, cancel, changed, keyed_job, member, new_job, shard, worker};

#[tokio::test(flavor = "multi_thread")]
async fn living_coordinators_share_the_shards_and_take_nothing_from_each_other() {
    let database = Postgres::shared().database();
    let (lower, upper) = all_shards().into_iter().partition::<Vec<_>, _>(|shard| shard.number() < 128);
    let mut one = Writer::beside(open(&database).await).await.taking(&lower).await;
    let other = Writer::beside(open(&database).await).await;

    let owned = other.store.take_over(other.id, &all_shards()).await.unwrap();

    assert_eq!(owned.iter().map(|owned| owned.shard).collect::<Vec<_>>(), upper);
    let cluster = other.store.renew(other.id).await.unwrap();
    assert_eq!(cluster.ttl, Some(LEASE_TTL));
    let mut both = [one.id, other.id];
    both.sort_unstable();
    assert_eq!(
        cluster.members.iter().map(|(member, ended)| (member.id, *ended)).collect::<Vec<_>>(),
        both.map(|id| (id, false))
    );
    let address = cluster.members.iter().find(|(member, _)| member.id == one.id).map(|(member, _)| &member.address);
    assert_eq!(address, Some(&format!("http://{}:7070", one.id)));

    // What is handed over comes with its numbers.
    one.submit_plain(shard(1)).await;
    one.store.hand_over(one.id, other.id, &[shard(1)]).await.unwrap();
    let owned = other.store.take_over(other.id, &[shard(1), shard(2)]).await.unwrap();
    assert_eq!(
        owned.iter().map(|owned| (owned.shard, owned.epoch, owned.last)).collect::<Vec<_>>(),
        [(shard(1), Epoch(2), ShardSeq(2))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_lease_that_has_ended_is_buried() {
    let database = Postgres::shared().database();
    let mut one = Writer::beside(open(&database).await).await.taking(&all_shards()).await;
    let other = Writer::beside(open(&database).await).await;
    let end = format!("UPDATE coordinators SET expires_at = clock_timestamp() WHERE id = '{}'", one.id);

    other.store.bury(other.id, &[one.id]).await.unwrap();
    one.submit_plain(shard(1)).await;
    database.execute(&end).unwrap();
    let ended = other.store.renew(other.id).await.unwrap().members;
    assert!(ended.iter().all(|(member, ended)| *ended == (member.id == one.id)), "{ended:?}");
    one.store.renew(one.id).await.unwrap();
    other.store.bury(other.id, &[one.id]).await.unwrap();
    one.submit_plain(shard(1)).await;
    database.execute(&end).unwrap();
    other.store.bury(other.id, &[one.id]).await.unwrap();

    assert_eq!(one.commit(vec![]).await, Err(Error::Fenced));
    assert_eq!(other.store.take_over(other.id, &all_shards()).await.unwrap().len(), 256);
}

/// Two see the same shard free; the second waits for the first and doesn't take it from it, though its own snapshot, from
/// before the first had joined, knows of no such coordinator.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_two_want_goes_to_one() {
    let database = Postgres::shared().database();
    let late = Writer::beside(open(&database).await).await;
    let first = member();
    let mut session = database.session().await;
    let taking = format!(
        "BEGIN; INSERT INTO coordinators VALUES ('{0}', '', 1, now() + interval '1 hour'); \
         UPDATE shards SET owner = '{0}', epoch = 1 WHERE shard = 7",
        first.id
    );
    session.execute(AssertSqlSafe(taking)).await.unwrap();
    let (store, id) = (Arc::clone(&late.store), late.id);
    let taken = tokio::spawn(async move { store.take_over(id, &[shard(7), shard(8)]).await });
    database.until_waiting(1);

    session.execute("COMMIT").await.unwrap();

    let taken = taken.await.unwrap().unwrap();
    assert_eq!(taken.iter().map(|owned| owned.shard).collect::<Vec<_>>(), [shard(8)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_a_statement_in_flight_and_knows_what_it_wrote() {
    let database = Postgres::shared().database();
    let old = Writer::beside(open(&database).await).await.taking(&all_shards()).await;
    let new = Writer::beside(open(&database).await).await;
    // As the old one's statement does it, which has everything but its commit behind it.
    let mut session = database.session().await;
    let stray = new_job(shard(5), json!({}), at(0)).transition.job;
    let writing =
        format!("BEGIN; SELECT id FROM coordinators WHERE id = '{}' FOR KEY SHARE; {}", old.id, event(&stray, 1));
    session.execute(AssertSqlSafe(writing)).await.unwrap();
    database.execute(&format!("UPDATE coordinators SET expires_at = now() WHERE id = '{}'", old.id)).unwrap();
    let (store, id, expired) = (Arc::clone(&new.store), new.id, old.id);
    let burial = tokio::spawn(async move { store.bury(id, &[expired]).await });
    database.until_waiting(1);
    assert!(new.store.take_over(new.id, &[shard(5)]).await.unwrap().is_empty(), "the old owner's row is there");

    session.execute("COMMIT").await.unwrap();

    burial.await.unwrap().unwrap();
    let owned = new.store.take_over(new.id, &[shard(5)]).await.unwrap();
    assert_eq!(owned.iter().map(|owned| (owned.epoch, owned.last)).collect::<Vec<_>>(), [(Epoch(2), ShardSeq(1))]);
}

/// The statement locks its lease, whoever else waits for whatever else; a renewal goes past both.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_flight_holds_its_lease_and_keeps_no_renewal_waiting() {
    let database = Postgres::shared().database();
    let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let job = writer.submit_plain(shard(1)).await;
    let (mut session, commit) = held_up(&database, &writer, &job).await;

    let lease = format!("SELECT id FROM coordinators WHERE id = '{}'", writer.id);
    eventually(DEADLINE, "the lease is locked against a burial", || {
        database.execute(&format!("{lease} FOR UPDATE NOWAIT")).is_err().then_some(())
    });
    database.execute(&format!("{lease} FOR NO KEY UPDATE NOWAIT")).expect("what a renewal locks is free");
    writer.store.renew(writer.id).await.unwrap();

    session.execute("COMMIT").await.unwrap();
    assert!(matches!(commit.await.unwrap().unwrap()[..], [Written::Changed { first: ShardSeq(3), .. }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_needs_no_connection_that_others_could_take() {
    let database = Postgres::shared().database();
    let store = PostgresStore::connect(&Secret::new(database.url())).await.unwrap();
    let retries = store.retries();
    let mut writer = Writer::over(&PostgresDatabase::from(&database), Arc::new(store)).await;
    let job = writer.submit_plain(shard(1)).await;
    let mut session = database.session().await;
    session.execute("BEGIN; LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reads = (0..50).map(|_| {
        let (store, id) = (Arc::clone(&writer.store), job.id);
        tokio::spawn(async move { store.job(id).await })
    });
    let reads: Vec<_> = reads.collect();
    database.until_waiting(8);

    writer.store.renew(writer.id).await.unwrap();

    assert_eq!(retries.load(Ordering::Relaxed), 0, "none of them has given its connection up");
    session.execute("ROLLBACK").await.unwrap();
    for read in reads {
        let read = read.await.unwrap();
        assert!(matches!(&read, Ok(Some(_)) | Err(Error::Unavailable(_))), "{read:?}");
    }
}

/// Its snapshot is older than the deletion, of which it learns where it locks the lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_lease_is_deleted_while_it_waits_writes_nothing() {
    let database = Postgres::shared().database();
    let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let job = writer.submit_plain(shard(1)).await;
    let mut session = database.session().await;
    session
        .execute(AssertSqlSafe(format!("BEGIN; DELETE FROM coordinators WHERE id = '{}'", writer.id)))
        .await
        .unwrap();
    let new = new_job(shard(1), json!({}), at(0));
    let commit = committing(&writer, vec![changed(&job, cancel(), at(1)), Write::Submit(vec![new.clone()])]);
    database.until_waiting(1);

    session.execute("COMMIT").await.unwrap();

    assert_eq!(commit.await.unwrap(), Err(Error::Fenced));
    assert_eq!(writer.stored(&job).await, job);
    assert_eq!(writer.store.job(new.transition.job.id).await.unwrap(), None);
    assert_eq!(writer.numbers(shard(1)).await, [1, 2]);
}

/// A third party holds the key in the middle until both have come to it, each with all the keys that it noted before.
#[tokio::test(flavor = "multi_thread")]
async fn batches_with_the_same_keys_in_opposite_order_do_not_wait_for_each_other() {
    let postgres = Postgres::start(Durability::NoFsync);
    let database = postgres.database();
    // Found out before a lock is given up.
    database.execute(&format!("ALTER DATABASE {} SET deadlock_timeout = '50ms'", database.name())).unwrap();
    let writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let other = open(&database).await;
    let mut session = database.session().await;
    let middle = "BEGIN; INSERT INTO idempotency_keys VALUES ('me', 'm', sha256(''), gen_random_uuid(), now())";
    session.execute(middle).await.unwrap();
    let submissions = |number: u16, keys: [&str; 3]| {
        let new = keys.map(|key| Write::Submit(vec![keyed_job(shard(number), key, 1, at(0))]));
        Arc::new(Batch { last: [(shard(number), ShardSeq(0))].into(), writes: new.to_vec() })
    };
    let commit = |store: Arc<dyn Store>, id, batch| tokio::spawn(async move { store.commit(id, batch).await });
    let first = commit(Arc::clone(&writer.store), writer.id, submissions(1, ["a", "m", "z"]));
    let second = commit(other, writer.id, submissions(2, ["z", "m", "a"]));
    database.until_waiting(2);

    session.execute("ROLLBACK").await.unwrap();

    let (first, mut second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    second.reverse();
    for (one, other) in first.iter().zip(&second) {
        let is_new =
            |written: &Written| matches!(written, Written::Submitted(s) if matches!(s[..], [Submitted::New(_)]));
        assert!(is_new(one) != is_new(other), "{one:?} and {other:?}");
    }
    assert!(!postgres.log().contains("deadlock detected"), "{}", postgres.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_a_shard_that_another_owns_is_refused() {
    let database = Postgres::shared().database();
    let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let (job, holder) = (writer.submit_plain(shard(1)).await, worker());
    writer.grant(&job, holder).await;
    let segment = Segment { at: at(2), step: Some(0), stream: Stream::Stdout, text: "a\n".to_owned() };
    let chunk = Chunk { job: job.id, attempt: Attempt(1), number: 1, first_line: 1, segments: vec![segment] };
    let other = Writer::beside(open(&database).await).await;
    let append =
        async |by: &Writer| by.store.append_log(by.id, holder, std::slice::from_ref(&chunk), at(2)).await.unwrap();

    assert_eq!(append(&other).await, [LogAnswer::Refused]);
    writer.store.hand_over(writer.id, other.id, &[shard(1)]).await.unwrap();
    assert_eq!(append(&writer).await, [LogAnswer::Refused]);
    assert_eq!(append(&other).await, [LogAnswer::Stored]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_ended_under_a_commit_leaves_its_end_unknown() {
    let database = Postgres::shared().database();
    let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let job = writer.submit_plain(shard(1)).await;
    let (_session, commit) = held_up(&database, &writer, &job).await;

    database
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'windlass' AND wait_event_type = 'Lock'",
        )
        .unwrap();

    let lost = commit.await.unwrap();
    assert!(matches!(lost, Err(Error::Unknown(_))), "{lost:?}");
    writer.submit_plain(shard(1)).await;
}

/// The server finishes a statement after its client is gone. Who succeeds itself waits for that and knows what it wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_known_to_the_successor() {
    let database = Postgres::shared().database();
    let proxy = Proxy::to(&database.server().address());
    let store = PostgresStore::connect(&Secret::new(database.url_by(&proxy.address()))).await.unwrap();
    let mut writer = Writer::over(&PostgresDatabase::from(&database), Arc::new(store)).await;
    let job = writer.submit_plain(shard(1)).await;
    let (mut session, commit) = held_up(&database, &writer, &job).await;

    proxy.cut();
    proxy.mend();

    let lost = commit.await.unwrap();
    assert!(matches!(lost, Err(Error::Unknown(_))), "{lost:?}");
    let new = member();
    let (store, predecessor, successor) = (Arc::clone(&writer.store), writer.id, new.clone());
    // The first connection that it gets may be one that was cut.
    let succession = tokio::spawn(async move { while store.succeed(predecessor, &successor).await.is_err() {} });
    eventually(DEADLINE, "it waits, or needn't any more", || {
        (succession.is_finished() || database.waiting() >= 2).then_some(())
    });
    session.execute("COMMIT").await.unwrap();
    succession.await.unwrap();
    // None of these connections was cut.
    writer.store = open(&database).await;
    let owned = writer.store.take_over(new.id, &[shard(1)]).await.unwrap();
    // It was waited for, and so it is there, unless its own time was over first.
    let stored = writer.stored(&job).await.version;
    let events = if stored > job.version { 4 } else { 2 };
    assert_eq!(owned.iter().map(|owned| (owned.epoch, owned.last.0)).collect::<Vec<_>>(), [(Epoch(2), events)]);
    assert_eq!(writer.commit(vec![]).await, Err(Error::Fenced));
}

/// A lock that doesn't come in time is no lost answer: nothing was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_too_long_is_given_up_whole() {
    let database = Postgres::shared().database();
    let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let job = writer.submit_plain(shard(1)).await;
    let (mut session, commit) = held_up(&database, &writer, &job).await;

    let given_up = commit.await.unwrap();
    session.execute("ROLLBACK").await.unwrap();

    assert!(matches!(&given_up, Err(Error::Unavailable(why)) if why.contains("55P03")), "{given_up:?}");
    assert_eq!(writer.stored(&job).await, job);
    writer.change(&job, cancel(), at(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_is_unavailable_until_it_is_back() {
    let postgres = Postgres::start(Durability::NoFsync);
    let database = postgres.database();
    let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let job = writer.submit_plain(shard(1)).await;
    postgres.stop();

    // A connection that was used a moment ago isn't tried before it is used: its end is found out by a statement.
    let mut answers = Vec::new();
    while !matches!(answers.last(), Some(Err(Error::Unavailable(_)))) {
        answers.push(writer.commit(vec![changed(&job, cancel(), at(1))]).await);
        assert!(answers.len() < 4 && matches!(answers.last(), Some(Err(Error::Unknown(_) | Error::Unavailable(_)))));
    }
    assert!(matches!(writer.store.job(job.id).await, Err(Error::Unavailable(_))));
    assert!(matches!(writer.store.ping().await, Err(Error::Unavailable(_))));
    assert!(matches!(writer.store.renew(writer.id).await, Err(Error::Unavailable(_))));
    postgres.start_again();

    writer.change(&job, cancel(), at(2)).await;
    writer.store.renew(writer.id).await.unwrap();
    writer.store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_the_database_refuses_is_refused_alone() {
    let database = Postgres::shared().database();
    let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let job = writer.submit_plain(shard(1)).await;
    database.execute("ALTER TABLE jobs ADD CONSTRAINT never_low CHECK (priority <> 'low')").unwrap();
    let low = new_job(shard(1), json!({"priority": "low"}), at(0));
    let refused = low.transition.job.id;
    let good = new_job(shard(1), json!({}), at(0));

    let written = writer
        .commit(vec![changed(&job, cancel(), at(1)), Write::Submit(vec![low]), Write::Submit(vec![good.clone()])])
        .await
        .unwrap();

    assert!(matches!(&written[1], Written::Refused(why) if why.contains("never_low")), "{written:?}");
    assert_eq!(written[0], Written::Changed { first: ShardSeq(3), fence: None });
    assert_eq!(written[2], Written::Submitted(vec![Submitted::New(ShardSeq(5))]));
    assert_eq!(writer.store.job(refused).await.unwrap(), None);
    assert_eq!(writer.stored(&good.transition.job).await, good.transition.job);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_set_that_another_has_removed_is_added_again() {
    let database = Postgres::shared().database();
    let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let tagged = || new_job(shard(1), json!({"tags": ["rare"]}), at(0));
    writer.submit(tagged()).await;
    database.execute(r#"DELETE FROM tag_sets WHERE tags = '["rare"]'"#).unwrap();

    writer.submit(tagged()).await;

    assert_eq!(database.number(r#"SELECT count(*) FROM tag_sets WHERE tags = '["rare"]'"#), 1);
}

/// Somebody else's statement has locked a tag set that no stored job needs, and is about to store one.
#[tokio::test(flavor = "multi_thread")]
async fn room_is_not_made_of_a_tag_set_that_a_statement_in_flight_needs() {
    let database = Postgres::shared().database();
    let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
    database
        .execute(
            "INSERT INTO tag_sets (hash, tags) SELECT sha256(('[\"t' || n || '\"]')::bytea), '[\"t' || n || '\"]' \
             FROM generate_series(1, 999) n",
        )
        .unwrap();
    let mut session = database.session().await;
    session.execute(r#"BEGIN; SELECT hash FROM tag_sets WHERE tags = '["t5"]' FOR KEY SHARE"#).await.unwrap();
    let new = new_job(shard(1), json!({"tags": ["one-too-many"]}), at(0));
    let commit = committing(&writer, vec![Write::Submit(vec![new])]);
    database.until_waiting(1);

    let storing = "INSERT INTO jobs (id, shard, version, seq, attempt, tries, state, detail, tags, priority, labels, \
         has_secrets, fence, wake_at, created_at, spec) VALUES (gen_random_uuid(), 1, 1, 2, 0, 0, 'queued', '{}', \
         '[\"t5\"]', 'normal', '{}', false, 0, now(), now(), '{}'); COMMIT";
    session.execute(storing).await.unwrap();

    assert!(matches!(commit.await.unwrap().unwrap()[..], [Written::Submitted(_)]));
    assert_eq!(database.number("SELECT count(*) FROM tag_sets"), 3, "none, that one and the new one");
    assert_eq!(database.number(r#"SELECT count(*) FROM tag_sets WHERE tags = '["t5"]'"#), 1);
    writer.last.insert(shard(1), ShardSeq(2));
    writer.submit_plain(shard(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_events_cannot_be_emptied() {
    let database = Postgres::shared().database();
    let emptied = database.execute("TRUNCATE job_events");
    assert!(emptied.is_err_and(|why| why.contains("never deleted")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_will_not_do_is_told_by_name() {
    let empty = Postgres::shared().empty_database();
    let secret = |url: &str| Secret::new(url.to_owned());

    let unmigrated = PostgresStore::connect(&secret(&empty.url())).await.err();
    let nonsense = PostgresStore::connect(&secret("nonsense://me:hush@nowhere")).await.err();
    let nobody = PostgresStore::connect(&secret("postgres://me:hush@127.0.0.1:1/none")).await.err();

    assert!(matches!(&unmigrated, Some(Error::Corrupt(why)) if why.contains("migrated first")), "{unmigrated:?}");
    assert!(matches!(&nonsense, Some(Error::Corrupt(why)) if !why.contains("hush")), "{nonsense:?}");
    assert!(matches!(&nobody, Some(Error::Unavailable(why)) if !why.contains("hush")), "{nobody:?}");
    let url = secret(&empty.url());
    let (one, other) = tokio::join!(PostgresStore::migrate(&url), PostgresStore::migrate(&url));
    assert_eq!((one, other), (Ok(()), Ok(())), "several replicas start at once");
    PostgresStore::connect(&url).await.unwrap().ping().await.unwrap();
}

async fn open(database: &Database<'_>) -> Arc<dyn Store> {
    Arc::new(PostgresStore::connect(&Secret::new(database.url())).await.expect("a database"))
}

/// How long something that takes a second or two may take at most.
const DEADLINE: Duration = Duration::from_mins(1);

/// A commit on its way.
type Commit = JoinHandle<Result<Vec<Written>, Error>>;

fn committing(owner: &Writer, writes: Vec<Write>) -> Commit {
    let (store, id) = (Arc::clone(&owner.store), owner.id);
    let batch = Arc::new(Batch { last: owner.last.clone(), writes });
    tokio::spawn(async move { store.commit(id, batch).await })
}

/// A commit that changes `job` and waits for its row, which the session returned keeps for itself until it ends its
/// transaction.
async fn held_up(database: &Database<'_>, writer: &Writer, job: &Job) -> (PgConnection, Commit) {
    let mut session = database.session().await;
    let keeping = format!("BEGIN; SELECT id FROM jobs WHERE id = '{}' FOR UPDATE", job.id);
    session.execute(AssertSqlSafe(keeping)).await.expect("the row");
    let commit = committing(writer, vec![changed(job, cancel(), at(1))]);
    database.until_waiting(1);
    (session, commit)
}

/// A statement that writes an event of `job` with that number in its shard.
fn event(job: &Job, number: u64) -> String {
    let (id, shard): (JobId, Shard) = (job.id, job.id.shard());
    format!(
        "INSERT INTO job_events VALUES ('{id}', 1, {shard}, {number}, now(), 0, 'coordinator', 'submitted', \
         '{{\"kind\":\"submitted\"}}')"
    )
}
