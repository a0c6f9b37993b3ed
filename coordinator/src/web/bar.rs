//! Where a job's time went: the phases of its life, and the bar that shows them. Pure.

use std::time::Duration;

use maud::{Markup, html};
use shared::job::{Event, EventKind};
use shared::time::Time;

use super::words;

/// The length of the whole bar, in its own units.
const BAR: u32 = 1000;
/// The least length of a phase in it: one that took hardly any time can still be seen.
const PHASE_MIN: u32 = 6;
/// The most phases that a bar shows, each with its least length at hand: what comes before them is one.
const PHASES_MAX: usize = 100;

/// What a job did meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Waited,
    Prepared,
    Ran,
    Stopped,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Waited, Self::Prepared, Self::Ran, Self::Stopped];

    /// The word for it, which is its class in the style as well.
    fn word(self) -> &'static str {
        match self {
            Self::Waited => "waited",
            Self::Prepared => "prepared",
            Self::Ran => "ran",
            Self::Stopped => "stopping",
        }
    }
}

/// A part of a job's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    pub kind: Kind,
    pub took: Duration,
}

/// The phases from the first of these events to the end of the job, or to `now` where it goes on.
pub fn phases(events: &[Event], now: Time) -> Vec<Phase> {
    let mut phases: Vec<Phase> = Vec::new();
    let Some(first) = events.first() else { return phases };
    let mut current = (Some(Kind::Waited), first.at);
    let mut close = |(kind, since): (Option<Kind>, Time), at: Time| {
        let Some(kind) = kind else { return };
        let took = at.since(since);
        match phases.last_mut() {
            Some(last) if last.kind == kind => last.took += took,
            _ => phases.push(Phase { kind, took }),
        }
    };
    for event in events {
        let next = match event.kind {
            EventKind::Submitted { .. }
            | EventKind::Scheduled { .. }
            | EventKind::Blocked { .. }
            | EventKind::Queued { .. }
            | EventKind::Declined { .. }
            | EventKind::WorkerLost { .. }
            | EventKind::Retried { .. } => Some(Kind::Waited),
            EventKind::Assigned { .. } => Some(Kind::Prepared),
            EventKind::Started {} => Some(Kind::Ran),
            EventKind::Canceling { .. } => Some(Kind::Stopped),
            EventKind::Succeeded {} | EventKind::Failed { .. } | EventKind::Canceled { .. } => None,
            EventKind::KeyTry { .. }
            | EventKind::CheckedOut { .. }
            | EventKind::StepStarted { .. }
            | EventKind::StepFinished { .. }
            | EventKind::CancelRequested { .. }
            | EventKind::LateReport { .. } => continue,
        };
        if next != current.0 {
            close(current, event.at);
            current = (next, event.at);
        }
    }
    close(current, now);
    let shown = phases.len().saturating_sub(PHASES_MAX);
    phases.split_off(shown)
}

/// Where each of these lengths begins in the bar and how long it is there; together they fill it.
fn places(took: &[Duration]) -> Vec<(u32, u32)> {
    let whole: u128 = took.iter().map(Duration::as_millis).sum();
    let count = u32::try_from(took.len()).unwrap_or(u32::MAX);
    let Some(free) = BAR.checked_sub(PHASE_MIN.saturating_mul(count)) else { return Vec::new() };
    let (mut places, mut passed) = (Vec::with_capacity(took.len()), 0_u128);
    for (nth, one) in (0_u32..).zip(took) {
        let at = |passed: u128, nth: u32| {
            let share = (passed * u128::from(free)).checked_div(whole);
            let share = share.map_or(free * nth / count.max(1), |share| u32::try_from(share).unwrap_or(free));
            share + PHASE_MIN * nth
        };
        let from = at(passed, nth);
        passed += one.as_millis();
        places.push((from, at(passed, nth + 1) - from));
    }
    places
}

