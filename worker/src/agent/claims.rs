//! Takes offers and claims them: never more at a time than slots are free.
//!
//! A slot is a permit. It is held from before an offer is taken until the attempt's end is told, so that a worker asks
//! for nothing that it couldn't run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use shared::bus::Delivery;
use shared::clock;
use shared::id::ClaimId;
use shared::job::{AttemptEnd, Failure};
use shared::log::LogSummary;
use shared::seal::OneTimeKey;
use shared::spec::Priority;
use shared::time::Period;
use shared::wire::{Answer, Grant, Lane, Report, ReportKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use super::contact::{self, TagSets};
use super::{Agent, Start};
use crate::Site;
use crate::runner::Granted;
use crate::spool::Entry;

/// How long a worker without work waits before it says hello again, to hear of new tag sets: from the first, doubling
/// while nothing comes, to the last. A job whose tags were never used before waits no longer than that, and an idle worker
/// costs the coordinators one message a second.
const IDLE_FIRST: Duration = Duration::from_millis(100);
const IDLE_MAX: Duration = Duration::from_secs(1);
/// How long a claim is waited for: less than the time after which an unsettled offer goes to another.
const CLAIM_WITHIN: Duration = Duration::from_secs(5);
/// How long one try of it waits for its answer, and the next try for its turn.
const CLAIM_TRY_WITHIN: Duration = Duration::from_secs(2);
const CLAIM_AGAIN: Duration = Duration::from_millis(100);
/// When an offer whose claim found no answer is delivered again.
const OFFER_AGAIN: Duration = Duration::from_secs(1);
/// How long a slot rests when the disk doesn't take its grant.
const DISK_AGAIN: Duration = Duration::from_secs(5);
/// Every so many rounds the lowest priority is looked at first, so that it isn't starved.
const LOWEST_FIRST_EVERY: usize = 10;

/// Takes offers until the worker stops.
pub async fn take(site: Arc<Site>, agent: Addr<Agent>, tag_sets: TagSets, slots: Arc<Semaphore>) {
    let mut idle = IDLE_FIRST;
    for round in 1_usize.. {
        let Ok(first) = slots.clone().acquire_owned().await else { return };
        let more = std::iter::from_fn(|| slots.clone().try_acquire_owned().ok());
        let free: Vec<OwnedSemaphorePermit> = std::iter::once(first).chain(more).collect();
        let lanes = lanes(&tag_sets.borrow(), round);
        let taken = match site.reporter.bus.take(&lanes, free.len(), idle).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%error, "taking offers");
                sleep(idle).await;
                Vec::new()
            }
        };
        if taken.is_empty() {
            drop(free);
            contact::hello(&site, &tag_sets).await;
            idle = (idle * 2).min(IDLE_MAX);
            continue;
        }
        idle = IDLE_FIRST;
        for (delivery, slot) in taken.into_iter().zip(free) {
            tokio::spawn(claim(site.clone(), agent.clone(), delivery, slot));
        }
    }
}

/// The lanes in the order in which they are looked at. Tag sets take turns.
fn lanes(tag_sets: &[Vec<String>], round: usize) -> Vec<Lane> {
    let mut priorities = Priority::ALL;
    if round.is_multiple_of(LOWEST_FIRST_EVERY) {
        priorities.reverse();
    }
    let (late, early) = tag_sets.split_at(round % tag_sets.len().max(1));
    let turn = || early.iter().chain(late);
    let of = |priority| turn().map(move |tags| Lane { tags: tags.clone(), priority });
    priorities.into_iter().flat_map(of).collect()
}

/// Claims one offer and starts its attempt.
async fn claim(site: Arc<Site>, agent: Addr<Agent>, delivery: Delivery, slot: OwnedSemaphorePermit) {
    let offer = delivery.offer.clone();
    let (job, attempt) = (offer.job, offer.attempt);
    let key = OneTimeKey::generate();
    let until = clock::instant() + CLAIM_WITHIN;
    let grant = match ask(&site, &delivery, &key, until).await {
        Asked::Granted(grant) => grant,
        Asked::Refused => return delivery.done(),
        Asked::NoAnswer => {
            // It may have been granted unheard.
            site.reporter.decline(job, attempt, "the worker heard no answer to its claim").await;
            return delivery.back(OFFER_AGAIN);
        }
    };
    delivery.done();
    let at = clock::instant();
    if at > until || (grant.job, grant.attempt) != (job, attempt) {
        return site.reporter.decline(grant.job, grant.attempt, "the grant came too late").await;
    }
    start(&site, &agent, *grant, &key, at, slot).await;
}

