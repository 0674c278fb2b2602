//! The object `agentmon` on the bus: its methods, their arguments, and the shape of the
//! answers. The LuCI page and scripts build on this; fields are added, not renamed.
//!
//! All times are milliseconds since 1970 (a router's clock may stand in 1970 until NTP has
//! set it), all ages and spans say their unit in the name. Integers are 64-bit, scores are
//! doubles from 0 to 1. A field that is not known is left out. Texts are printable ASCII;
//! anything else in them stands as `\xNN`. Severities: `info`, `low`, `medium`, `high`,
//! `critical`.
//!
//! ```text
//! status {}
//!   version, sensor (absent until joined), epoch (text), started, now, uptime_seconds
//!   hub         {state: "connected" | "trying" | "not_joined" | "off", detail, url, last_ack,
//!                backlog_events, backlog_bytes, error}
//!   collectors  as `collectors`
//!   ring        {events, bytes, bytes_max, accepted, acked, evicted, path,
//!                snapshot: {path, every_seconds, state, events, bytes_written, age_seconds}}
//!   drops       [{reason, count}]          since the start, largest first
//!   events_per_s            [60 numbers]   mean of 5 s each, newest last
//!   events_per_s_step_ms    5000
//!   top_talkers [{device, ip, mac, name, bytes, flows}]   the 10 with most bytes
//!   top_talkers_seconds     600            over this time
//!   alerts      {open, high}               not acknowledged; of those high or critical
//!   kernel      {ok, checked, problems: [{what, detail, mend}]}   all that is off but
//!                should be on, and how to mend it
//!   ubus        {state, detail}
//!   config      {loaded, error}            the last reload, and why it was refused
//!   resources   {rss_bytes, cpu_ms, threads}
//! collectors {}  and  sensors {}
//!   collectors  [{name, state: "ok" | "starting" | "problem" | "done" | "off", detail,
//!                 events, last_event}]
//! alerts {limit: 50, since: 0, severity: "info", rule, device, open}
//!   alerts      [{id, time, first, count, severity, score, rule, subject, device, ip, mac,
//!                 title, why, evidence: ["key: value"], acked, note}]     newest first
//!   total       how many the filter matches; evicted: how many old ones were forgotten
//! ack {id, note}                          acked: true; unknown id: status 4 (not found)
//! flows {limit: 50, device}
//!   flows       [{id, time, start, duration_ms, device, src, src_port, dst, dst_port, proto,
//!                 name, bytes_in, bytes_out, state: "open" | "closed"}]    newest first
//! devices {limit: 256}
//!   devices     [{device, mac, mac_kind: "registered" | "virtual" | "random", name,
//!                 name_source: "static" | "lease" | "pihole" | "ptr", ips: [], first_seen,
//!                 last_seen, queries, blocked, flows, bytes, bytes_in, bytes_out, alerts}]
//!                                                                          last seen first
//! score {name}
//!   name, verdict: "nothing" | severity, score, findings: [{rule, severity, score, why,
//!   evidence: ["key: value"]}]
//! reload {}                               reloading: true; see status.config for the end
//! allow {what, device, for: "2h", why}    an exception from what is enforced: what, a name
//!                                         or an address; device, a MAC or an address
//!   allowed     {id, what, device, until: RFC 3339, why, added: true}
//! allowed {}
//!   allowed     [as above; added: false where it stands in the configuration]
//! forbid {which}                          removed: how many; by id, name or address
//!
//! event agentmon.alert {id, time, severity, score, rule, subject, device, title, why}
//! ```
//!
//! `device` is what a person calls it: its name, else its MAC, else its address. As an
//! argument it matches name, MAC or address. `limit` is at most 200. An alert folds all
//! findings of one rule, subject and device; it opens again when its severity rises above
//! what had been acknowledged. `severity` as an argument means: at least.

use super::blob::{Writer, kind};
use crate::status::api::{Kind, METHODS, Method};

/// The object's name.
pub const NAME: &str = "agentmon";
/// Sent for each alert that is new, or worse than before.
pub const ALERT_EVENT: &str = "agentmon.alert";
/// Where ubusd reads what a user other than root may do.
pub const ACL_PATH: &str = "/usr/share/acl.d/agentmon.json";

/// The methods as ubusd wants them: a table for each, with the type of each argument.
#[must_use]
pub fn signature() -> Writer {
    METHODS
        .iter()
        .fold(Writer::default(), |all, method| all.named_table(method.name, &arguments(method)))
}

fn arguments(method: &Method) -> Writer {
    method.arguments.iter().fold(Writer::default(), |all, (name, wanted)| {
        let number = match wanted {
            Kind::Text => kind::STRING,
            // `ubus list` has no word for 64 bits; both sizes are taken.
            Kind::Number => kind::INT32,
            Kind::Flag => kind::BOOL,
        };
        all.named_u32(name, number.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ubus::blob::read_table;
    use serde_json::json;

    #[test]
    fn the_signature_names_methods_and_types() {
        let signature = read_table(signature().bytes()).unwrap();
        assert_eq!(signature.len(), METHODS.len());
        assert_eq!(signature["flows"], json!({ "limit": 5, "device": 3 }));
        assert_eq!(signature["status"], json!({}));
    }
}
