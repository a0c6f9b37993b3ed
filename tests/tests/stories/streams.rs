//! A running job followed over HTTP, as server-sent events that break off and are taken up again.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::dev::Dev;
use tests::http::Message;

/// How many lines the job writes each time it is let go on.
const BURST: usize = 500;
const BURSTS: usize = 4;

/// A job that writes in bursts, each when the test lets it.
struct Story {
    dev: Dev,
    dir: TempDir,
    id: String,
}

impl Story {
    fn start() -> Self {
        let (dev, dir) = (Dev::start(), TempDir::new().expect("a temporary directory"));
        let script = format!(
            "for burst in $(seq {BURSTS}); do while [ ! -e {}/$burst ]; do sleep 0.02; done; \
             seq $(((burst - 1) * {BURST} + 1)) $((burst * {BURST})); done",
            dir.path().display()
        );
        let steps = json!([{"run": script, "name": "write"}, {"run": "echo err >&2"}]);
        let id = dev.submit(&json!({"steps": steps}));
        Self { dev, dir, id }
    }

    fn go_on(&self, burst: usize) {
        std::fs::write(self.burst(burst), "").expect("a file");
    }

    fn burst(&self, burst: usize) -> PathBuf {
        self.dir.path().join(burst.to_string())
    }

    fn messages(&self, what: &str, last: &str) -> impl Iterator<Item = Message> + use<> {
        self.dev.client.messages(&format!("/api/v1/jobs/{}/{what}", self.id), last)
    }
}

/// The number that the message can be taken up again after.
fn number(message: &Message) -> u64 {
    message.id.parse().unwrap_or_else(|error| panic!("{error}: {message:?}"))
}

fn data(message: &Message) -> Value {
    serde_json::from_str(&message.data).unwrap_or_else(|error| panic!("{error}: {message:?}"))
}

#[test]
fn a_log_that_is_taken_up_again_and_again_has_each_line_once() {
    let story = Story::start();
    let (mut read, mut last) = (Vec::new(), String::new());
    // Each connection is left in the middle of a burst, and the next begins after what was read.
    for burst in 1..=BURSTS {
        story.go_on(burst);
        let until = burst * BURST - BURST / 3;
        let mut messages = story.messages("logs", &last);
        while read.len() < until {
            let message = messages.next().expect("the stream goes on");
            assert_eq!(message.event, "");
            last.clone_from(&message.id);
            read.push(data(&message));
        }
    }
    let rest: Vec<Message> = story.messages("logs", &last).collect();
    let (end, rest) = rest.split_last().expect("an end");
    assert_eq!((end.event.as_str(), data(end)), ("end", json!({"complete": true})));
    read.extend(rest.iter().map(data));

    let texts = |stream: &str| -> Vec<String> {
        let lines = read.iter().filter(|line| line["stream"] == stream);
        lines.map(|line| line["text"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(texts("stdout"), (1..=BURST * BURSTS).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(texts("stderr"), ["err"]);
    let numbers: Vec<u64> = read.iter().filter_map(|line| line["n"].as_u64()).collect();
    assert_eq!(numbers, (1..=read.len() as u64).collect::<Vec<_>>());
    let page = story.dev.client.get(&format!("/api/v1/jobs/{}/logs?limit=1000&after=1000", story.id)).json;
    assert_eq!(page["lines"].as_array().expect("lines")[..], read[1000..2000]);
}

#[test]
fn a_timeline_that_is_taken_up_again_has_each_event_once_and_ends_with_the_state() {
    let story = Story::start();
    let mut first = story.messages("events", "");
    let mut read: Vec<Message> = Vec::new();
    while read.iter().all(|message| data(message)["kind"] != "step_started") {
        read.push(first.next().expect("the stream goes on"));
    }
    drop(first);
    (1..=BURSTS).for_each(|burst| story.go_on(burst));
    let last = read.last().expect("an event").id.clone();
    read.extend(story.messages("events", &last));
    let end = read.pop().expect("an end");
    assert_eq!((end.event.as_str(), data(&end)), ("end", json!({"state": "succeeded"})));
    assert!(read.iter().all(|message| message.event.is_empty() && data(message)["seq"] == number(message)));
    assert_eq!(read.iter().map(data).collect::<Vec<_>>(), story.dev.events(&story.id));
    // After the end there is nothing but the end.
    let after: Vec<Message> = story.messages("events", &read.last().expect("an event").id).collect();
    assert_eq!(after, [end]);
}

#[test]
fn a_log_as_text_is_followed_to_its_end() {
    let story = Story::start();
    let path = format!("/api/v1/jobs/{}/logs?follow=true", story.id);
    let mut lines = story.dev.client.stream(&path, &[("accept", "text/plain")]);
    story.go_on(1);
    let first: Vec<String> = lines.by_ref().take(BURST).collect();
    (2..=BURSTS).for_each(|burst| story.go_on(burst));
    let all: Vec<String> = first.into_iter().chain(lines).collect();
    let expected = (1..=BURST * BURSTS).map(|n| n.to_string()).chain(["err".to_owned()]);
    assert_eq!(all, expected.collect::<Vec<_>>());
}

#[test]
fn a_stream_that_is_open_does_not_hold_up_the_end_of_dev_and_goes_on_at_the_next_start() {
    let mut story = Story::start();
    story.go_on(1);
    let mut messages = story.messages("logs", "");
    let mut last = String::new();
    for _ in 0..BURST {
        last = messages.next().expect("the stream goes on").id;
    }
    let stopped = story.dev.stop();
    assert_eq!(stopped.code(), Some(0));
    let rest: Vec<Message> = messages.collect();
    assert!(rest.iter().all(|message| message.event != "end"), "a stream that is cut off has no end: {rest:?}");
    let last = rest.last().map_or(last, |message| message.id.clone());
    (2..=BURSTS).for_each(|burst| story.go_on(burst));
    story.dev.restart();
    let after: Vec<Message> = story.messages("logs", &last).collect();
    assert_eq!(after.last().expect("an end").event, "end");
    let second = after.iter().filter(|message| message.event.is_empty()).map(data).filter(|line| line["attempt"] == 2);
    let texts: Vec<Value> = second.filter(|line| line["stream"] == "stdout").map(|line| line["text"].clone()).collect();
    assert_eq!(texts, (1..=BURST * BURSTS).map(|n| json!(n.to_string())).collect::<Vec<_>>());
}
