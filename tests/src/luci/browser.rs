//! One headless Chromium, driven over WebDriver (W3C, JSON over HTTP on loopback).
//!
//! A test opens pages, acts as a user does, and asks for what is shown. What the page asked of
//! the network and wrote to the console is collected all the while; [`Browser::close`] fails
//! the test when there was an error, or a request to anywhere but loopback. Chromium itself
//! may resolve nothing.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::need::find;
use crate::lab::wait::{eventually, patience};

/// How long one command of the protocol may take.
const COMMAND_SECONDS: f64 = 30.0;
/// How long a page may take to show what a test waits for.
const SHOWN_SECONDS: f64 = 15.0;

/// How often chromedriver is started before a test gives up.
const START_ATTEMPTS: usize = 5;
/// Largest reply of the protocol: a picture of a long page.
const REPLY_BYTES_MAX: u64 = 64 << 20;

/// A running browser with one window.
pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    /// `http://127.0.0.1:PORT/session/ID`.
    session: String,
    name: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser; `name` is for screenshots.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(name: &str) -> Self {
        let (driver, port) = start_driver();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(patience(COMMAND_SECONDS)))
            .http_status_as_error(false)
            .build()
            .into();
        let profile = TempDir::new().expect("a folder for the browser's profile");
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser =
            Self { driver, agent, session: base.clone(), name: name.to_owned(), _profile: profile };
        let made = browser.post("", &capabilities(browser._profile.path()));
        let id = made["sessionId"].as_str().expect("a session has an id");
        browser.session = format!("{base}/{id}");
        browser
    }

    /// Opens a page and waits until its view is drawn.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
        let drawn = "const v = document.getElementById('view'); const styled = Array.from(document.querySelectorAll('link[rel=stylesheet]')).every((l) => l.sheet || !matchMedia(l.media || 'all').matches); return !!v && styled && !v.querySelector(':scope > .spinning') && v.children.length > 0";
        self.wait("the view is drawn", drawn);
    }

    /// Runs a function's body in the page; `return` gives its value.
    ///
    /// # Panics
    /// When it throws.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The same with one argument, `arguments[0]`.
    ///
    /// # Panics
    /// When it throws.
    pub fn run_with(&self, script: &str, argument: &Value) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [argument] }))
    }

    /// Waits until a function's body returns true.
    ///
    /// # Panics
    /// When that takes too long; shows the page's text then.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: &str) {
        eventually(SHOWN_SECONDS, what, || match self.run(condition) {
            Value::Bool(true) => Ok(()),
            other => Err(format!("{other}; the page shows:\n{}", self.text("#maincontent"))),
        });
    }

    /// The visible text of the first element that fits; empty when there is none.
    #[must_use]
    pub fn text(&self, selector: &str) -> String {
        let script = "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''";
        self.run_with(script, &json!(selector)).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element shows a text.
    ///
    /// # Panics
    /// When that takes too long.
    #[track_caller]
    pub fn shows(&self, selector: &str, text: &str) {
        eventually(SHOWN_SECONDS, &format!("{selector} shows {text:?}"), || {
            let shown = self.text(selector);
            if shown.contains(text) { Ok(()) } else { Err(shown) }
        });
    }

    /// How many elements fit.
    #[must_use]
    pub fn count(&self, selector: &str) -> u64 {
        let script = "return document.querySelectorAll(arguments[0]).length";
        self.run_with(script, &json!(selector)).as_u64().unwrap_or_default()
    }

    /// Clicks the first element that fits, as a user would: it must be there to be hit.
    ///
    /// # Panics
    /// When there is none, or something lies above it.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.act(selector, |element| self.send(&format!("/element/{element}/click"), &json!({})));
    }

    /// Empties a field and types into it.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        // An empty text still is a change that a page must see.
        let keys = if text.is_empty() { "x\u{e003}" } else { text };
        self.act(selector, |element| {
            self.send(&format!("/element/{element}/clear"), &json!({}))?;
            self.send(&format!("/element/{element}/value"), &json!({ "text": keys }))
        });
    }

    /// Chooses an option of a select by its value.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn choose(&self, selector: &str, value: &str) {
        self.click(&format!("{selector} > option[value=\"{value}\"]"));
    }

    /// The window is a screen of that size; `phone` with touch and its pixel ratio.
    pub fn size(&self, width: u32, height: u32, phone: bool) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// The user prefers dark pages, or light ones.
    pub fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", features);
    }

    /// A command of the browser's own protocol.
    pub fn devtools(&self, command: &str, params: Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    /// Where `AGENTMON_SCREENSHOTS` names a folder: a picture of the whole page in it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn picture(&self, what: &str) {
        let Some(folder) = std::env::var_os("AGENTMON_SCREENSHOTS") else { return };
        let taken =
            self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        let data = taken["data"].as_str().expect("a picture");
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        let file = Path::new(&folder).join(format!("{}-{what}.png", self.name));
        std::fs::write(&file, bytes).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }

    /// Everything the pages complained of, and every address they asked: one line each.
    #[must_use]
    pub fn misbehaviour(&self) -> Vec<String> {
        let entries = |kind: &str| self.post("/se/log", &json!({ "type": kind }));
        let mut found = Vec::new();
        for entry in entries("browser").as_array().into_iter().flatten() {
            if matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")) {
                found.push(format!("console: {}", entry["message"]));
            }
        }
        for entry in entries("performance").as_array().into_iter().flatten() {
            let message: Value =
                serde_json::from_str(entry["message"].as_str().unwrap_or_default())
                    .unwrap_or_default();
            let message = &message["message"];
            let url = message["params"]["request"]["url"].as_str().unwrap_or_default();
            if message["method"] == "Network.requestWillBeSent" && !is_local(url) {
                found.push(format!("request to {url}"));
            }
        }
        found
    }

    /// Ends the browser; every test ends with it.
    ///
    /// # Panics
    /// When a page complained or asked anything outside of loopback.
    #[track_caller]
    pub fn close(self) {
        self.close_but_for(&[]);
    }

    /// The same, but complaints with one of these words in them are expected.
    ///
    /// # Panics
    /// As [`Browser::close`].
    #[track_caller]
    pub fn close_but_for(self, expected: &[&str]) {
        let mut found = self.misbehaviour();
        found.retain(|line| !expected.iter().any(|words| line.contains(words)));
        assert!(found.is_empty(), "the pages misbehaved:\n{}", found.join("\n"));
    }

    /// Does something with the first element that fits; again when the page was drawn anew
    /// in between.
    #[track_caller]
    fn act(&self, selector: &str, act: impl Fn(&str) -> Result<Value, String>) {
        eventually(SHOWN_SECONDS, &format!("{selector} can be used"), || {
            let asked = json!({ "using": "css selector", "value": selector });
            let found = self.send("/element", &asked)?;
            let id = found.as_object().and_then(|o| o.values().next()?.as_str());
            act(id.ok_or("no element")?)
        });
    }

    /// Sends a command and gives its value.
    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.send(path, body).unwrap_or_else(|complaint| panic!("{path} {body}: {complaint}"))
    }

    /// The same, or what the browser says against it.
    #[track_caller]
    fn send(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        let reply = self.agent.post(&url).content_type("application/json").send(body.to_string());
        let mut reply = reply.unwrap_or_else(|e| panic!("chromedriver {path}: {e}"));
        let text = reply.body_mut().with_config().limit(REPLY_BYTES_MAX).read_to_string();
        let text = text.unwrap_or_else(|e| panic!("chromedriver {path}: {e}"));
        let mut value: Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"));
        let value = value["value"].take();
        match (value["error"].as_str(), value["message"].as_str()) {
            (Some(error), Some(message)) => Err(format!("{error}: {message}")),
            _ => Ok(value),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closes Chromium; chromedriver itself has no child left then.
        drop(self.agent.delete(&self.session).call());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

/// This machine, or the browser's own start page.
fn is_local(url: &str) -> bool {
    let local = ["http://127.0.0.1:", "data:", "about:", "blob:http://127.0.0.1:", "chrome:"];
    local.iter().any(|start| url.starts_with(start))
}

/// A driver and its port. It takes the same free port for both kinds of addresses, and ends
/// when another program was quicker on the second: then once more.
fn start_driver() -> (Child, u16) {
    let attempts = (0..START_ATTEMPTS).find_map(|_| try_driver());
    attempts.expect("chromedriver starts and says its port")
}

fn try_driver() -> Option<(Child, u16)> {
    let program = find("chromedriver").expect("looked for before the test began");
    let mut command = Command::new(program);
    command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut driver = command.spawn().expect("chromedriver starts");
    let mut lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let rest = line.split_once("started successfully on port ")?.1;
        rest.trim_end_matches('.').trim().parse().ok()
    });
    let Some(port) = port else {
        // It has closed its output, so it is ending.
        driver.wait().expect("a child can be waited for");
        return None;
    };
    // What it says later is read too, or it would block.
    std::thread::spawn(move || lines.for_each(drop));
    Some((driver, port))
}

fn capabilities(profile: &Path) -> Value {
    let chromium = find("chromium").expect("looked for before the test began");
    let profile = format!("--user-data-dir={}", profile.display());
    json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome",
        "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        "goog:chromeOptions": { "binary": chromium, "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-extensions", "--window-size=1200,900", "--lang=en-US",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", profile
        ] }
    } } })
}
