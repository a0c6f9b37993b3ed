//! The jobs of a load: which kinds there are, how often each is asked for, and what may come of it.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;
use serde_json::{Value, json};
use shared::clock;
use shared::time::Period;

use super::noting::Noting;
use crate::chaos::history::{Asked, Key, May};
use crate::host::Host;
use crate::process::Mark;
use crate::repo::Repo;

/// What the label `team` is one of: a cancel by filter is for one team.
pub const TEAMS: [&str; 4] = ["amber", "beryl", "coral", "delft"];
/// The team of those that last, which no cancel by filter is for: they would hardly ever come to be given up.
const LASTING_TEAM: &str = "ember";
/// How long those last in their first attempt, and in later ones, which needn't outlast anything.
const LASTING_MS: (u32, u32) = (35_000, 45_000);
const LASTING_AGAIN_MS: u32 = 8_000;
/// What a job leaves behind that doesn't end by itself.
const ENDLESS: &str = r#"setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1; done' > /dev/null 2>&1 &"#;
/// What the file `README` of each repository says.
const README: &str = "what a job builds";

/// A job that can be asked for.
#[derive(Debug, Clone)]
pub struct Made {
    pub asked: Asked,
    pub body: Value,
    /// The deploy key that it names, and how long after its submission that one is to be registered.
    pub registers: Option<(String, Duration)>,
}

/// What jobs are made of.
pub struct Mix {
    noting: Noting,
    mark: Mark,
    repo: Repo,
    host: Host,
}

/// The kinds of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quick,
    Steps,
    /// Has many steps, each of which is there for a while.
    Strides,
    Fails,
    FailsOften,
    Sleeps,
    /// Ignores what asks it to end.
    Stubborn,
    /// Leaves a process behind that is in a session of its own.
    Forks,
    TimesOut,
    StepTimesOut,
    Expires,
    Later,
    Chatty,
    DiesOfSignal,
    Builds,
    KeyComesLate,
    KeyNeverComes,
    KeyIsMissing,
}

/// A job that lasts longer than the cut after which its worker has been given up, so that it is there still when it is granted
/// again. There is always a place for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Goes on without contact.
    Endures,
    /// Ends by itself when contact is lost.
    Careful,
}

/// How often each is asked for, of a hundred.
const WEIGHTS: [(Kind, u32); 18] = [
    (Kind::Quick, 19),
    (Kind::Steps, 10),
    (Kind::Strides, 8),
    (Kind::Fails, 6),
    (Kind::FailsOften, 5),
    (Kind::Sleeps, 12),
    (Kind::Stubborn, 4),
    (Kind::Forks, 5),
    (Kind::TimesOut, 4),
    (Kind::StepTimesOut, 3),
    (Kind::Expires, 3),
    (Kind::Later, 5),
    (Kind::Chatty, 4),
    (Kind::DiesOfSignal, 3),
    (Kind::Builds, 4),
    (Kind::KeyComesLate, 3),
    (Kind::KeyNeverComes, 1),
    (Kind::KeyIsMissing, 1),
];

impl Mix {
    /// Jobs whose steps note by `noting` and carry `mark`.
    pub fn new(noting: Noting, mark: Mark) -> Self {
        let (repo, host) = (Repo::empty(), Host::new());
        repo.commit(&[("README", README)]);
        host.repo.commit(&[("README", README)]);
        Self { noting, mark, repo, host }
    }

    /// The body that registers a deploy key that opens the repository behind the sshd.
    pub fn deploy_key(&self) -> Value {
        json!({"private_key": self.host.key.private, "known_hosts": self.host.sshd.known_hosts()})
    }

    /// A job of some kind.
    pub fn make(&self, key: &Key, random: &mut TestRng) -> Made {
        let mut draft = Draft::new(random);
        let registers = draft.fill(pick(random), self, key, random);
        let team = TEAMS[random.random_range(0..TEAMS.len())];
        self.made(draft, team, key, registers)
    }

    /// A job that lasts.
    pub fn make_lasting(&self, kind: Lasting, key: &Key, random: &mut TestRng) -> Made {
        let mut draft = Draft::new(random);
        draft.last(kind, random);
        self.made(draft, LASTING_TEAM, key, None)
    }

