//! Commands that another coordinator has to do: passed on as they came, once, for a second at most.
//!
//! The other one is played: it has joined the cluster and owns every shard, and what it answers is written down here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use coordinator::api::{ApiServer, Tokens, serve};
use coordinator::retention::RETENTION_DEFAULT;
use coordinator::store::postgres::PostgresStore;
use coordinator::store::{Member, Ownership};
use coordinator::vault::MasterKeys;
use coordinator::{Config, Coordinator, FORMAT};
use shared::bus::local::LocalBus;
use shared::clock;
use shared::id::{CoordinatorId, Shard};
use shared::secret::Secret;
use tests::http::Client;
use tests::postgres::{Database, Postgres};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::{JOB, JSON, TOKEN, refused};

/// Any job's id: its owner is whoever the shards' owner is.
const ID: &str = "01934f5e-0000-7000-8000-000000000007";
/// How long a request that isn't ours is tried, and ten times that.
const TRIED_FOR: Duration = Duration::from_secs(1);
const TRIED_AT_MOST: Duration = Duration::from_secs(10);
/// How often the other coordinator says that it lives.
const RENEW_EVERY: Duration = Duration::from_millis(500);

/// What the other coordinator does with a request.
type Answer = fn(&mut TcpStream);

/// Headers of a request.
type Headers<'a> = &'a [(&'a str, &'a str)];

/// A coordinator that owns nothing, and the other one.
struct Cluster {
    client: Client,
    /// What the other one was asked.
    asked: mpsc::Receiver<String>,
    /// What goes on while this is there, those that others need last.
    _parts: (ApiServer, Coordinator, JoinHandle<()>, Database<'static>, Runtime),
}

impl Cluster {
    fn start(answer: Answer) -> Self {
        let (runtime, database) = (Runtime::new().unwrap(), Postgres::shared().database());
        let url = Secret::new(database.url());
        let (address, asked) = other(answer);
        let (coordinator, other) = runtime.block_on(async {
            let store = Arc::new(PostgresStore::connect(&url).await.expect("the database"));
            let other = owns_all(Arc::clone(&store), address).await;
            let (keys, _) = MasterKeys::generate();
            let (bus, address) = (Arc::new(LocalBus::default()), "http://127.0.0.1:9".to_owned());
            (
                Coordinator::start(Config { store, bus, keys, address, retention: RETENTION_DEFAULT })
                    .await
                    .expect("it starts"),
                other,
            )
        });
        let tokens = Tokens::one("dev", &Secret::new(TOKEN.to_owned()));
        let api = serve(TcpListener::bind("127.0.0.1:0").unwrap(), coordinator.service(), tokens).unwrap();
        let client = Client::new(&format!("http://{}", api.address()), TOKEN);
        Self { client, asked, _parts: (api, coordinator, other, database, runtime) }
    }

    /// Sends a request; returns the answer's status, how long it took, and how often the other one was asked.
    fn send(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (tests::http::Answer, Duration, usize) {
        let began = clock::instant();
        let answer = self.client.send("POST", path, headers, body.as_bytes());
        (answer, began.elapsed(), self.asked.try_iter().count())
    }
}

/// Joins the cluster under that address and owns every shard until it is dropped.
async fn owns_all(store: Arc<PostgresStore>, address: String) -> JoinHandle<()> {
    let member = Member { id: CoordinatorId(clock::random_uuid()), address, format: FORMAT };
    store.join(&member).await.expect("it joins");
    let shards: Vec<Shard> = Shard::all().collect();
    assert_eq!(store.take_over(member.id, &shards).await.expect("the shards are its own").len(), shards.len());
    tokio::spawn(async move {
        let mut every = tokio::time::interval(RENEW_EVERY);
        while store.renew(member.id).await.is_ok() {
            every.tick().await;
        }
    })
}

/// Listens, and answers each request in that way; returns its address and what it was asked.
fn other(answer: Answer) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (ask, asked) = mpsc::sync_channel(1000);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let ask = ask.clone();
            thread::spawn(move || {
                let mut stream = stream;
                while let Some(request) = request(&mut stream) {
                    if ask.send(request).is_err() {
                        return;
                    }
                    answer(&mut stream);
                }
            });
        }
    });
    (address, asked)
}

