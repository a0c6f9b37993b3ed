//! NATS servers for tests: real ones on free loopback ports, each with a directory of its own, gone with their owner and
//! with the test's process, however that ends.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::certificates::Pair;
use crate::process::{self, Owned};
use crate::wait::eventually;

/// How long a server may take to start or to end.
const SOON: Duration = Duration::from_secs(20);
/// The release that `tests/nats-current` fetches.
const CURRENT: &str = "nats-server-2.15.0";
const FETCH: &str = "nats-current";

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The one that this machine has installed: Debian's, or whatever is found first.
    Installed,
    /// A current release, fetched by `tests/nats-current`.
    Current,
}

impl Version {
    /// Where its program is. None where a current one isn't here and can't be had, which is said aloud: its tests then
    /// do nothing.
    ///
    /// # Panics
    /// When no server is installed.
    pub fn program(self) -> Option<PathBuf> {
        match self {
            Self::Installed => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                // Debian puts it where only root looks.
                let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
                let found = places.map(|place| place.join("nats-server")).find(|program| program.is_file());
                Some(found.expect("nats-server is installed: tests/run does that"))
            }
            Self::Current => {
                static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
                FOUND.get_or_init(current).clone()
            }
        }
    }
}

/// How a server is set up.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub jetstream: bool,
    /// The most bytes of a message.
    pub max_payload: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self { jetstream: true, max_payload: 1024 * 1024 }
    }
}

/// A server. What it stores outlives its stops, not this.
#[derive(Debug)]
pub struct Nats {
    program: PathBuf,
    setup: Setup,
    /// What it shows of itself, where it speaks TLS alone.
    shown: Option<Pair>,
    place: TempDir,
    /// None before the first start, as the next.
    port: Option<u16>,
    monitoring_port: Option<u16>,
    process: Option<Owned>,
}

impl Nats {
    /// A server that runs, or none where that version can't be had.
    pub fn start(version: Version) -> Option<Self> {
        Self::with(version, Setup::default())
    }

    /// The same, set up otherwise.
    pub fn with(version: Version, setup: Setup) -> Option<Self> {
        let mut server = Self::stopped(version, setup)?;
        server.start_again();
        Some(server)
    }

    /// One that has a port and doesn't run yet.
    pub fn not_yet(version: Version) -> Option<Self> {
        let mut server = Self::with(version, Setup::default())?;
        server.stop();
        Some(server)
    }

    /// One that speaks TLS alone.
    pub fn secured(version: Version, shown: &Pair) -> Option<Self> {
        let mut server = Self::stopped(version, Setup::default())?;
        server.shown = Some(shown.clone());
        server.start_again();
        Some(server)
    }

    fn stopped(version: Version, setup: Setup) -> Option<Self> {
        let place = tempfile::tempdir().expect("a temporary directory");
        Some(Self {
            program: version.program()?,
            setup,
            shown: None,
            place,
            port: None,
            monitoring_port: None,
            process: None,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        let scheme = if self.shown.is_some() { "tls" } else { "nats" };
        format!("{scheme}://127.0.0.1:{}", self.port.expect("it has run"))
    }

    /// Where it tells, over HTTP, what it has: connections, subscriptions, streams.
    ///
    /// # Panics
    /// When it has never run.
    pub fn monitoring_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitoring_port.expect("it has run"))
    }