    fn made(&self, draft: Draft, team: &str, key: &Key, registers: Option<(String, Duration)>) -> Made {
        let Draft { steps, mut asked, mut body, mut retried } = draft;
        asked.exits = steps.iter().map(|step| step.exit).collect();
        let scripts = steps.iter().map(|step| {
            let mut value = json!({"run": self.noting.script(key, &step.work, step.exit)});
            if let Some(limit) = step.timeout {
                value["timeout"] = json!(limit);
            }
            value
        });
        body["steps"] = scripts.collect();
        if body.get("repository").is_some() {
            retried.push("checkout_failed");
        }
        asked.retries_failures = retried.contains(&"step_failed");
        let backoff = json!({"first": "100ms", "max": "1s"});
        body["retry"] = json!({"max_attempts": asked.max_attempts, "on": retried, "backoff": backoff});
        body["labels"] = json!({"key": key.0, "team": team});
        asked.team = Some(team.to_owned());
        let (name, value) = self.mark.entry();
        body["env"] = json!({name: value});
        Made { asked, body, registers }
    }
}

/// One step.
struct Step {
    work: String,
    exit: i32,
    timeout: Option<&'static str>,
}

/// A job that is being made.
struct Draft {
    steps: Vec<Step>,
    asked: Asked,
    body: Value,
    retried: Vec<&'static str>,
}

impl Draft {
    fn new(random: &mut TestRng) -> Self {
        let max_attempts = if random.random_ratio(4, 5) { 10 } else { 3 };
        let asked = Asked { max_attempts, may: BTreeSet::new(), ..Asked::default() };
        let mut body = json!({"grace": "1s"});
        if random.random_ratio(1, 4) {
            body["priority"] = json!(["low", "normal", "high", "urgent"][random.random_range(0..4)]);
        }
        Self { steps: Vec::new(), asked, body, retried: vec!["worker_lost"] }
    }

    fn step(&mut self, work: impl Into<String>, exit: i32) {
        self.steps.push(Step { work: work.into(), exit, timeout: None });
    }

    fn lasting(&mut self, random: &mut TestRng, from_ms: u32, to_ms: u32) {
        self.step(format!("sleep {}", seconds(random.random_range(from_ms..=to_ms))), 0);
    }

    fn set(&mut self, field: &str, value: Value) {
        self.body[field] = value;
    }

    fn may(&mut self, may: May) {
        self.asked.may.insert(may);
    }

    /// Makes it one of that kind; returns the deploy key to be registered, if there is one, and when.
    fn fill(&mut self, kind: Kind, mix: &Mix, key: &Key, random: &mut TestRng) -> Option<(String, Duration)> {
        match kind {
            Kind::Quick => self.step("true", 0),
            Kind::Steps => (0..random.random_range(2..=3)).for_each(|_| self.lasting(random, 0, 300)),
            Kind::Strides => (0..random.random_range(3..=6)).for_each(|_| self.lasting(random, 500, 2000)),
            Kind::Fails | Kind::FailsOften => self.failing(kind == Kind::FailsOften, random),
            Kind::Sleeps => self.lasting(random, 1000, 8000),
            Kind::Stubborn => {
                let rounds = random.random_range(10..=60);
                let ignores = "trap '' TERM INT HUP\nround=0";
                self.step(
                    format!("{ignores}\nwhile [ $round -lt {rounds} ]; do sleep 0.1; round=$((round+1)); done"),
                    0,
                );
                self.set("grace", json!("300ms"));
            }
            Kind::Forks => {
                self.step(ENDLESS, 0);
                self.lasting(random, 0, 1000);
            }
            Kind::TimesOut => {
                self.step("sleep 20", 0);
                self.set("timeout", json!(["500ms", "1s", "3s"][random.random_range(0..3)]));
                self.may(May::TimeOut);
            }
            Kind::StepTimesOut => {
                self.step("true", 0);
                self.steps.push(Step { work: "sleep 20".to_owned(), exit: 0, timeout: Some("1s") });
                self.may(May::TimeOut);
            }
            Kind::Expires => {
                self.lasting(random, 0, 500);
                self.set("queue_timeout", json!(["100ms", "1s", "3s"][random.random_range(0..3)]));
                self.may(May::Expire);
            }
            Kind::Later => {
                self.step("true", 0);
                let after = Period::from_millis(random.random_range(500..6000));
                self.set("run_at", json!(clock::now().plus(after)));
            }
            Kind::Chatty => self.chatty(random),
            Kind::DiesOfSignal => {
                let (name, number) = [("TERM", 15), ("KILL", 9), ("SEGV", 11)][random.random_range(0..3)];
                self.step(format!("kill -{name} $$"), 128 + number);
                self.may(May::DieOfSignal);
            }
            Kind::Builds => {
                self.step(format!("[ \"$(cat README)\" = '{README}' ]"), 0);
                self.set("repository", json!({"url": format!("file://{}", mix.repo.url())}));
            }
            Kind::KeyComesLate | Kind::KeyNeverComes | Kind::KeyIsMissing => {
                return self.keyed(kind, mix, key, random);
            }
        }
        None
    }

