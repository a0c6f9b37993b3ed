//! The command line against a server that answers with anything, and with settings that are anything. It ends with a code of
//! its own, never with a panic, and takes no more memory than a limit of the system allows it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::json;
use shared::view::EventView;
use tests::windlass::{Running, windlass};

use super::campaign::{runner, share};
use super::samples::{chunk, events, json_of};
use super::spoiling::{inputs, spoiled};

/// The most memory that a command may have for itself.
const MEMORY_MAX: u64 = 512 * 1024 * 1024;

/// What a panic ends a program of ours with.
const PANICKED: i32 = 101;

fn drawn(name: &str, cases: u32, from: &BoxedStrategy<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut runner = runner(name, cases);
    (0..cases).map(|_| from.new_tree(&mut runner).expect("an input").current()).collect()
}

/// Runs a command to its end.
fn run(mut command: Command) -> String {
    // SAFETY: `setrlimit` is safe to call between `fork` and `exec`.
    unsafe {
        command.pre_exec(|| setrlimit(Resource::RLIMIT_DATA, MEMORY_MAX, MEMORY_MAX).map_err(Into::into));
    }
    let ended = Running::start(command).finish();
    let said = ended.said();
    assert!(ended.code.is_some_and(|code| code != PANICKED) && !said.contains("panicked"), "{:?}: {said}", ended.code);
    said
}

/// Answers each connection with `answer` until nobody asks any more.
fn serve(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer_one = move |mut stream: TcpStream| {
        let mut request = [0; 4096];
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = stream.read(&mut request);
        // It may have hung up.
        let _ = stream.write_all(&answer);
    };
    thread::spawn(move || listener.incoming().flatten().for_each(answer_one));
    url
}

/// An answer of HTTP with that body, to its last byte.
fn answered(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn ask(url: &str, arguments: &[&str]) {
    let mut command = windlass();
    command.args(arguments).args(["--url", url]).env("WINDLASS_TOKEN", "t0ken");
    run(command);
}

#[test]
fn any_answer_of_a_server_is_read_or_refused() {
    let id = "01934f5e-0000-7000-8000-00000000004d";
    let timeline: Vec<EventView> = events().iter().map(EventView::from).collect();
    let lines: Vec<_> = chunk().lines_after(0).collect();
    let next = lines.last().map_or(0, |line| line.n);
    let pages = [
        (vec!["job", "show", id], json_of(&json!({"events": timeline}))),
        (vec!["job", "logs", id], json_of(&json!({"lines": lines, "next": next}))),
        (vec!["job", "list"], json_of(&json!({"jobs": [], "next_cursor": null}))),
        (vec!["key", "list"], json_of(&json!({"deploy_keys": [], "next_cursor": null}))),
        (vec!["workers", "list"], json_of(&json!({"workers": []}))),
    ];
    for (arguments, sample) in pages {
        for body in drawn(&arguments.join(" "), share(32), &inputs(&[sample])) {
            ask(&serve(answered("200", "application/json", &body)), &arguments);
        }
    }
    let problem = json_of(&json!({"title": "no", "detail": "no", "errors": [{"field": "a", "detail": "b"}]}));
    for body in drawn("a problem", share(32), &inputs(&[problem])) {
        ask(&serve(answered("422", "application/problem+json", &body)), &["job", "show", id]);
    }
}

#[test]
fn any_stream_of_a_server_is_followed_or_given_up() {
    let id = "01934f5e-0000-7000-8000-00000000004d";
    let frame = |line: &shared::log::Line| format!("id: {}\ndata: {}\n\n", line.n, json!(line));
    let sample: String = chunk().lines_after(0).map(|line| frame(&line)).collect();
    for mut body in drawn("a stream", share(32), &spoiled(&[sample.into_bytes()])) {
        // A stream that has an end, whatever came before: one that breaks off is taken up again after a while.
        body.extend(b"\n\nevent: end\ndata: {}\n\n");
        ask(&serve(answered("200", "text/event-stream", &body)), &["job", "logs", "-f", id]);
    }
}

#[test]
fn any_setting_of_a_process_is_used_or_refused() {
    let settings = [
        ("WINDLASS_SLOTS", "4"),
        ("WINDLASS_TAG", "linux,x86_64"),
        ("WINDLASS_KEY_RETRY", "tries=5,backoff=exponential,first=1s,max=30s,deadline=2m"),
        ("WINDLASS_DATABASE_URL", "mysql://user:hunter2@db/windlass"),
        ("WINDLASS_MASTER_KEYS", "first:AAAA"),
        ("WINDLASS_ADVERTISE_URL", "http://10.0.0.7:7070"),
        ("WINDLASS_URL", "http://127.0.0.1:1"),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    for (name, sample) in settings {
        for value in drawn(name, share(64), &spoiled(&[sample.as_bytes().to_vec()])) {
            // A variable holds no NUL, and not much.
            let value: Vec<u8> = value.into_iter().filter(|byte| *byte != 0).take(100_000).collect();
            let mut command = windlass();
            // Whatever else is wrong, none of these gets as far as to serve: their directory can't be made.
            command.arg(if name.contains("URL") || name.contains("KEYS") { "coordinator" } else { "worker" });
            command
                .env("HOME", dir.path())
                .env("WINDLASS_DATA_DIR", "/dev/null/nowhere")
                .env("WINDLASS_LISTEN", "nowhere");
            command.env(name, std::ffi::OsString::from_vec(value));
            run(command);
        }
    }
}
