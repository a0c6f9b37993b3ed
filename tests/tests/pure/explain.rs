//! Each answer of `explain`, from facts that are made up: what it says for people, and which facts it names.

use std::collections::BTreeSet;

use coordinator::explain::{Facts, Lease, Owner, explain};
use coordinator::store::{Ahead, Seen, Worker};
use serde_json::{Value, json};
use shared::clock;
use shared::id::Instance;
use shared::job::{AttemptEnd, Command, Event, Job, KeyAnswer, Progress, Transition, WorkerWord};
use shared::proof::ProofKey;
use shared::spec::JobSpec;
use shared::time::{Period, Time};
use shared::view::explanation::{Explanation, Reason};
use shared::wire::WorkerMode;

use super::builders::{
    HOLDER, OTHER, at, cancel, checked_out, checkout_failed, claim, end, exit, failed, give_back, park, plain,
    prepared, says, step_started, submitted, worker,
};
use super::situations;

/// A job with all that has happened to it.
struct Story {
    job: Job,
    events: Vec<Event>,
    workers: Vec<Worker>,
    owner: Owner,
    ahead: Option<Ahead>,
    registered: bool,
}

impl Story {
    fn of(spec: JobSpec) -> Self {
        let Transition { job, events } = submitted(spec);
        let owner = Owner::Knows(Some(Lease { heard: at(0), told: None }));
        let ahead = Some(Ahead { count: 0, at_least: false });
        Self { job, events, workers: Vec::new(), owner, ahead, registered: false }
    }

    fn then(mut self, command: Command, second: u64) -> Self {
        let Transition { job, events } = self.job.apply(command, at(second)).expect("a command that it takes");
        self.job = job;
        self.events.extend(events);
        self
    }

    fn granted(self, second: u64) -> Self {
        let claim = claim(&self.job, HOLDER, at(second));
        self.then(Command::Claim(claim), second).heard(second)
    }

    fn says(self, word: WorkerWord, second: u64) -> Self {
        let said = says(&self.job, word);
        self.then(said, second).heard(second)
    }

    /// Its worker was heard then.
    fn heard(mut self, second: u64) -> Self {
        self.owner = Owner::Knows(Some(Lease { heard: at(second), told: None }));
        self
    }

    fn among(mut self, workers: &[Worker]) -> Self {
        self.workers = workers.to_vec();
        self
    }

