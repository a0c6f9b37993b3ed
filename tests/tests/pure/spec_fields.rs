//! Every field that the specification's grammar refuses, by its exact path; and all of them at once.

use serde_json::{Value, json};

use shared::spec::reader::FieldError;
use shared::spec::{DeployKey, KeyBackoff, KeyRetry, OnMissing, parse_batch, parse_single};
use shared::time::Period;

use super::builders::{merged, spec};

#[test]
fn a_url_is_one_of_five_forms_without_a_password() {
    let local = [
        "/srv/app.git",
        "/",
        "/with space/and-ümlaut",
        "file:///srv/app.git",
        "file://localhost/srv/app.git",
        "//srv/app",
    ];
    for url in local {
        assert_eq!(errors_of_url(url), [], "{url}");
    }
    let remote = [
        "https://host/org/app.git",
        "https://user@host/app.git",
        "https://host:8443/app",
        "https://[::1]:443/app",
        "ssh://git@host/app.git",
        "ssh://git@host:2222/~/app.git",
        "git@host:org/app.git",
        "git@host:/abs/app.git",
        "git@[::1]:app.git",
    ];
    for url in remote {
        let ssh = !url.starts_with("https://");
        let refused = errors_of_url(url);
        assert_eq!(fields(&refused), if ssh { vec!["repository.url"] } else { vec![] }, "{url}");
        assert!(refused.iter().all(|error| error.detail.contains("deploy_key")), "{url}: {refused:?}");
        assert_eq!(errors(&job(&json!({"repository": {"url": url, "deploy_key": "app"}}))), [], "{url}");
    }
}

#[test]
fn a_url_of_any_other_form_is_refused() {
    for (url, detail) in [
        ("-oProxyCommand=x", "must not begin with -"),
        ("--upload-pack=x", "must not begin with -"),
        ("https://user:secret@host/app", "must not hold a password"),
        ("https://:secret@host/app", "must not hold a password"),
        ("ssh://git:secret@host/app", "must not hold a password"),
        ("git:secret@host:app", "must not hold a password"),
        ("https://", "must have a host after the scheme"),
        ("https:///app", "must have a host after the scheme"),
        ("https://:443/app", "must have a host after the scheme"),
        ("https://user@/app", "must have a host after the scheme"),
        ("ssh://-oProxyCommand=x/app", "must have a host after the scheme"),
        ("ssh://-l@host/app", "must have a host after the scheme"),
        ("https://host/a b", "must not contain spaces"),
        ("file://host/app", "must name an absolute path"),
        ("file://localhost", "must name an absolute path"),
        ("file://", "must name an absolute path"),
        ("file://app.git", "must name an absolute path"),
        ("http://host/app", "must be https://…"),
        ("git://host/app", "must be https://…"),
        ("ftp://host/app", "must be https://…"),
        ("HTTPS://host/app", "must be https://…"),
        ("ext::sh -c true", "must be https://…"),
        ("app", "must be https://…"),
        ("./app", "must be https://…"),
        ("../app", "must be https://…"),
        ("~/app", "must be https://…"),
        (" /srv/app", "must be https://…"),
        ("git@host", "must be https://…"),
        ("git@host:", "must be https://…"),
        ("@host:app", "must be https://…"),
        ("git@:app", "must be https://…"),
        ("git@-host:app", "must be https://…"),
        ("git@host:-app", "must be https://…"),
        ("git@ho st:app", "must be https://…"),
        ("host:app", "must be https://…"),
        ("/srv/\napp", "must not contain control characters"),
        ("/srv/\0app", "must not contain NUL"),
    ] {
        let errors = errors_of_url(url);
        assert_eq!(errors.len(), 1, "{url}: {errors:?}");
        assert_eq!(errors[0].field, "repository.url");
        assert!(errors[0].detail.starts_with(detail), "{url}: {}", errors[0].detail);
    }
}

