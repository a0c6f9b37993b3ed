//! How connections are made: what every session of ours is set to, how many there are, and what the database has to be.

use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection};

use shared::clock;
use shared::secret::Secret;

use super::fault::{self, Fault};
use super::session::Session;
use crate::store::Error;

/// The oldest server that will do, as it numbers itself.
const VERSION_MIN: i32 = 150_000;
/// How many connections commit batches: one does, a second where the first has just been closed.
const COMMITTING_MAX: u32 = 2;
/// How many connections are there for shards that change hands.
const LEASING_MAX: u32 = 2;
/// How many connections are there for what owners and workers need, and how many for what people and programs ask.
const OTHERS_MAX: u32 = 8;
const QUESTIONS_MAX: u32 = 4;
/// How long a call waits for its turn at a connection before the database counts as unavailable.
pub(super) const TURN_WITHIN: Duration = Duration::from_secs(2);
/// The same for shards that change hands: a renewal that comes later is worth nothing.
const LEASE_TURN_WITHIN: Duration = Duration::from_secs(1);
/// From how long an idle connection is tried before it is used: the server may have gone since, and a commit that finds
/// that out itself has an unknown end.
const TRIED_AFTER: Duration = Duration::from_millis(500);
/// How long a migration may wait for another process's.
const MIGRATED_WITHIN: Duration = Duration::from_mins(5);

/// What a session is set to. Statements end before the lease that they are made under could (3 s), and locks come before that
/// or not at all. `synchronous_commit`: what is committed must not be lost. A plan is made anew for each statement: the tables
/// grow from nothing to millions of rows faster than statistics follow, and a plan kept from the beginning would read
/// all of them. [`Committing`] keeps some for a moment.
const SETTINGS: [(&str, &str); 8] = [
    ("statement_timeout", "2s"),
    ("lock_timeout", "1s"),
    ("idle_in_transaction_session_timeout", "2s"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("synchronous_commit", "on"),
    ("plan_cache_mode", "force_custom_plan"),
    ("jit", "off"),
];

/// Where plans are kept for a moment.
const KEEPS_PLANS: [(&str, &str); 1] = [("plan_cache_mode", "force_generic_plan")];
/// The most jobs of a batch for which a kept plan is used. It is made for a few rows: for hundreds it could be a bad one.
const FEW_JOBS_MAX: usize = 48;
/// For how long a plan is kept: a table grows by thousands of rows meanwhile, not by millions.
const PLANS_KEPT_FOR: Duration = Duration::from_secs(2);

/// The connections that commit batches. To plan the statement takes longer than to carry it out for a single job, so
/// small batches have connections of their own, where a plan is kept for a moment.
#[derive(Clone)]
pub(super) struct Committing {
    any: Arc<Desk>,
    few: Arc<Desk>,
    /// Since when the plans are kept that there are.
    planned: Arc<Mutex<Option<Instant>>>,
}

/// A pool, and the session that was used last: going back and forth, it would be tried each time.
struct Desk {
    pool: PgPool,
    resting: Mutex<Option<(Session, Instant)>>,
}

impl Committing {
    fn new(options: &PgConnectOptions) -> Self {
        let few = options.clone().options(KEEPS_PLANS);
        Self { any: Desk::new(options.clone()), few: Desk::new(few), planned: Arc::default() }
    }

    /// A connection for a batch of that many jobs.
    pub(super) async fn session(&self, jobs: usize) -> Result<Session, Fault> {
        if jobs > FEW_JOBS_MAX {
            return self.any.session().await;
        }
        let mut session = self.few.session().await?;
        if self.are_plans_old() {
            let discarded = sqlx::query("DISCARD PLANS").execute(&mut *session).await;
            session.read(discarded)?;
        }
        Ok(session)
    }

    /// Keeps a connection, which was for a batch of that many jobs, for the next one.
    pub(super) fn keep(&self, session: Session, jobs: usize) {
        let desk = if jobs > FEW_JOBS_MAX { &self.any } else { &self.few };
        let mut resting = desk.resting();
        if session.is_at_rest() && !desk.pool.is_closed() {
            *resting = Some((session, clock::instant()));
        }
    }

    pub(super) async fn close(&self) {
        self.any.close().await;
        self.few.close().await;
    }

    /// Whether the plans are to be made anew. Those that are made from then on count as new.
    fn are_plans_old(&self) -> bool {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::instant();
        let old = planned.is_none_or(|planned| now.duration_since(planned) > PLANS_KEPT_FOR);
        if old {
            *planned = Some(now);
        }
        old
    }
}

impl Desk {
    fn new(options: PgConnectOptions) -> Arc<Self> {
        let pool = pool(COMMITTING_MAX, TURN_WITHIN).connect_lazy_with(options);
        Arc::new(Self { pool, resting: Mutex::default() })
    }

    /// The session that was used last, where its server is still there; one out of the pool where none rests.
    async fn session(&self) -> Result<Session, Fault> {
        let last = self.resting().take();
        if let Some((mut session, since)) = last {
            if since.elapsed() < TRIED_AFTER {
                return Ok(session);
            }
            let answered = session.ping().await;
            if session.read(answered).is_ok() {
                return Ok(session);
            }
        }
        Session::of(&self.pool).await
    }

    async fn close(&self) {
        let closing = self.pool.close();
        // That one would never come back, and none is kept from now on.
        drop(self.resting().take());
        closing.await;
    }

    fn resting(&self) -> MutexGuard<'_, Option<(Session, Instant)>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections of one process.
pub(super) struct Pools {
    pub commits: Committing,
    pub leases: PgPool,
    pub others: PgPool,
    pub questions: PgPool,
}

/// Brings the tables up to date, in a session whose statements may take their time.
pub(super) async fn migrate(url: &Secret) -> Result<(), Error> {
    let migrated = async {
        let session = PgPoolOptions::new().max_connections(1).acquire_timeout(TURN_WITHIN);
        let session = session.connect_with(options(url)?).await.map_err(|error| fault::of_connecting(&error))?;
        let mut connection = session.acquire().await.map_err(|error| fault::of_connecting(&error))?;
        check(&mut connection).await?;
        drop(connection);
        let migrated = migrator().run(&session).await;
        session.close().await;
        migrated.map_err(|error| of_migration(&error))
    };
    let late = |_| Err(Fault::Told(Error::Unavailable("migrating the database takes too long".to_owned())));
    tokio::time::timeout(MIGRATED_WITHIN, migrated).await.unwrap_or_else(late).map_err(Fault::told)
}

/// Opens the pools, after a look at the database.
pub(super) async fn pools(url: &Secret) -> Result<Pools, Error> {
    let options = options(url)?.options(SETTINGS);
    let pools = Pools {
        commits: Committing::new(&options),
        leases: pool(LEASING_MAX, LEASE_TURN_WITHIN).min_connections(1).connect_lazy_with(options.clone()),
        others: pool(OTHERS_MAX, TURN_WITHIN).connect_lazy_with(options.clone()),
        questions: pool(QUESTIONS_MAX, TURN_WITHIN).connect_lazy_with(options),
    };
    let looked = async {
        let mut connection = pools.others.acquire().await.map_err(|error| fault::of_connecting(&error))?;
        check(&mut connection).await?;
        check_tables(&mut connection).await
    };
    looked.await.map_err(Fault::told)?;
    Ok(pools)
}

fn options(url: &Secret) -> Result<PgConnectOptions, Error> {
    let is_ours = ["postgres://", "postgresql://"].iter().any(|scheme| url.reveal().starts_with(scheme));
    let options = is_ours.then(|| PgConnectOptions::from_str(url.reveal()).ok()).flatten();
    // What is wrong with it is not said: a part of the password could be in the sentence.
    let options = options.ok_or_else(|| Error::Corrupt("the database's URL isn't postgres://…".to_owned()))?;
    Ok(options.application_name("windlass").disable_statement_logging())
}

fn pool(most: u32, turn: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(turn)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                // One that is used all the time is known to be there; this one may cost a round trip.
                Ok(meta.idle_for < TRIED_AFTER || connection.ping().await.is_ok())
            })
        })
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/postgres");
    // Migrations only add, so a newer version's are no obstacle.
    migrator.set_ignore_missing(true);
    migrator
}

