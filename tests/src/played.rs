//! A coordinator in this process, and a worker that a test plays by hand over the real bus.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use coordinator::caller::Caller;
use coordinator::retention::RETENTION_DEFAULT;
use coordinator::service::Service;
use coordinator::store::measured::{Measured, Meters};
use coordinator::store::sqlite::SqliteStore;
use coordinator::store::{Store, TokenKind};
use coordinator::vault::MasterKeys;
use coordinator::{Config, Coordinator, StartError};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::bus::local::LocalBus;
use shared::bus::{Address, Bus};
use shared::clock;
use shared::id::{Actor, Attempt, ClaimId, Instance, JobId, RequestId, Shard, WorkerId};
use shared::job::{Event, Job, Rejection};
use shared::proof::ProofKey;
use shared::seal::OneTimeKey;
use shared::spec::{Priority, parse_single};
use shared::time::Period;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use shared::wire::{
    self, Answer, Answers, Enrol, Enrolment, Grant, Heartbeat, HeartbeatReply, Hello, KeyReply, KeyRequest, Lane,
    Report, ReportKind, Reports, ShardAnswers, Word, Words,
};

/// How long a test waits for anything before it fails.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How long a hand waits for an answer that may not come.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

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
    meters: Arc<Meters>,
}

impl Played {
    /// Starts a coordinator on the database at `path`, with a bus of its own, and with the master keys that the first one
    /// there had.
    pub async fn start(path: &Path) -> Self {
        let kept = path.with_extension("keys");
        let text = std::fs::read_to_string(&kept).unwrap_or_else(|_| {
            let (_, text) = MasterKeys::generate();
            std::fs::write(&kept, text.reveal()).expect("the master keys are kept");
            text.reveal().to_owned()
        });
        Self::start_with(path, &text).await.expect("it starts")
    }

    /// The same with these master keys.
    ///
    /// # Errors
    /// Why it doesn't start.
    pub async fn start_with(path: &Path, keys: &str) -> Result<Self, StartError> {
        let store = Arc::new(SqliteStore::open(path).await.expect("the database opens"));
        Self::start_on(store, Arc::default(), keys, "").await
    }

    /// The same beside others, on a store and a bus that they share, at that address.
    ///
    /// # Errors
    /// Why it doesn't start.
    pub async fn start_on(
        store: Arc<dyn Store>,
        bus: Arc<LocalBus>,
        keys: &str,
        address: &str,
    ) -> Result<Self, StartError> {
        Self::start_keeping(store, bus, keys, address, RETENTION_DEFAULT).await
    }

