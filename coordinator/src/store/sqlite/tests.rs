//! What only SQLite can get wrong, seen from inside.

use std::os::unix::fs::PermissionsExt;

use shared::clock;
use shared::id::TokenId;
use tempfile::TempDir;

use super::*;

async fn opened(directory: &TempDir) -> SqliteStore {
    SqliteStore::open(&directory.path().join("windlass.db")).await.unwrap()
}

/// A coordinator that may write.
async fn owner(store: &SqliteStore) -> CoordinatorId {
    let member = Member { id: CoordinatorId(clock::random_uuid()), address: String::new(), format: 1 };
    store.join(&member).await.unwrap();
    member.id
}

#[tokio::test]
async fn nobody_but_the_owner_can_read_the_files() {
    let directory = TempDir::new().unwrap();
    let store = opened(&directory).await;
    owner(&store).await;

    for name in ["windlass.db", "windlass.db-wal", "windlass.db-shm"] {
        let mode = directory.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close().await;
    assert!(!directory.path().join("windlass.db-wal").exists(), "closing empties the journal");
}

/// SQLite rolls such a transaction back by itself; the connection must not be taken for one that is still inside it.
#[tokio::test]
async fn a_full_database_is_unavailable_until_there_is_room() {
    let directory = TempDir::new().unwrap();
    let store = opened(&directory).await;
    let owner = owner(&store).await;
    // Only the connection that writes knows this bound, and it is replaced.
    sqlx::query("PRAGMA max_page_count = 1").execute(&store.writer).await.unwrap();
    let large = Token {
        id: TokenId(clock::random_uuid()),
        kind: crate::store::TokenKind::Join,
        name: "x".repeat(1 << 20),
        digest: clock::random(),
        created_at: Time::from_micros(0),
        expires_at: None,
    };
    let by = crate::caller::Caller::from(shared::id::Actor::Coordinator);
    let line = by.line(large.created_at, "token.join", "", String::new());

    let refused = store.add_token(owner, &large, &line).await;

    assert!(matches!(&refused, Err(Error::Unavailable(why)) if why.contains("full")), "{refused:?}");
    assert!(store.add_token(owner, &large, &line).await.unwrap());
}

#[tokio::test]
async fn a_newer_versions_migration_is_no_obstacle() {
    let directory = TempDir::new().unwrap();
    let store = opened(&directory).await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', true, x'00', 0)";
    sqlx::query(newer).execute(&store.writer).await.unwrap();
    store.close().await;

    opened(&directory).await.ping().await.unwrap();
}

#[tokio::test]
async fn what_is_no_database_is_told_from_what_cannot_be_opened() {
    let directory = TempDir::new().unwrap();
    let text = directory.path().join("text");
    std::fs::write(&text, "hello ".repeat(1000)).unwrap();

    let not_ours = SqliteStore::open(&text).await.err();
    let missing = SqliteStore::open(&directory.path().join("missing/windlass.db")).await.err();

    assert!(matches!(not_ours, Some(Error::Corrupt(_))), "{not_ours:?}");
    assert!(matches!(missing, Some(Error::Unavailable(_))), "{missing:?}");
}

/// Outside of the store's own transaction a removal is nothing that could be written: its mark can't stay.
#[tokio::test]
async fn the_mark_of_a_job_that_is_removed_cannot_be_committed_or_taken_back() {
    let directory = TempDir::new().unwrap();
    let store = opened(&directory).await;
    let job = "INSERT INTO jobs (id, shard, version, seq, attempt, tries, state, detail, tags, priority, labels, has_secrets, fence, \
         created_at, finished_at, spec) VALUES (zeroblob(16), 0, 1, 0, 0, 0, 'canceled', '{}', '[]', 'normal', '{}', 0, 0, 0, 0, '{}')";
    sqlx::query(job).execute(&store.writer).await.unwrap();
    let refused = async |statement: &'static str| {
        let error = sqlx::raw_sql(statement).execute(&store.writer).await.unwrap_err().to_string();
        let _ = sqlx::raw_sql("ROLLBACK").execute(&store.writer).await;
        error
    };
    assert!(refused("INSERT INTO removals (job_id) VALUES (zeroblob(16))").await.contains("FOREIGN KEY"));
    for change in ["DELETE FROM removals", "UPDATE removals SET one = NULL"] {
        let change = format!("BEGIN; INSERT INTO removals (job_id) VALUES (zeroblob(16)); {change}; COMMIT");
        let change: &'static str = Box::leak(change.into_boxed_str());
        assert!(refused(change).await.contains("never deleted"), "{change}");
    }
    let gone = "BEGIN; INSERT INTO removals (job_id) VALUES (zeroblob(16)); DELETE FROM jobs; COMMIT";
    sqlx::raw_sql(gone).execute(&store.writer).await.unwrap();
    store.close().await;
}
