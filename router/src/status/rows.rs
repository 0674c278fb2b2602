//! The answers' rows as JSON. Pure; the shapes are documented in [`crate::ubus::object`].

use agentmon_core::Name;
use agentmon_core::event::DeviceSource;
use agentmon_core::finding::Finding;
use agentmon_core::name::{cut, printable};
use agentmon_core::time::Timestamp;
use serde_json::{Map, Value, json};

use super::{CollectorStatus, Report};
use crate::model::{Device, STEP, Shown, Talker, Told};
use crate::show::protocol;

/// Longest state line of a collector, the hub or the bus.
const DETAIL_BYTES_MAX: usize = 500;
/// Most reasons for losses shown.
const DROPS_MAX: usize = 64;

/// Milliseconds since 1970.
pub(super) fn ms(time: Timestamp) -> i64 {
    time.micros().div_euclid(1_000)
}

/// `status`.
pub(super) fn report(report: &Report) -> Value {
    let Report { status, .. } = report;
    let counters = status.counters.iter();
    let lost = counters.filter(|(name, value)| name.starts_with("drop.") && **value > 0);
    let mut drops: Vec<(&str, u64)> = lost.map(|(name, value)| (name.as_str(), *value)).collect();
    drops.sort_by_key(|(name, value)| (std::cmp::Reverse(*value), *name));
    let drops = drops.iter().take(DROPS_MAX);
    let drops: Vec<_> = drops
        .map(|(name, count)| json!({ "reason": name.trim_start_matches("drop."), "count": count }))
        .collect();
    let known = json!({
        "version": status.version,
        "sensor": status.forward.sensor,
        "epoch": format!("{:016x}", status.ring.epoch),
        "started": ms(report.started),
        "now": ms(report.now),
        "uptime_seconds": status.uptime_seconds,
        "hub": hub(report),
        "collectors": collectors(report),
        "ring": ring(report),
        "drops": drops,
        "events_per_s": report.per_second.iter().map(|n| (n * 10.0).round() / 10.0).collect::<Vec<_>>(),
        "events_per_s_step_ms": STEP.as_millis() as u64,
        "top_talkers": report.talkers.iter().map(talker).collect::<Vec<_>>(),
        "top_talkers_seconds": crate::model::talk::WINDOW_MINUTES as u64 * 60,
        "alerts": { "open": report.alerts_open, "high": report.alerts_high },
        "kernel": kernel(report),
        "ubus": state_line(&status.ubus),
        "config": {
            "loaded": ms(report.loaded), "error": report.refused.as_deref().map(short),
        },
        "resources": {
            "rss_bytes": report.resources.rss_bytes,
            "cpu_ms": report.resources.cpu_ms,
            "threads": report.resources.threads,
        },
    });
    without_nulls(known)
}

/// `collectors`.
pub(super) fn collectors(report: &Report) -> Value {
    let running = report.status.collectors.iter().map(|c| collector(c, report.now));
    let off = report.off.iter().map(|name| json!({ "name": name, "state": "off" }));
    running.chain(off).collect()
}

fn collector(collector: &CollectorStatus, now: Timestamp) -> Value {
    let mut row = state_line(&collector.state);
    row["name"] = json!(printable(collector.name.as_bytes(), 100));
    row["events"] = json!(collector.events);
    if let Some(age) = collector.last_event_ms {
        row["last_event"] = json!(ms(now).saturating_sub_unsigned(age));
    }
    row
}

/// A state line taken apart: what it begins with, and the rest.
fn state_line(line: &str) -> Value {
    let (word, rest) = line.split_once(": ").unwrap_or((line, ""));
    match word {
        "ok" | "starting" | "off" => json!({ "state": word, "detail": short(rest) }),
        "done" => json!({ "state": word, "detail": short(rest) }),
        _ => json!({ "state": "problem", "detail": short(line) }),
    }
}

fn short(text: &str) -> String {
    cut(printable(text.as_bytes(), DETAIL_BYTES_MAX), DETAIL_BYTES_MAX)
}

fn hub(report: &Report) -> Value {
    let (forward, ring) = (&report.status.forward, &report.status.ring);
    let state = match (report.forwards, &forward.url, forward.connected) {
        (false, ..) => "off",
        (true, None, _) => "not_joined",
        (true, Some(_), true) => "connected",
        (true, Some(_), false) => "trying",
    };
    let last_ack = forward.last_ack_seconds;
    let last_ack =
        last_ack.map(|age| ms(report.now).saturating_sub_unsigned(age.saturating_mul(1_000)));
    without_nulls(json!({
        "state": state,
        "detail": short(&forward.state),
        "url": forward.url,
        "last_ack": last_ack,
        "backlog_events": ring.pending,
        "backlog_bytes": ring.bytes,
        "error": (state == "trying").then(|| short(&forward.state)),
    }))
}

fn ring(report: &Report) -> Value {
    let ring = &report.status.ring;
    without_nulls(json!({
        "events": ring.pending,
        "bytes": ring.bytes,
        "bytes_max": ring.capacity,
        "accepted": ring.accepted,
        "acked": ring.acked,
        "evicted": report.status.counters.get("drop.ring.evicted").copied().unwrap_or(0),
        "path": report.ring_path.to_string_lossy(),
        "snapshot": report.status.snapshot.as_ref().map(|copy| json!({
            "path": copy.path.to_string_lossy(),
            "every_seconds": copy.every_seconds,
            "state": short(&copy.state),
            "events": copy.events,
            "bytes_written": copy.bytes_written,
            "age_seconds": copy.age_seconds,
        })),
    }))
}

