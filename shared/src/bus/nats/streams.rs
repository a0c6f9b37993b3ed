//! What the two streams and the lanes' consumers have to be like. What is there is compared with it field by field, and
//! never changed: whoever made it otherwise had a reason, or made a mistake that we can't mend without loss.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::jetstream::nanoseconds;
use super::subjects::{EVENT_SUBJECTS, EVENTS, LaneName, OFFER_SUBJECTS, OFFERS};

/// How long an offer that nobody takes is kept. Whoever still wants it by then makes it again.
const OFFER_AGE_MAX: Duration = Duration::from_hours(24);
/// The most workers that wait at one consumer, and the most offers of it in workers' hands.
const WAITING_MAX: u32 = 10_000;

/// Something on the server, as it has to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its kind and name, for people.
    pub what: String,
    /// The stream's name.
    pub stream: &'static str,
    /// The fields that matter.
    config: Map<String, Value>,
    /// How it is deleted, and what that costs.
    remedy: String,
}

/// A thing on the server that is not as it has to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} on NATS: `{field}` is {found}, and has to be {expected}: {remedy}")]
pub struct Mismatch {
    pub what: String,
    pub field: String,
    pub found: String,
    pub expected: String,
    pub remedy: String,
}

impl Plan {
    /// The stream of offers: a work queue with one message a subject, which refuses a second one.
    pub fn offers() -> Self {
        let config = json!({
            "subjects": [OFFER_SUBJECTS],
            "retention": "workqueue",
            "discard": "new",
            "discard_new_per_subject": true,
            "max_msgs_per_subject": 1,
            "max_age": nanoseconds(OFFER_AGE_MAX),
        });
        let remedy = format!(
            "set it so, or delete the stream (`nats stream rm {OFFERS}`): it is made again, and all offers with it"
        );
        Self::stream(OFFERS, config, remedy)
    }

    /// The stream of events, which forgets what is older than `age`.
    pub fn events(age: Duration) -> Self {
        let config = json!({
            "subjects": [EVENT_SUBJECTS],
            "retention": "limits",
            "discard": "old",
            "discard_new_per_subject": false,
            "max_msgs_per_subject": -1,
            "max_age": nanoseconds(age),
        });
        let remedy = format!(
            "set it so, or delete the stream (`nats stream rm {EVENTS}`): it is made again, without the events that \
             subscribers haven't read yet"
        );
        Self::stream(EVENTS, config, remedy)
    }

    fn stream(stream: &'static str, own: Value, remedy: String) -> Self {
        // Where it is stored, and how often, is the operators' choice.
        let mut config = fields(json!({
            "name": stream,
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_msg_size": -1,
            "no_ack": false,
            "sealed": false,
            "deny_delete": false,
            "deny_purge": false,
        }));
        config.extend(fields(own));
        Self { what: format!("the stream {stream}"), stream, config, remedy }
    }

    /// The durable consumer of a lane. An offer that isn't settled within `settle_within` is delivered again.
    pub fn consumer(lane: &LaneName, settle_within: Duration) -> Self {
        let name = lane.as_str();
        let config = fields(json!({
            "name": name,
            "durable_name": name,
            "filter_subject": lane.subjects(),
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": nanoseconds(settle_within),
            // A message that has spent its deliveries would block its subject for ever.
            "max_deliver": -1,
            "max_waiting": WAITING_MAX,
            "max_ack_pending": WAITING_MAX,
        }));
        let remedy = format!("delete it (`nats consumer rm {OFFERS} {name}`): it is made again, and no offer is lost");
        Self { what: format!("the consumer {name} of the stream {OFFERS}"), stream: OFFERS, config, remedy }
    }

    /// A consumer of the offers' stream that is no lane's: on a work queue it takes offers away from one.
    pub fn stranger(name: &str) -> Mismatch {
        Mismatch {
            what: format!("a consumer of the stream {OFFERS}"),
            field: "name".to_owned(),
            found: format!("{name:?}"),
            expected: "that of a lane".to_owned(),
            remedy: format!("delete it (`nats consumer rm {OFFERS} {name}`): it takes what workers wait for"),
        }
    }

    /// What to ask of the API to have it made, and with which words.
    pub fn creation(&self) -> (String, Value) {
        let mut config = self.config.clone();
        let text = |field: &str| self.config.get(field).and_then(Value::as_str).unwrap_or_default();
        if config.contains_key("durable_name") {
            config.insert("replay_policy".to_owned(), json!("instant"));
            let verb = format!("CONSUMER.CREATE.{}.{}.{}", self.stream, text("name"), text("filter_subject"));
            return (verb, json!({ "stream_name": self.stream, "config": config }));
        }
        config.extend(fields(json!({ "storage": "file", "num_replicas": 1 })));
        (format!("STREAM.CREATE.{}", self.stream), Value::Object(config))
    }

    /// Compares what the server shows of it, its `config`, with the plan.
    pub fn check(&self, config: &Value) -> Result<(), Mismatch> {
        for (field, expected) in &self.config {
            let found = config.get(field).unwrap_or(&Value::Null);
            let unset = found.is_null() && (*expected == json!(false));
            if found != expected && !unset {
                return Err(Mismatch {
                    what: self.what.clone(),
                    field: field.clone(),
                    found: found.to_string(),
                    expected: expected.to_string(),
                    remedy: self.remedy.clone(),
                });
            }
        }
        Ok(())
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_by_the_plan_fits_the_plan() {
        let plan = Plan::offers();
        let (verb, config) = plan.creation();
        assert_eq!((verb.as_str(), plan.check(&config)), ("STREAM.CREATE.WINDLASS_OFFERS", Ok(())));
    }

    #[test]
    fn a_mismatch_names_the_field_what_is_there_and_what_to_do() {
        let plan = Plan::offers();
        let (_, mut config) = plan.creation();
        config["max_msgs_per_subject"] = json!(2);
        let mismatch = plan.check(&config).unwrap_err().to_string();
        for part in ["WINDLASS_OFFERS", "`max_msgs_per_subject`", "is 2", "has to be 1", "nats stream rm"] {
            assert!(mismatch.contains(part), "{mismatch}");
        }
    }

    #[test]
    fn a_flag_that_an_older_server_leaves_out_is_not_set() {
        let plan = Plan::events(Duration::from_hours(1));
        let (_, mut config) = plan.creation();
        config.as_object_mut().unwrap().remove("discard_new_per_subject");
        assert_eq!(plan.check(&config), Ok(()));
        config.as_object_mut().unwrap().remove("retention");
        assert!(plan.check(&config).is_err());
    }
}
