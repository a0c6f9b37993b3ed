//! Postgres or NATS gone for a while: nothing that was accepted is lost, no lease is, and nobody has to lend a hand.

use std::thread;
use std::time::Duration;

use serde_json::json;
use tests::cluster::{Cluster, LOAD_WITHIN};
use tests::proxy::Proxy;
use tests::server::Server;
use tests::wait::{eventually, pass};

use crate::load::{Load, noting};

/// How long a server is away: longer than any lease.
const OUTAGE: Duration = Duration::from_secs(20);

/// Waits until so many jobs run at once.
fn until_running(cluster: &Cluster, count: u32) {
    eventually(LOAD_WITHIN, &format!("{count} jobs run"), || {
        let running = cluster.postgres.rows("SELECT count(*)::text FROM jobs WHERE state = 'running'");
        (running[0][0].parse::<u32>().expect("a number") >= count).then_some(())
    });
}

#[test]
fn postgres_is_gone_for_twenty_seconds_under_load_and_nothing_is_lost() {
    let mut cluster = Cluster::start(2, 2);
    // Longer than the outage: their outcomes wait in the spool, their leases are not lost.
    let long = Load::begin(&cluster, 4, "sleep 15");
    until_running(&cluster, 4);
    let load = Load::begin(&cluster, 200, "true");
    eventually(LOAD_WITHIN, "the load is under way", || (load.accepted().len() >= 50).then_some(()));
    cluster.postgres.stop();
    let refused = eventually(LOAD_WITHIN, "a submission is refused", || {
        let answer = cluster.coordinators[0].client.post("/api/v1/jobs", &json!({"steps": [{"run": "true"}]}));
        (answer.status == 503).then_some(answer)
    });
    assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
    for path in ["/api/v1/jobs", "/readyz"] {
        let answer = cluster.coordinators[1].client.get(path);
        assert_eq!((answer.status, answer.header("retry-after").is_empty()), (503, false), "{path}: {}", answer.text);
    }
    pass(OUTAGE, "an outage");
    cluster.postgres.start_again();
    let (long, load) = (long.submitted(), load.submitted());
    let states = cluster.judged(&long.ids, LOAD_WITHIN);
    assert_eq!(states.get("succeeded"), Some(&4));
    for id in &long.ids {
        assert_eq!(cluster.job(id)["attempt"], 1, "its lease was lost: {:?}", cluster.kinds(id));
    }
    let states = cluster.judged(&load.ids, LOAD_WITHIN);
    assert_eq!(states.get("succeeded"), Some(&200));
    load.check_notes();
    cluster.until_spread();
    cluster.until_published();
}

#[test]
fn a_coordinator_whose_start_the_database_does_not_answer_tries_again_until_it_does() {
    let cluster = Cluster::bare();
    let mut migrating = cluster.coordinator_command();
    migrating.arg("--listen=127.0.0.1:0");
    let mut first = Server::start("a first coordinator", migrating);
    first.said("listening on");
    first.stop();
    thread::scope(|scope| {
        let held = "BEGIN; LOCK TABLE coordinators; SELECT pg_sleep(6)::text; COMMIT";
        scope.spawn(|| cluster.postgres.rows(held));
        let locked = "SELECT 'held' FROM pg_locks l JOIN pg_class c ON c.oid = l.relation \
             WHERE c.relname = 'coordinators' AND l.mode = 'AccessExclusiveLock' AND l.granted";
        eventually(LOAD_WITHIN, "the table is locked", || (!cluster.postgres.rows(locked).is_empty()).then_some(()));
        let mut server = Server::start("a coordinator", cluster.coordinator_command());
        server.said("trying again in a second");
        server.said("listening on");
        assert!(server.stop().success());
    });
}

