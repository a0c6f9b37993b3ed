//! What a batch's statement is given: a column for each of its parameters, which it turns back into rows. One slot is
//! one job; its number is the place of its row in [`Progress`], from 1, in the order of the batch.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use shared::id::{JobId, Shard, ShardSeq, Version};
use shared::job::{Job, Transition};
use shared::time::Time;

use super::row::{self, Moment};
use crate::store::keys::blocked_on;
use crate::store::{Error, NewJob};

/// All columns.
#[derive(Default)]
pub(super) struct Columns {
    pub progress: Progress,
    pub new: New,
    pub events: Events,
    /// The digests of the tag sets that the new jobs need, each once.
    pub tag_sets: Vec<Vec<u8>>,
}

/// What changes from one transition to the next.
#[derive(Default)]
pub(super) struct Progress {
    pub came_from: Vec<Option<i64>>,
    pub id: Vec<Uuid>,
    pub version: Vec<i64>,
    pub seq: Vec<i64>,
    pub attempt: Vec<i64>,
    pub tries: Vec<i64>,
    pub state: Vec<&'static str>,
    pub detail: Vec<String>,
    pub worker: Vec<Option<Uuid>>,
    pub told: Vec<Option<String>>,
    pub grants: Vec<bool>,
    pub commit_id: Vec<Option<String>>,
    pub wake_at: Vec<Option<Moment>>,
    pub queued_at: Vec<Option<Moment>>,
    pub started_at: Vec<Option<Moment>>,
    pub finished_at: Vec<Option<Moment>>,
    pub given_back: Vec<Option<String>>,
    pub blocked_on: Vec<Option<String>>,
}

/// What of a new job never changes, its key, and what is in its way.
#[derive(Default)]
pub(super) struct New {
    pub slot: Vec<i64>,
    pub submission: Vec<i32>,
    pub id: Vec<Uuid>,
    pub shard: Vec<i16>,
    pub tags: Vec<String>,
    pub priority: Vec<&'static str>,
    pub repository: Vec<Option<String>>,
    pub labels: Vec<String>,
    pub has_secrets: Vec<bool>,
    pub retry_of: Vec<Option<Uuid>>,
    pub created_at: Vec<Moment>,
    pub spec: Vec<String>,
    pub key_owner: Vec<Option<String>>,
    pub key: Vec<Option<String>>,
    pub hash: Vec<Option<Vec<u8>>>,
    pub key_expires: Vec<Option<Moment>>,
    pub hindrance: Vec<Option<&'static str>>,
    pub secrets: Vec<Option<Vec<u8>>>,
}

/// The events of all slots.
#[derive(Default)]
pub(super) struct Events {
    pub slot: Vec<i64>,
    pub job_id: Vec<Uuid>,
    pub seq: Vec<i64>,
    pub shard: Vec<i16>,
    /// The number of the shard's last event before the batch.
    pub last: Vec<i64>,
    pub at: Vec<Moment>,
    pub attempt: Vec<i64>,
    pub actor: Vec<String>,
    pub kind: Vec<&'static str>,
    pub data: Vec<String>,
}

impl Columns {
    /// Adds a transition of a job whose version is `from`; its slot is returned.
    pub(super) fn change(
        &mut self,
        from: Version,
        transition: &Transition,
        last: &HashMap<Shard, ShardSeq>,
    ) -> Result<i64, Error> {
        let slot = self.progress.push(Some(from), transition)?;
        self.events.push(slot, transition, last)?;
        Ok(slot)
    }

    /// Adds a new job of the submission of that number; its slot is returned.
    pub(super) fn submit(
        &mut self,
        submission: i32,
        new: &NewJob,
        hindrance: Option<&'static str>,
        last: &HashMap<Shard, ShardSeq>,
    ) -> Result<i64, Error> {
        let slot = self.progress.push(None, &new.transition)?;
        self.new.push(slot, submission, new, hindrance)?;
        self.events.push(slot, &new.transition, last)?;
        let tags = tag_set(&new.transition.job)?;
        if hindrance.is_none() && tags != NO_TAGS {
            let digest = digest(&tags);
            if !self.tag_sets.contains(&digest) {
                self.tag_sets.push(digest);
            }
        }
        Ok(slot)
    }
}

