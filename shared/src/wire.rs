//! The words between coordinators and workers, as JSON. Decoders ignore fields that they don't know, so that two
//! formats can talk; what is missing or too large is refused.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{Attempt, ClaimId, CommitId, CoordinatorId, Epoch, Fence, Instance, JobId, RequestId, Shard, WorkerId};
use crate::job::{AttemptEnd, Progress, Rejection, StopOrder};
use crate::log::{Chunk, LogSummary};
use crate::seal::Sealed;
use crate::secret::Secret;
use crate::spec::{JobSpec, Priority};
use crate::time::Period;

#[cfg(feature = "faults")]
pub mod versions;

/// The most bytes of one message: 512 KiB. What is larger is split by its sender.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// The most reports of one batch.
pub const REPORTS_MAX: usize = 256;

/// Without a heartbeat for this long, a worker's attempt counts as lost.
pub const LEASE: Duration = Duration::from_secs(15);

/// A message that isn't what its subject carries.
#[derive(Debug, thiserror::Error)]
#[error("decoding a message: {0}")]
pub struct Undecodable(#[from] serde_json::Error);

/// The message as bytes.
///
/// # Panics
/// Never: every type of this module is plain data that JSON can write.
#[expect(clippy::expect_used, reason = "plain data without maps of foreign keys always has a JSON form")]
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    serde_json::to_vec(message).expect("plain data has a JSON form").into()
}

/// The message that `bytes` hold.
///
/// # Errors
/// When they don't hold one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Undecodable> {
    #[cfg(feature = "faults")]
    if let Some(bytes) = versions::as_written_by_peers(bytes) {
        return Ok(serde_json::from_slice(&bytes)?);
    }
    Ok(serde_json::from_slice(bytes)?)
}

/// What the owner of a shard says, under its epoch. Whoever hears it ignores an epoch lower than the highest that it has
/// heard of that shard: it comes from an owner that isn't one any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word<T> {
    pub shard: Shard,
    pub epoch: Epoch,
    /// Who says it: whoever names itself can be told of jobs in several shards at once, see [`Words`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<CoordinatorId>,
    #[serde(flatten)]
    pub said: T,
}

/// A program wants to become a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// The join token.
    pub token: Secret,
    /// What people shall call it: its host's name, unless told otherwise.
    pub name: String,
    /// The one-time public key that the secret is to be sealed to.
    pub recipient: String,
}

/// The answer to [`Enrol`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Enrolment {
    /// It is this worker; committed before it is sent. The secret, under [`IDENTITY_SECRET`], proves it from now on.
    Enrolled { worker: WorkerId, secret: Sealed },
    /// The join token isn't one, or has expired.
    Refused { why: String },
}

/// The name of the one secret in [`Enrolment::Enrolled`].
pub const IDENTITY_SECRET: &str = "worker";

/// A worker tells that it is there: at its start, after the sweep, and every five seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub worker: WorkerId,
    pub instance: Instance,
    /// Counts the worker's starts, so that a hello of an earlier one that comes late changes nothing.
    pub start: u64,
    pub tags: Vec<String>,
    pub slots: u32,
    /// How many attempts run.
    pub running: u32,
    /// Whether it takes nothing new and ends when nothing runs any more.
    pub draining: bool,
}

/// The tag sets whose jobs the worker may run, and what it shall do; committed before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub tag_sets: Vec<Vec<String>>,
    pub mode: WorkerMode,
    /// Nothing that this worker says is heard any more: it ends what it runs, and itself. A worker of an earlier version
    /// doesn't read it, and is told to drain besides.
    #[serde(default)]
    pub revoked: bool,
}

impl Welcome {
    /// What a worker hears that shall take nothing more and end once nothing runs.
    pub fn farewell() -> Self {
        Self { tag_sets: Vec::new(), mode: WorkerMode::Draining, revoked: false }
    }
}

/// What people want of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerMode {
    /// It takes offers.
    #[default]
    Active,
    /// It takes nothing new, until it is resumed; restarts don't change that.
    Paused,
    /// It takes nothing new, and its process ends when nothing runs any more. Its next start is active.
    Draining,
}

impl WorkerMode {
    /// Its name, as in the store and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }

    /// The mode of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Active, Self::Paused, Self::Draining].into_iter().find(|mode| mode.name() == name)
    }
}

/// A worker's reports, in order: about jobs of the shard that they are addressed to, and of others that the worker believes
/// to have the same owner, where that one has named itself in a [`Word`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reports {
    pub worker: WorkerId,
    pub instance: Instance,
    pub reports: Vec<Report>,
}