    /// The same, where jobs are kept for so long after their end.
    ///
    /// # Errors
    /// Why it doesn't start.
    pub async fn start_keeping(
        store: Arc<dyn Store>,
        bus: Arc<LocalBus>,
        keys: &str,
        address: &str,
        retention: Period,
    ) -> Result<Self, StartError> {
        let store = Measured::new(store, None);
        let meters = store.meters();
        let store: Arc<dyn Store> = Arc::new(store);
        let (keys, address) = (MasterKeys::parse(keys).expect("master keys"), address.to_owned());
        let config =
            Config { store: Arc::clone(&store), bus: Arc::clone(&bus) as Arc<dyn Bus>, keys, address, retention };
        let coordinator = match Coordinator::start(config).await {
            Ok(coordinator) => coordinator,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        Ok(Self { service: coordinator.service(), coordinator, bus, store, meters })
    }

    /// How often the store was asked for that so far.
    pub fn asked(&self, verb: &str) -> u64 {
        let readings = self.meters.snapshot();
        readings.iter().filter(|reading| reading.verb == verb).flat_map(|reading| reading.outcomes).sum()
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
    pub start: u64,
    pub key: ProofKey,
}

impl Hand {
    /// A worker that has enrolled and said hello.
    pub async fn arrive(played: &Played) -> Self {
        let (by, day) = (Caller::from(Actor::Coordinator), Period::from_secs(24 * 60 * 60));
        let token = played.service.make_token(&by, TokenKind::Join, "a test", day).await.expect("a join token").text;
        let key = OneTimeKey::generate();
        let enrol = wire::encode(&Enrol { token, name: "hand".to_owned(), recipient: key.recipient() });
        let reply = played.bus.request(&Address::Enrol, enrol, DEADLINE).await.expect("the enrolment is answered");
        let Enrolment::Enrolled { worker, secret } = wire::decode(&reply).expect("the answer can be read") else {
            panic!("the enrolment is refused");
        };
        let secrets = key.open(&secret).expect("the secret is sealed to the key");
        let hand = Self {
            bus: Arc::clone(&played.bus),
            id: worker,
            instance: Instance(clock::random_uuid()),
            start: 1,
            key: ProofKey::of(&secrets.0[wire::IDENTITY_SECRET]),
        };
        hand.hello().await;
        hand
    }

    /// The same worker, started anew; it hasn't said hello yet.
    #[must_use]
    pub fn reborn(&self, played: &Played) -> Self {
        let (bus, instance) = (Arc::clone(&played.bus), Instance(clock::random_uuid()));
        Self { bus, instance, start: self.start + 1, ..self.clone() }
    }

    /// Says hello until it is answered.
    pub async fn hello(&self) {
        let hello = Hello {
            worker: self.id,
            instance: self.instance,
            start: self.start,
            tags: Vec::new(),
            slots: 8,
            running: 0,
            draining: false,
        };
        let to = Address::Hello(self.id);
        let body = self.key.prove(&to, &wire::encode(&hello));
        let until = clock::instant() + DEADLINE;
        while self.bus.request(&to, body.clone(), DEADLINE).await.is_err() {
            assert!(clock::instant() < until, "the hello is answered");
        }
    }

    /// Says something to the owner of a shard.
    pub async fn ask<T: DeserializeOwned>(&self, to: &Address, body: &[u8]) -> T {
        let reply = self.bus.request(to, self.key.prove(to, body), DEADLINE).await.expect("it is answered");
        let word: Word<T> = wire::decode(&reply).expect("the answer can be read");
        assert!(word.epoch.0 > 0);
        word.said
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
        self.claim_for(job, attempt, Some(OneTimeKey::generate().recipient())).await
    }

    /// The same for that recipient of the job's secrets.
    pub async fn claim_for(&self, job: JobId, attempt: Attempt, recipient: Option<String>) -> Answer {
        let claim = ClaimId(clock::random_uuid());
        self.say(job, attempt, ReportKind::Claim { claim, wait: Period::from_secs(10), recipient }).await
    }

    /// Takes the job's offer, claims it, and must be granted it.
    pub async fn must_get(&self, job: JobId) -> Grant {
        loop {
            match self.claim(job).await {
                Answer::Granted(grant) => return *grant,
                // A lost offer that was made again may be of an attempt before: it is dropped.
                Answer::Refused { why: Rejection::Stale } => {}
                other => panic!("the claim was answered with {other:?}"),
            }
        }
    }

    /// Reports one thing and returns the answer.
    pub async fn say(&self, job: JobId, attempt: Attempt, what: ReportKind) -> Answer {
        self.say_all(job, attempt, vec![what]).await.remove(0)
    }

    /// Reports several things of one attempt in one message and returns the answers.
    pub async fn say_all(&self, job: JobId, attempt: Attempt, what: Vec<ReportKind>) -> Vec<Answer> {
        let reports = what.into_iter().map(|what| Report { job, attempt, what }).collect();
        let body = wire::encode(&Reports { worker: self.id, instance: self.instance, reports });
        let to = Address::Report(job.shard(), self.id);
        self.ask::<Answers>(&to, &body).await.answers
    }

    /// Reports addressed to one shard, about its jobs and those of others; nothing where nobody answers. Returns what is
    /// said for each shard, by whom.
    pub async fn say_together(&self, to: Shard, reports: Vec<Report>) -> Option<Words> {
        let is_bundle = reports.iter().any(|report| report.job.shard() != to);
        let body = wire::encode(&Reports { worker: self.id, instance: self.instance, reports });
        let to = Address::Report(to, self.id);
        let reply = self.bus.request(&to, self.key.prove(&to, &body), ANSWER_WITHIN).await.ok()?;
        if is_bundle {
            return Some(wire::decode(&reply).expect("the answer can be read"));
        }
        let Word { shard, epoch, owner, said } = wire::decode::<Word<Answers>>(&reply).expect("the answer can be read");
        let words = vec![ShardAnswers { shard, epoch, answers: said.answers }];
        Some(Words { owner: owner.expect("it names itself"), words })
    }

    /// A request for a deploy key, and what opens its answer.
    pub fn key_request(&self, job: JobId, attempt: Attempt, key: &str) -> (KeyRequest, OneTimeKey) {
        let (request, once) = (RequestId(clock::random_uuid()), OneTimeKey::generate());
        let (worker, instance, recipient) = (self.id, self.instance, once.recipient());
        (KeyRequest { worker, instance, request, job, attempt, key: key.to_owned(), recipient }, once)
    }

    /// Asks for a deploy key.
    pub async fn ask_key(&self, request: &KeyRequest) -> KeyReply {
        self.ask(&Address::Key(request.job.shard(), self.id), &wire::encode(request)).await
    }

    /// Sends a heartbeat that names this attempt.
    pub async fn beat(&self, job: JobId, attempt: Attempt) -> HeartbeatReply {
        let beat = Heartbeat { worker: self.id, instance: self.instance, attempts: vec![(job, attempt)] };
        let to = Address::Heartbeat(job.shard(), self.id);
        self.ask(&to, &wire::encode(&beat)).await
    }
}
