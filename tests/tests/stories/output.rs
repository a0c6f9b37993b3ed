//! A job's output on its way through `windlass run`.

use std::process::Command;
use std::thread;

use tests::process::Mark;
use tests::windlass::{Finished, Place, Running, contains, path};

/// Runs a line of shell in which `$WINDLASS` is the program, and `$0` is `script`.
fn shell(place: &Place, line: &str, script: &str) -> Finished {
    let mut shell = Command::new("sh");
    shell.args(["-c", line, script]).env("WINDLASS", path()).env("TMPDIR", place.path("tmp"));
    Running::start(shell).finish()
}

/// What `reader`, a line of shell, makes of the standard output of `windlass run -- sh -c SCRIPT`, and the code of `run`.
fn piped(script: &str, reader: &str) -> (String, String) {
    let place = Place::new();
    let ended =
        shell(&place, &format!("{{ $WINDLASS run -- sh -c \"$0\"; echo $? > {}; }} | {reader}", note(&place)), script);
    (ended.out().trim().to_owned(), code(&place))
}

fn code(place: &Place) -> String {
    std::fs::read_to_string(place.path("code")).expect("a code").trim().to_owned()
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
    let ended = shell(&place, "$WINDLASS run -- sh -c \"$0\" | sha256sum", script);
    let (sum, said) = (ended.out(), ended.said());
    assert!(sum.len() > 64 && said.lines().any(|line| line == sum.trim_end()), "{sum}: {said}");
}

#[test]
fn a_slow_reader_loses_nothing() {
    // More than all that lies between the two can hold; more than `run` itself holds, so that the job ends before its
    // output is read; and less than that. The reader takes longer than anything else is waited for.
    let lengths = [20_000_000, 4_700_000, 1_000_000];
    let read = |bytes: u32| piped(&format!("yes | head -c {bytes}"), "sh -c 'sleep 7; wc -c'");
    thread::scope(|scope| {
        for (bytes, reading) in lengths.map(|bytes| (bytes, scope.spawn(move || read(bytes)))) {
            assert_eq!(reading.join().expect("it is read"), (bytes.to_string(), "0".to_owned()));
        }
    });
}

#[test]
fn a_reader_who_leaves_ends_the_job() {
    let (place, mark) = (Place::new(), Mark::fresh());
    let (name, value) = mark.entry();
    let job = format!("exec env {name}={value} yes");
    let ended =
        shell(&place, &format!("{{ $WINDLASS run -- sh -c \"$0\"; echo $? > {}; }} | head -n 1", note(&place)), &job);
    assert_eq!((ended.out().as_str(), code(&place).as_str()), ("y\n", "141"), "{}", ended.said());
    assert!(mark.is_gone());
}
