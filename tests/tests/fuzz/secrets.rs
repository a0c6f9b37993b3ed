//! What is sealed or encrypted, and keys: sealed blobs, stored ciphertexts, private keys, host keys.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coordinator::fuzzed::{Pair, known_hosts_fault};
use coordinator::store::{DeployKey, Place};
use coordinator::vault::{MasterKeys, Vault};
use serde_json::{Value, json};
use shared::seal::{self, OneTimeKey, Sealed};
use shared::secret::{Secret, Secrets};

use super::campaign::{Bounds, alone, campaign, campaign_of, share};
use super::samples::{at, job};

/// A sealed blob comes in a message of the bus.
const SEALED: Bounds = Bounds { largest: 1024 * 1024, peak: 8, total: 24, fixed: 1 << 20 };
/// What a database column may bring; ours have a quarter of a MiB.
const STORED: Bounds = Bounds { largest: 1024 * 1024, peak: 8, total: 16, fixed: 1 << 20 };
/// The largest text of a key that is looked at has 16 KiB.
const KEY: Bounds = Bounds { largest: 1024 * 1024, peak: 8, total: 16, fixed: 1 << 20 };

pub fn secrets() -> Secrets {
    Secrets([("TOKEN".to_owned(), Secret::new("hunter2-hunter2".to_owned()))].into())
}

/// Secrets that are sealed, and what opens them.
pub fn sealed() -> (Sealed, OneTimeKey) {
    let key = OneTimeKey::generate();
    (seal::seal(&secrets(), &key.recipient()).expect("they can be sealed"), key)
}

fn blob(text: String) -> Sealed {
    serde_json::from_value(Value::String(text)).expect("a text")
}

#[test]
fn no_spoiled_blob_opens_as_something_else() {
    let (sealed, key) = sealed();
    let text = json!(sealed).as_str().expect("a text").to_owned();
    let open = |text: String| {
        if let Ok(opened) = key.open(&blob(text)) {
            assert_eq!(opened, secrets(), "a blob that was changed opens as something else");
        }
    };
    campaign("a sealed blob", SEALED, &[text.clone().into_bytes()], |bytes| {
        open(String::from_utf8_lossy(bytes).into_owned());
    });
    let inside = STANDARD.decode(&text).expect("base64");
    campaign("what is in a sealed blob", SEALED, std::slice::from_ref(&inside), |bytes| open(STANDARD.encode(bytes)));
}

#[test]
fn no_long_head_of_a_blob_costs_the_square_of_its_length() {
    // As long as a message, and valid as far as it goes.
    let (_, key) = sealed();
    for unit in ["-> X25519 a\n\n", "-> a b c d e f g\nAAAA\n", "-> x\n"] {
        let head = format!("age-encryption.org/v1\n{}", unit.repeat(SEALED.largest / unit.len()));
        alone("a long head", SEALED, head.as_bytes(), |bytes| drop(key.open(&blob(STANDARD.encode(bytes)))));
    }
}

#[test]
fn any_recipient_is_one_or_none() {
    let samples = [OneTimeKey::generate().recipient().into_bytes(), b"age1".to_vec()];
    campaign("a recipient", KEY, &samples, |bytes| {
        drop(seal::seal(&secrets(), &String::from_utf8_lossy(bytes)).map_err(|error| error.to_string()));
    });
}

#[test]
fn no_spoiled_ciphertext_opens() {
    let vault = Vault::new(MasterKeys::generate().0);
    let stored = vault.encrypt(job(), &secrets()).expect("it encrypts").expect("there are secrets");
    campaign("stored secrets", STORED, std::slice::from_ref(&stored), |bytes| {
        assert!(vault.decrypt(job(), bytes).is_err() || bytes == stored);
        assert!(vault.reseal(&Place::Job(job()), bytes).is_err() || bytes == stored);
    });
    let private_key = vault.encrypt_key("app", 1, &Secret::new("the private half".to_owned())).expect("it encrypts");
    let row = DeployKey {
        name: "app".to_owned(),
        version: 1,
        algorithm: "ssh-ed25519".to_owned(),
        fingerprint: "SHA256:x".to_owned(),
        public_key: "ssh-ed25519 x".to_owned(),
        known_hosts: "host ssh-ed25519 x".to_owned(),
        private_key: private_key.clone(),
        created_at: at(0),
        changed_at: at(0),
    };
    campaign("a stored deploy key", STORED, std::slice::from_ref(&private_key), |bytes| {
        let opened = vault.decrypt_key(&DeployKey { private_key: bytes.to_vec(), ..row.clone() });
        assert!(opened.is_err() || bytes == private_key);
    });
}

/// Private keys in OpenSSH's format, one of each kind that can be used.
pub fn private_keys() -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let kinds = [("ed25519", "256"), ("rsa", "2048"), ("ecdsa", "256"), ("ecdsa", "384")];
    let made = kinds.iter().enumerate().map(|(number, (kind, bits))| {
        let file = dir.path().join(number.to_string());
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", kind, "-b", bits, "-N", "", "-f"]).arg(&file);
        assert!(keygen.status().expect("ssh-keygen runs").success());
        std::fs::read_to_string(file).expect("a key")
    });
    made.collect()
}

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
const END: &str = "-----END OPENSSH PRIVATE KEY-----\n";

/// What stands between the lines around a key.
pub fn inside(key: &str) -> Vec<u8> {
    let lines: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(lines).expect("base64")
}

/// A key of those bytes, in the lines that it has in a file.
pub fn outside(inside: &[u8]) -> String {
    let text = STANDARD.encode(inside);
    let lines = text.as_bytes().chunks(70).map(|line| format!("{}\n", String::from_utf8_lossy(line)));
    [BEGIN, &lines.collect::<String>(), END].concat()
}

#[test]
fn any_private_key_is_read_or_refused() {
    let keys = private_keys();
    let read = |text: String| match Pair::read(&Secret::new(text), "app") {
        Ok(pair) => assert!(pair.public_key.contains("windlass:app"), "{}", pair.public_key),
        Err(why) => assert!(!why.is_empty()),
    };
    for (key, kind) in keys.iter().zip(["ed25519", "rsa", "p256", "p384"]) {
        campaign(&format!("a private key ({kind})"), KEY, &[key.clone().into_bytes()], |bytes| {
            read(String::from_utf8_lossy(bytes).into_owned());
        });
        let name = format!("what is in a private key ({kind})");
        campaign_of(&name, share(1), KEY, &[inside(key)], |bytes| read(outside(bytes)));
    }
}

#[test]
fn any_host_keys_are_taken_or_refused() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let text = format!(
        "# hosts\n\n[git.example.org]:2222,10.0.0.7 {key} a comment\r\n@revoked other {key}\n|1|c2FsdA==|aGFzaA== {key}\n"
    );
    campaign("host keys", KEY, &[text.into_bytes()], |bytes| {
        drop(known_hosts_fault(&String::from_utf8_lossy(bytes)));
    });
}
