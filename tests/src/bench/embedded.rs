//! The same as `throughput` in one process: `windlass dev`, on SQLite and with the bus within the process. The clock runs from
//! the first request to the last job's end as the database has it; that every event was published is seen afterwards, since
//! nobody but the process knows it sooner.

use std::fs;
use std::path::{Path, PathBuf};

use shared::clock;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Settings;
use super::load;
use super::results::Results;
use super::rig;
use super::throughput::{EVENTS_PER_JOB, WARM_UP, WITHIN};
use super::usage::{self, Meter};
use crate::http::Client;
use crate::server::Server;
use crate::wait;
use crate::windlass::windlass_at;

const NAME: &str = "embedded";

/// See the module.
pub fn run(settings: &Settings, results: &mut Results) {
    for _ in 0..settings.runs {
        once(settings, results);
    }
}

fn once(settings: &Settings, results: &mut Results) {
    let dev = Dev::start(settings.slots);
    let mut stored = Stored::open(&dev.database());
    load::submit(&[&dev.client], settings, WARM_UP);
    stored.until(0, OPEN);

    let meter = Meter::start(vec![("dev", Some(dev.server.pid())), ("load", None)]);
    let begun = clock::instant();
    load::submit(&[&dev.client], settings, settings.jobs);
    let submitted = begun.elapsed();
    stored.until(0, OPEN);
    let (took, used) = (begun.elapsed(), meter.read());

    check(&mut stored, settings.jobs + WARM_UP);
    let jobs = f64::from(settings.jobs);
    results.add(NAME, "jobs", "jobs/s", jobs / took.as_secs_f64());
    results.add(NAME, "submissions while they came", "jobs/s", jobs / submitted.as_secs_f64());
    for (process, seconds) in used {
        results.add(NAME, &format!("CPU, {process}"), "s/1,000 jobs", seconds / jobs * 1000.0);
    }
    results.add(NAME, "memory at most, dev", "MB", usage::peak_memory_mb(dev.server.pid()));
}

/// Whether any job hasn't ended: one look at an index that has these alone.
const OPEN: &str = "SELECT EXISTS (SELECT 1 FROM jobs WHERE finished_at IS NULL)";

/// What was measured is what was promised: every job has succeeded, and each of its events was published.
fn check(stored: &mut Stored, jobs: u32) {
    let (jobs, events) = (i64::from(jobs), i64::from(jobs) * EVENTS_PER_JOB.cast_signed());
    let succeeded = stored.number("SELECT count(*) FROM jobs WHERE state = 'succeeded' AND attempt = 1");
    assert_eq!(succeeded, jobs, "jobs that have succeeded at once");
    assert_eq!(stored.number("SELECT count(*) FROM job_events"), events, "events in the store");
    stored.until(events, "SELECT sum(published_seq) FROM shards");
}

/// The process that is measured, in a directory of its own.
struct Dev {
    dir: TempDir,
    server: Server,
    client: Client,
}

impl Dev {
    fn start(slots: u32) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = windlass_at(&rig::program());
        command.args(["dev", "--slots", &slots.to_string()]).envs([rig::NO_OP]).env("HOME", dir.path());
        command.env("WINDLASS_LISTEN", "127.0.0.1:0").env("WINDLASS_DATA_DIR", data_dir(&dir));
        let mut server = Server::start("dev", command);
        let address = server.address();
        let token = fs::read_to_string(data_dir(&dir).join("token")).expect("dev writes its token before it listens");
        Self { dir, server, client: Client::new(&address, token.trim()) }
    }

    fn database(&self) -> PathBuf {
        data_dir(&self.dir).join("windlass.db")
    }
}

fn data_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

/// The database, read beside the process that writes it, which doesn't wait for readers.
struct Stored {
    runtime: Runtime,
    connection: SqliteConnection,
}

impl Stored {
    fn open(file: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let options = SqliteConnectOptions::new().filename(file).read_only(true).disable_statement_logging();
        let connection = runtime.block_on(options.connect()).expect("the database");
        Self { runtime, connection }
    }

    fn number(&mut self, query: &str) -> i64 {
        let found = sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut self.connection);
        self.runtime.block_on(found).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Waits until a query finds that number.
    fn until(&mut self, number: i64, query: &str) {
        let begun = clock::instant();
        while self.number(query) != number {
            assert!(begun.elapsed() < WITHIN, "{query}: not {number} after {WITHIN:?}");
            wait::between_samples();
        }
    }
}
