//! Every limit of the specification: taken at the bound, refused one beyond it, under the right name.

use serde_json::{Map, Value, json};

use shared::spec::{parse_batch, parse_single};

use super::builders::merged;

/// A limit: its field, the largest that is taken, and a body with that many (bytes, entries …) of it.
struct Limit {
    field: &'static str,
    max: usize,
    body: fn(usize) -> Value,
}

const KIB: usize = 1024;

/// Every limit of a single job whose bound is an amount.
const LIMITS: [Limit; 26] = [
    Limit { field: "steps", max: 100, body: |n| json!({"steps": vec![json!({"run": "true"}); n]}) },
    Limit { field: "steps[0].run", max: 64 * KIB, body: |n| json!({"steps": [{"run": text(n)}]}) },
    Limit { field: "steps[0].name", max: 255, body: |n| json!({"steps": [{"run": "true", "name": text(n)}]}) },
    Limit { field: "steps[0].exec[1]", max: 64 * KIB, body: |n| json!({"steps": [{"exec": ["echo", text(n)]}]}) },
    Limit { field: "steps[0].exec", max: 4096, body: |n| json!({"steps": [{"exec": vec!["true"; n]}]}) },
    Limit { field: "tags", max: 64, body: |n| job(&json!({"tags": names("tag", n)})) },
    Limit { field: "tags[0]", max: 255, body: |n| job(&json!({"tags": [text(n)]})) },
    Limit { field: "env", max: 64, body: |n| job(&json!({"env": entries(n, "v")})) },
    Limit { field: "env.A", max: 32 * KIB, body: |n| job(&json!({"env": {"A": text(n)}})) },
    Limit { field: "env.*", max: 255, body: |n| job(&json!({"env": {text(n): "v"}})) },
    Limit { field: "secrets", max: 64, body: |n| job(&json!({"secrets": entries(n, "vvvv")})) },
    Limit { field: "secrets.A", max: 32 * KIB, body: |n| job(&json!({"secrets": {"A": text(n)}})) },
    Limit { field: "secrets.*", max: 255, body: |n| job(&json!({"secrets": {text(n): "vvvv"}})) },
    Limit { field: "labels", max: 64, body: |n| job(&json!({"labels": entries(n, "v")})) },
    Limit { field: "labels.A", max: 32 * KIB, body: |n| job(&json!({"labels": {"A": text(n)}})) },
    Limit { field: "labels.*", max: 255, body: |n| job(&json!({"labels": {text(n): "v"}})) },
    Limit {
        field: "repository.ref",
        max: 255,
        body: |n| job(&json!({"repository": {"url": "/srv/a", "ref": text(n)}})),
    },
    Limit { field: "repository.url", max: 2 * KIB, body: |n| job(&json!({"repository": {"url": path(n)}})) },
    Limit { field: "retry.max_attempts", max: 100, body: |n| job(&json!({"retry": {"max_attempts": n}})) },
    Limit { field: "retry.on", max: 64, body: |n| job(&json!({"retry": {"on": vec!["exit:1"; n]}})) },
    Limit { field: "timeout", max: 365, body: |n| job(&json!({"timeout": format!("{n}d")})) },
    Limit { field: "grace", max: 365, body: |n| job(&json!({"grace": format!("{n}d")})) },
    Limit { field: "queue_timeout", max: 365, body: |n| job(&json!({"queue_timeout": format!("{n}d")})) },
    Limit {
        field: "steps[0].timeout",
        max: 365,
        body: |n| json!({"steps": [{"run": "true", "timeout": format!("{n}d")}]}),
    },
    Limit {
        field: "retry.backoff.first",
        max: 365,
        body: |n| job(&json!({"retry": {"backoff": {"first": format!("{n}d")}}})),
    },
    Limit {
        field: "retry.backoff.max",
        max: 365,
        body: |n| job(&json!({"retry": {"backoff": {"max": format!("{n}d")}}})),
    },
];

#[test]
fn every_limit_holds_at_its_bound_and_refuses_what_is_one_beyond() {
    for Limit { field, max, body } in LIMITS {
        if let Err(errors) = parse_single(&body(max), None) {
            panic!("{field}: {max} is refused: {errors:?}");
        }
        assert_eq!(refused(&body(max + 1)), [field.replace('*', &"x".repeat(max + 1))], "{field}: {}", max + 1);
    }
}

#[test]
fn what_has_to_be_there_is_refused_where_it_is_empty() {
    for (field, body) in [
        ("steps", json!({"steps": []})),
        ("steps[0].run", json!({"steps": [{"run": ""}]})),
        ("steps[0].name", json!({"steps": [{"run": "true", "name": ""}]})),
        ("steps[0].exec", json!({"steps": [{"exec": []}]})),
        ("tags[0]", job(&json!({"tags": [""]}))),
        ("env.", job(&json!({"env": {"": "v"}}))),
        ("labels.", job(&json!({"labels": {"": "v"}}))),
        ("secrets.", job(&json!({"secrets": {"": "v"}}))),
        ("secrets.A", job(&json!({"secrets": {"A": ""}}))),
        ("repository.url", job(&json!({"repository": {"url": ""}}))),
        ("repository.ref", job(&json!({"repository": {"url": "/srv/a", "ref": ""}}))),
        ("retry.max_attempts", job(&json!({"retry": {"max_attempts": 0}}))),
        ("timeout", job(&json!({"timeout": ""}))),
    ] {
        assert_eq!(refused(&body), [field], "{body}");
    }
}

