//! Reports about jobs of several shards in one message, while those have one owner, have two, and change owners.
//!
//! Two coordinators in this process, on one Postgres and one bus, and a worker that is played by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coordinator::store::postgres::PostgresStore;
use coordinator::vault::MasterKeys;
use serde_json::{Value, json};
use shared::bus::local::LocalBus;
use shared::id::{Attempt, CoordinatorId, JobId, Shard};
use shared::job::{AttemptEnd, EventKind, Exit, Progress, StateName};
use shared::log::LogSummary;
use shared::secret::Secret;
use shared::wire::{Answer, Report, ReportKind, Words};
use tests::played::{DEADLINE, Hand, Played, Turn};
use tests::postgres::{Database, Postgres};
use tests::wait;
use tokio::sync::watch;
use tokio::time::timeout;

/// Enough for several shards of each of two owners.
const JOBS: usize = 24;
const STEPS: u32 = 12;

/// What coordinators share.
struct Ground {
    database: Database<'static>,
    bus: Arc<LocalBus>,
    keys: String,
}

impl Ground {
    fn new() -> Self {
        let (_, keys) = MasterKeys::generate();
        let (database, keys) = (Postgres::shared().database(), keys.reveal().to_owned());
        Self { database, bus: Arc::default(), keys }
    }

    async fn coordinator(&self) -> Played {
        let url = Secret::new(self.database.url());
        let store = Arc::new(PostgresStore::connect(&url).await.expect("the database"));
        let address = "http://127.0.0.1:9";
        Played::start_on(store, Arc::clone(&self.bus), &self.keys, address).await.expect("it starts")
    }
}

/// Jobs of several shards, each granted to the hand.
async fn granted(played: &Played, hand: &Hand) -> Vec<JobId> {
    let steps: Vec<Value> = (0..STEPS).map(|_| json!({"run": "true"})).collect();
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        let job = played.submit(json!({ "steps": steps })).await;
        hand.must_get(job).await;
        jobs.push(job);
    }
    assert!(jobs.iter().map(|job| job.shard()).collect::<BTreeSet<_>>().len() > JOBS / 2, "many shards");
    jobs
}

/// What is reported first, second and so on.
fn progress(number: u32) -> ReportKind {
    let step = (number - 1) / 2;
    let progress = if number % 2 == 1 {
        Progress::StepStarted { step }
    } else {
        Progress::StepFinished { step, exit: Exit::ExitCode(0) }
    };
    ReportKind::Progress { number, progress }
}

fn succeeded() -> ReportKind {
    ReportKind::End { end: AttemptEnd::Succeeded, log: LogSummary::default() }
}

fn about(jobs: &[JobId], what: &ReportKind) -> Vec<Report> {
    jobs.iter().map(|job| Report { job: *job, attempt: Attempt(1), what: what.clone() }).collect()
}

/// Those that something is said for.
fn shards_of(words: &Words) -> BTreeSet<Shard> {
    words.words.iter().map(|word| word.shard).collect()
}

fn number_of(jobs: &[JobId], shard: Shard) -> usize {
    jobs.iter().filter(|job| job.shard() == shard).count()
}

