//! A Postgres server of our own: its data in a temporary directory, on a free loopback port, known to nobody else.
//!
//! [`Postgres::shared`] is started once per test binary, and each test takes a [`Database`] of it that nobody else uses. A
//! story that stops its server starts one with [`Postgres::start`]. Postgres refuses to run as root, so there it runs as
//! another user. A small watchdog ends the server and removes its directory when the test binary is gone, however it went.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use coordinator::store::postgres::PostgresStore;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User};
use shared::secret::Secret;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::process::{self, Owned};
use crate::wait::eventually;

/// How long a start or a stop may take at most.
const DEADLINE: Duration = Duration::from_mins(1);
/// The superuser.
const USER: &str = "windlass";
/// The database that every other is copied from.
const TEMPLATE: &str = "migrated";
/// Where Debian's packages put the programs, below a directory for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Whether what is committed is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is, as in use.
    Fsync,
    /// Only a machine that dies loses it: a test has no such, and is faster.
    NoFsync,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    port: u16,
    password: String,
    durability: Durability,
    environment: Vec<(String, String)>,
    settings: Vec<String>,
    server: Mutex<Option<Owned>>,
    watchdog: Option<Child>,
    databases: AtomicU32,
}

impl Postgres {
    /// The server that all tests of this binary share, started by the first that asks. Nobody may stop it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Durability::NoFsync))
    }

    /// Starts a server of one's own.
    pub fn start(durability: Durability) -> Self {
        Self::start_in(durability, &[])
    }

    /// The same, with these settings in its environment, at each of its starts.
    pub fn start_in(durability: Durability, environment: &[(String, String)]) -> Self {
        Self::set_up(durability, environment, &[])
    }

    /// The same with these settings of the server, like `shared_buffers=1GB`, above its own.
    pub fn start_with(durability: Durability, settings: &[&str]) -> Self {
        Self::set_up(durability, &[], settings)
    }

    fn set_up(durability: Durability, environment: &[(String, String)], settings: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("postgres-").tempdir().expect("a temporary directory").keep();
        let account = account();
        if let Some((uid, gid)) = account {
            chown(&dir, Some(uid.as_raw()), Some(gid.as_raw())).expect("a directory of the server's user");
        }
        let password = uuid::Uuid::new_v4().simple().to_string();
        let watchdog = Some(watchdog(&dir));
        initialise(&dir, account, &password);
        let (server, databases) = (Mutex::new(None), AtomicU32::new(0));
        let environment = environment.to_vec();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut postgres =
            Self { dir, port: 0, password, durability, environment, settings, server, watchdog, databases };
        // Somebody else may have taken the port before the server could.
        postgres.port = eventually(DEADLINE, "Postgres has a port", || {
            let port = free_port();
            let server = postgres.spawned(port);
            *postgres.server() = Some(server);
            postgres.is_up(port).then_some(port)
        });
        postgres.execute("postgres", &format!("CREATE DATABASE {TEMPLATE}")).expect("a database");
        let url = Secret::new(postgres.url(TEMPLATE));
        blocking(async move { PostgresStore::migrate(&url).await }).expect("the migrations");
        postgres
    }

    /// A database that was just migrated and belongs to the caller; it is gone when it is dropped.
    pub fn database(&self) -> Database<'_> {
        self.copy_of(TEMPLATE)
    }

    /// A database without any table.
    pub fn empty_database(&self) -> Database<'_> {
        self.copy_of("template1")
    }

    fn copy_of(&self, template: &str) -> Database<'_> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute("postgres", &format!("CREATE DATABASE {name} TEMPLATE {template}")).expect("a database");
        Database { postgres: self, name }
    }

    /// How that database is reached.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@{}/{database}", self.password, self.address())
    }

    /// Where it listens, like `127.0.0.1:5432`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process number of the running server.
    pub fn pid(&self) -> i32 {
        self.server().as_ref().expect("a running server").pid()
    }

    /// Stops it as an operator does: it ends its sessions, and each tells its client.
    pub fn stop(&self) {
        self.end(Signal::SIGINT);
    }

    /// Stops it as a crash does: what was committed has to be recovered from its log at the next start.
    pub fn crash(&self) {
        self.end(Signal::SIGQUIT);
    }

    /// Starts it again where it was stopped, on the same port.
    pub fn start_again(&self) {
        *self.server() = Some(self.spawned(self.port));
        assert!(self.is_up(self.port), "Postgres doesn't start again:\n{}", self.log());
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Carries out statements in a session of their own.
    ///
    /// # Errors
    /// What the server says.
    pub fn execute(&self, database: &str, statements: &str) -> Result<(), String> {
        let (options, statements) = (self.options(database, self.port), statements.to_owned());
        blocking(async move {
            let mut connection = options.connect().await.map_err(|error| error.to_string())?;
            let done = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await;
            connection.close().await.map_err(|error| error.to_string())?;
            done.map(|_| ()).map_err(|error| error.to_string())
        })
    }

    fn options(&self, database: &str, port: u16) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username(USER);
        options.password(&self.password).database(database).disable_statement_logging()
    }

    fn server(&self) -> MutexGuard<'_, Option<Owned>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, signal: Signal) {
        let mut server = self.server().take().expect("a running server");
        process::send(server.pid(), signal);
        eventually(DEADLINE, "Postgres has stopped", || server.0.try_wait().expect("its end"));
    }

    fn spawned(&self, port: u16) -> Owned {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).expect("a log");
        let fsync = if self.durability == Durability::Fsync { "on" } else { "off" };
        let own = [
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "max_connections=300".to_owned(),
            format!("port={port}"),
            format!("fsync={fsync}"),
        ];
        let mut command = command(&program("postgres"), account());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .arg("-D")
            .arg(data(&self.dir))
            .args(own.iter().chain(&self.settings).flat_map(|setting| ["-c", setting]));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        Owned(command.spawn().expect("postgres starts"))
    }

    /// Whether the server answers, once it does; false when it has ended instead.
    fn is_up(&self, port: u16) -> bool {
        eventually(DEADLINE, "Postgres answers", || {
            let mut server = self.server();
            let server = server.as_mut().expect("a server");
            if server.0.try_wait().expect("its state").is_some() {
                return Some(false);
            }
            let options = self.options("postgres", port);
            blocking(async move { options.connect().await?.close().await }).ok().map(|()| true)
        })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what Postgres has logged:\n{}", self.log());
        }
        if self.server().is_some() {
            self.crash();
        }
        if let Some(mut watchdog) = self.watchdog.take() {
            // It removes the directory when its input ends.
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
    }
}

