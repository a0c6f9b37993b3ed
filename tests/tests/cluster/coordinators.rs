//! Coordinators that die, stop, come and go.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use shared::clock;
use tests::cluster::{Cluster, LOAD_WITHIN};
use tests::wait::eventually;

use crate::load::Load;

/// Ten times what is promised: commands for a dead coordinator's shards work again within 5 s.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(50);

#[test]
fn any_coordinator_of_three_dies_under_five_hundred_jobs_and_each_job_ends_once() {
    let mut cluster = Cluster::start(3, 3);
    let load = Load::begin(&cluster, 500, "sleep 0.05");
    for victim in 0..3 {
        let before = load.accepted().len();
        let more = || (load.accepted().len() >= (before + 80).min(480)).then_some(());
        eventually(LOAD_WITHIN, "more jobs are accepted", more);
        let held = held_by(&cluster, victim);
        cluster.coordinators[victim].server.kill();
        let dead = clock::instant();
        // A command for each of its shards' jobs, through those who are left.
        for job in held {
            eventually(TAKEN_OVER_WITHIN, "a command for the dead one's shard works again", || {
                let path = format!("/api/v1/jobs/{job}/cancel");
                let answer = cluster.client().post(&path, &json!({"reason": "a test"}));
                matches!(answer.status, 200 | 202).then_some(())
            });
        }
        println!("its shards' commands worked again {} ms after its death", dead.elapsed().as_millis());
        cluster.restart_coordinator(victim, &[]);
        cluster.until_spread();
    }
    let load = load.enough();
    cluster.judged(&load.ids, LOAD_WITHIN);
    load.check_notes();
    cluster.until_published();
}

/// A few scheduled jobs of shards that this coordinator owns.
fn held_by(cluster: &Cluster, index: usize) -> Vec<String> {
    let job = json!({"steps": [{"run": "true"}], "run_at": "2099-01-01T00:00:00Z"});
    let client = &cluster.coordinators[index].client;
    (0..3).map(|_| cluster.submit_to(client, &job)).collect()
}

#[test]
fn a_coordinator_that_stood_still_past_its_lease_neither_writes_nor_speaks_for_its_old_shards() {
    let mut cluster = Cluster::start(2, 2);
    let load = Load::begin(&cluster, 300, "sleep 0.1");
    eventually(LOAD_WITHIN, "the load is under way", || (load.accepted().len() >= 60).then_some(()));
    let stopped = 0;
    let held = held_by(&cluster, stopped);
    let before = epochs(&cluster);
    cluster.coordinators[stopped].server.signal(Signal::SIGSTOP);
    let other = cluster.coordinators[1].client.clone();
    for job in &held {
        eventually(TAKEN_OVER_WITHIN, "the other owns its shards", || {
            (other.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({})).status == 200).then_some(())
        });
    }
    cluster.coordinators[stopped].server.signal(Signal::SIGCONT);
    cluster.coordinators[stopped].server.said("taken for dead");
    cluster.until_spread();
    // It serves again, and what it says is true.
    let anew = held_by(&cluster, stopped);
    for (job, status) in held.iter().map(|job| (job, 200)).chain(anew.iter().map(|job| (job, 202))) {
        let path = format!("/api/v1/jobs/{job}/cancel");
        let answer = cluster.coordinators[stopped].client.post(&path, &json!({}));
        assert_eq!((answer.status, answer.json["state"].as_str()), (status, Some("canceled")), "{}", answer.text);
    }
    assert!(epochs(&cluster) > before, "no epoch was left out");
    let load = load.submitted();
    cluster.judged(&load.ids, LOAD_WITHIN);
    load.check_notes();
}

fn epochs(cluster: &Cluster) -> u64 {
    cluster.postgres.rows("SELECT sum(epoch)::text FROM shards")[0][0].parse().expect("a number")
}

#[test]
fn coordinators_that_come_and_go_in_order_hand_their_shards_over_and_refuse_nobody_for_long() {
    let mut cluster = Cluster::start(2, 2);
    let load = Load::begin(&cluster, 200, "true");
    eventually(LOAD_WITHIN, "the load is under way", || (load.accepted().len() >= 40).then_some(()));
    let newcomer = cluster.add_coordinator(&[]);
    cluster.until_spread();
    let status = cluster.coordinators[0].server.stop();
    assert!(status.success(), "{status:?}");
    let gone = clock::instant();
    let job = json!({"steps": [{"run": "true"}], "run_at": "2099-01-01T00:00:00Z"});
    cluster.submit_to(&cluster.coordinators[newcomer].client, &job);
    cluster.until_spread();
    println!("its shards had other owners {} ms after its end", gone.elapsed().as_millis());
    let load = load.submitted();
    cluster.judged(&load.ids, LOAD_WITHIN);
    load.check_notes();
    cluster.until_published();
}

#[test]
fn the_same_key_at_two_replicas_at_once_makes_one_job_and_one_answer() {
    let cluster = Cluster::start(2, 0);
    let job = json!({"steps": [{"run": "true"}], "run_at": "2099-01-01T00:00:00Z"}).to_string();
    for round in 0..30 {
        let key = format!("key {round}");
        let ask = |index: usize| {
            let (client, key, job) = (cluster.coordinators[index].client.clone(), key.clone(), job.clone());
            std::thread::spawn(move || {
                let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
                client.send("POST", "/api/v1/jobs", &headers, job.as_bytes())
            })
        };
        let answers = [ask(0), ask(1)].map(|asking| asking.join().expect("an answer"));
        let mut statuses = answers.each_ref().map(|answer| answer.status);
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201], "{answers:?}");
        assert_eq!(answers[0].json["id"], answers[1].json["id"]);
    }
    assert_eq!(cluster.postgres.rows("SELECT count(*)::text FROM jobs"), [["30"]]);
}
