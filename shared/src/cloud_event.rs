//! An event as subscribers get it: a `CloudEvent` 1.0 in its JSON form (<https://github.com/cloudevents/spec>).
//!
//! It is delivered at least once, and a job's events in order: a subscriber skips what isn't higher than the `seq` that
//! it has seen of the job.

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::job::Event;
use crate::time::Time;
use crate::view::EventView;

/// The version of the specification.
const SPEC_VERSION: &str = "1.0";
/// What every event comes from.
const SOURCE: &str = "/windlass";
/// What stands before the kind in a type.
const TYPE_PREFIX: &str = "windlass.job.";
const CONTENT_TYPE: &str = "application/json";

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CloudEvent {
    pub specversion: String,
    /// The job's id and the event's number within the job: a repeat has the same.
    pub id: String,
    pub source: String,
    /// `windlass.job.` and the kind.
    pub r#type: String,
    /// The job's id.
    pub subject: JobId,
    pub time: Time,
    pub datacontenttype: String,
    /// The event's number within the job as text that sorts (the extension `sequence`).
    pub sequence: String,
    /// The event as the API's timeline shows it.
    pub data: EventView,
}

impl From<&Event> for CloudEvent {
    fn from(event: &Event) -> Self {
        Self {
            specversion: SPEC_VERSION.to_owned(),
            id: format!("{}-{}", event.job, event.seq.0),
            source: SOURCE.to_owned(),
            r#type: format!("{TYPE_PREFIX}{}", event.kind.name()),
            subject: event.job,
            time: event.at,
            datacontenttype: CONTENT_TYPE.to_owned(),
            sequence: format!("{:020}", event.seq.0),
            data: EventView::from(event),
        }
    }
}
