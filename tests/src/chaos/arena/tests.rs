//! A small arena: each kind of trouble does what it says and is over when it is ended, and the cluster is calm again after
//! all of them; and what a process does by itself is told.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use shared::clock;
use shared::time::Time;

use super::troubles::{begin, end, is_over};
use super::{Arena, Client, Disk, Part, Proxy, own_mounts, panics};
use crate::chaos::history::{Kind, Target};
use crate::chaos::schedule::{Planned, Size};
use crate::cluster::database::blocking;
use crate::process;
use crate::wait::eventually;

/// How long what is to happen may take at most.
const SOON: Duration = Duration::from_secs(30);
/// How long a server is listened to that may say nothing.
const SILENCE: Duration = Duration::from_millis(400);

/// Carries `story` out with a small arena, on a thread whose mounts are its own.
fn with_arena(story: impl FnOnce(&mut Arena) + Send + 'static) {
    let telling = thread::spawn(|| {
        own_mounts();
        story(&mut Arena::start(Size { coordinators: 2, workers: 1 }));
    });
    telling.join().unwrap_or_else(|panic| resume_unwind(panic));
}

fn planned(at_ms: u64, lasts_ms: u64, kind: Kind, target: Target) -> Planned {
    let by = match kind {
        Kind::Delay => Duration::from_millis(200),
        Kind::ClockAhead | Kind::ClockBehind => Duration::from_secs(40),
        _ => Duration::ZERO,
    };
    Planned { at: Duration::from_millis(at_ms), lasts: Duration::from_millis(lasts_ms), kind, target, by }
}

/// Looks at the arena until it is as `probe` says.
fn until(arena: &mut Arena, what: &str, probe: impl Fn(&Arena) -> bool) {
    eventually(SOON, what, || {
        arena.look();
        probe(arena).then_some(())
    });
}

/// Begins that trouble, waits until `shows` says that it is there, ends it, and waits until it is over and not to be seen any more.
fn shown(arena: &mut Arena, kind: Kind, target: Target, shows: impl Fn(&Arena) -> bool) {
    let planned = planned(0, 0, kind, target);
    assert!(!shows(arena), "{kind:?} of {target:?} is seen before it begins");
    begin(arena, &planned);
    until(arena, &format!("{kind:?} of {target:?} is seen"), &shows);
    end(arena, &planned);
    until(arena, &format!("{kind:?} of {target:?} is over"), |arena| is_over(arena, &planned) && !shows(arena));
}

/// What a server of NATS says to whoever comes, and when.
fn greeting(address: &str) -> Result<Duration, ErrorKind> {
    let begun = clock::instant();
    let stream = TcpStream::connect(address).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(SILENCE)).expect("a deadline");
    let mut line = String::new();
    match BufReader::new(stream).read_line(&mut line) {
        Ok(0) => Err(ErrorKind::UnexpectedEof),
        Ok(_) => Ok(begun.elapsed()),
        Err(error) => Err(error.kind()),
    }
}

fn is_silent(way: &Proxy) -> bool {
    greeting(&way.address()) == Err(ErrorKind::WouldBlock)
}

fn stands_still(pid: Option<i32>) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.expect("it runs"))).expect("its status");
    status.contains("State:\tT")
}

fn serves(client: &Client) -> bool {
    client.try_send("GET", "/healthz", &[], b"").is_ok_and(|answer| answer.status == 200)
}

/// How many seconds the clock of a process is ahead, by the last line of its log; it is made to write one.
fn ahead(part: &Part, way: &Proxy) -> i64 {
    way.snap();
    let log = part.log();
    let time = |line: &str| line.split_whitespace().next()?.parse::<Time>().ok();
    let last = log.lines().rev().find_map(time).expect("a line with a time");
    (last.micros() - clock::now().micros()) / 1_000_000
}

