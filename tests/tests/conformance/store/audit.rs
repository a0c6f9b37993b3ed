//! The audit: each request once, read newest first, and never altered.

use coordinator::store::AuditLine;
use shared::clock;
use shared::id::{Actor, Attempt, JobId};
use tokio::task::JoinSet;

use super::Database;
use super::writer::{Writer, at, audit_line, client, request, shard, worker};

pub async fn a_line_of_the_audit_reads_back_as_it_was(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let whole = AuditLine {
        at: at(5),
        actor: Actor::Worker(worker()),
        origin: Some("192.0.2.7 via 10.0.0.2".to_owned()),
        action: "deploy_key.ask".to_owned(),
        subject: "app".to_owned(),
        outcome: "denied: the attempt is not current \u{1f600}".to_owned(),
        // Of a job that isn't there: somebody can ask for it all the same.
        job: Some(JobId::mint(shard(3), at(0), clock::random())),
        attempt: Some(Attempt(u32::MAX)),
        request: Some(request()),
    };
    let bare = AuditLine { at: at(4), actor: Actor::Coordinator, ..audit_line("app", "") };

    for line in [&whole, &bare] {
        assert_eq!(writer.store.audit(writer.id, line).await, Ok(true));
    }

    assert_eq!(Writer::of(database).await.store.audited(Some("app"), 10).await, Ok(vec![whole, bare]));
}

pub async fn a_request_has_one_line(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let asked = AuditLine { request: Some(request()), ..audit_line("app", "sealed") };
    let again = AuditLine { at: at(9), actor: client(), request: asked.request, ..audit_line("web", "denied") };
    let other = AuditLine { request: Some(request()), ..asked.clone() };
    let bare = audit_line("app", "bare");
    let audit = async |line| writer.store.audit(writer.id, line).await.unwrap();

    assert_eq!((audit(&asked).await, audit(&again).await, audit(&asked).await), (true, false, false));
    assert_eq!((audit(&bare).await, audit(&bare).await), (true, true), "without a request there is nothing to repeat");
    assert!(audit(&other).await);

    assert_eq!(writer.store.audited(Some("app"), 10).await, Ok(vec![other, bare.clone(), bare, asked]));
    assert_eq!(writer.store.audited(Some("web"), 10).await, Ok(vec![]));
}

pub async fn of_many_lines_of_one_request_at_once_one_is_written(database: &dyn Database) {
    let writer = Writer::of(database).await;
    for round in 1..=5 {
        let line = AuditLine { request: Some(request()), ..audit_line("app", "sealed") };
        let mut notes = JoinSet::new();
        for _ in 0..4 {
            let (store, id, line) = (database.open().await, writer.id, line.clone());
            notes.spawn(async move { store.audit(id, &line).await.unwrap() });
        }
        assert_eq!(notes.join_all().await.into_iter().filter(|noted| *noted).count(), 1);
        assert_eq!(writer.store.audited(Some("app"), 100).await.unwrap().len(), round);
    }
}

pub async fn the_audit_is_read_newest_first(database: &dyn Database) {
    let writer = Writer::of(database).await;
    // In the order in which two coordinators, whose clocks differ, may have written them.
    for (second, outcome) in [(2, "b"), (1, "a"), (3, "c"), (3, "d"), (2, "b too")] {
        let line = AuditLine { at: at(second), ..audit_line("app", outcome) };
        writer.store.audit(writer.id, &line).await.unwrap();
        writer.store.audit(writer.id, &AuditLine { subject: "App".to_owned(), ..line }).await.unwrap();
    }
    let read = async |limit| {
        let lines = writer.store.audited(Some("app"), limit).await.unwrap();
        lines.into_iter().map(|line| line.outcome).collect::<Vec<_>>()
    };

    assert_eq!(read(100).await, ["d", "c", "b too", "b", "a"]);
    assert_eq!(read(3).await, ["d", "c", "b too"]);
    let all = writer.store.audited(None, 3).await.unwrap();
    let all: Vec<_> = all.iter().map(|line| (line.subject.as_str(), line.outcome.as_str())).collect();
    assert_eq!(all, [("App", "b too"), ("app", "b too"), ("App", "d")], "of all the last written first");
    assert_eq!(writer.store.audited(Some("none"), 100).await, Ok(vec![]));
}

pub async fn the_database_refuses_to_alter_or_delete_a_line_of_the_audit(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let line = audit_line("app", "sealed");
    writer.store.audit(writer.id, &line).await.unwrap();

    let altered = database.raw("UPDATE audit SET outcome = 'denied'").await;
    let deleted = database.raw("DELETE FROM audit").await;

    assert!(altered.is_err_and(|why| why.contains("never altered")));
    assert!(deleted.is_err_and(|why| why.contains("never deleted")));
    assert_eq!(writer.store.audited(Some("app"), 10).await, Ok(vec![line]));
}

pub async fn lines_that_are_noted_together_read_back_in_their_order(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let job = JobId::mint(shard(3), at(0), clock::random());
    let lines: Vec<_> = (0..300)
        .map(|n| AuditLine {
            origin: (n % 2 == 0).then(|| "192.0.2.7".to_owned()),
            job: (n % 3 == 0).then_some(job),
            ..audit_line("app", &n.to_string())
        })
        .collect();

    assert_eq!(writer.store.note(writer.id, &lines).await, Ok(()));
    assert_eq!(writer.store.note(writer.id, &[]).await, Ok(()));

    let mut read = Writer::of(database).await.store.audited(None, 1000).await.unwrap();
    read.reverse();
    assert_eq!(read, lines);
}
