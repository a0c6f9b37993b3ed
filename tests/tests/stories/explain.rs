//! Why a job isn't running, as whoever asks hears it from the real program.

use std::time::Duration;

use serde_json::{Value, json};
use tests::dev::{DEADLINE, Dev};
use tests::wait::eventually;
use tests::windlass::Running;

/// What the coordinator says of the job.
fn explained(dev: &Dev, id: &str) -> Value {
    let answer = dev.client.get(&format!("/api/v1/jobs/{id}/explain"));
    assert_eq!(answer.status, 200, "explaining job {id}: {}", answer.text);
    assert_eq!(answer.json["id"], id);
    answer.json
}

/// The reason of that kind, if it is among them.
fn reason(explanation: &Value, kind: &str) -> Option<Value> {
    let reasons = explanation["reasons"].as_array().expect("reasons");
    reasons.iter().find(|reason| reason["kind"] == kind).cloned()
}

/// The explanation once it has a reason of that kind which is so.
fn until(dev: &Dev, id: &str, kind: &str, so: impl Fn(&Value) -> bool) -> (Value, Value) {
    eventually(DEADLINE, &format!("job {id} is explained by {kind}"), || {
        let explanation = explained(dev, id);
        let reason = reason(&explanation, kind).filter(&so)?;
        Some((explanation, reason))
    })
}

fn sleeping(more: &Value) -> Value {
    let mut job = json!({"steps": [{"name": "rest", "run": "sleep 1000"}]});
    job.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    job
}

fn summary(explanation: &Value) -> &str {
    explanation["summary"].as_str().expect("a summary")
}

#[test]
fn a_queued_job_says_which_tag_is_missing_or_that_all_are_busy_and_its_place() {
    let dev = Dev::start_with(&["--slots", "1", "--tag", "linux"]);
    let running = dev.submit(&sleeping(&json!({"tags": ["linux"]})));
    dev.until(&running, "running");

    let strange = dev.submit(&json!({"steps": [{"run": "true"}], "tags": ["linux", "gpu"]}));
    let (explanation, missing) = until(&dev, &strange, "no_worker_has_tags", |_| true);
    assert_eq!(
        missing,
        json!({"kind": "no_worker_has_tags", "tags": ["gpu", "linux"], "missing": ["gpu"], "workers": 1})
    );
    assert!(summary(&explanation).starts_with("No worker has the tag gpu."), "{explanation}");

    let first = dev.submit(&json!({"steps": [{"run": "true"}], "tags": ["linux"]}));
    let second = dev.submit(&json!({"steps": [{"run": "true"}], "tags": ["linux"]}));
    let urgent = dev.submit(&json!({"steps": [{"run": "true"}], "tags": ["linux"], "priority": "urgent"}));
    for (id, position) in [(&urgent, 1), (&first, 2), (&second, 3)] {
        let (explanation, busy) = until(&dev, id, "workers_busy", |_| true);
        assert_eq!((&busy["count"], &busy["slots"], &busy["running"]), (&json!(1), &json!(1), &json!(1)), "{busy}");
        let place = reason(&explanation, "queued").expect("its place");
        assert_eq!((&place["position"], &place["at_least"]), (&json!(position), &json!(false)), "{place}");
        assert!(summary(&explanation).contains(&format!("number {position} in the queue")), "{explanation}");
    }
    let worker = dev.client.get("/api/v1/workers").json["workers"][0]["id"].as_str().expect("a worker").to_owned();
    assert_eq!(dev.client.post(&format!("/api/v1/workers/{worker}/pause"), &json!({})).status, 202);
    until(&dev, &first, "workers_paused", |paused| paused["workers"][0]["id"] == worker);
    assert_eq!(dev.events(&first).len(), 2, "to be explained is no event");
}

#[test]
fn a_scheduled_job_says_until_when_and_a_retry_why_the_last_attempt_ended() {
    let dev = Dev::start();
    let later = dev.submit(&sleeping(&json!({"run_at": "2200-01-01T00:00:00Z"})));
    let (explanation, scheduled) = until(&dev, &later, "scheduled", |_| true);
    let expected = json!({"kind": "scheduled", "until": "2200-01-01T00:00:00.000000Z", "why": "run_at", "last": null});
    assert_eq!((&explanation["state"], scheduled), (&json!("scheduled"), expected));

    let backoff = json!({"max_attempts": 2, "on": ["step_failed"], "backoff": {"first": "1h", "max": "1h"}});
    let failed = dev.submit(&json!({"steps": [{"run": "exit 3"}], "retry": backoff}));
    let (explanation, scheduled) = until(&dev, &failed, "scheduled", |_| true);
    assert_eq!(scheduled["why"], "backoff");
    assert_eq!(scheduled["last"]["outcome"], json!({"reason": "step_failed", "step": 0, "exit_code": 3}));
    assert!(summary(&explanation).contains("step 0 ended with exit code 3"), "{explanation}");
}

