//! A removal in Postgres beside what others commit at the same time.

use coordinator::store::RemovedJobs;
use shared::id::Seq;
use sqlx::{AssertSqlSafe, Executor};
use tests::postgres::Postgres;

use super::postgres::PostgresDatabase;
use super::writer::{Writer, at, cancel, shard};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_about_which_something_is_being_committed_stays_with_what_is_new_of_it() {
    let database = Postgres::shared().database();
    let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let job = writer.submit_plain(shard(1)).await;
    let job = writer.change(&job, cancel(), at(2)).await;
    let other = writer.submit_plain(shard(1)).await;
    let other = writer.change(&other, cancel(), at(2)).await;
    let last = writer.last[&shard(1)];
    writer.store.move_cursors(writer.id, &[(shard(1), last)]).await.unwrap();
    let remove = async || writer.store.remove_jobs(writer.id, &[job.id, other.id], at(1000), 10).await.unwrap();

    let mut session = database.session().await;
    let late = format!(
        "BEGIN; UPDATE jobs SET version = version + 1, seq = seq + 1 WHERE id = '{id}'; INSERT INTO job_events \
         SELECT job_id, seq + 1, shard, {number}, at, attempt, actor, kind, data FROM job_events WHERE job_id = '{id}' AND seq = {seq}",
        id = job.id,
        number = last.0 + 1,
        seq = job.seq.0,
    );
    session.execute(sqlx::raw_sql(AssertSqlSafe(late))).await.unwrap();
    assert_eq!(remove().await, RemovedJobs { jobs: 1, chunks: 0, more: false }, "the other goes, and waits for nobody");
    session.execute("COMMIT").await.unwrap();

    assert_eq!(remove().await, RemovedJobs::default(), "its last event isn't published");
    assert_eq!(writer.store.events(job.id, Seq(0), 10).await.unwrap().len() as u64, job.seq.0 + 1);
    writer.store.move_cursors(writer.id, &[(shard(1), last.next())]).await.unwrap();
    assert_eq!(remove().await.jobs, 1);
}
