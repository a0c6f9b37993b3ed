//! The table of every (state, command) pair: what is told, in which situations, and what comes of it.
//!
//! The situations stand in `situations.rs`, the acts in `acts.rs`. A pair without a row, or with two, fails the test.

use std::collections::BTreeSet;

use shared::job::{Job, Rejection, StateName};

use super::acts::{Act, just_before};
use super::builders::at;
use super::{promises, situations};

/// Each row: what is told | in which situations | what comes of it: `nothing`, or why it is refused, or the next state
/// and the events on the way (`stays` where the state is as before). A final `*` stands for any words.
const TABLE: &str = "
wake early                 | ALL                             | nothing
wake due                   | scheduled backoff given_back    | queued: queued
wake due                   | given_back_last                 | failed: failed
wake due                   | blocked QUEUED                  | failed: failed
wake due                   | LIVE running_last               | failed: failed
wake due                   | running_forgiven                | scheduled: retried scheduled
wake due                   | CANCELING                       | canceled: canceled
wake due                   | ENDED                           | nothing

claim                      | queued requeued                 | assigned: assigned
claim                      | queued_plain                    | running: assigned started
claim                      | WAITING HELD CANCELING ENDED    | refused: not_queued
claim late                 | QUEUED                          | refused: late
claim late                 | WAITING HELD CANCELING ENDED    | refused: not_queued
claim repeated             | HELD                            | nothing
claim repeated             | QUEUED                          | refused: stale
claim repeated             | WAITING CANCELING ENDED         | refused: not_queued
claim copied               | QUEUED                          | refused: stale
claim copied               | WAITING HELD CANCELING ENDED    | refused: not_queued
claim of a taken offer     | QUEUED                          | refused: stale
claim of a taken offer     | WAITING HELD CANCELING ENDED    | refused: not_queued

cancel                     | WAITING QUEUED                  | canceled: cancel_requested canceled
cancel                     | HELD                            | canceling: cancel_requested canceling
cancel                     | CANCELING ENDED                 | nothing
cancel sooner              | WAITING QUEUED                  | canceled: cancel_requested canceled
cancel sooner              | HELD                            | canceling: cancel_requested canceling
cancel sooner              | CANCELING                       | stays: cancel_requested canceling
cancel sooner              | ENDED                           | nothing
cancel later               | WAITING QUEUED                  | canceled: cancel_requested canceled
cancel later               | HELD                            | canceling: cancel_requested canceling
cancel later               | CANCELING ENDED                 | nothing
cancel by force            | WAITING QUEUED                  | canceled: cancel_requested canceled
cancel by force            | HELD                            | canceling: cancel_requested canceling
cancel by force            | CANCELING                       | stays: cancel_requested canceling
cancel by force            | ENDED                           | nothing

lost                       | LIVE running_forgiven           | queued: worker_lost retried queued
lost                       | running_last                    | failed: worker_lost failed
lost                       | CANCELING                       | canceled: worker_lost canceled
lost                       | WAITING QUEUED ENDED            | refused: stale
lost, stale                | ALL                             | refused: stale

key                        | blocked                         | queued: queued
key                        | scheduled backoff QUEUED HELD   | nothing
key                        | given_back given_back_last      | nothing
key                        | CANCELING ENDED                 | nothing
key of another             | ALL                             | nothing

another: *                 | ALL                             | refused: stale
stale: *                   | ALL                             | refused: stale
holder: *                  | WAITING QUEUED                  | refused: stale

holder: decline            | ASSIGNED UNREPORTED             | queued: declined queued
holder: decline            | assigned_reported               | refused: begun
holder: decline            | running_reported                | refused: begun
holder: decline            | canceling                       | canceled: declined canceled
holder: decline            | canceling_reported              | refused: begun
holder: decline            | ENDED                           | refused: stale
holder: park               | ASSIGNED assigned_reported      | blocked: blocked
holder: park               | UNREPORTED running_reported     | refused: begun
holder: park               | CANCELING                       | canceled: canceled
holder: park               | TOLD                            | nothing
holder: park               | UNTOLD                          | stays: late_report
holder: park               | UNCLAIMED                       | refused: stale
holder: give back          | assigned assigned_reported      | scheduled: scheduled
holder: give back          | assigned_given_back             | failed: failed
holder: give back          | UNREPORTED running_reported     | refused: begun
holder: give back          | CANCELING                       | canceled: canceled
holder: give back          | TOLD                            | nothing
holder: give back          | UNTOLD                          | stays: late_report
holder: give back          | UNCLAIMED                       | refused: stale
holder: key came           | HELD CANCELING                  | stays: key_try
holder: key came           | ENDED                           | refused: stale

holder: step started       | ASSIGNED assigned_reported      | running: started step_started
holder: step started       | UNREPORTED running_reported     | stays: step_started
holder: step started       | CANCELING                       | stays: step_started
holder: step started       | ENDED                           | refused: stale
holder: checked out        | HELD CANCELING                  | stays: checked_out
holder: checked out        | ENDED                           | refused: stale
holder: report repeated    | HELD CANCELING                  | nothing
holder: report repeated    | ENDED                           | refused: stale
holder: report too early   | HELD CANCELING                  | refused: early
holder: report too early   | ENDED                           | refused: stale

