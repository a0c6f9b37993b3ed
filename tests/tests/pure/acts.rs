//! Everything that can be told to a job, by the names that the table uses; each act speaks of the job as it stands.

use shared::id::Attempt;
use shared::job::{AttemptEnd, Cancel, Claim, Command, Job, KeyAnswer, WorkerWord};
use shared::time::Time;

use super::builders::{
    HOLDER, OTHER, cancel, cancel_with_grace, checked_out, checkout_failed, claim, claim_of, decline, end, exit,
    failed, give_back, key_try, lost, park, step_started, word_of, worker,
};

/// What is said to a job at `now`.
type Say = fn(&Job, Time) -> Command;

/// The acts that aren't a worker's words about an attempt.
const ACTS: [(&str, Say); 15] = [
    ("wake early", |_, _| Command::Wake),
    ("wake due", |_, _| Command::Wake),
    ("claim", |job, now| Command::Claim(claim(job, HOLDER, now))),
    ("claim late", |job, now| {
        let asked_for = Time::from_micros(now.micros() - 11_000_000);
        Command::Claim(claim(job, HOLDER, asked_for))
    }),
    ("claim repeated", |job, now| Command::Claim(claim_of(job.attempt, HOLDER, now))),
    ("claim copied", |job, now| {
        let repeated = claim_of(job.attempt, HOLDER, now);
        Command::Claim(Claim { worker: worker(OTHER), ..repeated })
    }),
    ("claim of a taken offer", |job, now| Command::Claim(claim_of(job.attempt, OTHER, now))),
    ("cancel", |_, _| Command::Cancel(cancel())),
    ("cancel sooner", |_, _| Command::Cancel(cancel_with_grace(1))),
    ("cancel later", |_, _| Command::Cancel(cancel_with_grace(500))),
    ("cancel by force", |_, _| Command::Cancel(Cancel { force: true, ..cancel_with_grace(500) })),
    ("lost", |job, _| lost(job.attempt)),
    ("lost, stale", |job, _| lost(earlier(job))),
    ("key", |_, _| Command::KeyRegistered { key: "app".to_owned() }),
    ("key of another", |_, _| Command::KeyRegistered { key: "other".to_owned() }),
];

/// What a worker says of the live attempt.
type Word = fn(&Job) -> WorkerWord;

/// What a worker can say of an attempt.
const WORDS: [(&str, Word); 12] = [
    ("decline", |_| decline()),
    ("park", |_| park()),
    ("give back", |_| give_back()),
    ("key came", |job| key_try(reports(job) + 1, KeyAnswer::Sealed)),
    ("step started", |job| step_started(reports(job) + 1)),
    ("checked out", |job| checked_out(reports(job) + 1)),
    ("report repeated", |job| step_started(reports(job))),
    ("report too early", |job| step_started(reports(job) + 2)),
    ("succeeded", |_| end(AttemptEnd::Succeeded)),
    ("failed", |_| failed(exit(1))),
    ("failed for a while", |_| failed(checkout_failed(true))),
    ("stopped", |_| end(AttemptEnd::Stopped)),
];

/// Who says it: the worker of the last grant about that grant's attempt, another worker, or one about an old attempt.
const SPEAKERS: [&str; 3] = ["holder", "another", "stale"];

/// One thing to tell a job.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Plain(usize),
    Said { word: usize, speaker: usize },
}

impl Act {
    /// Every act.
    pub fn all() -> Vec<Self> {
        let words =
            (0..WORDS.len()).flat_map(|word| (0..SPEAKERS.len()).map(move |speaker| Self::Said { word, speaker }));
        (0..ACTS.len()).map(Self::Plain).chain(words).collect()
    }

    /// Its name in the table.
    pub fn name(self) -> String {
        match self {
            Self::Plain(act) => ACTS[act].0.to_owned(),
            Self::Said { word, speaker } => format!("{}: {}", SPEAKERS[speaker], WORDS[word].0),
        }
    }

    /// What is said to `job` at `now`.
    pub fn command(self, job: &Job, now: Time) -> Command {
        match self {
            Self::Plain(act) => (ACTS[act].1)(job, now),
            Self::Said { word, speaker } => {
                let word = (WORDS[word].1)(job);
                match SPEAKERS[speaker] {
                    "holder" => word_of(HOLDER, job.attempt, word),
                    "another" => word_of(OTHER, job.attempt, word),
                    _ => word_of(HOLDER, earlier(job), word),
                }
            }
        }
    }
}

/// How many reports of the live attempt were taken.
fn reports(job: &Job) -> u32 {
    job.state.hold().map_or(0, |hold| hold.reports)
}

/// An attempt that isn't the current one: the one before it, or the next where there is none before.
fn earlier(job: &Job) -> Attempt {
    job.attempt.0.checked_sub(1).map_or(Attempt(1), Attempt)
}

/// The millisecond before `time`.
pub fn just_before(time: Time) -> Time {
    Time::from_micros(time.micros() - 1000)
}