/// What came of a claim.
enum Asked {
    Granted(Box<Grant>),
    Refused,
    NoAnswer,
}

/// Says a claim until it is answered, under one id, so that a repeat gets the same grant.
async fn ask(site: &Site, delivery: &Delivery, key: &OneTimeKey, until: Instant) -> Asked {
    let (job, attempt) = (delivery.offer.job, delivery.offer.attempt);
    let claim = ClaimId(clock::random_uuid());
    loop {
        let left = until.saturating_duration_since(clock::instant());
        if left.is_zero() {
            return Asked::NoAnswer;
        }
        let wait = Period::from_millis(u64::try_from(left.as_millis()).unwrap_or(0));
        let what = ReportKind::Claim { claim, wait, recipient: key.recipient() };
        let report = Report { job, attempt, what };
        let within = left.min(CLAIM_TRY_WITHIN);
        match site.reporter.once(job.shard(), &[report], within).await.map(|answers| answers.into_iter().next()) {
            Ok(Some(Answer::Granted(grant))) => return Asked::Granted(grant),
            Ok(Some(Answer::Refused { .. } | Answer::Unknown)) => return Asked::Refused,
            Ok(Some(Answer::TryAgain | Answer::Taken) | None) => {}
            Err(error) => tracing::debug!(%error, %job, "claiming an offer"),
        }
        sleep(CLAIM_AGAIN).await;
    }
}

/// Writes the grant into the spool and starts its attempt; else tells that it won't.
async fn start(
    site: &Arc<Site>,
    agent: &Addr<Agent>,
    grant: Grant,
    key: &OneTimeKey,
    at: Instant,
    slot: OwnedSemaphorePermit,
) {
    let (job, attempt) = (grant.job, grant.attempt);
    let secrets = match grant.secrets.as_ref().map(|sealed| key.open(sealed)).transpose() {
        Ok(secrets) => secrets.unwrap_or_default(),
        Err(error) => {
            // Declined, the job would be offered again and fail the same way for ever.
            let failure = Failure::Internal { message: error.to_string() };
            let what = ReportKind::End { end: AttemptEnd::Failed { failure }, log: LogSummary::default() };
            return site.reporter.until_answered(job.shard(), vec![Report { job, attempt, what }]).await;
        }
    };
    let cgroup = site.cgroups.as_ref().map(|parent| parent.join(format!("windlass-{job}-{attempt}")));
    let entry = Entry { job, attempt, cgroup, outcome: None };
    let spooled = entry.clone();
    if !site.spooled(move |spool| spool.put(&spooled)).await {
        site.reporter.decline(job, attempt, "the worker's spool can't be written").await;
        // The slot is kept for a while: the offer may come straight back.
        sleep(DISK_AGAIN).await;
        return;
    }
    let granted = Granted { grant, secrets, at, entry, slot };
    let started = agent.send(Start(granted)).await.unwrap_or(Err("the worker's agent is gone"));
    if let Err(why) = started {
        site.spooled(move |spool| spool.remove(job, attempt)).await;
        site.reporter.decline(job, attempt, why).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_priority_comes_first_but_for_every_tenth_round() {
        let tag_sets = [vec!["a".to_owned()], vec!["b".to_owned()]];
        let priorities = |round| lanes(&tag_sets, round).iter().map(|lane| lane.priority).collect::<Vec<_>>();
        for round in [1, 2, 9, 11] {
            assert_eq!(priorities(round)[..2], [Priority::Urgent; 2]);
            assert_eq!(priorities(round).len(), 8);
        }
        assert_eq!(priorities(10)[..2], [Priority::Low; 2]);
        assert!(lanes(&[], 1).is_empty());
    }

    #[test]
    fn tag_sets_take_turns() {
        let tag_sets = [vec!["a".to_owned()], vec!["b".to_owned()]];
        let first = |round| lanes(&tag_sets, round)[0].tags[0].clone();
        assert_ne!(first(1), first(2));
        assert_eq!(first(1), first(3));
    }
}
