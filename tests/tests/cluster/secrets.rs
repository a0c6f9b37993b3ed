//! Master keys: every replica opens every job's secrets, and nobody else does.

use std::process::Command;

use serde_json::json;
use tests::cluster::{Cluster, LOAD_WITHIN};
use tests::windlass::{Running, contains};

#[test]
fn every_replica_hands_out_the_secrets_that_another_took_in() {
    let mut cluster = Cluster::start(3, 1);
    let secret = "a-secret-of-the-deploy-target";
    let job = json!({
        "steps": [{"run": format!("[ ${{#TOKEN}} = {} ] && echo \"it is $TOKEN\"", secret.len())}],
        "secrets": {"TOKEN": secret},
    });
    let ids: Vec<String> = (0..6).map(|n| cluster.submit_to(&cluster.coordinators[n % 3].client, &job)).collect();
    // Whoever took them in may be gone by the time they are needed.
    cluster.coordinators[0].server.stop();
    cluster.until_spread();
    let later = cluster.submit(&job);
    for id in ids.iter().chain([&later]) {
        assert_eq!(cluster.ended(id, LOAD_WITHIN)["state"], "succeeded", "{}", cluster.text(id));
        assert!(!cluster.text(id).contains(secret), "{}", cluster.text(id));
    }
    let dump = cluster.postgres.dump();
    assert!(!contains(&dump, secret.as_bytes()), "the database holds the secret in the clear");
    for file in tests::windlass::files(&cluster.nats.store()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!contains(&bytes, secret.as_bytes()), "{} holds the secret", file.display());
    }
}

#[test]
fn a_coordinator_without_a_master_key_refuses_to_start() {
    let cluster = Cluster::bare();
    let mut command: Command = cluster.coordinator_command();
    command.env_remove("WINDLASS_MASTER_KEYS");
    let finished = Running::start(command).finish();
    assert_ne!(finished.code, Some(0));
    assert!(finished.said().contains("WINDLASS_MASTER_KEYS"), "{}", finished.said());
}
