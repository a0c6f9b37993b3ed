//! Deploy keys: when one is stored, replaced and removed, and which jobs it unblocks.

use coordinator::store::{AuditLine, DEPLOY_KEYS_MAX, DeployKey, Error, KeyPut, MasterKeyCheck, Place, Resealed};
use serde_json::json;
use shared::id::Shard;
use shared::job::{Command, Job, WorkerWord};
use shared::log::LogSummary;
use shared::time::Period;
use tokio::task::JoinSet;

use super::Database;
use super::writer::{
    Writer, all_shards, at, audit_line, cancel, deploy_key, member, new_job, request, said, shard, worker,
};

pub async fn a_deploy_key_reads_back_as_it_was(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let key = DeployKey {
        name: "app".to_owned(),
        version: 1,
        algorithm: "ssh-ed25519".to_owned(),
        fingerprint: "SHA256:abc".to_owned(),
        public_key: "ssh-ed25519 AAAA app \u{1f600}".to_owned(),
        known_hosts: "git.example.com ssh-ed25519 BBBB\n[git.example.com]:22 ssh-rsa CCCC\n".to_owned(),
        private_key: vec![0, 159, 146, 150, b'!'],
        created_at: at(1),
        changed_at: at(2),
    };

    assert_eq!(put(&writer, &key, None).await, KeyPut::Stored);

    assert_eq!(Writer::of(database).await.store.key("app").await, Ok(Some(key)));
    assert_eq!(writer.store.key("App").await, Ok(None));
    assert_eq!(writer.store.key("").await, Ok(None));
}

pub async fn a_new_key_does_not_displace_one_of_its_name(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let (first, second) = (deploy_key("app", 1), DeployKey { algorithm: "ssh-rsa".to_owned(), ..deploy_key("app", 1) });

    assert_eq!(put(&writer, &first, None).await, KeyPut::Stored);
    assert_eq!(put(&writer, &second, None).await, KeyPut::Conflict);

    assert_eq!(writer.store.key("app").await, Ok(Some(first)));
    assert_eq!(outcomes(&writer, "app").await, ["version 1 of ssh-ed25519"]);
}

pub async fn a_key_is_replaced_by_whoever_knows_its_version(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let version = |version| DeployKey { private_key: vec![7; 40], changed_at: at(50), ..deploy_key("app", version) };
    let other = deploy_key("other", 1);
    for key in [&deploy_key("app", 1), &other] {
        assert_eq!(put(&writer, key, None).await, KeyPut::Stored);
    }

    assert_eq!(put(&writer, &deploy_key("none", 2), Some(1)).await, KeyPut::Conflict);
    assert_eq!(put(&writer, &version(3), Some(2)).await, KeyPut::Conflict);
    assert_eq!(put(&writer, &DeployKey { created_at: at(40), ..version(2) }, Some(1)).await, KeyPut::Stored);
    assert_eq!(put(&writer, &version(2), Some(1)).await, KeyPut::Conflict);

    // The time of its first version stays.
    assert_eq!(writer.store.keys(None, 10).await, Ok(vec![version(2), other]));
    assert_eq!(outcomes(&writer, "app").await, ["version 2 of ssh-ed25519", "version 1 of ssh-ed25519"]);
    assert!(outcomes(&writer, "none").await.is_empty());
}

pub async fn of_many_writers_of_one_key_one_is_heeded(database: &dyn Database) {
    let writer = Writer::of(database).await;

    for replaces in [None, Some(1), Some(2)] {
        let version = replaces.unwrap_or_default() + 1;
        let mut answers = at_once(database, &writer, (0..6).map(|_| (deploy_key("app", version), replaces))).await;
        assert_eq!(answers.pop(), Some(KeyPut::Conflict));
        answers.retain(|answer| *answer != KeyPut::Conflict);
        assert_eq!(answers, [KeyPut::Stored], "in place of {replaces:?}");
        assert_eq!(outcomes(&writer, "app").await.len(), version as usize);
    }
}

pub async fn a_removed_key_is_gone_and_can_be_stored_anew(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let (key, other) = (deploy_key("app", 4), deploy_key("other", 1));
    for key in [&key, &other] {
        put(&writer, key, None).await;
    }
    let remove = async |name: &str| writer.store.remove_key(writer.id, name, &audit_line(name, "removed")).await;

    assert_eq!(remove("app").await, Ok(true));
    assert_eq!(remove("app").await, Ok(false));
    assert_eq!(remove("none").await, Ok(false));

    assert_eq!(writer.store.keys(None, 10).await, Ok(vec![other]));
    assert_eq!(put(&writer, &key, None).await, KeyPut::Stored);
    let line = "version 4 of ssh-ed25519";
    assert_eq!(outcomes(&writer, "app").await, [line, "removed", line]);
    assert!(outcomes(&writer, "none").await.is_empty());
}