    /// Starts it, the second time on the ports and with the store that it had.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub fn start_again(&mut self) {
        let ports = self.place.path().join("ports");
        let _ = fs::remove_dir_all(&ports);
        fs::create_dir(&ports).expect("a directory");
        let configuration = self.place.path().join("nats.conf");
        fs::write(&configuration, self.configuration(&ports)).expect("a file");
        let log = fs::File::create(self.log_file()).expect("a file");
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(process::bound(command));
        let up = || {
            let (port, monitoring_port) = ports_in(&ports)?;
            TcpStream::connect(("127.0.0.1", port)).ok().map(|_| (port, monitoring_port))
        };
        let (port, monitoring_port) = eventually(SOON, "a NATS server", || {
            let process = self.process.as_mut().expect("it was started");
            let ended = process.0.try_wait().expect("its state");
            assert!(ended.is_none(), "the server ended: {}", fs::read_to_string(self.log_file()).unwrap_or_default());
            up()
        });
        (self.port, self.monitoring_port) = (Some(port), Some(monitoring_port));
    }

    /// Ends it as an operator does.
    ///
    /// # Panics
    /// When it doesn't end.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process::send(process.pid(), Signal::SIGTERM);
        eventually(SOON, "the server's end", || process.0.try_wait().expect("its state"));
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Freezes it: connections stay, and nothing is answered.
    ///
    /// # Panics
    /// When it doesn't run.
    pub fn freeze(&self) {
        process::send(self.process.as_ref().expect("it runs").pid(), Signal::SIGSTOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it doesn't run.
    pub fn thaw(&self) {
        process::send(self.process.as_ref().expect("it runs").pid(), Signal::SIGCONT);
    }

    /// Forgets all that it has stored. It must not run.
    ///
    /// # Panics
    /// When it runs.
    pub fn wipe(&self) {
        assert!(self.process.is_none(), "it runs");
        let _ = fs::remove_dir_all(self.store());
    }

    /// What the server's `JetStream` answers to `verb`, as in `STREAM.DELETE.NAME`.
    ///
    /// # Panics
    /// When it doesn't answer.
    pub async fn ask(&self, verb: &str, body: Value) -> Value {
        let client = self.client().await;
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = client.request(format!("$JS.API.{verb}"), body.into()).await.expect("an answer");
        serde_json::from_slice(&answer.payload).expect("JSON")
    }

    /// A plain client, as anybody may have.
    ///
    /// # Panics
    /// When the server doesn't run.
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.expect("a server")
    }

    /// The process number of the running server.
    ///
    /// # Panics
    /// When it doesn't run.
    pub fn pid(&self) -> i32 {
        self.process.as_ref().expect("it runs").pid()
    }

    /// Where it keeps its streams.
    pub fn store(&self) -> PathBuf {
        self.place.path().join("store")
    }

    fn log_file(&self) -> PathBuf {
        self.place.path().join("log")
    }

    fn configuration(&self, ports: &Path) -> String {
        let Setup { jetstream, max_payload } = self.setup;
        let [port, monitoring] = [self.port, self.monitoring_port].map(|port| port.map_or(-1, i32::from));
        let (ports, store) = (ports.display(), self.store());
        let store = store.display();
        let jetstream = if jetstream { format!("jetstream {{ store_dir: \"{store}\" }}\n") } else { String::new() };
        let tls = self.shown.as_ref().map_or_else(String::new, |Pair { certificate, key }| {
            format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n", certificate.display(), key.display())
        });
        let listens = format!("listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitoring}\"\n");
        format!("{listens}ports_file_dir: \"{ports}\"\nmax_payload: {max_payload}\n{jetstream}{tls}")
    }
}

/// The ports that a server has written down: the one for clients, and the one where it tells what it has.
fn ports_in(directory: &Path) -> Option<(u16, u16)> {
    let file = fs::read_dir(directory).ok()?.next()?.ok()?.path();
    let ports: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let port = |of: &str| ports[of][0].as_str()?.rsplit_once(':')?.1.parse().ok();
    Some((port("nats")?, port("monitoring")?))
}

/// A current server, fetched where it isn't here yet.
fn current() -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a test knows where it is");
    let tools = test.ancestors().nth(3).expect("a target directory").join("tools");
    let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join(FETCH);
    let fetched = Command::new(&fetch).arg(&tools).output().expect("a script of ours");
    if fetched.status.success() {
        return Some(tools.join(CURRENT));
    }
    let reason = String::from_utf8_lossy(&fetched.stderr).lines().last().unwrap_or_default().to_owned();
    // Past the test's own output, which nobody sees.
    let _ = writeln!(std::io::stderr(), "SKIPPED: tests against a current NATS server, which can't be had: {reason}");
    None
}

/// Returns once the server has dealt with all that this client has sent: a flush alone tells only that it was sent.
///
/// # Panics
/// When the server is gone.
pub async fn dealt_with(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.expect("a subscription");
    client.publish(inbox, "".into()).await.expect("it is sent");
    echo.next().await.expect("the server answers");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::clock;

    use super::{Nats, Setup, Version, dealt_with};
    use crate::http::Client;
    use crate::wait::eventually;

    #[test]
    fn a_server_comes_back_where_it_was() {
        let begun = clock::instant();
        let mut server = Nats::with(Version::Installed, Setup::default()).expect("one is installed");
        println!("a server starts in {:?}", begun.elapsed());
        let urls = (server.url(), server.monitoring_url());
        server.stop();
        server.start_again();
        assert_eq!((server.url(), server.monitoring_url()), urls);
        server.kill();
        server.start_again();
        assert_eq!((server.url(), server.monitoring_url()), urls);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_tells_how_many_subscriptions_it_has() {
        let server = Nats::start(Version::Installed).expect("one is installed");
        let monitor = Client::new(&server.monitoring_url(), "");
        let count = || monitor.get("/subsz").json["num_subscriptions"].as_u64().expect("a number");
        let before = count();
        let client = server.client().await;
        let _subscription = client.subscribe("a.subject").await.expect("a subscription");
        dealt_with(&client).await;
        // What showed that is unsubscribed a moment later.
        eventually(Duration::from_secs(10), "one more", || (count() == before + 1).then_some(()));
    }

    #[test]
    fn a_current_server_is_another_one() {
        if let Some(server) = Nats::start(Version::Current) {
            assert!(server.program != Version::Installed.program().expect("one is installed"));
        }
    }
}
