//! The actor that fetches one attempt's deploy key. It owns the tries: it makes one, tells of it, and waits as the policy
//! says.
//!
//! The runner has it started and started again ([`supervise`]); what it has counted is in [`Search`], which outlives it.
//! A registration wakes its wait through that, also while a request is on its way or the actor is being started again:
//! then the next wait ends at once. Should nobody wake it, it looks every [`LOOK_EVERY`] all the same. It ends with what it
//! has told, or when nobody listens any more, whichever is first. Should it die, it is started again at once, at most
//! [`RESTARTS_MAX`] times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use shared::bus::Address;
use shared::clock;
use shared::id::{Attempt, JobId, RequestId};
use shared::job::KeyAnswer;
use shared::seal::OneTimeKey;
use shared::time::Period;
use shared::wire::{Grant, KNOWN_HOSTS_SECRET, KeyReply, KeyRequest, PRIVATE_KEY_SECRET};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::policy::{Next, Policy, Tally, Try};
use super::{Fetched, FetchedKey, KeyTry, Told, bounded};
use crate::courier::Courier;
use crate::site::Site;

/// How long the answer to a request is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long it waits at most until it looks again, however long the policy's wait is: what a lost word costs. A look that
/// finds nothing new is no try.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often a fetcher that died is started again.
pub const RESTARTS_MAX: u32 = 5;

/// What one attempt looks for, and what has come of it so far.
pub struct Search {
    job: JobId,
    attempt: Attempt,
    /// The key's name.
    key: String,
    tally: Mutex<Tally>,
    /// How long it waits at most until it looks again.
    look_every: Duration,
    /// The key may be there.
    wake: Notify,
}

impl Search {
    /// Nothing was tried yet; none where the job has no deploy key.
    pub fn of(grant: &Grant, site: &Site) -> Option<Arc<Self>> {
        let named = grant.spec.deploy_key()?;
        let policy = Policy {
            retry: named.retry.unwrap_or(site.config.key_retry),
            on_missing: named.on_missing,
            unanswered: site.config.key_unanswered(),
        };
        Some(Arc::new(Self {
            job: grant.job,
            attempt: grant.attempt,
            key: named.name.clone(),
            tally: Mutex::new(Tally::new(policy)),
            look_every: site.config.key_look_every(),
            wake: Notify::new(),
        }))
    }

    /// Ends the wait at once: this one, or the next.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// A count is whole after any panic: nothing that can fail is done while it is held.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the next try is to be made, or it is time to look.
    async fn turn(&self) -> Turn {
        let (at, may_be_woken) = {
            let tally = self.tally();
            (tally.next_at(), tally.may_be_woken())
        };
        let Some(at) = at else { return Turn::Try };
        let look = clock::instant() + self.look_every;
        tokio::select! {
            () = self.wake.notified(), if may_be_woken => Turn::Try,
            () = sleep_until(at.min(look).into()) => if look < at { Turn::Look } else { Turn::Try },
        }
    }
}

/// What is to be done after a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Try,
    /// A request that counts for nothing unless it brings something new.
    Look,
}

/// See the module.
pub struct KeyFetcher {
    site: Arc<Site>,
    search: Arc<Search>,
}

/// Fetch the key and tell of it; answered when that is done, or nobody listens any more.
#[derive(Message)]
#[rtype(result = "()")]
struct Fetch(mpsc::Sender<Told>);

impl Actor for KeyFetcher {
    type Context = Context<Self>;
}

impl Handler<Fetch> for KeyFetcher {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Fetch(told): Fetch, _: &mut Self::Context) -> Self::Result {
        let (site, search) = (self.site.clone(), self.search.clone());
        Box::pin(async move {
            tokio::select! {
                () = fetch(&site, &search, &told) => {}
                () = told.closed() => {}
            }
        })
    }
}

/// Keeps a fetcher going until it has done its work or nobody listens to `told`: what the attempt's runner does about it,
/// on its own thread. Nothing in here keeps the runner itself alive.
pub async fn supervise(site: Arc<Site>, search: Arc<Search>, told: mpsc::Sender<Told>) {
    for start in 0..=RESTARTS_MAX {
        if start > 0 {
            tracing::warn!(job = %search.job, start, "the key fetcher died: it is started again");
            // It may have died of what had just woken it.
            search.wake();
        }
        let fetcher = KeyFetcher { site: site.clone(), search: search.clone() }.start();
        // An actor that died answers nothing.
        if fetcher.send(Fetch(told.clone())).await.is_ok() {
            return;
        }
    }
    tracing::error!(job = %search.job, "the key fetcher died too often");
}

