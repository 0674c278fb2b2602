//! The way of an alert from a sensor's finding to receivers over real HTTP, with receivers
//! that fail as receivers do.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::Body;
use agentmon_core::finding::{Finding, Severity};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::wire::{self, Batch, Health};
use agentmon_core::{Event, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::config::{Kind, Target};
use crate::config::{Config, Place};
use crate::control::{Reply, Request};
use crate::serve::Hub;
use crate::web_double::{Double, Got};

/// Looks, 50 ms apart, before a test gives up.
const LOOKS: usize = 2_400;

/// A receiver that answers the n-th message (from 0) with a status.
struct Receiver(Double);

impl Receiver {
    fn new(script: impl Fn(usize, &Value) -> u16 + Send + Sync + 'static) -> Self {
        Self(Double::new(move |n, body| (script(n, body), "no".to_owned())))
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.0.address)
    }

    fn got(&self) -> Vec<Got> {
        self.0.got()
    }

    /// The alerts it got, with how often.
    fn alerts(&self) -> BTreeMap<i64, usize> {
        let mut alerts = BTreeMap::new();
        for got in self.got() {
            for alert in got.body["alerts"].as_array().unwrap() {
                *alerts.entry(alert["id"].as_i64().unwrap()).or_default() += 1;
            }
        }
        alerts
    }
}

fn webhook(name: &str, url: String) -> Target {
    Target { name: name.into(), url, messages_per_minute: 6_000, ..Target::default() }
}

fn start(dir: &Path, targets: Vec<Target>) -> Hub {
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    config.deliver.targets = targets;
    let place = Place { data_dir: dir.to_owned(), config_file: None };
    Hub::start(config, place, Arc::new(SystemClock), None).unwrap()
}

fn finding(n: u64, score: f64) -> Event {
    let finding = Finding {
        rule: "dga".into(),
        subject: format!("qx{n}.example"),
        client: Some("192.0.2.7".parse().unwrap()),
        mac: None,
        score,
        why: "it looks <generated>".into(),
        evidence: vec![],
    };
    Event { time: now(), body: Body::Finding(finding) }
}

fn now() -> Timestamp {
    SystemClock.wall()
}

/// Stores as many findings of different subjects, which become as many alerts.
fn alerts(hub: &Hub, first: u64, count: u64, score: f64) {
    let events = (first..first + count).map(|n| wire::encode_event(&finding(n, score))).collect();
    let batch =
        Batch { epoch: 1, first_seq: first, events, health: Health::default(), sent: now() };
    let batch = STANDARD.encode(wire::encode_batch(&batch).unwrap());
    ask(hub, &Request::Import { name: "attic".into(), batch }).unwrap();
}

fn ask(hub: &Hub, request: &Request) -> anyhow::Result<Vec<Vec<Value>>> {
    let mut rows = Vec::new();
    hub.ask(request, &mut |reply| {
        if let Reply::Row { values } = reply {
            rows.push(values);
        }
        Ok(())
    })?;
    Ok(rows)
}

fn number(hub: &Hub, sql: &str) -> i64 {
    let request =
        Request::Query { sql: sql.into(), params: vec![], timeout_ms: 10_000, untrusted: true };
    ask(hub, &request).unwrap()[0][0].as_i64().unwrap()
}

#[track_caller]
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never: {what}");
}

#[test]
fn an_alert_is_told_once_signed_and_settled() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let receiver = Receiver::new(|_, _| 200);
    let target = Target { secret_file: secret, ..webhook("hook", receiver.url()) };
    let hub = start(&dir.path().join("data"), vec![target]);
    alerts(&hub, 0, 1, 0.7);
    alerts(&hub, 1, 1, 0.1);
    wait("told", || number(&hub, "SELECT count(*) FROM deliveries WHERE outcome = 'sent'") == 1);
    let got = receiver.got();
    assert_eq!(got.len(), 1, "{got:?}");
    let alert = &got[0].body["alerts"][0];
    assert_eq!(
        (alert["subject"].as_str(), alert["severity"].as_str()),
        (Some("qx0.example"), Some("high"))
    );
    assert_eq!(got[0].headers["idempotency-key"], "agentmon-1");
    assert!(got[0].headers["x-agentmon-signature"].starts_with("sha256="));
    assert_eq!(got[0].path, "/hook");
    assert_eq!(number(&hub, "SELECT count(*) FROM outbox"), 0);
    let targets = ask(&hub, &Request::Targets).unwrap();
    assert_eq!((targets[0][0].as_str(), targets[0][3].as_u64()), (Some("hook"), Some(1)));
    hub.stop().unwrap();
}

