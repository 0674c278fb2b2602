//! What answers calls to the ubus object `agentmon`, as the web server sees it.
//!
//! [`OnBus`] asks whoever has published it on a ubusd. [`Fixture`] is a table of made-up answers that a test can change while a page is open, and
//! a record of what was asked. Names and addresses are those set aside for documentation.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use agentmon_router::ubus::object::NAME;
use serde_json::{Value, json};

use crate::ubusd::Client;

/// How a call to the bus fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such object: the daemon does not run.
    NoObject,
    /// The daemon's or the bus's own status, not 0.
    Status(u8),
}

/// ubus status: the method is not known.
pub const METHOD_NOT_FOUND: u8 = 3;
/// ubus status: what was named is not there.
pub const NOT_FOUND: u8 = 4;
/// ubus status: no answer in time.
pub const TIMEOUT: u8 = 7;

/// The other end of a call.
pub trait Bus: Send + Sync {
    /// Whether the object is on the bus.
    fn present(&self) -> bool;

    /// Calls a method of the object `agentmon`.
    ///
    /// # Errors
    /// [`Failure`], as the bus says it.
    fn call(&self, method: &str, arguments: &Value) -> Result<Value, Failure>;
}

/// Whoever has published the object on the ubusd behind a socket. Each call is a connection
/// of its own, as a web server that was restarted would make it.
#[derive(Clone, Debug)]
pub struct OnBus(pub PathBuf);

impl Bus for OnBus {
    fn present(&self) -> bool {
        let listed = Client::connect(&self.0).and_then(|mut client| client.list(Some(NAME)));
        listed.is_ok_and(|objects| !objects.is_empty())
    }

    fn call(&self, method: &str, arguments: &Value) -> Result<Value, Failure> {
        let mut arguments = arguments.clone();
        // uhttpd tells the callee whose call it is.
        arguments["ubus_rpc_session"] = json!("0123456789abcdef0123456789abcdef");
        let called =
            Client::connect(&self.0).and_then(|mut bus| bus.call(NAME, method, &arguments));
        match called {
            Ok(Ok(answer)) => Ok(Value::Object(answer)),
            Ok(Err(status)) => Err(Failure::Status(status as u8)),
            Err(_) => Err(Failure::Status(TIMEOUT)),
        }
    }
}

/// Made-up answers.
#[derive(Debug)]
pub struct Fixture {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    trouble: Option<Failure>,
    status: Value,
    alerts: Vec<Value>,
    devices: Vec<Value>,
    calls: Vec<(String, Value)>,
}

/// 2026-11-23 12:00:00 UTC in milliseconds: the fixtures' present.
pub const NOW: i64 = 1_795_435_200_000;

impl Default for Fixture {
    fn default() -> Self {
        let inner = Inner {
            trouble: None,
            status: status(),
            alerts: alerts(),
            devices: devices(),
            calls: Vec::new(),
        };
        Self { inner: Mutex::new(inner) }
    }
}

impl Fixture {
    /// A daemon that has just started and seen nothing.
    #[must_use]
    pub fn empty() -> Self {
        let fixture = Self::default();
        fixture.with(|inner| {
            inner.alerts.clear();
            inner.devices.clear();
            for key in ["collectors", "drops", "events_per_s", "top_talkers"] {
                inner.status[key] = json!([]);
            }
            inner.status["kernel"]["problems"] = json!([]);
            inner.status["alerts"] = json!({ "open": 0, "high": 0 });
        });
        fixture
    }

    /// From now on every call fails so; `None`: all is well again.
    pub fn fail(&self, trouble: Option<Failure>) {
        self.with(|inner| inner.trouble = trouble);
    }

    /// Changes the status.
    pub fn status(&self, change: impl FnOnce(&mut Value)) {
        self.with(|inner| change(&mut inner.status));
    }

    /// Changes the alerts.
    pub fn alerts(&self, change: impl FnOnce(&mut Vec<Value>)) {
        self.with(|inner| change(&mut inner.alerts));
    }

    /// Changes the devices.
    pub fn devices(&self, change: impl FnOnce(&mut Vec<Value>)) {
        self.with(|inner| change(&mut inner.devices));
    }

