//! The log of a job: followed, searched, coloured, linked to, downloaded, and as long as it may be.

use serde_json::json;
use tests::browser::DEADLINE;
use tests::wait::eventually;

use crate::Story;

/// As many nodes as a page with such a log may have: a window of 2,000 lines with three each, and the rest of the page.
const NODES_MAX: u64 = 7_000;

fn nodes(story: &Story) -> u64 {
    story.browser.run("return document.getElementsByTagName('*').length").as_u64().expect("a number")
}

#[test]
fn a_running_log_is_followed_and_one_line_is_linked_to() {
    let story = Story::signed_in();
    let browser = &story.browser;
    let run = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; done; while [ ! -e go ]; do sleep 0.1; done; echo the very last";
    let id = story.dev.submit(&json!({"steps": [{"name": "talks", "run": run.replace("go", &story.dev.data_dir().join("go").display().to_string())}]}));
    story.open_job(&id);
    browser.until("all that was written is there", "document.getElementById('L300')");
    browser.until("it follows", "document.getElementById('follow').getAttribute('aria-pressed') === 'true'");
    browser.until(
        "the end is in sight",
        "document.querySelector('.lines').scrollHeight - document.querySelector('.lines').scrollTop - document.querySelector('.lines').clientHeight < 40",
    );
    std::fs::write(story.dev.data_dir().join("go"), "").expect("it can be written");
    browser.until(
        "what is written now comes by itself",
        "document.querySelector('.lines').textContent.includes('the very last')",
    );
    browser.until(
        "it doesn't follow what is over",
        "document.getElementById('follow').getAttribute('aria-pressed') === 'false'",
    );
    story.dev.until(&id, "succeeded");
    browser.run("document.querySelector('#L250 .n').click()");
    browser.until("the line is in the address", "location.hash === '#L250'");
    browser.until("and marked", "document.querySelector('#L250.marked')");
    story.open("/");
    story.open(&format!("/jobs/{id}#L42"));
    browser.until("the link leads to the line", "document.querySelector('#L42.marked')");
    let inside = "(() => { const line = document.getElementById('L42').getBoundingClientRect(); \
                  const view = document.querySelector('.lines').getBoundingClientRect(); \
                  return line.top >= view.top && line.bottom <= view.bottom; })()";
    browser.until("which is in sight", inside);
    let file = story.dev.client.get(&format!("/jobs/{id}/log.txt"));
    assert_eq!(file.header("content-disposition"), format!("attachment; filename=\"{id}.txt\""));
    assert_eq!(file.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(file.text, story.dev.text(&id));
    story.quiet();
}

#[test]
fn colours_are_shown_and_the_text_is_searched_through_them() {
    let story = Story::signed_in();
    let browser = &story.browser;
    let run = r"printf 'a \033[1;31mred\033[0m b\n\033[38;5;46mgreen \033[48;2;10;10;250mon blue\033[m\n\033]0;title\007x\033[2K\033[1Gy\n'
printf '10%%\r20%%\rdone\n'; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo filler $i; done; printf 'the \033[4mnee\033[mdle\n'
i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo more $i; done; echo Needle again";
    let id = story.dev.submit(&json!({"steps": [{"run": run}]}));
    story.dev.until(&id, "succeeded");
    story.open_job(&id);
    browser.until("the log is there", "document.getElementById('L4')");
    let spans = browser.run(
        "return [...document.querySelectorAll('#L1 .text, #L2 .text, #L3 .text, #L4 .text')].map((line) => \
        [...line.childNodes].map((run) => [run.className || '', run.textContent]))",
    );
    let expected = json!([
        [["", "a "], ["bold fg-red", "red"], ["", " b"]],
        [["fg-green", "green "], ["bg-blue", "on blue"]],
        [["", "x"], ["", "y"]],
        [["", "done"]],
    ]);
    assert_eq!(spans, expected);
    let found = |line: u32, how: &str| {
        browser.until(&format!("line {line} is found"), &format!("document.querySelector('#L{line}.hit')"));
        assert!(browser.text(".said").starts_with(how), "{}", browser.text(".said"));
    };
    browser.write("#find", "needle");
    browser.click(".find button[type=submit]");
    found(3005, "Found in line 3005.");
    browser.click(".find button[type=submit]");
    found(6006, "Found in line 6006.");
    browser.click("#find-back");
    found(3005, "Found in line 3005.");
    browser.click("#find-back");
    found(6006, "Found in line 6006, from the end again");
    browser.click(".find button[type=submit]");
    found(3005, "Found in line 3005, from the beginning again");
    browser.run("document.getElementById('find').value = ''");
    browser.write("#find", "no such words");
    browser.click(".find button[type=submit]");
    browser.until("what isn't there isn't found", "document.querySelector('.said').textContent === 'Not found.'");
    story.quiet();
}

#[test]
fn a_log_of_fifty_megabytes_opens_scrolls_and_ends_in_a_bounded_page() {
    let story = Story::signed_in();
    let browser = &story.browser;
    // 600,000 lines of 84 bytes.
    let run = "seq -f '%010.0f the quick brown fox jumps over the lazy dog and does so again and again and on' 600000";
    let id = story.dev.submit(&json!({"steps": [{"run": run}]}));
    story.open_job(&id);
    let mut looks = 0;
    eventually(DEADLINE, "it is followed to its end", || {
        looks += 1;
        assert!(nodes(&story) < NODES_MAX, "{} nodes", nodes(&story));
        browser.holds("document.getElementById('follow').getAttribute('aria-pressed') === 'false' && document.querySelector('.badge.succeeded')").then_some(())
    });
    println!("looked at {looks} times meanwhile");
    // A line that came in two pieces counts twice.
    let last = story.dev.client.get(&format!("/jobs/{id}/log-end?attempt=1")).json["last"].as_u64().expect("a number");
    assert!((600_000..601_000).contains(&last), "{last}");
    let after = story.dev.client.get(&format!("/api/v1/jobs/{id}/logs?after={}", last - 1)).json;
    assert_eq!(after["lines"].as_array().map(Vec::len), Some(1), "it is the last one");
    browser.until("what came last is in sight", &format!("document.getElementById('L{last}')"));
    story.open_job(&id);
    browser.until("the beginning is there", "document.getElementById('L1')");
    browser.click("#to-end");
    browser.until("the end is there", &format!("document.getElementById('L{last}')"));
    let text = browser.run(&format!("return document.querySelector('#L{last} .text').textContent"));
    assert!(text.as_str().is_some_and(|text| text.starts_with("0000600000 the quick")), "{text}");
    assert!(nodes(&story) < NODES_MAX, "{} nodes", nodes(&story));
    browser.run("location.hash = '#L300000'");
    browser.until("a line in the middle is there", "document.querySelector('#L300000.marked')");
    let first = "Number(document.querySelector('.line').id.slice(1))";
    for _ in 0..3 {
        let before = browser.run(&format!("return {first}"));
        browser.run("document.querySelector('.lines').scrollTop = 0");
        browser.until("scrolling up brings what was before", &format!("{first} < {before}"));
        assert!(nodes(&story) < NODES_MAX, "{} nodes", nodes(&story));
    }
    let last = "Number([...document.querySelectorAll('.line')].pop().id.slice(1))";
    for _ in 0..6 {
        let before = browser.run(&format!("return {last}"));
        browser.run("document.querySelector('.lines').scrollTop = 1e9");
        browser.until("scrolling down brings what follows", &format!("{last} > {before}"));
        assert!(nodes(&story) < NODES_MAX, "{} nodes", nodes(&story));
    }
    let gaps = "(() => { const all = [...document.querySelectorAll('.line')].map((line) => Number(line.id.slice(1))); \
                return all.some((n, at) => at && n !== all[at - 1] + 1); })()";
    assert!(!browser.holds(gaps), "no line is missing and none is doubled");
    story.quiet();
}
