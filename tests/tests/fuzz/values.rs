//! Values that are read from texts, wherever those come from, and settings; what the store keeps as JSON, and what a client
//! reads of an answer.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use coordinator::vault::MasterKeys;
use shared::bus::nats::lookout;
use shared::id::{Actor, Attempt, CommitId, JobId, WorkerId};
use shared::job::{Hold, State, StateName, Told};
use shared::log::{Line, LogSummary};
use shared::settings::Settings;
use shared::spec::reader::FieldError;
use shared::spec::{JobSpec, KeyBackoff, Priority, RetryOn};
use shared::time::{Period, Time};
use shared::view::{DeployKeyView, EventView};

use super::campaign::{Bounds, campaign};
use super::samples::{all, at, chunk, events, failures, instance, specs, worker};

const TEXT: Bounds = Bounds { largest: 1024 * 1024, peak: 4, total: 16, fixed: 1 << 16 };
/// What the store keeps, and a client is sent, is no larger than that, and typed.
const KEPT: Bounds = Bounds { largest: 1024 * 1024, peak: 48, total: 96, fixed: 1 << 20 };

/// What is read must be written in a form that is read as the same.
fn texts<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(name: &str, samples: &[&str]) {
    let samples: Vec<Vec<u8>> = samples.iter().map(|text| text.as_bytes().to_vec()).collect();
    campaign(name, TEXT, &samples, |bytes| {
        let Ok(Ok(value)) = std::str::from_utf8(bytes).map(str::parse::<T>) else { return };
        let again = value.to_string().parse::<T>();
        assert_eq!(again.expect("what we write can be read"), value);
    });
}

#[test]
fn any_text_is_a_time_a_period_or_neither() {
    let times =
        ["2026-12-01T08:00:00Z", "2026-12-01t08:00:00.123456789+23:59", "9999-12-30T22:00:00Z", "0001-01-01 00:00:00Z"];
    texts::<Time>("a time", &times);
    texts::<Period>("a period", &["1d2h3m4s5ms", "365d", "0s", "500ms"]);
}

#[test]
fn any_text_is_an_id_or_none() {
    let id = "01934f5e-0000-7000-8000-00000000004d";
    texts::<JobId>("a job's id", &[id]);
    texts::<WorkerId>(
        "a worker's id",
        &[id, "01934f5e00007000800000000000004d", "{01934f5e-0000-7000-8000-00000000004d}"],
    );
    texts::<StateName>("a state", &["running", "canceled"]);
    texts::<RetryOn>("a reason to retry", &["exit:255", "worker_lost"]);
    texts::<ByName<Priority>>("a priority", &["urgent"]);
    texts::<ByName<KeyBackoff>>("a backoff", &["fibonacci"]);
    let samples = ["a".repeat(40), "0".repeat(64)].map(String::into_bytes);
    campaign("a commit", TEXT, &samples, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Ok(commit) = CommitId::try_from(text.to_owned()) else { return };
        assert!(["sha1", "sha256"].contains(&commit.object_format()) && commit.as_str().as_bytes() == bytes);
    });
    let samples = ["coordinator".to_owned(), format!("worker:{id}"), "client:ci".to_owned()].map(String::into_bytes);
    campaign("an actor", TEXT, &samples, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Ok(actor) = Actor::try_from(text.to_owned()) else { return };
        assert_eq!(Actor::try_from(actor.to_string()).as_ref(), Ok(&actor));
    });
}

/// A word that stands for one of few, shown by what serialises it.
#[derive(Debug, PartialEq)]
struct ByName<T>(T);

impl<T: FromStr> FromStr for ByName<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse().map(Self)
    }
}

impl<T: serde::Serialize> Display for ByName<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = serde_json::to_value(&self.0).map_err(|_| std::fmt::Error)?;
        f.write_str(word.as_str().unwrap_or_default())
    }
}

