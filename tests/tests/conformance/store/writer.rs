//! A coordinator as the cases need it: it has taken over, keeps the numbers as a committer does, and brings jobs to
//! the states that a case begins with.

use std::collections::HashMap;
use std::sync::Arc;

use coordinator::store::{
    AuditLine, Batch, DeployKey, Enrolled, Error, IdempotencyKey, Member, NewJob, NewWorker, Store, Submitted, Token,
    TokenKind, Write, Written,
};
use serde_json::{Value, json};
use shared::clock;
use shared::id::{Actor, ClaimId, CoordinatorId, Instance, JobId, RequestId, Shard, ShardSeq, TokenId, WorkerId};
use shared::job::{AttemptEnd, Cancel, Claim, Command, Job, Transition, WorkerMessage, WorkerWord, submit};
use shared::log::LogSummary;
use shared::proof::ProofKey;
use shared::spec::{JobSpec, parse_single};
use shared::time::{Period, Time};
use shared::wire::Hello;

use super::Database;

/// The owner of all shards of one database.
pub struct Writer {
    pub store: Arc<dyn Store>,
    pub id: CoordinatorId,
    pub last: HashMap<Shard, ShardSeq>,
}

impl Writer {
    /// A coordinator that has taken everything over through a new handle; whoever was there before is fenced.
    pub async fn of(database: &dyn Database) -> Self {
        Self::over(database, database.open().await).await
    }

    /// The same through `store`.
    pub async fn over(database: &dyn Database, store: Arc<dyn Store>) -> Self {
        database.end_leases().await;
        let writer = Self::beside(store).await;
        let cluster = writer.store.renew(writer.id).await.expect("a lease");
        let ended = cluster.members.iter().filter(|(member, ended)| *ended && member.id != writer.id);
        let ended: Vec<_> = ended.map(|(member, _)| member.id).collect();
        writer.store.bury(writer.id, &ended).await.expect("a burial");
        writer.taking(&all_shards()).await
    }

    /// A coordinator that has joined and owns nothing; where there can be several, the others go on.
    pub async fn beside(store: Arc<dyn Store>) -> Self {
        let member = member();
        store.join(&member).await.expect("a place among the coordinators");
        Self { store, id: member.id, last: HashMap::new() }
    }

    /// The same coordinator with what it could take over of `shards`.
    pub async fn taking(mut self, shards: &[Shard]) -> Self {
        let owned = self.store.take_over(self.id, shards).await.expect("a takeover");
        self.last.extend(owned.into_iter().map(|owned| (owned.shard, owned.last)));
        self
    }

    /// Commits a batch and, where it took, counts its events on.
    pub async fn commit(&mut self, writes: Vec<Write>) -> Result<Vec<Written>, Error> {
        let batch = Arc::new(Batch { last: self.last.clone(), writes });
        let written = self.store.commit(self.id, Arc::clone(&batch)).await?;
        assert_eq!(written.len(), batch.writes.len(), "an answer for each write");
        for (write, written) in batch.writes.iter().zip(&written) {
            for (first, transition) in taken(write, written) {
                let last = self.last.get_mut(&transition.job.id.shard()).expect("an owned shard");
                assert_eq!(first, last.next(), "numbers follow on");
                last.0 += transition.events.len() as u64;
            }
        }
        Ok(written)
    }

    /// Commits one write.
    pub async fn commit_one(&mut self, write: Write) -> Written {
        self.commit(vec![write]).await.expect("a commit").remove(0)
    }

    /// Stores a new job.
    pub async fn submit(&mut self, new: NewJob) -> Job {
        let job = new.transition.job.clone();
        let written = self.commit_one(Write::Submit(vec![new])).await;
        let Written::Submitted(submitted) = written else { panic!("refused: {written:?}") };
        assert!(matches!(submitted[..], [Submitted::New(_)]));
        job
    }

