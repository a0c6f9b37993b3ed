//! A real cluster under rubbish: on every subject of NATS, at every route with every method, on the bare HTTP socket. No
//! process panics or grows without bound, and an ordinary job still runs to its end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::json;
use shared::bus::Address;
use shared::bus::nats::subjects;
use shared::id::{Attempt, WorkerId};
use shared::proof::ProofKey;
use shared::seal::OneTimeKey;
use shared::secret::Secret;
use shared::wire::{self, Control, Enrol, Enrolment, Heartbeat, Hello, IDENTITY_SECRET, KeyRequest, LogBatch, Reports};
use tests::cluster::Cluster;
use tests::dev::DEADLINE;
use tests::nats::dealt_with;
use tests::process::peak_kib;

use super::campaign::{runner, share};
use super::samples::{
    all, chunk, events, instance, job, offer, recipient, reports, request, shard, stop, submissions, word,
};
use super::spoiling::inputs;

/// How much a process may have had at most: an idle one has a tenth of it.
const PEAK_KIB_MAX: u64 = 512 * 1024;
/// How long the bare socket's answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);

fn drawn(name: &str, cases: u32, samples: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (mut runner, from) = (runner(name, cases), inputs(samples));
    (0..cases).map(|_| from.new_tree(&mut runner).expect("an input").current()).collect()
}

/// What a worker says, with the address that it says it to.
fn said(worker: WorkerId) -> Vec<(Address, Vec<Vec<u8>>)> {
    let instance = instance();
    let hello = Hello { worker, instance, start: 3, tags: vec![], slots: 1, running: 0, draining: false };
    let beat = Heartbeat { worker, instance, attempts: vec![(job(), Attempt(1))] };
    let (key, recipient) = ("app".to_owned(), recipient());
    let asked = KeyRequest { worker, instance, request: request(), job: job(), attempt: Attempt(1), key, recipient };
    let each = |report| Reports { worker, instance, reports: vec![report] };
    vec![
        (Address::Hello(worker), all(&[hello])),
        (Address::Report(shard(), worker), all(&reports().into_iter().map(each).collect::<Vec<_>>())),
        (Address::Heartbeat(shard(), worker), all(&[beat])),
        (Address::Log(shard(), worker), all(&[LogBatch { worker, chunks: vec![chunk()] }])),
        (Address::Key(shard(), worker), all(&[asked])),
    ]
}

/// Enrols somebody whose words count, with what proves them.
async fn accomplice(client: &async_nats::Client, token: &str) -> (WorkerId, ProofKey) {
    let key = OneTimeKey::generate();
    let token = Secret::new(token.to_owned());
    let enrol = Enrol { token, name: "accomplice".to_owned(), recipient: key.recipient() };
    let reply = client.request(subjects::of(&Address::Enrol), wire::encode(&enrol)).await.expect("an answer");
    let Ok(Enrolment::Enrolled { worker, secret }) = wire::decode(&reply.payload) else { panic!("it is refused") };
    (worker, ProofKey::of(&key.open(&secret).expect("it opens").0[IDENTITY_SECRET]))
}

/// Sends a request whose answer nobody hears: what wants none isn't looked at.
async fn send(client: &async_nats::Client, subject: &str, body: bytes::Bytes) {
    let sent = client.publish_with_reply(subject.to_owned(), "rubbish.answers".to_owned(), body).await;
    sent.expect("it is sent");
}

/// Says rubbish on every subject, proved and unproved.
async fn storm(client: async_nats::Client, token: String, victim: WorkerId) {
    let (worker, key) = accomplice(&client, &token).await;
    for (to, samples) in said(worker) {
        for body in drawn(&to.to_string(), share(4), &samples) {
            let subject = subjects::of(&to);
            send(&client, &subject, key.prove(&to, &body)).await;
            send(&client, &subject, body.into()).await;
        }
    }
    let enrol = Enrol { token: Secret::new("x".repeat(16)), name: "host".to_owned(), recipient: recipient() };
    let orders =
        [Control::Stop(word(stop())), Control::LookForKey { job: job(), attempt: Attempt(1) }, Control::SayHello {}];
    let offered = subjects::offer(&offer());
    let others = [
        (subjects::of(&Address::Enrol), all(&[enrol])),
        (subjects::of(&Address::Control(victim)), all(&orders)),
        (subjects::HINT.to_owned(), all(&[json!({"job": job()}), json!("keys"), json!("shards")])),
        (offered, all(&[offer()])),
        ("windlass.event.x.started".to_owned(), all(&events())),
        ("windlass.shard.77.gossip.x".to_owned(), all(&[stop()])),
        ("$JS.EVENT.ADVISORY.CONSUMER.DELETED.WINDLASS_OFFERS.x".to_owned(), all(&[json!({"type": "x"})])),
    ];
    for (subject, samples) in others {
        for body in drawn(&subject, share(4), &samples) {
            send(&client, &subject, body.into()).await;
        }
    }
    dealt_with(&client).await;
}