/// Its line can't be written, because its request has one.
pub async fn a_key_is_not_stored_or_removed_without_its_line(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let known = AuditLine { request: Some(request()), ..audit_line("app", "sealed") };
    assert_eq!(writer.store.audit(writer.id, &known).await, Ok(true));
    let key = deploy_key("app", 1);

    let refused = writer.store.put_key(writer.id, &key, None, &known).await;
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    assert_eq!(writer.store.key("app").await, Ok(None));

    put(&writer, &key, None).await;
    let refused = writer.store.put_key(writer.id, &deploy_key("app", 2), Some(1), &known).await;
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    let refused = writer.store.remove_key(writer.id, "app", &known).await;
    assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
    assert_eq!(writer.store.key("app").await, Ok(Some(key)));
}

pub async fn keys_are_listed_bytewise_page_by_page(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let names = ["10", "9", "B", "a", "a-1", "a.1", "aB", "a_1", "ab", "b"];
    for name in ["b", "a_1", "B", "ab", "a.1", "9", "aB", "a-1", "10", "a"] {
        put(&writer, &deploy_key(name, 1), None).await;
    }
    let page = async |after, limit| {
        let keys = writer.store.keys(after, limit).await.unwrap();
        keys.into_iter().map(|key| key.name).collect::<Vec<_>>()
    };

    assert_eq!(page(None, 100).await, names);
    assert_eq!(page(None, 4).await, names[..4]);
    assert_eq!(page(Some("a"), 4).await, names[4..8]);
    // That one needn't be there.
    assert_eq!(page(Some("a-2"), 100).await, names[5..]);
    assert!(page(Some("b"), 100).await.is_empty());
}

pub async fn registered_names_are_told_from_others(database: &dyn Database) {
    let writer = Writer::of(database).await;
    for name in ["b", "a", "c"] {
        put(&writer, &deploy_key(name, 1), None).await;
    }
    let registered = async |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut registered = writer.store.registered(&names).await.unwrap();
        registered.sort();
        registered
    };

    assert_eq!(registered(&["c", "B", "a", "", "d", "a"]).await, ["a", "c"]);
    assert!(registered(&[]).await.is_empty());
    assert!(registered(&["%"]).await.is_empty());
}

pub async fn only_so_many_keys_are_registered(database: &dyn Database) {
    let writer = Writer::of(database).await;
    database.raw(&database.filling_keys(DEPLOY_KEYS_MAX - 1)).await.unwrap();

    let new = (0..6).map(|n| (deploy_key(&format!("new-{n}"), 1), None));
    let answers = at_once(database, &writer, new).await;

    assert_eq!(answers[..2], [KeyPut::Stored, KeyPut::TooMany]);
    assert!(answers[1..].iter().all(|answer| *answer == KeyPut::TooMany), "{answers:?}");
    assert_eq!(writer.store.keys(None, DEPLOY_KEYS_MAX + 1).await.unwrap().len(), DEPLOY_KEYS_MAX as usize);
    // Those that are there can be replaced, and removing one makes room.
    let there = writer.store.keys(Some("new"), 1).await.unwrap().remove(0);
    assert_eq!(put(&writer, &there, None).await, KeyPut::Conflict);
    assert_eq!(put(&writer, &DeployKey { version: 2, ..there }, Some(1)).await, KeyPut::Stored);
    writer.store.remove_key(writer.id, "key-1", &audit_line("key-1", "removed")).await.unwrap();
    assert_eq!(put(&writer, &deploy_key("newest", 1), None).await, KeyPut::Stored);
    assert!(outcomes(&writer, "one-too-many").await.is_empty());
}

pub async fn jobs_that_wait_for_a_registered_key_are_unblocked(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let all = all_shards();
    let mut jobs = Vec::new();
    for (number, key) in (1..).zip(["app", "web", "app", "app", "app", "none"]) {
        jobs.push(parked(&mut writer, shard(number), key).await);
    }
    let unblocked = async |writer: &Writer, shards: &[Shard], after: Option<&Job>, limit| {
        writer.store.unblocked(shards, after.map(|job| job.id), limit).await.unwrap()
    };
    assert_eq!(unblocked(&writer, &all, None, 10).await, []);
    put(&writer, &deploy_key("app", 1), None).await;
    put(&writer, &deploy_key("unasked", 1), None).await;
    let found = |indexes: &[usize]| indexes.iter().map(|index| (jobs[*index].id, "app".to_owned())).collect::<Vec<_>>();

    assert_eq!(unblocked(&writer, &all, None, 10).await, found(&[0, 2, 3, 4]));
    assert_eq!(unblocked(&writer, &all, None, 3).await, found(&[0, 2, 3]));
    assert_eq!(unblocked(&writer, &all, Some(&jobs[3]), 3).await, found(&[4]));
    assert_eq!(unblocked(&writer, &all, Some(&jobs[4]), 3).await, []);
    assert_eq!(unblocked(&writer, &[shard(5), shard(2), shard(3)], None, 10).await, found(&[2, 4]));
    assert_eq!(unblocked(&writer, &[], None, 10).await, []);

    // What waits no longer isn't there, whatever it went on to, nor what waits for a key that is gone.
    writer.change(&jobs[0], Command::KeyRegistered { key: "app".to_owned() }, at(20)).await;
    writer.change(&jobs[2], cancel(), at(20)).await;
    writer.change(&jobs[3], Command::Wake, at(10_000)).await;
    assert_eq!(unblocked(&writer, &all, None, 10).await, found(&[4]));
    put(&writer, &deploy_key("web", 1), None).await;
    writer.store.remove_key(writer.id, "app", &audit_line("app", "removed")).await.unwrap();
    assert_eq!(unblocked(&writer, &all, None, 10).await, [(jobs[1].id, "web".to_owned())]);
}

