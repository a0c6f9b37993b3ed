//! The scenes that are checked in full: every order of everything that can happen, within each scene's budget.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use stateright::{Checker, HasDiscoveries, Model};

use super::properties::{CONFIRMED, FAILS, SECOND, SUCCEEDS, UNCONFIRMED};
use super::windlass::{Scene, Windlass};
use super::world::{Budget, WORKERS};

/// Nothing happens from outside.
pub const NOTHING: Budget = Budget {
    mishaps: 0,
    crashes: 0,
    lapses: 0,
    unknowns: 0,
    worker_crashes: 0,
    cuts: 0,
    cancels: 0,
    timers: 0,
    failures: 0,
    returns: 0,
};

/// A job without preparation, whose coordinators' clocks are sound.
pub const PLAIN: Scene = Scene { name: "", keyed: false, zombies_speak: false, workers: WORKERS, budget: NOTHING };

/// Checks a scene and says what was found. Beside keeping every property it has to reach what `reached` names.
fn check(scene: Scene, reached: &[&'static str]) {
    let threads = available_parallelism().map_or(1, NonZeroUsize::get);
    let budget = scene.budget.deeper(depth());
    let checker = Windlass::new(Scene { budget, ..scene }, None).checker().threads(threads);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let model = checker.model();
    let (states, steps, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    let (forms, events) = model.book.len();
    let name = scene.name;
    println!("{name}: {states} states, {steps} transitions, {depth} deep; {forms} forms of the job, {events} events");
    let (mut failed, mut found) = (BTreeSet::new(), BTreeSet::new());
    for (property, path) in checker.discoveries() {
        if model.property(property).expectation.discovery_is_failure() {
            failed.insert(property);
            let last = path.last_state().clone();
            println!("{property}\n  {:?}\n  {last:?}", model.view(&last));
            path.into_actions().iter().for_each(|action| println!("  {action:?}"));
        } else {
            found.insert(property);
        }
    }
    assert!(failed.is_empty(), "{name}: {failed:?}");
    let missing: Vec<_> = reached.iter().filter(|property| !found.contains(*property)).collect();
    assert!(missing.is_empty(), "{name} never reaches {missing:?}");
}

fn depth() -> u8 {
    let deeper = std::env::var("WINDLASS_MODEL_DEPTH");
    deeper.map_or(0, |more| more.parse().expect("WINDLASS_MODEL_DEPTH is a small number"))
}

#[test]
fn a_bus_that_loses_repeats_and_reorders_breaks_nothing() {
    let canceled = Budget { mishaps: 1, cancels: 1, ..NOTHING };
    check(Scene { name: "bus and cancel", budget: canceled, ..PLAIN }, &[SUCCEEDS, CONFIRMED]);
    let twice = Budget { mishaps: 2, ..NOTHING };
    check(Scene { name: "bus twice", budget: twice, ..PLAIN }, &[SUCCEEDS, SECOND]);
}

#[test]
fn a_coordinator_that_dies_at_any_moment_breaks_nothing() {
    let canceled = Budget { crashes: 2, cancels: 1, ..NOTHING };
    check(Scene { name: "two crashes and cancel", budget: canceled, ..PLAIN }, &[SUCCEEDS, CONFIRMED]);
    let bus = Budget { crashes: 1, mishaps: 1, ..NOTHING };
    check(Scene { name: "crash and bus", budget: bus, ..PLAIN }, &[SUCCEEDS, SECOND]);
}

#[test]
fn a_coordinator_that_dies_while_its_worker_is_gone_breaks_nothing() {
    let cut = Budget { crashes: 1, cuts: 1, ..NOTHING };
    check(Scene { name: "crash and cut", budget: cut, ..PLAIN }, &[SUCCEEDS, SECOND]);
    if depth() == 0 {
        return;
    }
    let dead = Budget { crashes: 1, worker_crashes: 1, ..NOTHING };
    check(Scene { name: "crash and worker's crash", budget: dead, ..PLAIN }, &[SUCCEEDS, SECOND]);
}

#[test]
fn a_commit_whose_answer_is_lost_breaks_nothing() {
    let canceled = Budget { unknowns: 1, cancels: 1, ..NOTHING };
    check(Scene { name: "lost answer and cancel", budget: canceled, ..PLAIN }, &[SUCCEEDS, CONFIRMED]);
    let crashed = Budget { unknowns: 1, crashes: 1, ..NOTHING };
    check(Scene { name: "lost answer and crash", budget: crashed, ..PLAIN }, &[SUCCEEDS]);
    let cut = Budget { unknowns: 1, cuts: 1, ..NOTHING };
    check(Scene { name: "lost answer and cut", budget: cut, ..PLAIN }, &[SUCCEEDS, SECOND]);
}

#[test]
fn a_coordinator_that_is_taken_for_dead_breaks_nothing() {
    let canceled = Budget { lapses: 1, cancels: 1, ..NOTHING };
    let speaks = Scene { name: "zombie that speaks, and cancel", zombies_speak: true, budget: canceled, ..PLAIN };
    check(speaks, &[SUCCEEDS, CONFIRMED]);
    if depth() == 0 {
        return;
    }
    let cut = Budget { lapses: 1, cuts: 1, ..NOTHING };
    check(Scene { name: "zombie and cut", budget: cut, ..PLAIN }, &[SUCCEEDS, SECOND]);
}

#[test]
fn a_worker_that_dies_or_is_cut_off_breaks_nothing() {
    let budget = Budget { worker_crashes: 1, cuts: 1, cancels: 1, ..NOTHING };
    check(Scene { name: "worker's crash, cut and cancel", budget, ..PLAIN }, &[SUCCEEDS, SECOND, UNCONFIRMED]);
    let bus = Budget { mishaps: 1, cuts: 1, ..NOTHING };
    check(Scene { name: "cut and bus", budget: bus, ..PLAIN }, &[SUCCEEDS, SECOND]);
}

#[test]
fn limits_and_failures_break_nothing() {
    let budget = Budget { timers: 1, failures: 1, cancels: 2, ..NOTHING };
    check(Scene { name: "limits", budget, ..PLAIN }, &[SUCCEEDS, SECOND, FAILS, CONFIRMED, UNCONFIRMED]);
}

#[test]
fn a_key_that_comes_late_breaks_nothing() {
    let canceled = Budget { returns: 1, timers: 1, cancels: 1, ..NOTHING };
    check(Scene { name: "key", keyed: true, budget: canceled, ..PLAIN }, &[SUCCEEDS, SECOND, FAILS, CONFIRMED]);
    let twice = Budget { returns: 2, ..NOTHING };
    check(Scene { name: "key twice", keyed: true, budget: twice, ..PLAIN }, &[SUCCEEDS, SECOND]);
    let crashed = Budget { returns: 1, crashes: 1, ..NOTHING };
    check(Scene { name: "key and crash", keyed: true, budget: crashed, ..PLAIN }, &[SUCCEEDS, SECOND]);
    let dead = Budget { returns: 1, worker_crashes: 1, ..NOTHING };
    check(Scene { name: "key and worker's crash", keyed: true, budget: dead, ..PLAIN }, &[SUCCEEDS, SECOND]);
}

#[test]
fn a_worker_that_is_started_again_heeds_no_owner_from_before_its_attempt() {
    let budget = Budget { lapses: 1, worker_crashes: 1, ..NOTHING };
    // One worker is enough to be started again, and to have the next attempt.
    let workers = if depth() == 0 { 1 } else { WORKERS };
    let scene = Scene { name: "zombie and worker's crash", zombies_speak: true, workers, budget, ..PLAIN };
    check(scene, &[SUCCEEDS, SECOND]);
}
