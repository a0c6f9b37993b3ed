//! Who may write, how shards change hands, and what a new owner finds.

use std::sync::Arc;

use coordinator::store::{Batch, Cluster, Error, Member, Store, TokenKind, Write};
use serde_json::json;
use shared::clock;
use shared::id::{Attempt, CoordinatorId, Epoch, SHARDS, Seq, Shard, ShardSeq};
use shared::log::{Chunk, Segment, Stream};
use shared::role::Role;
use shared::wire::WorkerMode;
use tokio::task::JoinSet;

use super::Database;
use super::writer::{Writer, all_shards, at, audit_line, hello, member, new_job, new_worker, shard, token, worker};

pub async fn the_first_takeover_owns_every_shard_at_epoch_one(database: &dyn Database) {
    let writer = Writer::beside(database.open().await).await;

    let owned = writer.store.take_over(writer.id, &all_shards()).await.unwrap();

    assert_eq!(owned.iter().map(|owned| owned.shard).collect::<Vec<_>>(), all_shards());
    assert!(owned.iter().all(|owned| owned.epoch == Epoch(1)));
    assert!(owned.iter().all(|owned| owned.last == ShardSeq(0) && owned.published == ShardSeq(0)));
}

pub async fn a_takeover_takes_what_is_asked_for_alone(database: &dyn Database) {
    let writer = Writer::beside(database.open().await).await;

    let owned = writer.store.take_over(writer.id, &[shard(9), shard(3)]).await.unwrap();

    assert_eq!(owned.iter().map(|owned| owned.shard).collect::<Vec<_>>(), [shard(3), shard(9)]);
    let cluster = writer.store.renew(writer.id).await.unwrap();
    let theirs = cluster.shards.iter().filter(|(_, owner, _)| *owner == Some(writer.id));
    assert_eq!(
        theirs.map(|(shard, _, epoch)| (*shard, *epoch)).collect::<Vec<_>>(),
        [(shard(3), Epoch(1)), (shard(9), Epoch(1))]
    );
}

pub async fn each_new_owner_raises_every_epoch_by_one(database: &dyn Database) {
    Writer::of(database).await;
    Writer::of(database).await;
    let same = Writer::of(database).await;

    let owned = same.store.take_over(same.id, &all_shards()).await.unwrap();

    assert_eq!(owned.len(), usize::from(SHARDS));
    assert!(owned.iter().all(|owned| owned.epoch == Epoch(3)), "asking again changes nothing");
}

pub async fn a_takeover_learns_how_far_each_shard_has_come(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let job = writer.submit_plain(shard(7)).await;
    writer.grant(&job, worker()).await;
    writer.submit_plain(shard(255)).await;
    writer.store.move_cursors(writer.id, &[(shard(7), ShardSeq(3))]).await.unwrap();

    let next = Writer::of(database).await;
    let owned = next.store.take_over(next.id, &all_shards()).await.unwrap();

    // Submitted and queued, assigned and started; submitted and queued.
    let counted = |number: u16| owned.iter().find(|o| o.shard == shard(number)).map(|o| (o.last.0, o.published.0));
    assert_eq!(counted(7), Some((4, 3)));
    assert_eq!(counted(255), Some((2, 0)));
    assert_eq!(counted(8), Some((0, 0)));
}

pub async fn who_never_joined_writes_nothing(database: &dyn Database) {
    let store = database.open().await;
    let stranger = member();

    assert_writes_nothing(&*store, stranger.id).await;
}

pub async fn a_fenced_coordinator_writes_nothing_anywhere(database: &dyn Database) {
    let mut old = Writer::of(database).await;
    let (job, holder) = (old.submit_plain(shard(1)).await, worker());
    old.grant(&job, holder).await;
    let known = old.enrolled().await;
    let new = Writer::of(database).await;
    let before = new.store.renew(new.id).await.unwrap();
    let segment = Segment { at: at(2), step: Some(0), stream: Stream::Stdout, text: "late\n".to_owned() };
    let chunk = Chunk { job: job.id, attempt: Attempt(1), number: 1, first_line: 1, segments: vec![segment] };

    assert_writes_nothing(&*old.store, old.id).await;
    assert_eq!(old.store.append_log(old.id, holder, &[chunk], at(2)).await, Err(Error::Fenced));
    assert_eq!(old.store.welcome(old.id, &hello(known, &[]), at(0)).await, Err(Error::Fenced));
    assert_eq!(
        old.store.set_mode(old.id, known, WorkerMode::Paused, &audit_line("worker", "")).await,
        Err(Error::Fenced)
    );

    assert_eq!(new.store.lines(job.id, None, 0, 10).await.unwrap(), []);
    let workers = new.store.workers().await.unwrap();
    assert_eq!(workers.len(), 1);
    assert_eq!((&workers[0].seen, workers[0].mode), (&None, WorkerMode::Active));
    let after = new.store.renew(new.id).await.unwrap();
    assert_eq!((after.members, after.shards), (before.members, before.shards));
}