/// The next request of a connection, head and body; none at its end.
fn request(stream: &mut TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

fn takes(stream: &mut TcpStream) {
    let body = r#"{"id": "x", "state": "canceling"}"#;
    let head = "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\nx-own: yes\r\n";
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
}

fn is_silent(_: &mut TcpStream) {}

fn hangs_up(stream: &mut TcpStream) {
    stream.shutdown(std::net::Shutdown::Both).unwrap();
}

fn is_no_owner(stream: &mut TcpStream) {
    stream.write_all(b"HTTP/1.1 503 x\r\nwindlass-not-ours: 1\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n").unwrap();
}

#[test]
fn what_another_coordinator_has_to_do_is_passed_on_as_it_came_and_its_answer_comes_back() {
    let cluster = Cluster::start(takes);
    let body = r#"{"reason":  "grüße"}"#;
    let answer = cluster.client.send("POST", &format!("/api/v1/jobs/{ID}/cancel"), &[JSON], body.as_bytes());
    assert_eq!((answer.status, answer.text.as_str()), (202, r#"{"id": "x", "state": "canceling"}"#));
    assert_eq!((answer.header("x-own"), answer.header("content-type")), ("yes", "application/json"));
    let asked = cluster.asked.try_recv().expect("the other one was asked");
    assert!(asked.starts_with(&format!("post /api/v1/jobs/{ID}/cancel http/1.1\r\n")), "{asked}");
    assert!(asked.ends_with(body) && asked.contains("content-type: application/json\r\n"), "{asked}");
    assert!(asked.contains(&format!("authorization: bearer {TOKEN}\r\n")), "{asked}");

    let key = ("Idempotency-Key", "k1");
    let answer =
        cluster.client.send("POST", "/api/v1/jobs", &[JSON, key, ("Accept", "application/json")], JOB.as_bytes());
    assert_eq!(answer.status, 202);
    let asked = cluster.asked.try_recv().expect("the other one was asked");
    assert!(asked.starts_with("post /api/v1/jobs http/1.1\r\n") && asked.ends_with(JOB), "{asked}");
    assert!(asked.contains("idempotency-key: k1\r\n") && asked.contains("accept: application/json\r\n"), "{asked}");
}

#[test]
fn what_was_passed_on_once_is_not_passed_on_again() {
    let cluster = Cluster::start(takes);
    let path = format!("/api/v1/jobs/{ID}/cancel");
    let (answer, took, asked) = cluster.send(&path, &[JSON, ("Windlass-Passed-On", "1")], "{}");
    assert_eq!((refused(&answer, 503).len(), answer.header("retry-after"), asked), (0, "1", 0));
    assert_eq!(answer.header("windlass-not-ours"), "1");
    assert!(took < TRIED_FOR, "it is answered at once, not after {took:?}");
}

#[test]
fn without_an_answer_a_command_is_tried_for_a_second_and_refused_for_now() {
    for (answer, repeated) in [(is_silent as Answer, false), (hangs_up, true), (is_no_owner, true)] {
        let cluster = Cluster::start(answer);
        let (answer, took, asked) = cluster.send(&format!("/api/v1/jobs/{ID}/cancel"), &[JSON], "{}");
        assert_eq!((refused(&answer, 503).len(), answer.header("retry-after")), (0, "1"));
        assert_eq!(answer.header("windlass-not-ours"), "");
        assert!((TRIED_FOR..TRIED_AT_MOST).contains(&took), "{took:?}");
        assert_eq!(asked > 1, repeated, "{asked}");
    }
}

#[test]
fn a_submission_is_sent_again_only_under_a_key_or_where_it_was_not_taken() {
    let keyed = [JSON, ("Idempotency-Key", "k1")];
    let batch = r#"{"jobs": [{"steps": [{"run": "ls"}], "idempotency_key": "a"}]}"#;
    let cases: [(Answer, Headers, &str, bool); 5] = [
        (hangs_up, &[JSON], JOB, false),
        (hangs_up, &keyed, JOB, true),
        (hangs_up, &[JSON], batch, true),
        (is_no_owner, &[JSON], JOB, true),
        (is_silent, &[JSON], JOB, false),
    ];
    for (number, (answer, headers, body, repeated)) in cases.into_iter().enumerate() {
        let cluster = Cluster::start(answer);
        let (answer, _, asked) = cluster.send("/api/v1/jobs", headers, body);
        refused(&answer, 503);
        assert_eq!(asked > 1, repeated, "case {number}: asked {asked} times");
    }
    // A job that is run again has no key, and there is none to run again here.
    let cluster = Cluster::start(hangs_up);
    let (answer, _, asked) = cluster.send(&format!("/api/v1/jobs/{ID}/retry"), &[JSON], "{}");
    assert_eq!((refused(&answer, 404), asked), (vec!["id"], 0));
}
