//! What subscribers hear over NATS: every event, each job's in order, with who did it and why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use shared::bus::Bus;
use shared::bus::nats::{NatsBus, NatsOptions, Role};
use shared::cloud_event::CloudEvent;
use tests::cluster::{Cluster, LOAD_WITHIN};

use crate::load::Load;

/// Hears events in a thread of its own, until nothing new has come for a while.
struct Subscriber {
    runtime: tokio::runtime::Runtime,
    bus: Arc<dyn Bus>,
    events: tokio::sync::broadcast::Receiver<CloudEvent>,
}

impl Subscriber {
    fn of(cluster: &Cluster) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (bus, events) = runtime.block_on(async {
            let options = NatsOptions::new(cluster.nats.url(), Role::Worker);
            let bus: Arc<dyn Bus> = Arc::new(NatsBus::connect(options).await.expect("a connection"));
            let events = bus.events().await.expect("a subscription");
            (bus, events)
        });
        Self { runtime, bus, events }
    }

    /// Hears on until `enough` says so.
    fn hear(mut self, mut enough: impl FnMut(&CloudEvent) -> bool) -> Vec<CloudEvent> {
        let mut heard = Vec::new();
        self.runtime.block_on(async {
            loop {
                let event = tokio::time::timeout(LOAD_WITHIN, self.events.recv()).await.expect("an event in time");
                heard.push(event.expect("nothing is missed"));
                if heard.last().is_some_and(&mut enough) {
                    break;
                }
            }
        });
        drop(self.bus);
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        heard
    }
}

#[test]
fn subscribers_hear_every_event_at_least_once_and_each_jobs_in_order_though_its_coordinator_dies() {
    let mut cluster = Cluster::start(2, 1);
    let subscriber = Subscriber::of(&cluster);
    let load = Load::begin(&cluster, 60, "true");
    tests::wait::eventually(LOAD_WITHIN, "the load is under way", || (load.accepted().len() >= 30).then_some(()));
    cluster.coordinators[0].server.kill();
    let load = load.submitted();
    cluster.judged(&load.ids, LOAD_WITHIN);
    let mut open: std::collections::BTreeSet<String> = load.ids.iter().cloned().collect();
    let heard = subscriber.hear(|event| {
        if matches!(&*event.data.kind, "succeeded" | "failed" | "canceled") {
            open.remove(&event.subject.to_string());
        }
        open.is_empty()
    });
    let mut by_job: BTreeMap<String, Vec<CloudEvent>> = BTreeMap::new();
    for event in heard {
        by_job.entry(event.subject.to_string()).or_default().push(event);
    }
    let mut repeats = 0;
    for id in &load.ids {
        let mut last = 0;
        let mut kinds = Vec::new();
        for event in &by_job[id] {
            // A subscriber skips what isn't higher.
            if event.data.seq > last {
                assert_eq!(event.data.seq, last + 1, "job {id} has a gap after {last}");
                last = event.data.seq;
                kinds.push(event.data.kind.to_string());
            } else {
                repeats += 1;
            }
        }
        assert_eq!(kinds, cluster.kinds(id));
    }
    println!("{repeats} repeats");
}

#[test]
fn an_outcome_says_who_and_why_in_the_form_of_a_cloud_event() {
    let cluster = Cluster::start(2, 0);
    let subscriber = Subscriber::of(&cluster);
    let id = cluster.submit(&json!({"steps": [{"run": "true"}]}));
    let path = format!("/api/v1/jobs/{id}/cancel");
    let answer = cluster.coordinators[cluster.other(&id)].client.post(&path, &json!({"reason": "a freeze"}));
    assert_eq!(answer.status, 202, "{}", answer.text);
    let heard = subscriber.hear(|event| event.data.kind == "canceled");
    let last = serde_json::to_value(heard.last().expect("an event")).expect("JSON");
    assert_eq!(last["specversion"], "1.0");
    assert_eq!(last["type"], "windlass.job.canceled");
    assert_eq!(last["subject"], id.as_str());
    assert_eq!(last["id"], format!("{id}-{}", last["data"]["seq"]));
    assert_eq!(last["datacontenttype"], "application/json");
    assert_eq!(last["data"]["actor"], "client:admin");
    let outcome = &last["data"]["canceled"];
    assert_eq!((&outcome["why"], &outcome["by"]), (&json!("a freeze"), &json!("client:admin")), "{last}");
}
