//! What can be asked of a running router, whatever way it comes: over ubus or over the
//! status socket. The shapes of the answers are documented in [`crate::ubus::object`].
//!
//! In: a method's name and its arguments. Out: a JSON table, or why not. Any thread; some
//! 100 us, `score` up to [`VERDICT_PATIENCE`].
//!
//! Invariants: an answer has at most [`ROWS_MAX`] rows; arguments that nobody knows are
//! passed over (rpcd adds its session to every call); one of the wrong type is refused.

use std::time::Duration;

use agentmon_core::Name;
use agentmon_core::finding::{Finding, Severity};
use agentmon_core::time::{Mono, Timestamp};
use serde_json::{Map, Value, json};

use super::{Report, Status, exceptions, rows};
use crate::enforce::Gate;
use crate::model::{AlertFilter, Model};

/// Most rows in one answer.
pub const ROWS_MAX: usize = 200;
/// Rows, unless asked otherwise.
pub const ROWS: usize = 50;
/// How long to wait for the detectors' word on a name: they are asked between two events.
pub const VERDICT_PATIENCE: Duration = Duration::from_secs(2);
/// Largest table of arguments, in bytes of JSON or of ubus.
pub const ARGUMENTS_BYTES_MAX: usize = 4_096;

/// A running router, as the methods see it.
pub trait Source: Send + Sync {
    /// What it knows about its network.
    fn model(&self) -> &Model;
    /// Everything at a glance.
    fn status(&self) -> Status;
    /// Everything behind the status page.
    fn report(&self) -> Report;
    /// Both clocks.
    fn now(&self) -> (Timestamp, Mono);
    /// What the detectors say of a name; `None` when they do not answer in time.
    fn verdict(&self, name: &Name) -> Option<Vec<Finding>>;
    /// Asks for the configuration to be read again; false where nobody does that.
    fn ask_reload(&self) -> bool;
    /// What is enforced, and the exceptions from it.
    fn gate(&self) -> Option<&Gate> {
        None
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such method.
    #[error("no such method; there are: {}", METHODS.map(|m| m.name).join(", "))]
    Method,
    /// An argument makes no sense.
    #[error("`{0}`: {1}")]
    Argument(&'static str, String),
    /// An exception cannot be added or taken away.
    #[error("{0}")]
    Exception(String),
    /// There is no such alert.
    #[error("no such alert")]
    NotFound,
    /// This program cannot do that.
    #[error("not supported: this router was not started by a service that can reload it")]
    NotSupported,
    /// The detectors did not answer in time.
    #[error("the detectors are busy; try again")]
    Busy,
}

/// What an argument holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// An integer.
    Number,
    /// A boolean.
    Flag,
}

/// A method and its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, all optional but for `ack`'s `id` and `score`'s `name`.
    pub arguments: &'static [(&'static str, Kind)],
}

/// All methods.
pub const METHODS: [Method; 12] = [
    Method { name: "status", arguments: &[] },
    Method { name: "collectors", arguments: &[] },
    Method { name: "sensors", arguments: &[] },
    Method {
        name: "alerts",
        arguments: &[
            ("limit", Kind::Number),
            ("since", Kind::Number),
            ("severity", Kind::Text),
            ("rule", Kind::Text),
            ("device", Kind::Text),
            ("open", Kind::Flag),
        ],
    },
    Method { name: "ack", arguments: &[("id", Kind::Text), ("note", Kind::Text)] },
    Method { name: "flows", arguments: &[("limit", Kind::Number), ("device", Kind::Text)] },
    Method { name: "devices", arguments: &[("limit", Kind::Number)] },
    Method { name: "score", arguments: &[("name", Kind::Text)] },
    Method { name: "reload", arguments: &[] },
    Method {
        name: "allow",
        arguments: &[
            ("what", Kind::Text),
            ("device", Kind::Text),
            ("for", Kind::Text),
            ("why", Kind::Text),
        ],
    },
    Method { name: "allowed", arguments: &[] },
    Method { name: "forbid", arguments: &[("which", Kind::Text)] },
];