/// One report about one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub job: JobId,
    pub attempt: Attempt,
    #[serde(flatten)]
    pub what: ReportKind,
}

/// What a worker reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum ReportKind {
    /// It wants the attempt. `recipient` is the one-time public key that the job's secrets are to be sealed to; none where
    /// the offer says that it has no secrets. Then it is an empty text on the wire, since an older coordinator, which may own
    /// the shard by now, wants one.
    Claim {
        claim: ClaimId,
        wait: Period,
        #[serde(default, with = "recipient")]
        recipient: Option<String>,
    },
    /// It doesn't want the grant of that claim any more, or of any, and has started nothing.
    Decline {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<ClaimId>,
        why: String,
    },
    /// Report `number` of the attempt, from 1.
    Progress { number: u32, progress: Progress },
    /// The deploy key isn't there; nothing of the attempt runs, and the job shall wait for the key for at most `wait`.
    Park { key: String, wait: Period, log: LogSummary },
    /// Nobody could say whether the deploy key is there; nothing of the attempt runs, and the job shall be offered again.
    GiveBack { log: LogSummary },
    /// The attempt is over.
    End { end: AttemptEnd, log: LogSummary },
}

/// A recipient that may be missing, as a text that may be empty.
mod recipient {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
    pub fn serialize<S: Serializer>(recipient: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(recipient.as_deref().unwrap_or_default())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        Ok(text.filter(|text| !text.is_empty()))
    }
}

impl Reports {
    /// The same message, made of reports that are encoded already.
    pub fn of_encoded<'a>(worker: WorkerId, instance: Instance, reports: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        let empty = encode(&Self { worker, instance, reports: Vec::new() });
        let mut message = empty.strip_suffix(b"]}").unwrap_or_default().to_vec();
        for (index, report) in reports.enumerate() {
            if index > 0 {
                message.push(b',');
            }
            message.extend_from_slice(report);
        }
        message.extend_from_slice(b"]}");
        message
    }
}

/// The answer to [`Reports`] about jobs of the shard alone that they were addressed to, as a [`Word`]: one for each, in the
/// same order, each committed before it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    pub answers: Vec<Answer>,
}

/// The answer to [`Reports`] about jobs of several shards: what the owner of each says under its epoch, as in a [`Word`] of
/// its own. Of a shard that isn't its any more the asked one says nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Words {
    pub owner: CoordinatorId,
    pub words: Vec<ShardAnswers>,
}

/// The answers to the reports about one shard's jobs, in the order of those.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardAnswers {
    pub shard: Shard,
    pub epoch: Epoch,
    pub answers: Vec<Answer>,
}

/// The answer to one report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The attempt is the worker's.
    Granted(Box<Grant>),
    /// It is committed.
    Taken,
    /// It changes nothing and never will. ([`Rejection::Early`] is answered by [`Answer::TryAgain`].)
    Refused { why: Rejection },
    /// There is no such job.
    Unknown,
    /// Nothing is known of its fate: say it again.
    TryAgain,
}

/// Everything a worker needs for one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    pub job: JobId,
    pub attempt: Attempt,
    pub fence: Fence,
    pub spec: JobSpec,
    /// What the ref was resolved to by an earlier attempt: that is what is built.
    pub commit: Option<CommitId>,
    /// The job's secrets, sealed to the claim's recipient.
    pub secrets: Option<Sealed>,
}

/// A worker's attempts in one shard, every five seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub worker: WorkerId,
    pub instance: Instance,
    pub attempts: Vec<(JobId, Attempt)>,
}

/// A worker asks for the deploy key of the attempt that it prepares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRequest {
    pub worker: WorkerId,
    pub instance: Instance,
    /// New for each request: one that was answered is never answered again.
    pub request: RequestId,
    pub job: JobId,
    pub attempt: Attempt,
    /// The key's name.
    pub key: String,
    /// The one-time public key that it is to be sealed to.
    pub recipient: String,
}

/// The answer to [`KeyRequest`], as a [`Word`]; it is in the audit before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum KeyReply {
    /// The private half and the host keys, under [`PRIVATE_KEY_SECRET`] and [`KNOWN_HOSTS_SECRET`].
    Sealed { key: Sealed },
    /// No key of that name is registered; [`Control::LookForKey`] tells when one is.
    NotRegistered {},
    /// Never for this attempt.
    Denied { why: String },
    /// It can't be said, or handed out, now.
    Unavailable { why: String },
}

/// The name of the private half in [`KeyReply::Sealed`]: a private key in OpenSSH's own format.
pub const PRIVATE_KEY_SECRET: &str = "private_key";
/// The name of the host keys in [`KeyReply::Sealed`]: a `known_hosts` file.
pub const KNOWN_HOSTS_SECRET: &str = "known_hosts";