#[test]
fn any_setting_is_used_or_refused() {
    let files = tempfile::tempdir().expect("a directory");
    let file = files.path().join("secret");
    let samples = ["4096", "10s", "hunter2\r\n", "first:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="];
    campaign("a setting", TEXT, &samples.map(|text| text.as_bytes().to_vec()), |bytes| {
        let Ok(told) = std::str::from_utf8(bytes) else { return };
        let lookup = |name: &str| match name {
            "SECRET_FILE" => Some(file.display().to_string()),
            "SECRET" => None,
            _ => Some(told.to_owned()),
        };
        let settings = Settings::new(&lookup);
        drop((settings.parsed::<u32>("N"), settings.parsed::<bool>("B"), settings.parsed::<Period>("P")));
        drop((settings.data_dir(), settings.flag_or::<u32>(None, "N"), settings.secret("BOTH")));
        if bytes.len() < 4096 {
            std::fs::write(&file, bytes).expect("a file");
            if let Ok(Some(secret)) = settings.secret("SECRET") {
                assert!(bytes.starts_with(secret.as_bytes()) && !secret.ends_with('\n'));
            }
        }
    });
}

#[test]
fn any_list_of_master_keys_is_taken_or_refused() {
    let key = |id: &str| format!("{id}:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let samples = [key("first"), [key("next"), key("first")].join(","), key(&"x".repeat(64))].map(String::into_bytes);
    campaign("master keys", TEXT, &samples, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        drop(MasterKeys::parse(text).map_err(|error| error.to_string()));
    });
}

#[test]
fn any_version_of_a_server_is_new_enough_or_not() {
    let samples = ["2.9.10", "v2.11.0-preview.1", "3.0"].map(|text| text.as_bytes().to_vec());
    campaign("a server's version", TEXT, &samples, |bytes| {
        let Ok(version) = std::str::from_utf8(bytes).map(str::to_owned) else { return };
        let info = async_nats::ServerInfo { version, max_payload: 1 << 20, jetstream: true, ..Default::default() };
        drop(lookout::check_server(&info));
    });
}

fn kept<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(name: &str, samples: &[T]) {
    campaign(name, KEPT, &all(samples), |bytes| {
        let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
        let again = serde_json::to_vec(&value).map(|json| serde_json::from_slice::<T>(&json));
        assert_eq!(again.expect("it has a JSON form").expect("what we write can be read"), value);
    });
}

#[test]
fn any_row_of_the_store_is_read_or_corrupt() {
    let claim = shared::id::ClaimId(uuid::Uuid::from_u128(4));
    let hold = || Hold { worker: worker(), instance: instance(), claim, deadline: at(60), reports: 3 };
    let mut states = vec![
        State::Scheduled { until: at(5) },
        State::Blocked { key: "app".to_owned(), until: at(5) },
        State::Queued { expires: at(5) },
        State::Assigned(hold()),
        State::Running(hold()),
        State::Succeeded,
    ];
    states.extend(failures().into_iter().map(|failure| State::Failed { failure }));
    kept("a stored state", &states);
    kept::<JobSpec>("a stored specification", &specs());
    kept("what was told", &[Told { attempt: Attempt(2), log: LogSummary::default() }]);
}

#[test]
fn any_answer_of_the_api_is_read_or_refused() {
    kept("an event of a timeline", &events().iter().map(EventView::from).collect::<Vec<_>>());
    kept("a line of a log", &chunk().lines_after(0).collect::<Vec<Line>>());
    kept("a refused field", &[FieldError::new("steps[0].run", "is required")]);
    let key = DeployKeyView {
        name: "app".to_owned(),
        version: 1,
        algorithm: "ssh-ed25519".to_owned(),
        fingerprint: "SHA256:x".to_owned(),
        public_key: "ssh-ed25519 x".to_owned(),
        known_hosts: "host ssh-ed25519 x\n".to_owned(),
        created_at: at(0),
        changed_at: at(1),
    };
    kept("a deploy key", &[key]);
}
