//! Events as NDJSON, used by the `replay` collector and `tail --json`: one flat object a
//! line with `time_ns`, `kind` and the record's own fields.

use serde::{Deserialize, Serialize};

use super::{Body, Connection, Device, Dns, Event, Firewall, Flow, Gap, Process};
use crate::finding::Finding;
use crate::time::Timestamp;

/// The object, for any way to hold the record.
#[derive(Serialize, Deserialize)]
struct Line<B> {
    time_ns: Timestamp,
    #[serde(flatten)]
    body: B,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum BodyRef<'a> {
    Dns(&'a Dns),
    Flow(&'a Flow),
    Firewall(&'a Firewall),
    Device(&'a Device),
    Finding(&'a Finding),
    Gap(&'a Gap),
    Process(&'a Process),
    Connection(&'a Connection),
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum BodyOwned {
    Dns(Dns),
    Flow(Flow),
    Firewall(Firewall),
    Device(Device),
    Finding(Finding),
    Gap(Gap),
    Process(Box<Process>),
    Connection(Box<Connection>),
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let body = match &self.body {
            Body::Dns(b) => BodyRef::Dns(b),
            Body::Flow(b) => BodyRef::Flow(b),
            Body::Firewall(b) => BodyRef::Firewall(b),
            Body::Device(b) => BodyRef::Device(b),
            Body::Finding(b) => BodyRef::Finding(b),
            Body::Gap(b) => BodyRef::Gap(b),
            Body::Process(b) => BodyRef::Process(b),
            Body::Connection(b) => BodyRef::Connection(b),
        };
        Line { time_ns: self.time, body }.serialize(s)
    }
}
impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let line = Line::<BodyOwned>::deserialize(d)?;
        let body = match line.body {
            BodyOwned::Dns(b) => Body::Dns(b),
            BodyOwned::Flow(b) => Body::Flow(b),
            BodyOwned::Firewall(b) => Body::Firewall(b),
            BodyOwned::Device(b) => Body::Device(b),
            BodyOwned::Finding(b) => Body::Finding(b),
            BodyOwned::Gap(b) => Body::Gap(b),
            BodyOwned::Process(b) => Body::Process(b),
            BodyOwned::Connection(b) => Body::Connection(b),
        };
        Ok(Self { time: line.time_ns, body })
    }
}

impl Serialize for Timestamp {
    /// Nanoseconds since the Unix epoch.
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(self.nanos())
    }
}
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        i64::deserialize(d).map(Self::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ndjson_reads_back() {
        let text = r#"{"time_ns":1795444327000000000,"kind":"dns","client":"192.0.2.9","name":"www.example.com","qtype":1,"source":"replay","answers":[{"address":"203.0.113.9"}]}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        let again: Event = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert_eq!(event, again);
    }
}
