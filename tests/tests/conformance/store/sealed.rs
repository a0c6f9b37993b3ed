//! What is stored sealed, and under which master keys.

use coordinator::store::{DeployKey, KeyPut, MASTER_KEYS_MAX, MasterKeyCheck, NewJob, Place, Resealed};
use serde_json::json;
use shared::clock;
use shared::id::JobId;
use shared::job::submit;

use super::Database;
use super::writer::{Writer, at, audit_line, client, deploy_key, shard, spec};

/// What values under the master key in use begin with.
const HEADER: &[u8] = b"\x01\x02k2";

pub async fn what_is_sealed_otherwise_is_found_page_by_page(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let mut places = Vec::new();
    // Of each kind some are sealed as they should be, and one is shorter than the header.
    for (second, value) in [(1, "\x01\x02k1--"), (2, "\x01\x02k2--"), (3, "\x01"), (4, "\x02\x02k2-")] {
        let job = secretive(&mut writer, second, value.as_bytes()).await;
        places.push((Place::Job(job), value.as_bytes().to_vec()));
    }
    for (name, value) in [("a", "\x01\x02k1--"), ("B", "\x01\x02k2--"), ("C", "\x01\x02k"), ("b", "-\x01\x02k2")] {
        let place = keep(&writer, name, value.as_bytes()).await;
        places.push((place, value.as_bytes().to_vec()));
    }
    // Job secrets before deploy keys, these in the order of their names.
    let expected = [0, 2, 3, 6, 4, 7].map(|index: usize| places[index].clone());
    let page = async |after: Option<&Place>, limit| writer.store.sealed_otherwise(HEADER, after, limit).await.unwrap();

    assert_eq!(page(None, 100).await, expected);
    for limit in 1..=7 {
        let mut found: Vec<(Place, Vec<u8>)> = Vec::new();
        loop {
            let next = page(found.last().map(|(place, _)| place), limit).await;
            assert!(next.len() <= limit as usize);
            if next.is_empty() {
                break;
            }
            found.extend(next);
            assert!(found.len() <= expected.len(), "{found:?}");
        }
        assert_eq!(found, expected, "{limit} at a time");
    }
    // A later version of the key at which a page ended.
    let before = Place::DeployKey { name: "a".to_owned(), version: 0 };
    assert_eq!(page(Some(&before), 1).await, expected[4..5]);
}

pub async fn what_is_resealed_is_what_was_read(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let jobs = [secretive(&mut writer, 1, b"one").await, secretive(&mut writer, 2, b"two").await];
    let (app, web) = (keep(&writer, "app", b"one").await, keep(&writer, "web", b"two").await);
    let reseal = async |all: &[(Place, &[u8], &[u8])]| {
        let resealed =
            all.iter().map(|(place, was, is)| Resealed { place: place.clone(), was: was.to_vec(), is: is.to_vec() });
        writer.store.reseal(writer.id, &resealed.collect::<Vec<_>>()).await.unwrap()
    };
    let stored = async || {
        let keys = writer.store.keys(None, 10).await.unwrap().into_iter().map(|key| key.private_key);
        let mut stored: Vec<_> = keys.collect();
        for job in jobs {
            stored.push(writer.store.secrets(job).await.unwrap().expect("secrets"));
        }
        stored
    };
    let before = writer.store.key("app").await.unwrap().expect("a key");
    let stranger = Place::Job(JobId::mint(shard(1), at(0), clock::random()));
    let other_version = Place::DeployKey { name: "app".to_owned(), version: 1 };
    let none = Place::DeployKey { name: "none".to_owned(), version: 2 };

    let first = [
        (other_version, &b"one"[..], &b"other"[..]),
        (Place::Job(jobs[0]), b"one", b"ONE"),
        (app.clone(), b"one", b"ONE"),
        // Somebody was faster, or they are gone; the same is true of the first.
        (Place::Job(jobs[1]), b"one", b"ONE"),
        (web.clone(), b"one", b"ONE"),
        (stranger, b"one", b"ONE"),
        (none, b"one", b"ONE"),
    ];
    assert_eq!(reseal(&first).await, 2);
    assert_eq!(stored().await, [&b"ONE"[..], b"two", b"ONE", b"two"]);
    assert_eq!(reseal(&first).await, 0, "what was read is stored no more");
    assert_eq!(reseal(&[]).await, 0);
    let rest = [(Place::Job(jobs[1]), &b"two"[..], &b"TWO"[..]), (web, b"two", b"TWO")];
    assert_eq!(reseal(&rest).await, 2);
    assert_eq!(stored().await, [&b"ONE"[..], b"TWO", b"ONE", b"TWO"]);
    // Nothing else of the key has changed.
    let after = writer.store.key("app").await.unwrap();
    assert_eq!(after, Some(DeployKey { private_key: b"ONE".to_vec(), ..before }));
}

pub async fn a_master_key_keeps_its_check_until_it_is_forgotten(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let add = async |check: &MasterKeyCheck| writer.store.add_master_key(writer.id, check).await.unwrap();
    let (b, a, upper) = (check("b", 2), check("a", 1), check("B", 3));
    for check in [&b, &a, &upper, &check("a", 9)] {
        assert!(add(check).await);
    }

    assert_eq!(writer.store.master_keys().await, Ok(vec![upper, a.clone(), b.clone()]));

    let forget = async |ids: &[&str]| {
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        writer.store.remove_master_keys(writer.id, &ids).await.unwrap();
    };
    forget(&["a", "B", "none"]).await;
    forget(&[]).await;
    assert_eq!(writer.store.master_keys().await, Ok(vec![b.clone()]));
    assert!(add(&check("a", 9)).await);
    assert_eq!(writer.store.master_keys().await, Ok(vec![check("a", 9), b]));
}

pub async fn only_so_many_master_keys_are_known(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let add = async |id: &str| writer.store.add_master_key(writer.id, &check(id, 1)).await.unwrap();
    for number in 1..=MASTER_KEYS_MAX {
        assert!(add(&format!("k{number}")).await, "{number}");
    }

    assert!(!add("one-too-many").await);
    assert!(add("k1").await, "it is known");
    assert_eq!(writer.store.master_keys().await.unwrap().len(), MASTER_KEYS_MAX as usize);
    writer.store.remove_master_keys(writer.id, &["k1".to_owned()]).await.unwrap();
    assert!(add("one-too-many").await);
}

fn check(id: &str, byte: u8) -> MasterKeyCheck {
    MasterKeyCheck { id: id.to_owned(), check: [byte; 32] }
}

/// A job of that second with such sealed secrets.
async fn secretive(writer: &mut Writer, second: i64, value: &[u8]) -> JobId {
    let id = JobId::mint(shard(1), at(second), clock::random());
    let transition = submit(id, spec(json!({})), true, None, client(), at(second));
    writer.submit(NewJob { transition, secrets: Some(value.to_vec()), idempotency: None }).await.id
}

/// The second version of a key, with such a private half.
async fn keep(writer: &Writer, name: &str, value: &[u8]) -> Place {
    let key = DeployKey { private_key: value.to_vec(), ..deploy_key(name, 2) };
    let put = writer.store.put_key(writer.id, &key, None, &audit_line(name, "registered")).await;
    assert_eq!(put, Ok(KeyPut::Stored));
    Place::DeployKey { name: name.to_owned(), version: 2 }
}
