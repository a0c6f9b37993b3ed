//! The cluster's database, past all coordinators: what is stored, as text.

use std::thread;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::postgres::{Durability, Postgres};

/// The database's name.
const NAME: &str = "windlass";

/// A Postgres server of the cluster's own, and its database.
#[derive(Debug)]
pub struct Database(Postgres);

impl Database {
    /// One whose server has these settings in its environment.
    pub fn start(environment: &[(String, String)]) -> Self {
        Self::of(Postgres::start_in(Durability::NoFsync, environment))
    }

    /// One whose server keeps what is committed on the disk, with these settings above its own.
    pub fn durable(settings: &[&str]) -> Self {
        Self::of(Postgres::start_with(Durability::Fsync, settings))
    }

    fn of(server: Postgres) -> Self {
        server.execute("postgres", &format!("CREATE DATABASE {NAME}")).expect("a database");
        Self(server)
    }

    pub fn url(&self) -> String {
        self.0.url(NAME)
    }

    /// The same, by way of another address, like `127.0.0.1:40123`.
    pub fn url_by(&self, address: &str) -> String {
        self.url().replace(&self.0.address(), address)
    }

    /// Its server.
    pub fn server(&self) -> &Postgres {
        &self.0
    }

    pub fn stop(&self) {
        self.0.stop();
    }

    pub fn start_again(&self) {
        self.0.start_again();
    }

    /// What a query returns, each value as text and NULL as nothing.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn rows(&self, query: &str) -> Vec<Vec<String>> {
        self.try_rows(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The same, where the server may be away.
    ///
    /// # Errors
    /// What the server says, or why it doesn't.
    pub fn try_rows(&self, query: &str) -> Result<Vec<Vec<String>>, String> {
        let (url, query) = (self.url(), query.to_owned());
        let rows = blocking(async move {
            let mut session = PgConnection::connect(&url).await?;
            let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(&mut session).await?;
            session.close().await?;
            Ok(rows.iter().map(texts).collect())
        });
        rows.map_err(|error: sqlx::Error| error.to_string())
    }

    /// All that is stored, as text.
    pub fn dump(&self) -> Vec<u8> {
        let tables = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1");
        let table =
            |name: &String| self.rows(&format!("SELECT row_to_json(t)::text FROM {name} t")).concat().join("\n");
        tables.iter().flatten().map(table).collect::<Vec<_>>().join("\n").into_bytes()
    }
}

/// What `work` comes to, on a runtime of its own.
pub(crate) fn blocking<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let working = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work)
    });
    working.join().expect("it is done")
}

fn texts(row: &PgRow) -> Vec<String> {
    let text = |at| row.try_get_raw(at).ok().and_then(|value| value.as_str().ok().map(str::to_owned));
    (0..row.len()).map(|at| text(at).unwrap_or_default()).collect()
}
