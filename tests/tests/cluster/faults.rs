//! A process that ends, or an answer that is lost, at the worst moment: each at a point of the code that a test has armed.

use serde_json::json;
use tests::cluster::{Cluster, LOAD_WITHIN};
use tests::wait::eventually;

use crate::load::{Load, noting};

#[test]
fn what_was_committed_and_not_published_goes_out_after_the_takeover() {
    let mut cluster = Cluster::bare();
    let doomed = cluster.add_coordinator(&[("WINDLASS_FAULTS", "publisher.publish=1!")]);
    let key = "between commit and publication";
    let (_, job) = noting(&cluster.notes(), "true");
    // It is committed; whether the answer still comes out is the process's luck.
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let _ = cluster.coordinators[doomed].client.try_send("POST", "/api/v1/jobs", &headers, job.to_string().as_bytes());
    eventually(LOAD_WITHIN, "the coordinator has died", || (!cluster.coordinators[doomed].server.runs()).then_some(()));
    let published = cluster.postgres.rows("SELECT sum(published_seq)::text FROM shards");
    assert_eq!(published, [["0"]], "nothing was published");
    cluster.add_coordinator(&[]);
    cluster.until_spread();
    // Before anything else happens to the job, which would bring the rest out with it.
    cluster.until_published();
    cluster.add_worker(&[]);
    let id = cluster.postgres.rows("SELECT id::text FROM jobs")[0][0].clone();
    let ended = cluster.ended(&id, LOAD_WITHIN);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    cluster.judged(&[id], LOAD_WITHIN);
    cluster.until_published();
}

#[test]
fn a_takeover_that_is_interrupted_halfway_is_gone_on_with_by_another() {
    for point in ["shards.taken", "shards.buried"] {
        println!("interrupted at {point}");
        let mut cluster = Cluster::start(1, 1);
        let load = Load::begin(&cluster, 60, "sleep 0.2");
        eventually(LOAD_WITHIN, "the load is under way", || (load.accepted().len() >= 20).then_some(()));
        let load = load.enough();
        // The first takes over what the dead one leaves, and dies over it; the second goes on.
        let mut settings = vec![("WINDLASS_FAULTS", format!("{point}=1!"))];
        cluster.coordinators[0].server.kill();
        let mut command = cluster.coordinator_command();
        command.envs(settings.drain(..));
        let mut doomed = tests::server::Server::start("the doomed one", command);
        assert!(!doomed.ended(LOAD_WITHIN).success());
        cluster.restart_coordinator(0, &[]);
        cluster.until_spread();
        cluster.judged(&load.ids, LOAD_WITHIN);
        load.check_notes();
    }
}

#[test]
fn a_handover_that_is_interrupted_halfway_loses_nothing() {
    let mut cluster = Cluster::bare();
    let doomed = cluster.add_coordinator(&[("WINDLASS_FAULTS", "shards.let_go=1!")]);
    cluster.until_spread();
    cluster.add_worker(&[]);
    let load = Load::begin(&cluster, 60, "sleep 0.1").submitted();
    // A newcomer is to get half of its shards: it dies over that.
    let newcomer = cluster.add_coordinator(&[]);
    eventually(LOAD_WITHIN, "it has died", || (!cluster.coordinators[doomed].server.runs()).then_some(()));
    cluster.judged(&load.ids, LOAD_WITHIN);
    load.check_notes();
    eventually(LOAD_WITHIN, "the newcomer owns all", || {
        load.ids.iter().all(|id| cluster.owner(id) == newcomer).then_some(())
    });
}

/// Runs so many jobs on one worker and a coordinator that has these faults: each must succeed, in one attempt at a time.
fn all_succeed_with(faults: &str, count: usize) {
    let mut cluster = Cluster::bare();
    cluster.add_coordinator(&[("WINDLASS_FAULTS", faults)]);
    cluster.until_spread();
    cluster.add_worker(&[]);
    let load = Load::begin(&cluster, count, "true").submitted();
    let states = cluster.judged(&load.ids, LOAD_WITHIN);
    assert_eq!(states.get("succeeded"), Some(&count));
    load.check_notes();
    cluster.until_spread();
    cluster.until_published();
}

#[test]
fn a_grant_whose_reply_is_lost_is_granted_once() {
    all_succeed_with("intake.grant_reply=5~", 20);
}

#[test]
fn reports_whose_replies_are_lost_change_nothing_when_they_are_repeated() {
    all_succeed_with("intake.report_reply=10~", 20);
}

#[test]
fn commits_whose_answers_are_lost_are_found_done_and_every_job_ends_once() {
    all_succeed_with("committer.committed=4", 100);
}

#[test]
fn a_cancel_that_overtakes_a_grant_wins_and_nothing_starts() {
    let mut cluster = Cluster::bare();
    // Whatever is granted is never heard of.
    cluster.add_coordinator(&[("WINDLASS_FAULTS", "intake.grant_reply=1000~")]);
    cluster.until_spread();
    cluster.add_worker(&[]);
    let (key, job) = noting(&cluster.notes(), "true");
    let id = cluster.submit(&job);
    eventually(LOAD_WITHIN, "the attempt is granted, unheard", || {
        (cluster.job(&id)["attempt"].as_u64() >= Some(1)).then_some(())
    });
    let answer = cluster.client().post(&format!("/api/v1/jobs/{id}/cancel"), &json!({}));
    assert_eq!(answer.status, 202, "{}", answer.text);
    let ended = cluster.ended(&id, LOAD_WITHIN);
    assert_eq!(ended["state"], "canceled", "{ended}");
    cluster.judged(&[id], LOAD_WITHIN);
    assert!(!cluster.notes().join(format!("{key}.notes")).exists(), "it started all the same");
}

#[test]
fn a_running_job_whose_row_cannot_be_read_keeps_no_other_from_being_owned() {
    let mut cluster = Cluster::start(1, 1);
    let sick = cluster.submit(&json!({"steps": [{"run": "sleep 1000"}]}));
    cluster.until(&sick, "running");
    cluster.workers[0].kill();
    // Once nobody is left who would write the row whole again.
    cluster.coordinators[0].server.kill();
    cluster.postgres.rows(&format!("UPDATE jobs SET detail = '{{}}' WHERE id = '{sick}' RETURNING id::text"));
    cluster.restart_coordinator(0, &[]);
    cluster.until_spread();
    cluster.coordinators[0].server.said("can't be read");
    cluster.workers[0].restart();
    let load = Load::begin(&cluster, 20, "true").submitted();
    let states = cluster.judged(&load.ids, LOAD_WITHIN);
    assert_eq!(states.get("succeeded"), Some(&20));
}