/// Tries every verb that needs no more than a lease.
async fn assert_writes_nothing(store: &dyn Store, id: CoordinatorId) {
    let new = new_job(shard(1), json!({"tags": ["rare"]}), at(0));
    let job = new.transition.job.id;
    let submission = Batch { last: [(shard(1), ShardSeq(9))].into(), writes: vec![Write::Submit(vec![new])] };
    let (join, admin) = (token(TokenKind::Join), token(TokenKind::Role(Role::Admin)));

    assert_eq!(store.commit(id, Arc::new(Batch::default())).await, Err(Error::Fenced));
    assert_eq!(store.commit(id, Arc::new(submission)).await, Err(Error::Fenced));
    assert_eq!(store.move_cursors(id, &[(shard(1), ShardSeq(2))]).await, Err(Error::Fenced));
    assert_eq!(store.append_log(id, worker(), &[], at(0)).await, Err(Error::Fenced));
    assert_eq!(store.welcome(id, &hello(worker(), &[]), at(0)).await, Err(Error::Fenced));
    assert_eq!(store.set_mode(id, worker(), WorkerMode::Paused, &audit_line("worker", "")).await, Err(Error::Fenced));
    assert_eq!(store.enrol(id, join.digest, &new_worker(), at(0)).await, Err(Error::Fenced));
    assert_eq!(store.add_token(id, &admin, &audit_line("token", "")).await, Err(Error::Fenced));
    let line = audit_line("x", "");
    assert_eq!(store.revoke_token(id, admin.id, at(0), &line).await, Err(Error::Fenced));
    assert_eq!(store.revoke_worker(id, worker(), at(0), &line).await, Err(Error::Fenced));
    assert_eq!(store.note(id, &[line]).await, Err(Error::Fenced));
    assert_eq!(store.renew(id).await, Err(Error::Fenced));
    assert_eq!(store.take_over(id, &all_shards()).await, Err(Error::Fenced));
    assert_eq!(store.hand_over(id, id, &all_shards()).await, Err(Error::Fenced));

    assert_eq!(store.job(job).await.unwrap(), None);
    assert_eq!(store.events(job, Seq(0), 10).await.unwrap(), []);
    assert!(!store.tokens(at(0)).await.unwrap().contains(&admin));
    assert_eq!(store.audited(Some("x"), 10).await.unwrap(), []);
}

pub async fn a_renewal_tells_how_the_cluster_is(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let earlier = clock::now();

    let Cluster { now, members, shards, .. } = writer.store.renew(writer.id).await.unwrap();

    assert!(now.since(earlier).as_secs() < 60 && earlier.since(now).as_secs() < 60, "{now} is about {earlier}");
    let living: Vec<CoordinatorId> = members.iter().filter(|(_, ended)| !ended).map(|(member, _)| member.id).collect();
    assert_eq!(living, [writer.id]);
    let expected = |shard: Shard| (shard, Some(writer.id), Epoch(1));
    assert_eq!(shards, all_shards().into_iter().map(expected).collect::<Vec<_>>());
}

pub async fn joining_again_after_a_lost_answer_is_no_harm(database: &dyn Database) {
    let store = database.open().await;
    let member = member();
    store.join(&member).await.unwrap();
    store.take_over(member.id, &all_shards()).await.unwrap();

    store.join(&member).await.unwrap();

    let cluster = store.renew(member.id).await.unwrap();
    assert_eq!(cluster.members.len(), 1);
    assert!(cluster.shards.iter().all(|(_, owner, epoch)| *owner == Some(member.id) && *epoch == Epoch(1)));
}

pub async fn what_is_handed_to_somebody_who_is_gone_is_nobodys(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let [given, kept] = [shard(4), shard(5)];

    writer.store.hand_over(writer.id, member().id, &[given]).await.unwrap();

    assert_eq!(standing(&writer, given).await, (None, Epoch(2)));
    assert_eq!(standing(&writer, kept).await, (Some(writer.id), Epoch(1)));
    let owned = writer.store.take_over(writer.id, &[given]).await.unwrap();
    assert_eq!(owned.iter().map(|owned| owned.epoch).collect::<Vec<_>>(), [Epoch(3)]);
}

pub async fn what_is_not_owned_is_not_handed_over(database: &dyn Database) {
    let writer = Writer::beside(database.open().await).await.taking(&[shard(4)]).await;

    writer.store.hand_over(writer.id, writer.id, &[shard(5)]).await.unwrap();

    assert_eq!(standing(&writer, shard(5)).await, (None, Epoch(0)));
}