/// Calls a method.
///
/// # Errors
/// [`Refusal`].
pub fn call(
    source: &dyn Source,
    method: &str,
    given: &Map<String, Value>,
) -> Result<Value, Refusal> {
    let given = Arguments(given);
    match method {
        "status" => Ok(rows::report(&source.report())),
        "collectors" | "sensors" => Ok(json!({ "collectors": rows::collectors(&source.report()) })),
        "alerts" => alerts(source, &given),
        "ack" => ack(source, &given),
        "flows" => {
            let device = given.text("device")?;
            let flows = source.model().flows(given.limit(ROWS)?, device);
            Ok(json!({ "flows": flows.iter().map(rows::flow).collect::<Vec<_>>() }))
        }
        "devices" => {
            let devices = source.model().devices(given.limit(crate::model::devices::DEVICES_MAX)?);
            let rows: Vec<_> = devices.iter().map(|(d, open)| rows::device(d, *open)).collect();
            Ok(json!({ "devices": rows }))
        }
        "score" => score(source, &given),
        "allow" => exceptions::allow(source, &given),
        "allowed" => exceptions::allowed(source),
        "forbid" => exceptions::forbid(source, &given),
        "reload" => {
            if source.ask_reload() {
                Ok(json!({ "reloading": true }))
            } else {
                Err(Refusal::NotSupported)
            }
        }
        _ => Err(Refusal::Method),
    }
}

fn alerts(source: &dyn Source, given: &Arguments<'_>) -> Result<Value, Refusal> {
    let severity = match given.text("severity")? {
        None => None,
        Some(word) => Some(severity(word)?),
    };
    let filter = AlertFilter {
        since: given.number("since")?.map(|ms| Timestamp::from_micros(ms.saturating_mul(1_000))),
        severity,
        rule: given.text("rule")?.map(str::to_owned),
        device: given.text("device")?.map(str::to_owned),
        open: given.flag("open")?,
    };
    let (list, total) = source.model().alerts(given.limit(ROWS)?, &filter);
    let evicted = source.model().sizes().alerts_evicted;
    let rows: Vec<_> = list.iter().map(rows::alert).collect();
    Ok(json!({ "alerts": rows, "total": total, "evicted": evicted }))
}

fn severity(word: &str) -> Result<Severity, Refusal> {
    let words = Severity::ALL.map(Severity::as_str);
    let known = Severity::ALL.into_iter().find(|s| s.as_str() == word);
    known.ok_or_else(|| Refusal::Argument("severity", format!("want one of {}", words.join(", "))))
}

fn ack(source: &dyn Source, given: &Arguments<'_>) -> Result<Value, Refusal> {
    let wrong = || Refusal::Argument("id", "want an alert's id, as `alerts` shows it".into());
    let id = given.text("id")?.ok_or_else(wrong)?;
    let id = u64::from_str_radix(id, 16).map_err(|_| wrong())?;
    let note = given.text("note")?.unwrap_or_default();
    if source.model().ack(id, note) { Ok(json!({ "acked": true })) } else { Err(Refusal::NotFound) }
}

fn score(source: &dyn Source, given: &Arguments<'_>) -> Result<Value, Refusal> {
    let text = given.text("name")?;
    let text = text.ok_or_else(|| Refusal::Argument("name", "want a domain name".into()))?;
    let name = Name::parse(text.as_bytes())
        .map_err(|error| Refusal::Argument("name", error.to_string()))?;
    let findings = source.verdict(&name).ok_or(Refusal::Busy)?;
    Ok(rows::verdict(&name, &findings))
}

/// What the asker gave. Empty texts count as not given: forms send them.
pub(super) struct Arguments<'a>(&'a Map<String, Value>);

