//! New jobs, alone and together, and the keys under which a repeated submission finds the first one.

use std::sync::Arc;

use coordinator::store::{Batch, Filter, IdempotencyKey, NewJob, Submitted, TAG_SETS_MAX, Write, Written};
use serde_json::json;
use shared::clock;
use shared::id::{JobId, Seq, ShardSeq};
use shared::job::submit;

use super::Database;
use super::writer::{Writer, at, cancel, client, keyed_job, new_job, shard, spec};

pub async fn a_submitted_job_reads_back_as_it_was(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let spec = spec(json!({
        "repository": {"url": "/srv/app.git", "ref": "main"},
        "steps": [{"name": "a", "run": "make", "timeout": "10m"}, {"exec": ["cargo", "build", ""]}],
        "tags": ["linux", "arm64"], "priority": "high", "env": {"A": "\u{1f600}\n\"'"},
        "timeout": "2h", "grace": "0s", "queue_timeout": "1d", "run_at": "2026-12-01T08:00:00.123456Z",
        "retry": {"max_attempts": 5, "on": ["exit:75", "timed_out"], "backoff": {"first": "2s", "max": "3m"}},
        "on_lost_contact": "stop", "labels": {"team": "core"},
    }));
    let first = writer.submit_plain(shard(3)).await;
    let id = JobId::mint(shard(3), at(0), clock::random());
    let transition = submit(id, spec, false, Some(first.id), client(), at(0));

    let job = writer.submit(NewJob { transition: transition.clone(), secrets: None, idempotency: None }).await;

    assert_eq!(writer.stored(&job).await, transition.job);
    assert_eq!(writer.store.events(id, Seq(0), 10).await.unwrap(), transition.events);
}

pub async fn the_events_of_submissions_are_numbered_in_their_shard(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let jobs = [1, 2, 1].map(|number| new_job(shard(number), json!({}), at(0)));

    let written = writer.commit_one(Write::Submit(jobs.to_vec())).await;

    let new = |number| Submitted::New(ShardSeq(number));
    assert_eq!(written, Written::Submitted(vec![new(1), new(1), new(3)]));
    assert_eq!(writer.numbers(shard(1)).await, [1, 2, 3, 4]);
    assert_eq!(writer.numbers(shard(2)).await, [1, 2]);
}

pub async fn a_repeated_submission_finds_the_first_job(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let first = writer.submit(keyed_job(shard(1), "k", 1, at(0))).await;

    let again = keyed_job(shard(2), "k", 1, at(3600));
    let id = again.transition.job.id;
    let written = writer.commit_one(Write::Submit(vec![again])).await;

    assert_eq!(written, Written::Submitted(vec![Submitted::Existing(first.id)]));
    assert_eq!(writer.store.job(id).await.unwrap(), None);
    assert!(writer.numbers(shard(2)).await.is_empty());
}

pub async fn a_key_with_another_body_is_refused(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    writer.submit(keyed_job(shard(1), "k", 1, at(0))).await;

    let other = keyed_job(shard(1), "k", 2, at(1));
    let id = other.transition.job.id;
    let written = writer.commit_one(Write::Submit(vec![new_job(shard(1), json!({}), at(1)), other])).await;

    assert_eq!(written, Written::KeyReused(1));
    assert_eq!(writer.store.job(id).await.unwrap(), None);
    assert_eq!(writer.numbers(shard(1)).await, [1, 2]);
}

pub async fn an_expired_key_can_be_used_anew(database: &dyn Database) {
    const DAY: i64 = 24 * 60 * 60;
    let mut writer = Writer::of(database).await;
    let first = writer.submit(keyed_job(shard(1), "k", 1, at(0))).await;

    let in_time = writer.commit_one(Write::Submit(vec![keyed_job(shard(1), "k", 1, at(DAY - 1))])).await;
    let second = writer.submit(keyed_job(shard(1), "k", 2, at(DAY))).await;
    let again = writer.commit_one(Write::Submit(vec![keyed_job(shard(1), "k", 2, at(DAY + 1))])).await;

    assert_eq!(in_time, Written::Submitted(vec![Submitted::Existing(first.id)]));
    assert_eq!(again, Written::Submitted(vec![Submitted::Existing(second.id)]));
}

pub async fn the_same_key_of_another_owner_is_another_key(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    writer.submit(keyed_job(shard(1), "k", 1, at(0))).await;
    let mine = keyed_job(shard(1), "k", 2, at(0));
    let key = mine.idempotency.clone().map(|key| IdempotencyKey { owner: "you".to_owned(), ..key });

    let yours = writer.submit(NewJob { idempotency: key, ..mine }).await;

    assert_eq!(writer.stored(&yours).await, yours);
}

pub async fn the_same_key_twice_in_one_submission_makes_one_job(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let jobs = ["k", "k", "l"].map(|key| keyed_job(shard(1), key, 1, at(0)));
    let first = jobs[0].transition.job.id;

    let written = writer.commit_one(Write::Submit(jobs.to_vec())).await;

    let expected = [Submitted::New(ShardSeq(1)), Submitted::Existing(first), Submitted::New(ShardSeq(3))];
    assert_eq!(written, Written::Submitted(expected.to_vec()));
    assert_eq!(writer.numbers(shard(1)).await, [1, 2, 3, 4]);
}

