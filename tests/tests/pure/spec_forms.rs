//! What a specification is once it has been read: its defaults, its own JSON, its hash; and that no JSON at all makes
//! the reader panic.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use shared::spec::{Action, JobSpec, OnLostContact, Priority, RetryOn, parse_batch, parse_single};
use shared::time::Period;

use super::builders::{merged, spec};

#[test]
fn what_is_left_out_has_the_contracts_default() {
    let spec = spec(&json!({"steps": [{"run": "make test"}]}));
    assert_eq!((spec.timeout, spec.grace), (Period::from_secs(3600), Period::from_secs(10)));
    assert_eq!((spec.queue_timeout, spec.priority), (Period::from_secs(86_400), Priority::Normal));
    assert_eq!((spec.retry.max_attempts, &spec.retry.on), (3, &vec![RetryOn::WorkerLost, RetryOn::CheckoutFailed]));
    assert_eq!((spec.retry.backoff.first, spec.retry.backoff.max), (Period::from_secs(1), Period::from_secs(60)));
    assert_eq!((spec.on_lost_contact, spec.run_at, spec.steps[0].timeout), (OnLostContact::Run, None, None));
    assert!(spec.tags.is_empty() && spec.env.is_empty() && spec.labels.is_empty() && spec.repository.is_none());
}

#[test]
fn a_run_is_a_script_for_the_shell_and_an_exec_is_an_argv() {
    let steps = spec(&json!({"steps": [{"run": "a && b"}, {"exec": ["a", "&& b"]}]})).steps;
    assert_eq!(steps[0].action.argv(), ["/bin/sh", "-e", "-c", "a && b"]);
    assert_eq!(steps[1].action, Action::Exec(vec!["a".to_owned(), "&& b".to_owned()]));
    assert_eq!(steps[1].action.argv(), ["a", "&& b"]);
}

#[test]
fn tags_are_sorted_and_without_doubles() {
    let tags = spec(&merged(minimal(), &json!({"tags": ["linux", "gpu", "linux", "Arm"]}))).tags;
    assert_eq!(tags, ["Arm", "gpu", "linux"]);
}

#[test]
fn a_local_url_names_its_path() {
    for (url, path) in [("/srv/app", "/srv/app"), ("file:///srv/app", "/srv/app"), ("file://localhost/srv", "/srv")] {
        let spec = spec(&merged(minimal(), &json!({"repository": {"url": url}})));
        assert_eq!(spec.repository.expect("a repository").local_path(), Some(path));
    }
}

#[test]
fn secrets_are_in_the_submission_and_not_in_the_spec() {
    let body = merged(minimal(), &json!({"secrets": {"TOKEN": "s3cr3t"}}));
    let submission = parse_single(&body, Some("key".to_owned())).expect("a job");
    assert_eq!(submission.secrets.0["TOKEN"].reveal(), "s3cr3t");
    assert_eq!(submission.idempotency_key.as_deref(), Some("key"));
    let shown = format!("{} {submission:?}", serde_json::to_string(&submission.spec).expect("JSON"));
    assert!(!shown.contains("s3cr3t"), "{shown}");
}

