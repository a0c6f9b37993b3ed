//! How the pages look and whom they leave out: each main view in both sizes and both schemes, checked for what a script can
//! see of it and kept as a picture for people to look at.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::windlass::beside;

use crate::Story;

/// Finds what keeps people out of a page, or makes it unpleasant: a list of faults.
const CHECK: &str = include_str!("check.js");
const SIZES: [(u32, u32); 2] = [(1280, 900), (400, 800)];

fn pictures() -> PathBuf {
    let target = beside("..");
    let dir = target.join("screenshots");
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

/// Looks at the page that is open, in every form.
fn look(story: &Story, name: &str) -> Vec<String> {
    let browser = &story.browser;
    let mut faults = Vec::new();
    for (width, height) in SIZES {
        for scheme in ["light", "dark"] {
            browser.see(width, height, scheme);
            let found = browser.run(CHECK);
            let found: Vec<Value> = found.as_array().cloned().expect("a list");
            faults.extend(found.iter().map(|fault| format!("{name} at {width}, {scheme}: {fault}")));
            browser.picture(&pictures().join(format!("{name}-{width}-{scheme}.png")));
        }
    }
    browser.see(1280, 900, "light");
    faults
}

fn job(name: &str, run: &str) -> Value {
    json!({
        "steps": [{"name": name, "run": run}, {"name": "publish", "run": "echo published"}],
        "tags": [], "labels": {"team": "core", "branch": "feature/a-rather-long-branch-name"},
    })
}

#[test]
fn every_page_is_open_to_everybody_and_fits_its_window() {
    let story = Story::begin();
    let browser = &story.browser;
    let colours = r"printf '\033[1mCompiling\033[0m windlass v0.1.0\n\033[32mok\033[0m 212 tests\n\033[33mwarning\033[0m: unused import\n'
printf '\033[31mred\033[0m \033[34mblue\033[0m \033[35mmagenta\033[0m \033[36mcyan\033[0m \033[30mblack\033[0m \033[37mwhite\033[0m \033[41mon red\033[0m \033[42mon green\033[0m\n'
echo 'error: something on standard error' >&2
i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo test module_$i::works_as_it_is_said_to_work_in_the_documents ... ok; done";
    let failed = story.dev.submit(&job("test", &format!("{colours}; exit 3")));
    let done = story.dev.submit(&job("build", &format!("{colours}; sleep 1.5")));
    story.dev.until(&failed, "failed");
    story.dev.until(&done, "succeeded");
    let waits = story.dev.submit(&json!({
        "steps": [{"run": "./deploy --to production --with-a-long-argument-that-goes-on-and-on-and-on-for-quite-a-while"}],
        "tags": ["linux", "gpu"], "repository": {"url": "https://git.example.org/a-team/with-a-long-name/application-server.git", "ref": "release/2026.11"},
    }));
    let running = story.dev.submit(&job("integration tests", &format!("{colours}; sleep 600")));
    story.dev.until(&running, "running");
    let gone = story.dev.submit(&job("nightly", "sleep 600"));
    story.dev.until(&gone, "running");
    story.dev.cancel(&gone, &json!({"reason": "superseded by a newer one", "force": true}));
    story.dev.until(&gone, "canceled");
    let mut faults = Vec::new();
    story.open("/");
    faults.extend(look(&story, "sign-in"));
    story.sign_in("/");
    browser.until("the jobs are there", "document.querySelectorAll('tbody tr').length === 5");
    faults.extend(look(&story, "jobs"));
    for (id, name) in [(&running, "job-running"), (&failed, "job-failed"), (&done, "job-succeeded")] {
        story.open_job(id);
        browser.until("the log is there", "document.querySelectorAll('.line').length > 50");
        faults.extend(look(&story, name));
    }
    browser.run("document.querySelectorAll('details').forEach((one) => (one.open = true)); document.getElementById('events').scrollIntoView()");
    faults.extend(look(&story, "job-details"));
    story.open_job(&running);
    browser.click("#cancel summary");
    faults.extend(look(&story, "job-cancel"));
    browser.run("document.querySelector('#cancel').open = false; document.getElementById('log').scrollIntoView()");
    faults.extend(look(&story, "job-log"));
    story.open(&format!("/jobs/{waits}"));
    faults.extend(look(&story, "job-queued"));
    story.open("/workers");
    browser.until("the worker's job is named", "document.querySelector('.held a')");
    faults.extend(look(&story, "workers"));
    story.open("/nowhere");
    faults.extend(look(&story, "not-found"));
    story.dev.cancel(&running, &json!({"force": true}));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
