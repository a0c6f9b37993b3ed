//! A Postgres database under test: one of the server that the whole binary shares.

use std::borrow::Borrow;
use std::sync::Arc;

use async_trait::async_trait;
use coordinator::store::Store;
use coordinator::store::postgres::PostgresStore;
use shared::secret::Secret;
use tests::postgres::{self, Postgres};

use super::Database;

pub struct PostgresDatabase<D>(D);

impl PostgresDatabase<postgres::Database<'static>> {
    pub fn new() -> Self {
        Self(Postgres::shared().database())
    }
}

impl<'d> From<&'d postgres::Database<'d>> for PostgresDatabase<&'d postgres::Database<'d>> {
    fn from(database: &'d postgres::Database<'d>) -> Self {
        Self(database)
    }
}

#[async_trait]
impl<'d, D: Borrow<postgres::Database<'d>> + Send + Sync> Database for PostgresDatabase<D> {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::connect(&Secret::new(self.0.borrow().url())).await.expect("a database"))
    }

    async fn raw(&self, sql: &str) -> Result<(), String> {
        self.0.borrow().execute(sql)
    }

    fn filling_workers(&self, count: u32) -> String {
        format!(
            "INSERT INTO workers (id, name, key, mode, enrolled_at) \
             SELECT gen_random_uuid(), 'one of many', sha256(''), 'active', now() FROM generate_series(1, {count})"
        )
    }

    fn filling_queue(&self, count: u32, tag: &str) -> String {
        format!(
            "INSERT INTO jobs (id, shard, version, seq, attempt, tries, state, detail, tags, priority, labels, has_secrets, fence, \
             wake_at, created_at, queued_at, spec) \
             SELECT ('00' || substr(md5(gen_random_uuid()::text), 3))::uuid, n % 256, 1, 2, 0, 0, 'queued', '{{}}', '[\"{tag}\"]', \
             'normal', '{{}}', false, 0, to_timestamp(0), to_timestamp(0), to_timestamp(0), '{{}}' FROM generate_series(1, {count}) n"
        )
    }

    fn filling_keys(&self, count: u32) -> String {
        format!(
            "INSERT INTO deploy_keys \
             SELECT 'key-' || n, 1, 'a', 'f', 'p', 'h', '', now(), now() FROM generate_series(1, {count}) n"
        )
    }

    async fn end_leases(&self) {
        self.0.borrow().execute("UPDATE coordinators SET expires_at = clock_timestamp()").expect("leases that end");
    }
}
