//! A coordinator in this process, and a worker that a test plays by hand over the real bus.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use coordinator::Coordinator;
use coordinator::service::Service;
use coordinator::store::Store;
use coordinator::store::sqlite::SqliteStore;
use coordinator::vault::MasterKeys;
use serde_json::{Value, json};
use shared::bus::local::LocalBus;
use shared::bus::{Address, Bus};
use shared::clock;
use shared::id::{Actor, Attempt, ClaimId, Instance, JobId, WorkerId};
use shared::job::{Event, Job};
use shared::seal::OneTimeKey;
use shared::spec::{Priority, parse_single};
use shared::time::Period;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use shared::wire::{self, Answer, Answers, Grant, Heartbeat, HeartbeatReply, Hello, Lane, Report, ReportKind, Reports};

/// How long a test waits for anything before it fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Fault points are the process's own: whoever arms one is alone, all others run side by side.
static TURNS: LazyLock<Arc<RwLock<()>>> = LazyLock::new(Arc::default);

/// A test's turn, until it is dropped.
pub enum Turn {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

impl Turn {
    /// Waits until no test that arms fault points runs.
    pub async fn shared() -> Self {
        Self::Shared(Arc::clone(&TURNS).read_owned().await)
    }

    /// Waits until no other test runs: for one that arms fault points.
    pub async fn alone() -> Self {
        Self::Alone(Arc::clone(&TURNS).write_owned().await)
    }
}

/// A coordinator on a database file, with the bus it serves.
pub struct Played {
    pub coordinator: Coordinator,
    pub service: Service,
    pub bus: Arc<LocalBus>,
    pub store: Arc<dyn Store>,
}

impl Played {
    /// Starts a coordinator on the database at `path`, with a bus of its own.
    pub async fn start(path: &Path) -> Self {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(path).await.expect("the database opens"));
        let bus = Arc::new(LocalBus::default());
        let (keys, _) = MasterKeys::generate();
        let coordinator =
            Coordinator::start(Arc::clone(&store), Arc::clone(&bus) as Arc<dyn Bus>, keys).await.expect("it starts");
        Self { service: coordinator.service(), coordinator, bus, store }
    }

    /// Submits a job.
    pub async fn submit(&self, spec: Value) -> JobId {
        let submission = parse_single(&spec, None).expect("the specification is right");
        let accepted = self.service.submit(&client(), vec![submission]).await.expect("the job is accepted");
        accepted[0].job.id
    }

    /// Waits until the job is as `wanted` says.
    pub async fn until(&self, id: JobId, what: &str, wanted: impl Fn(&Job) -> bool) -> Job {
        let mut watch = self.service.watch(id);
        let started = clock::instant();
        loop {
            let job = self.service.job(id).await.expect("the job can be read");
            if wanted(&job) {
                println!("{what}: after {:?}", started.elapsed());
                return job;
            }
            assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}; the job is {:?}", job.state);
            watch.changed().await;
        }
    }

    /// The kinds of the job's events, in order.
    pub async fn kinds(&self, id: JobId) -> Vec<&'static str> {
        self.timeline(id).await.iter().map(|event| event.kind.name()).collect()
    }

    /// The job's events, in order; checks that their numbers have no gap.
    pub async fn timeline(&self, id: JobId) -> Vec<Event> {
        let events = self.service.events(id, shared::id::Seq(0), 1000).await.expect("the timeline can be read");
        assert!(events.iter().zip(1..).all(|(event, n)| event.seq.0 == n), "a gap in {events:?}");
        events
    }
}

/// The one who submits in these tests.
pub fn client() -> Actor {
    Actor::Client("tester".to_owned())
}

/// A specification with one step that nobody will run.
pub fn one_step() -> Value {
    json!({"steps": [{"run": "true"}]})
}

/// A worker whose every word is said by the test.
#[derive(Clone)]
pub struct Hand {
    pub bus: Arc<LocalBus>,
    pub id: WorkerId,
    pub instance: Instance,
}

impl Hand {
    /// A worker that has said hello.
    pub async fn arrive(bus: &Arc<LocalBus>) -> Self {
        let hand =
            Self { bus: Arc::clone(bus), id: WorkerId(clock::random_uuid()), instance: Instance(clock::random_uuid()) };
        hand.hello().await;
        hand
    }

    /// Says hello.
    pub async fn hello(&self) {
        let hello = Hello { worker: self.id, instance: self.instance, tags: Vec::new(), slots: 8 };
        let body = wire::encode(&hello);
        self.bus.request(&Address::Hello(self.id), body, DEADLINE).await.expect("the hello is answered");
    }

    /// Takes the offer of this job and claims it.
    pub async fn claim(&self, job: JobId) -> Answer {
        let lane = Lane { tags: Vec::new(), priority: Priority::Normal };
        loop {
            let taken = self.bus.take(std::slice::from_ref(&lane), 1, DEADLINE).await.expect("offers can be taken");
            let delivery = taken.into_iter().next().expect("there is an offer");
            if delivery.offer.job == job {
                let attempt = delivery.offer.attempt;
                delivery.done();
                return self.claim_attempt(job, attempt).await;
            }
            delivery.back(Duration::from_millis(10));
        }
    }

    /// Claims an attempt.
    pub async fn claim_attempt(&self, job: JobId, attempt: Attempt) -> Answer {
        let claim = ClaimId(clock::random_uuid());
        let recipient = OneTimeKey::generate().recipient();
        self.say(job, attempt, ReportKind::Claim { claim, wait: Period::from_secs(10), recipient }).await
    }

    /// Takes the job's offer, claims it, and must be granted it.
    pub async fn must_get(&self, job: JobId) -> Grant {
        match self.claim(job).await {
            Answer::Granted(grant) => *grant,
            other => panic!("the claim was answered with {other:?}"),
        }
    }

    /// Reports one thing and returns the answer.
    pub async fn say(&self, job: JobId, attempt: Attempt, what: ReportKind) -> Answer {
        let reports = vec![Report { job, attempt, what }];
        let body = wire::encode(&Reports { worker: self.id, instance: self.instance, reports });
        let to = Address::Report(job.shard(), self.id);
        let reply = self.bus.request(&to, body, DEADLINE).await.expect("the report is answered");
        let mut answers: Answers = wire::decode(&reply).expect("the answer can be read");
        answers.answers.remove(0)
    }

    /// Sends a heartbeat that names this attempt.
    pub async fn beat(&self, job: JobId, attempt: Attempt) -> HeartbeatReply {
        let beat = Heartbeat { worker: self.id, instance: self.instance, attempts: vec![(job, attempt)] };
        let to = Address::Heartbeat(job.shard(), self.id);
        let reply = self.bus.request(&to, wire::encode(&beat), DEADLINE).await.expect("the heartbeat is answered");
        wire::decode(&reply).expect("the answer can be read")
    }
}
