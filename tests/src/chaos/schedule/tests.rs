//! What is true of every schedule, over many seeds.

use std::collections::BTreeSet;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use super::workers::{CUT_MS, HEIRS_MAX, WINDOW as LONG_WINDOW, is_theirs};
use super::{LASTS_MAX, LASTS_MIN, Planned, REST, Size, coordinator, deck, schedule};
use crate::chaos::history::{Kind, Target};

const SIZE: Size = Size { coordinators: 3, workers: 3 };
const RUN: Duration = Duration::from_secs(40);
const WHOLE_RUN: Duration = Duration::from_mins(1);
const SEEDS: u64 = 200;
const KINDS: [Kind; 12] = [
    Kind::Kill,
    Kind::Terminate,
    Kind::Freeze,
    Kind::Cut,
    Kind::Snap,
    Kind::Stall,
    Kind::Deafen,
    Kind::Delay,
    Kind::FullDisk,
    Kind::ClockAhead,
    Kind::ClockBehind,
    Kind::WipeOffers,
];

fn schedules() -> impl Iterator<Item = Vec<Planned>> {
    (0..SEEDS).map(|seed| schedule(seed, RUN, SIZE))
}

/// Runs that have as long windows for workers alone as for everybody.
fn whole_schedules() -> impl Iterator<Item = Vec<Planned>> {
    (0..SEEDS).map(|seed| schedule(seed, WHOLE_RUN, SIZE))
}

fn end(planned: &Planned) -> Duration {
    planned.at + planned.lasts
}

/// How many of the coordinators are troubled at that time.
fn troubled(planned: &[Planned], at: Duration) -> usize {
    let under_way = planned.iter().filter(|planned| planned.at <= at && at < end(planned));
    under_way.filter_map(|planned| coordinator(planned.target)).collect::<BTreeSet<_>>().len()
}

/// Every tenth of a second of a whole run.
fn moments() -> impl Iterator<Item = Duration> {
    (0..WHOLE_RUN.as_millis()).step_by(100).map(|ms| Duration::from_millis(u64::try_from(ms).expect("a moment")))
}

#[test]
fn one_seed_has_one_schedule_and_another_has_another() {
    let planned = schedule(7, RUN, SIZE);
    assert_eq!(planned, schedule(7, RUN, SIZE));
    assert_ne!(planned, schedule(8, RUN, SIZE));
    // A longer run isn't the shorter one with more behind it, but it is as certain.
    let minute = Duration::from_mins(1);
    assert_eq!(schedule(7, minute, SIZE), schedule(7, minute, SIZE));
}

#[test]
fn every_kind_befalls_everyone_whom_it_can() {
    let found: BTreeSet<String> =
        schedules().flatten().map(|planned| class(planned.kind, discriminant(&planned.target))).collect();
    let of = |kind: Kind| deck::classes(kind).iter().map(move |(target, _)| class(kind, discriminant(target)));
    let all: BTreeSet<String> = KINDS.into_iter().flat_map(of).collect();
    assert_eq!(found, all);
    let indices = schedules().flatten().filter_map(|planned| coordinator(planned.target)).collect::<BTreeSet<_>>();
    assert_eq!(indices, BTreeSet::from([0, 1, 2]));
}

fn class(kind: Kind, target: Discriminant<Target>) -> String {
    format!("{kind:?} {target:?}")
}

#[test]
fn no_target_has_two_troubles_at_once_and_all_end_with_the_run() {
    for planned in schedules() {
        assert!(planned.is_sorted_by_key(|planned| planned.at));
        for (index, one) in planned.iter().enumerate() {
            assert!(end(one) <= RUN && (LASTS_MIN..=LASTS_MAX).contains(&one.lasts), "{one:?}");
            let others = planned[index + 1..].iter().filter(|other| other.target == one.target);
            for other in others {
                assert!(end(one) + REST <= other.at, "{one:?} and {other:?}");
            }
        }
    }
}

#[test]
fn clocks_jump_by_two_to_forty_seconds_and_delays_are_below_two() {
    for planned in schedules().flatten() {
        let bounds = match planned.kind {
            Kind::ClockAhead | Kind::ClockBehind => 2_000..=40_000,
            Kind::Delay => 20..=2_000,
            _ => 0..=0,
        };
        assert!(bounds.contains(&planned.by.as_millis()), "{planned:?}");
    }
}

#[test]
fn troubles_come_one_after_the_other_and_most_kinds_within_forty_seconds() {
    let mut kinds_in_all = 0;
    let mut count = 0;
    for planned in schedules() {
        let kinds = planned.iter().map(|planned| planned.kind).collect::<BTreeSet<_>>().len();
        assert!(kinds >= 8, "{kinds} kinds: {planned:?}");
        kinds_in_all += kinds;
        count += planned.len();
    }
    let seeds = usize::try_from(SEEDS).expect("a number");
    assert!(kinds_in_all >= seeds * 10, "{kinds_in_all} kinds in {seeds} runs");
    let each_ms = RUN.as_millis() * u128::from(SEEDS) / u128::try_from(count).expect("a number");
    assert!((1_000..=3_000).contains(&each_ms), "one every {each_ms} ms");
}

