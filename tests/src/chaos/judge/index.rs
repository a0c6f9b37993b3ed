//! The history by job: read once, so that no rule looks for what it needs.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;
use shared::job::StateName;
use shared::time::Time;

use super::attempts::{Attempt, Steps};
use super::order::{Stand, is_terminal};
use super::outcomes::Outcome;
use super::places::{self, Place};
use super::sightings::{self, Sighting};
use crate::chaos::history::{Asked, At, Event, History, Id, Key, Kind, Note, Row, Target, Told, View};

/// How far a coordinator's idea of the database's clock may be off.
pub const CLOCKS_APART: Duration = Duration::from_secs(3);
/// The furthest that a trouble lets the database's clock jump, and some more.
const JUMP_MAX: Duration = Duration::from_secs(45);
/// How long a coordinator goes by what it last heard of that clock.
const RENEWAL: Duration = Duration::from_secs(10);

/// See the module.
pub struct Index<'a> {
    pub history: &'a History,
    /// The first moment of which anything is written down.
    pub began: At,
    /// Every job of which anything is said: those with a row first, in their order.
    pub jobs: Vec<Job<'a>>,
    by_id: HashMap<&'a Id, usize>,
    /// The rows of each key.
    pub by_key: HashMap<&'a Key, Vec<&'a Row>>,
    /// The number by which troubles name each worker.
    pub workers: HashMap<&'a Id, usize>,
    /// When the database's clock was another, or what coordinators knew of it, and which way it had jumped.
    mistimed: Vec<(At, At, Kind)>,
}

/// All that is said of a job.
pub struct Job<'a> {
    pub id: &'a Id,
    /// What was asked of it, as its row's key says.
    pub asked: Option<&'a Asked>,
    /// One, unless a promise is broken.
    pub rows: Vec<&'a Row>,
    /// By their number.
    pub events: Vec<&'a Event>,
    /// Where the job stands after each event.
    pub stands: Vec<Stand>,
    /// The events that can't follow what is before them, by their place.
    pub misplaced: Vec<usize>,
    /// As they came.
    pub told: Vec<&'a Told>,
    /// The first copy of each event that was told, by the event's place.
    pub first_told: Vec<Option<&'a Told>>,
    pub views: Vec<&'a View>,
    pub notes: Vec<(&'a Key, &'a Note)>,
    pub steps: Steps<'a>,
    pub attempts: Vec<Attempt<'a>>,
    /// What anybody has seen of it, in the order in which they asked.
    pub sightings: Vec<Sighting<'a>>,
    /// Where each of them saw it.
    pub places: Vec<Place>,
}

impl<'a> Index<'a> {
    pub fn of(history: &'a History) -> Self {
        let mut by_key: HashMap<&Key, Vec<&Row>> = HashMap::new();
        for row in &history.rows {
            by_key.entry(&row.key).or_default().push(row);
        }
        let numbered = history.end.workers.iter().enumerate();
        let workers = numbered.flat_map(|(index, ids)| ids.iter().map(move |id| (id, index))).collect();
        let clock = history.troubles.iter().filter(|trouble| {
            trouble.target == Target::Postgres && matches!(trouble.kind, Kind::ClockAhead | Kind::ClockBehind)
        });
        let mistimed = clock.map(|trouble| (trouble.from, after(trouble.to, RENEWAL), trouble.kind)).collect();
        let (jobs, by_id) = (Vec::new(), HashMap::new());
        let mut index = Self { history, began: began(history), jobs, by_id, by_key, workers, mistimed };
        for row in &history.rows {
            index.entry(&row.id).rows.push(row);
        }
        for event in &history.events {
            index.entry(&event.job).events.push(event);
        }
        for told in &history.told {
            index.entry(&told.job).told.push(told);
        }
        for view in &history.views {
            index.entry(&view.job).views.push(view);
        }
        for (key, notes) in &history.notes {
            for note in notes {
                index.entry(&note.job).notes.push((key, note));
            }
        }
        for job in &mut index.jobs {
            job.asked = job.rows.first().and_then(|row| history.jobs.get(&row.key));
            job.understand();
        }
        for (job, sighting) in sightings::answered(&index) {
            index.entry(job).sightings.push(sighting);
        }
        for job in &mut index.jobs {
            sightings::told(job);
            job.sightings.sort_by_key(|sighting| sighting.asked);
        }
        let places: Vec<Vec<Place>> = index.jobs.iter().map(|job| places::of(&index, job)).collect();
        index.jobs.iter_mut().zip(places).for_each(|(job, places)| job.places = places);
        index
    }

    fn entry(&mut self, id: &'a Id) -> &mut Job<'a> {
        let at = *self.by_id.entry(id).or_insert(self.jobs.len());
        if at == self.jobs.len() {
            self.jobs.push(Job::of(id));
        }
        &mut self.jobs[at]
    }

    /// What is said of that job.
    pub fn job(&self, id: &Id) -> Option<&Job<'a>> {
        self.by_id.get(id).map(|at| &self.jobs[*at])
    }

    /// The earliest at which an event can have been committed, as it says itself: by the database's clock, as its coordinator
    /// knew it. Where that clock may have been ahead about then, it was by no more than it can jump.
    pub fn earliest(&self, job: &Job<'_>, event: &Event) -> Option<At> {
        let said = said(job, event)?;
        Some(if self.was_mistimed(job, event, said, Kind::ClockAhead) { before(said, JUMP_MAX) } else { said })
    }

