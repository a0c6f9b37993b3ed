//! Ways in which the protocol could be broken, each of which has to be caught by the property that stands for the rule.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use super::properties as must;
use super::scenes::{NOTHING, PLAIN};
use super::windlass::{Scene, Windlass};
use super::world::Budget;

/// A broken rule. The comment names what the model then does instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Break {
    /// A worker heeds every word, whatever its epoch.
    EpochIgnored,
    /// A worker that is started again has heard of no epoch.
    EpochsForgotten,
    /// The publisher takes events up when they are handed to the committer.
    PublishedBeforeCommit,
    /// A word about any attempt counts as one about the current attempt.
    AttemptUnchecked,
    /// A stop for an attempt that doesn't run is confirmed, and not remembered.
    MarkSkipped,
    /// The cursor moves over what is committed, published or not.
    CursorBeforePublication,
    /// To which claim an attempt was granted is known in memory alone.
    GrantNotStored,
    /// A statement takes effect whoever owns the shard.
    OldOwnerNotFenced,
    /// A takeover reads job and numbers before it fences the old owner.
    ReadBeforeFencing,
    /// After a lost answer the rows are read again, and nothing else.
    RecoveredByReading,
    /// What waits behind a commit whose answer was lost is committed after the recovery.
    WaitingOutlivesRecovery,
    /// Who follows a supervisor that died reads the job, whatever that one has handed over.
    ReadBeforeSettled,
    /// A claim or a report is answered when its write is handed over.
    AnsweredBeforeCommit,
    /// A supervisor's state is swapped when its write is handed over.
    SwappedBeforeCommit,
    /// A write takes effect whatever the row's version; nor is it waited for what is on its way, which is enough by itself.
    VersionUnchecked,
    /// A success that is reported after the job's end makes it succeed.
    LateReportWins,
    /// A job whose worker is lost is retried, canceled or not.
    RetriedAfterCancel,
    /// A decline names its attempt alone, and not the claim whose grant isn't wanted.
    ClaimNotNamed,
    /// Lost offers are not made again.
    OffersNotRepeated,
    /// Leases have no end.
    LeaseUnlimited,
    /// A job's own timer changes nothing.
    TimerWithoutEffect,
    /// A parked job's wait limit doesn't look for the key once more.
    WaitLimitBlind,
    /// A worker forgets an outcome when it has said it.
    OutcomeNotRepeated,
}

/// Breaks a rule, and has the property that stands for it find that.
fn caught(rule: Break, property: &'static str, scene: Scene) {
    let checker = Windlass::new(scene, Some(rule)).checker();
    let checker = checker.finish_when(HasDiscoveries::AllOf(BTreeSet::from([property]))).spawn_bfs().join();
    let Some(path) = checker.discovery(property) else {
        panic!("{rule:?} is not caught by: {property} ({} states)", checker.unique_state_count())
    };
    println!("{rule:?}: {property}: {} states; {:?}", checker.unique_state_count(), path.into_actions());
}

fn with(budget: Budget) -> Scene {
    Scene { budget, ..PLAIN }
}

/// A coordinator that was taken for dead goes on talking.
fn zombie(budget: Budget) -> Scene {
    Scene { zombies_speak: true, ..with(Budget { lapses: 1, ..budget }) }
}

const CANCELED: Budget = Budget { cancels: 1, ..NOTHING };
const CRASHED: Budget = Budget { crashes: 1, ..NOTHING };

#[test]
fn an_epoch_that_is_ignored_is_found() {
    caught(Break::EpochIgnored, must::OUTCOME_KEPT, zombie(NOTHING));
    caught(Break::EpochIgnored, must::STOPPED_FOR_CAUSE, zombie(Budget { cuts: 1, ..NOTHING }));
}

#[test]
fn epochs_that_a_start_forgets_are_found() {
    let scene = Scene { workers: 1, ..zombie(Budget { worker_crashes: 1, ..NOTHING }) };
    caught(Break::EpochsForgotten, must::OUTCOME_KEPT, scene);
}

#[test]
fn a_publication_before_the_commit_is_found() {
    caught(Break::PublishedBeforeCommit, must::COMMITTED_FIRST, with(CRASHED));
}

