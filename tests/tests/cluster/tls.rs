//! TLS by configuration: a cluster that speaks nothing else, and what isn't trusted there.

use std::process::Command;

use serde_json::json;
use tests::certificates::Authority;
use tests::cluster::Cluster;
use tests::dev::DEADLINE;
use tests::http::Client;
use tests::server::Server;
use tests::wait::eventually;
use tests::windlass::{Finished, Running, windlass};

/// The first administrator's, as the harness has it.
const TOKEN: &str = "a-bootstrap-token-of-the-tests";

/// A client's command at `url` that trusts `authority`.
fn asking(url: &str, authority: &Authority, arguments: &[&str]) -> Finished {
    let mut command = windlass();
    command.args(arguments).env("HOME", "/nonexistent").env("WINDLASS_URL", url).env("WINDLASS_TOKEN", TOKEN);
    command.env("WINDLASS_CA_FILE", authority.file());
    Running::start(command).finish()
}

fn ended(command: Command) -> Finished {
    Running::start(command).finish()
}

#[test]
fn a_cluster_that_speaks_tls_alone_runs_a_job_to_its_end() {
    let mut cluster = Cluster::secured();
    cluster.add_coordinator(&[]);
    cluster.add_coordinator(&[]);
    cluster.until_spread();
    let authority = cluster.authority().file();
    cluster.add_worker(&[("WINDLASS_CA_FILE", authority.to_str().expect("a path"))]);
    let url = cluster.coordinators[0].address.clone();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");

    let arguments = ["job", "submit", "--wait", "--", "echo", "over TLS"];
    let submitted = asking(&url, cluster.authority(), &arguments);
    assert_eq!(submitted.code, Some(0), "{}", submitted.said());

    // What another coordinator has to do is passed on to it.
    for index in 0..2 {
        let later = json!({"steps": [{"run": "true"}], "run_at": "2099-01-01T00:00:00Z"});
        let job = cluster.submit_to(&cluster.coordinators[index].client, &later);
        let other = &cluster.coordinators[cluster.other(&job)].client;
        let answer = other.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({}));
        assert_eq!((answer.status, &answer.json["state"]), (202, &"canceled".into()), "{}", answer.text);
    }

    let open = "SELECT count(*)::text, count(*) FILTER (WHERE NOT ssl)::text FROM pg_stat_ssl s \
         JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'client backend'";
    let sessions = cluster.postgres.rows(open)[0].clone();
    assert!(sessions[0] != "0" && sessions[1] == "0", "sessions, and those without TLS: {sessions:?}");
    let connections = Client::new(&cluster.nats.monitoring_url(), "").get("/connz").json["connections"].clone();
    let connections = connections.as_array().expect("a list");
    assert!(connections.len() >= 3, "{connections:?}");
    assert!(connections.iter().all(|connection| connection["tls_version"].is_string()), "{connections:?}");
}

#[test]
fn a_client_trusts_nobody_but_the_authority_that_it_was_told_and_says_what_to_do() {
    let mut cluster = Cluster::secured();
    cluster.add_coordinator(&[]);
    let (url, stranger) = (cluster.coordinators[0].address.clone(), Authority::new());
    let plain = url.replace("https://", "http://");
    let named = url.replace("127.0.0.1", "localhost");
    let no_tls = cluster.nats.monitoring_url().replace("http://", "https://");
    let own = cluster.authority();
    for (url, authority, why, remedy) in [
        (&url, &stranger, "UnknownIssuer", "WINDLASS_CA_FILE"),
        (&named, own, "certificate", "must be for the name that WINDLASS_URL has"),
        (&plain, own, "doesn't answer", "is it an https:// address?"),
        (&no_tls, own, "doesn't answer", "is it an http:// address?"),
    ] {
        let refused = asking(url, authority, &["job", "list"]);
        let said = refused.said();
        assert_eq!((refused.code, said.lines().count()), (Some(1), 1), "{url}: {said}");
        assert!(said.contains(why) && said.contains(remedy), "{url}: {said}");
    }
    let right = asking(&url, own, &["job", "list"]);
    assert_eq!(right.code, Some(0), "{}", right.said());
    // Without an authority of one's own the public ones count, and none of them has vouched for it.
    let mut command = windlass();
    command.args(["job", "list", "--url", &url]).env("HOME", "/nonexistent");
    let refused = ended(command);
    assert!(refused.code == Some(1) && refused.said().contains("UnknownIssuer"), "{}", refused.said());
}