    fn known_by(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    fn behind(self, count: u32, at_least: bool) -> Self {
        Self { ahead: Some(Ahead { count, at_least }), ..self }
    }

    fn explained(&self, second: u64) -> Explanation {
        self.explained_at(at(second))
    }

    fn explained_at(&self, now: Time) -> Explanation {
        let Self { job, events, workers, owner, ahead, registered } = self;
        let (job, events, workers) = (job.clone(), events.clone(), workers.clone());
        explain(&Facts { job, events, workers, ahead: *ahead, registered: *registered, owner: *owner }, now)
    }
}

/// A worker that was heard at the beginning, with so many of its four slots taken.
fn with(number: u128, tags: &[&str], running: u32) -> Worker {
    let seen = Seen {
        at: at(0),
        instance: Instance(clock::random_uuid()),
        start: 1,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        slots: 4,
        running,
        draining: false,
    };
    Worker {
        id: worker(number),
        name: format!("w{number}"),
        key: ProofKey::from_bytes([0; 32]),
        mode: WorkerMode::Active,
        enrolled_at: at(0),
        revoked_at: None,
        seen: Some(seen),
    }
}

fn told(mode: WorkerMode, worker: Worker) -> Worker {
    Worker { mode, ..worker }
}

fn tagged(tags: &[&str]) -> Story {
    Story::of(plain(&json!({"tags": tags})))
}

/// The explanation's reasons as the API shows them, without what `_` stands for in the expected ones.
#[track_caller]
fn says_so(explanation: &Explanation, summary: &str, reasons: &[Value]) {
    assert_eq!(explanation.summary, summary);
    let shown = serde_json::to_value(&explanation.reasons).expect("JSON");
    let shown = shown.as_array().expect("a list");
    assert_eq!(shown.len(), reasons.len(), "{shown:#?}");
    for (shown, expected) in shown.iter().zip(reasons) {
        for (name, value) in expected.as_object().expect("fields") {
            assert_eq!(&shown[name], value, "{name} of {shown:#}");
        }
    }
}

fn kinds(explanation: &Explanation) -> Vec<String> {
    let shown = serde_json::to_value(&explanation.reasons).expect("JSON");
    shown.as_array().expect("a list").iter().map(|reason| reason["kind"].as_str().expect("a kind").to_owned()).collect()
}

#[test]
fn a_job_whose_tag_no_worker_has_names_it() {
    let story = tagged(&["arm64", "gpu", "linux"]).among(&[with(1, &["linux"], 0), with(2, &["arm64", "linux"], 0)]);
    let missing =
        json!({"kind": "no_worker_has_tags", "tags": ["arm64", "gpu", "linux"], "missing": ["gpu"], "workers": 2});
    let place = json!({"kind": "queued", "position": 1, "at_least": false, "since": at(0), "expires": at(24 * 3600)});
    let summary = "No worker has the tag gpu. It is number 1 in the queue for its tags.";
    says_so(&story.explained(5), summary, &[missing, place]);
}

#[test]
fn tags_that_only_a_silent_worker_or_one_that_was_never_heard_has_are_missing() {
    let mut gone = with(2, &["gpu"], 0);
    gone.seen.as_mut().unwrap().at = at(0).minus(Period::from_secs(15));
    let new = Worker { seen: None, ..with(3, &[], 0) };
    let story = tagged(&["arm64", "gpu"]).among(&[with(1, &["linux"], 0), gone, new]);
    let missing = json!({"kind": "no_worker_has_tags", "missing": ["arm64", "gpu"], "workers": 1});
    let summary = "No worker has any of the tags arm64, gpu. It is number 1 in the queue for its tags.";
    says_so(&story.explained(0), summary, &[missing, json!({"kind": "queued"})]);
}

#[test]
fn tags_that_no_worker_has_together_are_none_that_is_missing() {
    let story = tagged(&["a", "b"]).among(&[with(1, &["a"], 0), with(2, &["b"], 0)]);
    let apart = json!({"kind": "no_worker_has_tags", "missing": [], "workers": 2});
    let summary = "No worker has all of its tags together: a, b. It is number 1 in the queue for its tags.";
    says_so(&story.explained(1), summary, &[apart, json!({"kind": "queued"})]);
}

#[test]
fn without_any_worker_a_job_without_tags_waits_for_one() {
    let none = json!({"kind": "no_worker_has_tags", "tags": [], "missing": [], "workers": 0});
    let summary = "No worker is there. It is number 1 in the queue for its tags.";
    says_so(&tagged(&[]).explained(1), summary, &[none, json!({"kind": "queued"})]);
}

#[test]
fn busy_workers_are_counted_with_their_slots_and_the_place_in_the_queue() {
    let story =
        tagged(&["linux"]).among(&[with(1, &["linux"], 4), with(2, &["gpu", "linux"], 5), with(3, &["gpu"], 0)]);
    let busy = json!({"kind": "workers_busy", "count": 2, "slots": 8, "running": 9});
    let place = json!({"kind": "queued", "tags": ["linux"], "priority": "normal", "position": 8, "at_least": false});
    let summary = "2 workers have its tags, with all 8 slots busy. It is number 8 in the queue for its tags.";
    says_so(&story.behind(7, false).explained(1), summary, &[busy, place]);
}

#[test]
fn a_place_beyond_what_is_counted_is_said_to_be_one() {
    let story = tagged(&[]).among(&[with(1, &[], 4)]).behind(10_000, true);
    let place = json!({"kind": "queued", "position": 10_001, "at_least": true});
    let summary =
        "Worker w1 has its tags, with all 4 slots busy. It is at least number 10001 in the queue for its tags.";
    says_so(&story.explained(1), summary, &[json!({"kind": "workers_busy"}), place]);
}

#[test]
fn a_free_worker_is_about_to_take_it() {
    let story = tagged(&[]).among(&[with(1, &[], 3), with(2, &[], 4)]);
    let free = json!({"kind": "workers_free", "count": 1, "slots": 4, "running": 3, "workers": [
        {"id": worker(1), "name": "w1", "slots": 4, "running": 3, "seen_at": at(0)},
    ]});
    let busy = json!({"kind": "workers_busy", "count": 1});
    let summary = "It is about to be taken: Worker w1 has its tags and a free slot. Worker w2 has its tags, with all 4 slots \
                   busy. It is number 1 in the queue for its tags.";
    says_so(&story.explained(1), summary, &[free, busy, json!({"kind": "queued"})]);
}

#[test]
fn workers_that_take_nothing_are_told_apart() {
    let mut leaving = with(4, &[], 0);
    leaving.seen.as_mut().unwrap().draining = true;
    let mut silent = with(5, &[], 0);
    silent.seen.as_mut().unwrap().at = at(0).minus(Period::from_secs(60));
    let (paused, draining) = (told(WorkerMode::Paused, with(1, &[], 0)), told(WorkerMode::Draining, with(2, &[], 0)));
    let story = tagged(&[]).among(&[paused, draining, leaving, silent]);
    let summary = "Worker w1 has its tags and is paused. 2 workers have its tags and take nothing new before the end. \
                   Worker w5 has its tags and is silent, last heard 1m1s ago. It is number 1 in the queue for its tags.";
    let reasons = [
        json!({"kind": "workers_paused", "count": 1}),
        json!({"kind": "workers_draining", "count": 2}),
        json!({"kind": "workers_silent", "count": 1}),
        json!({"kind": "queued"}),
    ];
    says_so(&story.explained(1), summary, &reasons);
}

#[test]
fn of_many_workers_those_that_were_heard_last_are_named() {
    let heard = |number: u128| {
        let mut worker = with(number, &[], 0);
        worker.seen.as_mut().unwrap().at = at(0).minus(Period::from_millis(u64::try_from(number).unwrap()));
        worker
    };
    let story = tagged(&[]).among(&(1..=30).rev().map(heard).collect::<Vec<_>>());
    let explanation = story.explained(0);
    let Reason::WorkersFree(workers) = &explanation.reasons[0] else { panic!("{explanation:?}") };
    let names: Vec<String> = workers.workers.iter().map(|worker| worker.name.clone()).collect();
    assert_eq!((workers.count, workers.slots), (30, 120));
    assert_eq!(names, (1..=20).map(|number| format!("w{number}")).collect::<Vec<_>>());
}

#[test]
fn a_job_that_waits_for_its_run_at_says_until_when() {
    let story = Story::of(plain(&json!({"run_at": at(100).to_string()})));
    let scheduled = json!({"kind": "scheduled", "until": at(100), "why": "run_at", "last": null});
    says_so(&story.explained(40), &format!("It is scheduled at {} (in 1m), its run_at.", at(100)), &[scheduled]);
}

#[test]
fn a_job_that_waits_for_a_retry_says_why_its_last_attempt_ended() {
    let spec = prepared(&json!({"retry": {"backoff": {"first": "10m", "max": "10m"}}}));
    let story = Story::of(spec).granted(1).says(failed(checkout_failed(true)), 2);
    let until = story.job.state.wake_at().unwrap();
    let outcome = json!({"reason": "checkout_failed", "message": "cloning"});
    let last = json!({"attempt": 1, "at": at(2), "outcome": outcome});
    let scheduled = json!({"kind": "scheduled", "until": until, "why": "backoff", "last": last});
    let summary = format!(
        "It is scheduled at {until} (in {}) for its next attempt. Attempt 1 ended 3s ago: checkout_failed: cloning.",
        Period::from_secs(until.since(at(5)).as_secs())
    );
    says_so(&story.explained(5), &summary, &[scheduled]);
}

#[test]
fn a_job_that_was_given_back_says_that_nobody_could_say() {
    let story = Story::of(prepared(&json!({"retry": {"backoff": {"first": "10m", "max": "10m"}}})));
    let story = story.granted(1).says(give_back(), 2);
    let explanation = story.explained_at(story.job.state.wake_at().unwrap());
    let summary = format!(
        "It is scheduled at {}, since nobody could say whether its deploy key is there.",
        story.job.state.wake_at().unwrap()
    );
    says_so(&explanation, &summary, &[json!({"kind": "scheduled", "why": "key_unavailable", "last": null})]);
}

#[test]
fn a_parked_job_names_the_key_its_limit_and_the_last_try() {
    let story = Story::of(prepared(&json!({}))).granted(1).says(key_try(1, KeyAnswer::NotRegistered, Some(1)), 2);
    let mut story = story.says(park(), 3);
    let last = json!({"number": 1, "answer": "not_registered", "why": "looked", "at": at(2)});
    let waits = json!({"kind": "waits_for_key", "key": "app", "registered": false, "until": at(603), "last_try": last});
    let summary = format!(
        "It waits for somebody to register the deploy key app; its wait limit ends at {} (in 9m). Try 1 came to \
         not_registered (looked).",
        at(603)
    );
    says_so(&story.explained(63), &summary, &[waits]);
    story.registered = true;
    let there = json!({"kind": "waits_for_key", "registered": true});
    says_so(&story.explained(63), "Its deploy key app is registered: it is about to go on.", &[there]);
}

/// Report `number`: a try to fetch the key, and the next after so many seconds.
fn key_try(number: u32, answer: KeyAnswer, next: Option<u64>) -> WorkerWord {
    let (why, next_in) = (Some("looked".to_owned()), next.map(Period::from_secs));
    WorkerWord::Progress { number, progress: Progress::KeyTry { number, answer, why, next_in } }
}

#[test]
fn a_worker_that_asks_for_a_key_says_when_its_next_try_is() {
    let story = Story::of(prepared(&json!({}))).granted(1).among(&[with(HOLDER, &[], 1)]);
    let preparing = json!({"kind": "preparing", "worker": {"id": worker(HOLDER), "name": "w1"}, "attempt": 1,
        "part": "deploy_key", "since": at(1), "deadline": story.job.state.wake_at()});
    let before = "It waits for the deploy key app. Worker w1 prepares it, in attempt 1, for 1s.";
    let first = json!({"kind": "fetching_key", "key": "app", "last_try": null, "next_try_at": null});
    says_so(&story.explained(2), before, &[first, preparing.clone()]);

    let story = story.says(key_try(1, KeyAnswer::NotRegistered, Some(4)), 2);
    let last = json!({"number": 1, "answer": "not_registered", "why": "looked", "at": at(2)});
    let fetching = json!({"kind": "fetching_key", "key": "app", "last_try": last, "next_try_at": at(6)});
    let summary = format!(
        "It waits for the deploy key app. Try 1 came to not_registered (looked). The next try is at {} (in 3s). Worker w1 \
         prepares it, in attempt 1, for 2s.",
        at(6)
    );
    says_so(&story.explained(3), &summary, &[fetching, preparing]);
}

#[test]
fn a_worker_that_has_the_key_checks_out_and_then_starts() {
    let story = Story::of(prepared(&json!({}))).granted(1).among(&[with(HOLDER, &[], 1)]);
    let story = story.says(key_try(1, KeyAnswer::Sealed, None), 2);
    let summary = "Worker w1 checks its repository out, in attempt 1, for 2s.";
    says_so(&story.explained(3), summary, &[json!({"kind": "preparing", "part": "checkout"})]);
    let story = story.says(checked_out(2), 3);
    let summary = "Worker w1 is about to start it, in attempt 1, for 2s.";
    says_so(&story.explained(3), summary, &[json!({"kind": "preparing", "part": "checked_out"})]);
}

#[test]
fn a_running_job_names_its_step_its_worker_and_since_when() {
    let story = Story::of(plain(&json!({}))).granted(1).among(&[with(HOLDER, &[], 1)]);
    let between = json!({"kind": "running", "step": null, "name": null, "steps": 1, "since": at(1), "attempt": 1});
    says_so(&story.explained(2), "Worker w1 runs it and is between two steps, for 1s.", &[between]);
    let story = story.says(step_started(1), 3);
    let deadline = story.job.state.wake_at();
    let running = json!({"kind": "running", "worker": {"id": worker(HOLDER), "name": "w1"}, "step": 0, "name": "test",
        "steps": 1, "since": at(3), "deadline": deadline});
    says_so(&story.explained(8), "Worker w1 runs step 0 (test) of 1, for 5s.", &[running]);
    let unknown = json!({"kind": "running", "worker": {"id": worker(HOLDER), "name": null}});
    let summary = format!("Worker {} runs step 0 (test) of 1, for 5s.", worker(HOLDER));
    says_so(&story.among(&[with(OTHER, &[], 0)]).explained(8), &summary, &[unknown]);
}

#[test]
fn a_worker_that_is_not_heard_is_silent_and_its_lease_ends() {
    let story = Story::of(plain(&json!({}))).granted(1).says(step_started(1), 1).among(&[with(HOLDER, &[], 1)]);
    assert_eq!(kinds(&story.explained_at(at(8).plus(Period::from_millis(499)))), ["running"]);
    let silent = json!({"kind": "worker_silent", "worker": {"id": worker(HOLDER), "name": "w1"}, "since": at(1), "lease_ends": at(16)});
    let summary = format!(
        "Worker w1 was not heard for 10s: its lease ends at {} (in 5s). Worker w1 runs step 0 (test) of 1, for 10s.",
        at(16)
    );
    says_so(&story.explained(11), &summary, &[silent, json!({"kind": "running"})]);
    assert_eq!(kinds(&story.heard(10).explained(11)), ["running"]);
}

#[test]
fn without_its_owner_a_job_says_so_and_a_worker_is_judged_by_its_hellos() {
    let story = Story::of(plain(&json!({}))).granted(1).says(step_started(1), 1).among(&[with(HOLDER, &[], 1)]);
    let story = story.known_by(Owner::Away);
    let nobody = "No coordinator that owns it answers: nothing about it moves before one takes it over.";
    let runs = "Worker w1 runs step 0 (test) of 1, for 13s.";
    says_so(
        &story.explained(14),
        &format!("{nobody} {runs}"),
        &[json!({"kind": "no_owner"}), json!({"kind": "running"})],
    );
    let silent = json!({"kind": "worker_silent", "since": at(0), "lease_ends": null});
    let summary = format!("{nobody} Worker w1 was not heard for 15s. Worker w1 runs step 0 (test) of 1, for 14s.");
    says_so(&story.explained(15), &summary, &[json!({"kind": "no_owner"}), silent, json!({"kind": "running"})]);

    let ended = story.says(end(AttemptEnd::Succeeded), 16).known_by(Owner::Away);
    assert_eq!(kinds(&ended.explained(17)), ["ended"], "nothing has to move any more");
    assert_eq!(kinds(&tagged(&[]).known_by(Owner::Away).explained(1))[0], "no_owner");
}

#[test]
fn a_canceled_job_says_whether_its_worker_has_heard_and_when_it_is_killed() {
    let story = Story::of(plain(&json!({}))).granted(1).then(Command::Cancel(cancel()), 3).heard(3);
    let story = story.among(&[with(HOLDER, &[], 1)]);
    let canceling = |told: &str, told_at: Value| {
        json!({"kind": "canceling", "worker": {"id": worker(HOLDER), "name": "w1"}, "by": "client:ann", "since": at(3),
               "why": "not wanted any more", "told": told, "told_at": told_at, "kills_at": at(13), "gives_up_at": at(18)})
    };
    let summary = |heard: &str| {
        format!(
            "It was canceled 2s ago by client:ann (not wanted any more). Worker w1 {heard}. It is killed at {} (in 8s), and \
             counts as canceled without that word at {} (in 13s).",
            at(13),
            at(18)
        )
    };
    says_so(&story.explained(5), &summary("has not heard of it yet"), &[canceling("not_yet", Value::Null)]);
    let heard = story.known_by(Owner::Knows(Some(Lease { heard: at(4), told: Some(at(4)) })));
    let confirms = summary("has heard of it and has yet to confirm that nothing runs");
    says_so(&heard.explained(5), &confirms, &[canceling("yes", json!(at(4)))]);
    let alone = heard.known_by(Owner::NotAsked);
    let unknown = summary("has not confirmed that nothing runs");
    says_so(&alone.explained(5), &unknown, &[canceling("unknown", Value::Null)]);
}

#[test]
fn a_canceled_job_whose_worker_is_silent_says_both() {
    let story = Story::of(plain(&json!({}))).granted(1).then(Command::Cancel(cancel()), 3);
    assert_eq!(kinds(&story.explained(12)), ["canceling", "worker_silent"]);
    let summary = story.explained(14).summary;
    assert!(summary.contains("It is killed, and counts"), "{summary}");
}

#[test]
fn a_job_that_has_ended_says_how() {
    let story = || Story::of(plain(&json!({}))).granted(1).says(step_started(1), 2);
    let ended = |story: Story, state: &str, how: &str, outcome: Value| {
        let summary = format!("It ended as {state} at {}, in attempt 1{how}.", at(3));
        let ended = json!({"kind": "ended", "attempt": 1, "finished_at": at(3), "outcome": outcome});
        says_so(&story.explained(9), &summary, &[ended]);
    };
    ended(story().says(end(AttemptEnd::Succeeded), 3), "succeeded", "", Value::Null);
    let failed = story().says(failed(exit(7)), 3);
    let outcome = json!({"reason": "step_failed", "step": 0, "exit_code": 7});
    ended(failed, "failed", ": step 0 ended with exit code 7", outcome);

    let canceled = Story::of(plain(&json!({}))).then(Command::Cancel(cancel()), 3);
    let summary = format!("It ended as canceled at {}, before any attempt: by client:ann: not wanted any more.", at(3));
    says_so(&canceled.explained(4), &summary, &[json!({"kind": "ended", "attempt": 0})]);
}

#[test]
fn every_job_in_every_situation_is_explained_by_what_its_state_is_about() {
    let mut seen = BTreeSet::new();
    for (situation, build) in situations::ALL {
        for owner in [Owner::Knows(None), Owner::NotAsked, Owner::Away] {
            let story = Story { job: build(), ..tagged(&[]).known_by(owner) };
            let explanation = story.explained_at(situations::now());
            let expected: &[&str] = match explanation.state.as_str() {
                "scheduled" => &["scheduled"],
                "blocked" => &["waits_for_key"],
                "queued" => &["no_worker_has_tags", "queued"],
                "assigned" => &["preparing", "fetching_key"],
                "running" => &["running"],
                "canceling" => &["canceling"],
                _ => &["ended"],
            };
            let mut kinds = kinds(&explanation);
            let is_alone = owner == Owner::Away && !story.job.is_terminal();
            assert_eq!(kinds.first().is_some_and(|kind| kind == "no_owner"), is_alone, "{situation}");
            kinds.retain(|kind| kind != "no_owner");
            assert!(
                !kinds.is_empty() && kinds.iter().all(|kind| expected.contains(&kind.as_str())),
                "{situation}: {kinds:?}"
            );
            assert!(explanation.summary.ends_with('.') && explanation.id == story.job.id, "{situation}");
            seen.insert(explanation.state);
        }
    }
    assert_eq!(seen.len(), shared::job::StateName::ALL.len());
}
