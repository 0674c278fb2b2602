//! `agentmon serve` as a receiver of syslog: what a resolver says is stored as the sensor
//! `hub`, and a resolver that falls silent is an alert.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Looks, half a second apart, before a test gives up.
const LOOKS: usize = 240;

fn agentmon(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentmon"));
    command.env("AGENTMON_DATA", data).env("TZ", "UTC").env_remove("AGENTMON_LOG");
    command
}

/// Ends with the test, whatever becomes of it.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        // Already over is fine.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Rows of a command; none while the hub is not there yet.
fn rows(data: &Path, args: &[&str]) -> Vec<Value> {
    let output = agentmon(data).args(args).arg("--json").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn wait_for(data: &Path, args: &[&str], mut meanwhile: impl FnMut()) -> Vec<Value> {
    for _ in 0..LOOKS {
        meanwhile();
        let found = rows(data, args);
        if !found.is_empty() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    panic!("{args:?} never told anything");
}

#[test]
fn syslog_reaches_the_store_and_its_silence_is_an_alert() {
    let dir = tempfile::tempdir().unwrap();
    let (data, config) = (dir.path().join("data"), dir.path().join("hub.toml"));
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [syslog]\nenabled = true\nudp = [\"127.0.0.1:{port}\"]\nsilence_seconds = 3\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = agentmon(&data);
    command.args(["serve", "--config"]).arg(&config).stdin(Stdio::null());
    let mut serving = Serving(command.stderr(Stdio::null()).spawn().unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let say = || {
        for message in [
            "<30>1 - router dnsmasq 7 - - query[A] www.example.com from 192.0.2.31",
            "<30>1 - router dnsmasq 7 - - cached www.example.com is 203.0.113.80",
        ] {
            // Nobody listens yet: said again with the next look.
            let _refused = socket.send_to(message.as_bytes(), ("127.0.0.1", port));
        }
    };
    let dns = wait_for(&data, &["dns", "domain:www.example.com"], say);
    assert_eq!(dns[0]["client"], "192.0.2.31", "{dns:?}");
    assert_eq!(rows(&data, &["sensors"])[0]["name"], "hub");
    let alerts = wait_for(&data, &["alerts", "rule:log-silent"], || ());
    assert_eq!(alerts[0]["subject"], "syslog", "{alerts:?}");
    let pid = serving.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(serving.0.wait().unwrap().success());
}