/// The bar, with the same in words.
pub fn show(phases: &[Phase]) -> Markup {
    let took: Vec<Duration> = phases.iter().map(|phase| phase.took).collect();
    let sum = |kind: Kind| phases.iter().filter(|phase| phase.kind == kind).map(|phase| phase.took).sum::<Duration>();
    let kinds = Kind::ALL.into_iter().filter(|kind| phases.iter().any(|phase| phase.kind == *kind));
    let said: Vec<(Kind, String)> = kinds.map(|kind| (kind, words::length(sum(kind)))).collect();
    let text: Vec<String> = said.iter().map(|(kind, took)| format!("{} {took}", kind.word())).collect();
    html! {
        svg.bar viewBox=(format!("0 0 {BAR} 20")) preserveAspectRatio="none" role="img" aria-label=(text.join(", ")) {
            @for (phase, (x, width)) in phases.iter().zip(places(&took)) {
                rect.(phase.kind.word()) x=(x) y="0" width=(width) height="20" {
                    title { (phase.kind.word()) " " (words::length(phase.took)) }
                }
            }
        }
        ul.legend aria-hidden="true" {
            @for (kind, took) in &said {
                li { svg.swatch.(kind.word()) viewBox="0 0 10 10" { rect.(kind.word()) width="10" height="10" {} } (kind.word()) " " b { (took) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::id::{Actor, Attempt, Instance, JobId, Seq, WorkerId};
    use uuid::Uuid;

    fn at(second: i64) -> Time {
        Time::from_micros(second * 1_000_000)
    }

    fn event(second: i64, kind: EventKind) -> Event {
        let job: JobId = "01934f5e-0000-7000-8000-000000000007".parse().unwrap();
        Event { job, seq: Seq(1), at: at(second), attempt: Attempt(1), actor: Actor::Coordinator, kind }
    }

    fn assigned() -> EventKind {
        EventKind::Assigned { worker: WorkerId(Uuid::nil()), instance: Instance(Uuid::nil()) }
    }

    fn phase(kind: Kind, seconds: u64) -> Phase {
        Phase { kind, took: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_life_is_cut_where_what_the_job_does_changes() {
        let events = [
            event(0, EventKind::Submitted { retry_of: None }),
            event(5, assigned()),
            event(7, EventKind::Started {}),
            event(8, EventKind::StepStarted { step: 0, name: None }),
            event(20, EventKind::Succeeded {}),
        ];
        let whole = [phase(Kind::Waited, 5), phase(Kind::Prepared, 2), phase(Kind::Ran, 13)];
        assert_eq!(phases(&events, at(99)), whole, "what comes after its end is no part of it");
        assert_eq!(phases(&events[..4], at(10)), [whole[0], whole[1], phase(Kind::Ran, 3)], "it goes on until now");
        assert_eq!(phases(&events[..1], at(4)), [phase(Kind::Waited, 4)]);
        assert!(phases(&[], at(4)).is_empty());
    }

    #[test]
    fn an_attempt_that_is_lost_is_followed_by_waiting() {
        let events = [
            event(0, EventKind::Submitted { retry_of: None }),
            event(1, assigned()),
            event(1, EventKind::Started {}),
            event(4, EventKind::Declined { why: "full".to_owned() }),
            event(6, assigned()),
        ];
        let kinds: Vec<Kind> = phases(&events, at(7)).iter().map(|phase| phase.kind).collect();
        assert_eq!(kinds, [Kind::Waited, Kind::Prepared, Kind::Ran, Kind::Waited, Kind::Prepared]);
    }

    #[test]
    fn the_phases_fill_the_bar_and_each_can_be_seen() {
        let of = |seconds: &[u64]| places(&seconds.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>());
        for seconds in [&[1][..], &[0], &[0, 0, 0], &[1, 1], &[0, 1_000_000, 0], &[3, 5, 7, 11], &[u64::MAX / 2, 1]] {
            let places = of(seconds);
            let mut end = 0;
            for (x, width) in &places {
                assert_eq!(*x, end, "{seconds:?}");
                assert!(*width >= PHASE_MIN, "{seconds:?}: {places:?}");
                end = x + width;
            }
            assert_eq!(end, BAR, "{seconds:?}");
        }
        assert_eq!(of(&[1, 1]), [(0, 500), (500, 500)]);
        assert!(of(&[]).is_empty());
        assert_eq!(of(&vec![1; PHASES_MAX]).len(), PHASES_MAX);
    }
}
