//! A job's attempts as its timeline tells them, and what its notes say of their steps.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::chaos::history::{Event, Id, Key, Note, Noted};

/// One attempt.
#[derive(Debug, Clone)]
pub struct Attempt<'a> {
    pub number: u32,
    pub granted: &'a Event,
    /// None while it is under way.
    pub end: Option<End<'a>>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End<'a> {
    pub event: &'a Event,
    /// Whether its worker has said so: then nothing of it runs any more. Else it is fenced, and may run on where it is cut off.
    pub by_worker: bool,
}

impl<'a> Attempt<'a> {
    /// All attempts of a job with these events.
    pub fn all(events: &[&'a Event]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for event in events {
            if event.kind == "assigned" {
                all.push(Self { number: event.attempt, granted: event, end: None });
            } else if let Some(attempt) = all.last_mut().filter(|attempt| attempt.end.is_none()) {
                attempt.end = end(event).map(|by_worker| End { event, by_worker });
            }
        }
        all
    }

    /// The worker that it was granted to.
    pub fn worker(&self) -> Option<&'a Id> {
        self.granted.worker.as_ref()
    }
}

/// Whether an event ends the live attempt, and if so, whether the worker has said it.
fn end(event: &Event) -> Option<bool> {
    let says = |name: &str, value: &str| event.data.get(name).and_then(Value::as_str) == Some(value);
    match event.kind.as_str() {
        "worker_lost" => Some(false),
        "declined" | "blocked" | "scheduled" | "succeeded" | "late_report" => Some(true),
        // The coordinator's own timer brings an order to stop along.
        "retried" | "failed" => {
            let stop = event.data.get("stop").is_some_and(|stop| !stop.is_null());
            Some(!(says("reason", "timed_out") && stop))
        }
        "canceled" => {
            let canceled = event.data.get("canceled");
            Some(canceled.and_then(|canceled| canceled.get("confirmed")).and_then(Value::as_bool) == Some(true))
        }
        _ => None,
    }
}

/// What the steps of a job have noted, by attempt and step.
#[derive(Debug, Default)]
pub struct Steps<'a>(pub BTreeMap<(u32, u32), Marks<'a>>);

/// What a step has noted in one attempt.
#[derive(Debug, Default)]
pub struct Marks<'a> {
    pub begun: Vec<&'a Note>,
    pub ended: Vec<&'a Note>,
}

impl<'a> Steps<'a> {
    pub fn of(notes: &[(&'a Key, &'a Note)]) -> Self {
        let mut steps = Self::default();
        for (_, note) in notes {
            let marks = steps.0.entry((note.attempt, note.step)).or_default();
            match note.what {
                Noted::Begin => marks.begun.push(note),
                Noted::End => marks.ended.push(note),
                Noted::Overlap { .. } => {}
            }
        }
        steps
    }

    /// Whether that step has begun in that attempt.
    pub fn began(&self, attempt: u32, step: u32) -> bool {
        self.0.get(&(attempt, step)).is_some_and(|marks| !marks.begun.is_empty())
    }

    /// Whether it has come to its end.
    pub fn ended(&self, attempt: u32, step: u32) -> bool {
        self.0.get(&(attempt, step)).is_some_and(|marks| !marks.ended.is_empty())
    }
}
