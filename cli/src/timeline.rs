//! What a job's events tell a person: how long it waited, was prepared and ran, and each event in a few words.

use std::time::Duration;

use shared::job::{Event, EventKind, KeyAnswer, OutcomeView, ScheduledFor};
use shared::time::Time;

/// How a job's time was spent, summed over its attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    waited: Duration,
    prepared: Duration,
    ran: Duration,
    /// What has been going on, and since when; none before the first event and after the last.
    going: Option<(Phase, Time)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waits,
    Prepares,
    Runs,
}

impl Timeline {
    /// What `events` tell, which are in their order.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut timeline = Self::default();
        events.into_iter().for_each(|event| timeline.add(event));
        timeline
    }

    /// Goes on to the next event.
    pub fn add(&mut self, event: &Event) {
        let Some(next) = leads_to(&event.kind) else { return };
        if let Some((phase, since)) = self.going {
            self.spend(phase, event.at.since(since));
        }
        self.going = match next {
            Next::Phase(phase) => Some((phase, event.at)),
            Next::End => None,
        };
    }

    /// With what is still going on counted up to `now`.
    pub fn until(mut self, now: Time) -> Self {
        if let Some((phase, since)) = self.going.take() {
            self.spend(phase, now.since(since));
        }
        self
    }

    fn spend(&mut self, phase: Phase, spent: Duration) {
        match phase {
            Phase::Waits => self.waited += spent,
            Phase::Prepares => self.prepared += spent,
            Phase::Runs => self.ran += spent,
        }
    }

    /// The times as one line.
    pub fn line(&self) -> String {
        let total = self.waited + self.prepared + self.ran;
        let [waited, prepared, ran, total] = [self.waited, self.prepared, self.ran, total].map(duration);
        format!("waited {waited}, prepared {prepared}, ran {ran}, total {total}")
    }
}

enum Next {
    Phase(Phase),
    End,
}

/// What begins with an event, if anything does. A cancel changes nothing: what ran goes on until it is stopped.
fn leads_to(kind: &EventKind) -> Option<Next> {
    match kind {
        EventKind::Submitted { .. } | EventKind::Scheduled { .. } | EventKind::Blocked { .. } => {
            Some(Next::Phase(Phase::Waits))
        }
        EventKind::Queued { .. } | EventKind::Declined { .. } | EventKind::WorkerLost { .. } => {
            Some(Next::Phase(Phase::Waits))
        }
        EventKind::Retried { .. } => Some(Next::Phase(Phase::Waits)),
        EventKind::Assigned { .. } => Some(Next::Phase(Phase::Prepares)),
        EventKind::Started {} => Some(Next::Phase(Phase::Runs)),
        EventKind::Succeeded {} | EventKind::Failed { .. } | EventKind::Canceled { .. } => Some(Next::End),
        EventKind::KeyTry { .. } | EventKind::CheckedOut { .. } | EventKind::LateReport { .. } => None,
        EventKind::StepStarted { .. } | EventKind::StepFinished { .. } => None,
        EventKind::CancelRequested { .. } | EventKind::Canceling { .. } => None,
    }
}