#[test]
fn a_secret_that_is_too_short_to_be_masked_is_refused() {
    for (value, taken) in [("", false), ("abc", false), ("é", false), ("abcd", true), ("éé", true)] {
        let expected = if taken { vec![] } else { vec!["secrets.A".to_owned()] };
        assert_eq!(refused(&job(&json!({"secrets": {"A": value}}))), expected, "{value:?}");
    }
    let errors = parse_single(&job(&json!({"secrets": {"A": "abc"}})), None).expect_err("it is refused");
    assert_eq!(errors[0].detail, "must have at least 4 bytes: shorter values can't be masked in the log");
}

#[test]
fn what_may_be_empty_is_taken_empty() {
    for more in [
        json!({"tags": [], "env": {}, "labels": {}, "secrets": {}, "retry": {}}),
        json!({"env": {"A": ""}, "labels": {"A": ""}}),
        json!({"retry": {"on": [], "backoff": {}}}),
    ] {
        assert_eq!(refused(&job(&more)), Vec::<String>::new(), "{more}");
    }
    assert_eq!(refused(&json!({"steps": [{"exec": ["echo", ""]}]})), Vec::<String>::new());
}

#[test]
fn every_duration_is_positive_but_the_grace() {
    for zero in ["0s", "0ms", "0d0h"] {
        for (field, more) in [
            ("timeout", json!({"timeout": zero})),
            ("queue_timeout", json!({"queue_timeout": zero})),
            ("steps[0].timeout", json!({"steps": [{"run": "true", "timeout": zero}]})),
            ("retry.backoff.first", json!({"retry": {"backoff": {"first": zero}}})),
            ("retry.backoff.max", json!({"retry": {"backoff": {"max": zero}}})),
        ] {
            assert_eq!(refused(&job(&more)), [field], "{zero}");
        }
        assert_eq!(refused(&job(&json!({"grace": zero}))), Vec::<String>::new());
    }
}

#[test]
fn a_job_is_at_most_256_kib_of_json() {
    let padding = |bytes: usize| {
        let labels = json!({"a": text(32 * KIB), "b": text(32 * KIB), "c": text(32 * KIB), "d": text(32 * KIB)});
        let env = json!({"A": text(32 * KIB), "B": text(32 * KIB), "C": text(32 * KIB)});
        let frame = job(&json!({"labels": labels, "env": env, "secrets": {"D": ""}})).to_string().len();
        job(&json!({"labels": labels, "env": env, "secrets": {"D": text(bytes - frame)}}))
    };
    let (most, beyond) = (padding(256 * KIB), padding(256 * KIB + 1));
    assert_eq!(most.to_string().len(), 256 * KIB);
    assert_eq!(refused(&most), Vec::<String>::new());
    assert_eq!(refused(&beyond), ["body"]);
    let errors = parse_batch(&json!({"jobs": [job(&json!({})), beyond]})).expect_err("too large");
    assert_eq!(errors.into_iter().map(|error| error.field).collect::<Vec<_>>(), ["jobs[1]"]);
}

#[test]
fn a_request_has_one_to_a_thousand_jobs() {
    let batch = |count: usize| parse_batch(&json!({"jobs": vec![job(&json!({})); count]}));
    assert_eq!(batch(1).expect("one").len(), 1);
    assert_eq!(batch(1000).expect("a thousand").len(), 1000);
    for count in [0, 1001] {
        let errors = batch(count).expect_err("too few or too many");
        assert_eq!(errors.into_iter().map(|error| error.field).collect::<Vec<_>>(), ["jobs"]);
    }
}

#[test]
fn an_idempotency_key_of_a_batch_has_one_to_255_bytes() {
    for (bytes, taken) in [(0, false), (1, true), (255, true), (256, false)] {
        let jobs = parse_batch(&json!({"jobs": [job(&json!({"idempotency_key": text(bytes)}))]}));
        match jobs {
            Ok(jobs) => assert_eq!((jobs[0].idempotency_key.clone(), taken), (Some(text(bytes)), true)),
            Err(errors) => assert_eq!((errors[0].field.as_str(), taken), ("jobs[0].idempotency_key", false)),
        }
    }
}

/// A job of one step with the fields of `more` beside it.
fn job(more: &Value) -> Value {
    merged(json!({"steps": [{"run": "true"}]}), more)
}

/// The fields that are refused.
fn refused(body: &Value) -> Vec<String> {
    parse_single(body, None).err().unwrap_or_default().into_iter().map(|error| error.field).collect()
}

/// `bytes` letters that fit every grammar.
fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// An absolute path of that many bytes.
fn path(bytes: usize) -> String {
    format!("/{}", text(bytes - 1))
}

/// `count` different names.
fn names(start: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{start}{i}")).collect()
}

/// An object of `count` entries.
fn entries(count: usize, value: &str) -> Value {
    names("A", count).into_iter().map(|name| (name, json!(value))).collect::<Map<String, Value>>().into()
}