    /// The arguments of all calls of a method so far.
    #[must_use]
    pub fn calls(&self, method: &str) -> Vec<Value> {
        self.with(|inner| {
            let wanted = inner.calls.iter().filter(|(name, _)| name == method);
            wanted.map(|(_, arguments)| arguments.clone()).collect()
        })
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Inner) -> T) -> T {
        use_it(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Bus for Fixture {
    fn present(&self) -> bool {
        self.with(|inner| inner.trouble != Some(Failure::NoObject))
    }

    fn call(&self, method: &str, arguments: &Value) -> Result<Value, Failure> {
        self.with(|inner| {
            inner.calls.push((method.to_owned(), arguments.clone()));
            if let Some(trouble) = inner.trouble {
                return Err(trouble);
            }
            match method {
                "status" => Ok(inner.status.clone()),
                "alerts" => {
                    let limit = arguments["limit"].as_u64().unwrap_or(100);
                    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                    let first = inner.alerts.iter().take(limit).collect::<Vec<_>>();
                    Ok(json!({ "alerts": first, "total": inner.alerts.len(), "evicted": 0 }))
                }
                "devices" => Ok(json!({ "devices": inner.devices })),
                "ack" => inner.ack(arguments),
                _ => Err(Failure::Status(METHOD_NOT_FOUND)),
            }
        })
    }
}

impl Inner {
    fn ack(&mut self, arguments: &Value) -> Result<Value, Failure> {
        let found = self.alerts.iter_mut().find(|one| one["id"] == arguments["id"]);
        let alert = found.ok_or(Failure::Status(NOT_FOUND))?;
        alert["acked"] = json!(true);
        self.status["alerts"]["open"] =
            json!(self.status["alerts"]["open"].as_u64().unwrap_or(1) - 1);
        alert["note"] = arguments["note"].clone();
        Ok(json!({ "acked": true }))
    }
}

fn status() -> Value {
    let rates: Vec<_> = (0..60).map(|i| f64::from((i * 7) % 23) + 2.0).collect();
    let collector = |name: &str, state: &str, detail: &str, events: u64, ago: i64| {
        let last = if ago == 0 { 0 } else { NOW - ago };
        json!({ "name": name, "state": state, "detail": detail, "events": events, "last_event": last })
    };
    let talker = |name: &str, ip: &str, mac: u8, bytes: u64, flows: u64| {
        let mac = format!("00:00:5e:00:53:{mac:02x}");
        json!({ "device": name, "ip": ip, "mac": mac, "name": name, "bytes": bytes, "flows": flows })
    };
    json!({
        "version": "0.1.0", "sensor": "attic-router", "epoch": "3", "started": NOW - 93_600_000,
        "now": NOW, "uptime_seconds": 93_600,
        "hub": {
            "state": "connected", "detail": "connected", "url": "https://192.0.2.10:8743",
            "last_ack": NOW - 4_000, "backlog_events": 1_234, "backlog_bytes": 262_144
        },
        "collectors": [
            collector("conntrack", "ok", "ok", 184_220, 1_000),
            collector("passive-dns", "ok", "ok", 60_412, 2_000),
            collector("firewall", "off", "kmod-nfnetlink-log is not installed", 0, 0),
            collector("leases", "problem", "/tmp/dhcp.leases: permission denied; again in 8 s", 12, 7_200_000),
        ],
        "ring": {
            "events": 1_234, "bytes": 3_145_728, "bytes_max": 16_777_216, "accepted": 244_644,
            "acked": 243_393, "evicted": 17, "path": "/tmp/agentmon/ring.db"
        },
        "drops": [
            { "reason": "drop.ring.evicted", "count": 17 },
            { "reason": "drop.conntrack.enobufs", "count": 2 }
        ],
        "events_per_s": rates, "events_per_s_step_ms": 5_000,
        "top_talkers": [
            talker("tablet", "192.168.1.23", 0x17, 734_003_200, 812),
            talker("tv", "2001:db8::31", 0x31, 52_428_800, 96),
        ],
        "top_talkers_seconds": 600,
        "alerts": { "open": 4, "high": 2 },
        "kernel": { "ok": false, "checked": NOW - 60_000, "problems": [{
            "what": "byte counts of connections", "detail": "nf_conntrack_acct is 0",
            "mend": "sysctl -w net.netfilter.nf_conntrack_acct=1"
        }] },
        "ubus": { "state": "connected", "detail": "" },
        "config": { "loaded": NOW - 93_600_000 },
        "resources": { "rss_bytes": 9_437_184, "cpu_ms": 48_210, "threads": 11 }
    })
}

/// One alert; `minutes` before [`NOW`].
#[must_use]
pub fn alert(
    id: &str,
    minutes: i64,
    severity: &str,
    rule: &str,
    device: &str,
    title: &str,
) -> Value {
    json!({
        "id": id, "time": NOW - minutes * 60_000, "first": NOW - 86_400_000, "count": 3,
        "severity": severity, "score": 0.83, "rule": rule,
        "subject": format!("{id}.example.net"), "device": device, "title": title,
        "why": format!("{device} asked for {id}.example.net, which is on the list trackers"),
        "evidence": ["list: trackers", "matched: example.net", "answer: 198.51.100.7"],
        "ip": "192.168.1.23", "mac": "00:00:5e:00:53:17", "acked": false, "note": ""
    })
}

fn alerts() -> Vec<Value> {
    vec![
        alert("a1", 3, "critical", "blocklist", "tablet", "Name on a list: a1.example.net"),
        alert("a2", 18, "high", "dga", "tv", "Many generated names"),
        alert(
            "a3",
            55,
            "medium",
            "direct-ip",
            "192.168.1.40",
            "Address without a name: 203.0.113.9",
        ),
        alert("a4", 190, "low", "firewall", "camera", "Insists on 203.0.113.77 port 25"),
    ]
}

fn devices() -> Vec<Value> {
    let device = |mac: u8, name: &str, ips: &[&str], minutes: i64, bytes: i64| {
        json!({
            "mac": format!("00:00:5e:00:53:{mac:02x}"), "name": name, "ips": ips,
            "first_seen": NOW - 864_000_000, "last_seen": NOW - minutes * 60_000,
            "queries": bytes / 1_000, "blocked": bytes / 50_000, "flows": bytes / 20_000, "bytes": bytes, "alerts": i64::from(mac == 0x31)
        })
    };
    vec![
        device(0x17, "tablet", &["192.168.1.23", "2001:db8::23"], 1, 734_003_200),
        device(0x31, "tv", &["192.168.1.31"], 40, 52_428_800),
        device(
            0x40,
            "camera",
            &["192.168.1.40", "192.168.1.41", "192.168.1.42", "192.168.1.43", "2001:db8::40"],
            600,
            1_048_576,
        ),
    ]
}
