//! `JetStream`'s own words: questions to its API, and messages that a stream acknowledges. Both are plain requests with
//! JSON in them, asked over our own inbox, so that an answer that never comes leaves nothing behind.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::line::{Line, SERVER_WITHIN, Unanswered};

/// "Stream not found".
const NO_STREAM: u64 = 10059;
/// "Consumer not found".
const NO_CONSUMER: u64 = 10014;
/// "`JetStream` not enabled for account", "`JetStream` not enabled".
const NO_JETSTREAM: [u64; 2] = [10039, 10076];
/// "Message size exceeds maximum allowed".
const MESSAGE_TOO_LARGE: u64 = 10054;
/// "No message found", as an answer to a question for one and to its deletion.
const NO_MESSAGE: [u64; 2] = [10037, 10057];
/// A stream's own limit refuses a message. Which limit it is only its text says.
const STREAM_LIMIT: u64 = 10077;
/// What a stream says whose files are gone, with that same number.
const NO_FILE: &str = "no such file or directory";
const SUBJECT_LIMIT: &str = "maximum messages per subject exceeded";

/// What `JetStream` refuses, and why.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{description} ({err_code})")]
pub struct Fault {
    #[serde(default)]
    pub err_code: u64,
    #[serde(default)]
    pub description: String,
}

impl Fault {
    /// Whether the stream isn't there.
    pub fn is_no_stream(&self) -> bool {
        self.err_code == NO_STREAM
    }

    /// Whether the consumer isn't there.
    pub fn is_no_consumer(&self) -> bool {
        self.err_code == NO_CONSUMER
    }

    /// Whether the message isn't there.
    pub fn is_no_message(&self) -> bool {
        NO_MESSAGE.contains(&self.err_code)
    }

    /// Whether `JetStream` is off for us.
    pub fn is_no_jetstream(&self) -> bool {
        NO_JETSTREAM.contains(&self.err_code)
    }

    /// Whether the stream holds a message of that subject already. A stream that is full has the same number.
    pub fn is_still_there(&self) -> bool {
        self.err_code == STREAM_LIMIT && self.description == SUBJECT_LIMIT
    }

    /// Whether the stream's files are gone from under it, so that it takes nothing ever again.
    pub fn is_broken(&self) -> bool {
        self.err_code == STREAM_LIMIT && self.description.contains(NO_FILE)
    }

    /// Whether no repetition will make the stream take the message.
    pub fn is_too_large(&self) -> bool {
        self.err_code == MESSAGE_TOO_LARGE
    }
}

/// Why `JetStream` didn't do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error(transparent)]
    Refused(#[from] Fault),
    #[error("an answer that isn't one: {0}")]
    Garbled(String),
}

/// What every answer may be instead of what was asked for.
#[derive(Deserialize)]
struct MaybeFault {
    error: Option<Fault>,
}

/// Asks `JetStream`'s API, as in `STREAM.INFO.NAME`.
pub async fn api(line: &Line, verb: &str, body: &Value) -> Result<Value, Error> {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let reply = line.ask_server(format!("$JS.API.{verb}"), None, body).await?;
    answer(&reply.payload)
}

/// A message for a stream.
pub struct ForStream {
    pub subject: String,
    pub headers: Option<HeaderMap>,
    pub body: Bytes,
}

/// Has a stream take a message; returns once it holds it.
pub async fn publish(line: &Line, message: ForStream) -> Result<(), Error> {
    let ForStream { subject, headers, body } = message;
    acknowledged(&line.ask_server(subject, headers, body).await?.payload)
}

