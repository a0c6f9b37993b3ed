//! Workers and tokens: who may become one, what a hello changes, what is wanted of a worker.

use coordinator::store::{Enrolled, ROSTER_MAX, Seen, Token, TokenKind, Worker};
use shared::clock;
use shared::id::{Instance, TokenId};
use shared::role::Role;
use shared::wire::{Hello, Welcome, WorkerMode};

use super::Database;
use super::writer::{Writer, at, audit_line, hello, new_worker, token, worker};

pub async fn a_join_token_makes_workers_until_it_expires(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let join = Token { expires_at: Some(at(100)), ..token(TokenKind::Join) };
    let admin = token(TokenKind::Role(Role::Admin));
    for token in [&join, &admin] {
        assert_eq!(writer.store.add_token(writer.id, token, &audit_line("token", "")).await, Ok(true));
    }
    let (first, second, third) = (new_worker(), new_worker(), new_worker());
    let enrol = async |digest, worker, now| writer.store.enrol(writer.id, digest, worker, now).await.unwrap();

    assert_eq!(enrol(join.digest, &first, at(1)).await, Enrolled::Yes);
    assert_eq!(enrol(join.digest, &second, at(99)).await, Enrolled::Yes);
    assert_eq!(enrol(join.digest, &third, at(100)).await, Enrolled::NoToken);
    assert_eq!(enrol(admin.digest, &third, at(1)).await, Enrolled::NoToken);
    assert_eq!(enrol(clock::random(), &third, at(1)).await, Enrolled::NoToken);

    let known = |new: &coordinator::store::NewWorker, enrolled_at| Worker {
        id: new.id,
        name: new.name.clone(),
        key: new.key.clone(),
        mode: WorkerMode::Active,
        enrolled_at,
        revoked_at: None,
        seen: None,
    };
    let mut expected = vec![known(&first, at(1)), known(&second, at(99))];
    expected.sort_by_key(|worker| worker.id);
    assert_eq!(writer.store.workers().await.unwrap(), expected);
}

pub async fn only_so_many_workers_enrol(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let join = token(TokenKind::Join);
    writer.store.add_token(writer.id, &join, &audit_line("token", "")).await.unwrap();
    database.raw(&database.filling_workers(ROSTER_MAX - 1)).await.unwrap();

    let last = writer.store.enrol(writer.id, join.digest, &new_worker(), at(1)).await;
    let beyond = writer.store.enrol(writer.id, join.digest, &new_worker(), at(1)).await;

    assert_eq!((last, beyond), (Ok(Enrolled::Yes), Ok(Enrolled::TooMany)));
}

pub async fn a_hello_is_noted_with_all_that_it_says(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let id = writer.enrolled().await;
    let said = Hello { slots: 7, running: 3, draining: true, start: 5, ..hello(id, &["b", "a"]) };

    let welcome = writer.store.welcome(writer.id, &said, at(10)).await.unwrap();

    assert_eq!(welcome, Some(Welcome { tag_sets: vec![vec![]], mode: WorkerMode::Active, revoked: false }));
    let Hello { instance, start, tags, slots, running, draining, .. } = said;
    assert_eq!(seen(&writer).await, Seen { at: at(10), instance, start, tags, slots, running, draining });
}

pub async fn a_stranger_is_not_welcomed(database: &dyn Database) {
    let writer = Writer::of(database).await;

    assert_eq!(writer.store.welcome(writer.id, &hello(worker(), &[]), at(0)).await, Ok(None));
    assert_eq!(writer.store.workers().await, Ok(vec![]));
    assert_eq!(
        writer.store.set_mode(writer.id, worker(), WorkerMode::Paused, &audit_line("worker", "")).await,
        Ok(None)
    );
}

pub async fn a_hello_of_an_earlier_start_changes_nothing(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let id = writer.enrolled().await;
    let early = hello(id, &["old"]);
    let late = Hello { start: 2, ..hello(id, &["new"]) };
    writer.store.welcome(writer.id, &late, at(1)).await.unwrap();
    let known = seen(&writer).await;

    assert_eq!(writer.store.welcome(writer.id, &early, at(100)).await, Ok(None));

    assert_eq!(seen(&writer).await, known);
}

pub async fn a_hello_that_says_nothing_new_is_written_down_every_few_seconds(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let said = hello(writer.enrolled().await, &["a"]);
    let mut noted = Vec::new();
    for second in [0, 1, 3, 4, 7, 8] {
        writer.store.welcome(writer.id, &said, at(second)).await.unwrap();
        noted.push(seen(&writer).await.at);
    }
    assert_eq!(noted, [0, 0, 0, 4, 4, 8].map(at));

    let busier = Hello { running: 1, ..said };
    writer.store.welcome(writer.id, &busier, at(9)).await.unwrap();
    assert_eq!((seen(&writer).await.at, seen(&writer).await.running), (at(9), 1));
}