/// An event in a few words.
pub fn words(event: &Event) -> String {
    let because = |why: &Option<String>| why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let step = |step: &u32, name: &Option<String>| {
        name.as_ref().map_or_else(|| format!("step {step}"), |name| format!("step {step} ({name})"))
    };
    match &event.kind {
        EventKind::Submitted { retry_of: Some(first) } => format!("submitted by {}, repeats {first}", event.actor),
        EventKind::Submitted { retry_of: None } => format!("submitted by {}", event.actor),
        EventKind::Scheduled { until, why: ScheduledFor::KeyUnavailable } => {
            format!("scheduled for {until}: nobody could say whether its deploy key is there")
        }
        EventKind::Scheduled { until, .. } => format!("scheduled for {until}"),
        EventKind::Blocked { key, until } => {
            format!("blocked: waits for the deploy key {key} (`windlass key add {key}` registers it) until {until}")
        }
        EventKind::Queued { .. } => "queued".to_owned(),
        EventKind::Assigned { worker, .. } => format!("assigned, attempt {}, worker {worker}", event.attempt),
        EventKind::KeyTry { number, answer, why, next_in } => {
            let next = next_in.map_or_else(String::new, |wait| format!("; the next in {}", duration(wait.duration())));
            format!("deploy key, try {number}: {}{}{next}", answer_words(*answer), because(why))
        }
        EventKind::CheckedOut { commit } => format!("checked out {commit}"),
        EventKind::Started {} => "running".to_owned(),
        EventKind::StepStarted { step: index, name } => format!("{} started", step(index, name)),
        EventKind::StepFinished { step: index, name, exit } => format!("{} ended: {exit}", step(index, name)),
        EventKind::CancelRequested { why, force, .. } => {
            let how = if *force { "force" } else { "cancel" };
            format!("{how} requested by {}{}", event.actor, because(why))
        }
        EventKind::Canceling { .. } => "canceling".to_owned(),
        EventKind::Declined { why } => format!("declined: {why}"),
        EventKind::WorkerLost { message, .. } => format!("worker lost: {message}"),
        EventKind::LateReport { end, .. } => format!("reported late: {end}"),
        EventKind::Retried { failure, delay, .. } => {
            let failure = OutcomeView::from(failure);
            format!("attempt {} failed: {failure}; the next in {delay}", event.attempt)
        }
        EventKind::Succeeded {} => "succeeded".to_owned(),
        EventKind::Failed { failure, .. } => format!("failed: {}", OutcomeView::from(failure)),
        EventKind::Canceled { canceled, .. } => format!("canceled: {}", OutcomeView::from(canceled)),
    }
}

/// What a try to fetch a deploy key came to, in a word or two.
fn answer_words(answer: KeyAnswer) -> &'static str {
    match answer {
        KeyAnswer::Sealed => "here it is",
        KeyAnswer::NotRegistered => "not registered (`windlass key add` does that)",
        KeyAnswer::Denied => "denied",
        KeyAnswer::Unavailable => "nobody could say",
    }
}

