//! The list with more jobs than anybody reads.

use std::time::Duration;

use serde_json::{Value, json};
use shared::clock;

use crate::Story;

/// How many jobs there are, unless the machine is too slow to take them within [`FILL_FOR`].
const JOBS: usize = 100_000;
const BATCH: usize = 1000;
const FILL_FOR: Duration = Duration::from_secs(30);
/// How long a page may take, ten times what it does.
const PAGE_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_hundred_thousand_jobs_are_listed_page_by_page() {
    let story = Story::signed_in();
    let browser = &story.browser;
    let job =
        json!({"steps": [{"name": "one of many", "run": "true"}], "tags": ["nobody"], "labels": {"batch": "all"}});
    let batch = json!({"jobs": vec![job; BATCH]});
    let begun = clock::instant();
    let mut count = 0;
    while count < JOBS && begun.elapsed() < FILL_FOR {
        let answer = story.dev.client.post("/api/v1/jobs", &batch);
        assert_eq!(answer.status, 201, "{}", answer.text);
        count += BATCH;
    }
    println!("{count} jobs in {} s", begun.elapsed().as_secs());
    let timed = |what: &str, go: &dyn Fn()| {
        let begun = clock::instant();
        go();
        println!("{what}: {} ms", begun.elapsed().as_millis());
        assert!(begun.elapsed() < PAGE_WITHIN, "{what} took {} ms", begun.elapsed().as_millis());
    };
    let ids = || browser.run("return [...document.querySelectorAll('tbody tr')].map((row) => row.id)");
    timed("the list", &|| story.open("/"));
    let first = ids();
    assert_eq!(first.as_array().map(Vec::len), Some(50));
    timed("the next page", &|| {
        browser.click("a[rel=next]");
        browser.until("it is another page", "location.search.includes('cursor=')");
    });
    let second = ids();
    assert_eq!(second.as_array().map(Vec::len), Some(50));
    let both: std::collections::BTreeSet<&str> =
        first.as_array().into_iter().chain(second.as_array()).flatten().filter_map(Value::as_str).collect();
    assert_eq!(both.len(), 100, "no job is on both pages");
    timed("those of a state", &|| story.open("/?state=queued&tag=nobody&label=batch%3Dall"));
    assert_eq!(ids(), first);
    timed("those of a state that none has", &|| story.open("/?state=failed"));
    assert_eq!(ids(), json!([]));
    timed("the workers", &|| story.open("/workers"));
    story.quiet();
}
