//! Hands a deploy key out: to the worker that prepares the current attempt of a job that names it, sealed to a one-time
//! recipient, once for each request, and never before the answer is in the audit.

use shared::id::{Actor, Shard, WorkerId};
use shared::job::{KeyAnswer, KeyAsker, KeyRefusal};
use shared::spec::NAME_BYTES_MAX;
use shared::wire::{KeyReply, KeyRequest};

use super::{Parts, decoded};
use crate::store::{AuditLine, Error as StoreError};
use crate::vault;

/// What the audit calls it.
const ACTION: &str = "deploy_key.ask";

/// The answer to a request; none where it doesn't belong to its subject.
pub async fn answer(parts: &Parts, shard: Shard, worker: WorkerId, body: &[u8]) -> Option<KeyReply> {
    let request: KeyRequest = decoded(body)?;
    if request.worker != worker || request.job.shard() != shard {
        tracing::warn!(%worker, %shard, "a request for a deploy key doesn't belong to its subject");
        return None;
    }
    let reply = match decide(parts, &request).await {
        Ok(reply) => reply,
        Err(error) => {
            tracing::warn!(job = %request.job, %worker, %error, "a deploy key can't be looked for");
            unavailable("the coordinator's database does not answer")
        }
    };
    Some(audited(parts, &request, reply).await)
}

/// Remembers who waits for a key, and forgets who doesn't any more.
fn noted(parts: &Parts, request: &KeyRequest, reply: &KeyReply) {
    let KeyRequest { job, attempt, worker, key, .. } = request;
    match reply {
        KeyReply::NotRegistered {} => parts.keys_watched.remember(*job, *attempt, *worker, key),
        KeyReply::Sealed { .. } | KeyReply::Denied { .. } => parts.keys_watched.forget(*job, *attempt, *worker),
        KeyReply::Unavailable { .. } => {}
    }
}

async fn decide(parts: &Parts, request: &KeyRequest) -> Result<KeyReply, StoreError> {
    let Some(job) = parts.store.job(request.job).await? else {
        return Ok(denied(KeyRefusal::NoJob));
    };
    let asker = KeyAsker { worker: request.worker, instance: request.instance, attempt: request.attempt };
    if let Err(why) = job.may_have_key(asker, &request.key) {
        return Ok(denied(why));
    }
    let Some(key) = parts.store.key(&request.key).await? else {
        return Ok(KeyReply::NotRegistered {});
    };
    Ok(match parts.vault.seal_key(&key, &request.recipient) {
        Ok(key) => KeyReply::Sealed { key },
        Err(error @ vault::Error::KeyMissing(_)) => {
            // A replica that was given it, or this one once it is, can hand the deploy key out.
            tracing::error!(key = request.key, %error, "a deploy key can't be handed out here");
            unavailable(&error.to_string())
        }
        Err(error) => {
            // No repeat will open it.
            tracing::error!(key = request.key, %error, "a deploy key can't be handed out");
            KeyReply::Denied { why: format!("the deploy key {} can't be opened: {error}", request.key) }
        }
    })
}

/// The reply once it is in the audit, or what is said in its place where it can't be, or where the request was answered
/// before.
async fn audited(parts: &Parts, request: &KeyRequest, reply: KeyReply) -> KeyReply {
    let owner = parts.holdings.id();
    let first = line(parts, request, outcome(&reply));
    let said = match parts.store.audit(owner, &first).await {
        Ok(true) => {
            noted(parts, request, &reply);
            return reply;
        }
        Ok(false) => {
            tracing::warn!(job = %request.job, worker = %request.worker, "a request for a deploy key comes a second time");
            let denied = denied(KeyRefusal::Replayed);
            let again = AuditLine { request: None, ..line(parts, request, outcome(&denied)) };
            parts.store.audit(owner, &again).await.map(|_| denied)
        }
        Err(error) => Err(error),
    };
    said.unwrap_or_else(|error| {
        tracing::warn!(job = %request.job, worker = %request.worker, %error, "an answer about a deploy key can't be put into the audit");
        unavailable("the coordinator's database does not answer")
    })
}

fn line(parts: &Parts, request: &KeyRequest, outcome: String) -> AuditLine {
    AuditLine {
        at: parts.holdings.now(),
        actor: Actor::Worker(request.worker),
        origin: None,
        action: ACTION.to_owned(),
        subject: subject(&request.key),
        outcome,
        job: Some(request.job),
        attempt: Some(request.attempt),
        request: Some(request.request),
    }
}

/// The name that was asked for, as the audit can hold it: no specification names one that has to be changed here.
fn subject(key: &str) -> String {
    let allowed = |c: char| c.is_ascii_graphic();
    key.chars().take(NAME_BYTES_MAX).map(|c| if allowed(c) { c } else { '?' }).collect()
}

fn outcome(reply: &KeyReply) -> String {
    match reply {
        KeyReply::Sealed { .. } => KeyAnswer::Sealed.to_string(),
        KeyReply::NotRegistered {} => KeyAnswer::NotRegistered.to_string(),
        KeyReply::Denied { why } => format!("{}: {why}", KeyAnswer::Denied),
        KeyReply::Unavailable { why } => format!("{}: {why}", KeyAnswer::Unavailable),
    }
}

fn denied(why: KeyRefusal) -> KeyReply {
    KeyReply::Denied { why: why.to_string() }
}

fn unavailable(why: &str) -> KeyReply {
    KeyReply::Unavailable { why: why.to_owned() }
}