#[test]
fn a_coordinator_does_not_trust_a_database_or_a_nats_of_another_authority() {
    let (cluster, stranger) = (Cluster::secured(), Authority::new());
    let of_stranger = stranger.file();
    let of_stranger = of_stranger.to_str().expect("a path");
    let named = cluster.database_url(cluster.authority()).replace("@127.0.0.1", "@localhost");
    let by_stranger = cluster.database_url(&stranger);
    for (name, value, words) in [
        ("WINDLASS_DATABASE_URL", by_stranger.as_str(), "invalid peer certificate: UnknownIssuer"),
        ("WINDLASS_DATABASE_URL", named.as_str(), "invalid peer certificate: certificate not valid for name"),
        (
            "WINDLASS_CA_FILE",
            of_stranger,
            "the certificate of NATS isn't trusted: WINDLASS_CA_FILE names its authority",
        ),
    ] {
        let mut command = cluster.coordinator_command();
        command.env(name, value);
        Server::start("a coordinator", command).said(words);
    }
    let mut worker = windlass();
    worker.arg("worker").env("WINDLASS_NATS_URL", cluster.nats.url()).env("WINDLASS_CA_FILE", of_stranger);
    worker.env("WINDLASS_JOIN_TOKEN", "any").env("WINDLASS_DATA_DIR", cluster.place().join("stranger"));
    Server::start("a worker", worker)
        .said("the certificate of NATS isn't trusted: WINDLASS_CA_FILE names its authority");
}

#[test]
fn settings_of_tls_that_do_not_go_together_are_refused_by_name() {
    let cluster = Cluster::secured();
    let other = cluster.authority().vouch("other", "IP:127.0.0.1");
    let other = other.key.to_str().expect("a path");
    for (name, value, words) in [
        ("WINDLASS_TLS_KEY_FILE", "", "WINDLASS_TLS_CERT_FILE: is set without WINDLASS_TLS_KEY_FILE"),
        ("WINDLASS_TLS_CERT_FILE", "", "WINDLASS_TLS_KEY_FILE: is set without WINDLASS_TLS_CERT_FILE"),
        ("WINDLASS_TLS_KEY_FILE", other, "other.key: doesn't belong to"),
        ("WINDLASS_TLS_CERT_FILE", other, "WINDLASS_TLS_CERT_FILE: "),
        ("WINDLASS_CA_FILE", other, "holds no certificate"),
        ("WINDLASS_CA_FILE", "/nonexistent", "WINDLASS_CA_FILE: /nonexistent: No such file"),
        ("WINDLASS_ADVERTISE_URL", "http://10.0.0.1", "must begin with https://"),
    ] {
        let mut command = cluster.coordinator_command();
        command.env(name, value);
        let refused = ended(command);
        assert_eq!(refused.code, Some(2), "{name}={value}: {}", refused.said());
        assert!(refused.said().contains(words), "{name}={value}: {}", refused.said());
        let command = cluster.coordinator_command();
        let mut check = windlass();
        check.args(["config", "check", "--for", "coordinator"]);
        check.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env(name, value);
        let checked = ended(check);
        assert_eq!(checked.code, Some(1), "{name}={value}: {}", checked.out());
        assert!(checked.out().contains(words), "{name}={value}: {}", checked.out());
    }
}

#[test]
fn a_certificate_that_was_replaced_counts_without_a_restart() {
    let mut cluster = Cluster::secured();
    cluster.add_coordinator(&[]);
    let url = cluster.coordinators[0].address.clone();
    let next = Authority::new();
    let ask = |authority: &Authority| {
        // A client of its own, for a connection of its own.
        let client = Client::trusting(&url, TOKEN, &authority.file());
        client.try_send("GET", "/healthz", &[], b"").map(|answer| answer.status).ok()
    };
    assert_eq!((ask(cluster.authority()), ask(&next)), (Some(200), None));
    let (now, renewed) = (cluster.authority().vouch("api", "IP:127.0.0.1"), next.vouch("api", "IP:127.0.0.1"));
    // One after the other: between the two they don't belong together.
    std::fs::copy(&renewed.certificate, &now.certificate).expect("a certificate");
    std::fs::copy(&renewed.key, &now.key).expect("a key");
    eventually(DEADLINE, "the new certificate", || ask(&next).filter(|status| *status == 200));
    assert_eq!(ask(cluster.authority()), None);
    assert!(cluster.coordinators[0].server.runs());
}