/// The tag set of jobs without tags, which is always there.
pub(super) const NO_TAGS: &str = "[]";

/// A job's tag set, as it is kept.
pub(super) fn tag_set(job: &Job) -> Result<String, Error> {
    row::json(&job.spec.tags)
}

/// What a tag set is found by.
pub(super) fn digest(tags: &str) -> Vec<u8> {
    Sha256::digest(tags).to_vec()
}

impl Progress {
    fn push(&mut self, from: Option<Version>, transition: &Transition) -> Result<i64, Error> {
        let job = &transition.job;
        self.came_from.push(from.map(|from| row::integer(from.0)).transpose()?);
        self.id.push(job.id.uuid());
        self.version.push(row::integer(job.version.0)?);
        self.seq.push(row::integer(job.seq.0)?);
        self.attempt.push(job.attempt.0.into());
        self.tries.push(job.tries.into());
        self.state.push(job.state.name().as_str());
        self.detail.push(row::json(&job.state)?);
        self.worker.push(job.worker.map(|worker| worker.0));
        self.told.push(job.told.as_ref().map(row::json).transpose()?);
        self.grants.push(from.is_some() && transition.grants());
        self.commit_id.push(job.commit.as_ref().map(|commit| commit.as_str().to_owned()));
        self.wake_at.push(moment(job.state.wake_at()));
        self.queued_at.push(moment(job.queued_at));
        self.started_at.push(moment(job.started_at));
        self.finished_at.push(moment(job.finished_at));
        self.given_back.push(job.given_back.as_ref().map(row::json).transpose()?);
        self.blocked_on.push(blocked_on(&job.state).map(str::to_owned));
        row::integer(self.id.len() as u64)
    }
}

impl New {
    fn push(&mut self, slot: i64, submission: i32, new: &NewJob, hindrance: Option<&'static str>) -> Result<(), Error> {
        let (job, key) = (&new.transition.job, new.idempotency.as_ref());
        let spec = &job.spec;
        self.slot.push(slot);
        self.submission.push(submission);
        self.id.push(job.id.uuid());
        self.shard.push(row::small(job.id.shard()));
        self.tags.push(tag_set(job)?);
        self.priority.push(spec.priority.name());
        self.repository.push(spec.repository.as_ref().map(|repository| repository.url.clone()));
        self.labels.push(row::json(&spec.labels)?);
        self.has_secrets.push(job.has_secrets);
        self.retry_of.push(job.retry_of.map(JobId::uuid));
        self.created_at.push(Moment(job.created_at));
        self.spec.push(row::json(&**spec)?);
        self.key_owner.push(key.map(|key| key.owner.clone()));
        self.key.push(key.map(|key| key.key.clone()));
        self.hash.push(key.map(|key| key.hash.to_vec()));
        self.key_expires.push(key.map(|key| Moment(key.expires)));
        self.hindrance.push(hindrance);
        self.secrets.push(new.secrets.clone());
        Ok(())
    }
}

impl Events {
    fn push(&mut self, slot: i64, transition: &Transition, last: &HashMap<Shard, ShardSeq>) -> Result<(), Error> {
        let shard = transition.job.id.shard();
        let unknown = || Error::Corrupt(format!("the batch doesn't say the last event's number of shard {shard}"));
        let last = row::integer(last.get(&shard).ok_or_else(unknown)?.0)?;
        for event in &transition.events {
            self.slot.push(slot);
            self.job_id.push(event.job.uuid());
            self.seq.push(row::integer(event.seq.0)?);
            self.shard.push(row::small(shard));
            self.last.push(last);
            self.at.push(Moment(event.at));
            self.attempt.push(event.attempt.0.into());
            self.actor.push(event.actor.to_string());
            self.kind.push(event.kind.name());
            self.data.push(row::json(&event.kind)?);
        }
        Ok(())
    }
}

fn moment(time: Option<Time>) -> Option<Moment> {
    time.map(Moment)
}