pub async fn a_restart_ends_a_drain_and_nothing_else_that_is_wanted(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let id = writer.enrolled().await;
    let first = hello(id, &[]);
    let welcomed = async |hello: &Hello, second| {
        writer.store.welcome(writer.id, hello, at(second)).await.unwrap().map(|welcome| welcome.mode)
    };
    welcomed(&first, 0).await;

    for (mode, after) in [(WorkerMode::Draining, WorkerMode::Active), (WorkerMode::Paused, WorkerMode::Paused)] {
        let set = writer
            .store
            .set_mode(writer.id, id, mode, &audit_line("worker", ""))
            .await
            .unwrap()
            .expect("a known worker");
        assert_eq!((set.id, set.mode), (id, mode));
        assert_eq!(welcomed(&first, 1).await, Some(mode), "the same instance");
        let anew = Hello { instance: Instance(clock::random_uuid()), ..first.clone() };
        assert_eq!(welcomed(&anew, 2).await, Some(after));
        assert_eq!(writer.store.workers().await.unwrap()[0].mode, after);
        // Back to the first one, for the next round.
        welcomed(&first, 3).await;
    }
}

pub async fn tokens_are_listed_until_they_expire(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let lasting = token(TokenKind::Role(Role::Admin));
    let passing = Token { name: "passing".to_owned(), expires_at: Some(at(10)), ..token(TokenKind::Join) };
    for token in [&lasting, &passing] {
        assert_eq!(writer.store.add_token(writer.id, token, &audit_line("token", "")).await, Ok(true));
    }
    let mut both = vec![lasting.clone(), passing];
    both.sort_by_key(|token| token.id);

    assert_eq!(writer.store.tokens(at(9)).await.unwrap(), both);
    assert_eq!(writer.store.tokens(at(10)).await.unwrap(), [lasting]);
}

pub async fn a_token_that_is_known_is_not_added_again(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let first = token(TokenKind::Role(Role::Admin));
    let again = Token { digest: first.digest, ..token(TokenKind::Join) };

    assert_eq!(writer.store.add_token(writer.id, &first, &audit_line("token", "")).await, Ok(true));
    assert_eq!(writer.store.add_token(writer.id, &again, &audit_line("token", "")).await, Ok(true));

    assert_eq!(writer.store.tokens(at(0)).await.unwrap(), [first]);
}

/// What the last hello of the one worker has said.
async fn seen(writer: &Writer) -> Seen {
    writer.store.workers().await.unwrap().remove(0).seen.expect("a hello")
}

pub async fn a_token_that_is_revoked_counts_no_more_and_cannot_be_added_again(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let (store, id) = (&writer.store, writer.id);
    let lasting = token(TokenKind::Role(Role::Operator));
    let passing = Token { expires_at: Some(at(100)), ..token(TokenKind::Join) };
    let line = |outcome: &str| audit_line("token", outcome);
    for token in [&lasting, &passing] {
        assert_eq!(store.add_token(id, token, &line("added")).await, Ok(true));
    }

    for token in [&lasting, &passing] {
        assert_eq!(store.revoke_token(id, token.id, at(1), &line("revoked")).await, Ok(true));
        assert_eq!(store.revoke_token(id, token.id, at(2), &line("again")).await, Ok(false));
    }
    assert_eq!(store.revoke_token(id, TokenId(clock::random_uuid()), at(2), &line("nobody's")).await, Ok(false));
    let expired = Token { expires_at: Some(at(2)), ..token(TokenKind::Join) };
    assert_eq!(store.add_token(id, &expired, &line("added")).await, Ok(true));
    assert_eq!(store.revoke_token(id, expired.id, at(2), &line("too late")).await, Ok(false));

    assert_eq!(store.tokens(at(2)).await.unwrap(), []);
    assert_eq!(store.enrol(id, passing.digest, &new_worker(), at(2)).await, Ok(Enrolled::NoToken));
    let again = Token { id: TokenId(clock::random_uuid()), ..lasting };
    assert_eq!(store.add_token(id, &again, &line("once more")).await, Ok(true), "as with any that is known");
    assert_eq!(store.tokens(at(2)).await.unwrap(), []);
    let outcomes: Vec<_> = store.audited(Some("token"), 10).await.unwrap().into_iter().map(|l| l.outcome).collect();
    assert_eq!(outcomes, ["added", "revoked", "revoked", "added", "added"]);
}

pub async fn a_worker_that_is_revoked_is_not_heard_and_stays_so(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let (store, id, line) = (&writer.store, writer.id, audit_line("worker", ""));
    let (worker, other) = (writer.enrolled().await, writer.enrolled().await);
    let said = hello(worker, &[]);
    assert!(store.welcome(id, &said, at(1)).await.unwrap().is_some());

    let revoked = store.revoke_worker(id, worker, at(2), &line).await.unwrap().unwrap();
    assert_eq!((revoked.id, revoked.revoked_at), (worker, Some(at(2))));

    assert_eq!(store.welcome(id, &said, at(3)).await, Ok(None));
    assert_eq!(store.welcome(id, &hello(worker, &["new"]), at(9)).await, Ok(None));
    let again = store.revoke_worker(id, worker, at(4), &line).await.unwrap().unwrap();
    assert_eq!(again.revoked_at, Some(at(2)));
    let paused = store.set_mode(id, worker, WorkerMode::Paused, &line).await.unwrap().unwrap();
    assert_eq!((paused.mode, paused.revoked_at), (WorkerMode::Active, Some(at(2))));
    assert_eq!(store.revoke_worker(id, new_worker().id, at(4), &line).await, Ok(None));
    assert!(store.welcome(id, &hello(other, &[]), at(3)).await.unwrap().is_some());
    assert_eq!(store.audited(Some("worker"), 10).await.unwrap().len(), 1, "what changes nothing isn't noted");
}