pub async fn another_body_under_a_key_of_the_same_submission_refuses_it_whole(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let jobs = [1, 1, 2].map(|hash| keyed_job(shard(1), "k", hash, at(0)));

    let written = writer.commit_one(Write::Submit(jobs.to_vec())).await;

    assert_eq!(written, Written::KeyReused(2));
    assert_eq!(writer.store.job(jobs[0].transition.job.id).await.unwrap(), None);
    // The key stands for nothing: it can be used.
    writer.submit(keyed_job(shard(1), "k", 3, at(0))).await;
}

pub async fn a_submission_is_stored_whole_or_not_at_all(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    writer.submit(keyed_job(shard(9), "k", 1, at(0))).await;
    let mut good: Vec<_> = (0..999).map(|n| new_job(shard(n % 9), json!({"tags": ["rare"]}), at(0))).collect();
    let before = new_job(shard(1), json!({}), at(0));
    let after = new_job(shard(1), json!({}), at(0));
    good.push(keyed_job(shard(1), "k", 2, at(0)));
    let submissions = [vec![before.clone()], good, vec![after.clone()]].map(Write::Submit);

    let written = writer.commit(submissions.to_vec()).await.unwrap();

    // Only the neighbours are there, and their numbers follow on.
    let new = |number| Written::Submitted(vec![Submitted::New(ShardSeq(number))]);
    assert_eq!(written, [new(1), Written::KeyReused(999), new(3)]);
    assert_eq!(writer.stored(&after.transition.job).await, after.transition.job);
    assert_eq!(writer.store.jobs(&Filter::default(), None, 2000).await.unwrap().len(), 3);
}

pub async fn of_two_submissions_at_once_under_one_key_one_makes_a_job(database: &dyn Database) {
    let writer = Writer::of(database).await;
    let (one, other) = (database.open().await, database.open().await);
    for round in 0..20 {
        // The loser stores nothing, so each round has shards of its own to begin at number 1.
        let submission = |number| {
            let new = keyed_job(shard(number), &format!("k{round}"), 1, at(0));
            let id = new.transition.job.id;
            (
                id,
                Arc::new(Batch { last: [(shard(number), ShardSeq(0))].into(), writes: vec![Write::Submit(vec![new])] }),
            )
        };
        let ((id, batch), (other_id, other_batch)) = (submission(2 * round), submission(2 * round + 1));

        let (first, second) = tokio::join!(one.commit(writer.id, batch), other.commit(writer.id, other_batch));

        let new = Written::Submitted(vec![Submitted::New(ShardSeq(1))]);
        let existing = |id| Written::Submitted(vec![Submitted::Existing(id)]);
        let answers = (first.unwrap().remove(0), second.unwrap().remove(0));
        assert!(answers == (new.clone(), existing(id)) || answers == (existing(other_id), new), "{answers:?}");
    }
}

pub async fn a_job_whose_id_is_taken_is_refused(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let new = new_job(shard(1), json!({}), at(0));
    let job = writer.submit(new.clone()).await;

    let again = writer.commit_one(Write::Submit(vec![new_job(shard(1), json!({}), at(0)), new])).await;

    assert_eq!(again, Written::Conflict);
    assert_eq!(writer.stored(&job).await, job);
    assert_eq!(writer.numbers(shard(1)).await, [1, 2]);
}

pub async fn secrets_are_kept_apart_from_the_job(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let plain = writer.submit_plain(shard(1)).await;
    let id = JobId::mint(shard(1), at(0), clock::random());
    let transition = submit(id, spec(json!({})), true, None, client(), at(0));
    let sealed = vec![0, 159, 146, 150, b'!'];

    let job = writer.submit(NewJob { transition, secrets: Some(sealed.clone()), idempotency: None }).await;

    assert_eq!(writer.store.secrets(job.id).await.unwrap(), Some(sealed));
    assert_eq!(writer.store.secrets(plain.id).await.unwrap(), None);
    let stored = writer.stored(&job).await;
    assert!(stored.has_secrets && !writer.stored(&plain).await.has_secrets);
    assert_eq!(stored.spec, plain.spec);
}

pub async fn one_tag_set_too_many_is_refused_until_there_is_room(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let tagged = |n: u32| new_job(shard(1), json!({"tags": [format!("t{n}")]}), at(0));
    // The empty set is always known.
    let jobs: Vec<_> = (1..TAG_SETS_MAX).map(tagged).collect();
    let first = jobs[0].transition.job.clone();
    writer.commit_one(Write::Submit(jobs)).await;

    let refused = writer.commit_one(Write::Submit(vec![tagged(1), tagged(TAG_SETS_MAX)])).await;
    let known = writer.submit(tagged(2)).await;
    writer.change(&first, cancel(), at(1)).await;
    let room = writer.submit(tagged(TAG_SETS_MAX)).await;

    assert_eq!(refused, Written::TooManyTagSets(1));
    assert_eq!(writer.stored(&known).await, known);
    assert_eq!(writer.stored(&room).await, room);
    assert_eq!(writer.commit_one(Write::Submit(vec![tagged(1)])).await, Written::TooManyTagSets(0));
}
