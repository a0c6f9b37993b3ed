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
}