/// Who owns the job's shard, as it says itself.
async fn owner(hand: &Hand, job: JobId) -> Option<CoordinatorId> {
    Some(hand.say_together(job.shard(), Vec::new()).await?.owner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_answered_for_the_shards_alone_that_its_receiver_owns() {
    let _turn = Turn::shared().await;
    let ground = Ground::new();
    let first = ground.coordinator().await;
    let hand = Hand::arrive(&first).await;
    let jobs = granted(&first, &hand).await;

    let told = hand.say_together(jobs[0].shard(), about(&jobs, &progress(1))).await.expect("an answer");
    assert_eq!(shards_of(&told), jobs.iter().map(|job| job.shard()).collect(), "all have one owner");
    for word in &told.words {
        assert_eq!(word.answers, vec![Answer::Taken; number_of(&jobs, word.shard)], "shard {}", word.shard);
    }
    assert_eq!(owner(&hand, jobs[0]).await, Some(told.owner));

    let second = ground.coordinator().await;
    let mut owners: BTreeMap<JobId, CoordinatorId> = BTreeMap::new();
    wait::until_told(DEADLINE, "each has shards of its own", async || {
        for job in &jobs {
            owners.insert(*job, owner(&hand, *job).await?);
        }
        (owners.values().collect::<BTreeSet<_>>().len() == 2).then_some(())
    })
    .await;
    let told = hand.say_together(jobs[0].shard(), about(&jobs, &succeeded())).await.expect("an answer");
    assert_eq!(told.owner, owners[&jobs[0]]);
    let (its, others): (Vec<JobId>, Vec<JobId>) = jobs.iter().partition(|job| owners[job] == told.owner);
    assert_eq!(shards_of(&told), its.iter().map(|job| job.shard()).collect());
    for job in &its {
        assert_eq!(second.service.job(*job).await.unwrap().state.name(), StateName::Succeeded);
    }
    for job in &others {
        assert_eq!(second.service.job(*job).await.unwrap().state.name(), StateName::Running, "nobody has heard of it");
    }
    let told = hand.say_together(others[0].shard(), about(&jobs, &succeeded())).await.expect("an answer");
    assert_eq!(shards_of(&told), others.iter().map(|job| job.shard()).collect());
    second.coordinator.stop().await;
    first.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bundled_while_shards_change_owners_is_taken_once() {
    let _turn = Turn::shared().await;
    let ground = Ground::new();
    let first = ground.coordinator().await;
    let hand = Hand::arrive(&first).await;
    let jobs = granted(&first, &hand).await;
    let (telling, told) = (hand.clone(), jobs.clone());
    let (allow, allowed) = watch::channel(STEPS);
    let telling = tokio::spawn(async move {
        let (mut number, mut missing) = (1, 0);
        while number <= STEPS * 2 {
            // What may not go on yet is repeated, as a worker does that has heard no answer.
            missing += tell_all(&telling, &told, &progress(number)).await;
            number += u32::from(number < *allowed.borrow());
        }
        missing + tell_all(&telling, &told, &succeeded()).await
    });
    // One comes, and takes half of the shards; then the other goes, and leaves it the rest.
    let second = ground.coordinator().await;
    wait::until_told(DEADLINE, "half of the shards are handed over", async || {
        let mut owners = BTreeSet::new();
        for job in &jobs {
            owners.insert(owner(&hand, *job).await?);
        }
        (owners.len() == 2).then_some(())
    })
    .await;
    allow.send_replace(STEPS * 2);
    first.coordinator.stop().await;
    allow.send_replace(STEPS * 2 + 1);
    let missing = timeout(DEADLINE * 2, telling).await.expect("all is taken in time").expect("no answer is wrong");
    println!("{missing} answers did not come");
    assert!(missing > 0, "every shard stayed where it was");
    for job in jobs {
        let job = second.until(job, "it has ended", |job| job.state.name() == StateName::Succeeded).await.id;
        let timeline = second.timeline(job).await;
        let started = timeline.iter().filter_map(|event| match &event.kind {
            EventKind::StepStarted { step, .. } => Some(*step),
            _ => None,
        });
        assert_eq!(started.collect::<Vec<_>>(), (0..STEPS).collect::<Vec<_>>());
    }
    second.coordinator.stop().await;
}

/// Says it of all jobs until each has its answer, all together; returns how many answers didn't come.
async fn tell_all(hand: &Hand, jobs: &[JobId], what: &ReportKind) -> usize {
    let mut left: BTreeSet<JobId> = jobs.iter().copied().collect();
    let mut missing = 0;
    while let Some(first) = left.first() {
        let asked: Vec<JobId> = left.iter().copied().collect();
        let told = hand.say_together(first.shard(), about(&asked, what)).await;
        for word in told.map(|told| told.words).unwrap_or_default() {
            let of_shard: Vec<JobId> = asked.iter().copied().filter(|job| job.shard() == word.shard).collect();
            assert_eq!(of_shard.len(), word.answers.len(), "answers for shard {}", word.shard);
            for (job, answer) in of_shard.iter().zip(word.answers) {
                if answer != Answer::TryAgain {
                    left.remove(job);
                }
            }
        }
        missing += left.len();
    }
    missing
}
