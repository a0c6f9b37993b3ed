//! A SQLite database under test: a file in a directory of its own.

use std::sync::Arc;

use async_trait::async_trait;
use coordinator::store::Store;
use coordinator::store::sqlite::SqliteStore;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;

use super::Database;

pub struct SqliteDatabase(TempDir);

impl SqliteDatabase {
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }
}

#[async_trait]
impl Database for SqliteDatabase {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.0.path().join("windlass.db")).await.expect("a database"))
    }

    async fn raw(&self, sql: &str) -> Result<(), String> {
        let options = SqliteConnectOptions::new().filename(self.0.path().join("windlass.db"));
        let mut connection = options.connect().await.map_err(|error| error.to_string())?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
        connection.close().await.map_err(|error| error.to_string())?;
        done.map(|_| ()).map_err(|error| error.to_string())
    }

    fn filling_workers(&self, count: u32) -> String {
        format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count}) \
             INSERT INTO workers (id, name, key, mode, enrolled_at) \
             SELECT randomblob(16), 'one of many', zeroblob(32), 'active', 0 FROM n"
        )
    }

    fn filling_queue(&self, count: u32, tag: &str) -> String {
        format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count}) \
             INSERT INTO jobs (id, shard, version, seq, attempt, tries, state, detail, tags, priority, labels, has_secrets, fence, \
             wake_at, created_at, queued_at, spec) \
             SELECT unhex(printf('%032x', abs(random()))), n % 256, 1, 2, 0, 0, 'queued', '{{}}', '[\"{tag}\"]', 'normal', '{{}}', \
             0, 0, 0, 0, 0, '{{}}' FROM n"
        )
    }

    fn filling_keys(&self, count: u32) -> String {
        format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count}) \
             INSERT INTO deploy_keys SELECT 'key-' || n, 1, 'a', 'f', 'p', 'h', x'', 0, 0 FROM n"
        )
    }

    async fn end_leases(&self) {}
}