const ROUTES: [&str; 17] = [
    "/",
    "/healthz",
    "/readyz",
    "/api/openapi.json",
    "/api/v1/jobs",
    "/api/v1/jobs/cancel",
    "/api/v1/jobs/{}",
    "/api/v1/jobs/{}/events",
    "/api/v1/jobs/{}/logs",
    "/api/v1/jobs/{}/cancel",
    "/api/v1/jobs/{}/retry",
    "/api/v1/workers",
    "/api/v1/workers/{}/pause",
    "/api/v1/tokens/join",
    "/api/v1/deploy-keys",
    "/api/v1/deploy-keys/{}",
    "/internal/cancel",
];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "ODD"];

/// Sends rubbish to every route, as a body, as a query and in place of an id.
fn ask_everywhere(cluster: &Cluster) {
    let ids = drawn("an id", share(32), &[job().to_string().into_bytes()]);
    let encoded = |bytes: &[u8]| {
        let each: Vec<String> = bytes.iter().take(500).map(|byte| format!("%{byte:02x}")).collect();
        each.concat()
    };
    for route in ROUTES {
        for method in METHODS {
            let bodies = drawn(&format!("{method} {route}"), share(64), &all(&submissions()));
            for (body, id) in bodies.iter().zip(ids.iter().cycle()) {
                let path = route.replace("{}", &encoded(id)) + "?limit=" + &encoded(body);
                for path in [route.replace("{}", &job().to_string()), path] {
                    let kind = [("content-type", "application/json")];
                    let answer = cluster.client().send(method, &path, &kind, body);
                    assert!(answer.status != 500, "{method} {path}: {}", answer.text);
                }
            }
        }
    }
}

/// Sends bytes to the bare socket that are hardly HTTP.
fn knock(address: &str) {
    let samples = [
        "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /api/v1/jobs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "PUT /api/v1/deploy-keys/x HTTP/1.1\r\nhost: x\r\ncontent-length: 18446744073709551615\r\n\r\n{}",
    ];
    for bytes in drawn("bare bytes", share(8), &samples.map(|text| text.as_bytes().to_vec())) {
        let mut stream = TcpStream::connect(address.trim_start_matches("http://")).expect("it listens");
        stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a timeout");
        // It may hang up at any time, and may wait for more.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 1024]);
    }
}

#[test]
fn a_cluster_under_rubbish_neither_panics_nor_grows_and_still_runs_a_job() {
    let cluster = Cluster::start(1, 1);
    let join = cluster.client().post("/api/v1/tokens/join", &json!({}));
    let token = join.json["token"].as_str().expect("a token").to_owned();
    let victim: WorkerId = cluster.workers[0].id().parse().expect("a worker's id");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async { storm(cluster.nats.client().await, token, victim).await });
    ask_everywhere(&cluster);
    knock(&cluster.coordinators[0].address);

    // The storm may have told the worker of a later owner of its own shard, which nobody is: see ARCHITECTURE.md on NATS's users.
    let ours = (0..).map(|_| cluster.submit(&json!({"steps": [{"run": "echo still here"}]})));
    let id = ours.into_iter().find(|id| id.parse().is_ok_and(|id: shared::id::JobId| id.shard() != shard()));
    let id = id.expect("a job of another shard");
    assert_eq!(cluster.ended(&id, DEADLINE)["state"], "succeeded");
    assert!(cluster.text(&id).contains("still here"));
    // It was heard, and not only dropped on the way.
    let (coordinator, worker) = (cluster.coordinators[0].server.log(), cluster.workers[0].server.log());
    assert!(
        coordinator.contains("a request can't be read") && coordinator.contains("is not from the worker that it names")
    );
    assert!(worker.contains("an order is not understood"));
    for server in [&cluster.coordinators[0].server, &cluster.workers[0].server] {
        let (log, peak) = (server.log(), peak_kib(server.pid()).expect("it runs"));
        assert!(!log.contains("panicked"), "a process panicked");
        assert!(peak < PEAK_KIB_MAX, "{peak} KiB");
        println!("{} KiB at most, {} lines of log", peak, log.lines().count());
    }
}
