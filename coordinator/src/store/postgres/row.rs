//! What columns hold, from and to the types of the domain. Everything that can't be read is [`Error::Corrupt`].

use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};
use uuid::Uuid;

use shared::id::{Actor, Attempt, CommitId, Fence, JobId, Seq, Shard, ShardSeq, Version, WorkerId};
use shared::job::{Event, Job, Offer};
use shared::time::Time;

use crate::store::Error;

/// The numbers of the type `timestamptz` and of its arrays, fixed by Postgres (`pg_type.dat`).
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);
/// From 1970, where our microseconds begin, to 2000, where those of Postgres do.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A `timestamptz`, which is microseconds as [`Time`] is: nothing is lost either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(pub Time);

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }

    fn compatible(given: &PgTypeInfo) -> bool {
        given.oid() == Some(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for Moment {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for Moment {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Postgres>>::encode_by_ref(&self.0.micros().saturating_sub(EPOCH_MICROS), buffer)
    }
}

impl Decode<'_, Postgres> for Moment {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() == PgValueFormat::Text {
            return Err("a time comes as text only to what sends no parameters".into());
        }
        let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        Ok(Self(Time::from_micros(micros.saturating_add(EPOCH_MICROS))))
    }
}

/// A whole row of `jobs`.
pub(super) struct JobRow {
    pub id: Uuid,
    pub version: i64,
    pub seq: i64,
    pub attempt: i64,
    pub tries: i64,
    pub detail: String,
    pub has_secrets: bool,
    pub retry_of: Option<Uuid>,
    pub worker: Option<Uuid>,
    pub told: Option<String>,
    pub given_back: Option<String>,
    pub fence: i64,
    pub commit_id: Option<String>,
    pub created_at: Moment,
    pub queued_at: Option<Moment>,
    pub started_at: Option<Moment>,
    pub finished_at: Option<Moment>,
    pub spec: String,
}

impl JobRow {
    /// The job that it holds.
    pub(super) fn job(self) -> Result<Job, Error> {
        Ok(Job {
            id: self.id.into(),
            spec: Arc::new(parsed("spec", &self.spec)?),
            has_secrets: self.has_secrets,
            retry_of: self.retry_of.map(JobId::from),
            version: Version(natural("version", self.version)?),
            seq: Seq(natural("seq", self.seq)?),
            attempt: Attempt(natural("attempt", self.attempt)?),
            worker: self.worker.map(WorkerId),
            told: self.told.map(|told| parsed("told", &told)).transpose()?,
            tries: natural("tries", self.tries)?,
            given_back: self.given_back.map(|given| parsed("given_back", &given)).transpose()?,
            fence: Fence(natural("fence", self.fence)?),
            commit: self.commit_id.map(commit_id).transpose()?,
            created_at: self.created_at.0,
            queued_at: self.queued_at.map(|at| at.0),
            started_at: self.started_at.map(|at| at.0),
            finished_at: self.finished_at.map(|at| at.0),
            state: parsed("detail", &self.detail)?,
        })
    }
}

/// What of a queued job its offer says.
pub(super) struct OfferRow {
    pub id: Uuid,
    pub attempt: i64,
    pub tags: String,
    pub priority: String,
    pub has_secrets: bool,
}

impl OfferRow {
    /// The offer for the job's next attempt.
    pub(super) fn offer(self) -> Result<Offer, Error> {
        Ok(Offer {
            job: self.id.into(),
            attempt: Attempt(natural("attempt", self.attempt)?).next(),
            tags: parsed("tags", &self.tags)?,
            priority: self.priority.parse().map_err(|fault| corrupt("priority", fault))?,
            has_secrets: self.has_secrets,
        })
    }
}

/// A row of `job_events`.
pub(super) struct EventRow {
    pub job_id: Uuid,
    pub seq: i64,
    pub shard_seq: i64,
    pub at: Moment,
    pub attempt: i64,
    pub actor: String,
    pub data: String,
}

impl EventRow {
    /// The event that it holds, with its number in the shard.
    pub(super) fn event(self) -> Result<(ShardSeq, Event), Error> {
        let event = Event {
            job: self.job_id.into(),
            seq: Seq(natural("seq", self.seq)?),
            at: self.at.0,
            attempt: Attempt(natural("attempt", self.attempt)?),
            actor: Actor::try_from(self.actor).map_err(|fault| corrupt("actor", fault))?,
            kind: parsed("data", &self.data)?,
        };
        Ok((ShardSeq(natural("shard_seq", self.shard_seq)?), event))
    }
}

/// A number that is never negative, in the width that it has outside.
pub(super) fn natural<T: TryFrom<i64, Error: Display>>(column: &str, number: i64) -> Result<T, Error> {
    number.try_into().map_err(|fault| corrupt(column, fault))
}

/// A number as Postgres keeps it, in 63 bits.
pub(super) fn integer(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|fault| corrupt("a number", fault))
}

/// A shard's number, as it is kept.
pub(super) fn small(shard: Shard) -> i16 {
    // There are 256 shards.
    i16::try_from(shard.number()).unwrap_or(i16::MAX)
}

/// The numbers of shards, as they are kept.
pub(super) fn smalls(shards: &[Shard]) -> Vec<i16> {
    shards.iter().copied().map(small).collect()
}

/// The shard of a number that is kept.
pub(super) fn shard(number: i16) -> Result<Shard, Error> {
    let shard = u16::try_from(number).ok().and_then(Shard::new);
    shard.ok_or_else(|| Error::Corrupt(format!("there is no shard {number}")))
}

/// What a column's JSON says.
pub(super) fn parsed<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, Error> {
    #[cfg(feature = "faults")]
    if let Some(text) = shared::wire::versions::as_written_by_peers(text.as_bytes()) {
        return serde_json::from_slice(&text).map_err(|fault| corrupt(column, fault));
    }
    serde_json::from_str(text).map_err(|fault| corrupt(column, fault))
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|fault| corrupt("a value", fault))
}

/// The 32 bytes of a column.
pub(super) fn digest(column: &str, bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_| Error::Corrupt(format!("{column}: not 32 bytes")))
}

fn commit_id(text: String) -> Result<CommitId, Error> {
    text.try_into().map_err(|fault| corrupt("commit_id", fault))
}

pub(super) fn corrupt(what: &str, fault: impl Display) -> Error {
    Error::Corrupt(format!("{what}: {fault}"))
}