    /// The latest at which it can have been committed: as it says itself, and where that clock may have been another, not
    /// after it was told, nor, unless the clock was behind, after what it says.
    pub fn latest(&self, job: &Job<'_>, event: &Event) -> Option<At> {
        let (said, told) = (said(job, event), job.told_at(event));
        let Some(said) = said else { return told };
        if self.was_mistimed(job, event, said, Kind::ClockBehind) {
            return told;
        }
        let ahead = self.was_mistimed(job, event, said, Kind::ClockAhead);
        Some(if ahead { told.map_or(said, |told| told.min(said)) } else { said })
    }

    /// Whether the database's clock may have jumped that way when this event was committed.
    fn was_mistimed(&self, job: &Job<'_>, event: &Event, said: At, kind: Kind) -> bool {
        // One that was never told may have been committed by any later clock.
        let known = job.told_at(event).unwrap_or_else(|| after(said, JUMP_MAX));
        let (from, to) = (before(said.min(known), JUMP_MAX), said.max(known));
        self.mistimed.iter().any(|(since, until, which)| *which == kind && *since <= to && from <= *until)
    }

    /// A moment, as the time since the run's beginning.
    pub fn time(&self, at: At) -> String {
        let since = (at - self.began).as_millis();
        format!("+{}.{:03} s", since / 1000, since % 1000)
    }

    /// The troubles that were there from `from` to `to`, for whoever looks for a cause.
    pub fn around(&self, from: At, to: At) -> String {
        let there = self.history.troubles.iter().filter(|trouble| trouble.from <= to && from <= trouble.to);
        let mut words = String::new();
        for trouble in there {
            let (from, to) = (self.time(trouble.from), self.time(trouble.to));
            let separator = if words.is_empty() { "; troubles: " } else { ", " };
            write!(words, "{separator}{:?} of {:?} {from} to {to}", trouble.kind, trouble.target)
                .expect("text takes whatever is written to it");
        }
        if words.is_empty() { "; no trouble around it".to_owned() } else { words }
    }
}

impl<'a> Job<'a> {
    fn of(id: &'a Id) -> Self {
        Self {
            id,
            asked: None,
            rows: Vec::new(),
            events: Vec::new(),
            stands: Vec::new(),
            misplaced: Vec::new(),
            told: Vec::new(),
            first_told: Vec::new(),
            views: Vec::new(),
            notes: Vec::new(),
            steps: Steps::default(),
            attempts: Vec::new(),
            sightings: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Works out what follows from its events and notes.
    fn understand(&mut self) {
        self.events.sort_by_key(|event| event.seq);
        let mut stand = Stand::Nothing;
        for (place, event) in self.events.iter().enumerate() {
            stand = stand.after(&event.kind).unwrap_or_else(|| {
                self.misplaced.push(place);
                stand.forced(&event.kind)
            });
            self.stands.push(stand);
        }
        self.first_told = vec![None; self.events.len()];
        for told in &self.told {
            if let Some(place) = self.place(told.seq) {
                self.first_told[place].get_or_insert(told);
            }
        }
        self.attempts = Attempt::all(&self.events);
        self.steps = Steps::of(&self.notes);
    }

    /// Its row, unless it has none.
    pub fn row(&self) -> Option<&'a Row> {
        self.rows.first().copied()
    }

    /// Its name in evidence.
    pub fn name(&self) -> String {
        self.row().map_or_else(|| format!("job {}", self.id.0), |row| format!("job {} ({})", self.id.0, row.key.0))
    }

    /// Its first terminal event.
    pub fn end(&self) -> Option<&'a Event> {
        self.events.iter().copied().find(|event| is_terminal(&event.kind))
    }

    /// Whether its row says that it ended so.
    pub fn ended(&self, state: StateName) -> bool {
        self.row().is_some_and(|row| row.state == state.as_str())
    }

    /// How its timeline says that it ended.
    pub fn outcome(&self) -> Outcome {
        self.end().map_or(Outcome::Nothing, Outcome::of_event)
    }

    /// The attempt of that number.
    pub fn attempt(&self, number: u32) -> Option<&Attempt<'a>> {
        self.attempts.iter().find(|attempt| attempt.number == number)
    }

    /// When an event was told first: it was committed before.
    pub fn told_at(&self, event: &Event) -> Option<At> {
        self.first(event).map(|told| told.at)
    }

    fn first(&self, event: &Event) -> Option<&'a Told> {
        self.first_told[self.place(event.seq)?]
    }

    /// The place of the event of that number.
    pub fn place(&self, seq: u64) -> Option<usize> {
        self.events.binary_search_by_key(&seq, |event| event.seq).ok()
    }
}

/// When an event says that it was committed, as it is stored, or else as it was told.
fn said(job: &Job<'_>, event: &Event) -> Option<At> {
    said_at(&event.data).or_else(|| said_at(&job.first(event)?.data))
}

/// The same, of its data.
fn said_at(data: &Value) -> Option<At> {
    let at: Time = data.get("at")?.as_str()?.parse().ok()?;
    u64::try_from(at.micros()).ok().map(At)
}

/// That much before.
pub fn before(at: At, by: Duration) -> At {
    At(at.0.saturating_sub(micros(by)))
}

/// That much after.
pub fn after(at: At, by: Duration) -> At {
    At(at.0.saturating_add(micros(by)))
}

fn micros(period: Duration) -> u64 {
    u64::try_from(period.as_micros()).unwrap_or(u64::MAX)
}

fn began(history: &History) -> At {
    let asked = history.calls.iter().map(|call| call.asked_at);
    let troubled = history.troubles.iter().map(|trouble| trouble.from);
    let noted = history.notes.values().flatten().map(|note| note.at);
    asked.chain(troubled).chain(noted).min().unwrap_or_default()
}
