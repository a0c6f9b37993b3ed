//! What stands at the edges of a process: settings, sealed secrets, and the numbers of a log's lines.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use shared::id::Attempt;
use shared::log::{ATTEMPT_BYTES_MAX, Chunk, LINES_PER_ATTEMPT, LogSummary, Segment, Stream};
use shared::seal::{OneTimeKey, seal};
use shared::secret::{Secret, Secrets};
use shared::settings::{Fault, Settings};

use super::builders::{at, job_id};

#[test]
fn a_line_is_numbered_over_segments_chunks_and_attempts() {
    let first = chunk(1, 1, &["one\ntwo\n", "thr", "ee\n"]);
    let second = chunk(1, 1 + first.lines(), &["four\n\n", "", "no newline"]);
    assert_eq!(
        numbered(&first, 0),
        [(1, "one", false), (2, "two", false), (3, "thr", true), (4, "ee", false)].map(own)
    );
    assert_eq!(numbered(&second, 0), [(5, "four", false), (6, "", false), (7, "no newline", true)].map(own));
    assert_eq!(numbered(&second, 6), [(7, "no newline", true)].map(own));
    assert_eq!(numbered(&second, 7), []);
    assert_eq!((first.lines(), first.bytes(), second.lines(), second.bytes()), (4, 14, 3, 16));

    let retried = chunk(2, 1, &["again\n"]);
    assert_eq!(numbered(&retried, 7), [own((LINES_PER_ATTEMPT + 1, "again", false))], "numbers grow over attempts");
    const { assert!(LINES_PER_ATTEMPT > ATTEMPT_BYTES_MAX, "an attempt's log is made of fewer lines") };
}

#[test]
fn a_wrong_first_line_makes_no_panic() {
    let lines = numbered(&chunk(u32::MAX, u64::MAX, &["a\nb\n"]), 0);
    assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<u64>>(), [u64::MAX, u64::MAX]);
}

#[test]
fn an_empty_log_has_the_checksum_of_nothing() {
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned();
    assert_eq!(LogSummary::default(), LogSummary { chunks: 0, bytes: 0, sha256 });
}

#[test]
fn a_sealed_secret_opens_with_its_own_key_alone() {
    let (key, other) = (OneTimeKey::generate(), OneTimeKey::generate());
    let secrets = secrets(&[("TOKEN", "s3cr3t-wörd"), ("PEM", "-----BEGIN\nline\n")]);
    let sealed = seal(&secrets, &key.recipient()).expect("sealed");
    assert_eq!(key.open(&sealed).expect("opened"), secrets);
    assert!(other.open(&sealed).is_err());

    let wire = serde_json::to_string(&sealed).expect("JSON");
    assert!(!wire.contains("s3cr3t"), "{wire}");
    let place = wire.len() - 12;
    let other_digit = if wire[place..].starts_with('A') { "B" } else { "A" };
    let damaged = format!("{}{other_digit}{}", &wire[..place], &wire[place + 1..]);
    let damaged = serde_json::from_str(&damaged).expect("a text");
    assert!(key.open(&damaged).is_err());
    assert!(key.open(&serde_json::from_str("\"no base64!\"").expect("a text")).is_err());
    assert!(seal(&secrets, "nobody").is_err_and(|error| error.to_string() == "the recipient is not an age public key"));
}

#[test]
fn a_secret_shows_nothing_of_itself() {
    let key = OneTimeKey::generate();
    let secrets = secrets(&[("TOKEN", "s3cr3t")]);
    let sealed = seal(&secrets, &key.recipient()).expect("sealed");
    let shown = format!("{secrets:?} {sealed:?} {key:?} {:?}", key.open(&sealed));
    assert!(shown.contains("TOKEN") && !shown.contains("s3cr3t"), "{shown}");
}

