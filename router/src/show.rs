//! One event as one line for a person: time, kind, who, what.
//!
//! All texts inside events are printable ASCII since the collectors made them so; nothing
//! here can reach a terminal raw. Pure.

use std::fmt;

use agentmon_core::event::{Answer, Body, Dns, Firewall, Flow, FlowPhase};
use agentmon_core::{Event, Finding};

/// Shows as `2026-11-23T14:32:07.000123Z flow     192.0.2.9:43164 -> 203.0.113.2:443 tcp`.
#[derive(Clone, Copy, Debug)]
pub struct EventLine<'a>(pub &'a Event);

impl fmt::Display for EventLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:<8} ", self.0.time, self.0.body.kind())?;
        match &self.0.body {
            Body::Dns(dns) => write_dns(f, dns),
            Body::Flow(flow) => write_flow(f, flow),
            Body::Firewall(packet) => write_firewall(f, packet),
            Body::Device(d) => {
                let name = d.hostname.as_deref().unwrap_or("-");
                write!(f, "{} {} {name} ({})", d.mac, d.ip, d.source.as_str())
            }
            Body::Finding(finding) => write_finding(f, finding),
            Body::Gap(gap) => {
                write!(f, "{} since {}: {}", gap.collector, gap.from, gap.reason)?;
                gap.lost.map_or(Ok(()), |lost| write!(f, ", {lost} lost"))
            }
            Body::Process(p) => {
                let exe = p.program.exe.as_deref().unwrap_or(&p.program.name);
                write!(f, "{} {} {exe}", p.phase.as_str(), p.program.pid)
            }
            Body::Connection(c) => {
                let (name, way) = (c.name.as_deref().unwrap_or("?"), c.direction.as_str());
                write!(f, "{name} ({}) {way} {} {}", c.pid, c.local, c.remote)
            }
        }
    }
}

fn write_finding(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    let severity = finding.severity().as_str();
    write!(f, "{severity} {:.2} {}", finding.score, finding.rule)?;
    if let Some(client) = finding.client {
        write!(f, " {client}")?;
    }
    write!(f, " {}: {}", finding.subject, finding.why)
}

fn write_dns(f: &mut fmt::Formatter<'_>, dns: &Dns) -> fmt::Result {
    write!(f, "{} {} {} {}", dns.client, qtype(dns.qtype), dns.name, dns.status.as_str())?;
    for answer in &dns.answers {
        match answer {
            Answer::Address(ip) => write!(f, " {ip}")?,
            Answer::Cname(name) => write!(f, " {name}")?,
            Answer::Other(text) => write!(f, " {text}")?,
        }
    }
    Ok(())
}

fn write_flow(f: &mut fmt::Formatter<'_>, flow: &Flow) -> fmt::Result {
    let phase = match flow.phase {
        FlowPhase::Start => "start",
        FlowPhase::Update => "open",
        FlowPhase::End => "end",
    };
    write!(f, "{} -> {} {} {phase}", flow.src, flow.dst, protocol(flow.proto))?;
    if let Some(v) = flow.volume {
        write!(f, " {} B out, {} B in", v.bytes_out, v.bytes_in)?;
    }
    if let Some(ms) = flow.duration_ms {
        write!(f, " {}.{:03} s", ms / 1000, ms % 1000)?;
    }
    if let Some(resolved) = &flow.resolved {
        write!(f, " ({})", resolved.name)?;
    }
    Ok(())
}

fn write_firewall(f: &mut fmt::Formatter<'_>, p: &Firewall) -> fmt::Result {
    let (verdict, proto) = (p.verdict.as_str(), protocol(p.proto));
    write!(f, "{verdict} {} -> {} {proto}", p.src, p.dst)?;
    if p.prefix.is_empty() { Ok(()) } else { write!(f, " [{}]", p.prefix.trim()) }
}

/// The protocol's usual name (IANA protocol numbers).
#[must_use]
pub fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmp6".into(),
        132 => "sctp".into(),
        n => format!("proto-{n}"),
    }
}

/// The record type's name (IANA DNS parameters), for the usual ones.
#[must_use]
pub fn qtype(number: u16) -> String {
    match number {
        1 => "A".into(),
        2 => "NS".into(),
        5 => "CNAME".into(),
        6 => "SOA".into(),
        12 => "PTR".into(),
        15 => "MX".into(),
        16 => "TXT".into(),
        28 => "AAAA".into(),
        33 => "SRV".into(),
        64 => "SVCB".into(),
        65 => "HTTPS".into(),
        255 => "ANY".into(),
        n => format!("TYPE{n}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        let event: Event = serde_json::from_str(json).unwrap();
        assert_eq!(
            EventLine(&event).to_string(),
            format!("1970-01-01T00:00:01.000000Z {expected}")
        );
    }

    #[test]
    fn one_line_each() {
        check(
            r#"{"time_ns":1000000000,"kind":"dns","client":"192.0.2.9","name":"www.example.com","qtype":28,"status":"cached","answers":[{"cname":"cdn.example.net"},{"address":"2001:db8::1"}],"source":"test"}"#,
            "dns      192.0.2.9 AAAA www.example.com cached cdn.example.net 2001:db8::1",
        );
        check(
            r#"{"time_ns":1000000000,"kind":"flow","id":1,"proto":6,"src":{"ip":"192.0.2.9","port":43164},"dst":{"ip":"203.0.113.2","port":443},"duration_ms":1500,"volume":{"bytes_out":10,"bytes_in":20,"packets_out":1,"packets_in":1},"resolved":{"name":"a.example","age_ms":3}}"#,
            "flow     192.0.2.9:43164 -> 203.0.113.2:443 tcp end 10 B out, 20 B in 1.500 s (a.example)",
        );
        check(
            r#"{"time_ns":1000000000,"kind":"firewall","verdict":"reject","prefix":"wan in ","proto":17,"src":{"ip":"2001:db8::9","port":1},"dst":{"ip":"2001:db8::1","port":53}}"#,
            "firewall reject [2001:db8::9]:1 -> [2001:db8::1]:53 udp [wan in]",
        );
        check(
            r#"{"time_ns":1000000000,"kind":"device","mac":"00:00:5e:00:53:01","ip":"192.0.2.9","hostname":"laptop","source":"lease"}"#,
            "device   00:00:5e:00:53:01 192.0.2.9 laptop (lease)",
        );
        check(
            r#"{"time_ns":1000000000,"kind":"finding","rule":"blocklist","subject":"bad.example","client":"192.0.2.9","score":0.8,"why":"on a list"}"#,
            "finding  high 0.80 blocklist 192.0.2.9 bad.example: on a list",
        );
        check(
            r#"{"time_ns":1000000000,"kind":"gap","collector":"conntrack","from":0,"reason":"enobufs"}"#,
            "gap      conntrack since 1970-01-01T00:00:00.000000Z: enobufs",
        );
    }
}
