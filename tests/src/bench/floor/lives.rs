//! Whole lives of no-op jobs as the coordinator would write them: a list of batches, ready to be committed in order.
//!
//! Jobs go through their lives one group behind the other, so that each batch has submissions, claims, reports and ends of
//! different jobs, as it has under a load that never ends.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;

use coordinator::store::postgres::PostgresStore;
use coordinator::store::{Batch, Member, NewJob, Ownership, Write};
use serde_json::Value;
use shared::clock;
use shared::id::{Actor, ClaimId, CoordinatorId, Instance, JobId, Shard, ShardSeq, WorkerId};
use shared::job::{AttemptEnd, Claim, Command, Exit, Job, Progress, Transition, WorkerMessage, WorkerWord, submit};
use shared::log::LogSummary;
use shared::spec::{JobSpec, parse_batch};
use shared::time::{Period, Time};

use crate::bench::load;

/// What a job hears after its submission: each item is one write, which merges the transitions of its words, as a supervisor
/// does with what a worker says in one message: of a pretended attempt all that follows the claim.
const LIFE: &[&[Word]] = &[&[Word::Claim], &[Word::StepStarted, Word::StepFinished, Word::End]];
/// What comes of it: submitted, queued, assigned, started, `step_started`, `step_finished`, succeeded.
pub const EVENTS_PER_JOB: u32 = 7;
/// How long claims are good for.
const CLAIMED_WITHIN: Period = Period::from_secs(3600);

/// What a job's worker says.
#[derive(Debug, Clone, Copy)]
enum Word {
    Claim,
    StepStarted,
    StepFinished,
    End,
}

/// Makes lives in shards that all belong to one coordinator.
pub struct Lives {
    spec: Arc<JobSpec>,
    worker: WorkerId,
    instance: Instance,
    /// The number of the last event of each shard.
    last: HashMap<Shard, ShardSeq>,
    /// Which shard the next job falls into.
    next: u16,
}

/// How many writes a job's life has, its submission included.
pub fn writes_per_job() -> u32 {
    u32::try_from(1 + LIFE.len()).unwrap_or(u32::MAX)
}

/// How many transitions a job's life has, its submission included.
pub fn transitions_per_job() -> u32 {
    u32::try_from(1 + LIFE.concat().len()).unwrap_or(u32::MAX)
}

impl Lives {
    /// A coordinator that owns every shard, and the lives that it writes.
    pub async fn owner(store: &PostgresStore) -> (CoordinatorId, Self) {
        let id = CoordinatorId(clock::random_uuid());
        let member = Member { id, address: "http://127.0.0.1:7070".to_owned(), format: 1 };
        store.join(&member).await.expect("a place among the coordinators");
        let shards: Vec<Shard> = Shard::all().collect();
        let owned = store.take_over(id, &shards).await.expect("every shard");
        assert_eq!(owned.len(), shards.len(), "shards that are owned");
        let body: Value = serde_json::from_slice(&load::batch(1)).expect("JSON");
        let spec = parse_batch(&body).expect("a submission").remove(0).spec;
        let (worker, instance) = (WorkerId(clock::random_uuid()), Instance(clock::random_uuid()));
        let last = owned.into_iter().map(|owned| (owned.shard, owned.last)).collect();
        (id, Self { spec: Arc::new(spec), worker, instance, last, next: 0 })
    }

    /// The lives of so many new jobs, in batches that write so many jobs each, and fewer at the beginning and the end.
    pub fn batches(&mut self, jobs: u32, batch: u32) -> Vec<Batch> {
        let (jobs, batch) = (usize::try_from(jobs).unwrap_or_default(), usize::try_from(batch).unwrap_or_default());
        let group = (batch / (1 + LIFE.len())).max(1);
        let mut batches = Vec::new();
        // The groups that live, the youngest first: how far each has come, and its jobs.
        let mut living: Vec<(usize, Vec<Job>)> = Vec::new();
        let mut left = jobs;
        while left > 0 || !living.is_empty() {
            let now = clock::now();
            let mut writes: Vec<Write> = Vec::with_capacity(batch);
            living.retain(|(stage, _)| *stage < LIFE.len());
            for (stage, jobs) in &mut living {
                writes.extend(jobs.iter_mut().map(|job| self.told(job, LIFE[*stage], now)));
                *stage += 1;
            }
            let new = group.min(left);
            left -= new;
            if new > 0 {
                let new: Vec<NewJob> = iter::repeat_with(|| self.new_job(now)).take(new).collect();
                living.insert(0, (0, new.iter().map(|new| new.transition.job.clone()).collect()));
                writes.push(Write::Submit(new));
            }
            while !writes.is_empty() {
                let rest = writes.split_off(batch.min(writes.len()));
                batches.push(self.numbered(std::mem::replace(&mut writes, rest)));
            }
        }
        batches
    }

    fn new_job(&mut self, now: Time) -> NewJob {
        let shard = Shard::new(self.next).expect("a shard");
        self.next = (self.next + 1) % shared::id::SHARDS;
        let (id, by) = (JobId::mint(shard, now, clock::random()), Actor::Client("bootstrap".to_owned()));
        let transition = submit(id, Arc::clone(&self.spec), false, None, by, now);
        NewJob { transition, secrets: None, idempotency: None }
    }

    /// The one write of what these words make of a job, which it then is.
    fn told(&self, job: &mut Job, words: &[Word], now: Time) -> Write {
        let from = job.version;
        let mut whole = Transition { job: job.clone(), events: Vec::new() };
        for word in words {
            let command = self.command(&whole.job, *word, now);
            let next = whole.job.apply(command, now).expect("a command that the job takes");
            whole.then(next);
        }
        job.clone_from(&whole.job);
        Write::Change { from, transition: Box::new(whole) }
    }

    fn command(&self, job: &Job, word: Word, now: Time) -> Command {
        let Self { worker, instance, .. } = *self;
        let progress = |number, progress| WorkerWord::Progress { number, progress };
        let word = match word {
            Word::Claim => {
                let (claim, attempt) = (ClaimId(clock::random_uuid()), job.attempt.next());
                let expires = now.plus(CLAIMED_WITHIN);
                return Command::Claim(Claim { claim, attempt, worker, instance, has_recipient: true, expires });
            }
            Word::StepStarted => progress(1, Progress::StepStarted { step: 0 }),
            Word::StepFinished => progress(2, Progress::StepFinished { step: 0, exit: Exit::ExitCode(0) }),
            Word::End => WorkerWord::End { end: AttemptEnd::Succeeded, log: LogSummary::default() },
        };
        Command::Worker(WorkerMessage { worker, attempt: job.attempt, word })
    }

    /// These writes as a batch, whose events take the next numbers of their shards.
    fn numbered(&mut self, writes: Vec<Write>) -> Batch {
        let changes = writes.iter().flat_map(|write| match write {
            Write::Submit(new) => new.iter().map(|new| &new.transition).collect(),
            Write::Change { transition, .. } => vec![&**transition],
        });
        let events: Vec<(Shard, usize)> = changes.map(|change| (change.job.id.shard(), change.events.len())).collect();
        let last = events.iter().map(|(shard, _)| (*shard, self.last[shard])).collect();
        for (shard, count) in events {
            let last = self.last.entry(shard).or_default();
            last.0 += u64::try_from(count).unwrap_or_default();
        }
        Batch { last, writes }
    }
}
