//! Who may have a job's deploy key, and what the fetching of one can come to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Job, State};
use crate::id::{Attempt, Instance, WorkerId};
use crate::time::Time;

/// What a try to fetch a deploy key came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyAnswer {
    /// It came, sealed.
    Sealed,
    /// No key of that name is registered, yet or any more.
    NotRegistered,
    /// The attempt may not have it.
    Denied,
    /// Nobody could say.
    Unavailable,
}

impl KeyAnswer {
    /// Its name in events, audit and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::NotRegistered => "not_registered",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for KeyAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why somebody may not have a deploy key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    #[error("there is no such job")]
    NoJob,
    #[error("the attempt is not current")]
    Stale,
    #[error("another worker holds the attempt")]
    NotHolder,
    #[error("the attempt is not preparing")]
    NotPreparing,
    #[error("the job does not name this key")]
    NotNamed,
    #[error("the request was answered before")]
    Replayed,
}

/// That a job was given back since nobody could say whether its deploy key is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {
    /// When that happened for the first time without a key in between.
    pub since: Time,
    /// How often it happened since.
    pub times: u32,
}

/// Somebody who asks for a deploy key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAsker {
    pub worker: WorkerId,
    pub instance: Instance,
    pub attempt: Attempt,
}

impl Job {
    /// Whether `asker` may have the deploy key `name`: while it prepares the current attempt of a job that names it.
    ///
    /// # Errors
    /// Why not.
    pub fn may_have_key(&self, asker: KeyAsker, name: &str) -> Result<(), KeyRefusal> {
        if asker.attempt != self.attempt {
            return Err(KeyRefusal::Stale);
        }
        let hold = match &self.state {
            State::Assigned(hold) => hold,
            State::Running(_) | State::Canceling { .. } => return Err(KeyRefusal::NotPreparing),
            State::Scheduled { .. } | State::Blocked { .. } | State::Queued { .. } => return Err(KeyRefusal::Stale),
            State::Succeeded | State::Failed { .. } | State::Canceled { .. } => return Err(KeyRefusal::Stale),
        };
        if (hold.worker, hold.instance) != (asker.worker, asker.instance) {
            return Err(KeyRefusal::NotHolder);
        }
        let named = self.spec.deploy_key().is_some_and(|key| key.name == name);
        if named { Ok(()) } else { Err(KeyRefusal::NotNamed) }
    }
}
