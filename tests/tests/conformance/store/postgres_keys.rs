//! What only Postgres can get wrong about deploy keys: the order in which a locale puts names, a bound that two come to at the
//! same moment, and a lease that is gone while a statement waits.

use std::sync::Arc;

use coordinator::store::postgres::PostgresStore;
use coordinator::store::{DEPLOY_KEYS_MAX, Error, KeyPut, MasterKeyCheck, Place, Resealed};
use shared::secret::Secret;
use sqlx::{AssertSqlSafe, Executor};
use tests::postgres::Postgres;

use super::Database;
use super::postgres::PostgresDatabase;
use super::writer::{Writer, audit_line, deploy_key};

#[tokio::test(flavor = "multi_thread")]
async fn names_are_in_the_order_of_their_bytes_whatever_the_locale() {
    let database = Postgres::shared().database();
    let name = format!("{}_in_english", database.name());
    let create = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'";
    database.execute(&format!("CREATE DATABASE {name} {create}")).unwrap();
    let url = Secret::new(database.server().url(&name));
    PostgresStore::migrate(&url).await.unwrap();
    let writer = Writer::beside(Arc::new(PostgresStore::connect(&url).await.unwrap())).await;
    let names = ["B", "a", "a-1", "aB", "a_b", "b"];

    for name in ["a_b", "b", "B", "a-1", "aB", "a"] {
        let put = writer.store.put_key(writer.id, &deploy_key(name, 1), None, &audit_line(name, "")).await;
        assert_eq!(put, Ok(KeyPut::Stored));
        let check = MasterKeyCheck { id: name.to_owned(), check: [1; 32] };
        assert_eq!(writer.store.add_master_key(writer.id, &check).await, Ok(true));
    }

    let keys = async |after| {
        let keys = writer.store.keys(after, 100).await.unwrap();
        keys.into_iter().map(|key| key.name).collect::<Vec<_>>()
    };
    assert_eq!(keys(None).await, names);
    assert_eq!(keys(Some("a-1")).await, names[3..]);
    let after = Place::DeployKey { name: "a-1".to_owned(), version: 1 };
    let sealed = writer.store.sealed_otherwise(b"-", Some(&after), 100).await.unwrap();
    let expected = names[3..].iter().map(|name| Place::DeployKey { name: (*name).to_owned(), version: 1 });
    assert_eq!(sealed.into_iter().map(|(place, _)| place).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let ids: Vec<_> = writer.store.master_keys().await.unwrap().into_iter().map(|check| check.id).collect();
    assert_eq!(ids, names);
    writer.store.close().await;
    database.execute(&format!("DROP DATABASE {name}")).unwrap();
}

/// Another has counted, and is about to store the last one that there is room for; the statement's snapshot is older than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_which_another_leaves_no_room_is_not_stored() {
    let database = Postgres::shared().database();
    let under_test = PostgresDatabase::from(&database);
    let writer = Writer::of(&under_test).await;
    database.execute(&under_test.filling_keys(DEPLOY_KEYS_MAX - 1)).unwrap();
    let mut session = database.session().await;
    let last = "BEGIN; SELECT counted_alone('deploy_keys'); \
         INSERT INTO deploy_keys VALUES ('last', 1, 'a', 'f', 'p', 'h', '', now(), now())";
    session.execute(last).await.unwrap();
    let (store, id) = (Arc::clone(&writer.store), writer.id);
    let put = async move { store.put_key(id, &deploy_key("late", 1), None, &audit_line("late", "")).await };
    let put = tokio::spawn(put);
    database.until_waiting(1);

    session.execute("COMMIT").await.unwrap();

    assert_eq!(put.await.unwrap(), Ok(KeyPut::TooMany));
    assert_eq!(writer.store.registered(&["late".to_owned(), "last".to_owned()]).await, Ok(vec!["last".to_owned()]));
    assert_eq!(writer.store.audited(Some("late"), 10).await, Ok(vec![]));
}

/// Each statement's snapshot is older than the deletion, of which it learns where it locks the lease.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_lease_that_is_deleted_writes_nothing() {
    let database = Postgres::shared().database();
    let writer = Writer::of(&PostgresDatabase::from(&database)).await;
    let (id, line, key) = (writer.id, audit_line("app", "late"), deploy_key("app", 1));
    writer.store.put_key(id, &key, None, &audit_line("app", "")).await.unwrap();
    let place = Place::DeployKey { name: "app".to_owned(), version: 1 };
    let resealed = Resealed { place, was: key.private_key.clone(), is: vec![1] };
    let (known, check) = ["k0", "k1"].map(|id| MasterKeyCheck { id: id.to_owned(), check: [1; 32] }).into();
    writer.store.add_master_key(id, &known).await.unwrap();
    let mut session = database.session().await;
    session.execute(AssertSqlSafe(format!("BEGIN; DELETE FROM coordinators WHERE id = '{id}'"))).await.unwrap();

    let store = Arc::clone(&writer.store);
    let late = tokio::spawn(async move {
        let (new, replaced, ids) = (deploy_key("new", 1), deploy_key("app", 2), ["k0".to_owned()]);
        let (added, put, removed, audited, resealed, noted, forgotten) = tokio::join!(
            store.put_key(id, &new, None, &line),
            store.put_key(id, &replaced, Some(1), &line),
            store.remove_key(id, "app", &line),
            store.audit(id, &line),
            store.reseal(id, std::slice::from_ref(&resealed)),
            store.add_master_key(id, &check),
            store.remove_master_keys(id, &ids),
        );
        let ended = [added.err(), put.err(), removed.err(), audited.err(), resealed.err(), noted.err()];
        (ended, forgotten)
    });
    database.until_waiting(7);
    session.execute("COMMIT").await.unwrap();

    let (ended, forgotten) = late.await.unwrap();
    assert!(ended.iter().all(|error| *error == Some(Error::Fenced)), "{ended:?}");
    assert_eq!(forgotten, Err(Error::Fenced));
    assert_eq!(writer.store.keys(None, 10).await, Ok(vec![key]));
    assert_eq!(writer.store.audited(Some("app"), 10).await.unwrap().len(), 1);
    assert_eq!(writer.store.master_keys().await, Ok(vec![known]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_cannot_be_emptied() {
    let database = Postgres::shared().database();
    let emptied = database.execute("TRUNCATE audit");
    assert!(emptied.is_err_and(|why| why.contains("never deleted")));
}
