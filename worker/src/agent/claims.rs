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
use shared::job::{AttemptEnd, Failure, Rejection};
use shared::log::LogSummary;
use shared::seal::OneTimeKey;
use shared::secret::Secrets;
use shared::spec::{OnLostContact, Priority};
use shared::time::Period;
use shared::wire::{Answer, Grant, Lane, Report, ReportKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::{Agent, MayStart, NotStarted, Start, contact};
use crate::keeper::lifeline::Lifeline;
use crate::runner::Granted;
use crate::site::Site;
use crate::spool::Entry;

/// How long a worker without work waits before it says hello again, to hear of new tag sets: from the first, doubling
/// while nothing comes, to the last. A job whose tags were never used before waits no longer than that, and an idle worker
/// costs the coordinators one message a second.
const IDLE_FIRST: Duration = Duration::from_millis(100);
const IDLE_MAX: Duration = Duration::from_secs(1);
/// How long a claim is waited for: less than the time after which an unsettled offer goes to another.
const CLAIM_WITHIN: Duration = Duration::from_secs(5);
/// When an offer whose claim found no answer is delivered again.
const OFFER_AGAIN: Duration = Duration::from_secs(1);
/// Every so many rounds the lowest priority is looked at first, so that it isn't starved.
const LOWEST_FIRST_EVERY: usize = 10;
/// While more is offered than runs, a round waits for this part of the slots, so that it doesn't cost a round for each slot
/// that comes free, and for no longer than that: far less than what is offered waits already.
const GATHERED_PART: u32 = 16;
const GATHER_WITHIN: Duration = Duration::from_millis(2);

/// Takes offers until the worker drains or stops, or has no agent any more to run anything.
pub async fn take(site: Arc<Site>, agent: Addr<Agent>) {
    let mut idle = IDLE_FIRST;
    // Whether the last round found as much as it asked for.
    let mut is_full = false;
    for round in 1_usize.. {
        if !site.duty.takes().await || !agent.connected() {
            return;
        }
        site.spool_writable().await;
        let gathered = if is_full { site.config.slots / GATHERED_PART } else { 0 };
        let Some(mut free) = free_slots(&site.slots, gathered, GATHER_WITHIN).await else { return };
        let most = free.num_permits();
        // Both may have changed while a slot was waited for.
        let Some(tag_sets) = site.duty.tag_sets().filter(|_| site.spool.takes()) else { continue };
        let taken = match site.reporter.courier.bus.take(&lanes(&tag_sets, round), most, idle).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%error, "taking offers");
                sleep(idle).await;
                Vec::new()
            }
        };
        is_full = taken.len() >= most;
        if taken.is_empty() {
            drop(free);
            contact::hello(&site).await;
            idle = (idle * 2).min(IDLE_MAX);
            continue;
        }
        idle = IDLE_FIRST;
        for delivery in taken {
            // What has changed meanwhile counts: another worker may have it at once.
            match free.split(1).filter(|_| site.duty.takes_now()) {
                Some(slot) => drop(tokio::spawn(claim(site.clone(), agent.clone(), delivery, slot))),
                None => delivery.back(Duration::ZERO),
            }
        }
    }
}

/// All slots that are free, as soon as there is one; it waits `within` that for as many as are to be `gathered`. None when no
/// slot will ever be free again.
async fn free_slots(slots: &Arc<Semaphore>, gathered: u32, within: Duration) -> Option<OwnedSemaphorePermit> {
    let mut free = slots.clone().acquire_owned().await.ok()?;
    if let Some(more) = gathered.checked_sub(1).filter(|more| *more > 0) {
        // What this got is taken below, with what else is free.
        let _ = timeout(within, slots.acquire_many(more)).await;
    }
    // Nobody else takes any while this worker takes offers.
    let more = u32::try_from(slots.available_permits()).unwrap_or(0);
    if let Ok(more) = slots.clone().try_acquire_many_owned(more) {
        free.merge(more);
    }
    Some(free)
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
    let (job, attempt) = (delivery.offer.job, delivery.offer.attempt);
    match agent.send(MayStart(job, attempt)).await.unwrap_or(Err(NotStarted::NoAgent)) {
        Ok(()) => {}
        // It is ours already, or was stopped: nobody is to have it again.
        Err(NotStarted::Running | NotStarted::Marked) => return delivery.done(),
        Err(NotStarted::Stopping | NotStarted::NoAgent) => return delivery.back(Duration::ZERO),
    }
    let key = delivery.offer.has_secrets.then(OneTimeKey::generate);
    let sent = clock::instant();
    let until = sent + CLAIM_WITHIN;
    // The outbox says how long we wait, and says it again under the same id, so that a repeat gets the same grant.
    let claim = ClaimId(clock::random_uuid());
    let what = ReportKind::Claim { claim, wait: Period::ZERO, recipient: key.as_ref().map(OneTimeKey::recipient) };
    let grant = match site.reporter.by(Report { job, attempt, what }, until).await {
        Some(Answer::Granted(grant)) => grant,
        // Nothing was applied, and the job waits as before.
        Some(Answer::Refused { why: Rejection::Late | Rejection::Unsealable }) => return delivery.back(OFFER_AGAIN),
        Some(Answer::Refused { .. } | Answer::Unknown) => return delivery.done(),
        Some(Answer::Taken | Answer::TryAgain) | None => {
            delivery.back(OFFER_AGAIN);
            // It may have been granted unheard. The offer may come again, to be claimed again before this is heard.
            return site.reporter.decline(job, attempt, Some(claim), "the worker heard no answer to its claim").await;
        }
    };
    delivery.done();
    let heard = clock::instant();
    if heard > until || (grant.job, grant.attempt) != (job, attempt) {
        return site.reporter.decline(grant.job, grant.attempt, Some(claim), "the grant came too late").await;
    }
    start(&site, &agent, *grant, key, Times { sent, heard }, slot).await;
}