    /// Makes it one that lasts.
    fn last(&mut self, kind: Lasting, random: &mut TestRng) {
        let (first, again) = (random.random_range(LASTING_MS.0..=LASTING_MS.1), LASTING_AGAIN_MS);
        let (first, again) = (seconds(first), seconds(again));
        self.step(format!("if [ \"$WINDLASS_ATTEMPT\" = 1 ]; then sleep {first}; else sleep {again}; fi"), 0);
        self.set("priority", json!("urgent"));
        match kind {
            Lasting::Endures => self.lasting(random, 0, 1000),
            Lasting::Careful => {
                self.set("on_lost_contact", json!("stop"));
                self.asked.stops_without_contact = true;
            }
        }
    }

    fn failing(&mut self, often: bool, random: &mut TestRng) {
        if random.random_ratio(1, 3) {
            self.step("true", 0);
        }
        self.step("true", random.random_range(1..=20));
        if random.random_ratio(1, 3) {
            self.step("true", 0);
        }
        if often {
            self.retried.push("step_failed");
            self.asked.max_attempts = random.random_range(2..=4);
        }
    }

    fn chatty(&mut self, random: &mut TestRng) {
        // Base64 makes four bytes of three.
        let bytes = 3 << random.random_range(10..=18);
        self.step(format!("head -c {bytes} /dev/zero | base64"), 0);
        if random.random_bool(0.5) {
            self.step("head -c 3000 /dev/zero | base64 >&2", 0);
        }
    }

    fn keyed(&mut self, kind: Kind, mix: &Mix, key: &Key, random: &mut TestRng) -> Option<(String, Duration)> {
        let name = format!("key-{}", key.0);
        let (on_missing, wait) = match kind {
            Kind::KeyIsMissing => ("fail", "1m".to_owned()),
            _ => ("park", format!("{}s", random.random_range(4..=8))),
        };
        let retry = json!({"tries": 2, "first": "100ms"});
        let deploy_key = json!({"name": name, "on_missing": on_missing, "wait": wait, "retry": retry});
        self.step(format!("[ \"$(cat README)\" = '{README}' ]"), 0);
        self.set("repository", json!({"url": mix.host.url(), "deploy_key": deploy_key}));
        self.may(May::LackItsKey);
        let after = Duration::from_millis(random.random_range(0..8000));
        (kind != Kind::KeyNeverComes).then_some((name, after))
    }
}

fn pick(random: &mut TestRng) -> Kind {
    let mut left = random.random_range(0..WEIGHTS.iter().map(|(_, weight)| weight).sum());
    for (kind, weight) in WEIGHTS {
        match left.checked_sub(weight) {
            Some(rest) => left = rest,
            None => return kind,
        }
    }
    unreachable!("a number below the sum of the weights falls to one of them")
}

fn seconds(milliseconds: u32) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::test_runner::{RngAlgorithm, TestRng};
    use shared::spec::parse_single;

    use super::{Lasting, Mix, WEIGHTS};
    use crate::chaos::history::{Key, May};
    use crate::chaos::load::noting::Noting;
    use crate::process::Mark;

    #[test]
    fn every_job_of_the_mix_is_one_that_is_accepted_and_each_kind_comes_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let mix = Mix::new(Noting::in_directory(dir.path()), Mark::fresh());
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let (mut may, mut registered) = (BTreeSet::new(), 0);
        for number in 0..500 {
            let key = Key(format!("c0-{number}"));
            let made = match number % 50 {
                0 => mix.make_lasting(Lasting::Endures, &key, &mut random),
                1 => mix.make_lasting(Lasting::Careful, &key, &mut random),
                _ => mix.make(&key, &mut random),
            };
            assert_eq!(made.asked.stops_without_contact, number % 50 == 1);
            let parsed = parse_single(&made.body, None).unwrap_or_else(|faults| panic!("{faults:?}: {}", made.body));
            assert_eq!(parsed.spec.steps.len(), made.asked.exits.len());
            assert_eq!(parsed.spec.retry.max_attempts, made.asked.max_attempts);
            assert_eq!(parsed.spec.labels["key"], key.0);
            assert_eq!(Some(&parsed.spec.labels["team"]), made.asked.team.as_ref());
            may.extend(made.asked.may.iter().copied());
            registered += u32::from(made.registers.is_some());
        }
        let all = [May::TimeOut, May::Expire, May::LackItsKey, May::DieOfSignal];
        assert_eq!(may, BTreeSet::from(all));
        assert!(registered > 0);
        assert_eq!(WEIGHTS.iter().map(|(_, weight)| weight).sum::<u32>(), 100);
    }
}
