//! A cluster as its operators have it: Postgres, NATS, coordinators and workers, each a process of its own, on free ports
//! and in directories that nobody else uses. Any of them can be killed, stopped, started again, or cut off.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shared::clock;
use tempfile::TempDir;

use crate::dev::DEADLINE;
use crate::http::{Answer, Client};
use crate::nats::{Nats, Version};
use crate::server::Server;
use crate::wait::eventually;
use crate::windlass::{self, windlass_at};
use futures_util::TryStreamExt;

pub(crate) mod database;
pub mod secured;

pub use database::Database;
use database::blocking;
use secured::Secured;

/// Who the tests are.
pub(crate) const TOKEN: &str = "a-bootstrap-token-of-the-tests";
/// How long a load may take to come to its end, while parts of the cluster die and come back.
pub const LOAD_WITHIN: Duration = Duration::from_mins(5);

/// The most clusters at a time: they wait for leases most of their time, and a third would be in the way of two.
const CLUSTERS_MAX: u32 = 2;

/// How many clusters there are.
static CLUSTERS: Mutex<u32> = Mutex::new(0);
static FEWER_CLUSTERS: Condvar = Condvar::new();

/// The right to have a cluster.
pub(crate) struct Turn;

impl Turn {
    pub(crate) fn take() -> Self {
        let count = CLUSTERS.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |count: &mut u32| *count >= CLUSTERS_MAX;
        *FEWER_CLUSTERS.wait_while(count, busy).unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *CLUSTERS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FEWER_CLUSTERS.notify_one();
    }
}

/// A running cluster.
pub struct Cluster {
    pub coordinators: Vec<Coordinator>,
    pub workers: Vec<Worker>,
    pub nats: Nats,
    pub postgres: Database,
    program: PathBuf,
    keys: String,
    place: TempDir,
    /// What stands for all of it, where it speaks TLS alone.
    secured: Option<Secured>,
    _turn: Turn,
}

/// One coordinator.
pub struct Coordinator {
    pub server: Server,
    /// Speaks to its API as an administrator.
    pub client: Client,
    pub address: String,
}

/// One worker, which keeps its directory from one start to the next.
pub struct Worker {
    pub server: Server,
    name: String,
    data_dir: PathBuf,
    program: PathBuf,
    settings: Vec<(String, String)>,
    arguments: Vec<String>,
}

impl Cluster {
    /// A cluster of so many coordinators and workers, all of which are up.
    pub fn start(coordinators: usize, workers: usize) -> Self {
        let mut cluster = Self::bare();
        for _ in 0..coordinators {
            cluster.add_coordinator(&[]);
        }
        cluster.until_spread();
        for _ in 0..workers {
            cluster.add_worker(&[]);
        }
        cluster
    }

    /// Postgres and NATS, and nobody on them yet.
    pub fn bare() -> Self {
        Self::bare_of(windlass::path(), || Database::start(&[]))
    }

    /// The same for another build of the program, on a database of another kind.
    pub fn bare_of(program: PathBuf, database: impl FnOnce() -> Database) -> Self {
        let turn = Turn::take();
        let nats = Nats::start(Version::Installed).expect("a NATS server is installed");
        let keys = format!("test:{}", STANDARD.encode(clock::random::<32>()));
        Self {
            coordinators: Vec::new(),
            workers: Vec::new(),
            nats,
            postgres: database(),
            program,
            keys,
            place: tempfile::tempdir().expect("a temporary directory"),
            secured: None,
            _turn: turn,
        }
    }

    /// Starts one more coordinator, with more settings, and waits until it serves; returns its index.
    pub fn add_coordinator(&mut self, settings: &[(&str, &str)]) -> usize {
        let index = self.coordinators.len();
        let started = self.coordinator(&format!("coordinator {index}"), settings);
        self.coordinators.push(started);
        index
    }

    /// Starts that coordinator again: a new process with nothing of the old one.
    pub fn restart_coordinator(&mut self, index: usize, settings: &[(&str, &str)]) {
        self.coordinators[index] = self.coordinator(&format!("coordinator {index}, again"), settings);
    }