#[test]
fn an_attempt_that_is_not_checked_is_found() {
    caught(Break::AttemptUnchecked, must::ONE_UNFENCED, with(Budget { cuts: 1, ..NOTHING }));
}

#[test]
fn a_stop_that_leaves_no_mark_is_found() {
    caught(Break::MarkSkipped, must::NO_CONFIRMED_START, with(CANCELED));
}

#[test]
fn a_decline_that_names_no_claim_is_found() {
    caught(Break::ClaimNotNamed, must::NO_CONFIRMED_START, with(Budget { mishaps: 2, ..CANCELED }));
}

#[test]
fn a_cursor_that_is_ahead_of_publication_is_found() {
    caught(Break::CursorBeforePublication, must::IN_ORDER, with(CRASHED));
}

#[test]
fn a_grant_that_is_known_in_memory_alone_is_found() {
    caught(Break::GrantNotStored, must::GRANT_REPEATED, with(CRASHED));
}

#[test]
fn an_old_owner_that_is_not_fenced_is_found() {
    caught(Break::OldOwnerNotFenced, must::NO_GAP, with(Budget { crashes: 1, ..CANCELED }));
}

#[test]
fn a_takeover_that_reads_before_it_fences_is_found() {
    caught(Break::ReadBeforeFencing, must::NO_GAP, with(Budget { lapses: 1, ..CANCELED }));
}

#[test]
fn a_recovery_that_only_reads_is_found() {
    let unknown = with(Budget { unknowns: 1, ..CANCELED });
    caught(Break::RecoveredByReading, must::NO_GAP, unknown);
    caught(Break::RecoveredByReading, must::ENDS, unknown);
}

#[test]
fn a_write_that_outlives_a_recovery_is_found() {
    let scene = with(Budget { unknowns: 1, cuts: 1, ..NOTHING });
    caught(Break::WaitingOutlivesRecovery, must::ANSWERED_TRULY, scene);
}

#[test]
fn a_successor_that_reads_what_is_not_settled_is_found() {
    caught(Break::ReadBeforeSettled, must::ANSWERED_TRULY, with(Budget { mishaps: 1, ..CRASHED }));
}

#[test]
fn an_answer_before_the_commit_is_found() {
    let scene = with(Budget { crashes: 1, ..CANCELED });
    caught(Break::AnsweredBeforeCommit, must::NO_LATE_START, scene);
    caught(Break::AnsweredBeforeCommit, must::OUTCOME_KEPT, with(CRASHED));
}

#[test]
fn a_state_that_is_swapped_before_the_commit_is_found() {
    caught(Break::SwappedBeforeCommit, must::ANSWERED_TRULY, with(Budget { crashes: 1, ..CANCELED }));
}

#[test]
fn a_version_that_is_not_checked_is_found() {
    caught(Break::VersionUnchecked, must::TERMINAL, with(Budget { crashes: 1, ..CANCELED }));
}

#[test]
fn a_late_report_that_wins_is_found() {
    caught(Break::LateReportWins, must::TERMINAL, with(Budget { timers: 1, cuts: 1, ..CANCELED }));
}

#[test]
fn a_retry_after_a_cancel_is_found() {
    caught(Break::RetriedAfterCancel, must::NO_LATE_START, with(Budget { cuts: 1, ..CANCELED }));
}

#[test]
fn an_offer_that_is_not_made_again_is_found() {
    caught(Break::OffersNotRepeated, must::ENDS, with(Budget { mishaps: 1, ..NOTHING }));
}

#[test]
fn a_lease_without_end_is_found() {
    caught(Break::LeaseUnlimited, must::ENDS, with(Budget { worker_crashes: 1, ..NOTHING }));
}

#[test]
fn a_timer_without_effect_is_found() {
    caught(Break::TimerWithoutEffect, must::ENDS_ALONE, with(NOTHING));
}

#[test]
fn an_outcome_that_is_said_once_is_found() {
    caught(Break::OutcomeNotRepeated, must::OUTCOME_KEPT, with(NOTHING));
}

#[test]
fn a_wait_limit_that_does_not_look_is_found() {
    let scene = Scene { keyed: true, ..with(Budget { returns: 1, timers: 1, ..NOTHING }) };
    caught(Break::WaitLimitBlind, must::KEY_SEEN, scene);
}