pub async fn a_successor_has_all_that_its_predecessor_had_and_the_predecessor_is_fenced(database: &dyn Database) {
    let mut old = Writer::of(database).await;
    let job = old.submit_plain(shard(7)).await;
    old.store.hand_over(old.id, member().id, &[shard(8)]).await.unwrap();
    let new = member();

    old.store.succeed(old.id, &new).await.unwrap();
    // As where the answer was lost.
    old.store.succeed(old.id, &new).await.unwrap();

    assert_eq!(old.commit(vec![]).await, Err(Error::Fenced));
    let successor = Writer { id: new.id, ..old };
    assert_eq!(standing(&successor, shard(7)).await, (Some(new.id), Epoch(2)));
    assert_eq!(standing(&successor, shard(8)).await, (None, Epoch(2)), "it wasn't the predecessor's");
    let owned = successor.store.take_over(new.id, &[shard(7)]).await.unwrap();
    assert_eq!(owned.iter().map(|owned| (owned.epoch, owned.last)).collect::<Vec<_>>(), [(Epoch(2), ShardSeq(2))]);
    let mut successor = successor.taking(&all_shards()).await;
    successor.grant(&job, worker()).await;
}

pub async fn what_somebody_who_left_had_is_nobodys(database: &dyn Database) {
    let mut writer = Writer::of(database).await;

    writer.store.leave(writer.id).await.unwrap();
    writer.store.leave(writer.id).await.unwrap();

    assert_eq!(writer.commit(vec![]).await, Err(Error::Fenced));
    let next = Writer::beside(database.open().await).await.taking(&all_shards()).await;
    assert_eq!(standing(&next, shard(4)).await, (Some(next.id), Epoch(2)));
}

pub async fn a_lease_that_runs_is_not_buried(database: &dyn Database) {
    let mut writer = Writer::of(database).await;

    writer.store.bury(writer.id, &[writer.id]).await.unwrap();

    writer.submit_plain(shard(1)).await;
}

pub async fn a_cursor_never_moves_back(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    writer.submit_plain(shard(1)).await;
    let moves = [(shard(1), ShardSeq(2)), (shard(1), ShardSeq(1))];
    writer.store.move_cursors(writer.id, &moves).await.unwrap();

    writer.store.move_cursors(writer.id, &[(shard(1), ShardSeq(1))]).await.unwrap();

    assert_eq!(cursor(&writer, shard(1)).await, ShardSeq(2));
}

pub async fn a_cursor_of_a_shard_that_is_not_owned_stays(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    writer.submit_plain(shard(1)).await;
    writer.store.hand_over(writer.id, member().id, &[shard(1)]).await.unwrap();

    writer.store.move_cursors(writer.id, &[(shard(1), ShardSeq(2)), (shard(2), ShardSeq(0))]).await.unwrap();

    writer.store.take_over(writer.id, &[shard(1)]).await.unwrap();
    assert_eq!(cursor(&writer, shard(1)).await, ShardSeq(0));
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
        let writer = Writer::over(database, Arc::clone(&store)).await;
        let new = new_job(shard(1), json!({}), at(round));
        let id = new.transition.job.id;
        let batch = Arc::new(Batch { last: writer.last.clone(), writes: vec![Write::Submit(vec![new])] });
        let mut caller = JoinSet::new();
        let (waiting, owner) = (Arc::clone(&store), writer.id);
        caller.spawn(async move { waiting.commit(owner, batch).await });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        caller.abort_all();
        while caller.join_next().await.is_some() {}

        // The takeover waits for a commit that is under way, and fences one that isn't yet.
        let next = Writer::over(database, Arc::clone(&store)).await;
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
async fn cursor(writer: &Writer, shard: Shard) -> ShardSeq {
    writer.store.take_over(writer.id, &[shard]).await.unwrap()[0].published
}

/// Whose a shard is, and at which epoch.
async fn standing(writer: &Writer, shard: Shard) -> (Option<CoordinatorId>, Epoch) {
    let cluster = writer.store.renew(writer.id).await.unwrap();
    let found = cluster.shards.into_iter().find(|(number, ..)| *number == shard);
    found.map(|(_, owner, epoch)| (owner, epoch)).expect("every shard")
}

pub async fn who_cannot_read_what_is_written_owns_nothing(database: &dyn Database) {
    let old = Writer::of(database).await;
    old.store.raise_format(2).await.unwrap();
    assert_eq!(old.store.renew(old.id).await.unwrap().written, 1, "there is one who couldn't read it");

    old.store.leave(old.id).await.unwrap();
    let new = Member { format: 2, ..member() };
    old.store.join(&new).await.unwrap();
    old.store.raise_format(2).await.unwrap();
    old.store.raise_format(1).await.unwrap();
    assert_eq!(old.store.renew(new.id).await.unwrap().written, 2, "it never falls");
    assert_eq!(old.store.take_over(new.id, &all_shards()).await.unwrap().len(), usize::from(SHARDS));

    old.store.leave(new.id).await.unwrap();
    let late = member();
    old.store.join(&late).await.unwrap();
    assert_eq!(old.store.take_over(late.id, &all_shards()).await.unwrap(), []);
    let cluster = old.store.renew(late.id).await.unwrap();
    assert_eq!((cluster.owned_by(late.id), cluster.written), (Vec::new(), 2));
}
