//! A Postgres database under test: one of the server that the whole binary shares.

use std::sync::Arc;

use async_trait::async_trait;
use coordinator::store::Store;
use coordinator::store::postgres::PostgresStore;
use shared::secret::Secret;
use tests::postgres::{self, Postgres};

use super::Database;

pub struct PostgresDatabase(postgres::Database<'static>);

impl PostgresDatabase {
    pub fn new() -> Self {
        Self(Postgres::shared().database())
    }
}

#[async_trait]
impl Database for PostgresDatabase {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::connect(&Secret::new(self.0.url())).await.expect("a database"))
    }

    async fn raw(&self, sql: &str) -> Result<(), String> {
        self.0.execute(sql)
    }

    fn filling_workers(&self, count: u32) -> String {
        format!(
            "INSERT INTO workers (id, name, key, mode, enrolled_at) \
             SELECT gen_random_uuid(), 'one of many', sha256(''), 'active', now() FROM generate_series(1, {count})"
        )
    }

    async fn end_leases(&self) {
        self.0.execute("UPDATE coordinators SET expires_at = clock_timestamp()").expect("leases that end");
    }
}