/// When the stream of offers was made; nothing while there is none.
fn offers_made(arena: &Arena) -> Option<String> {
    let url = arena.nats_url().to_owned();
    blocking(async move {
        let client = async_nats::connect(url).await.ok()?;
        let stream = async_nats::jetstream::new(client).get_stream("WINDLASS_OFFERS").await.ok()?;
        Some(stream.cached_info().created.to_string())
    })
}

#[test]
fn processes_are_killed_ended_and_frozen_and_come_back() {
    with_arena(|arena| {
        let coordinator = Target::Coordinator(0);
        let clients = arena.clients();
        let away = |_: &Arena| !serves(&clients[0]);
        let first = arena.coordinator_pids()[0];
        shown(arena, Kind::Kill, coordinator, away);
        let second = arena.coordinator_pids()[0];
        shown(arena, Kind::Terminate, coordinator, away);
        assert!(first != second && second != arena.coordinator_pids()[0]);
        shown(arena, Kind::Freeze, coordinator, |arena| stands_still(arena.coordinator_pids()[0]));

        let worker = Target::Worker(0);
        let first = arena.worker_pids()[0];
        shown(arena, Kind::Terminate, worker, |arena| arena.worker_pids()[0].is_none());
        let second = arena.worker_pids()[0];
        shown(arena, Kind::Kill, worker, |arena| arena.worker_pids()[0].is_none());
        assert!(first != second && second != arena.worker_pids()[0]);
        shown(arena, Kind::Freeze, worker, |arena| stands_still(arena.worker_pids()[0]));

        let unreachable = |arena: &Arena| arena.database().try_rows("SELECT 1").is_err();
        shown(arena, Kind::Kill, Target::Postgres, unreachable);
        shown(arena, Kind::Terminate, Target::Postgres, unreachable);
        let refused = |arena: &Arena| greeting(arena.servers.nats_address()) == Err(ErrorKind::ConnectionRefused);
        shown(arena, Kind::Kill, Target::Nats, refused);
        shown(arena, Kind::Terminate, Target::Nats, refused);
        let silent = |arena: &Arena| greeting(arena.servers.nats_address()) == Err(ErrorKind::WouldBlock);
        shown(arena, Kind::Freeze, Target::Nats, silent);

        arena.until_calm().expect("a cluster that nothing befalls any more");
        assert_eq!(arena.deaths(), Vec::<String>::new());
        assert_eq!(arena.worker_ids()[0].len(), 1, "it has enrolled anew");
    });
}

#[test]
fn ways_are_cut_stalled_deafened_and_delayed_each_by_itself() {
    with_arena(|arena| {
        let nats = Target::WayToNats(0);
        let to_nats = |arena: &Arena| greeting(&arena.coordinators[0].to_nats.address());
        shown(arena, Kind::Cut, nats, |arena| to_nats(arena).is_err_and(|kind| kind != ErrorKind::WouldBlock));
        shown(arena, Kind::Stall, nats, |arena| is_silent(&arena.coordinators[0].to_nats));
        shown(arena, Kind::Deafen, nats, |arena| is_silent(&arena.coordinators[0].to_nats));
        shown(arena, Kind::Delay, nats, |arena| to_nats(arena).is_ok_and(|after| after > Duration::from_millis(190)));
        shown(arena, Kind::Stall, Target::WorkersWay(0), |arena| {
            assert!(!is_silent(&arena.coordinators[0].to_nats), "another's way is stalled");
            is_silent(&arena.workers[0].to_nats)
        });
        let clients = arena.clients();
        shown(arena, Kind::Cut, Target::WayToCoordinator(1), |_| !serves(&clients[1]) && serves(&clients[0]));
        // A coordinator without its database is there, but not ready.
        let not_ready = |_: &Arena| clients[0].get("/readyz").status != 200 && clients[1].get("/readyz").status == 200;
        shown(arena, Kind::Cut, Target::WayToPostgres(0), not_ready);
        let connections = || arena.workers[0].to_nats.connections();
        let before = connections();
        begin(arena, &planned(0, 0, Kind::Snap, Target::WorkersWay(0)));
        let other = |arena: &Arena| arena.workers[0].to_nats.connections();
        until(arena, "the worker has another connection", |arena| !other(arena).is_empty() && other(arena) != before);

        arena.until_calm().expect("a cluster that nothing befalls any more");
        assert_eq!(arena.deaths(), Vec::<String>::new());
    });
}

