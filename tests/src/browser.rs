//! A browser as a person has it: headless Chromium with a profile of its own, driven through chromedriver's `WebDriver`
//! interface. Dropping it ends both.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use crate::wait::eventually;
use crate::windlass::Running;

/// How long something on a page may take, on a machine that is busy with other tests.
pub const DEADLINE: Duration = Duration::from_mins(5);
/// The most bytes of one of the driver's answers: a picture of a page fits.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How `WebDriver` marks an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What the driver says with its port once it serves.
const SERVING: &str = "started successfully on port ";

/// The keys that have no character of their own.
pub mod key {
    pub const TAB: &str = "\u{e004}";
    pub const ENTER: &str = "\u{e007}";
    pub const ESCAPE: &str = "\u{e00c}";
}

/// A browser with one window.
#[derive(Debug)]
pub struct Browser {
    agent: Agent,
    session: String,
    driver: Running,
    /// All that it keeps.
    profile: TempDir,
}

/// A cookie as the browser keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    pub name: String,
    pub value: String,
    pub http_only: bool,
    pub secure: bool,
    pub same_site: String,
    pub path: String,
}

impl Browser {
    /// Starts one with a window of 1280 by 900 pixels.
    pub fn start() -> Self {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0");
        let driver = Running::start(command);
        let port = eventually(DEADLINE, "chromedriver serves", || {
            let said = driver.stdout();
            let (_, rest) = said.split_once(SERVING)?;
            rest.split_once('.').map(|(port, _)| port.to_owned())
        });
        let profile = tempfile::tempdir().expect("a temporary directory");
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE));
        let mut browser = Self {
            agent: config.build().new_agent(),
            session: format!("http://127.0.0.1:{port}/session"),
            driver,
            profile,
        };
        let data = format!("--user-data-dir={}", browser.profile.path().display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
            &data,
        ];
        let options = json!({"args": arguments});
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
            // A dialog that a page opens is to be found.
            "unhandledPromptBehavior": "ignore",
        }}});
        let made = browser.send("POST", "", &wanted).expect("a session");
        let id = made["sessionId"].as_str().expect("its id");
        browser.session = format!("{}/{id}", browser.session);
        browser.see(1280, 900, "light");
        browser
    }

    /// Opens an address and waits until it is loaded.
    pub fn go(&self, url: &str) {
        self.send("POST", "/url", &json!({"url": url})).expect("it opens");
    }

    pub fn reload(&self) {
        self.send("POST", "/refresh", &json!({})).expect("it loads again");
    }

    pub fn url(&self) -> String {
        self.send("GET", "/url", &Value::Null).expect("an address").as_str().expect("text").to_owned()
    }

    pub fn title(&self) -> String {
        self.send("GET", "/title", &Value::Null).expect("a title").as_str().expect("text").to_owned()
    }

    /// What the body of a function returns in the page.
    pub fn run(&self, body: &str) -> Value {
        let answer = self.send("POST", "/execute/sync", &json!({"script": body, "args": []}));
        answer.unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    /// Whether an expression holds in the page.
    pub fn holds(&self, expression: &str) -> bool {
        self.run(&format!("return Boolean({expression})")) == true
    }

    /// Waits until an expression holds in the page.
    pub fn until(&self, what: &str, expression: &str) {
        eventually(DEADLINE, what, || {
            let answer = self.send(
                "POST",
                "/execute/sync",
                &json!({"script": format!("return Boolean({expression})"), "args": []}),
            );
            // A page that is just being left has no answer.
            (answer.ok()? == true).then_some(())
        });
    }

    /// The text of the first element that fits, as a person sees it.
    pub fn text(&self, selector: &str) -> String {
        let id = self.find(selector);
        self.send("GET", &format!("/element/{id}/text"), &Value::Null)
            .expect("its text")
            .as_str()
            .expect("text")
            .to_owned()
    }

    pub fn click(&self, selector: &str) {
        let id = self.find(selector);
        self.send("POST", &format!("/element/{id}/click"), &json!({})).unwrap_or_else(|e| panic!("{selector}: {e}"));
    }

    /// Types into the first element that fits.
    pub fn write(&self, selector: &str, text: &str) {
        let id = self.find(selector);
        self.send("POST", &format!("/element/{id}/value"), &json!({"text": text})).expect("it takes text");
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub fn press(&self, keys: &[&str]) {
        let actions: Vec<Value> = keys
            .iter()
            .flat_map(|key| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})])
            .collect();
        let all = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.send("POST", "/actions", &all).expect("they are pressed");
    }

    /// What the page says in a dialog, where it has opened one.
    pub fn dialog(&self) -> Option<String> {
        self.send("GET", "/alert/text", &Value::Null).ok().map(|text| text.to_string())
    }

    pub fn cookies(&self) -> Vec<Cookie> {
        let all = self.send("GET", "/cookie", &Value::Null).expect("cookies");
        let text = |cookie: &Value, name: &str| cookie[name].as_str().unwrap_or_default().to_owned();
        let cookie = |cookie: &Value| Cookie {
            name: text(cookie, "name"),
            value: text(cookie, "value"),
            http_only: cookie["httpOnly"] == true,
            secure: cookie["secure"] == true,
            same_site: text(cookie, "sameSite"),
            path: text(cookie, "path"),
        };
        all.as_array().expect("a list").iter().map(cookie).collect()
    }

    /// What the browser has complained of since the last call: errors of scripts, and what the policy has kept from running.
    pub fn complaints(&self) -> Vec<String> {
        let all = self.send("POST", "/se/log", &json!({"type": "browser"})).expect("its log");
        let severe = all.as_array().expect("a list").iter().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Sets the size of the page and its `prefers-color-scheme`.
    pub fn see(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &media);
    }

    /// Lets scripts run, or not.
    pub fn scripts(&self, run: bool) {
        self.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": !run}));
    }

    /// Writes a picture of what is seen into a file.
    pub fn picture(&self, path: &Path) {
        let picture = self.send("GET", "/screenshot", &Value::Null).expect("a picture");
        let bytes = STANDARD.decode(picture.as_str().expect("base64")).expect("base64");
        fs::write(path, bytes).expect("it can be written");
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        let call = json!({"cmd": command, "params": parameters});
        self.send("POST", "/goog/cdp/execute", &call).expect("it is done");
    }

    fn find(&self, selector: &str) -> String {
        let wanted = json!({"using": "css selector", "value": selector});
        eventually(DEADLINE, &format!("{selector} is there"), || {
            let found = self.send("POST", "/element", &wanted).ok()?;
            found[ELEMENT].as_str().map(str::to_owned)
        })
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        let answer = match method {
            "GET" => self.agent.get(&url).call(),
            "DELETE" => self.agent.delete(&url).call(),
            _ => self.agent.post(&url).content_type("application/json").send(body.to_string()),
        };
        let mut answer = answer.map_err(|error| error.to_string())?;
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let mut said: Value = serde_json::from_str(&text.map_err(|error| error.to_string())?).unwrap_or_default();
        if answer.status().is_success() { Ok(said["value"].take()) } else { Err(said["value"].to_string()) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session; whatever is left of it ends with the driver's group.
        let _ = self.send("DELETE", "", &Value::Null);
        if std::thread::panicking() {
            eprintln!("what chromedriver wrote:\n{}", self.driver.stderr());
        }
    }
}
