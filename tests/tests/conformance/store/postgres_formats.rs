//! Programs of two versions on one Postgres, where what is written is raised at the very moment at which an old one comes.

use std::sync::Arc;

use coordinator::store::Member;
use shared::id::CoordinatorId;
use sqlx::Executor;
use tests::postgres::Postgres;

use super::postgres::PostgresDatabase;
use super::writer::{Writer, all_shards, member};

fn of_format(format: u32) -> Member {
    Member { format, ..member() }
}

async fn written(writer: &Writer, id: CoordinatorId) -> u32 {
    writer.store.renew(id).await.unwrap().written
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_one_that_comes_while_the_format_waits_to_be_raised_is_seen() {
    let database = Postgres::shared().database();
    let new = Writer::beside(super::Database::open(&PostgresDatabase::from(&database)).await).await;
    new.store.leave(new.id).await.unwrap();
    let (new_one, old_one) = (of_format(2), of_format(1));
    new.store.join(&new_one).await.unwrap();

    // Somebody's takeover that isn't over keeps the raise waiting, and meanwhile the old one joins.
    let mut session = database.session().await;
    session.execute("BEGIN; SELECT FROM formats FOR SHARE").await.unwrap();
    let raising = tokio::spawn({
        let store = Arc::clone(&new.store);
        async move { store.raise_format(2).await }
    });
    database.until_waiting(1);
    new.store.join(&old_one).await.unwrap();
    session.execute("COMMIT").await.unwrap();
    raising.await.unwrap().unwrap();

    assert_eq!(written(&new, new_one.id).await, 1);
    assert_eq!(new.store.take_over(old_one.id, &all_shards()).await.unwrap().len(), all_shards().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_one_takes_nothing_while_the_format_is_being_raised() {
    let database = Postgres::shared().database();
    let new = Writer::beside(super::Database::open(&PostgresDatabase::from(&database)).await).await;
    new.store.leave(new.id).await.unwrap();
    let (new_one, old_one) = (of_format(2), of_format(1));
    new.store.join(&new_one).await.unwrap();

    let mut session = database.session().await;
    session.execute("BEGIN; SELECT raise_format(2)").await.unwrap();
    new.store.join(&old_one).await.unwrap();
    let taking = tokio::spawn({
        let (store, id) = (Arc::clone(&new.store), old_one.id);
        async move { store.take_over(id, &all_shards()).await }
    });
    database.until_waiting(1);
    session.execute("COMMIT").await.unwrap();

    assert_eq!(taking.await.unwrap().unwrap(), []);
    assert_eq!(written(&new, new_one.id).await, 2);
    // Nor does it get any from itself, or from somebody who gives them away.
    let again = of_format(1);
    let owned = new.store.take_over(new_one.id, &all_shards()).await.unwrap();
    new.store.hand_over(new_one.id, old_one.id, &all_shards()).await.unwrap();
    new.store.succeed(old_one.id, &again).await.unwrap();
    assert_eq!(new.store.renew(again.id).await.unwrap().owned_by(again.id), []);
    let anew = new.store.take_over(new_one.id, &all_shards()).await.unwrap();
    assert_eq!((owned.len(), anew.len()), (256, 256), "what it didn't get is nobody's");
}
