//! Who gives a command, and from where: what the audit says of it.

use shared::id::Actor;
use shared::time::Time;

use crate::store::AuditLine;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub actor: Actor,
    /// The address that the command came from, where it came over the network.
    pub origin: Option<String>,
}

impl Caller {
    /// The line that says that this caller did `action` to `subject`, and what came of it.
    pub fn line(&self, at: Time, action: &str, subject: &str, outcome: String) -> AuditLine {
        AuditLine {
            at,
            actor: self.actor.clone(),
            origin: self.origin.clone(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            outcome,
            job: None,
            attempt: None,
            request: None,
        }
    }
}

/// A caller within the process.
impl From<Actor> for Caller {
    fn from(actor: Actor) -> Self {
        Self { actor, origin: None }
    }
}