/// A coordinator of an earlier version has led the job on, and left the key's name.
pub async fn a_job_that_is_not_blocked_any_more_is_not_unblocked(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let jobs = [parked(&mut writer, shard(1), "app").await, writer.submit_plain(shard(2)).await];
    put(&writer, &deploy_key("app", 1), None).await;

    database.raw("UPDATE jobs SET blocked_on = 'app'").await.unwrap();

    assert_eq!(writer.store.unblocked(&all_shards(), None, 10).await, Ok(vec![(jobs[0].id, "app".to_owned())]));
}

pub async fn who_may_not_write_changes_nothing_about_keys(database: &dyn Database) {
    let old = Writer::of(database).await;
    let key = deploy_key("app", 1);
    put(&old, &key, None).await;
    let check = MasterKeyCheck { id: "k1".to_owned(), check: [1; 32] };
    assert_eq!(old.store.add_master_key(old.id, &check).await, Ok(true));
    let new = Writer::of(database).await;
    let (line, replaced) = (audit_line("app", "late"), deploy_key("app", 2));
    let place = Place::DeployKey { name: "app".to_owned(), version: 1 };
    let resealed = Resealed { place, was: key.private_key.clone(), is: vec![1] };

    for (store, id) in [(&old.store, old.id), (&new.store, member().id)] {
        assert_eq!(store.put_key(id, &replaced, Some(1), &line).await, Err(Error::Fenced));
        assert_eq!(store.put_key(id, &deploy_key("new", 1), None, &line).await, Err(Error::Fenced));
        assert_eq!(store.remove_key(id, "app", &line).await, Err(Error::Fenced));
        assert_eq!(store.audit(id, &line).await, Err(Error::Fenced));
        assert_eq!(store.reseal(id, std::slice::from_ref(&resealed)).await, Err(Error::Fenced));
        assert_eq!(
            store.add_master_key(id, &MasterKeyCheck { id: "k2".to_owned(), ..check }).await,
            Err(Error::Fenced)
        );
        assert_eq!(store.remove_master_keys(id, std::slice::from_ref(&check.id)).await, Err(Error::Fenced));
    }

    assert_eq!(new.store.keys(None, 10).await, Ok(vec![key]));
    assert_eq!(new.store.master_keys().await, Ok(vec![check]));
    assert_eq!(outcomes(&new, "app").await, ["version 1 of ssh-ed25519"]);
}

/// Stores a key, with a line that says which.
async fn put(writer: &Writer, key: &DeployKey, replaces: Option<u32>) -> KeyPut {
    let line = audit_line(&key.name, &format!("version {} of {}", key.version, key.algorithm));
    writer.store.put_key(writer.id, key, replaces, &line).await.unwrap()
}

/// The same through as many handles at the same moment; what is stored comes first.
async fn at_once(
    database: &dyn Database,
    writer: &Writer,
    keys: impl Iterator<Item = (DeployKey, Option<u32>)>,
) -> Vec<KeyPut> {
    let mut puts = JoinSet::new();
    for (key, replaces) in keys {
        let (store, id) = (database.open().await, writer.id);
        puts.spawn(async move { put(&Writer { store, id, last: [].into() }, &key, replaces).await });
    }
    let mut answers = puts.join_all().await;
    answers.sort_by_key(|answer| *answer != KeyPut::Stored);
    answers
}

/// The outcomes in the audit about a key, the newest first.
async fn outcomes(writer: &Writer, name: &str) -> Vec<String> {
    writer.store.audited(Some(name), 100).await.unwrap().into_iter().map(|line| line.outcome).collect()
}

/// A job that waits for that key.
async fn parked(writer: &mut Writer, shard: Shard, key: &str) -> Job {
    let fields = json!({"repository": {"url": "/srv/app.git", "deploy_key": key}});
    let job = writer.submit(new_job(shard, fields, at(i64::from(shard.number())))).await;
    let job = writer.grant(&job, worker()).await;
    let park = WorkerWord::Park { key: key.to_owned(), wait: Period::from_secs(600), log: LogSummary::default() };
    writer.change(&job, said(&job, park), at(10)).await
}
