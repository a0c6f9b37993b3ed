//! A small arena, with one trouble of each kind.

use std::thread;
use std::time::Duration;

use shared::clock;

use super::{Arena, own_mounts};
use crate::chaos::history::{Kind, Target};
use crate::chaos::schedule::{Planned, Size};

#[test]
fn a_cluster_is_calm_again_after_a_trouble_of_each_kind() {
    // Mounts that are ours are those of this thread and of what it starts.
    thread::spawn(|| {
        own_mounts();
        each_kind();
    })
    .join()
    .expect("a calm cluster");
}

fn planned(at_ms: u64, lasts_ms: u64, kind: Kind, target: Target, by_s: u64) -> Planned {
    let [at, lasts] = [at_ms, lasts_ms].map(Duration::from_millis);
    Planned { at, lasts, kind, target, by: Duration::from_secs(by_s) }
}

fn each_kind() {
    let begun = clock::instant();
    let mut arena = Arena::start(Size { coordinators: 2, workers: 1 });
    println!("started after {:?}", begun.elapsed());
    let schedule = [
        planned(0, 700, Kind::Cut, Target::WayToCoordinator(0), 0),
        planned(0, 100, Kind::Snap, Target::WayToPostgres(1), 0),
        planned(0, 700, Kind::Stall, Target::WayToNats(0), 0),
        planned(100, 500, Kind::Deafen, Target::WayToPostgres(0), 0),
        planned(100, 700, Kind::Delay, Target::WorkersWay(0), 1),
        planned(200, 500, Kind::WipeOffers, Target::Nats, 0),
        planned(300, 700, Kind::Kill, Target::Coordinator(1), 0),
        planned(300, 500, Kind::Freeze, Target::Worker(0), 0),
        planned(1000, 500, Kind::Terminate, Target::Postgres, 0),
        planned(1000, 500, Kind::Kill, Target::Nats, 0),
        planned(2500, 500, Kind::Terminate, Target::Worker(0), 0),
        planned(3000, 500, Kind::Freeze, Target::Nats, 0),
        planned(3500, 700, Kind::Terminate, Target::Coordinator(0), 0),
        planned(3600, 700, Kind::Kill, Target::Postgres, 0),
        planned(4500, 700, Kind::Terminate, Target::Nats, 0),
        planned(5500, 500, Kind::Kill, Target::Worker(0), 0),
        planned(7500, 500, Kind::FullDisk, Target::Worker(0), 0),
        planned(8500, 500, Kind::ClockAhead, Target::Coordinator(0), 40),
        planned(8500, 500, Kind::ClockBehind, Target::Worker(0), 40),
        planned(8500, 500, Kind::ClockAhead, Target::Postgres, 2),
    ];
    let troubles = arena.trouble(&schedule);
    println!("troubled after {:?}", begun.elapsed());
    assert_eq!(troubles.len(), schedule.len());
    let calm = arena.until_calm();
    calm.unwrap();
    println!("calm after {:?}", begun.elapsed());
    assert_eq!(arena.deaths(), Vec::<String>::new());
}