impl<'a> Arguments<'a> {
    pub(super) fn text(&self, key: &'static str) -> Result<Option<&'a str>, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(Refusal::Argument(key, "want text".into())),
        }
    }

    fn number(&self, key: &'static str) -> Result<Option<i64>, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) if !number.is_f64() => Ok(number.as_i64()),
            // JavaScript has but one kind of number.
            Some(Value::Number(number)) => Ok(number.as_f64().map(|n| n as i64)),
            Some(_) => Err(Refusal::Argument(key, "want a number".into())),
        }
    }

    fn flag(&self, key: &'static str) -> Result<bool, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::Number(number)) => Ok(number.as_i64() != Some(0)),
            Some(_) => Err(Refusal::Argument(key, "want true or false".into())),
        }
    }

    fn limit(&self, usual: usize) -> Result<usize, Refusal> {
        let Some(limit) = self.number("limit")? else { return Ok(usual) };
        Ok(usize::try_from(limit).unwrap_or(0).clamp(1, usual.max(ROWS_MAX)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use agentmon_core::event::{Body, DeviceSource, Event, Mac};

    /// A router with one device and two alerts.
    pub(crate) struct Sample {
        model: Model,
        gate: Gate,
        pub(crate) reloads: bool,
    }

    impl Sample {
        pub(crate) fn new() -> Self {
            let sample = Self { model: Model::default(), gate: Gate::default(), reloads: true };
            sample.observe(Body::Device(agentmon_core::event::Device {
                mac: Mac([0, 0, 0x5e, 0, 0x53, 1]),
                ip: "192.168.1.7".parse().unwrap(),
                hostname: Some("laptop".into()),
                iface: None,
                source: DeviceSource::Lease,
            }));
            sample.find("evil.example", 0.8);
            sample.find("ads.example", 0.3);
            sample
        }

        pub(crate) fn find(&self, subject: &str, score: f64) {
            self.observe(Body::Finding(Finding {
                rule: "blocklist".into(),
                subject: subject.into(),
                client: Some("192.168.1.7".parse().unwrap()),
                mac: None,
                score,
                why: format!("asked for {subject}"),
                evidence: vec![("list".into(), "malware".into())],
            }));
        }

        fn observe(&self, body: Body) {
            let time = Timestamp::from_secs(1_795_000_000);
            self.model.observe(&Event { time, body }, self.now().1);
        }
    }

    impl Source for Sample {
        fn model(&self) -> &Model {
            &self.model
        }
        fn status(&self) -> Status {
            Status::default()
        }
        fn report(&self) -> Report {
            Report::default()
        }
        fn now(&self) -> (Timestamp, Mono) {
            (Timestamp::from_secs(1_795_000_000), Mono::from_nanos(1))
        }
        fn verdict(&self, name: &Name) -> Option<Vec<Finding>> {
            (name.as_str() != "busy.example").then(Vec::new)
        }
        fn ask_reload(&self) -> bool {
            self.reloads
        }
        fn gate(&self) -> Option<&Gate> {
            Some(&self.gate)
        }
    }

    #[track_caller]
    fn answer(method: &str, arguments: Value) -> Result<Value, Refusal> {
        let Value::Object(arguments) = arguments else { panic!("a table") };
        call(&Sample::new(), method, &arguments)
    }

    /// The subjects of the alerts.
    #[track_caller]
    fn subjects(arguments: Value, expected: &[&str]) {
        let answer = answer("alerts", arguments).unwrap();
        let list = answer["alerts"].as_array().unwrap().iter();
        assert_eq!(list.map(|a| a["subject"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn alerts_are_filtered() {
        subjects(json!({}), &["ads.example", "evil.example"]);
        subjects(json!({ "limit": 1 }), &["ads.example"]);
        subjects(json!({ "limit": -5 }), &["ads.example"]);
        subjects(json!({ "limit": 1e9 }), &["ads.example", "evil.example"]);
        subjects(json!({ "severity": "high", "ubus_rpc_session": "0" }), &["evil.example"]);
        subjects(
            json!({ "device": "laptop", "rule": "", "open": true }),
            &["ads.example", "evil.example"],
        );
        subjects(json!({ "device": "phone" }), &[]);
        subjects(json!({ "since": 1_795_000_000_001i64 }), &[]);
        subjects(json!({ "since": 1_795_000_000_000i64 }), &["ads.example", "evil.example"]);
        subjects(json!({ "since": i64::MAX }), &[]);
    }

    #[track_caller]
    fn refused(method: &str, arguments: Value, says: &str) {
        let refusal = answer(method, arguments).unwrap_err().to_string();
        assert!(refusal.contains(says), "{refusal}");
    }

    #[test]
    fn nonsense_is_refused_with_what_is_allowed() {
        refused("nothing", json!({}), "there are: status, collectors");
        refused("alerts", json!({ "severity": "worst" }), "info, low, medium, high, critical");
        refused("alerts", json!({ "limit": "many" }), "`limit`: want a number");
        refused("alerts", json!({ "device": 7 }), "`device`: want text");
        refused("alerts", json!({ "open": "yes" }), "`open`: want true or false");
        refused("ack", json!({}), "`id`");
        refused("ack", json!({ "id": "zz" }), "`id`");
        refused("ack", json!({ "id": "0" }), "no such alert");
        refused("allow", json!({}), "`what`: want a name");
        refused("allow", json!({ "what": "a.example", "for": "2y" }), "`for`: want a time");
        refused("allow", json!({ "device": "phone" }), "`device`: want a MAC");
        refused("forbid", json!({}), "`which`");
        refused("forbid", json!({ "which": "a.example" }), "no exception");
        refused("score", json!({}), "`name`");
        refused("score", json!({ "name": "a..b" }), "empty label");
        refused("score", json!({ "name": "busy.example" }), "busy");
        let fixed = Sample { reloads: false, ..Sample::new() };
        assert_eq!(call(&fixed, "reload", &Map::new()), Err(Refusal::NotSupported));
    }

    #[test]
    fn every_method_of_the_list_is_there() {
        for method in METHODS {
            assert_ne!(answer(method.name, json!({})), Err(Refusal::Method), "{}", method.name);
        }
    }

    #[test]
    fn an_alert_is_acknowledged_by_the_id_it_shows() {
        let sample = Sample::new();
        let all = call(&sample, "alerts", &Map::new()).unwrap();
        let id = all["alerts"][0]["id"].as_str().unwrap();
        let arguments = json!({ "id": id, "note": "mine" });
        let answer = call(&sample, "ack", arguments.as_object().unwrap());
        assert_eq!(answer, Ok(json!({ "acked": true })));
        let all = call(&sample, "alerts", &Map::new()).unwrap();
        assert_eq!(
            (&all["alerts"][0]["acked"], &all["alerts"][0]["note"]),
            (&json!(true), &json!("mine"))
        );
    }

    #[test]
    fn exceptions_come_and_go() {
        let sample = Sample::new();
        let given =
            json!({ "what": "Bad.example", "device": "192.168.1.7", "for": "2h", "why": "x" });
        let added = answer_of(&sample, "allow", given);
        assert_eq!(added["allowed"]["until"], "2026-11-18T13:06:40.000000Z");
        let all = answer_of(&sample, "allowed", json!({}));
        assert_eq!(all["allowed"], json!([added["allowed"]]));
        assert_eq!(all["allowed"][0]["what"], "bad.example");
        let removed = answer_of(&sample, "forbid", json!({ "which": added["allowed"]["id"] }));
        assert_eq!(removed, json!({ "removed": 1 }));
        assert_eq!(answer_of(&sample, "allowed", json!({}))["allowed"], json!([]));
    }

    #[test]
    fn the_largest_answer_fits_into_a_message() {
        let sample = Sample::new();
        for n in 0..1_000 {
            sample.find(&format!("{n}{}", "\u{7f}".repeat(300)), 0.5);
        }
        let answer = answer_of(&sample, "alerts", json!({ "limit": 1_000 }));
        assert_eq!(answer["alerts"].as_array().unwrap().len(), ROWS_MAX);
        assert!(answer.to_string().len() < 512 * 1024);
    }

    fn answer_of(sample: &Sample, method: &str, arguments: Value) -> Value {
        call(sample, method, arguments.as_object().unwrap()).unwrap()
    }
}