#[test]
fn disks_are_filled_clocks_jump_and_offers_are_wiped() {
    with_arena(|arena| {
        let is_full = |arena: &Arena| {
            let path = arena.data_dirs()[0].join("a-file");
            let written = fs::write(&path, [0; 10_000]);
            fs::remove_file(path).expect("a file less");
            written.is_err_and(|error| error.kind() == ErrorKind::StorageFull)
        };
        match Disk::allowed() {
            Ok(()) => shown(arena, Kind::FullDisk, Target::Worker(0), is_full),
            // Past the test's own output, which nobody sees.
            Err(why) => writeln!(std::io::stderr(), "SKIPPED: a worker's full disk: {why}").expect("a line"),
        }
        assert!(arena.allows(Kind::ClockAhead), "{:?}", arena.not_allowed());

        let coordinators = |arena: &Arena, index: usize| {
            let coordinator = &arena.coordinators[index];
            ahead(&coordinator.part, &coordinator.to_nats)
        };
        shown(arena, Kind::ClockAhead, Target::Coordinator(0), |arena| coordinators(arena, 0) > 30);
        shown(arena, Kind::ClockBehind, Target::Coordinator(0), |arena| {
            assert!(coordinators(arena, 1) > -30, "another's clock has jumped");
            coordinators(arena, 0) < -30
        });
        let jumped = "SELECT 1 WHERE abs(extract(epoch FROM clock_timestamp()) - $) > 30";
        shown(arena, Kind::ClockAhead, Target::Postgres, |arena| {
            let now = clock::now().micros() / 1_000_000;
            !arena.database().rows(&jumped.replace('$', &now.to_string())).is_empty()
        });
        // A worker's clock jumps, its steps' doesn't.
        let (client, note) = (&arena.clients()[0], arena.notes().join("seconds"));
        shown(arena, Kind::ClockBehind, Target::Worker(0), |arena| {
            let step = format!("date +%s > {}", note.display());
            let job = client.post("/api/v1/jobs", &json!({"steps": [{"run": step}]}));
            let path = format!("/api/v1/jobs/{}", job.json["id"].as_str().expect("an id"));
            eventually(SOON, "a job has succeeded", || (client.get(&path).json["state"] == "succeeded").then_some(()));
            let noted: i64 = fs::read_to_string(&note).expect("a note").trim().parse().expect("a number");
            let late = clock::now().micros() / 1_000_000 - noted;
            assert!((-1..30).contains(&late), "a step's clock has jumped by {late} s");
            ahead(&arena.workers[0].part, &arena.workers[0].to_nats) < -30
        });

        let made = offers_made(arena);
        begin(arena, &planned(0, 0, Kind::WipeOffers, Target::Nats));
        let again =
            |arena: &Arena| arena.servers.nats_is_done() && offers_made(arena).is_some_and(|now| Some(now) != made);
        until(arena, "the stream of offers is another", again);

        arena.until_calm().expect("a cluster that nothing befalls any more");
        assert_eq!(arena.deaths(), Vec::<String>::new());
    });
}

