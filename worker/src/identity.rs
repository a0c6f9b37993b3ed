//! Who this worker is: the id and the secret that a coordinator gave it for a join token, kept in its data directory, and
//! how often it was started since.
//!
//! The join token is needed once. A start without an identity asks with it until a coordinator answers; what it is given
//! is on disk before anything is done in its name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::{Deserialize, Serialize};
use shared::bus::{Address, Bus};
use shared::id::WorkerId;
use shared::seal::OneTimeKey;
use shared::secret::Secret;
use shared::wire::{self, Enrol, Enrolment, IDENTITY_SECRET};
use tokio::time::sleep;

use crate::durable;

/// How long the answer to an enrolment is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The waits before a coordinator is asked again: from the first, doubling, to the last.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// A worker's id, and what proves that it is this worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub worker: WorkerId,
    pub secret: Secret,
}

/// The join token isn't one, or isn't valid any more.
#[derive(Debug)]
pub struct Refused {
    pub why: String,
}

impl Identity {
    /// The identity in the worker's own directory; none before its enrolment.
    pub fn load(own: &Path) -> io::Result<Option<Self>> {
        match fs::read(file(own)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps it there. It blocks until the disk has it.
    pub fn save(&self, own: &Path) -> io::Result<()> {
        durable::replace(&file(own), &serde_json::to_vec(self)?)
    }
}

/// Where the identity is kept in the worker's own directory.
pub fn file(own: &Path) -> PathBuf {
    own.join("identity.json")
}

/// Where the number of starts is kept there.
pub fn starts_file(own: &Path) -> PathBuf {
    own.join("starts")
}

/// Counts one more start, from 1, and returns how many it were. It blocks until the disk has the number.
pub fn count_start(own: &Path) -> io::Result<u64> {
    let path = starts_file(own);
    let before = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse::<u64>().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let start = before.saturating_add(1);
    durable::replace(&path, format!("{start}\n").as_bytes())?;
    Ok(start)
}

/// Asks for an identity until a coordinator answers.
pub async fn enrol(bus: &dyn Bus, token: &Secret, name: &str) -> Result<Identity, Refused> {
    let key = OneTimeKey::generate();
    let body = wire::encode(&Enrol { token: token.clone(), name: name.to_owned(), recipient: key.recipient() });
    let mut delays = ExponentialBuilder::new()
        .with_min_delay(AGAIN_FIRST)
        .with_max_delay(AGAIN_MAX)
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        let why = match bus.request(&Address::Enrol, body.clone(), ANSWER_WITHIN).await {
            Ok(reply) => match wire::decode::<Enrolment>(&reply) {
                Ok(Enrolment::Refused { why }) => return Err(Refused { why }),
                Ok(Enrolment::Enrolled { worker, secret }) => match key.open(&secret) {
                    Ok(mut secrets) => match secrets.0.remove(IDENTITY_SECRET) {
                        Some(secret) => return Ok(Identity { worker, secret }),
                        None => "the answer holds no secret".to_owned(),
                    },
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        let delay = delays.next().unwrap_or(AGAIN_MAX);
        tracing::warn!(why, ?delay, "this worker isn't enrolled yet: no coordinator has answered, asking again");
        sleep(delay).await;
    }
}
