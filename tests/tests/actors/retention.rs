//! What is old goes by itself, and with it whatever a reader could find of it.

use std::sync::Arc;
use std::time::Duration;

use coordinator::fault::{self, Fault};
use coordinator::service::Error;
use coordinator::store::sqlite::SqliteStore;
use coordinator::vault::MasterKeys;
use shared::id::Seq;
use shared::job::StateName;
use shared::time::Period;
use shared::wire::Answer;
use tests::played::{Hand, Played, Turn, one_step};
use tests::wait::until_told;

/// Many times what two sweeps take.
const GONE_WITHIN: Duration = Duration::from_mins(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_old_goes_by_itself_also_after_a_sweep_that_failed() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let (_, keys) = MasterKeys::generate();
    let start = async |keep: Option<Period>| {
        let store = Arc::new(SqliteStore::open(&dir.path().join("db")).await.expect("the database opens"));
        match keep {
            None => Played::start_on(store, Arc::default(), keys.reveal(), "").await.expect("it starts"),
            Some(keep) => {
                Played::start_keeping(store, Arc::default(), keys.reveal(), "", keep).await.expect("it starts")
            }
        }
    };
    let played = start(None).await;
    let hand = Hand::arrive(&played).await;
    let old = played.submit(one_step()).await;
    let grant = hand.must_get(old).await;
    assert_eq!(hand.say(old, grant.attempt, crate::jobs::succeeded()).await, Answer::Taken);
    let queued = played.submit(one_step()).await;
    played.coordinator.stop().await;

    // Where jobs are kept for 30 days, none of these would have gone.
    fault::arm_with("retention.sweep", Fault::Lose, 1);
    let played = start(Some(Period::from_millis(1))).await;
    assert_eq!(played.service.job(old).await.expect("the old job").state.name(), StateName::Succeeded);
    until_told(GONE_WITHIN, "the old job is gone", async || {
        (played.service.job(old).await == Err(Error::NotFound)).then_some(())
    })
    .await;
    assert!(played.asked("ended_jobs") > 0 && played.asked("remove_expired") > 1, "it was swept again");
    assert_eq!(played.service.events(old, Seq(0), 10).await, Err(Error::NotFound));
    assert_eq!(played.service.lines(old, None, 0, 10).await, Err(Error::NotFound));
    assert_eq!(played.service.retry(old, &tests::played::client()).await, Err(Error::NotFound));
    assert_eq!(played.store.job(old).await, Ok(None));
    assert_eq!(played.service.job(queued).await.expect("the other job").state.name(), StateName::Queued);
    played.coordinator.stop().await;
}
