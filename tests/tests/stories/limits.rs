//! Timeouts and retries of jobs under `windlass dev`, and what their timelines tell of them.

use serde_json::{Value, json};
use shared::time::Time;
use tests::dev::Dev;
use tests::process::Mark;

fn time(value: &Value) -> Time {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no time"))
}

/// The job's events of that kind.
fn events(dev: &Dev, id: &str, kind: &str) -> Vec<Value> {
    dev.events(id).into_iter().filter(|event| event["kind"] == kind).collect()
}

#[test]
fn a_limit_that_passes_ends_the_job_and_is_named() {
    let dev = Dev::start();
    let mark = Mark::fresh();
    let (name, value) = mark.entry();
    let slow = json!({"run": "sleep 1000"});
    let limited = json!({"run": "sleep 1000 & sleep 1000", "timeout": "500ms"});
    let quick = json!({"run": "true", "timeout": "1m"});
    let cases = [
        (json!([limited]), "1h", json!({"reason": "timed_out", "step": 0, "limit": "steps[0].timeout"})),
        (json!([quick, limited, slow]), "1h", json!({"reason": "timed_out", "step": 1, "limit": "steps[1].timeout"})),
        (json!([slow]), "500ms", json!({"reason": "timed_out", "limit": "timeout"})),
        (json!([quick, slow]), "500ms", json!({"reason": "timed_out", "limit": "timeout"})),
    ];
    for (steps, timeout, outcome) in cases {
        let spec = json!({"steps": steps, "timeout": timeout, "grace": "0s", "env": {name: value}});
        let id = dev.submit(&spec);
        let job = dev.ended(&id);
        assert_eq!(
            (&job["state"], &job["outcome"], &job["attempt"]),
            (&json!("failed"), &outcome, &json!(1)),
            "{spec}"
        );
        assert!(mark.is_gone(), "{spec}");
        let failed = events(&dev, &id, "failed");
        assert_eq!((failed.len(), &failed[0]["reason"]), (1, &json!("timed_out")));
    }
}

#[test]
fn a_job_that_times_out_is_asked_first_and_killed_after_its_grace() {
    let dev = Dev::start();
    let spec = |script: &str| json!({"steps": [{"run": script}], "timeout": "500ms", "grace": "1s"});
    let obeys = dev.submit(&spec("trap 'echo asked; exit 0' TERM; while :; do sleep 0.1; done"));
    let ignores = dev.submit(&spec("trap 'echo asked' TERM; while :; do sleep 0.1 || :; done"));
    for id in [&obeys, &ignores] {
        let job = dev.ended(id);
        assert_eq!(job["outcome"], json!({"reason": "timed_out", "limit": "timeout"}), "{job}");
        // The shell may add that its `sleep` was terminated.
        assert!(dev.text(id).lines().any(|line| line == "asked"), "{}", dev.text(id));
        let ran = time(&job["finished_at"]).since(time(&job["started_at"])).as_millis();
        let least = if *id == ignores { 1500 } else { 500 };
        assert!(ran + 100 >= least, "{job}: {ran} ms");
    }
}

#[test]
fn a_code_that_is_to_be_retried_runs_the_job_again_after_its_backoff() {
    let dev = Dev::start();
    let retry = json!({"max_attempts": 3, "on": ["exit:9"], "backoff": {"first": "1s", "max": "10s"}});
    let spec = |script: &str| json!({"steps": [{"run": script}], "retry": retry});
    let second = dev.submit(&spec("echo attempt $WINDLASS_ATTEMPT; [ $WINDLASS_ATTEMPT = 2 ] || exit 9"));
    let never = dev.submit(&spec("exit 9"));
    let other = dev.submit(&spec("exit 8"));

    let job = dev.ended(&second);
    assert_eq!(
        (&job["state"], &job["attempt"], &job["outcome"]),
        (&json!("succeeded"), &json!(2), &Value::Null),
        "{job}"
    );
    assert_eq!(dev.text(&second), "attempt 1\nattempt 2\n");
    let kinds: Vec<Value> = dev.events(&second).into_iter().map(|event| event["kind"].clone()).collect();
    let attempt = ["assigned", "started", "step_started", "step_finished"];
    let expected =
        [&["submitted", "queued"], &attempt[..], &["retried", "scheduled", "queued"], &attempt, &["succeeded"]];
    assert_eq!(kinds, expected.concat());
    let retried = &events(&dev, &second, "retried")[0];
    assert_eq!((&retried["reason"], &retried["exit_code"]), (&json!("step_failed"), &json!(9)), "{retried}");
    // With jitter, half of the backoff at least.
    let waited = time(&events(&dev, &second, "queued")[1]["at"]).since(time(&retried["at"]));
    assert!(waited.as_millis() >= 500, "it waited {} ms", waited.as_millis());

    let job = dev.ended(&never);
    assert_eq!(
        (&job["state"], &job["attempt"], &job["outcome"]["exit_code"]),
        (&json!("failed"), &json!(3), &json!(9)),
        "{job}"
    );
    assert_eq!(events(&dev, &never, "retried").len(), 2);
    let job = dev.ended(&other);
    assert_eq!((&job["attempt"], &job["outcome"]["exit_code"]), (&json!(1), &json!(8)), "{job}");
}

#[test]
fn a_job_that_is_canceled_between_two_attempts_does_not_run_again() {
    let dev = Dev::start();
    let retry = json!({"on": ["exit:9"], "backoff": {"first": "1h", "max": "1h"}});
    let id = dev.submit(&json!({"steps": [{"run": "exit 9"}], "retry": retry}));
    dev.until(&id, "scheduled");
    assert_eq!(dev.cancel(&id, &json!({"reason": "enough"})), (202, "canceled".to_owned()));
    let job = dev.job(&id);
    assert_eq!((&job["attempt"], &job["outcome"]["why"]), (&json!(1), &json!("enough")), "{job}");
    assert_eq!(events(&dev, &id, "assigned").len(), 1);
}

#[test]
fn only_a_job_that_has_ended_is_run_again_by_hand() {
    let dev = Dev::start();
    let id = dev.submit(&json!({"steps": [{"run": "sleep 1000"}], "labels": {"team": "core"}, "grace": "0s"}));
    dev.until(&id, "running");
    let retry = || dev.client.post(&format!("/api/v1/jobs/{id}/retry"), &json!({}));
    let early = retry();
    assert_eq!((early.status, early.header("content-type")), (409, "application/problem+json"), "{}", early.text);
    dev.cancel(&id, &json!({}));
    let before = dev.until(&id, "canceled");
    let answer = retry();
    assert_eq!(
        (answer.status, &answer.json["retry_of"], &answer.json["labels"]),
        (201, &json!(id), &json!({"team": "core"}))
    );
    assert_eq!(dev.job(&id), before, "the old job stays as it was");
    assert_eq!(dev.until(answer.json["id"].as_str().expect("an id"), "running")["attempt"], 1);
}

#[test]
fn a_job_that_waits_too_long_for_a_worker_expires() {
    let dev = Dev::start();
    let id = dev.submit(&json!({"steps": [{"run": "true"}], "tags": ["nobody-has-this"], "queue_timeout": "1s"}));
    let job = dev.ended(&id);
    assert_eq!(job["outcome"], json!({"reason": "expired", "limit": "queue_timeout"}), "{job}");
    assert_eq!(job["attempt"], 0);
}
