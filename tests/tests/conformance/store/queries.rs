//! Lists, timers and events: what they leave out, their order, and their pages.

use coordinator::store::{AHEAD_LOOKED_MAX, AHEAD_MAX, Ahead, Error, Filter, NewJob};
use serde_json::{Value, json};
use shared::id::{Attempt, JobId, Seq, Shard, ShardSeq};
use shared::job::{Command, Job, StateName, WorkerWord, submit};
use shared::spec::Priority;
use shared::wire::Hello;

use super::Database;
use super::writer::{Writer, all_shards, at, cancel, client, hello, new_job, said, shard, spec, worker};

pub async fn jobs_are_listed_newest_first_page_by_page(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let mut jobs = submitted(&mut writer, &vec![json!({}); 7]).await;
    jobs.reverse();

    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let page = writer.store.jobs(&Filter::default(), before, 3).await.unwrap();
        before = page.last().map(|job| job.id);
        if page.is_empty() {
            break;
        }
        pages.push(page);
    }

    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(pages.concat(), jobs);
}

pub async fn a_list_is_narrowed_by_state(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let later = json!({"run_at": "2200-01-01T00:00:00Z"});
    let jobs = submitted(&mut writer, &[json!({}), json!({}), later, json!({})]).await;
    let canceled = writer.change(&jobs[1], cancel(), at(100)).await;
    let running = writer.grant(&jobs[3], worker()).await;

    for (state, expected) in [
        (StateName::Queued, vec![jobs[0].clone()]),
        (StateName::Canceled, vec![canceled]),
        (StateName::Scheduled, vec![jobs[2].clone()]),
        (StateName::Running, vec![running]),
        (StateName::Failed, vec![]),
    ] {
        let filter = Filter { state: Some(state), ..Filter::default() };
        assert_eq!(writer.store.jobs(&filter, None, 10).await.unwrap(), expected, "{state}");
    }
}

pub async fn a_list_is_narrowed_by_tag_repository_and_label(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let fields = [
        json!({"tags": ["linux", "arm64"], "repository": {"url": "/srv/a.git"}, "labels": {"team": "core"}}),
        json!({"tags": ["linux"], "repository": {"url": "/srv/b.git"}, "labels": {"team": "web", "x": "core"}}),
        json!({"tags": ["linu", "inux"], "labels": {"tea": "core"}}),
        json!({}),
    ];
    let ids: Vec<JobId> = submitted(&mut writer, &fields).await.iter().map(|job| job.id).collect();
    let text = |text: &str| Some(text.to_owned());
    let (tag, url) = (|tag| Filter { tag: text(tag), ..Filter::default() }, |url| text(url));
    let label = |key: &str, value| Filter { label: Some((key.to_owned(), value)), ..Filter::default() };

    for (filter, expected) in [
        (tag("linux"), vec![0, 1]),
        (tag("arm64"), vec![0]),
        (tag("linux arm64"), vec![]),
        (Filter { repository: url("/srv/b.git"), ..Filter::default() }, vec![1]),
        (Filter { repository: url("/srv"), ..Filter::default() }, vec![]),
        (label("team", None), vec![0, 1]),
        (label("team", text("core")), vec![0]),
        (label("core", None), vec![]),
        (Filter { repository: url("/srv/a.git"), state: Some(StateName::Queued), ..tag("linux") }, vec![0]),
        (Filter { repository: url("/srv/a.git"), state: Some(StateName::Running), ..tag("linux") }, vec![]),
        (Filter { label: Some(("x".to_owned(), text("core"))), ..tag("linux") }, vec![1]),
    ] {
        let open = writer.store.open_jobs(&filter, None, 10).await.unwrap();
        let mut listed: Vec<_> = writer.store.jobs(&filter, None, 10).await.unwrap().iter().map(|job| job.id).collect();
        listed.reverse();
        assert_eq!(listed, expected.iter().map(|index| ids[*index]).collect::<Vec<_>>(), "{filter:?}");
        assert_eq!(open, listed, "{filter:?}");
    }
}