/// One database, for as long as this is there.
#[derive(Debug)]
pub struct Database<'p> {
    postgres: &'p Postgres,
    name: String,
}

impl Database<'_> {
    /// How it is reached.
    pub fn url(&self) -> String {
        self.postgres.url(&self.name)
    }

    /// The same, by way of another address, like `127.0.0.1:40123`.
    pub fn url_by(&self, address: &str) -> String {
        self.url().replace(&self.postgres.address(), address)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server that it is on.
    pub fn server(&self) -> &Postgres {
        self.postgres
    }

    /// A session past the store, as somebody with the password could have.
    pub async fn session(&self) -> PgConnection {
        self.postgres.options(&self.name, self.postgres.port).connect().await.expect("a session")
    }

    /// Carries out statements in a session of their own.
    ///
    /// # Errors
    /// What the server says.
    pub fn execute(&self, statements: &str) -> Result<(), String> {
        self.postgres.execute(&self.name, statements)
    }

    /// The number that a query finds.
    pub fn number(&self, query: &str) -> i64 {
        let (options, query) = (self.postgres.options(&self.name, self.postgres.port), query.to_owned());
        blocking(async move {
            let mut connection = options.connect().await?;
            let found =
                sqlx::query_scalar(AssertSqlSafe(format!("SELECT ({query})::bigint"))).fetch_one(&mut connection).await;
            connection.close().await?;
            found
        })
        .unwrap_or_else(|error: sqlx::Error| panic!("{error}"))
    }

    /// How many statements of the store wait for a lock.
    pub fn waiting(&self) -> i64 {
        self.number(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = 'windlass' AND wait_event_type = 'Lock'",
        )
    }

    /// Waits until so many do.
    pub fn until_waiting(&self, statements: i64) {
        let what = format!("{statements} statements wait for locks");
        eventually(DEADLINE, &what, || (self.waiting() >= statements).then_some(()));
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // A stopped server has lost it already, as far as anybody cares.
        if self.postgres.server().is_some() {
            let _ = self.postgres.execute("postgres", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}

/// Makes a cluster in `dir` whose superuser has that password.
fn initialise(dir: &Path, account: Option<(Uid, Gid)>, password: &str) {
    let file = dir.join("password");
    fs::write(&file, password).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a file that the server's user reads");
    let mut initdb = command(&program("initdb"), account);
    initdb.args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"]);
    initdb.arg("--pwfile").arg(&file).arg("--pgdata").arg(data(dir));
    let made = initdb.stdin(Stdio::null()).output().expect("initdb runs");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    fs::remove_file(&file).expect("a file");
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// A program of Postgres, as the user who may run it.
fn command(program: &Path, account: Option<(Uid, Gid)>) -> Command {
    let mut command = Command::new(program);
    // It may not see the directory that the tests were started in.
    command.current_dir("/").env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TZ", "UTC");
    if let Some((uid, gid)) = account {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command
}

/// Whom the server runs as, where we are root.
pub(crate) fn account() -> Option<(Uid, Gid)> {
    if !Uid::effective().is_root() {
        return None;
    }
    let users = ["postgres", "nobody"].into_iter().filter_map(|name| User::from_name(name).ok().flatten());
    users.map(|user| (user.uid, user.gid)).next().or_else(|| panic!("there is neither a user postgres nor nobody"))
}

/// A program of the newest Postgres that Debian's packages have put here, or else of the one in the path.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let newest = versions.filter_map(|version| {
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        Some((number, version.path().join("bin").join(name))).filter(|(_, program)| program.exists())
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = || std::env::split_paths(&path).map(|dir| dir.join(name)).find(|program| program.exists());
    let found = newest.max().map(|(_, program)| program).or_else(in_path);
    found.unwrap_or_else(|| panic!("there is no {name}: install Postgres 15 or later (tests/run does)"))
}

/// What the server says of its version, where one is installed.
pub fn version() -> Option<String> {
    let said = Command::new(program("postgres")).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// A process that waits until we are gone, then ends whatever server has its data in `dir`, and removes `dir`.
fn watchdog(dir: &Path) -> Child {
    let script = r#"cat > /dev/null
        pid=$(head -n 1 "$1/data/postmaster.pid" 2> /dev/null) && [ "$(cat "/proc/$pid/comm" 2> /dev/null)" = postgres ] && kill -QUIT "$pid"
        tries=0
        while [ -n "$pid" ] && kill -0 "$pid" 2> /dev/null && [ $tries -lt 100 ]; do sleep 0.05; tries=$((tries + 1)); done
        rm -rf "$1""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "watchdog"]).arg(dir).current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a watchdog")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Waits for `work` on a thread of its own, since the caller may be on a runtime already.
fn blocking<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
    thread::spawn(run).join().expect("an answer")
}

#[cfg(test)]
mod tests {
    use super::{Durability, Postgres};
    use crate::process::is_alive;

    #[test]
    fn what_is_committed_survives_a_crash_and_nothing_is_left_in_the_end() {
        let postgres = Postgres::start(Durability::NoFsync);
        let database = postgres.database();
        database.execute("CREATE TABLE kept (n integer); INSERT INTO kept VALUES (1)").unwrap();
        postgres.crash();
        assert!(database.execute("SELECT 1").is_err());
        postgres.start_again();
        database.execute("ALTER TABLE kept ALTER n SET NOT NULL").unwrap();
        postgres.stop();
        postgres.start_again();

        let (pid, dir) = (postgres.pid(), postgres.dir.clone());
        drop(database);
        drop(postgres);
        assert!(!is_alive(pid) && !dir.exists());
    }
}
