//! A real browser for one test: Chromium without a window, driven by WebDriver.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::http;
use crate::ports::free_port;
use crate::process::{Process, ProcessBuilder, find_program};
use crate::time::POLL_PERIOD;

/// The line that installs Chromium and its driver on Debian.
pub const INSTALL: &str = "cargo xtask test  (installs it), or: sudo apt-get install -y --no-install-recommends chromium chromium-driver";
/// How long the driver may take to answer.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A browser with one tab and a profile of its own; killed, and the profile removed, when dropped.
#[derive(Debug)]
pub struct Browser {
    // Before the directory, so that the process is gone when its files go.
    _driver: Process,
    addr: SocketAddr,
    session: String,
    /// The browser is a child of the driver, which does not take it along when it is killed.
    pid: Option<Pid>,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser whose window has this many pixels.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`]; [`Error::Late`]; [`Error::Http`] with what the driver says.
    pub async fn start(width: u32, height: u32) -> Result<Self, Error> {
        let program = find_program("chromedriver", INSTALL)?;
        let chromium = find_program("chromium", INSTALL)?;
        let profile = TempDir::with_prefix("ringkit-browser-")
            .map_err(|cause| Error::io("creating a browser's profile", cause))?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let driver = ProcessBuilder::new("chromedriver", program)
            .arg(format!("--port={}", addr.port()))
            .dir(profile.path())
            .start()?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !matches!(http::get(addr, "/status").await, Ok(answer) if answer.status == 200) {
            if Instant::now() >= deadline {
                let detail = format!("\n{}", driver.last_output());
                return Err(Error::Late { what: "chromedriver".to_owned(), within: START_TIMEOUT, detail });
            }
            sleep(POLL_PERIOD).await;
        }
        // No sandbox, because tests often run as root; the pages are our own.
        let args = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--user-data-dir={}", profile.path().join("profile").display()),
            format!("--window-size={width},{height}"),
        ];
        let options = json!({ "binary": chromium, "args": args });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "unhandledPromptBehavior": "ignore"
        } } });
        let mut browser =
            Self { _driver: driver, addr, session: String::new(), pid: None, _profile: profile };
        let started = browser.call("POST", "/session", &wanted).await?;
        let pid = started["capabilities"]["goog:processID"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        browser.pid = pid.and_then(Pid::from_raw);
        browser.session = started["sessionId"].as_str().unwrap_or_default().to_owned();
        Ok(browser)
    }

    /// Pretends to be a phone of this many pixels, or, with zeros, no longer.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] with what the driver says.
    pub async fn resize(&self, width: u32, height: u32) -> Result<(), Error> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width > 0 && width < 640 });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.session_call("POST", "/goog/cdp/execute", &command).await.map(drop)
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] with what the driver says.
    pub async fn open(&self, url: &str) -> Result<(), Error> {
        self.session_call("POST", "/url", &json!({ "url": url })).await.map(drop)
    }

    /// Runs the body of a function in the page and tells what it returns.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] with what the driver says, for example the exception.
    pub async fn run(&self, script: &str) -> Result<Value, Error> {
        self.session_call("POST", "/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// Clicks on the first element that a CSS selector finds, as a person would: it must be visible.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] with what the driver says, for example that there is no such element.
    pub async fn click(&self, selector: &str) -> Result<(), Error> {
        let using = json!({ "using": "css selector", "value": selector });
        let found = self.session_call("POST", "/element", &using).await?;
        let id = found.as_object().and_then(|element| element.values().next()?.as_str()).unwrap_or_default();
        self.session_call("POST", &format!("/element/{id}/click"), &json!({})).await.map(drop)
    }

    /// The question that the page asks, which is then answered with yes.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] with what the driver says, for example that nothing is asked.
    pub async fn accept(&self) -> Result<String, Error> {
        let text = self.session_call("GET", "/alert/text", &Value::Null).await?;
        self.session_call("POST", "/alert/accept", &json!({})).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// A picture of the window, as PNG.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] with what the driver says.
    pub async fn picture(&self) -> Result<Vec<u8>, Error> {
        let picture = self.session_call("GET", "/screenshot", &Value::Null).await?;
        STANDARD.decode(picture.as_str().unwrap_or_default()).map_err(|cause| Error::Http {
            method: "GET",
            url: "/screenshot".to_owned(),
            problem: cause.to_string(),
        })
    }

    async fn session_call(&self, method: &'static str, path: &str, body: &Value) -> Result<Value, Error> {
        self.call(method, &format!("/session/{}{path}", self.session), body).await
    }

    async fn call(&self, method: &'static str, path: &str, body: &Value) -> Result<Value, Error> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("content-type", "application/json")];
        let answer = http::request(self.addr, method, path, &headers, text.as_bytes()).await?;
        let wrong = |problem: String| Error::Http { method, url: path.to_owned(), problem };
        let mut value: Value = serde_json::from_slice(&answer.body)
            .map_err(|cause| wrong(format!("{cause}: {}", answer.text())))?;
        if answer.status == 200 { Ok(value["value"].take()) } else { Err(wrong(answer.text())) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_is_opened_clicked_and_photographed() {
        let browser = Browser::start(800, 600).await.unwrap();
        browser
            .open("data:text/html,<button onclick=\"document.title=confirm('sure?')\">go</button>")
            .await
            .unwrap();
        browser.click("button").await.unwrap();
        assert_eq!(browser.accept().await.unwrap(), "sure?");
        assert_eq!(browser.run("return document.title").await.unwrap(), "true");
        assert!(browser.picture().await.unwrap().starts_with(b"\x89PNG"));
        assert!(browser.click("#nothing").await.is_err());
        let pid = browser.pid.unwrap();
        drop(browser);
        let gone = || async { rustix::process::test_kill_process(pid).is_err() };
        crate::eventually(START_TIMEOUT, gone).await.unwrap();
    }
}
