//! Jobs and workers are watched, and told what to do.

use serde_json::json;
use tests::browser::DEADLINE;
use tests::wait::eventually;

use crate::Story;

#[test]
fn a_job_is_watched_without_a_reload_and_canceled_from_its_page() {
    let story = Story::signed_in();
    let browser = &story.browser;
    browser.run("window.stays = true");
    assert!(browser.text("main").contains("There is no job yet"));
    let steps = json!([{"name": "count", "run": "trap 'exit 3' TERM; echo one; while true; do sleep 0.2; done"}]);
    let id = story.dev.submit(&json!({"steps": steps, "labels": {"team": "core"}, "grace": "1s"}));
    browser.until("the list shows the job by itself", "document.querySelector('.badge.running')");
    assert!(browser.holds("window.stays"), "the page wasn't loaded anew");
    browser.click("td.job a");
    browser.until("its page is open", &format!("location.pathname === '/jobs/{id}'"));
    browser.until("the log is there", "document.querySelector('.line')");
    assert!(browser.text("#explanation").contains("runs step 0 (count) of 1"), "{}", browser.text("#explanation"));
    assert!(browser.text(".lines").contains("one"));
    browser.run("window.stays = true");
    browser.click("#cancel summary");
    browser.write("#reason", "not needed <b>any more</b>");
    let typed = "document.getElementById('reason').value === 'not needed <b>any more</b>' && document.getElementById('cancel').open";
    let seen = browser.run("return document.querySelector('.legend b').parentElement.parentElement.textContent");
    browser.until("the page goes on beside", &format!("document.querySelector('.legend').textContent !== {seen}"));
    assert!(browser.holds(typed), "what was typed stays");
    browser.click("#cancel form button");
    browser.until("the job is canceled", "document.querySelector('#state').textContent.trim() === 'canceled'");
    assert_eq!(story.dev.job(&id)["outcome"]["why"], "not needed <b>any more</b>");
    assert!(browser.text(".outcome").contains("not needed <b>any more</b>"));
    let lines = story.dev.client.get("/api/v1/audit?limit=1000").json;
    let lines = lines["lines"].as_array().expect("lines").clone();
    assert!(lines.iter().any(|line| line["action"] == "job.cancel" && line["subject"] == *id), "it is in the audit");
    browser.click(".actions button");
    browser.until(
        "a new job has its own page",
        &format!("location.pathname !== '/jobs/{id}' && document.querySelector('.facts')"),
    );
    assert!(browser.text(".facts").contains(&id), "it names the one that it repeats");
    let again = browser.url().rsplit('/').next().expect("an id").to_owned();
    story.dev.until(&again, "running");
    story.dev.cancel(&again, &json!({"force": true}));
    browser.until("the page sees its end", "document.querySelector('#state').textContent.trim() === 'canceled'");
    story.quiet();
}

#[test]
fn conditions_choose_jobs_and_labels_lead_to_them() {
    let story = Story::signed_in();
    let browser = &story.browser;
    let submit = |name: &str, more: serde_json::Value| {
        let mut job = json!({"steps": [{"name": name, "run": "true"}]});
        job.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        story.dev.submit(&job)
    };
    let ended = submit("plain", json!({}));
    submit("waits", json!({"tags": ["gpu"], "labels": {"team": "a&b=c"}}));
    submit("waits too", json!({"tags": ["gpu", "big"]}));
    story.dev.until(&ended, "succeeded");
    let titles = || browser.run("return [...document.querySelectorAll('td.job > a')].map((a) => a.textContent)");
    story.open("/?state=&tag=&repository=&label=");
    assert_eq!(titles(), json!(["waits too", "waits", "plain"]));
    browser.write("#tag", "gpu");
    browser.click(".filter button");
    browser.until("the tag counts", "location.search.includes('tag=gpu')");
    assert_eq!(titles(), json!(["waits too", "waits"]));
    browser.click("ul[aria-label=Labels] a");
    browser.until("the label counts", "location.search.includes('label=')");
    assert_eq!(titles(), json!(["waits"]));
    assert_eq!(browser.run("return document.getElementById('label').value"), "team=a&b=c");
    browser.click("td.job > a");
    browser.until("why it waits is said", "document.querySelector('#explanation')");
    assert!(browser.text("#explanation").contains("No worker has the tag gpu"), "{}", browser.text("#explanation"));
    story.open("/?state=none");
    assert_eq!(browser.text("h1"), "Bad Request");
    assert!(browser.text("main").contains("state"), "the page says what is wrong");
    story.open("/nowhere");
    assert_eq!(browser.text("h1"), "Not Found");
    story.open("/jobs/01934f5e-0000-7000-8000-000000000007");
    assert_eq!(browser.text("h1"), "Not Found");
}

#[test]
fn workers_show_what_they_run_and_are_paused_and_resumed() {
    let story = Story::signed_in();
    let browser = &story.browser;
    let id = story.dev.submit(&json!({"steps": [{"name": "busy", "run": "sleep 600"}]}));
    story.dev.until(&id, "running");
    story.open("/workers");
    browser.until("the worker's job is named", "document.querySelector('.held a')");
    assert_eq!(browser.text(".held a"), "busy");
    browser.until("its slot is taken", "document.querySelector('.slots').textContent.includes('1 of 2 slots')");
    browser.click("form[action$='/pause'] button");
    browser.until("it is paused", "document.querySelector('.card .badge.paused')");
    let state = || story.dev.client.get("/api/v1/workers").json["workers"][0]["state"].clone();
    eventually(DEADLINE, "the API says so too", || (state() == "paused").then_some(()));
    browser.click("form[action$='/resume'] button");
    browser.until("it is resumed", "document.querySelector('.card .badge.active')");
    story.dev.cancel(&id, &json!({"force": true}));
    browser.until("it runs nothing", "!document.querySelector('.held')");
    story.quiet();
}

#[test]
fn who_may_only_look_gets_no_buttons() {
    let story = Story::begin();
    let made = story.dev.client.post("/api/v1/tokens", &json!({"role": "viewer", "name": "looker"}));
    assert_eq!(made.status, 201, "{}", made.text);
    let viewer = Story { token: made.json["token"].as_str().expect("a token").to_owned(), ..story };
    let browser = &viewer.browser;
    let id = viewer.dev.submit(&json!({"steps": [{"run": "sleep 600"}]}));
    viewer.sign_in(&format!("/jobs/{id}"));
    assert!(browser.text(".who").contains("looker viewer"));
    assert!(!browser.holds("document.querySelector('.actions')"));
    viewer.open("/workers");
    assert!(!browser.holds("document.querySelector('.actions')"));
    let cookie = format!("windlass_token={}", crate::cookie_value(&viewer.token));
    let form = [("content-type", "application/x-www-form-urlencoded"), ("cookie", &*cookie), ("origin", &*viewer.base)];
    let nobody = viewer.dev.client.with_token("");
    let answer = nobody.send("POST", &format!("/jobs/{id}/cancel"), &form, b"");
    assert_eq!(answer.status, 403);
    assert!(answer.text.contains("<h1>Forbidden</h1>"), "{}", answer.text);
    viewer.dev.cancel(&id, &json!({"force": true}));
}