holder: succeeded          | HELD                            | succeeded: succeeded
holder: succeeded          | CANCELING                       | canceled: late_report canceled
holder: failed             | LIVE running_last               | failed: failed
holder: failed             | running_forgiven                | scheduled: retried scheduled
holder: failed             | CANCELING                       | canceled: late_report canceled
holder: failed for a while | LIVE running_forgiven           | scheduled: retried scheduled
holder: failed for a while | running_last                    | failed: failed
holder: failed for a while | CANCELING                       | canceled: late_report canceled
holder: stopped            | LIVE running_forgiven           | queued: retried queued
holder: stopped            | running_last                    | failed: failed
holder: stopped            | CANCELING                       | canceled: canceled
holder: succeeded          | UNTOLD                          | stays: late_report
holder: succeeded          | TOLD                            | nothing
holder: succeeded          | UNCLAIMED                       | refused: stale
holder: failed             | UNTOLD                          | stays: late_report
holder: failed             | TOLD                            | nothing
holder: failed             | UNCLAIMED                       | refused: stale
holder: failed for a while | UNTOLD                          | stays: late_report
holder: failed for a while | TOLD                            | nothing
holder: failed for a while | UNCLAIMED                       | refused: stale
holder: stopped            | UNTOLD                          | stays: late_report
holder: stopped            | TOLD                            | nothing
holder: stopped            | UNCLAIMED                       | refused: stale
";

/// Names for several situations.
const GROUPS: [(&str, &str); 12] = [
    ("ALL", "WAITING QUEUED HELD CANCELING ENDED"),
    ("WAITING", "scheduled backoff blocked given_back given_back_last"),
    ("QUEUED", "queued queued_plain requeued"),
    ("HELD", "LIVE running_last running_forgiven"),
    ("ASSIGNED", "assigned assigned_given_back"),
    ("LIVE", "ASSIGNED assigned_reported running running_reported"),
    ("UNREPORTED", "running running_last running_forgiven"),
    ("CANCELING", "canceling canceling_reported"),
    ("ENDED", "TOLD UNTOLD UNCLAIMED"),
    ("TOLD", "succeeded failed key_missing canceled"),
    ("UNTOLD", "failed_untold canceled_untold canceled_requeued"),
    ("UNCLAIMED", "expired canceled_unclaimed"),
];

#[test]
fn every_command_does_in_every_state_what_the_table_says() {
    let mut wrong = Vec::new();
    for act in Act::all() {
        for (situation, job) in situations::ALL {
            let (expected, found) = (expected(&act.name(), situation), outcome(act, &job()));
            if expected != [found.clone()] {
                wrong.push(format!("{:<26} | {situation:<31} | {found}   (the table says {expected:?})", act.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "the table and the job disagree; what the job does:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_speaks_of_every_state_and_every_rejection() {
    let states: BTreeSet<StateName> = situations::ALL.iter().map(|(_, job)| job().state.name()).collect();
    assert_eq!(states, BTreeSet::from(StateName::ALL));

    let found: BTreeSet<String> =
        situations::ALL.iter().flat_map(|(_, job)| Act::all().into_iter().map(|act| outcome(act, &job()))).collect();
    for rejection in [Rejection::Stale, Rejection::NotQueued, Rejection::Late, Rejection::Begun, Rejection::Early] {
        assert!(found.contains(&refused(rejection)), "no row is {}", refused(rejection));
    }
}

#[test]
fn every_row_of_the_table_is_about_something_that_exists() {
    let acts: Vec<String> = Act::all().into_iter().map(Act::name).collect();
    for (act, named, _) in rows() {
        assert!(acts.iter().any(|name| fits(act, name)), "no act is called {act:?}");
        for situation in situations_of(named) {
            assert!(situations::ALL.iter().any(|(name, _)| *name == situation), "no situation is called {situation:?}");
        }
    }
}

/// What the job makes of an act, in the table's words.
fn outcome(act: Act, job: &Job) -> String {
    let now = match (act.name().as_str(), job.state.wake_at()) {
        ("wake early", Some(wake_at)) => just_before(wake_at),
        ("wake due", Some(wake_at)) => wake_at,
        ("wake due", None) => at(1_000_000),
        _ => situations::now(),
    };
    match promises::kept(job, &act.command(job, now), now) {
        Err(rejection) => refused(rejection),
        Ok(transition) if transition.is_empty() => "nothing".to_owned(),
        Ok(transition) => {
            let (before, after) = (job.state.name(), transition.job.state.name());
            let state = if before == after { "stays" } else { after.as_str() };
            let events: Vec<&str> = transition.events.iter().map(|event| event.kind.name()).collect();
            format!("{state}: {}", events.join(" "))
        }
    }
}

fn refused(rejection: Rejection) -> String {
    let name = serde_json::to_value(rejection).expect("a rejection has a JSON form");
    format!("refused: {}", name.as_str().expect("a word"))
}

/// What each row about that pair says.
fn expected(act: &str, situation: &str) -> Vec<String> {
    let about = |(row, named, _): &(&str, &str, &str)| fits(row, act) && situations_of(named).contains(&situation);
    rows().into_iter().filter(about).map(|(_, _, outcome)| outcome.to_owned()).collect()
}

fn fits(pattern: &str, act: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == act, |start| act.starts_with(start))
}

/// The table's rows: what is told, the situations, what comes of it.
fn rows() -> Vec<(&'static str, &'static str, &'static str)> {
    let row = |line: &'static str| {
        let mut cells = line.split('|').map(str::trim);
        let mut cell = || cells.next().unwrap_or_else(|| panic!("a cell is missing in {line:?}"));
        (cell(), cell(), cell())
    };
    TABLE.lines().filter(|line| !line.is_empty()).map(row).collect()
}

/// The situations of a row, each group in its members' names.
fn situations_of(named: &str) -> Vec<&str> {
    let members = |word| match GROUPS.iter().find(|(group, _)| *group == word) {
        Some((_, members)) => situations_of(members),
        None => vec![word],
    };
    named.split_whitespace().flat_map(members).collect()
}