#[test]
fn a_schedule_is_carried_out_with_what_overlaps_and_all_is_calm_afterwards() {
    with_arena(|arena| {
        let schedule = [
            planned(0, 900, Kind::Stall, Target::WayToNats(0)),
            planned(100, 500, Kind::Deafen, Target::WayToPostgres(0)),
            planned(200, 700, Kind::Delay, Target::WorkersWay(0)),
            planned(300, 700, Kind::Kill, Target::Coordinator(1)),
            planned(300, 500, Kind::Freeze, Target::Worker(0)),
            planned(1000, 500, Kind::Terminate, Target::Postgres),
            planned(1000, 500, Kind::Kill, Target::Nats),
            planned(1600, 400, Kind::Terminate, Target::Coordinator(0)),
            planned(1600, 400, Kind::Kill, Target::Worker(0)),
            // What has only just been started again.
            planned(2010, 400, Kind::Kill, Target::Worker(0)),
        ];
        let begun = clock::instant();
        let troubles = arena.trouble(&schedule);
        assert!(arena.is_up(), "something isn't up again");
        assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
        let told: Vec<_> = troubles.iter().map(|trouble| (trouble.kind, trouble.target)).collect();
        let asked: Vec<_> = schedule.iter().map(|planned| (planned.kind, planned.target)).collect();
        assert_eq!(told, asked);
        for (trouble, planned) in troubles.iter().zip(&schedule) {
            let lasted = trouble.to - trouble.from;
            assert!(lasted + Duration::from_millis(50) >= planned.lasts, "{trouble:?} was to last {:?}", planned.lasts);
        }
        arena.until_calm().expect("a cluster that nothing befalls any more");
        assert_eq!(arena.deaths(), Vec::<String>::new());
    });
}

#[test]
fn what_a_process_does_by_itself_is_told_and_it_is_started_again() {
    with_arena(|arena| {
        let pid = arena.coordinator_pids()[1].expect("it runs");
        process::send(pid, Signal::SIGKILL);
        until(arena, "another process serves", |arena| {
            arena.coordinator_pids()[1].is_some_and(|other| other != pid) && arena.is_up()
        });
        let deaths = arena.deaths();
        assert_eq!(deaths.len(), 1, "{deaths:?}");
        assert!(deaths[0].starts_with("coordinator-1 ended by itself (signal: 9"), "{deaths:?}");
        assert!(deaths[0].contains("listening on"), "its log is missing: {deaths:?}");

        let logs = tempfile::tempdir().expect("a directory");
        arena.logs_to(logs.path());
        let log = fs::read_to_string(logs.path().join("coordinator-1.log")).expect("its log");
        assert_eq!(log.matches("listening on").count(), 2, "the log of its first start is missing:\n{log}");
        assert!(logs.path().join("worker-0.log").exists() && logs.path().join("postgres.log").exists());
    });
}

#[test]
fn whoever_does_not_end_when_told_to_is_killed_and_told_of() {
    const PATIENCE: [Duration; 2] = [Duration::from_secs(7), Duration::from_millis(100)];
    with_arena(|arena| {
        let [coordinator, worker] = [Target::Coordinator(0), Target::Worker(0)];
        // One that stands still does nothing that it is told.
        for (target, pids) in [(coordinator, arena.coordinator_pids()), (worker, arena.worker_pids())] {
            process::send(pids[0].expect("it runs"), Signal::SIGSTOP);
            begin(arena, &planned(0, 0, Kind::Terminate, target));
            end(arena, &planned(0, 0, Kind::Terminate, target));
            // Told once more, it isn't told anew.
            begin(arena, &planned(0, 0, Kind::Terminate, target));
            end(arena, &planned(0, 0, Kind::Terminate, target));
        }
        arena.coordinators[0].part.recipe.patience = &PATIENCE;
        arena.workers[0].part.recipe.patience = &PATIENCE;
        until(arena, "others serve in their place", Arena::is_up);
        let deaths = arena.deaths();
        let told = |words: &str| deaths.iter().filter(|death| death.contains(words)).count();
        assert_eq!((told("was told 2 times to end and hadn't"), told("had nothing left to do")), (2, 1), "{deaths:?}");
        assert_eq!(deaths.len(), 3, "{deaths:?}");
    });
}

#[test]
fn a_line_that_tells_of_a_panic_is_told_with_its_reason() {
    let log = "all is well\nthread 'main' panicked at a.rs:1:1:\nit had to be\nand so on\n";
    assert_eq!(panics("x", log), ["x panicked: thread 'main' panicked at a.rs:1:1: it had to be"]);
    assert_eq!(panics("x", "all is well\nand so on"), Vec::<String>::new());
}