fn of_migration(error: &MigrateError) -> Fault {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => fault::of_read(error),
        other => Fault::Told(Error::Corrupt(format!("migrating the database: {other}"))),
    }
}

/// Whether the server is one that will do.
async fn check(connection: &mut PgConnection) -> Result<(), Fault> {
    let server = sqlx::query!(
        r#"
        SELECT current_setting('server_version_num')::integer AS "version!", current_setting('server_version') AS "name!",
            current_setting('server_encoding') AS "encoding!"
        "#,
    );
    let server = server.fetch_one(connection).await.map_err(|error| fault::of_read(&error))?;
    let wrong = |why| Err(Fault::Told(Error::Corrupt(why)));
    if server.version < VERSION_MIN {
        return wrong(format!("Postgres {} is too old: 15 or later is needed", server.name));
    }
    if server.encoding != "UTF8" {
        return wrong(format!("the database's encoding is {}: UTF8 is needed", server.encoding));
    }
    Ok(())
}

/// Whether every migration that we know is there.
async fn check_tables(connection: &mut PgConnection) -> Result<(), Fault> {
    let applied = match connection.list_applied_migrations("_sqlx_migrations").await {
        Ok(applied) => applied,
        // There is no such table.
        Err(MigrateError::Execute(sqlx::Error::Database(_))) => Vec::new(),
        Err(error) => return Err(of_migration(&error)),
    };
    let migrator = migrator();
    let missing = migrator.iter().find(|known| applied.iter().all(|applied| applied.version != known.version));
    match missing.map(|missing| missing.version) {
        None => Ok(()),
        Some(version) => Err(Fault::Told(Error::Corrupt(format!(
            "the database lacks migration {version}: it has to be migrated first"
        )))),
    }
}
