//! MISP events (<https://www.misp-standard.org/rfc/misp-standard-core.html>): the attributes
//! that name a place on the network.
//!
//! Taken: attributes with `to_ids` that are not deleted, of the event and of its objects.
//! Accepted wrappings: an event, `{"Event": ..}`, `{"response": [..]}`, an array of them.

use serde::Deserialize;

use super::{Out, json};
use crate::feeds::facts::{Facts, time};
use agentmon_core::Timestamp;

#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    // First: an array would pass for a record with its fields in order as well.
    Array(Vec<Wrapped>),
    Wrapped(Wrapped),
    Several(Several),
    Bare(Event),
}

#[derive(Deserialize)]
struct Wrapped {
    #[serde(rename = "Event")]
    event: Event,
}

#[derive(Deserialize)]
struct Several {
    response: Vec<Wrapped>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    info: String,
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    date: String,
    #[serde(default, rename = "Attribute")]
    attributes: Vec<Attribute>,
    #[serde(default, rename = "Object")]
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default, rename = "Attribute")]
    attributes: Vec<Attribute>,
    #[serde(default)]
    deleted: bool,
}

#[derive(Deserialize)]
struct Attribute {
    #[serde(rename = "type")]
    kind: String,
    value: String,
    #[serde(default)]
    to_ids: bool,
    #[serde(default)]
    deleted: bool,
    /// RFC 3339, or seconds since 1970 as text.
    first_seen: Option<String>,
    timestamp: Option<String>,
}

pub(super) fn events(download: &[u8], out: &mut Out) -> Result<(), String> {
    let events: Vec<Event> = match json::read(download)? {
        Document::Wrapped(one) => vec![one.event],
        Document::Several(several) => several.response.into_iter().map(|w| w.event).collect(),
        Document::Array(array) => array.into_iter().map(|w| w.event).collect(),
        Document::Bare(event) => vec![event],
    };
    for event in &events {
        let objects = event.objects.iter().filter(|object| !object.deleted);
        let inner = objects.flat_map(|object| &object.attributes);
        for attribute in event.attributes.iter().chain(inner) {
            take(event, attribute, out);
        }
    }
    out.is_something("attributes")
}

fn take(event: &Event, attribute: &Attribute, out: &mut Out) {
    if attribute.deleted {
        return out.skip("deleted");
    }
    if !attribute.to_ids {
        return out.skip("not meant for detection (`to_ids`)");
    }
    let seconds = |text: &String| text.parse().ok().map(Timestamp::from_secs);
    let seen = attribute.first_seen.as_deref().and_then(time);
    let facts = Facts {
        threat: event.info.clone(),
        reference: format!("misp {}", event.uuid),
        first_seen: seen
            .or_else(|| attribute.timestamp.as_ref().and_then(seconds))
            .or_else(|| time(&event.date)),
        expires: None,
    };
    let value = attribute.value.as_str();
    let (first, second) = value.split_once('|').unwrap_or((value, ""));
    match attribute.kind.as_str() {
        "domain" | "hostname" | "ip-dst" => out.entry(value, &facts),
        "ip-dst|port" => {
            let at = first.parse().ok().zip(second.parse().ok());
            match at.map(|(ip, port)| std::net::SocketAddr::new(ip, port)) {
                Some(at) => out.entry(&at.to_string(), &facts),
                None => out.skip("not an entry"),
            }
        }
        // A name with its address, or with a port: the name is what was meant.
        "domain|ip" | "hostname|port" => out.entry(first, &facts),
        "url" | "uri" | "link" if value.contains("://") => out.page(value, &facts),
        _ => out.skip("of another kind"),
    }
}
