//! What comes from a program of another version, as a test wants it: the variable `WINDLASS_PEERS` says that all others are
//! `later` (what they write has more fields than this program knows) or `earlier` (fields that were added are missing). Only
//! with the cargo feature `faults`, which no release has.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// Of which version the others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peers {
    Later,
    Earlier,
}

static PEERS: LazyLock<Option<Peers>> = LazyLock::new(|| match std::env::var("WINDLASS_PEERS").ok()?.as_str() {
    "later" => Some(Peers::Later),
    "earlier" => Some(Peers::Earlier),
    _ => None,
});

/// What a later version adds to everything that has fields.
const ADDED: &str = "of_a_later_version";
/// What messages have that those of the first version hadn't.
const LACKING: [&str; 2] = ["owner", "revoked"];
/// Where the names are the users' own, so that a field more would be an entry more.
const MAPS: [&str; 3] = ["env", "labels", "secrets"];

/// `bytes` as a program of the other version would have written them; as they are where no test wants anything.
pub fn as_written_by_peers(bytes: &[u8]) -> Option<Vec<u8>> {
    let peers = (*PEERS)?;
    let mut value = serde_json::from_slice(bytes).ok()?;
    match peers {
        Peers::Later => add(&mut value),
        Peers::Earlier => lack(&mut value),
    }
    serde_json::to_vec(&value).ok()
}

fn add(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(add),
        Value::Object(fields) => add_to(fields),
        _ => {}
    }
}

fn add_to(fields: &mut Map<String, Value>) {
    for (_, value) in fields.iter_mut().filter(|(name, _)| !MAPS.contains(&name.as_str())) {
        add(value);
    }
    // What has a single field may be a variant by its name.
    if fields.len() != 1 {
        fields.insert(ADDED.to_owned(), json!({"is": ["whatever", 1, null]}));
    }
}

fn lack(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|name, _| !LACKING.contains(&name.as_str()));
    }
}
