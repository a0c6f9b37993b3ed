//! The web page in a real browser, served by the real program, with jobs that really run.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tests::browser::Browser;
use tests::dev::Dev;

mod browser {
    mod commands;
    mod hostile;
    mod log;
    mod looks;
    mod many;
    mod sign_in;
}

/// A server with two slots, and somebody in front of a browser.
struct Story {
    dev: Dev,
    browser: Browser,
    base: String,
    token: String,
}

impl Story {
    /// Nobody is signed in yet.
    fn begin() -> Self {
        let dev = Dev::start_with(&["--slots", "2"]);
        let token = std::fs::read_to_string(dev.data_dir().join("token")).expect("the token").trim().to_owned();
        let base = dev.client.base().to_owned();
        Self { dev, browser: Browser::start(), base, token }
    }

    /// The same after the sign-in.
    fn signed_in() -> Self {
        let story = Self::begin();
        story.sign_in("/");
        story
    }

    /// Signs in on the way to `path`.
    fn sign_in(&self, path: &str) {
        self.browser.go(&self.at(path));
        self.browser.write("#token", &self.token);
        self.browser.click(".sign-in button");
        self.browser.until("somebody is signed in", "document.querySelector('.who')");
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Opens a page of ours.
    fn open(&self, path: &str) {
        self.browser.go(&self.at(path));
    }

    /// Opens a job's page and waits until its log is there.
    fn open_job(&self, id: &str) {
        self.open(&format!("/jobs/{id}"));
        self.browser.until("the log is there", "document.querySelector('.tools:not([hidden])')");
    }

    /// What the browser complains of must be nothing.
    fn quiet(&self) {
        let complaints = self.browser.complaints();
        assert!(complaints.is_empty(), "{complaints:#?}");
        assert_eq!(self.browser.dialog(), None, "a dialog is open");
    }
}

/// The cookie's value for a token.
fn cookie_value(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(token)
}

#[test]
fn what_the_ring_needs_is_here() {
    for program in ["chromium", "chromedriver"] {
        let found = Command::new(program).arg("--version").output();
        assert!(found.is_ok_and(|found| found.status.success()), "{program} is missing: tests/run installs it");
    }
}