    fn coordinator(&self, name: &str, settings: &[(&str, &str)]) -> Coordinator {
        let mut command = self.coordinator_command();
        command.envs(settings.iter().copied());
        let mut server = Server::start(name, command);
        let address = server.address();
        let client = match &self.secured {
            Some(secured) => Client::trusting(&address, TOKEN, &secured.authority.file()),
            None => Client::new(&address, TOKEN),
        };
        Coordinator { server, client, address }
    }

    /// `windlass coordinator` for this cluster.
    pub fn coordinator_command(&self) -> Command {
        let mut command = windlass_at(&self.program);
        command.arg("coordinator").env("HOME", self.place.path()).env("WINDLASS_LISTEN", "127.0.0.1:0");
        command.env("WINDLASS_DATABASE_URL", self.postgres.url()).env("WINDLASS_NATS_URL", self.nats.url());
        command.env("WINDLASS_MASTER_KEYS", &self.keys).env("WINDLASS_BOOTSTRAP_TOKEN", TOKEN);
        if let Some(secured) = &self.secured {
            command.envs(secured.settings(&self.postgres));
        }
        command
    }

    /// Starts one more worker with two slots, and these settings above its own, and waits until it is known; returns its
    /// index.
    pub fn add_worker(&mut self, settings: &[(&str, &str)]) -> usize {
        self.add_worker_with(&["--slots", "2"], settings)
    }

    /// The same with these arguments.
    pub fn add_worker_with(&mut self, arguments: &[&str], settings: &[(&str, &str)]) -> usize {
        let index = self.workers.len();
        let name = format!("worker {index}");
        let data_dir = self.place.path().join(format!("worker-{index}"));
        let join = self.client().post("/api/v1/tokens/join", &json!({}));
        assert_eq!(join.status, 201, "a join token: {}", join.text);
        let token = join.json["token"].as_str().expect("a token");
        let own = [("WINDLASS_NATS_URL", &*self.nats.url()), ("WINDLASS_JOIN_TOKEN", token)];
        let all = own.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<_> = all.collect();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let server = worker_started(&self.program, &name, &data_dir, &settings, &arguments);
        let program = self.program.clone();
        self.workers.push(Worker { server, name, data_dir, program, settings, arguments });
        eventually(DEADLINE, &format!("{} workers are known", index + 1), || {
            let known = self.client().get("/api/v1/workers").json;
            let seen = known["workers"].as_array()?.iter().filter(|worker| !worker["seen_at"].is_null()).count();
            (seen > index).then_some(())
        });
        index
    }

    /// Starts a copy of that worker, with all that is in its directory but what it runs; returns the copy's index.
    pub fn copy_of_worker(&mut self, of: usize) -> usize {
        let index = self.workers.len();
        let data_dir = self.place.path().join(format!("worker-{index}"));
        fs::create_dir_all(data_dir.join("worker")).expect("a directory");
        for name in ["identity.json", "starts"] {
            let original = self.workers[of].data_dir.join("worker").join(name);
            fs::copy(original, data_dir.join("worker").join(name)).expect("a copy");
        }
        let name = format!("worker {index}, a copy of {of}");
        let Worker { settings, arguments, .. } = &self.workers[of];
        let (settings, arguments) = (settings.clone(), arguments.clone());
        let server = worker_started(&self.program, &name, &data_dir, &settings, &arguments);
        let program = self.program.clone();
        self.workers.push(Worker { server, name, data_dir, program, settings, arguments });
        index
    }

    /// Waits until every shard has an owner that lives, and none of those who live is without.
    pub fn until_spread(&mut self) {
        let living: usize =
            self.coordinators.iter_mut().map(|coordinator| usize::from(coordinator.server.runs())).sum();
        eventually(DEADLINE, "the shards are spread", || {
            let owners = self.postgres.rows(
                "SELECT count(*)::text FROM shards s JOIN coordinators c ON c.id = s.owner \
                 WHERE c.expires_at > clock_timestamp() GROUP BY s.owner",
            );
            let counts: Vec<u32> = owners.iter().filter_map(|row| row.first()?.parse().ok()).collect();
            (counts.len() == living && counts.iter().sum::<u32>() == 256).then_some(())
        });
    }

