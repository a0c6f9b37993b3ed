//! Who may write, and what a new owner finds.

use std::sync::Arc;

use coordinator::store::{Batch, Error, Store, Write};
use serde_json::json;
use shared::clock;
use shared::id::{Attempt, CoordinatorId, Epoch, Instance, SHARDS, Seq, ShardSeq, WorkerId};
use shared::log::{Chunk, Segment, Stream};
use shared::wire::Hello;
use tokio::task::JoinSet;

use super::Database;
use super::writer::{Writer, all_shards, at, new_job, shard, worker};

pub async fn the_first_takeover_owns_every_shard_at_epoch_one(database: &dyn Database) {
    let store = database.open().await;

    let owned = store.take_over(CoordinatorId(clock::random_uuid())).await.unwrap();

    assert_eq!(owned.iter().map(|owned| owned.shard).collect::<Vec<_>>(), all_shards());
    assert!(owned.iter().all(|owned| owned.epoch == Epoch(1)));
    assert!(owned.iter().all(|owned| owned.last == ShardSeq(0) && owned.published == ShardSeq(0)));
}

pub async fn each_takeover_raises_every_epoch_by_one(database: &dyn Database) {
    let store = database.open().await;
    store.take_over(CoordinatorId(clock::random_uuid())).await.unwrap();
    let same = CoordinatorId(clock::random_uuid());
    store.take_over(same).await.unwrap();

    let owned = store.take_over(same).await.unwrap();

    assert_eq!(owned.len(), usize::from(SHARDS));
    assert!(owned.iter().all(|owned| owned.epoch == Epoch(3)));
}

pub async fn a_takeover_learns_how_far_each_shard_has_come(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let job = writer.submit_plain(shard(7)).await;
    writer.grant(&job, worker()).await;
    writer.submit_plain(shard(255)).await;
    writer.store.move_cursors(writer.id, &[(shard(7), ShardSeq(3))]).await.unwrap();

    let owned = database.open().await.take_over(CoordinatorId(clock::random_uuid())).await.unwrap();

    // Submitted and queued, assigned and started; submitted and queued.
    let counted = |number: u16| owned.iter().find(|o| o.shard == shard(number)).map(|o| (o.last.0, o.published.0));
    assert_eq!(counted(7), Some((4, 3)));
    assert_eq!(counted(255), Some((2, 0)));
    assert_eq!(counted(8), Some((0, 0)));
}

pub async fn who_never_took_over_writes_nothing(database: &dyn Database) {
    let store = database.open().await;

    let refused = store.commit(CoordinatorId(clock::random_uuid()), &Batch::default()).await;

    assert_eq!(refused, Err(Error::Fenced));
}

pub async fn a_fenced_coordinator_commits_nothing(database: &dyn Database) {
    let mut old = Writer::of(database).await;
    Writer::of(database).await;
    let new = new_job(shard(1), json!({}), at(0));
    let id = new.transition.job.id;

    let refused = old.commit(vec![Write::Submit(vec![new])]).await;

    assert_eq!(refused, Err(Error::Fenced));
    assert_eq!(old.store.job(id).await.unwrap(), None);
    assert_eq!(old.store.events(id, Seq(0), 10).await.unwrap(), []);
}

pub async fn a_fenced_coordinator_moves_no_cursor(database: &dyn Database) {
    let mut old = Writer::of(database).await;
    old.submit_plain(shard(1)).await;
    let new = Writer::of(database).await;

    let refused = old.store.move_cursors(old.id, &[(shard(1), ShardSeq(2))]).await;

    assert_eq!(refused, Err(Error::Fenced));
    assert_eq!(cursor(&*new.store, 1).await, ShardSeq(0));
}

pub async fn a_fenced_coordinator_stores_no_log(database: &dyn Database) {
    let mut old = Writer::of(database).await;
    let (job, worker) = (old.submit_plain(shard(1)).await, worker());
    old.grant(&job, worker).await;
    Writer::of(database).await;
    let segment = Segment { at: at(2), step: Some(0), stream: Stream::Stdout, text: "late\n".to_owned() };
    let chunk = Chunk { job: job.id, attempt: Attempt(1), number: 1, first_line: 1, segments: vec![segment] };

    let refused = old.store.append_log(old.id, worker, &[chunk], at(2)).await;

    assert_eq!(refused, Err(Error::Fenced));
    assert_eq!(old.store.lines(job.id, None, 0, 10).await.unwrap(), []);
}

pub async fn a_fenced_coordinator_welcomes_nobody(database: &dyn Database) {
    let old = Writer::of(database).await;
    Writer::of(database).await;
    let hello = Hello {
        worker: WorkerId(clock::random_uuid()),
        instance: Instance(clock::random_uuid()),
        tags: vec![],
        slots: 1,
    };

    assert_eq!(old.store.welcome(old.id, &hello, at(0)).await, Err(Error::Fenced));
}

pub async fn a_cursor_never_moves_back(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    writer.submit_plain(shard(1)).await;
    writer.store.move_cursors(writer.id, &[(shard(1), ShardSeq(2))]).await.unwrap();

    writer.store.move_cursors(writer.id, &[(shard(1), ShardSeq(1))]).await.unwrap();

    assert_eq!(cursor(&*writer.store, 1).await, ShardSeq(2));
}

pub async fn what_is_stored_is_there_after_a_restart(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let job = writer.submit_plain(shard(1)).await;
    let job = writer.grant(&job, worker()).await;
    writer.store.close().await;

    let mut next = Writer::of(database).await;

    assert_eq!(next.stored(&job).await, job);
    assert_eq!(next.numbers(shard(1)).await, [1, 2, 3, 4]);
    next.finish(&job, at(2)).await;
    assert_eq!(next.numbers(shard(1)).await, [1, 2, 3, 4, 5]);
}

/// Callers are aborted at some point of their commit; whatever became of it, the job and its events agree, and the
/// next owner goes on from there.
pub async fn a_commit_whose_caller_goes_away_is_whole(database: &dyn Database) {
    let store = database.open().await;
    let mut stored = 0;
    for round in 0..50 {
        let writer = Writer::over(Arc::clone(&store)).await;
        let new = new_job(shard(1), json!({}), at(round));
        let id = new.transition.job.id;
        let batch = Batch { last: writer.last.clone(), writes: vec![Write::Submit(vec![new])] };
        let mut caller = JoinSet::new();
        let (waiting, owner) = (Arc::clone(&store), writer.id);
        caller.spawn(async move { waiting.commit(owner, &batch).await });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        caller.abort_all();
        while caller.join_next().await.is_some() {}

        // The takeover waits for a commit that is under way.
        let next = Writer::over(Arc::clone(&store)).await;
        let events = store.events(id, Seq(0), 10).await.unwrap();
        stored += events.len();
        assert_eq!(events.len(), if store.job(id).await.unwrap().is_some() { 2 } else { 0 });
        assert_eq!(next.last[&shard(1)], ShardSeq(stored as u64));
    }
}

pub async fn a_closed_store_is_unavailable(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    writer.store.close().await;

    let refused = writer.commit(vec![Write::Submit(vec![new_job(shard(1), json!({}), at(0))])]).await;

    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(matches!(writer.store.ping().await, Err(Error::Unavailable(_))));
    writer.store.close().await;
}

/// How far a shard is published, as a takeover learns it.
async fn cursor(store: &dyn Store, number: u16) -> ShardSeq {
    let owned = store.take_over(CoordinatorId(clock::random_uuid())).await.unwrap();
    owned[usize::from(number)].published
}
