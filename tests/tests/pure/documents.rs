//! The documents that users build on say what the code does.

use std::collections::BTreeSet;

use serde_json::Value;
use shared::cloud_event::CloudEvent;
use shared::job::Event;

const EVENTS: &str = include_str!("../../../docs/events.md");

/// The pieces of JSON in a document.
fn examples(document: &str) -> Vec<Value> {
    let pieces = document.split("```json\n").skip(1).map(|rest| rest.split("```").next().expect("its end"));
    pieces.map(|piece| serde_json::from_str(piece).unwrap_or_else(|error| panic!("{error}: {piece}"))).collect()
}

#[test]
fn the_document_of_events_shows_each_kind_as_it_is_published() {
    let mut shown = BTreeSet::new();
    for example in examples(EVENTS) {
        let mut inside = example["data"].clone();
        inside["job"] = example["subject"].clone();
        let event: Event = serde_json::from_value(inside).unwrap_or_else(|error| panic!("{error}: {example}"));
        let published = serde_json::to_value(CloudEvent::from(&event)).expect("plain data");
        assert_eq!(published, example);
        shown.insert(event.kind.name());
    }
    let known = super::events::kinds().into_iter().map(|kind| kind.name()).collect();
    assert_eq!(shown, known);
}
