//! The outbox on a real bus, with owners that a test plays: what is in which message, and that each report is taken once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use shared::bus::local::LocalBus;
use shared::bus::{Bus, Request, Service};
use shared::id::{Attempt, ClaimId, CoordinatorId, Epoch, Instance, JobId, WorkerId};
use shared::job::{AttemptEnd, Failure, Progress};
use shared::log::LogSummary;
use shared::proof::ProofKey;
use shared::secret::Secret;
use shared::time::{Period, Time};
use shared::wire::{self, Answers, MESSAGE_BYTES_MAX, REPORTS_MAX, ReportKind, Reports, ShardAnswers, Word, Words};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::*;
use crate::epochs::Epochs;
use crate::report::{Reporter, Telling};

const SHARDS: u16 = 16;
const PERMITS: u32 = 1000;
const DEADLINE: Duration = Duration::from_secs(20);

/// Who owns what, and what was said to them.
#[derive(Default)]
struct World {
    owners: HashMap<Shard, (Option<CoordinatorId>, Epoch)>,
    /// Each message: the shard that it was addressed to, and its reports' jobs.
    messages: Vec<(Shard, Vec<JobId>)>,
    largest: usize,
    /// What was taken, in order.
    taken: Vec<(JobId, ReportKind)>,
    /// A message about this job is answered with something that can't be read.
    poison: Option<JobId>,
}

impl World {
    fn answer(&mut self, shard: Shard, Reports { reports, .. }: Reports) -> Bytes {
        if reports.iter().any(|report| Some(report.job) == self.poison) {
            return Bytes::from_static(b"{");
        }
        let (owner, epoch) = self.owners[&shard];
        let is_bundle = reports.iter().any(|report| report.job.shard() != shard);
        let mut words: Vec<ShardAnswers> = Vec::new();
        for Report { job, what, .. } in reports {
            let of = job.shard();
            if self.owners[&of].0 != owner {
                continue;
            }
            self.taken.push((job, what));
            match words.iter_mut().find(|word| word.shard == of) {
                Some(word) => word.answers.push(Answer::Taken),
                None => words.push(ShardAnswers { shard: of, epoch: self.owners[&of].1, answers: vec![Answer::Taken] }),
            }
        }
        if is_bundle {
            return wire::encode(&Words { owner: owner.expect("who doesn't name itself gets no bundle"), words });
        }
        wire::encode(&Word { shard, epoch, owner, said: Answers { answers: words.remove(0).answers } })
    }

    /// The numbers of shards in each of the messages from the one of that number on.
    fn spread_since(&self, first: usize) -> Vec<usize> {
        let shards = |jobs: &[JobId]| jobs.iter().map(|job| job.shard()).collect::<BTreeSet<_>>().len();
        self.messages[first..].iter().map(|(_, jobs)| shards(jobs)).collect()
    }
}

struct Stage {
    outbox: Outbox,
    courier: Courier,
    world: Arc<Mutex<World>>,
    /// A permit for each message that may be answered.
    gate: Arc<Semaphore>,
    changes: watch::Sender<u64>,
    minted: Mutex<u8>,
}