/// Tries until the policy says otherwise.
async fn fetch(site: &Site, search: &Search, told: &mpsc::Sender<Told>) {
    loop {
        let turn = search.turn().await;
        site.config.fault("fetcher");
        let mut request = JoinSet::new();
        let began = clock::instant();
        // Dropped, it ends with its request.
        request.spawn_on(ask(site.reporter.courier.clone(), search.request(site)), &site.runtime);
        let answer = match request.join_next().await {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => Answer::unavailable(&error),
            None => return,
        };
        if turn == Turn::Look && matches!(answer, Answer::NotRegistered | Answer::Unavailable(_)) {
            continue;
        }
        let chance = u32::from_ne_bytes(clock::random());
        let one = Try { began, ended: clock::instant(), answer: answer.kind(), chance };
        let (number, next) = search.tally().count(one);
        tracing::debug!(job = %search.job, number, answer = %one.answer, ?next, "a try to fetch the deploy key");
        let over = over(answer, next, number, told).await;
        if let Some(over) = over {
            // Whoever doesn't listen any more doesn't want it.
            let _ = told.send(Told::Over(over)).await;
            return;
        }
    }
}

/// Tells of a try; what the fetching came to, when it is over.
async fn over(answer: Answer, next: Next, number: u32, told: &mpsc::Sender<Told>) -> Option<Fetched> {
    let kind = answer.kind();
    let (key, why) = match answer {
        Answer::Key(key) => (Some(key), None),
        Answer::NotRegistered => (None, None),
        Answer::Denied(why) | Answer::Unavailable(why) => (None, Some(why)),
    };
    let next_in = match next {
        Next::Wait(wait) => Some(Period::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))),
        Next::Park | Next::Missing | Next::Denied | Next::GiveBack | Next::Done => None,
    };
    let one = KeyTry { number, answer: kind, why: why.clone(), next_in };
    // Whoever doesn't listen any more needs no telling.
    let _ = told.send(Told::Try(one)).await;
    match next {
        Next::Wait(_) => None,
        Next::Park => Some(Fetched::Park),
        Next::Missing => Some(Fetched::Missing),
        Next::Denied => Some(Fetched::Denied { why: why.unwrap_or_default() }),
        Next::GiveBack => Some(Fetched::GiveBack),
        Next::Done => key.map(Fetched::Key),
    }
}

/// What came of one request.
enum Answer {
    Key(FetchedKey),
    NotRegistered,
    Denied(String),
    Unavailable(String),
}

impl Answer {
    fn unavailable(why: &impl ToString) -> Self {
        Self::Unavailable(bounded(why.to_string()))
    }

    fn kind(&self) -> KeyAnswer {
        match self {
            Self::Key(_) => KeyAnswer::Sealed,
            Self::NotRegistered => KeyAnswer::NotRegistered,
            Self::Denied(_) => KeyAnswer::Denied,
            Self::Unavailable(_) => KeyAnswer::Unavailable,
        }
    }
}

impl Search {
    /// A new request, which lacks its recipient.
    fn request(&self, site: &Site) -> KeyRequest {
        let Courier { worker, instance, .. } = site.reporter.courier;
        let request = RequestId(clock::random_uuid());
        let (job, attempt, key) = (self.job, self.attempt, self.key.clone());
        KeyRequest { worker, instance, request, job, attempt, key, recipient: String::new() }
    }
}

/// Asks the owner of the job's shard once, with a recipient of its own.
async fn ask(courier: Courier, request: KeyRequest) -> Answer {
    let own = OneTimeKey::generate();
    let request = KeyRequest { recipient: own.recipient(), ..request };
    let shard = request.job.shard();
    let to = Address::Key(shard, courier.worker);
    match courier.ask_owner(shard, &to, &request, ANSWER_WITHIN).await {
        Err(error) => Answer::unavailable(&error),
        Ok(KeyReply::NotRegistered {}) => Answer::NotRegistered,
        Ok(KeyReply::Denied { why }) => Answer::Denied(bounded(why)),
        Ok(KeyReply::Unavailable { why }) => Answer::Unavailable(bounded(why)),
        Ok(KeyReply::Sealed { key }) => {
            let mut opened = match own.open(&key) {
                Ok(opened) => opened.0,
                Err(error) => return Answer::unavailable(&error),
            };
            match (opened.remove(PRIVATE_KEY_SECRET), opened.remove(KNOWN_HOSTS_SECRET)) {
                (Some(private_key), Some(hosts)) => {
                    Answer::Key(FetchedKey { private_key, known_hosts: hosts.reveal().to_owned() })
                }
                _ => Answer::Unavailable("what came sealed is not a deploy key with its hosts".to_owned()),
            }
        }
    }
}
