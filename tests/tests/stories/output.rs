//! A job's output on its way through `windlass run`.

use std::process::{Command, Stdio};

use tests::process::{Mark, Owned};
use tests::windlass::{Place, contains, path};

/// What `reader`, a line of shell, makes of the standard output of `windlass run -- sh -c SCRIPT`: what it prints, and
/// the code of `run`.
fn piped(place: &Place, script: &str, reader: &str) -> (String, i32) {
    let line = format!("{{ {} run -- sh -c \"$0\"; echo $? > {}; }} | {reader}", path().display(), note(place));
    let mut shell = Command::new("sh");
    shell.args(["-c", &line, script]).env("TMPDIR", place.path("tmp")).stdin(Stdio::null());
    let output = shell.output().expect("a shell");
    let code = std::fs::read_to_string(note(place)).expect("a code");
    (String::from_utf8(output.stdout).expect("UTF-8"), code.trim().parse().expect("a number"))
}

fn note(place: &Place) -> String {
    place.path("code").display().to_string()
}

#[test]
fn bytes_arrive_unchanged_and_the_streams_apart() {
    let place = Place::new();
    let script = r"printf '\000\377\376 \r\n\033[31m\n\nno newline'; printf 'to err\200\n' >&2";
    let ended = place.run(&["--", "sh", "-c", script]);
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stdout, b"\0\xff\xfe \r\n\x1b[31m\n\nno newline");
    assert!(contains(&ended.stderr, b"to err\x80\n"), "{}", ended.said());
}

#[test]
fn a_hundred_megabytes_arrive_whole() {
    let place = Place::new();
    let script = "head -c 100000000 /dev/urandom > bytes; sha256sum < bytes >&2; cat bytes";
    let line = format!("{} run -- sh -c \"$0\" | sha256sum", path().display());
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", &line, script]).env("TMPDIR", place.path("tmp")).output().expect("a shell");
    let sum = String::from_utf8(output.stdout).expect("UTF-8");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(sum.len() > 64 && said.lines().any(|line| line == sum.trim_end()), "{sum}: {said}");
}

#[test]
fn a_slow_reader_loses_nothing() {
    let place = Place::new();
    // More than all that lies between the two can hold, and less, so that the job ends before it is read.
    for bytes in [20_000_000, 3_000_000] {
        let (read, code) = piped(&place, &format!("yes | head -c {bytes}"), "sh -c 'sleep 4; wc -c'");
        assert_eq!((read.trim(), code), (bytes.to_string().as_str(), 0));
    }
}

#[test]
fn a_reader_who_leaves_ends_the_job() {
    let (place, mark) = (Place::new(), Mark::fresh());
    let (name, value) = mark.entry();
    let line = format!("{{ {} run -- yes; echo $? > {}; }} | head -n 1", path().display(), note(&place));
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).env("TMPDIR", place.path("tmp")).env(name, value).stdin(Stdio::null());
    let mut shell = Owned(shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell"));
    shell.0.wait().expect("its end");
    assert_eq!(std::fs::read_to_string(note(&place)).expect("a code"), "141\n");
    assert!(mark.is_gone());
}
