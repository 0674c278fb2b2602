//! A Pi-hole for tests, written from the description of its REST interface: sessions, the
//! numbered log with its short memory, the long-term database, and faults. Real TLS.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::testhub::{Asked, Say, TestHub};

/// What it is asked to do wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Fault {
    #[default]
    None,
    /// This, whatever is asked below a path.
    Always(&'static str, u16, &'static str, String),
}

/// What it knows.
#[derive(Debug, Default)]
pub(super) struct Inside {
    pub(super) password: Option<&'static str>,
    pub(super) totp: bool,
    pub(super) sessions: BTreeSet<String>,
    pub(super) seats: usize,
    pub(super) logins: u64,
    pub(super) pid: u64,
    next_line: u64,
    log: VecDeque<Value>,
    pub(super) room: usize,
    rows: Vec<Value>,
    pub(super) devices: Vec<Value>,
    pub(super) fault: Fault,
}

/// Listens until dropped.
pub(super) struct FakePihole {
    pub(super) hub: TestHub,
    pub(super) inside: Arc<Mutex<Inside>>,
}

impl FakePihole {
    pub(super) fn start(name: &str) -> Self {
        let inside = Inside {
            password: Some("app-secret"),
            seats: 16,
            pid: 2_258,
            room: 515,
            ..Inside::default()
        };
        let inside = Arc::new(Mutex::new(inside));
        let shared = Arc::clone(&inside);
        let hub = TestHub::start_as(name, move |asked| shared.lock().unwrap().answer(asked));
        Self { hub, inside }
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Inside) -> T) -> T {
        f(&mut self.inside.lock().unwrap())
    }

    /// How often a path was asked for.
    pub(super) fn asked(&self, method: &str, path: &str) -> usize {
        let asked = self.hub.asked();
        asked.iter().filter(|a| a.method == method && a.path.starts_with(path)).count()
    }
}

impl Inside {
    /// Writes a line into the log.
    pub(super) fn line(&mut self, time: f64, message: &str) {
        // FTL keeps 255 bytes of a line.
        let kept: String = message.chars().take(255).collect();
        self.log.push_back(json!({ "timestamp": time, "message": kept, "prio": null }));
        self.next_line += 1;
        if self.log.len() > self.room {
            self.log.pop_front();
        }
    }

    /// Stores a row.
    pub(super) fn row(&mut self, time: f64, name: &str, client: &str) {
        let id = self.rows.len() + 1;
        self.rows.push(json!({
            "id": id, "time": time, "type": "A", "domain": name, "cname": null,
            "status": "FORWARDED", "client": {"ip": client, "name": null}, "dnssec": "INSECURE",
            "reply": {"type": "IP", "time": 0.02}, "list_id": null, "upstream": "192.0.2.53#53",
            "ede": {"code": 0, "text": null}
        }));
    }

    /// FTL ends and begins anew: log and process are new, database and sessions stay.
    pub(super) fn restart(&mut self) {
        self.pid += 1;
        (self.next_line, self.log) = (0, VecDeque::new());
    }

    fn answer(&mut self, asked: &Asked) -> Say {
        let path = asked.path.strip_prefix("/api/").unwrap_or_default();
        if let Fault::Always(below, status, headers, body) = &self.fault
            && path.starts_with(below)
        {
            return Say::Http(*status, headers, body.clone());
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match (asked.method.as_str(), path) {
            ("POST", "auth") => self.login(&asked.body),
            ("GET", "auth") if self.password.is_none() => Self::session(true, None, false),
            ("GET", "auth") => Self::refused(401, self.totp),
            _ if !self.knows(asked) => unauthorised(),
            ("DELETE", "auth") => {
                self.sessions.clear();
                Say::status(204)
            }
            ("GET", "logs/dnsmasq") => self.log_page(query),
            ("GET", "queries") => self.queries(query),
            ("GET", "network/devices") => {
                Say::Http(200, "", json!({"devices": self.devices, "took": 0.1}).to_string())
            }
            _ => error(404, "not_found", "Not found"),
        }
    }

    fn knows(&self, asked: &Asked) -> bool {
        let header = asked.headers.lines().find_map(|line| line.strip_prefix("x-ftl-sid: "));
        self.password.is_none() || header.is_some_and(|sid| self.sessions.contains(sid.trim()))
    }

    fn login(&mut self, body: &[u8]) -> Say {
        let body: Value = serde_json::from_slice(body).unwrap();
        if self.totp {
            return error(400, "bad_request", "No 2FA token found in JSON payload");
        }
        if body["password"].as_str() != self.password {
            return Self::refused(401, false);
        }
        if self.sessions.len() >= self.seats {
            return error(429, "api_seats_exceeded", "API seats exceeded");
        }
        self.logins += 1;
        let sid = format!("vFA+EP4MQ5JJvJg+{}=", self.logins);
        self.sessions.insert(sid.clone());
        Self::session(true, Some(sid), false)
    }

    fn session(valid: bool, sid: Option<String>, totp: bool) -> Say {
        let body = json!({"session": {"valid": valid, "totp": totp, "sid": sid, "validity": 1800}});
        Say::Http(200, "", body.to_string())
    }

    fn refused(status: u16, totp: bool) -> Say {
        let body = json!({"session": {"valid": false, "totp": totp, "sid": null, "validity": -1}});
        Say::Http(status, "", body.to_string())
    }

    fn log_page(&self, query: &str) -> Say {
        let first = self.next_line - self.log.len() as u64;
        let wanted = number(query, "nextID").unwrap_or(0.0) as u64;
        let skip = wanted.saturating_sub(first).min(self.log.len() as u64) as usize;
        let lines: Vec<_> = self.log.iter().skip(skip).collect();
        let body = json!({
            "log": lines, "nextID": self.next_line, "pid": self.pid,
            "file": "/var/log/pihole/pihole.log", "took": 0.001
        });
        Say::Http(200, "", body.to_string())
    }

    fn queries(&self, query: &str) -> Say {
        let from = number(query, "from").unwrap();
        let until = number(query, "until").unwrap();
        let cursor = number(query, "cursor").unwrap_or(self.rows.len() as f64);
        if cursor > self.rows.len() as f64 {
            return error(400, "bad_request", "Requested cursor is invalid");
        }
        let length = number(query, "length").unwrap_or(100.0) as usize;
        let wanted = |row: &&Value| {
            let time = row["time"].as_f64().unwrap();
            time >= from && time < until && row["id"].as_f64().unwrap() <= cursor
        };
        let rows: Vec<_> = self.rows.iter().rev().filter(wanted).take(length).collect();
        let body = json!({"queries": rows, "cursor": self.rows.len(), "recordsTotal": 0});
        Say::Http(200, "", body.to_string())
    }
}

fn number(query: &str, key: &str) -> Option<f64> {
    let value = query.split('&').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    value.map(|value| value.parse().unwrap())
}

fn unauthorised() -> Say {
    error(401, "unauthorized", "Unauthorized")
}

fn error(status: u16, key: &str, message: &str) -> Say {
    let body = json!({"error": {"key": key, "message": message, "hint": null}, "took": 0.01});
    Say::Http(status, "", body.to_string())
}