#[test]
fn a_ref_begins_with_no_dash_and_holds_no_space() {
    for (reference, taken) in [
        ("main", true),
        ("refs/heads/main", true),
        ("v1.0^{commit}", true),
        ("feature/ümlaut", true),
        ("a-b", true),
        ("-main", false),
        ("--upload-pack=x", false),
        ("a b", false),
        ("a\tb", false),
        ("a\0b", false),
        ("a\nb", false),
    ] {
        let errors = errors(&job(&json!({"repository": {"url": "/srv/app", "ref": reference}})));
        assert_eq!(fields(&errors).is_empty(), taken, "{reference:?}: {errors:?}");
        assert!(taken || fields(&errors) == ["repository.ref"]);
    }
}

#[test]
fn a_tag_and_an_env_name_are_made_of_their_letters_alone() {
    for (tag, taken) in [
        ("linux", true),
        ("Gpu_2.x:nvidia/a-100", true),
        ("-", true),
        ("a b", false),
        ("a,b", false),
        ("ä", false),
        ("a\0", false),
        ("a*", false),
        ("a\n", false),
    ] {
        let expected: &[&str] = if taken { &[] } else { &["tags[1]"] };
        assert_eq!(fields(&errors(&job(&json!({"tags": ["first", tag]})))), expected, "{tag:?}");
    }
    for (name, taken) in [
        ("A", true),
        ("_", true),
        ("a_1", true),
        ("PATH", true),
        ("WINDLASS_MINE", true),
        ("1A", false),
        ("A-B", false),
        ("A B", false),
        ("A=B", false),
        ("Ä", false),
        ("A.B", false),
        ("WINDLASS_FENCE", false),
        ("WINDLASS_JOB_ID", false),
    ] {
        for map in ["env", "secrets"] {
            let expected = if taken { vec![] } else { vec![format!("{map}.{name}")] };
            assert_eq!(fields(&errors(&job(&json!({map: {name: "vvvv"}})))), expected);
        }
    }
}

#[test]
fn nul_is_refused_wherever_a_text_stands() {
    for (field, body) in [
        ("steps[0].run", json!({"steps": [{"run": "a\0b"}]})),
        ("steps[0].name", json!({"steps": [{"run": "true", "name": "a\0b"}]})),
        ("steps[0].timeout", json!({"steps": [{"run": "true", "timeout": "1s\0"}]})),
        ("steps[1].exec[0]", json!({"steps": [{"run": "true"}, {"exec": ["a\0b"]}]})),
        ("steps[1].exec[2]", json!({"steps": [{"run": "true"}, {"exec": ["a", "b", "\0"]}]})),
        ("tags[0]", job(&json!({"tags": ["a\0"]}))),
        ("env.A", job(&json!({"env": {"A": "\0"}}))),
        ("labels.a", job(&json!({"labels": {"a": "\0"}}))),
        ("labels.a\0", job(&json!({"labels": {"a\0": "v"}}))),
        ("secrets.A", job(&json!({"secrets": {"A": "\0"}}))),
        ("priority", job(&json!({"priority": "high\0"}))),
        ("run_at", job(&json!({"run_at": "2026-12-01T08:00:00Z\0"}))),
        ("timeout", job(&json!({"timeout": "1h\0"}))),
        ("grace", job(&json!({"grace": "\0"}))),
        ("queue_timeout", job(&json!({"queue_timeout": "\0"}))),
        ("retry.on[0]", job(&json!({"retry": {"on": ["exit:1\0"]}}))),
        ("retry.backoff.first", job(&json!({"retry": {"backoff": {"first": "1s\0"}}}))),
        ("on_lost_contact", job(&json!({"on_lost_contact": "run\0"}))),
        ("a\0b", job(&json!({"a\0b": 1}))),
    ] {
        assert_eq!(fields(&errors(&body)), [field], "{body}");
    }
}