/// The same for several at once, in their order; returns once each is held, or its fate is known to be another.
pub async fn publish_all(line: &Line, messages: Vec<ForStream>) -> Vec<Result<(), Error>> {
    let deadline = Instant::now() + SERVER_WITHIN;
    let mut asked = Vec::with_capacity(messages.len());
    for ForStream { subject, headers, body } in messages {
        asked.push(line.begin_asking_server(subject, headers, body, deadline).await);
    }
    let mut held = Vec::with_capacity(asked.len());
    for asked in asked {
        held.push(match asked {
            Ok(asked) => {
                asked.reply(deadline).await.map_err(Error::from).and_then(|reply| acknowledged(&reply.payload))
            }
            Err(error) => Err(error.into()),
        });
    }
    held
}

/// What a stream answers that was to take a message.
#[derive(Deserialize)]
struct Acknowledgement {
    error: Option<Fault>,
    stream: Option<String>,
}

fn acknowledged(payload: &[u8]) -> Result<(), Error> {
    let answer: Acknowledgement = serde_json::from_slice(payload).map_err(|error| Error::Garbled(error.to_string()))?;
    match (answer.error, answer.stream) {
        (Some(fault), _) => Err(fault.into()),
        (None, Some(_)) => Ok(()),
        (None, None) => Err(Error::Garbled("no stream acknowledged the message".to_owned())),
    }
}

/// Deletes the message of a subject from a stream that holds one at most, if it does.
///
/// It isn't purged: a server of 2.9 then counts all that waits at a consumer of such subjects as delivered, and nobody
/// gets it any more.
pub async fn delete(line: &Line, stream: &str, subject: &str) -> Result<(), Error> {
    let asked = api(line, &format!("STREAM.MSG.GET.{stream}"), &json!({ "last_by_subj": subject })).await;
    let sequence = match asked {
        Err(Error::Refused(fault)) if fault.is_no_message() => return Ok(()),
        found => found?.pointer("/message/seq").cloned(),
    };
    let Some(sequence) = sequence else { return Err(Error::Garbled("a message without its number".to_owned())) };
    // One that has taken its place since has another number, and stays.
    let request = json!({ "seq": sequence, "no_erase": true });
    match api(line, &format!("STREAM.MSG.DELETE.{stream}"), &request).await {
        Err(Error::Refused(fault)) if fault.is_no_message() => Ok(()),
        deleted => deleted.map(drop),
    }
}

/// What an answer of `JetStream` says.
///
/// # Errors
/// What it refuses, and where it is no answer.
pub fn answer(payload: &[u8]) -> Result<Value, Error> {
    let garbled = |error: serde_json::Error| Error::Garbled(error.to_string());
    let value: Value = serde_json::from_slice(payload).map_err(garbled)?;
    match MaybeFault::deserialize(&value).map_err(garbled)?.error {
        Some(fault) => Err(fault.into()),
        None => Ok(value),
    }
}

/// A time as `JetStream` writes it: nanoseconds.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &[u8]) -> Fault {
        assert_eq!(acknowledged(json).unwrap_err(), answer(json).unwrap_err());
        match answer(json) {
            Err(Error::Refused(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_stream_is_not_taken_for_a_message_that_is_still_there() {
        // As nats-server 2.9.10 and 2.15 write them.
        let there = fault(
            br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages per subject exceeded"},"stream":"S","seq":0}"#,
        );
        let full = fault(br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"S","seq":0}"#);
        assert!(there.is_still_there() && !full.is_still_there());
        let broken = fault(br#"{"error":{"code":503,"err_code":10077,"description":"error opening msg block file [\"/js/1.blk\"]: open /js/1.blk: no such file or directory"},"stream":"S","seq":0}"#);
        assert!(broken.is_broken() && !broken.is_still_there() && !full.is_broken() && !there.is_broken());
    }

    #[test]
    fn an_acknowledgement_has_no_fault() {
        assert_eq!(acknowledged(br#"{"stream":"S", "seq":1}"#), Ok(()));
        assert!(matches!(acknowledged(br#"{"seq":1}"#), Err(Error::Garbled(_))));
        assert!(matches!(acknowledged(b"+OK"), Err(Error::Garbled(_))));
        assert!(matches!(answer(b"+OK"), Err(Error::Garbled(_))));
    }
}
