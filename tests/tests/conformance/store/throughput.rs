//! How fast one coordinator's commits are on Postgres, with everything on the disk. It measures, so it runs only when asked:
//! `cargo test --workspace --test conformance -- --ignored --nocapture throughput`.

use std::time::Duration;

use coordinator::store::Write;
use serde_json::json;
use shared::clock;
use shared::job::{AttemptEnd, Job, WorkerWord};
use shared::log::LogSummary;
use tests::postgres::{Durability, Postgres};

use super::postgres::PostgresDatabase;
use super::writer::{Writer, at, changed, claim, new_job, said, shard, worker};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures: a figure of one machine, no check; its command stands above"]
async fn lives_per_second_in_batches() {
    let postgres = Postgres::start(Durability::Fsync);
    for batch in [1, 256, 512] {
        let database = postgres.database();
        let mut writer = Writer::of(&PostgresDatabase::from(&database)).await;
        let rounds: u32 = if batch == 1 { 200 } else { 40 };
        let mut spent = [Duration::ZERO; 3];
        for round in 0..i64::from(rounds) {
            let new: Vec<_> =
                (0..batch).map(|n| new_job(shard(n % 256), json!({"labels": {"team": "core"}}), at(round))).collect();
            let jobs: Vec<Job> = new.iter().map(|new| new.transition.job.clone()).collect();
            let submissions = new.into_iter().map(|new| Write::Submit(vec![new])).collect();
            spent[0] += timed(&mut writer, submissions).await;
            let granted: Vec<_> =
                jobs.iter().map(|job| job.apply(claim(job, worker()), at(round)).unwrap().job).collect();
            let claims = jobs
                .iter()
                .zip(&granted)
                .map(|(job, granted)| changed(job, claim(job, granted.worker.unwrap()), at(round)));
            spent[1] += timed(&mut writer, claims.collect()).await;
            let end = |job: &Job| said(job, WorkerWord::End { end: AttemptEnd::Succeeded, log: LogSummary::default() });
            let ends = granted.iter().map(|job| changed(job, end(job), at(round + 1))).collect();
            spent[2] += timed(&mut writer, ends).await;
        }
        let lives = f64::from(batch) * f64::from(rounds);
        let [submitted, claimed, ended] = spent.map(|spent| spent.as_secs_f64() * 1000.0 / f64::from(rounds));
        println!(
            "batches of {batch}: {:.0} lives/s, {:.0} transitions/s; a batch takes {submitted:.1} ms to submit, \
             {claimed:.1} ms to claim, {ended:.1} ms to end; HOT {}%",
            lives / spent.iter().sum::<Duration>().as_secs_f64(),
            3.0 * lives / spent.iter().sum::<Duration>().as_secs_f64(),
            database.number(
                "SELECT 100 * n_tup_hot_upd / greatest(n_tup_upd, 1) FROM pg_stat_user_tables WHERE relname = 'jobs'"
            ),
        );
    }
}

async fn timed(owner: &mut Writer, writes: Vec<Write>) -> Duration {
    let begun = clock::instant();
    owner.commit(writes).await.expect("a commit");
    begun.elapsed()
}