#[test]
fn a_value_of_another_kind_is_refused() {
    for (field, body) in [
        ("body", json!([])),
        ("body", json!(null)),
        ("body", json!("steps")),
        ("steps", json!({})),
        ("steps", json!({"steps": null})),
        ("steps", json!({"steps": {}})),
        ("steps[0]", json!({"steps": ["make"]})),
        ("steps[0]", json!({"steps": [null]})),
        ("steps[0]", json!({"steps": [{}]})),
        ("steps[0]", json!({"steps": [{"run": null}]})),
        ("steps[0].exec", json!({"steps": [{"run": "true", "exec": ["true"]}]})),
        ("steps[0].run", json!({"steps": [{"run": ["true"]}]})),
        ("steps[0].exec", json!({"steps": [{"exec": "true"}]})),
        ("steps[0].exec[0]", json!({"steps": [{"exec": [""]}]})),
        ("steps[0].exec[1]", json!({"steps": [{"exec": ["a", 1]}]})),
        ("repository", job(&json!({"repository": "/srv/app"}))),
        ("repository.url", job(&json!({"repository": {}}))),
        ("repository.url", job(&json!({"repository": {"url": null}}))),
        ("tags", job(&json!({"tags": "linux"}))),
        ("tags[0]", job(&json!({"tags": [null]}))),
        ("priority", job(&json!({"priority": "highest"}))),
        ("priority", job(&json!({"priority": "High"}))),
        ("priority", job(&json!({"priority": 1}))),
        ("env", job(&json!({"env": ["A=1"]}))),
        ("env.A", job(&json!({"env": {"A": 1}}))),
        ("env.A", job(&json!({"env": {"A": null}}))),
        ("labels.A", job(&json!({"labels": {"A": true}}))),
        ("secrets.A", job(&json!({"secrets": {"A": {}}}))),
        ("timeout", job(&json!({"timeout": 60}))),
        ("timeout", job(&json!({"timeout": "60"}))),
        ("timeout", job(&json!({"timeout": "-1s"}))),
        ("run_at", job(&json!({"run_at": "tomorrow"}))),
        ("run_at", job(&json!({"run_at": 0}))),
        ("retry", job(&json!({"retry": 3}))),
        ("retry.max_attempts", job(&json!({"retry": {"max_attempts": -1}}))),
        ("retry.max_attempts", job(&json!({"retry": {"max_attempts": 1.5}}))),
        ("retry.max_attempts", job(&json!({"retry": {"max_attempts": "3"}}))),
        ("retry.max_attempts", job(&json!({"retry": {"max_attempts": 4_294_967_297_u64}}))),
        ("retry.on", job(&json!({"retry": {"on": "worker_lost"}}))),
        ("retry.on[0]", job(&json!({"retry": {"on": ["expired"]}}))),
        ("retry.on[0]", job(&json!({"retry": {"on": ["exit:0"]}}))),
        ("retry.on[0]", job(&json!({"retry": {"on": ["exit:256"]}}))),
        ("retry.on[0]", job(&json!({"retry": {"on": ["exit:+1"]}}))),
        ("retry.on[0]", job(&json!({"retry": {"on": ["exit:"]}}))),
        ("retry.backoff", job(&json!({"retry": {"backoff": "1s"}}))),
        ("on_lost_contact", job(&json!({"on_lost_contact": "die"}))),
        ("on_lost_contact", job(&json!({"on_lost_contact": true}))),
        ("secrets.A", job(&json!({"env": {"A": "v"}, "secrets": {"A": "v"}}))),
    ] {
        assert_eq!(fields(&errors(&body)), [field], "{body}");
    }
}

#[test]
fn an_unknown_field_is_refused_at_every_level() {
    for (field, body) in [
        ("step", job(&json!({"step": []}))),
        ("Tags", job(&json!({"Tags": []}))),
        ("unknown", job(&json!({"unknown": null}))),
        ("idempotency_key", job(&json!({"idempotency_key": "k"}))),
        ("commit", job(&json!({"commit": "a"}))),
        ("steps[0].cwd", json!({"steps": [{"run": "true", "cwd": "/"}]})),
        ("repository.branch", job(&json!({"repository": {"url": "/srv/app", "branch": "main"}}))),
        ("retry.tries", job(&json!({"retry": {"tries": 3}}))),
        ("retry.backoff.factor", job(&json!({"retry": {"backoff": {"factor": 2}}}))),
    ] {
        let errors = errors(&body);
        assert_eq!(fields(&errors), [field], "{body}");
        assert!(errors[0].detail.starts_with("is not a known field; known here: "), "{errors:?}");
    }
    let errors = parse_batch(&json!({"jobs": [job(&json!({}))], "atomic": true})).expect_err("an unknown field");
    assert_eq!(fields(&errors), ["atomic"]);
}