pub async fn a_label_with_odd_characters_is_found(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    for odd in ["a\"b", "a\\b", "a.b[0]", "$", "%", "\u{1f600}\t", "'; DROP TABLE jobs; --"] {
        let job = writer.submit(new_job(shard(1), json!({"labels": {odd: odd}}), at(0))).await;
        let value = |value: &str| Filter { label: Some((odd.to_owned(), Some(value.to_owned()))), ..Filter::default() };
        assert_eq!(writer.store.jobs(&value(odd), None, 10).await.unwrap(), [job], "{odd}");
        assert_eq!(writer.store.jobs(&value("other"), None, 10).await.unwrap(), [], "{odd}");
    }
}

pub async fn open_jobs_are_listed_oldest_first_without_the_terminal_ones(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let jobs = submitted(&mut writer, &vec![json!({}); 5]).await;
    writer.change(&jobs[0], cancel(), at(100)).await;
    writer.grant(&jobs[3], worker()).await;
    let open: Vec<_> = jobs[1..].iter().map(|job| job.id).collect();
    let page = async |after, limit| writer.store.open_jobs(&Filter::default(), after, limit).await.unwrap();

    assert_eq!(page(None, 10).await, open);
    assert_eq!(page(None, 3).await, open[..3]);
    assert_eq!(page(Some(open[2]), 3).await, open[3..]);
}

pub async fn live_jobs_are_those_with_an_attempt_under_way(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let prepares = json!({"repository": {"url": "/srv/app.git"}});
    let fields = [prepares, json!({}), json!({}), json!({}), json!({})];
    let mut jobs = submitted(&mut writer, &fields).await;
    for job in &mut jobs[..4] {
        *job = writer.grant(job, worker()).await;
    }
    jobs[2] = writer.change(&jobs[2], cancel(), at(100)).await;
    jobs[3] = writer.finish(&jobs[3], at(100)).await;
    let live = async |shards: &[Shard]| {
        let mut live = writer.store.live_jobs(shards, None, 100).await.unwrap().jobs;
        live.sort_by_key(|job| job.id);
        live
    };

    // Assigned, running and canceling; not the finished one, not the queued one.
    assert_eq!(live(&all_shards()).await, jobs[..3]);
    assert_eq!(live(&[shard(1), shard(3)]).await, jobs[1..2]);
    assert_eq!(live(&[]).await, []);
}

pub async fn offers_are_those_of_queued_jobs_for_their_next_attempt(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let tagged = json!({"tags": ["b", "a"], "priority": "urgent"});
    let later = json!({"run_at": "2200-01-01T00:00:00Z"});
    let mut jobs = submitted(&mut writer, &[json!({}), tagged, later, json!({}), json!({})]).await;
    let granted = writer.grant(&jobs[0], worker()).await;
    jobs[0] = writer
        .change(&granted, said(&granted, WorkerWord::Decline { claim: None, why: "full".to_owned() }), at(2))
        .await;
    writer.grant(&jobs[3], worker()).await;
    let secret = submit(JobId::mint(shard(5), at(5), [9; 10]), spec(json!({})), true, None, client(), at(5));
    jobs.push(writer.submit(NewJob { transition: secret, secrets: Some(vec![1]), idempotency: None }).await);
    let queued = [&jobs[0], &jobs[1], &jobs[4], &jobs[5]].map(Job::offer);
    let all = all_shards();
    let before =
        async |shards: &[Shard], before, after, limit| writer.store.offers(shards, before, after, limit).await.unwrap();
    let page = async |shards: &[Shard], after, limit| before(shards, at(1000), after, limit).await;

    assert_eq!(page(&all, None, 10).await, queued);
    assert_eq!((queued[0].attempt, queued[1].attempt), (Attempt(2), Attempt(1)));
    assert_eq!((&queued[1].tags[..], queued[1].priority), (&["a".to_owned(), "b".to_owned()][..], Priority::Urgent));
    assert_eq!(page(&all, None, 2).await, queued[..2]);
    assert_eq!(page(&all, Some(queued[0].job), 2).await, queued[1..3]);
    assert_eq!(queued.each_ref().map(|offer| offer.has_secrets), [false, false, false, true]);
    assert_eq!(page(&[shard(4)], None, 10).await, queued[2..3]);
    // The first was queued anew two seconds in, the second a second in.
    assert_eq!(before(&all, at(2), None, 10).await, queued[1..2]);
}