/// What should become of a worker's attempts, from the coordinator's memory, as a [`Word`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// These are to end; said again until the worker has told their end.
    pub stop: Vec<StopOrder>,
}

/// Chunks of log, at most [`MESSAGE_BYTES_MAX`] bytes in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatch {
    pub worker: WorkerId,
    pub chunks: Vec<Chunk>,
}

/// What became of each chunk, in the same order, as a [`Word`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReply {
    pub answers: Vec<LogAnswer>,
}

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogAnswer {
    /// Stored, now or before.
    Stored,
    /// The attempt isn't the worker's: never will be stored.
    Refused,
    /// Not stored: say it again.
    TryAgain,
}

/// A coordinator's order to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Control {
    /// Under the epoch of the job's shard.
    Stop(Word<StopOrder>),
    /// From any coordinator: the deploy key that this attempt waits for may be there now.
    LookForKey { job: JobId, attempt: Attempt },
    /// From any coordinator: say hello at once, there is something to hear.
    SayHello {},
}

/// The worker's answer to an order: it has heard it. The end of an attempt is a report of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {}

/// Which offers wait together: those of one tag set and priority.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lane {
    /// Sorted, without doubles.
    pub tags: Vec<String>,
    pub priority: Priority,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::job::{Offer, Progress};
    use crate::time::Time;

    #[test]
    fn reports_that_were_encoded_one_by_one_are_the_message_that_they_would_be_together() {
        let (worker, instance) = (WorkerId(clock::random_uuid()), Instance(clock::random_uuid()));
        let job = JobId::mint(Shard::new(7).unwrap(), Time::from_micros(1), [3; 10]);
        let progress = |number| ReportKind::Progress { number, progress: Progress::StepStarted { step: 0 } };
        let report = |number| Report { job, attempt: Attempt(2), what: progress(number) };
        for count in [0, 1, 3] {
            let reports: Vec<Report> = (0..count).map(report).collect();
            let encoded: Vec<Bytes> = reports.iter().map(encode).collect();
            let joined = Reports::of_encoded(worker, instance, encoded.iter().map(|bytes| &bytes[..]));
            assert_eq!(joined, encode(&Reports { worker, instance, reports }));
        }
    }

    #[test]
    fn a_claim_without_a_recipient_is_one_with_an_empty_text() {
        let claim =
            |recipient| ReportKind::Claim { claim: ClaimId(clock::random_uuid()), wait: Period::ZERO, recipient };
        for recipient in [None, Some("age1".to_owned())] {
            let told = claim(recipient.clone());
            let json: serde_json::Value = decode(&encode(&told)).unwrap();
            assert_eq!(json["recipient"], recipient.unwrap_or_default(), "an older coordinator wants a text");
            assert_eq!(decode::<ReportKind>(&encode(&told)).unwrap(), told);
            let mut without = json;
            without.as_object_mut().unwrap().remove("recipient");
            let ReportKind::Claim { recipient: None, .. } = decode(&encode(&without)).unwrap() else { panic!("one") };
        }
    }

    #[test]
    fn an_offer_that_does_not_say_may_have_secrets() {
        let job = JobId::mint(Shard::new(7).unwrap(), Time::from_micros(1), [3; 10]);
        for has_secrets in [true, false] {
            let (attempt, tags, priority) = (Attempt(1), Vec::new(), Priority::Normal);
            let offer = Offer { job, attempt, tags, priority, has_secrets };
            assert_eq!(decode::<Offer>(&encode(&offer)).unwrap(), offer);
            let mut old: serde_json::Value = decode(&encode(&offer)).unwrap();
            old.as_object_mut().unwrap().remove("has_secrets");
            assert!(decode::<Offer>(&encode(&old)).unwrap().has_secrets);
        }
    }

    #[test]
    fn a_word_is_read_with_its_owner_and_without() {
        let old = br#"{"shard":7,"epoch":3,"answers":[{"answer":"taken"}]}"#;
        let word: Word<Answers> = decode(old).unwrap();
        assert_eq!((word.owner, word.said.answers.len()), (None, 1));
        assert_eq!(encode(&word), old[..], "nobody is named where nobody was");
        let owner = Some(CoordinatorId(clock::random_uuid()));
        let named = Word { owner, ..word };
        assert_eq!(decode::<Word<Answers>>(&encode(&named)).unwrap(), named);
        // A decoder that knows no owner reads the same.
        let flat: Answers = decode(&encode(&named)).unwrap();
        assert_eq!(flat, named.said);
    }
}