/// Half of all messages fail, some after they were taken; the hub is stopped in between and
/// started again: all alerts arrive.
#[test]
fn a_failing_receiver_gets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(|n, _| if n % 2 == 0 { 500 } else { 200 });
    let targets = || vec![webhook("hook", receiver.url())];
    let hub = start(dir.path(), targets());
    alerts(&hub, 0, 150, 0.7);
    wait("some told", || number(&hub, "SELECT count(*) FROM deliveries") > 0);
    hub.stop().unwrap();
    let hub = start(dir.path(), targets());
    alerts(&hub, 150, 150, 0.7);
    wait("all told", || number(&hub, "SELECT count(*) FROM outbox") == 0);
    assert_eq!(receiver.alerts().len(), 300);
    assert_eq!(number(&hub, "SELECT count(*) FROM deliveries WHERE outcome = 'sent'"), 300);
    let one_by_one =
        receiver.got().iter().filter(|g| g.body["alerts"].as_array().unwrap().len() == 1).count();
    assert!(one_by_one < 20, "a burst is told together; {one_by_one} came alone");
    hub.stop().unwrap();
}

/// A receiver that will not have one of several alerts gets the others.
#[test]
fn one_refused_alert_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let receiver =
        Receiver::new(|_, body| if body.to_string().contains("qx3.example") { 422 } else { 200 });
    let hub = start(dir.path(), vec![webhook("hook", receiver.url())]);
    alerts(&hub, 0, 8, 0.7);
    wait("all settled", || number(&hub, "SELECT count(*) FROM outbox") == 0);
    assert_eq!(number(&hub, "SELECT count(*) FROM deliveries WHERE outcome = 'sent'"), 7);
    let sql = "SELECT alert FROM deliveries WHERE outcome = 'refused' AND error LIKE '%422%'";
    assert_eq!(number(&hub, sql), 4);
    assert_eq!(
        number(&hub, "SELECT value FROM hub_counters WHERE name = 'drop.deliver.refused'"),
        1
    );
    hub.stop().unwrap();
}

/// One that accepts connections and never answers holds up neither another one nor the hub.
#[test]
fn a_hanging_receiver_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", hanging.local_addr().unwrap());
    let receiver = Receiver::new(|_, _| 200);
    let slow = Target { timeout_seconds: 120, ..webhook("slow", url) };
    let hub = start(dir.path(), vec![slow, webhook("good", receiver.url())]);
    alerts(&hub, 0, 3, 0.7);
    wait("the good one has all", || receiver.alerts().len() == 3);
    assert_eq!(number(&hub, "SELECT count(*) FROM outbox WHERE target = 'slow'"), 3);
    hub.stop().unwrap();
    drop(hanging);
}

#[test]
fn a_target_that_is_no_more_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hub = start(dir.path(), vec![webhook("gone", format!("http://{gone}/x"))]);
    alerts(&hub, 0, 2, 0.7);
    wait("tried", || ask(&hub, &Request::Targets).unwrap()[0][7].is_string());
    assert_eq!(ask(&hub, &Request::Targets).unwrap()[0][2], 2);
    hub.stop().unwrap();
    let hub = start(dir.path(), vec![]);
    assert_eq!(number(&hub, "SELECT count(*) FROM outbox"), 0);
    let sql = "SELECT coalesce(max(value), 0) FROM hub_counters WHERE name = 'drop.deliver.no_such_target'";
    wait("counted", || number(&hub, sql) == 2);
    hub.stop().unwrap();
}

/// The presets over the wire: the address is asked with what the service wants.
#[test]
fn ntfy_and_a_test_message() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(|n, _| if n == 0 { 403 } else { 200 });
    let token = dir.path().join("token");
    std::fs::write(&token, "tk_s3cret").unwrap();
    let target = Target {
        name: "phone".into(),
        kind: Kind::Ntfy,
        url: format!("http://{}", receiver.0.address),
        topic: "home".into(),
        secret_file: token,
        min_severity: Severity::High,
        ..Target::default()
    };
    let hub = start(&dir.path().join("data"), vec![target]);
    let error = ask(&hub, &Request::TestTarget { name: "phone".into() }).unwrap_err().to_string();
    assert!(error.contains("403") && !error.contains("s3cret"), "{error}");
    ask(&hub, &Request::TestTarget { name: "phone".into() }).unwrap();
    let error = ask(&hub, &Request::TestTarget { name: "fax".into() }).unwrap_err().to_string();
    assert!(error.contains("phone"), "{error}");
    let got = receiver.got();
    assert_eq!((got[1].path.as_str(), got[1].body["topic"].as_str()), ("/", Some("home")));
    assert_eq!(got[1].headers["authorization"], "Bearer tk_s3cret");
    assert!(got[1].body["title"].as_str().unwrap().starts_with("TEST MEDIUM test"));
    assert_eq!(got[1].body["priority"], 3);
    // A test leaves nothing behind.
    assert_eq!(number(&hub, "SELECT count(*) FROM deliveries"), 0);
    hub.stop().unwrap();
}
