//! Who gets in, and how one gets out.

use tests::browser::{Browser, Cookie, key};
use tests::http::Client;

use crate::{Story, cookie_value};

fn nobody(story: &Story) -> Client {
    story.dev.client.with_token("")
}

#[test]
fn a_token_opens_the_page_where_one_wanted_to_go_and_signing_out_closes_it() {
    let story = Story::begin();
    let browser = &story.browser;
    story.open("/workers?");
    assert!(browser.url().contains("/sign-in?next=%2Fworkers"), "{}", browser.url());
    browser.write("#token", "no-such-token");
    browser.click(".sign-in button");
    browser.until("the wrong token is refused", "document.querySelector('[role=alert]')");
    assert!(browser.text("[role=alert]").contains("not known"), "{}", browser.text("[role=alert]"));
    assert!(browser.cookies().is_empty());
    browser.write("#token", &story.token);
    browser.click(".sign-in button");
    browser.until("the right one is taken", "location.pathname === '/workers'");
    assert_eq!(browser.text("h1"), "Workers");
    let cookie = Cookie {
        name: "windlass_token".to_owned(),
        value: cookie_value(&story.token),
        http_only: true,
        // The test has no TLS; that the cookie has it elsewhere, a test beside the code shows.
        secure: false,
        same_site: "Strict".to_owned(),
        path: "/".to_owned(),
    };
    assert_eq!(browser.cookies(), [cookie]);
    assert_eq!(browser.run("return document.cookie"), "");
    browser.click(".who button");
    browser.until("one is signed out", "location.pathname === '/sign-in'");
    assert!(browser.cookies().is_empty());
    story.open("/");
    assert!(browser.url().ends_with("/sign-in"), "{}", browser.url());
    // That a wrong token was answered with 401 is all that the browser has to say.
    assert!(browser.complaints().iter().all(|line| line.contains("401")));
}

#[test]
fn the_keyboard_is_enough() {
    let story = Story::begin();
    let browser = &story.browser;
    let id = story.dev.submit(&serde_json::json!({"steps": [{"name": "only", "run": "true"}]}));
    story.dev.until(&id, "succeeded");
    story.open("/");
    let typed: Vec<String> = story.token.chars().map(String::from).collect();
    // The field has the focus from the start.
    browser.press(&typed.iter().map(String::as_str).collect::<Vec<_>>());
    browser.press(&[key::ENTER]);
    browser.until("one is signed in", "document.querySelector('table.jobs')");
    browser.press(&[key::TAB]);
    assert_eq!(browser.run("return document.activeElement.className"), "skip");
    browser.until("the focused link can be seen", "document.activeElement.getBoundingClientRect().top >= 0");
    browser.press(&[key::ENTER]);
    browser.until("the content has the focus", "document.activeElement.id === 'main'");
    for _ in 0..8 {
        browser.press(&[key::TAB]);
        let focused = browser.run("return document.activeElement.getAttribute('href') || ''");
        if focused.as_str().is_some_and(|path| path.starts_with("/jobs/")) {
            assert!(
                browser.holds("getComputedStyle(document.activeElement).outlineStyle !== 'none'"),
                "the focus is seen"
            );
            browser.press(&[key::ENTER]);
            break;
        }
    }
    browser.until("the job's page is open", &format!("location.pathname === '/jobs/{id}'"));
    story.quiet();
}

#[test]
fn signing_in_is_for_our_own_form_alone_and_limited() {
    let story = Story::begin();
    let client = nobody(&story);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let origin = ("origin", story.base.as_str());
    let body = format!("token={}&next=//evil.example", story.token);
    let answer = client.send("POST", "/sign-in", &[form, origin], body.as_bytes());
    assert_eq!((answer.status, answer.header("location")), (303, "/"), "{}", answer.text);
    assert!(answer.header("set-cookie").ends_with("; Path=/; HttpOnly; SameSite=Strict"));
    for headers in [&[form][..], &[form, ("origin", "https://evil.example")], &[form, ("origin", "null")]] {
        let answer = client.send("POST", "/sign-in", headers, body.as_bytes());
        assert_eq!((answer.status, answer.header("set-cookie")), (403, ""));
    }
    assert_eq!(client.send("POST", "/sign-in", &[("content-type", "text/plain"), origin], b"").status, 415);
    let large = vec![b'x'; 20_000];
    assert_eq!(client.send("POST", "/sign-in", &[form, origin], &large).status, 413);
    let statuses: Vec<u16> = (0..40)
        .map(|n| client.send("POST", "/sign-in", &[form, origin], format!("token=wrong{n}").as_bytes()).status)
        .collect();
    assert_eq!((statuses.first(), statuses.last()), (Some(&401), Some(&429)), "{statuses:?}");
    assert_eq!(
        client.send("POST", "/sign-in", &[form, origin], body.as_bytes()).status,
        303,
        "who has a token gets in"
    );
}

#[test]
fn without_scripts_one_signs_in_reads_and_commands_all_the_same() {
    let story = Story::begin();
    let browser: &Browser = &story.browser;
    let id = story.dev.submit(&serde_json::json!({"steps": [{"name": "long", "run": "sleep 600"}]}));
    story.dev.until(&id, "running");
    browser.scripts(false);
    story.open("/");
    browser.write("#token", &story.token);
    browser.click(".sign-in button");
    browser.click("td.job a");
    assert_eq!(browser.text("h1"), "long");
    assert_eq!(browser.text("#state"), "running");
    browser.click("#cancel summary");
    browser.write("#reason", "by hand");
    browser.click("#cancel form button");
    let canceled = story.dev.until(&id, "canceled");
    assert_eq!(canceled["outcome"]["why"], "by hand");
    story.open(&format!("/jobs/{id}"));
    assert_eq!(browser.text("#state"), "canceled");
    assert!(browser.text(".outcome").contains("by hand"));
}