/// When a claim was sent first, and when its grant was heard.
struct Times {
    sent: Instant,
    heard: Instant,
}

/// Writes the grant into the spool and starts its attempt; else tells that it won't.
async fn start(
    site: &Arc<Site>,
    agent: &Addr<Agent>,
    grant: Grant,
    key: Option<OneTimeKey>,
    times: Times,
    slot: OwnedSemaphorePermit,
) {
    let (job, attempt) = (grant.job, grant.attempt);
    let readied = opened(&grant, key).and_then(|secrets| Ok((secrets, lifeline(&grant, times.sent)?)));
    let (secrets, lifeline) = match readied {
        Ok(readied) => readied,
        Err(message) => {
            // Declined, the job would be offered again and fail the same way for ever.
            let failure = Failure::Internal { message };
            let what = ReportKind::End { end: AttemptEnd::Failed { failure }, log: LogSummary::default() };
            return site.reporter.until_answered(vec![Report { job, attempt, what }]).await;
        }
    };
    let may = agent.send(MayStart(job, attempt)).await.unwrap_or(Err(NotStarted::NoAgent));
    if may == Err(NotStarted::Running) {
        // Its entry in the spool is that of the attempt that runs.
        return;
    }
    let cgroup = site.cgroups.as_ref().map(|parent| parent.join(format!("windlass-{job}-{attempt}")));
    let epoch = site.reporter.courier.epochs.highest(job.shard());
    let entry = Entry { job, attempt, epoch, cgroup, outcome: None };
    if !site.keep(&entry).await {
        // Nothing more is taken until it can be written.
        return site.reporter.decline(job, attempt, None, "the worker's spool can't be written").await;
    }
    let granted = Granted { grant, secrets, at: times.heard, entry, lifeline, slot };
    match agent.send(Start(granted)).await.unwrap_or(Err(NotStarted::NoAgent)) {
        Ok(()) | Err(NotStarted::Running) => {}
        Err(why) => {
            site.forget(job, attempt).await;
            site.reporter.decline(job, attempt, None, &why.to_string()).await;
        }
    }
}

/// The grant's secrets, which only the claim's own key opens.
fn opened(grant: &Grant, key: Option<OneTimeKey>) -> Result<Secrets, String> {
    let Some(sealed) = &grant.secrets else { return Ok(Secrets::default()) };
    let key = key.ok_or("the grant has secrets, and its offer had none")?;
    key.open(sealed).map_err(|error| error.to_string())
}

/// The deadline of a job that must not outlive its lease.
fn lifeline(grant: &Grant, sent: Instant) -> Result<Option<Arc<Lifeline>>, String> {
    match grant.spec.on_lost_contact {
        OnLostContact::Run => Ok(None),
        OnLostContact::Stop => match Lifeline::from(sent) {
            Ok(lifeline) => Ok(Some(Arc::new(lifeline))),
            Err(error) => Err(format!("setting the deadline for a lost contact: {error}")),
        },
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

    #[tokio::test]
    async fn a_busy_worker_gathers_free_slots_for_a_moment_only() {
        let (slots, long) = (Arc::new(Semaphore::new(2)), Duration::from_hours(1));
        let all = free_slots(&slots, 0, long).await.unwrap();
        assert_eq!((all.num_permits(), slots.available_permits()), (2, 0));
        drop(all);
        assert_eq!(free_slots(&slots, 8, Duration::from_millis(1)).await.unwrap().num_permits(), 2, "no more came");
        let gathering = tokio::spawn({
            let slots = slots.clone();
            async move { free_slots(&slots, 4, long).await.unwrap().num_permits() }
        });
        tokio::task::yield_now().await;
        assert!(!gathering.is_finished());
        slots.add_permits(3);
        assert_eq!(gathering.await.unwrap(), 5, "also what came beside those that were waited for");
        slots.close();
        assert!(free_slots(&slots, 0, long).await.is_none());
    }

    #[test]
    fn tag_sets_take_turns() {
        let tag_sets = [vec!["a".to_owned()], vec!["b".to_owned()]];
        let first = |round| lanes(&tag_sets, round)[0].tags[0].clone();
        assert_ne!(first(1), first(2));
        assert_eq!(first(1), first(3));
    }
}