/// What is off although it should be on, and what to do: what the kernel lacks, and what
/// could not be set up.
fn kernel(report: &Report) -> Value {
    let bad = report.kernel.iter().filter(|check| !check.ok);
    let checks = bad.map(|c| (c.what, c.detail.as_str(), c.mend.as_deref().unwrap_or("")));
    let lacks = report.status.lacks.iter();
    let lacks = lacks.map(|l| (l.what.as_str(), l.detail.as_str(), l.mend.as_str()));
    let row = |(what, detail, mend): (&str, &str, &str)| json!({ "what": short(what), "detail": short(detail), "mend": short(mend) });
    let problems: Vec<_> = checks.chain(lacks).map(row).collect();
    let checked = report.kernel_checked.map(ms);
    json!({ "ok": problems.is_empty(), "checked": checked, "problems": problems })
}

fn talker(talker: &Talker) -> Value {
    without_nulls(json!({
        "device": talker.device,
        "ip": talker.ip,
        "mac": talker.mac,
        "name": talker.name,
        "bytes": talker.bytes,
        "flows": talker.flows,
    }))
}

/// A row of `alerts`.
pub(super) fn alert(told: &Told) -> Value {
    let mut row = told_alert(told);
    let alert = &told.alert;
    row["first"] = json!(ms(alert.first));
    row["count"] = json!(alert.count);
    row["evidence"] = json!(alert.evidence);
    row["acked"] = json!(alert.acked.is_some());
    if !alert.note.is_empty() {
        row["note"] = json!(alert.note);
    }
    row
}

/// What the event `agentmon.alert` carries.
#[must_use]
pub fn told_alert(told: &Told) -> Value {
    let alert = &told.alert;
    without_nulls(json!({
        "id": alert.id_text(),
        "time": ms(alert.time),
        "severity": alert.severity().as_str(),
        "score": alert.score,
        "rule": alert.rule,
        "subject": alert.subject,
        "device": told.device,
        "ip": alert.ip,
        "mac": alert.mac,
        "title": alert.title(),
        "why": alert.why,
    }))
}

/// A row of `flows`.
pub(super) fn flow(shown: &Shown) -> Value {
    let row = &shown.row;
    without_nulls(json!({
        // 64 bits are more than JSON's readers take.
        "id": format!("{:016x}", row.id),
        "time": ms(row.time),
        "start": row.start.map(ms),
        "duration_ms": row.duration_ms,
        "device": shown.device,
        "src": row.src.ip,
        "src_port": row.src.port,
        "dst": row.dst.ip,
        "dst_port": row.dst.port,
        "proto": protocol(row.proto),
        "name": row.name,
        "bytes_in": row.volume.map(|volume| volume.bytes_in),
        "bytes_out": row.volume.map(|volume| volume.bytes_out),
        "state": if row.closed { "closed" } else { "open" },
    }))
}

/// A row of `devices`.
pub(super) fn device(device: &Device, open_alerts: u64) -> Value {
    without_nulls(json!({
        "device": device.label(),
        "mac": device.mac,
        "mac_kind": device.mac.map(|mac| mac.kind().as_str()),
        "name": device.name,
        "name_source": device.name_source.map(DeviceSource::as_str),
        "ips": device.ips,
        "first_seen": ms(device.first_seen),
        "last_seen": ms(device.last_seen),
        "queries": device.asked.queries(),
        "blocked": device.asked.blocked(),
        "flows": device.flows,
        "bytes": device.bytes_in.saturating_add(device.bytes_out),
        "bytes_in": device.bytes_in,
        "bytes_out": device.bytes_out,
        "alerts": open_alerts,
    }))
}

/// `score`.
pub(super) fn verdict(name: &Name, findings: &[Finding]) -> Value {
    let worst = findings.iter().max_by(|a, b| a.score.total_cmp(&b.score));
    let evidence = |f: &Finding| {
        f.evidence.iter().map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>()
    };
    let rows: Vec<_> = findings
        .iter()
        .map(|f| {
            json!({
                "rule": f.rule, "severity": f.severity().as_str(), "score": f.score,
                "why": f.why, "evidence": evidence(f),
            })
        })
        .collect();
    json!({
        "name": name,
        "verdict": worst.map_or("nothing", |f| f.severity().as_str()),
        "score": worst.map_or(0.0, |f| f.score),
        "findings": rows,
    })
}

/// What is not known is not there, rather than null.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(table) => {
            let known = table.into_iter().filter(|(_, value)| !value.is_null());
            let known = known.map(|(key, value)| (key, without_nulls(value)));
            Value::Object(known.collect::<Map<_, _>>())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, state: &str, detail: &str) {
        assert_eq!(state_line(line), json!({ "state": state, "detail": detail }));
    }

    #[test]
    fn state_lines_have_a_word_and_a_rest() {
        check("ok", "ok", "");
        check("ok: 12 packets", "ok", "12 packets");
        check("starting", "starting", "");
        check("off: no ubusd at /x", "off", "no ubusd at /x");
        check("done: 3 lines", "done", "3 lines");
        check("no byte counts: mend \x1b[31m", "problem", "no byte counts: mend \\x1b[31m");
        check("okay", "problem", "okay");
    }

    #[test]
    fn what_is_not_known_is_not_there() {
        let report = report(&Report::default());
        let text = report.to_string();
        assert!(!text.contains("null"), "{text}");
        assert_eq!(report["hub"]["state"], "off");
        assert_eq!(report["kernel"]["ok"], true);
    }
}