pub async fn the_place_in_the_queue_counts_what_is_offered_before_for_the_same_tags(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let of = |tags: &[&str], priority: &str| json!({"tags": tags, "priority": priority});
    let fields = [
        of(&["a", "b"], "normal"),
        of(&["b", "a"], "high"),
        of(&["a", "b"], "normal"),
        of(&["a", "b"], "low"),
        of(&["a", "b"], "urgent"),
        of(&["a"], "urgent"),
        of(&[], "urgent"),
        json!({"tags": ["a", "b"], "run_at": "2200-01-01T00:00:00Z"}),
        of(&["a", "b"], "normal"),
    ];
    let jobs = submitted(&mut writer, &fields).await;
    let ahead = async |writer: &Writer, job: usize| writer.store.ahead(&jobs[job]).await.unwrap();
    let exactly = |count| Ahead { count, at_least: false };
    for (job, count) in [(0, 2), (1, 1), (2, 3), (3, 5), (4, 0), (5, 0), (6, 0), (8, 4)] {
        assert_eq!(ahead(&writer, job).await, exactly(count), "{:?}", fields[job]);
    }
    writer.grant(&jobs[0], worker()).await;
    writer.change(&jobs[1], cancel(), at(100)).await;
    assert_eq!(ahead(&writer, 8).await, exactly(2), "what isn't queued any more is before nobody");

    // The older job is queued for the second time, behind the younger.
    let again = writer.grant(&jobs[2], worker()).await;
    let lost = Command::WorkerLost { attempt: again.attempt, message: "gone".to_owned() };
    let again = writer.change(&again, lost, at(200)).await;
    assert_eq!(writer.store.ahead(&again).await, Ok(exactly(2)));
    assert_eq!(ahead(&writer, 8).await, exactly(1));
}

pub async fn the_place_in_a_queue_is_counted_up_to_its_bounds(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let fields = |tag: &str| json!({"tags": [tag]});
    let jobs = submitted(&mut writer, &[fields("few"), fields("many")]).await;
    let ahead = async |writer: &Writer, job: usize| writer.store.ahead(&jobs[job]).await.unwrap();
    database.raw(&database.filling_queue(AHEAD_MAX, "many")).await.unwrap();
    assert_eq!(ahead(&writer, 0).await, Ahead { count: 0, at_least: false });
    assert_eq!(ahead(&writer, 1).await, Ahead { count: AHEAD_MAX, at_least: false });
    database.raw(&database.filling_queue(1, "many")).await.unwrap();
    assert_eq!(ahead(&writer, 1).await, Ahead { count: AHEAD_MAX, at_least: true });
    database.raw(&database.filling_queue(AHEAD_LOOKED_MAX - AHEAD_MAX - 1, "other")).await.unwrap();
    assert_eq!(ahead(&writer, 0).await, Ahead { count: 0, at_least: true }, "others were not looked at");
}

pub async fn the_soonest_timer_is_due_first(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let timeouts = ["3h", "1h", "2h", "1h"].map(|timeout| json!({"queue_timeout": timeout}));
    let jobs = submitted(&mut writer, &timeouts).await;
    writer.change(&jobs[3], cancel(), at(100)).await;
    let timer = |index: usize| (jobs[index].id, jobs[index].state.wake_at().unwrap());
    let all = all_shards();
    let due = async |shards: &[Shard], before, limit| writer.store.due(shards, before, limit).await.unwrap();
    let never = at(1_000_000);

    assert_eq!(due(&all, never, 10).await, [timer(1), timer(2), timer(0)]);
    assert_eq!(due(&all, never, 2).await, [timer(1), timer(2)]);
    assert_eq!(due(&all, timer(0).1, 10).await, [timer(1), timer(2)]);
    assert_eq!(due(&[shard(0), shard(2)], never, 10).await, [timer(2), timer(0)]);
    assert_eq!(due(&all, at(0), 10).await, []);
}