#[test]
fn a_hash_tells_jobs_apart_but_not_the_order_of_their_fields() {
    let hash = |text: &str| {
        let body: Value = serde_json::from_str(text).expect("JSON");
        parse_single(&body, None).expect("a job").hash
    };
    let first =
        hash(r#"{"steps": [{"name": "a", "run": "b"}], "env": {"A": "1", "B": "2"}, "secrets": {"C": "3333"}}"#);
    let other_order = hash(r#"{"secrets":{"C":"3333"},"env":{"B":"2","A":"1"},"steps":[{"run":"b","name":"a"}]}"#);
    let other_secret =
        hash(r#"{"steps": [{"name": "a", "run": "b"}], "env": {"A": "1", "B": "2"}, "secrets": {"C": "4444"}}"#);
    assert_eq!(first, other_order);
    assert_ne!(first, other_secret);
}

#[test]
fn a_key_is_no_part_of_the_hash_that_it_stands_for() {
    let jobs = json!({"jobs": [minimal(), merged(minimal(), &json!({"idempotency_key": "k"}))]});
    let jobs = parse_batch(&jobs).expect("two jobs");
    assert_eq!(jobs[0].hash, jobs[1].hash);
    assert_eq!(jobs[0].hash, parse_single(&minimal(), Some("k".to_owned())).expect("a job").hash);
    assert_eq!((jobs[0].idempotency_key.as_deref(), jobs[1].idempotency_key.as_deref()), (None, Some("k")));
}

#[test]
fn every_word_of_the_policy_reads_back_as_it_was_written() {
    for word in ["worker_lost", "checkout_failed", "step_failed", "timed_out", "exit:1", "exit:255"] {
        assert_eq!(word.parse::<RetryOn>().map(|on| on.to_string()).as_deref(), Ok(word));
    }
    for priority in Priority::ALL {
        assert_eq!(priority.name().parse(), Ok(priority));
        assert_eq!(serde_json::to_value(priority).expect("JSON"), priority.name());
    }
    assert!(Priority::Urgent > Priority::High && Priority::High > Priority::Normal && Priority::Normal > Priority::Low);
}

proptest! {
    #[test]
    fn a_specification_reads_back_as_it_was_written(body in jobs()) {
        let first: JobSpec = spec(&body);
        let text = serde_json::to_string(&first).expect("JSON");
        let stored: JobSpec = serde_json::from_str(&text).expect("the store's own reader");
        prop_assert_eq!(&stored, &first);
        let again: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(parse_single(&again, None).map(|submission| submission.spec), Ok(first));
    }

    #[test]
    fn no_json_makes_the_reader_panic(body in json_values(), field in prop::sample::select(FIELDS)) {
        let _ = (parse_single(&body, None), parse_batch(&body));
        let _ = parse_single(&merged(minimal(), &json!({field: body})), None);
        let _ = parse_batch(&json!({"jobs": [{"steps": [body]}, body]}));
    }
}

const FIELDS: &[&str] = &[
    "repository",
    "steps",
    "tags",
    "priority",
    "env",
    "secrets",
    "timeout",
    "grace",
    "queue_timeout",
    "run_at",
    "retry",
    "on_lost_contact",
    "labels",
    "jobs",
    "idempotency_key",
];

fn minimal() -> Value {
    json!({"steps": [{"run": "true"}]})
}

/// Jobs with any of the fields, each right.
fn jobs() -> impl Strategy<Value = Value> {
    let period = || (1..Period::MAX.millis()).prop_map(|millis| json!(Period::from_millis(millis).to_string()));
    let action = prop_oneof![
        "[^\0]{1,40}".prop_map(|script| json!({"run": script})),
        ("[^\0]{1,9}", prop::collection::vec("[^\0]{0,9}", 0..4)).prop_map(|(program, mut arguments)| {
            arguments.insert(0, program);
            json!({"exec": arguments})
        }),
    ];
    let step = (action, prop::option::of("[^\0]{1,20}"), prop::option::of(period()))
        .prop_map(|(step, name, timeout)| merged(step, &json!({"name": name, "timeout": timeout})));
    let map = |names: &'static str| prop::collection::btree_map(names, "[^\0]{0,20}", 0..5).prop_map(|map| json!(map));
    let reference = prop::option::of("[A-Za-z0-9._/]{1,20}");
    let repository = (prop_oneof!["/[^\0-\u{1f}\u{7f}-\u{9f}]{0,30}", "file:///[a-z]{0,9}"], reference)
        .prop_map(|(url, reference)| json!({"url": url, "ref": reference}));
    let on = prop::collection::vec(
        prop_oneof![Just("worker_lost".to_owned()), (1..=255_u8).prop_map(|n| format!("exit:{n}"))],
        0..5,
    );
    let retry = (1..=100_u32, on, period(), period()).prop_map(|(attempts, on, first, max)| {
        json!({"max_attempts": attempts, "on": on, "backoff": {"first": first, "max": max}})
    });
    let run_at = prop::option::of(
        (0..4_000_000_000_000_000_i64).prop_map(|micros| shared::time::Time::from_micros(micros).to_string()),
    );
    let priority = prop::sample::select(vec!["low", "normal", "high", "urgent"]);
    let contact = prop::sample::select(vec!["run", "stop"]);
    let tags = prop::collection::vec("[A-Za-z0-9._:/-]{1,20}", 0..6);
    let frame = (prop::collection::vec(step, 1..5), prop::option::of(repository), tags, priority, contact);
    let maps = (map("[A-Za-z_][A-Za-z0-9_]{0,9}"), map("[^\0]{1,20}"));
    let times = (period(), period(), period(), run_at);
    (frame, maps, times, retry).prop_map(|(frame, maps, times, retry)| {
        let ((steps, repository, tags, priority, contact), (env, labels)) = (frame, maps);
        let (timeout, grace, queue_timeout, run_at) = times;
        json!({
            "steps": steps, "repository": repository, "tags": tags, "priority": priority, "on_lost_contact": contact,
            "env": env, "labels": labels, "timeout": timeout, "grace": grace, "queue_timeout": queue_timeout,
            "run_at": run_at, "retry": retry,
        })
    })
}

/// Any JSON, with the words of the grammar among its keys and texts.
fn json_values() -> impl Strategy<Value = Value> {
    let words = || {
        let known = vec![
            "steps",
            "run",
            "exec",
            "url",
            "ref",
            "max_attempts",
            "on",
            "backoff",
            "first",
            "max",
            "name",
            "timeout",
            "jobs",
            "exit:",
            "1s",
            "https://",
            "file://",
            "git@",
            "a:b@c:d",
            "-",
        ];
        prop_oneof![prop::sample::select(known).prop_map(str::to_owned), "\\PC{0,12}"]
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        let object = prop::collection::vec((words(), inner.clone()), 0..8);
        prop_oneof![
            prop::collection::vec(inner, 0..8).prop_map(Value::from),
            object.prop_map(|fields| Value::from(fields.into_iter().collect::<Map<String, Value>>())),
        ]
    })
}