    /// The index of the coordinator that owns the job's shard.
    pub fn owner(&self, job: &str) -> usize {
        eventually(DEADLINE, "the job's shard has an owner", || {
            let owner = self.postgres.rows(&format!(
                "SELECT c.address FROM jobs j JOIN shards s ON s.shard = j.shard JOIN coordinators c ON c.id = s.owner \
                 WHERE j.id = '{job}'"
            ));
            let address = owner.first()?.first()?.clone();
            self.coordinators.iter().position(|coordinator| coordinator.address == address)
        })
    }

    /// The index of one that doesn't.
    pub fn other(&self, job: &str) -> usize {
        let owner = self.owner(job);
        (0..self.coordinators.len()).find(|index| *index != owner).expect("there is another")
    }

    /// Speaks to the first coordinator that serves.
    pub fn client(&self) -> &Client {
        let serves = |coordinator: &&Coordinator| {
            coordinator.client.try_send("GET", "/healthz", &[], b"").is_ok_and(|answer| answer.status == 200)
        };
        &self.coordinators.iter().find(serves).expect("a coordinator serves").client
    }

    /// Submits a job to the first coordinator that serves, until it is accepted; returns its id.
    pub fn submit(&self, job: &Value) -> String {
        self.submit_to(self.client(), job)
    }

    /// Submits a job, until it is accepted; returns its id. A repetition under its key is the same job.
    pub fn submit_to(&self, client: &Client, job: &Value) -> String {
        let key = uuid::Uuid::new_v4().to_string();
        eventually(DEADLINE, "a job is accepted", || {
            let headers = [("content-type", "application/json"), ("idempotency-key", &*key)];
            let answer = client.try_send("POST", "/api/v1/jobs", &headers, job.to_string().as_bytes()).ok()?;
            match answer.status {
                200 | 201 => Some(answer.json["id"].as_str().expect("a job has an id").to_owned()),
                429 | 503 => None,
                _ => panic!("submitting {job}: {}", answer.text),
            }
        })
    }

    /// Asks, of whoever serves, until the answer isn't 503.
    pub fn get(&self, path: &str) -> Answer {
        eventually(DEADLINE, &format!("an answer to {path}"), || {
            let each = self.coordinators.iter().map(|c| c.client.try_send("GET", path, &[], b""));
            each.flatten().find(|answer| answer.status != 503)
        })
    }

    /// The job as it stands.
    pub fn job(&self, id: &str) -> Value {
        let answer = self.get(&format!("/api/v1/jobs/{id}"));
        assert_eq!(answer.status, 200, "asking for job {id}: {}", answer.text);
        answer.json
    }

    /// The job's timeline: all of its events.
    pub fn events(&self, id: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/jobs/{id}/events?limit=1000"));
        assert_eq!(answer.status, 200, "asking for the events of job {id}: {}", answer.text);
        answer.json["events"].as_array().cloned().expect("a timeline has events")
    }

    /// The kinds of the job's events, in order.
    pub fn kinds(&self, id: &str) -> Vec<String> {
        self.events(id).iter().map(|event| event["kind"].as_str().expect("a kind").to_owned()).collect()
    }

    /// The job's log as plain text.
    pub fn text(&self, id: &str) -> String {
        let client = self.client();
        client.send("GET", &format!("/api/v1/jobs/{id}/logs"), &[("accept", "text/plain")], b"").text
    }

    /// The job once it is in that state.
    pub fn until(&self, id: &str, state: &str) -> Value {
        eventually(DEADLINE, &format!("job {id} is {state}"), || Some(self.job(id)).filter(|job| job["state"] == state))
    }

    /// The job once it has ended, however it did.
    pub fn ended(&self, id: &str, within: Duration) -> Value {
        eventually(within, &format!("job {id} has ended"), || {
            Some(self.job(id)).filter(|job| !job["finished_at"].is_null())
        })
    }

