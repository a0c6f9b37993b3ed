//! A cluster that goes from one version to the next while it works: coordinators replaced one by one beside a migration, and
//! programs of two versions side by side. The later version is this one under another format number; what either hears from
//! the other has more fields, or fewer, than it knows (`shared::wire::versions`).

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use shared::clock;
use sqlx::Connection;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnection;
use tests::cluster::{Cluster, LOAD_WITHIN};
use tests::dev::DEADLINE;
use tests::server::Server;
use tests::wait::eventually;

use crate::load::Load;

/// Ten times what is promised: no submission is refused for longer than a second.
const REFUSED_MAX: Duration = Duration::from_secs(10);
/// The settings of a program of the version that runs, and of the one that replaces it.
const EARLIER: [(&str, &str); 1] = [("WINDLASS_PEERS", "later")];
const LATER: [(&str, &str); 2] = [("WINDLASS_PEERS", "earlier"), ("WINDLASS_FAULTS", "format.later=1000000~")];

#[test]
fn three_coordinators_are_replaced_one_by_one_under_load_beside_a_migration() {
    let mut cluster = Cluster::bare();
    for _ in 0..3 {
        cluster.add_coordinator(&EARLIER);
    }
    cluster.until_spread();
    for _ in 0..2 {
        cluster.add_worker(&EARLIER);
    }
    let load = Load::begin(&cluster, 2_000, "sleep 0.02");
    let goes_on = |load: &Load| {
        let before = load.accepted().len();
        eventually(LOAD_WITHIN, "more jobs are accepted", || (load.accepted().len() >= before + 40).then_some(()));
    };
    goes_on(&load);
    migrate(&cluster);
    goes_on(&load);
    for _ in 0..3 {
        assert_eq!(written(&cluster), 1, "there are some that read no later format");
        let begun = clock::instant();
        cluster.add_coordinator(&LATER);
        cluster.until_spread();
        load.serve_by(&cluster);
        goes_on(&load);
        // Its successor serves: it gets SIGTERM, hands over what it has, and ends.
        let mut replaced = cluster.coordinators.remove(0);
        let status = replaced.server.stop();
        assert!(status.success(), "{status:?}");
        load.serve_by(&cluster);
        cluster.until_spread();
        println!("one is replaced after {} ms", begun.elapsed().as_millis());
        goes_on(&load);
    }
    eventually(DEADLINE, "the later format is written once nobody is left who doesn't read it", || {
        (written(&cluster) == 2).then_some(())
    });
    // A worker of the later version beside one of the earlier.
    cluster.add_worker(&LATER);
    goes_on(&load);
    let load = load.enough();
    let slowest = load.slowest;
    println!("the slowest submission of {} was accepted after {} ms", load.ids.len(), slowest.as_millis());
    assert!(slowest < REFUSED_MAX, "{slowest:?}");
    let states = cluster.judged(&load.ids, LOAD_WITHIN);
    assert_eq!(states.keys().collect::<Vec<_>>(), ["succeeded"], "{states:?}");
    load.check_notes();
    cluster.until_published();

    // Going back is refused by name, and harms nobody.
    let mut command = cluster.coordinator_command();
    let back = command.envs(EARLIER).output().expect("it can be started");
    let said = String::from_utf8_lossy(&back.stderr);
    assert!(!back.status.success() && said.contains("start the later version again"), "{said}");
    cluster.until_spread();
}

#[test]
fn a_worker_and_a_coordinator_of_different_versions_talk() {
    for (coordinators, workers) in [(&EARLIER[..], &LATER[..1]), (&LATER[..], &EARLIER[..])] {
        let mut cluster = Cluster::bare();
        cluster.add_coordinator(coordinators);
        cluster.add_coordinator(coordinators);
        cluster.until_spread();
        cluster.add_worker(workers);
        let client = cluster.client();
        let steps = json!([{"name": "one", "run": "echo $SAYS; echo $HIDDEN"}, {"exec": ["sh", "-c", "exit 3"]}]);
        let job = json!({"steps": steps, "env": {"SAYS": "hello"}, "secrets": {"HIDDEN": "hush"}, "labels": {"a": "b"},
            "retry": {"max_attempts": 2, "on": ["exit:3"], "backoff": {"first": "100ms"}}});
        let failing = cluster.submit(&job);
        let stopped = cluster.submit(&json!({"steps": [{"run": "sleep 1000"}], "grace": "0s"}));
        cluster.until(&stopped, "running");
        assert_eq!(client.post(&format!("/api/v1/jobs/{stopped}/cancel"), &json!({})).status, 202);
        // For longer than it takes a worker to tell that it runs.
        let long = cluster.submit(&json!({"steps": [{"run": "sleep 7"}]}));
        let canceled = cluster.until(&stopped, "canceled");
        assert_eq!(canceled["outcome"]["confirmed"], true, "{canceled}");

        let failed = cluster.until(&failing, "failed");
        assert_eq!(failed["outcome"]["exit_code"], 3, "{failed}");
        assert_eq!((failed["attempt"].as_u64(), &failed["labels"]), (Some(2), &json!({"a": "b"})));
        assert_eq!(failed["spec"]["env"], json!({"SAYS": "hello"}));
        let text = cluster.text(&failing);
        assert!(text.contains("hello") && !text.contains("hush"), "{text}");
        cluster.until(&long, "succeeded");
        let servers = cluster.coordinators.iter().map(|c| &c.server).chain(cluster.workers.iter().map(|w| &w.server));
        for log in servers.map(Server::log) {
            assert!(!log.contains("be read") && !log.contains("ERROR"), "{log}");
        }
    }
}

/// The highest format that anything was written in.
fn written(cluster: &Cluster) -> u32 {
    cluster.postgres.rows("SELECT written::text FROM formats")[0][0].parse().expect("a number")
}

/// What `windlass migrate` of the later version does: everything that there is, and one migration more.
fn migrate(cluster: &Cluster) {
    let place = cluster.place().join("migrations");
    std::fs::create_dir(&place).expect("a directory");
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/postgres");
    for file in std::fs::read_dir(known).expect("the migrations").flatten() {
        std::fs::copy(file.path(), place.join(file.file_name())).expect("a copy");
    }
    let later =
        "ALTER TABLE jobs ADD COLUMN later text; ALTER TABLE job_events ADD COLUMN later bigint NOT NULL DEFAULT 7;
        ALTER TABLE workers ADD COLUMN later text; CREATE TABLE of_a_later_version (id bigint PRIMARY KEY);
        CREATE INDEX jobs_later ON jobs (later) WHERE later IS NOT NULL;";
    std::fs::write(place.join("9000_later.sql"), later).expect("a migration");
    let url = cluster.postgres.url();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let migrator = Migrator::new(place.as_path()).await.expect("migrations");
        let mut connection = PgConnection::connect(&url).await.expect("a connection");
        migrator.run(&mut connection).await.expect("it migrates");
    });
}
