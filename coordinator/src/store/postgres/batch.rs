//! A batch as the statement takes it: which of its writes can go into one statement, where each job stands in it, and
//! what its answer says of each write.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use uuid::Uuid;

use shared::id::{Fence, Shard, ShardSeq};

use super::columns::{self, Columns, NO_TAGS};
use super::row;
use crate::store::{Error, IdempotencyKey, NewJob, Submitted, Write, Written};

/// The numbers of each shard's last event, as far as they are given away.
pub(super) type Numbers = HashMap<Shard, ShardSeq>;

/// What the statement's answer says of a slot.
pub(super) struct Told {
    pub slot: i64,
    pub what: String,
    pub fence: Option<i64>,
    pub existing: Option<Uuid>,
}

/// Where the jobs of some writes stand in a statement.
pub(super) struct Plan<'w> {
    pub columns: Columns,
    writes: &'w [Write],
    places: Vec<Places>,
}

/// Where the jobs of one write stand.
enum Places {
    Change(i64),
    Submission(Vec<Place>),
}

/// Where one new job stands.
enum Place {
    Slot(i64),
    /// Under the key of the submission's job at that index: it is that one.
    SameAs(usize),
}

/// The longest runs of writes that can go into one statement each: a statement doesn't see what it has itself written, so
/// no two of its writes may be about the same job or the same key.
pub(super) fn runs(writes: &[Write]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut jobs, mut keys) = (HashSet::new(), HashSet::new());
    let mut begin = 0;
    for (index, write) in writes.iter().enumerate() {
        let (own_jobs, own_keys): (Vec<_>, _) = (write.jobs().map(|job| job.id).collect(), keys_of(write));
        if own_jobs.iter().any(|job| jobs.contains(job)) || own_keys.iter().any(|key| keys.contains(key)) {
            runs.push(begin..index);
            begin = index;
            jobs.clear();
            keys.clear();
        }
        jobs.extend(own_jobs);
        keys.extend(own_keys);
    }
    runs.push(begin..writes.len());
    runs
}

fn keys_of(write: &Write) -> Vec<(&str, &str)> {
    match write {
        Write::Submit(jobs) => jobs.iter().filter_map(|new| new.idempotency.as_ref()).map(name).collect(),
        Write::Change { .. } => Vec::new(),
    }
}

fn name(key: &IdempotencyKey) -> (&str, &str) {
    (&key.owner, &key.key)
}

impl<'w> Plan<'w> {
    /// A plan for writes of one run. `homeless` are the tag sets that there is no room for.
    pub(super) fn of(writes: &'w [Write], numbers: &Numbers, homeless: &HashSet<String>) -> Result<Self, Error> {
        let mut columns = Columns::default();
        let mut places = Vec::with_capacity(writes.len());
        for (write, submission) in writes.iter().zip(0..) {
            places.push(match write {
                Write::Change { from, transition } => Places::Change(columns.change(*from, transition, numbers)?),
                Write::Submit(jobs) => Places::Submission(place(&mut columns, submission, jobs, numbers, homeless)?),
            });
        }
        Ok(Self { columns, writes, places })
    }

    /// What became of each write, in their order. The numbers that were given away are counted on.
    pub(super) fn written(&self, told: Vec<Told>, numbers: &mut Numbers) -> Result<Vec<Written>, Error> {
        let told: HashMap<i64, Told> = told.into_iter().map(|told| (told.slot, told)).collect();
        let each = self.writes.iter().zip(&self.places).map(|(write, places)| match (write, places) {
            (Write::Change { transition, .. }, Places::Change(slot)) => {
                let Some(told) = told.get(slot) else { return Ok(Written::Conflict) };
                let first = draw(numbers, transition.job.id.shard(), transition.events.len());
                let fence = told.fence.map(|fence| row::natural("fence", fence)).transpose()?.map(Fence);
                Ok(Written::Changed { first, fence })
            }
            (Write::Submit(jobs), Places::Submission(places)) => submitted(jobs, places, &told, numbers),
            (Write::Change { .. }, Places::Submission(_)) | (Write::Submit(_), Places::Change(_)) => {
                Err(Error::Corrupt("a write's place is another's".to_owned()))
            }
        });
        each.collect()
    }
}

/// Gives each new job of a submission its place.
fn place(
    columns: &mut Columns,
    submission: i32,
    jobs: &[NewJob],
    numbers: &Numbers,
    homeless: &HashSet<String>,
) -> Result<Vec<Place>, Error> {
    let mut places = Vec::with_capacity(jobs.len());
    let (mut ids, mut keys) = (HashSet::new(), HashMap::new());
    for (index, new) in jobs.iter().enumerate() {
        let tags = columns::tag_set(&new.transition.job)?;
        let mut hindrance = (tags != NO_TAGS && homeless.contains(&tags)).then_some("too_many_tag_sets");
        if let Some(key) = &new.idempotency {
            match keys.insert(name(key), (index, key.hash)) {
                None => {}
                Some((first, hash)) if hash == key.hash => {
                    keys.insert(name(key), (first, hash));
                    places.push(Place::SameAs(first));
                    continue;
                }
                Some(_) => hindrance = Some("key_reused"),
            }
        }
        if !ids.insert(new.transition.job.id) {
            hindrance = hindrance.or(Some("id_taken"));
        }
        places.push(Place::Slot(columns.submit(submission, new, hindrance, numbers)?));
    }
    Ok(places)
}

/// What became of a submission.
fn submitted(
    jobs: &[NewJob],
    places: &[Place],
    told: &HashMap<i64, Told>,
    numbers: &mut Numbers,
) -> Result<Written, Error> {
    let mut answers: Vec<Submitted> = Vec::with_capacity(jobs.len());
    for (index, place) in places.iter().enumerate() {
        let fault = match place {
            Place::Slot(slot) => told.get(slot).map(|told| told.what.as_str()),
            Place::SameAs(_) => None,
        };
        match fault {
            None | Some("existing") => {}
            Some("id_taken") => return Ok(Written::Conflict),
            Some("key_reused") => return Ok(Written::KeyReused(index)),
            Some("too_many_tag_sets") => return Ok(Written::TooManyTagSets(index)),
            Some(other) => return Err(Error::Corrupt(format!("the statement says {other}"))),
        }
    }
    for (new, place) in jobs.iter().zip(places) {
        let job = &new.transition.job;
        answers.push(match place {
            Place::Slot(slot) => match told.get(slot).and_then(|told| told.existing) {
                Some(first) => Submitted::Existing(first.into()),
                None => Submitted::New(draw(numbers, job.id.shard(), new.transition.events.len())),
            },
            Place::SameAs(first) => match (answers.get(*first), jobs.get(*first)) {
                (Some(Submitted::New(_)), Some(first)) => Submitted::Existing(first.transition.job.id),
                (Some(existing), _) => *existing,
                (None, _) => return Err(Error::Corrupt("a job stands before the one that it is".to_owned())),
            },
        });
    }
    Ok(Written::Submitted(answers))
}

/// The number of the next event of `shard`; it and those that follow, `count` in all, are given away.
fn draw(numbers: &mut Numbers, shard: Shard, count: usize) -> ShardSeq {
    let last = numbers.entry(shard).or_default();
    let first = last.next();
    last.0 = last.0.saturating_add(count as u64);
    first
}