impl Stage {
    /// Every shard belongs to `owner`, in the first epoch.
    async fn start(owner: Option<CoordinatorId>) -> Self {
        let (bus, worker) = (LocalBus::default(), WorkerId(clock::random_uuid()));
        let key = ProofKey::of(&Secret::new("a secret".to_owned()));
        let courier = Courier {
            bus: Arc::new(bus.clone()),
            worker,
            instance: Instance(clock::random_uuid()),
            start: 1,
            key: key.clone(),
            epochs: Arc::new(Epochs::default()),
        };
        let owners = (0..SHARDS).map(|number| (shard(number), (owner, Epoch(1)))).collect();
        let stage = Self {
            outbox: Outbox::new(courier.clone()),
            courier,
            world: Arc::new(Mutex::new(World { owners, ..World::default() })),
            gate: Arc::new(Semaphore::new(PERMITS as usize)),
            changes: watch::Sender::new(0),
            minted: Mutex::default(),
        };
        for number in 0..SHARDS {
            let mut requests = bus.serve(Service::Shard(shard(number))).await.unwrap();
            let (world, gate, changes) = (stage.world.clone(), stage.gate.clone(), stage.changes.clone());
            let key = key.clone();
            tokio::spawn(async move {
                while let Some(Request { to, body, reply }) = requests.recv().await {
                    let said: Reports = wire::decode(&key.open(&to, &body).unwrap()).unwrap();
                    {
                        let mut world = world.lock().unwrap();
                        world.messages.push((shard(number), said.reports.iter().map(|report| report.job).collect()));
                        world.largest = world.largest.max(body.len());
                    }
                    changes.send_modify(|changes| *changes += 1);
                    let (world, gate) = (world.clone(), gate.clone());
                    tokio::spawn(async move {
                        let _permit = gate.acquire_owned().await.unwrap();
                        let answer = world.lock().unwrap().answer(shard(number), said);
                        let _ = reply.send(answer);
                    });
                }
            });
        }
        stage
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// A new job of that shard.
    fn job(&self, number: u16) -> JobId {
        let mut minted = self.minted.lock().unwrap();
        *minted += 1;
        JobId::mint(shard(number), Time::from_micros(1_000_000), [*minted; 10])
    }

    fn put(&self, job: JobId, number: u32) -> oneshot::Receiver<Answer> {
        self.outbox.put(Report { job, attempt: Attempt(1), what: progress(number) }, None)
    }

    /// Says something of a job in every shard, and waits for the answers.
    async fn meet_all(&self) {
        let answers: Vec<_> = (0..SHARDS).map(|number| self.put(self.job(number), 1)).collect();
        all_taken(answers).await;
    }

    /// Closes the gate behind four messages that are on their way, of one report each.
    async fn block(&self) -> (tokio::sync::SemaphorePermit<'_>, Vec<oneshot::Receiver<Answer>>) {
        let closed = self.gate.acquire_many(PERMITS).await.unwrap();
        let before = self.world().messages.len();
        let mut answers = Vec::new();
        for number in 1..=4 {
            answers.push(self.put(self.job(0), 1));
            self.until(|world| world.messages.len() == before + number).await;
        }
        (closed, answers)
    }

    async fn until(&self, so: impl Fn(&World) -> bool) {
        let mut changes = self.changes.subscribe();
        let come = async {
            while !so(&self.world()) {
                changes.changed().await.unwrap();
            }
        };
        timeout(DEADLINE, come).await.expect("it comes");
    }
}

fn shard(number: u16) -> Shard {
    Shard::new(number).unwrap()
}

fn somebody() -> CoordinatorId {
    CoordinatorId(clock::random_uuid())
}

fn progress(number: u32) -> ReportKind {
    ReportKind::Progress { number, progress: Progress::StepStarted { step: 0 } }
}

async fn all_taken(answers: Vec<oneshot::Receiver<Answer>>) {
    for answer in answers {
        let answer = timeout(DEADLINE, answer).await.expect("it is answered in time");
        assert_eq!(answer.expect("it isn't given up"), Answer::Taken);
    }
}

#[tokio::test]
async fn what_waits_for_one_owner_goes_in_one_message_whatever_its_shards() {
    let stage = Stage::start(Some(somebody())).await;
    stage.meet_all().await;
    let before = stage.world().messages.len();
    let (closed, mut answers) = stage.block().await;
    for number in 0..SHARDS * 8 {
        let job = stage.job(number % SHARDS);
        answers.extend([stage.put(job, 1), stage.put(job, 2)]);
    }
    drop(closed);
    all_taken(answers).await;
    let world = stage.world();
    let counts: Vec<usize> = world.messages[before..].iter().map(|(_, jobs)| jobs.len()).collect();
    assert_eq!(counts, [1, 1, 1, 1, REPORTS_MAX], "four go at once, each alone, and the rest together");
}

#[tokio::test]
async fn who_does_not_name_itself_gets_one_shards_reports_at_a_time() {
    let stage = Stage::start(None).await;
    stage.meet_all().await;
    let (closed, mut answers) = stage.block().await;
    for number in 0..SHARDS * 4 {
        answers.push(stage.put(stage.job(number % SHARDS), 1));
    }
    drop(closed);
    all_taken(answers).await;
    assert!(stage.world().spread_since(0).iter().all(|shards| *shards == 1));
}

#[tokio::test]
async fn half_of_the_shards_move_and_each_report_is_taken_once_and_in_order() {
    let (old, new) = (somebody(), somebody());
    let stage = Stage::start(Some(old)).await;
    stage.meet_all().await;
    let moved = |job: &JobId| job.shard().number() >= SHARDS / 2;
    let (closed, mut answers) = stage.block().await;
    let jobs: Vec<JobId> = (0..SHARDS).map(|number| stage.job(number)).collect();
    for job in &jobs {
        answers.extend([stage.put(*job, 1), stage.put(*job, 2)]);
    }
    for number in SHARDS / 2..SHARDS {
        stage.world().owners.insert(shard(number), (Some(new), Epoch(2)));
    }
    let before = stage.world().messages.len();
    drop(closed);
    all_taken(answers).await;
    {
        let world = stage.world();
        let spread = world.spread_since(before);
        assert_eq!(spread[0], usize::from(SHARDS), "all go to the one that owned them");
        assert!(spread[1..].iter().all(|shards| *shards == 1), "what it doesn't answer goes apart: {spread:?}");
        for job in &jobs {
            let taken: Vec<_> = world.taken.iter().filter(|(of, _)| of == job).map(|(_, what)| what.clone()).collect();
            assert_eq!(taken, [progress(1), progress(2)]);
        }
        let again: BTreeSet<JobId> = world.messages[before + 1..].iter().flat_map(|(_, jobs)| jobs.clone()).collect();
        assert!(again.iter().all(moved) && again.len() == usize::from(SHARDS / 2));
    }

    // From now on each of the two gets what is its own.
    let before = stage.world().messages.len();
    let (closed, mut answers) = stage.block().await;
    answers.extend((0..SHARDS).map(|number| stage.put(stage.job(number), 1)));
    drop(closed);
    all_taken(answers).await;
    let world = stage.world();
    for (_, jobs) in &world.messages[before..] {
        assert!(jobs.iter().all(moved) || !jobs.iter().any(moved), "a message for two owners");
    }
}

#[tokio::test]
async fn an_old_word_is_not_heeded_and_its_neighbours_are() {
    let owner = Some(somebody());
    let stage = Stage::start(owner).await;
    stage.meet_all().await;
    // Of shard 3 a later epoch was heard.
    let later = Word { shard: shard(3), epoch: Epoch(9), owner, said: () };
    stage.courier.epochs.heed(shard(3), later).unwrap();
    let (closed, mut answers) = stage.block().await;
    answers.extend([1, 2, 4].map(|number| stage.put(stage.job(number), 1)));
    let job = stage.job(3);
    let mut unheeded = stage.put(job, 1);
    let before = stage.world().messages.len();
    drop(closed);
    all_taken(answers).await;
    assert_eq!(stage.world().spread_since(before)[0], 4, "they went together");
    stage.until(|world| world.messages.iter().filter(|(_, jobs)| jobs.contains(&job)).count() >= 3).await;
    assert!(unheeded.try_recv().is_err(), "an answer that doesn't count was taken for one");
    stage.world().owners.insert(shard(3), (owner, Epoch(9)));
    all_taken(vec![unheeded]).await;
}

#[tokio::test]
async fn what_spoils_a_message_is_alone_in_the_end_and_its_neighbours_go_on_together() {
    let stage = Stage::start(Some(somebody())).await;
    stage.meet_all().await;
    let poison = stage.job(3);
    stage.world().poison = Some(poison);
    let (closed, mut answers) = stage.block().await;
    let last = stage.put(poison, 1);
    for number in 0..SHARDS {
        answers.push(stage.put(stage.job(number), 1));
    }
    for _ in 0..7 {
        answers.push(stage.put(stage.job(3), 1));
    }
    drop(closed);
    all_taken(answers).await;
    let alone = |world: &World| world.messages.iter().filter(|(_, jobs)| jobs == &[poison]).count();
    stage.until(|world| alone(world) >= 1).await;
    {
        let world = stage.world();
        let sizes: Vec<usize> =
            world.messages.iter().filter(|(_, jobs)| jobs.contains(&poison)).map(|(_, jobs)| jobs.len()).collect();
        assert_eq!(sizes[..5], [24, 9, 5, 3, 2], "it was tried with fewer and fewer: {sizes:?}");
        assert!(world.messages.iter().all(|(to, jobs)| jobs != &[poison] || *to == shard(3)));
    }

    // Others of its own shard and of others go together again, past it.
    let before = stage.world().messages.len();
    let (closed, mut answers) = stage.block().await;
    answers.extend((0..SHARDS).map(|number| stage.put(stage.job(number), 1)));
    drop(closed);
    all_taken(answers).await;
    let spread = stage.world().spread_since(before);
    assert!(spread.contains(&usize::from(SHARDS)), "{spread:?}");
    stage.world().poison = None;
    all_taken(vec![last]).await;
}

#[tokio::test]
async fn no_message_is_larger_than_may_be() {
    let stage = Stage::start(Some(somebody())).await;
    stage.meet_all().await;
    let (closed, mut answers) = stage.block().await;
    let before = stage.world().messages.len();
    let failure = Failure::Internal { message: "x".repeat(MESSAGE_BYTES_MAX / 5) };
    let what = ReportKind::End { end: AttemptEnd::Failed { failure }, log: LogSummary::default() };
    for number in 0..SHARDS {
        answers
            .push(stage.outbox.put(Report { job: stage.job(number), attempt: Attempt(1), what: what.clone() }, None));
    }
    drop(closed);
    all_taken(answers).await;
    let world = stage.world();
    assert!(world.largest <= MESSAGE_BYTES_MAX, "{} bytes", world.largest);
    assert_eq!(world.spread_since(before), [4, 4, 4, 4]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_said() {
    let stage = Stage::start(Some(somebody())).await;
    let (closed, answers) = stage.block().await;
    let (given_up, late) = (stage.job(0), stage.job(0));
    drop(stage.put(given_up, 1));
    let report = Report { job: late, attempt: Attempt(1), what: progress(1) };
    let unsaid = stage.outbox.put(report, Some(clock::instant()));
    drop(closed);
    all_taken(answers).await;
    all_taken(vec![stage.put(stage.job(0), 1)]).await;
    assert!(unsaid.await.is_err());
    assert!(stage.world().taken.iter().all(|(job, _)| ![given_up, late].contains(job)));
}

#[test]
fn a_claim_is_weighed_with_no_less_than_it_has() {
    let (job, recipient) = (JobId::mint(shard(255), Time::from_micros(i64::MAX), [255; 10]), Some("age1".repeat(16)));
    let (claim, wait) = (ClaimId(clock::random_uuid()), Period::from_millis(u64::MAX));
    let report = Report { job, attempt: Attempt(u32::MAX), what: ReportKind::Claim { claim, wait, recipient } };
    let encoded = wire::encode(&report).len();
    let item = Item::new(report, None, oneshot::channel().0);
    assert!(item.bytes >= encoded, "{} for {encoded}", item.bytes);
}

#[tokio::test]
async fn an_attempts_end_goes_with_the_progress_that_was_not_said_yet_and_behind_what_was() {
    for said_before in [0, 1] {
        let stage = Stage::start(Some(CoordinatorId(clock::random_uuid()))).await;
        let (job, attempt) = (stage.job(3), Attempt(1));
        let reporter = Reporter { courier: stage.courier.clone(), outbox: stage.outbox.clone() };
        let (progress, queue) = mpsc::channel(8);
        let mut telling = Telling::of(reporter, job, attempt, queue);
        let closed = stage.gate.clone().acquire_many_owned(PERMITS).await.unwrap();
        let tell = |step| progress.try_send(Progress::StepStarted { step }).unwrap();
        (0..said_before).for_each(tell);
        tokio::select! {
            never = telling.go_on() => match never {},
            () = stage.until(|world| world.messages.len() == said_before as usize) => {}
        }
        (said_before..3).for_each(tell);
        let end = ReportKind::End { end: AttemptEnd::Succeeded, log: LogSummary::default() };
        let ending = tokio::spawn(telling.end(Report { job, attempt, what: end.clone() }));
        stage.until(|world| world.messages.len() == 1).await;
        assert!(!ending.is_finished(), "nothing is answered yet");
        drop(closed);
        timeout(DEADLINE, ending).await.unwrap().unwrap();
        let world = stage.world();
        let sizes: Vec<usize> = world.messages.iter().map(|(_, jobs)| jobs.len()).collect();
        assert_eq!(sizes, if said_before == 0 { vec![4] } else { vec![1, 3] });
        let step = |step| ReportKind::Progress { number: step + 1, progress: Progress::StepStarted { step } };
        let told: Vec<ReportKind> = world.taken.iter().map(|(_, what)| what.clone()).collect();
        assert_eq!(told, [step(0), step(1), step(2), end]);
    }
}
