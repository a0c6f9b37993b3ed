//! The client against a server that answers as it is told, over real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use shared::settings::Settings;

use super::{Client, Repeated, with_query};
use crate::args::api::{ApiArgs, Output};
use crate::exit::Error;

/// Answers one connection after the other with these texts, and returns what was asked.
fn server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let each = |answer: String| {
            let mut stream = listener.accept().unwrap().0;
            let asked = request(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
            asked
        };
        answers.into_iter().map(each).collect()
    });
    (url, asked)
}

fn request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "the request ended within its head");
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    head.to_lowercase() + &String::from_utf8(body).unwrap()
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn client(url: &str) -> Client {
    let lookup = |name: &str| (name == "WINDLASS_TOKEN").then(|| "s3cret".to_owned());
    let dir = std::env::temp_dir().join("no-such-windlass");
    let args = ApiArgs { output: Output::Table, url: Some(url.to_owned()), data_dir: Some(dir), ca_file: None };
    Client::new(&args, &Settings::new(&lookup)).unwrap()
}

#[test]
fn a_submission_is_repeated_under_its_key_until_the_server_can() {
    let busy = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (url, asked) = server(vec![busy.into(), answer("201 Created", "{\"id\":1}")]);
    let done = client(&url).post("/api/v1/jobs", "{\"steps\":[]}", Some("k1"), Repeated::Harmless);
    assert_eq!(done, Ok("{\"id\":1}".to_owned()));
    for asked in asked.join().unwrap() {
        assert!(asked.starts_with("post /api/v1/jobs http/1.1"), "{asked}");
        assert!(asked.contains("idempotency-key: k1\r\n"), "{asked}");
        assert!(asked.contains("authorization: bearer s3cret\r\n"), "{asked}");
        assert!(asked.contains("content-type: application/json\r\n") && asked.ends_with("{\"steps\":[]}"), "{asked}");
    }
}

#[test]
fn what_would_be_doubled_is_not_repeated_when_its_answer_is_lost() {
    let (url, asked) = server(vec![String::new()]);
    let done = client(&url).post("/api/v1/jobs/x/retry", "{}", None, Repeated::Doubles);
    assert!(matches!(&done, Err(Error::Failed(lines)) if lines[0].contains("unknown")), "{done:?}");
    assert_eq!(asked.join().unwrap().len(), 1);
}

#[test]
fn nobody_there_is_tried_five_times_and_then_said() {
    let url = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let done = client(&url).get("/api/v1/jobs");
    assert!(matches!(&done, Err(Error::Failed(lines)) if lines[0].contains("gave up after 5 tries")), "{done:?}");
}

#[test]
fn a_refused_token_says_what_to_set() {
    let (url, asked) = server(vec![answer("401 Unauthorized", "{}")]);
    let done = client(&url).get("/api/v1/jobs");
    assert!(matches!(&done, Err(Error::Failed(lines)) if lines[0].contains("set WINDLASS_TOKEN")), "{done:?}");
    asked.join().unwrap();
}

#[test]
fn a_stream_that_breaks_off_is_resumed_after_the_last_frame() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let first = format!("{head}id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: ha");
    let second = format!("{head}: hello\n\nid: 3\ndata: c\n\nevent: end\ndata: {{}}\n\n");
    let (url, asked) = server(vec![first, second]);
    let mut seen = Vec::new();
    let done = client(&url).follow("/api/v1/jobs/x/logs", |frame| {
        seen.push(frame.data.clone());
        Ok(())
    });
    assert_eq!(done, Ok(()));
    assert_eq!(seen, ["a", "b", "c"]);
    let asked = asked.join().unwrap();
    assert!(asked.iter().all(|asked| asked.contains("accept: text/event-stream\r\n")), "{asked:?}");
    assert!(!asked[0].contains("last-event-id") && asked[1].contains("last-event-id: 2\r\n"), "{asked:?}");
}

#[test]
fn values_in_a_query_are_encoded() {
    let parameters = [("label", "team=a&b".to_owned()), ("tag", "ü/x".to_owned())];
    assert_eq!(with_query("/jobs", &parameters), "/jobs?label=team%3Da%26b&tag=%C3%BC%2Fx");
    assert_eq!(with_query("/jobs", &[]), "/jobs");
}