#[test]
fn a_setting_is_its_variable_and_an_empty_one_is_unset() {
    let lookup = environment(&[("WINDLASS_SLOTS", "4"), ("EMPTY", ""), ("WRONG", "many")]);
    let settings = Settings::new(&lookup);
    assert_eq!(settings.parsed::<u32>("WINDLASS_SLOTS"), Ok(Some(4)));
    assert_eq!(settings.parsed::<u32>("EMPTY"), Ok(None));
    assert_eq!(settings.parsed::<u32>("UNSET"), Ok(None));
    assert_eq!(settings.text("EMPTY"), None);
    let fault = settings.parsed::<u32>("WRONG").expect_err("not a number");
    assert_eq!(fault.name, "WRONG");
    assert_eq!(fault.to_string(), "WRONG: invalid digit found in string");
}

#[test]
fn a_secret_setting_comes_by_variable_or_by_file_but_not_by_both() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, empty) = (dir.path().join("token"), dir.path().join("empty"));
    std::fs::write(&file, "from the file\r\n").expect("written");
    std::fs::write(&empty, "\n").expect("written");
    let secret = |variables: &[(&str, &str)]| {
        let lookup = environment(variables);
        Settings::new(&lookup).secret("TOKEN")
    };
    let path = file.to_str().expect("UTF-8");
    assert_eq!(secret(&[]), Ok(None));
    assert_eq!(secret(&[("TOKEN", "plain")]), Ok(Some("plain".to_owned())));
    assert_eq!(secret(&[("TOKEN_FILE", path)]), Ok(Some("from the file".to_owned())));
    assert_eq!(secret(&[("TOKEN", ""), ("TOKEN_FILE", path)]), Ok(Some("from the file".to_owned())));
    assert_eq!(secret(&[("TOKEN_FILE", empty.to_str().expect("UTF-8"))]), Ok(None));
    let both: Fault = secret(&[("TOKEN", "plain"), ("TOKEN_FILE", path)]).expect_err("both are set");
    assert_eq!(both.to_string(), "TOKEN: is set beside TOKEN_FILE: set one of the two");
    let missing = secret(&[("TOKEN_FILE", "/nowhere/at/all")]).expect_err("no such file");
    assert!(missing.to_string().starts_with("TOKEN_FILE: /nowhere/at/all: "), "{missing}");
}

#[test]
fn the_data_directory_falls_back_from_its_own_variable_to_the_home() {
    let dir = |variables: &[(&str, &str)]| {
        let lookup = environment(variables);
        Settings::new(&lookup).data_dir()
    };
    let (own, state, home) = (("WINDLASS_DATA_DIR", "/d"), ("XDG_STATE_HOME", "/s"), ("HOME", "/h"));
    assert_eq!(dir(&[own, state, home]), Ok(PathBuf::from("/d")));
    assert_eq!(dir(&[state, home]), Ok(PathBuf::from("/s/windlass")));
    assert_eq!(dir(&[home, ("XDG_STATE_HOME", "")]), Ok(PathBuf::from("/h/.local/state/windlass")));
    assert_eq!(dir(&[]).map_err(|fault| fault.name), Err("WINDLASS_DATA_DIR".to_owned()));
}

fn chunk(attempt: u32, first_line: u64, texts: &[&str]) -> Chunk {
    let segment = |text: &&str| Segment { at: at(1), step: Some(0), stream: Stream::Stdout, text: (*text).to_owned() };
    let segments = texts.iter().map(segment).collect();
    Chunk { job: job_id(), attempt: Attempt(attempt), number: 1, first_line, segments }
}

/// Number, text and whether it goes on, of each line after `after`.
fn numbered(chunk: &Chunk, after: u64) -> Vec<(u64, String, bool)> {
    chunk.lines_after(after).map(|line| (line.n, line.text, line.partial)).collect()
}

fn own((n, text, partial): (u64, &str, bool)) -> (u64, String, bool) {
    (n, text.to_owned(), partial)
}

fn secrets(entries: &[(&str, &str)]) -> Secrets {
    let entry = |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new((*value).to_owned()));
    Secrets(entries.iter().map(entry).collect::<BTreeMap<String, Secret>>())
}

fn environment(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'static {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables: HashMap<String, String> = variables.iter().map(owned).collect();
    move |name| variables.get(name).cloned()
}