    /// Stores a job without anything special, in `shard`.
    pub async fn submit_plain(&mut self, shard: Shard) -> Job {
        self.submit(new_job(shard, json!({}), at(0))).await
    }

    /// Applies a command and commits what follows.
    pub async fn change(&mut self, job: &Job, command: Command, now: Time) -> Job {
        let transition = job.apply(command, now).expect("a command that the job takes");
        let mut next = transition.job.clone();
        match self.commit_one(change(job, transition)).await {
            Written::Changed { fence, .. } => next.fence = fence.unwrap_or(next.fence),
            refused => panic!("refused: {refused:?}"),
        }
        next
    }

    /// Has `worker` claim the job.
    pub async fn grant(&mut self, job: &Job, worker: WorkerId) -> Job {
        self.change(job, claim(job, worker), at(1)).await
    }

    /// Has the holder of the job tell that it has succeeded.
    pub async fn finish(&mut self, job: &Job, now: Time) -> Job {
        self.change(job, said(job, WorkerWord::End { end: AttemptEnd::Succeeded, log: LogSummary::default() }), now)
            .await
    }

    /// A worker that has enrolled with a join token of its own.
    pub async fn enrolled(&self) -> WorkerId {
        let token = token(TokenKind::Join);
        assert_eq!(self.store.add_token(self.id, &token, &audit_line("token", "")).await, Ok(true));
        let new = new_worker();
        assert_eq!(self.store.enrol(self.id, token.digest, &new, at(0)).await, Ok(Enrolled::Yes));
        new.id
    }

    /// What is stored of the job.
    pub async fn stored(&self, job: &Job) -> Job {
        self.store.job(job.id).await.expect("an answer").expect("a job")
    }

    /// The shards' last numbers as the events themselves tell them, to be compared with what a committer counted.
    pub async fn numbers(&self, shard: Shard) -> Vec<u64> {
        let events = self.store.shard_events(shard, ShardSeq(0), 10_000).await.expect("events");
        events.into_iter().map(|(number, _)| number.0).collect()
    }
}

/// That many seconds after the beginning of a case.
pub fn at(seconds: i64) -> Time {
    Time::from_micros(1_790_000_000_000_000 + seconds * 1_000_000)
}

pub fn shard(number: u16) -> Shard {
    Shard::new(number).expect("a shard")
}

pub fn all_shards() -> Vec<Shard> {
    Shard::all().collect()
}

/// A coordinator that nobody knows yet.
pub fn member() -> Member {
    let id = CoordinatorId(clock::random_uuid());
    Member { id, address: format!("http://{id}:7070"), format: 1 }
}

/// A token that doesn't expire.
pub fn token(kind: TokenKind) -> Token {
    let (id, digest) = (TokenId(clock::random_uuid()), clock::random());
    Token { id, kind, name: "somebody's".to_owned(), digest, created_at: at(0), expires_at: None }
}

/// A worker that hasn't enrolled yet.
pub fn new_worker() -> NewWorker {
    NewWorker { id: worker(), name: "build-1".to_owned(), key: ProofKey::from_bytes(clock::random()) }
}

/// The first hello of a worker that was just started with those tags.
pub fn hello(worker: WorkerId, tags: &[&str]) -> Hello {
    Hello {
        worker,
        instance: Instance(clock::random_uuid()),
        start: 1,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        slots: 2,
        running: 0,
        draining: false,
    }
}

pub fn worker() -> WorkerId {
    WorkerId(clock::random_uuid())
}

/// A specification with `fields` and, unless they say otherwise, one step.
pub fn spec(fields: Value) -> Arc<JobSpec> {
    let mut body = json!({"steps": [{"run": "true"}]});
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().expect("an object").extend(fields);
    Arc::new(parse_single(&body, None).expect("a specification").spec)
}