/// A length of time for people: `240ms`, `1.2s`, `3m 05s`, `2h 03m`, `1d 4h`.
pub fn duration(length: Duration) -> String {
    let (secs, millis) = (length.as_secs(), length.subsec_millis());
    match secs {
        0 => format!("{millis}ms"),
        1..60 => format!("{secs}.{}s", millis / 100),
        60..3600 => format!("{}m {:02}s", secs / 60, secs % 60),
        3600..86400 => format!("{}h {:02}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d {}h", secs / 86400, secs % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::id::{Actor, Attempt, Instance, JobId, Seq, WorkerId};
    use shared::job::{AttemptEnd, Canceled, Event, EventKind, Exit, Failure, KeyAnswer, Limit, Offer, ScheduledFor};
    use shared::log::LogSummary;
    use shared::spec::Priority;
    use shared::time::{Period, Time};

    use super::{Timeline, duration, words};

    const ID: &str = "01934f5e-0000-7000-8000-000000000000";

    fn id<T: std::str::FromStr<Err: std::fmt::Debug>>() -> T {
        ID.parse().unwrap()
    }

    fn after(second: i64) -> Time {
        Time::from_micros(second * 1_000_000)
    }

    fn event(second: i64, attempt: u32, kind: EventKind) -> Event {
        let actor = Actor::Client("ci".into());
        Event { job: id(), seq: Seq(1), at: after(second), attempt: Attempt(attempt), actor, kind }
    }

    fn submitted() -> EventKind {
        EventKind::Submitted { retry_of: None }
    }

    fn queued() -> EventKind {
        let (job, attempt, tags, priority) = (id::<JobId>(), Attempt(1), Vec::new(), Priority::Normal);
        let offer = Offer { job, attempt, tags, priority, has_secrets: false };
        EventKind::Queued { offer, expires: after(1000) }
    }

    fn assigned() -> EventKind {
        EventKind::Assigned { worker: id::<WorkerId>(), instance: id::<Instance>() }
    }

    fn failed(failure: Failure) -> EventKind {
        EventKind::Failed { failure, stop: None, offer: None }
    }

    #[test]
    fn the_time_of_every_attempt_counts_where_it_was_spent() {
        let lost = Failure::WorkerLost { message: "gone".into() };
        let exit = Failure::StepFailed { step: 0, exit: Exit::ExitCode(7), message: None };
        let events = [
            event(0, 0, submitted()),
            event(0, 0, queued()),
            event(2, 1, assigned()),
            event(3, 1, EventKind::Started {}),
            event(10, 1, EventKind::Retried { failure: lost, delay: Period::ZERO, stop: None }),
            event(10, 1, queued()),
            event(14, 2, assigned()),
            event(14, 2, EventKind::Started {}),
            event(15, 2, EventKind::StepFinished { step: 0, name: None, exit: Exit::ExitCode(7) }),
            event(15, 2, failed(exit)),
            event(59, 2, EventKind::LateReport { end: AttemptEnd::Stopped, log: LogSummary::default() }),
        ];
        let line = Timeline::of(&events).line();
        assert_eq!(line, "waited 6.0s, prepared 1.0s, ran 8.0s, total 15.0s");
        let running = Timeline::of(&events[..4]).until(after(9));
        assert_eq!(running.line(), "waited 2.0s, prepared 1.0s, ran 6.0s, total 9.0s");
        assert_eq!(words(&events[9]), "failed: step 0 ended with exit code 7");
        assert_eq!(words(&events[4]), "attempt 1 failed: worker_lost: gone; the next in 0s");
    }

    #[test]
    fn a_job_that_is_canceled_before_its_claim_only_waited() {
        let by = Actor::Client("ci".into());
        let canceled = Canceled { by, at: after(5), why: Some("late".into()), confirmed: true };
        let requested = EventKind::CancelRequested { why: Some("late".into()), force: false, grace: None };
        let events = [
            event(0, 0, submitted()),
            event(0, 0, queued()),
            event(5, 0, requested),
            event(5, 0, EventKind::Canceled { canceled, offer: None }),
        ];
        assert_eq!(Timeline::of(&events).line(), "waited 5.0s, prepared 0ms, ran 0ms, total 5.0s");
        assert_eq!(words(&events[2]), "cancel requested by client:ci: late");
        assert_eq!(words(&events[3]), "canceled: by client:ci: late");
    }

    #[test]
    fn a_limit_that_passed_is_named() {
        let step = failed(Failure::TimedOut { limit: Limit::Step(2) });
        assert_eq!(words(&event(0, 1, step)), "failed: its steps[2].timeout passed");
        assert_eq!(words(&event(0, 1, failed(Failure::Expired))), "failed: its queue_timeout passed");
    }

    #[test]
    fn a_try_for_a_key_tells_its_reason_and_the_wait_before_the_next() {
        let tried = |answer, why: Option<&str>, next_in| {
            words(&event(0, 1, EventKind::KeyTry { number: 2, answer, why: why.map(str::to_owned), next_in }))
        };
        let wait = Some(Period::from_millis(1_250));
        let not_registered = "deploy key, try 2: not registered (`windlass key add` does that); the next in 1.2s";
        assert_eq!(tried(KeyAnswer::NotRegistered, None, wait), not_registered);
        let denied = "deploy key, try 2: denied: the attempt is not current";
        assert_eq!(tried(KeyAnswer::Denied, Some("the attempt is not current"), None), denied);
        assert_eq!(tried(KeyAnswer::Sealed, None, None), "deploy key, try 2: here it is");
        let blocked = words(&event(0, 1, EventKind::Blocked { key: "app".into(), until: after(7) }));
        assert!(blocked.contains("the deploy key app (`windlass key add app` registers it) until 1970-"), "{blocked}");
        let given_back = EventKind::Scheduled { until: after(7), why: ScheduledFor::KeyUnavailable };
        let words = words(&event(0, 1, given_back));
        assert!(words.ends_with("nobody could say whether its deploy key is there"), "{words}");
    }

    #[test]
    fn a_duration_is_as_fine_as_a_person_needs() {
        let millis = [0, 240, 1_250, 59_999, 185_000, 7_380_000, 100_800_000];
        let texts = ["0ms", "240ms", "1.2s", "59.9s", "3m 05s", "2h 03m", "1d 4h"];
        assert_eq!(millis.map(|ms| duration(Duration::from_millis(ms))), texts);
    }
}
