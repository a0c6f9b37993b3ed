//! A connection while a verb has it. Whatever leaves its state in doubt closes it: a statement that was given up, an
//! answer that was lost.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgDatabaseError, PgPool, PgSeverity};
use sqlx::{PgConnection, Postgres};

use super::fault::{self, Fault};

/// A connection out of a pool.
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    /// Whether nothing is under way on it.
    settled: bool,
    /// Whether a transaction was begun and hasn't ended.
    inside: bool,
}

impl Session {
    /// Waits for a connection, as long as the pool lets it.
    pub(super) async fn of(pool: &PgPool) -> Result<Self, Fault> {
        let connection = pool.acquire().await.map_err(|error| fault::of_connecting(&error))?;
        Ok(Self { connection, settled: true, inside: false })
    }

    /// Whether nothing is under way on it.
    pub(super) fn is_at_rest(&self) -> bool {
        self.settled && !self.inside
    }

    /// What a statement that is its own commit has come to.
    pub(super) fn wrote<T>(&mut self, outcome: Result<T, sqlx::Error>) -> Result<T, Fault> {
        self.settle(&outcome);
        outcome.map_err(|error| fault::of_write(&error))
    }

    /// What a statement that commits nothing has come to: one that reads, or one in a transaction.
    pub(super) fn read<T>(&mut self, outcome: Result<T, sqlx::Error>) -> Result<T, Fault> {
        self.settle(&outcome);
        outcome.map_err(|error| fault::of_read(&error))
    }

    /// Begins a transaction. Where it isn't ended by [`Session::commit`] or [`Session::roll_back`], the connection is closed.
    pub(super) async fn begin(&mut self) -> Result<(), Fault> {
        self.inside = true;
        let begun = sqlx::query("BEGIN").execute(&mut **self).await;
        self.read(begun).map(drop)
    }

    /// Commits the transaction.
    pub(super) async fn commit(&mut self) -> Result<(), Fault> {
        let committed = sqlx::query("COMMIT").execute(&mut **self).await;
        self.inside = committed.is_err();
        self.wrote(committed).map(drop)
    }

    /// Gives the transaction up. Where that fails, closing the connection does it.
    pub(super) async fn roll_back(&mut self) {
        let gone = sqlx::query("ROLLBACK").execute(&mut **self).await;
        self.settled = gone.is_ok();
        self.inside = gone.is_err();
    }

    fn settle<T>(&mut self, outcome: &Result<T, sqlx::Error>) {
        // A server that answers goes on with the connection, unless it says that it won't.
        self.settled = match outcome {
            Ok(_) => true,
            Err(sqlx::Error::Database(refused)) => {
                let refused = refused.try_downcast_ref::<PgDatabaseError>();
                refused.is_some_and(|refused| refused.severity() == PgSeverity::Error)
            }
            Err(_) => false,
        };
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.settled = false;
        &mut self.connection
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_at_rest() {
            self.connection.close_on_drop();
        }
    }
}