#[test]
fn some_beat_a_lease_and_some_do_not() {
    let of = |is_worker: bool| {
        whole_schedules().flatten().filter(move |planned| matches!(planned.target, Target::Worker(_)) == is_worker)
    };
    let share = |is_worker: bool, lease: Duration| {
        let all = of(is_worker).filter(|planned| matches!(planned.kind, Kind::Kill | Kind::Freeze));
        let (longer, shorter): (Vec<_>, Vec<_>) = all.partition(|planned| planned.lasts > lease);
        longer.len() * 100 / (longer.len() + shorter.len())
    };
    let coordinators = share(false, Duration::from_secs(3));
    assert!((25..=75).contains(&coordinators), "{coordinators} %");
    let workers = share(true, Duration::from_secs(15));
    assert!((10..=60).contains(&workers), "{workers} %");
}

#[test]
fn what_all_need_is_away_more_rarely_than_what_one_has() {
    let (all, one): (Vec<_>, Vec<_>) = schedules()
        .flatten()
        .filter(|planned| planned.kind != Kind::WipeOffers)
        .partition(|planned| matches!(planned.target, Target::Postgres | Target::Nats));
    assert!(all.len() * 6 < one.len(), "{} and {}", all.len(), one.len());
}

#[test]
fn somebody_is_spared_for_a_part_of_each_run_and_not_always() {
    let mut without_anybody = 0;
    for planned in whole_schedules() {
        let most = moments().map(|at| troubled(&planned, at)).max().expect("a moment");
        without_anybody += usize::from(most == SIZE.coordinators);
        let spared = moments().filter(|at| troubled(&planned, *at) < SIZE.coordinators).count();
        assert!(spared * 2 >= moments().count(), "nobody was spared for most of a run: {planned:?}");
        // For a whole window the same one.
        let left_alone = |index: usize, from: Duration| {
            let hits = |planned: &&Planned| {
                coordinator(planned.target) == Some(index) && planned.at < from + super::WINDOW && from < end(planned)
            };
            planned.iter().find(hits).is_none()
        };
        let windows: Vec<Duration> = (0..6).map(|window| super::WINDOW * window).collect();
        let quiet = windows.iter().filter(|from| (0..SIZE.coordinators).any(|index| left_alone(index, **from)));
        assert!(quiet.count() >= 3, "{planned:?}");
    }
    // Only half of the time may anything happen to them.
    assert!(without_anybody * 6 >= usize::try_from(SEEDS).expect("a number"), "{without_anybody} of {SEEDS}");
}

#[test]
fn every_second_long_window_is_the_workers_alone_and_cuts_one_of_them_off() {
    let minutes = Duration::from_mins(2);
    let length = |ms: u64| Duration::from_millis(ms);
    for seed in 0..SEEDS {
        let planned = schedule(seed, minutes, SIZE);
        let others = |from: Duration| {
            planned.iter().filter(move |planned| planned.at < from + LONG_WINDOW && from < end(planned) + REST)
        };
        for window in 0..4_u32 {
            let from = LONG_WINDOW * window;
            if u64::from(window % 2) != seed % 2 {
                assert!(!others(from).all(|planned| is_theirs(planned.target)), "seed {seed}, window {window}");
                continue;
            }
            let is_long = |planned: &&Planned| {
                let begins = (from + length(4_000)..=from + length(6_000)).contains(&planned.at);
                let lasts = (length(CUT_MS.0)..=length(CUT_MS.1)).contains(&planned.lasts);
                begins && lasts && matches!(planned.kind, Kind::Cut | Kind::Stall)
            };
            let long: Vec<_> = others(from).filter(is_long).collect();
            let victims = long.iter().filter_map(|cut| match cut.target {
                Target::WorkersWay(index) => Some((*cut, index)),
                _ => None,
            });
            let alone = victims.filter(|(cut, index)| {
                let theirs = [Target::Worker(*index), Target::WorkersWay(*index)];
                others(from).filter(|other| theirs.contains(&other.target)).all(|other| other == *cut)
            });
            let alone: Vec<usize> = alone.map(|(_, index)| index).collect();
            assert_eq!(alone.len(), 1, "seed {seed}, window {window}: {long:?}");
            let foreign: Vec<_> = others(from).filter(|planned| !is_theirs(planned.target)).collect();
            assert!(foreign.is_empty(), "seed {seed}, window {window}: {foreign:?}");
            let first = others(from).filter(|other| other.at >= from).min_by_key(|other| other.at);
            assert!(first.is_some_and(|first| long.contains(&first)), "seed {seed}, window {window}: {first:?}");
            // Somebody is there most of the time.
            let heir = (alone[0] + 1) % SIZE.workers;
            let heirs = [Target::Worker(heir), Target::WorkersWay(heir)];
            for trouble in others(from).filter(|other| heirs.contains(&other.target) && other.at >= from) {
                assert!(trouble.lasts <= HEIRS_MAX, "{trouble:?}");
            }
        }
    }
}

#[test]
fn a_small_cluster_and_a_short_run_have_schedules_too() {
    let size = Size { coordinators: 1, workers: 1 };
    for seed in 0..SEEDS {
        for planned in schedule(seed, Duration::from_secs(5), size) {
            assert!(end(&planned) <= Duration::from_secs(5));
        }
    }
}