#[test]
fn a_job_that_waits_for_its_deploy_key_says_when_the_next_try_is_and_then_that_it_is_parked() {
    let dev = Dev::start();
    let of = |tries: u32| {
        let key = json!({"name": "app", "retry": {"tries": tries, "first": "10m", "max": "10m", "deadline": "1h"}});
        sleeping(&json!({"repository": {"url": "git@127.0.0.1:org/app.git", "deploy_key": key}}))
    };
    let asking = dev.submit(&of(5));
    let (_, fetching) = until(&dev, &asking, "fetching_key", |fetching| !fetching["next_try_at"].is_null());
    assert_eq!((&fetching["key"], &fetching["last_try"]["answer"]), (&json!("app"), &json!("not_registered")));
    let (_, preparing) = until(&dev, &asking, "preparing", |_| true);
    assert_eq!((&preparing["part"], &preparing["attempt"]), (&json!("deploy_key"), &json!(1)));

    let parked = dev.submit(&of(1));
    let (explanation, waits) = until(&dev, &parked, "waits_for_key", |_| true);
    assert_eq!((&waits["key"], &waits["registered"]), (&json!("app"), &json!(false)));
    assert_eq!((&waits["last_try"]["answer"], &waits["until"]), (&json!("not_registered"), &until_of(&dev, &parked)));
    assert!(summary(&explanation).starts_with("It waits for somebody to register the deploy key app"), "{explanation}");
}

/// Until when the job is blocked, as its timeline has it.
fn until_of(dev: &Dev, id: &str) -> Value {
    let blocked = dev.events(id).into_iter().find(|event| event["kind"] == "blocked");
    blocked.expect("it is blocked")["until"].clone()
}

#[test]
fn a_running_job_says_its_step_and_a_canceled_one_that_its_worker_has_heard() {
    let dev = Dev::start();
    let stubborn = "trap '' TERM; echo trapped; while :; do sleep 1; done";
    let id = dev.submit(&json!({"steps": [{"run": "true"}, {"name": "stay", "run": stubborn}], "grace": "1h"}));
    let (explanation, running) = until(&dev, &id, "running", |running| running["step"] == 1);
    assert_eq!((&running["name"], &running["steps"], &running["attempt"]), (&json!("stay"), &json!(2), &json!(1)));
    assert_eq!(running["worker"]["id"], dev.job(&id)["worker"]);
    assert!(summary(&explanation).contains("runs step 1 (stay) of 2"), "{explanation}");
    eventually(DEADLINE, "it doesn't hear SIGTERM", || dev.text(&id).contains("trapped").then_some(()));

    assert_eq!(dev.cancel(&id, &json!({"reason": "enough"})), (202, "canceling".to_owned()));
    let (explanation, canceling) = until(&dev, &id, "canceling", |canceling| canceling["told"] == "yes");
    assert_eq!((&canceling["by"], &canceling["why"]), (&json!("client:dev"), &json!("enough")));
    assert!(!canceling["told_at"].is_null() && canceling["kills_at"].as_str() < canceling["gives_up_at"].as_str());
    assert!(summary(&explanation).contains("has heard of it and has yet to confirm"), "{explanation}");

    dev.cancel(&id, &json!({"force": true}));
    dev.ended(&id);
    let (explanation, ended) = until(&dev, &id, "ended", |_| true);
    assert_eq!((&explanation["state"], &ended["outcome"]["confirmed"]), (&json!("canceled"), &json!(true)));
}

#[test]
fn the_client_prints_the_summary_and_a_line_for_each_fact() {
    let dev = Dev::start();
    let id = dev.submit(&json!({"steps": [{"run": "true"}], "tags": ["gpu"]}));
    let run = |arguments: &[&str]| {
        let ended = Running::start(dev.client_command(arguments)).finish();
        assert_eq!(ended.code, Some(0), "{}", ended.said());
        ended.out()
    };
    until(&dev, &id, "no_worker_has_tags", |missing| missing["workers"] == 1);
    let text = run(&["explain", &id]);
    let lines: Vec<&str> = text.lines().collect();
    let expected = [
        "queued: No worker has the tag gpu. It is number 1 in the queue for its tags.",
        "",
        "no_worker_has_tags",
        "  missing       gpu",
        "  tags          gpu",
        "  workers       1",
        "",
        "queued",
        "  at_least      false",
    ];
    assert_eq!(lines[..expected.len()], expected, "{text}");
    assert!(text.contains("\n  position      1\n  priority      normal\n"), "{text}");
    let document: Value = serde_json::from_str(&run(&["--output", "json", "explain", &id])).expect("one document");
    assert_eq!(document["reasons"], explained(&dev, &id)["reasons"]);

    let nobody = "01934f5e-0000-7000-8000-000000000007";
    let ended = Running::start(dev.client_command(&["explain", nobody])).finish();
    assert!(ended.code == Some(1) && ended.said().contains("no such job"), "{}", ended.said());
    assert_eq!(dev.client.within(Duration::from_mins(1)).get("/api/v1/jobs/x/explain").status, 400);
}
