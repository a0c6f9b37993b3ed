//! Puts so many jobs that do nothing into apalis's Postgres storage, then has one worker do them all. It is what the benchmark
//! `peers` of Windlass runs; the worker is set up as the example of `apalis-postgres` shows, with larger batches.
//!
//! `DATABASE_URL=postgres://… apalis-peer JOBS` prints a line when the jobs are in, and one when they are done.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apalis::prelude::*;
use apalis_postgres::{Config, PgPool, PostgresStorage, queries};

const QUEUE: &str = "no-op";
/// How many jobs are fetched, and at most completed, in one transaction.
const BATCH: usize = 500;

#[tokio::main]
async fn main() {
    let url = env::var("DATABASE_URL").expect("DATABASE_URL");
    let jobs: usize = env::args().nth(1).and_then(|count| count.parse().ok()).expect("how many jobs");
    let pool = PgPool::connect(&url).await.expect("a database");
    PostgresStorage::setup(&pool).await.expect("apalis's tables");
    push(&pool, jobs).await;

    let config = Config::default().queue(QUEUE).batch_size(BATCH).lock_tasks(false);
    let backend = PostgresStorage::<usize>::new(&pool).with_config(config);
    println!("put in");
    let worker = WorkerBuilder::new("peer")
        .backend(backend)
        .data(Arc::new(AtomicUsize::new(jobs)))
        .parallelize(tokio::spawn)
        .build(nothing);
    worker.run().await.expect("the worker's end");
    println!("done");
}

async fn push(pool: &PgPool, jobs: usize) {
    let all: Vec<usize> = (0..jobs).collect();
    for some in all.chunks(1000) {
        let tasks = some.iter().map(|job| TaskBuilder::new(job.to_string().into_bytes()).build()).collect();
        let mut transaction = pool.begin().await.expect("a transaction");
        queries::push_tasks(&mut *transaction, QUEUE, tasks).await.expect("jobs are pushed");
        transaction.commit().await.expect("a commit");
    }
}

/// The job. The last one ends the worker.
async fn nothing(_: usize, left: Data<Arc<AtomicUsize>>, worker: WorkerContext) -> Result<(), BoxDynError> {
    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
        worker.stop()?;
    }
    Ok(())
}