pub async fn events_are_read_page_by_page(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let (job, other) = (writer.submit_plain(shard(1)).await, writer.submit_plain(shard(1)).await);
    let job = writer.grant(&job, worker()).await;
    let page = async |after, limit| writer.store.events(job.id, Seq(after), limit).await.unwrap();
    let whole = page(0, 10).await;
    let numbered = async |after, limit| writer.store.shard_events(shard(1), ShardSeq(after), limit).await.unwrap();

    assert_eq!(
        whole.iter().map(|event| event.kind.name()).collect::<Vec<_>>(),
        ["submitted", "queued", "assigned", "started"]
    );
    assert_eq!(whole.iter().map(|event| event.seq.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!([page(0, 3).await, page(3, 3).await].concat(), whole);
    assert_eq!(page(4, 3).await, []);
    let both = numbered(0, 10).await;
    assert_eq!(both.iter().map(|(number, _)| number.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(both[2].1.job, other.id);
    assert_eq!(both[4].1, whole[2]);
    assert_eq!([numbered(0, 4).await, numbered(4, 4).await].concat(), both);
}

pub async fn a_worker_is_told_the_tag_sets_that_it_has_all_tags_of(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let sets = [json!(["a"]), json!(["b", "a"]), json!(["c"]), json!(["a", "c"]), json!(["A"])];
    let fields: Vec<_> = sets.iter().map(|tags| json!({"tags": tags})).collect();
    let welcomed = async |writer: &Writer, hello: &Hello| {
        let welcome = writer.store.welcome(writer.id, hello, at(0)).await.unwrap().expect("a known worker");
        let mut sets = welcome.tag_sets;
        sets.sort();
        sets.iter().map(|set| set.join("+")).collect::<Vec<_>>()
    };
    let one = writer.enrolled().await;
    let other = writer.enrolled().await;

    // Jobs without tags are possible before the first one is submitted.
    assert_eq!(welcomed(&writer, &hello(other, &["a"])).await, [""]);
    submitted(&mut writer, &fields).await;
    let known = hello(one, &["b", "a", "z"]);
    assert_eq!(welcomed(&writer, &known).await, ["", "a", "a+b"]);
    // The same worker, started anew with other tags.
    let anew = Hello { start: 2, ..hello(one, &["c"]) };
    assert_eq!(welcomed(&writer, &anew).await, ["", "c"]);
    assert_eq!(welcomed(&writer, &Hello { start: 2, ..hello(other, &[]) }).await, [""]);
}

pub async fn what_cannot_be_read_is_corrupt(database: &dyn Database) {
    let mut writer = Writer::of(database).await;
    let (job, other) = (writer.submit_plain(shard(1)).await, writer.submit_plain(shard(2)).await);

    database.raw("UPDATE jobs SET spec = '{}' WHERE shard = 1").await.unwrap();

    let read = writer.store.job(job.id).await;
    assert!(matches!(read, Err(Error::Corrupt(_))), "{read:?}");
    assert_eq!(writer.stored(&other).await, other);
}

pub async fn a_database_that_answers_is_pinged(database: &dyn Database) {
    assert_eq!(database.open().await.ping().await, Ok(()));
}

/// Jobs with these fields, each created a second after the one before, in the shard of its place.
async fn submitted(writer: &mut Writer, fields: &[Value]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (number, fields) in (0..).zip(fields) {
        let now = at(i64::from(number));
        jobs.push(writer.submit(new_job(shard(number), fields.clone(), now)).await);
    }
    jobs
}