#[test]
fn the_known_fields_are_listed_once_each() {
    let errors = errors(&job(&json!({"x": 1, "env": {"A": "v"}, "secrets": {"B": "vvvv"}})));
    let listed: Vec<&str> = errors[0].detail.split(": ").nth(1).expect("a list").split(", ").collect();
    assert_eq!(listed.iter().filter(|name| **name == "env").count(), 1, "{listed:?}");
}

#[test]
fn a_deploy_key_is_a_name_alone_or_says_how_it_is_waited_for() {
    let key = |key: Value| {
        spec(&job(&json!({"repository": {"url": "git@host:app", "deploy_key": key}}))).deploy_key().cloned()
    };
    let plain = DeployKey {
        name: "app".to_owned(),
        on_missing: OnMissing::Park,
        wait: Period::from_secs(600),
        retry: None,
        in_steps: false,
    };
    assert_eq!(key(json!("app")), Some(plain.clone()));
    assert_eq!(key(json!({"name": "app"})), Some(plain.clone()));
    let retry = KeyRetry {
        tries: 7,
        backoff: KeyBackoff::Fibonacci,
        first: Period::from_millis(500),
        max: Period::from_secs(30),
        deadline: Period::from_secs(120),
    };
    let said = json!({"name": "app", "on_missing": "fail", "wait": "1h", "in_steps": true,
        "retry": {"tries": 7, "backoff": "fibonacci", "first": "500ms"}});
    let full = DeployKey {
        on_missing: OnMissing::Fail,
        wait: Period::from_secs(3600),
        retry: Some(retry),
        in_steps: true,
        ..plain
    };
    assert_eq!(key(said), Some(full));
    for (retry, tries) in [(json!({"tries": 1}), 1), (json!({"tries": 100}), 100), (json!({}), 5)] {
        let retry = key(json!({"name": "app", "retry": retry})).and_then(|key| key.retry);
        assert_eq!(retry, Some(KeyRetry { tries, ..KeyRetry::default() }));
    }
    for (retry, field) in [
        (json!({"first": "2s", "max": "1s"}), "repository.deploy_key.retry.first"),
        (json!({"first": "1m"}), "repository.deploy_key.retry.first"),
        (json!({"max": "500ms"}), "repository.deploy_key.retry.max"),
    ] {
        let key = json!({"name": "app", "retry": retry});
        let refused = errors(&job(&json!({"repository": {"url": "git@host:app", "deploy_key": key}})));
        assert_eq!(fields(&refused), [field], "{refused:?}");
    }
    assert!(key(json!({"name": "app", "retry": {"first": "2s", "max": "2s"}})).is_some());
    assert_eq!(
        fields(&errors(&job(&json!({"repository": {"url": "git@host:app", "deploy_key": {"retry": {"tries": 101}}}})))),
        ["repository.deploy_key.name", "repository.deploy_key.retry.tries"]
    );
}

#[test]
fn a_deploy_keys_name_can_stand_in_a_path() {
    for name in ["app", "0", "org-app.deploy_key", &"a".repeat(255)] {
        assert_eq!(errors(&job(&json!({"repository": {"url": "git@host:app", "deploy_key": name}}))), [], "{name}");
    }
    for name in ["", ".", "..", ".app", "-app", "_", "a/b", "a b", "a%2f", "é", "a\u{0}", &"a".repeat(256)] {
        let refused = errors(&job(&json!({"repository": {"url": "git@host:app", "deploy_key": name}})));
        assert_eq!(fields(&refused), ["repository.deploy_key"], "{name}");
    }
}

#[test]
fn null_counts_as_left_out_for_every_optional_field() {
    let names = [
        "repository",
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
    ];
    let all = names.iter().fold(json!({}), |body, name| merged(body, &json!({*name: null})));
    assert_eq!(parse_single(&job(&all), None), {
        let plain = parse_single(&job(&json!({})), None).expect("a job");
        let hash = parse_single(&job(&all), None).expect("a job").hash;
        Ok(shared::spec::Submission { hash, ..plain })
    });
    let inner = json!({"retry": {"max_attempts": null, "on": null, "backoff": {"first": null, "max": null}},
        "repository": {"url": "/srv/app", "ref": null, "deploy_key": null}});
    assert_eq!(errors(&job(&inner)), []);
    assert_eq!(errors(&json!({"steps": [{"run": "true", "exec": null, "name": null, "timeout": null}]})), []);
}

