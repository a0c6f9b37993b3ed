//! What goes together, and what isn't asked of the store.

use shared::job::{Exit, Progress};
use shared::wire::{Answer, ReportKind};
use tests::played::{Hand, Played, Turn, one_step};

use crate::jobs::succeeded;

fn started(number: u32) -> ReportKind {
    ReportKind::Progress { number, progress: Progress::StepStarted { step: 0 } }
}

fn finished(number: u32) -> ReportKind {
    ReportKind::Progress { number, progress: Progress::StepFinished { step: 0, exit: Exit::ExitCode(0) } }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_says_of_a_job_in_one_message_is_committed_in_one_write() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(one_step()).await;
    let grant = hand.must_get(id).await;
    let (commits, version) = (played.asked("commit"), played.service.job(id).await.unwrap().version);
    let answers = hand.say_all(id, grant.attempt, vec![started(1), finished(2), succeeded()]).await;
    assert_eq!(answers, [Answer::Taken, Answer::Taken, Answer::Taken]);
    assert_eq!(played.asked("commit") - commits, 1);
    let job = played.service.job(id).await.unwrap();
    assert_eq!(job.version.0, version.0 + 3, "each is a transition of its own");
    let kinds = played.kinds(id).await;
    assert_eq!(kinds, ["submitted", "queued", "assigned", "started", "step_started", "step_finished", "succeeded"]);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_in_the_middle_keeps_nothing_else_from_being_committed() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(one_step()).await;
    let grant = hand.must_get(id).await;
    let answers = hand.say_all(id, grant.attempt, vec![started(1), started(1), finished(7), finished(2)]).await;
    assert_eq!(answers, [Answer::Taken, Answer::Taken, Answer::TryAgain, Answer::Taken]);
    let kinds = played.kinds(id).await;
    assert_eq!(kinds, ["submitted", "queued", "assigned", "started", "step_started", "step_finished"]);
    assert_eq!(hand.say_all(id, grant.attempt, vec![succeeded(), succeeded()]).await, [Answer::Taken, Answer::Taken]);
    assert_eq!(played.kinds(id).await.last(), Some(&"succeeded"));
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_claimed_soon_goes_through_its_life_without_being_read() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(one_step()).await;
    let grant = hand.must_get(id).await;
    assert_eq!(hand.say(id, grant.attempt, succeeded()).await, Answer::Taken);
    assert_eq!(played.asked("job"), 0);
    played.service.job(id).await.unwrap();
    assert_eq!(played.asked("job"), 1, "a reading is counted");
    played.coordinator.stop().await;
}
