//! The deploy keys of a scripted coordinator: what it has, what it answers, and what it was asked.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use shared::bus::{Address, Bus};
use shared::id::{Attempt, Instance, JobId};
use shared::job::{KeyAnswer, Progress};
use shared::log::LogSummary;
use shared::seal;
use shared::secret::{Secret, Secrets};
use shared::time::Period;
use shared::wire::{self, Answer, Control, KNOWN_HOSTS_SECRET, KeyReply, KeyRequest, PRIVATE_KEY_SECRET};

use super::{Script, lost};
use crate::played::DEADLINE;

/// Deploy keys in a script.
#[derive(Default)]
pub struct Keys {
    /// What is registered: a private half and its host keys, by name.
    pub registered: HashMap<String, (String, String)>,
    /// What the next requests are answered with, whatever is registered.
    pub answers: VecDeque<KeyReply>,
    /// So many answers are lost.
    pub lose: u32,
    /// Lost answers are waited for, as on a real bus.
    pub hold: bool,
    /// So many answers are preceded by the word that the key may be there.
    pub wake_first: u32,
    /// What was asked for, lost answers included.
    pub requests: Vec<KeyRequest>,
    /// The attempts that were let go.
    pub let_go: Vec<LetGo>,
    /// So many answers to those are lost.
    pub lose_let_go: u32,
}

/// An attempt that its worker has let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetGo {
    pub job: JobId,
    /// The key that it is parked for and for how long; none where it was given back.
    pub parked: Option<(String, Period)>,
    pub log: LogSummary,
    pub instance: Instance,
}

impl Script {
    /// Registers a deploy key, without telling anybody.
    pub fn register(&self, name: &str, private_key: &str, known_hosts: &str) {
        let key = (private_key.to_owned(), known_hosts.to_owned());
        self.seen().keys.registered.insert(name.to_owned(), key);
    }

    /// Tells the worker that the deploy key of that job's first attempt may be there now.
    pub async fn look_for_key(&self, job: JobId) {
        let worker = self.seen().hellos.last().expect("a worker is there").worker;
        let control = Control::LookForKey { job, attempt: Attempt(1) };
        let told = self.bus.request(&Address::Control(worker), wire::encode(&control), DEADLINE).await;
        told.expect("the worker hears it");
    }

    /// Waits until `count` deploy keys were asked for.
    pub async fn asked(&self, count: usize) {
        self.until("requests for a deploy key", |seen| (seen.keys.requests.len() >= count).then_some(())).await;
    }

    /// Waits until the job is let go.
    pub async fn let_go(&self, job: JobId) -> LetGo {
        self.until("an attempt that is let go", |seen| seen.keys.let_go.iter().find(|gone| gone.job == job).cloned())
            .await
    }

    /// The tries that were told of the job: number, answer, why, and the wait before the next.
    pub fn key_tries(&self, job: JobId) -> Vec<(u32, KeyAnswer, Option<String>, Option<Period>)> {
        let tries = |(of, _, progress): &(JobId, u32, Progress)| match progress {
            Progress::KeyTry { number, answer, why, next_in } if *of == job => {
                Some((*number, *answer, why.clone(), *next_in))
            }
            _ => None,
        };
        self.seen().progress.iter().filter_map(tries).collect()
    }

    /// Takes an attempt back that its worker lets go.
    pub(super) fn take_back(&self, gone: LetGo) -> Option<Answer> {
        let mut seen = self.seen();
        seen.order.push(if gone.parked.is_some() { "park" } else { "give_back" });
        if lost(&mut seen.keys.lose_let_go) {
            return None;
        }
        seen.keys.let_go.push(gone);
        Some(Answer::Taken)
    }

    /// The answer to a request for a deploy key.
    pub(super) async fn key(&self, shard: shared::id::Shard, body: &[u8]) -> Option<Bytes> {
        let request: KeyRequest = wire::decode(body).expect("a request for a deploy key");
        let wake_first = {
            let mut seen = self.seen();
            seen.order.push("key");
            lost(&mut seen.keys.wake_first)
        };
        if wake_first {
            self.look_for_key(request.job).await;
        }
        let reply = {
            let mut seen = self.seen();
            let keys = &mut seen.keys;
            keys.requests.push(request.clone());
            if lost(&mut keys.lose) {
                return None;
            }
            let registered = || keys.registered.get(&request.key).map(|key| sealed(key, &request.recipient));
            let answer = keys.answers.pop_front().or_else(registered);
            answer.unwrap_or(KeyReply::NotRegistered {})
        };
        Some(wire::encode(&self.word(shard, reply)))
    }
}

fn sealed((private_key, known_hosts): &(String, String), recipient: &str) -> KeyReply {
    let named = [(PRIVATE_KEY_SECRET, private_key), (KNOWN_HOSTS_SECRET, known_hosts)];
    let secrets = Secrets(named.map(|(name, text)| (name.to_owned(), Secret::new(text.clone()))).into());
    KeyReply::Sealed { key: seal::seal(&secrets, recipient).expect("a recipient") }
}