    /// Waits until all of these jobs have ended, and judges them: each has one terminal event, which is its state; no
    /// event number is missing or doubled, neither in a job nor in a shard.
    pub fn judged(&self, ids: &[String], within: Duration) -> BTreeMap<String, usize> {
        let list = ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
        eventually(within, &format!("{} jobs have ended", ids.len()), || {
            let open = format!("SELECT count(*)::text FROM jobs WHERE id IN ({list}) AND finished_at IS NOT NULL");
            (self.postgres.rows(&open)[0][0] == ids.len().to_string()).then_some(())
        });
        let wrong = self.postgres.rows(&format!(
            "SELECT j.id::text, j.state, string_agg(e.kind, ' ' ORDER BY e.seq) FROM jobs j JOIN job_events e ON e.job_id = j.id \
             WHERE j.id IN ({list}) GROUP BY j.id HAVING count(*) FILTER (WHERE e.kind IN ('succeeded', 'failed', 'canceled')) <> 1 \
             OR max(e.kind) FILTER (WHERE e.kind IN ('succeeded', 'failed', 'canceled')) <> j.state \
             OR max(e.seq) <> count(*) OR max(e.seq) <> j.seq"
        ));
        assert!(wrong.is_empty(), "jobs without one true end: {wrong:?}");
        let gaps = "SELECT shard::text, count(*)::text, max(shard_seq)::text FROM job_events GROUP BY shard \
             HAVING count(*) <> max(shard_seq) OR min(shard_seq) <> 1";
        assert_eq!(self.postgres.rows(gaps), Vec::<Vec<String>>::new(), "shards whose events have gaps");
        let mut states = BTreeMap::new();
        let counted = format!("SELECT state, count(*)::text FROM jobs WHERE id IN ({list}) GROUP BY state");
        for row in self.postgres.rows(&counted) {
            states.insert(row[0].clone(), row[1].parse().expect("a number"));
        }
        println!("{} jobs: {states:?}", ids.len());
        states
    }

    /// Waits until everything that was committed is published.
    pub fn until_published(&self) {
        eventually(LOAD_WITHIN, "all events are published", || {
            let behind = "SELECT s.shard::text FROM shards s JOIN job_events e ON e.shard = s.shard \
                 GROUP BY s.shard, s.published_seq HAVING max(e.shard_seq) > s.published_seq";
            self.postgres.rows(behind).is_empty().then_some(())
        });
    }

    /// Deletes every stream, with all that is in it.
    pub fn delete_streams(&self) {
        let url = self.nats.url();
        blocking(async move {
            let client = async_nats::connect(url).await.expect("a connection");
            let context = async_nats::jetstream::new(client);
            let names: Vec<String> = context.stream_names().try_collect().await.expect("the streams");
            assert_eq!(names.len(), 2, "{names:?}");
            for name in names {
                context.delete_stream(name).await.expect("a stream less");
            }
        });
    }

    /// Where everything of the cluster's processes lies, but for the servers' own stores.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// The coordinators' master keys, as their setting has them.
    pub fn master_keys(&self) -> &str {
        &self.keys
    }

    /// A directory for what jobs note.
    pub fn notes(&self) -> PathBuf {
        let notes = self.place.path().join("notes");
        fs::create_dir_all(&notes).expect("a directory");
        notes
    }
}

impl Worker {
    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same directory.
    pub fn restart(&mut self) {
        self.server = worker_started(&self.program, &self.name, &self.data_dir, &self.settings, &self.arguments);
    }

    /// Its id, once it has enrolled.
    pub fn id(&self) -> String {
        let path = self.data_dir.join("worker/identity.json");
        let text = fs::read_to_string(&path).expect("it has enrolled");
        let identity: Value = serde_json::from_str(&text).expect("an identity");
        identity["worker"].as_str().expect("its id").to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        self.server.signal(signal);
    }

    /// Waits until it has ended.
    pub fn ended(&mut self, within: Duration) -> ExitStatus {
        self.server.ended(within)
    }
}

fn worker_started(
    program: &Path,
    name: &str,
    data_dir: &Path,
    settings: &[(String, String)],
    arguments: &[String],
) -> Server {
    let mut command = windlass_at(program);
    command.arg("worker").args(arguments).env("WINDLASS_DATA_DIR", data_dir).env("HOME", data_dir);
    // Of two settings of one name the later one counts.
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    Server::start(name, command)
}