#[test]
fn nats_is_gone_for_twenty_seconds_under_load_and_nothing_is_lost() {
    let mut cluster = Cluster::start(2, 2);
    let long = Load::begin(&cluster, 4, "sleep 15");
    until_running(&cluster, 4);
    cluster.nats.stop();
    // Submissions and cancels are accepted all the same; the offers go out later.
    let load = Load::begin(&cluster, 50, "true").submitted();
    let unwanted = cluster.submit(&json!({"steps": [{"run": "true"}]}));
    let other = &cluster.coordinators[cluster.other(&unwanted)].client;
    let canceled = other.post(&format!("/api/v1/jobs/{unwanted}/cancel"), &json!({}));
    assert_eq!(canceled.status, 202, "{}", canceled.text);
    assert_eq!(cluster.job(&unwanted)["state"], "canceled");
    pass(OUTAGE, "an outage");
    cluster.nats.start_again();
    let long = long.submitted();
    assert_eq!(cluster.judged(&long.ids, LOAD_WITHIN).get("succeeded"), Some(&4));
    for id in &long.ids {
        assert_eq!(cluster.job(id)["attempt"], 1, "its lease was lost: {:?}", cluster.kinds(id));
    }
    assert_eq!(cluster.judged(&load.ids, LOAD_WITHIN).get("succeeded"), Some(&50));
    load.check_notes();
    cluster.until_published();
}

#[test]
fn every_stream_is_deleted_while_jobs_wait_and_run_and_all_end_once() {
    let mut cluster = Cluster::start(2, 0);
    let load = Load::begin(&cluster, 220, "sleep 0.3");
    eventually(LOAD_WITHIN, "two hundred wait", || (load.accepted().len() >= 200).then_some(()));
    cluster.add_worker_with(&["--slots", "20"], &[]);
    until_running(&cluster, 15);
    cluster.delete_streams();
    let load = load.submitted();
    let states = cluster.judged(&load.ids, LOAD_WITHIN);
    assert_eq!(states.get("succeeded"), Some(&220));
    load.check_notes();
    cluster.until_published();
}

#[test]
fn a_worker_that_is_cut_off_alone_ends_its_attempt_before_another_begins_it() {
    let mut cluster = Cluster::start(2, 0);
    let address = cluster.nats.url().trim_start_matches("nats://").to_owned();
    let proxy = Proxy::to(&address);
    let cut_off = format!("nats://{}", proxy.address());
    cluster.add_worker(&[("WINDLASS_NATS_URL", &cut_off)]);
    let (key, mut job) = noting(&cluster.notes(), "sleep 25");
    job["on_lost_contact"] = json!("stop");
    let id = cluster.submit(&job);
    let notes = cluster.notes().join(format!("{key}.notes"));
    eventually(LOAD_WITHIN, "its first attempt begins", || notes.exists().then_some(()));
    cluster.add_worker(&[]);
    proxy.cut();
    let again = eventually(LOAD_WITHIN, "another attempt begins", || {
        Some(cluster.job(&id)).filter(|job| job["attempt"] == 2 && job["state"] == "running")
    });
    println!("the second attempt: {again}");
    // The first one's shell held a lock: had it still been there, the second would have noted an overlap.
    proxy.mend();
    let ended = cluster.ended(&id, LOAD_WITHIN);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let notes = std::fs::read_to_string(notes).expect("notes");
    assert_eq!(notes, "begin 1\nbegin 2\nend 2\n");
}

#[test]
fn what_a_job_wrote_without_contact_is_in_its_log_though_it_was_ended_and_run_again() {
    let mut cluster = Cluster::start(1, 1);
    let work = "[ $WINDLASS_ATTEMPT = 2 ] || for i in $(seq 1 200); do echo line $i.; sleep 0.25; done";
    let id = cluster.submit(&json!({"steps": [{"run": work}], "on_lost_contact": "stop"}));
    eventually(LOAD_WITHIN, "it writes", || cluster.text(&id).contains("line 2.").then_some(()));
    cluster.nats.stop();
    pass(OUTAGE, "an outage");
    cluster.nats.start_again();
    let ended = cluster.ended(&id, LOAD_WITHIN);
    assert_eq!((ended["state"].as_str(), ended["attempt"].as_u64()), (Some("succeeded"), Some(2)), "{ended}");
    // The worker ended it 13 s after the last heartbeat that was answered, which was at most 5 s old.
    assert!(cluster.text(&id).contains("line 20."), "{}", cluster.text(&id));
}