/// A job with `fields` in its specification, created at `now`, that isn't stored yet.
pub fn new_job(shard: Shard, fields: Value, now: Time) -> NewJob {
    let id = JobId::mint(shard, now, clock::random());
    let transition = submit(id, spec(fields), false, None, client(), now);
    NewJob { transition, secrets: None, idempotency: None }
}

/// The same under an idempotency key that expires a day after `now`.
pub fn keyed_job(shard: Shard, key: &str, hash: u8, now: Time) -> NewJob {
    let expires = now.plus(Period::from_secs(24 * 60 * 60));
    let key = IdempotencyKey { owner: "me".to_owned(), key: key.to_owned(), hash: [hash; 32], expires };
    NewJob { idempotency: Some(key), ..new_job(shard, json!({}), now) }
}

pub fn client() -> Actor {
    Actor::Client("me".to_owned())
}

/// A deploy key, not stored yet.
pub fn deploy_key(name: &str, version: u32) -> DeployKey {
    DeployKey {
        name: name.to_owned(),
        version,
        algorithm: "ssh-ed25519".to_owned(),
        fingerprint: format!("SHA256:{name}"),
        public_key: format!("ssh-ed25519 AAAA {name}"),
        known_hosts: "git.example.com ssh-ed25519 BBBB\n".to_owned(),
        private_key: vec![1, 2, 3],
        created_at: at(0),
        changed_at: at(0),
    }
}

/// A line of the audit about a deploy key.
pub fn audit_line(name: &str, outcome: &str) -> AuditLine {
    let (action, subject, outcome) = ("deploy_key.put".to_owned(), name.to_owned(), outcome.to_owned());
    AuditLine {
        at: at(0),
        actor: client(),
        origin: None,
        action,
        subject,
        outcome,
        job: None,
        attempt: None,
        request: None,
    }
}

pub fn request() -> RequestId {
    RequestId(clock::random_uuid())
}

/// The write of a transition that was applied to `job`.
pub fn change(job: &Job, transition: Transition) -> Write {
    Write::Change { from: job.version, transition: Box::new(transition) }
}

/// The write that follows when `job` takes `command`.
pub fn changed(job: &Job, command: Command, now: Time) -> Write {
    change(job, job.apply(command, now).expect("a command that the job takes"))
}

pub fn claim(job: &Job, worker: WorkerId) -> Command {
    Command::Claim(Claim {
        claim: ClaimId(clock::random_uuid()),
        attempt: job.attempt.next(),
        worker,
        instance: Instance(clock::random_uuid()),
        has_recipient: true,
        expires: at(1_000_000),
    })
}

pub fn cancel() -> Command {
    Command::Cancel(Cancel { by: client(), why: Some("enough".to_owned()), force: false, grace: None })
}

/// A word of the worker that holds `job`.
pub fn said(job: &Job, word: WorkerWord) -> Command {
    let worker = job.worker.expect("a job with a worker");
    Command::Worker(WorkerMessage { worker, attempt: job.attempt, word })
}

/// The transitions of a write that were taken, with the number of the first event of each.
fn taken<'a>(write: &'a Write, written: &Written) -> Vec<(ShardSeq, &'a Transition)> {
    match (write, written) {
        (Write::Change { transition, .. }, Written::Changed { first, .. }) => vec![(*first, transition)],
        (Write::Submit(jobs), Written::Submitted(submitted)) => {
            assert_eq!(jobs.len(), submitted.len(), "an answer for each job");
            let new = jobs.iter().zip(submitted).filter_map(|(new, submitted)| match submitted {
                Submitted::New(first) => Some((*first, &new.transition)),
                Submitted::Existing(_) => None,
            });
            new.collect()
        }
        (_, Written::Conflict | Written::KeyReused(_) | Written::TooManyTagSets(_) | Written::Refused(_)) => Vec::new(),
        (Write::Submit(_), Written::Changed { .. }) | (Write::Change { .. }, Written::Submitted(_)) => {
            panic!("the answer {written:?} is another write's")
        }
    }
}