#[test]
fn every_refused_field_is_named_at_once() {
    let body = json!({
        "repository": {"url": "-x", "ref": "-y", "branch": "main", "history": "some", "submodules": 1,
            "deploy_key": {"name": "a/b", "on_missing": "wait", "wait": "0s", "in_steps": "yes", "key": 1,
                "retry": {"tries": 0, "backoff": "linear", "first": "x", "max": "0s", "deadline": "-1s", "jitter": 1}}},
        "steps": [{"run": ""}, {"exec": []}, {}, {"run": "a", "timeout": "0s", "cwd": "/"}],
        "tags": ["a b", 1], "priority": "now", "env": {"1": "v", "A": 2}, "secrets": {"A": "v", "B": ""},
        "timeout": "never", "grace": -1, "queue_timeout": "0s", "run_at": "soon",
        "retry": {"max_attempts": 101, "on": ["x", "exit:1"], "backoff": {"first": "0s", "max": "x", "y": 1}, "z": 1},
        "on_lost_contact": "x", "labels": {"": "v"}, "extra": {},
    });
    let mut expected = vec![
        "repository.url",
        "repository.ref",
        "repository.history",
        "repository.submodules",
        "repository.deploy_key.name",
        "repository.deploy_key.on_missing",
        "repository.deploy_key.wait",
        "repository.deploy_key.in_steps",
        "repository.deploy_key.key",
        "repository.deploy_key.retry.tries",
        "repository.deploy_key.retry.backoff",
        "repository.deploy_key.retry.first",
        "repository.deploy_key.retry.max",
        "repository.deploy_key.retry.deadline",
        "repository.deploy_key.retry.jitter",
        "repository.branch",
        "steps[0].run",
        "steps[1].exec",
        "steps[2]",
        "steps[3].timeout",
        "steps[3].cwd",
        "tags[0]",
        "tags[1]",
        "priority",
        "env.1",
        "env.A",
        "secrets.A",
        "secrets.B",
        "timeout",
        "grace",
        "queue_timeout",
        "run_at",
        "retry.max_attempts",
        "retry.on[0]",
        "retry.backoff.first",
        "retry.backoff.max",
        "retry.backoff.y",
        "retry.z",
        "on_lost_contact",
        "labels.",
        "extra",
    ];
    let mut found = fields(&errors(&body));
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);

    let batch = parse_batch(&json!({"jobs": [job(&json!({})), body, job(&json!({"tags": [" "]}))]}));
    let mut found = fields(&batch.expect_err("refused whole"));
    let mut expected: Vec<String> = expected.into_iter().map(|field| format!("jobs[1].{field}")).collect();
    expected.push("jobs[2].tags[0]".to_owned());
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn an_answer_without_end_is_cut_and_says_so() {
    let body = (0..5000).fold(json!({}), |body, i| merged(body, &json!({format!("x{i}"): 1})));
    let errors = errors(&job(&body));
    assert_eq!(errors.len(), 1001);
    let last = errors.last().expect("the last");
    assert_eq!((last.field.as_str(), last.detail.as_str()), ("body", "has more mistakes than are listed here"));

    let long = job(&json!({"ü".repeat(10_000): 1}));
    let field = &self::errors(&long)[0].field;
    assert!(field.len() <= 310 && field.ends_with('…'), "{field}");
}

/// A job of one step with the fields of `more` beside it.
fn job(more: &Value) -> Value {
    merged(json!({"steps": [{"run": "true"}]}), more)
}

fn errors(body: &Value) -> Vec<FieldError> {
    parse_single(body, None).err().unwrap_or_default()
}

fn errors_of_url(url: &str) -> Vec<FieldError> {
    errors(&job(&json!({"repository": {"url": url}})))
}

fn fields(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(|error| error.field.clone()).collect()
}
