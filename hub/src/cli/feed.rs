//! One alert as one line: what `agentmon up` prints when it is made.

use agentmon_core::finding::Severity;
use agentmon_core::time::{Clock, SystemClock};
use jiff::tz::TimeZone;
use serde_json::Value;

use super::sheet::host;
use super::{text, when};

/// The columns of [`line`], for alerts above an id, oldest first.
pub(crate) const SELECT: &str = "SELECT a.id, a.last_seen, a.severity, a.rule, a.client, \
     coalesce(d.hostname, n.hostname), a.why FROM alerts a \
     LEFT JOIN devices d ON d.mac = a.mac LEFT JOIN address_names n ON n.ip = a.client \
     WHERE a.id > ? AND a.status <> 'folded' ORDER BY a.id LIMIT ?";

/// The line, for those of medium severity and above.
pub(crate) fn line(row: &[Value]) -> Option<String> {
    let [id, time, severity, rule, client, name, why] = row else { return None };
    let known = |v: &Value| Severity::ALL.into_iter().find(|s| Some(s.as_str()) == v.as_str());
    known(severity).filter(|s| *s >= Severity::Medium)?;
    let part = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let now = SystemClock.wall();
    let time = when::from_answer(time.as_str()?)?;
    let line = format!(
        "{}  {:<8}  {:<9}  {}  {}  (agentmon alert {})",
        when::short(time, now, &TimeZone::system()),
        part(severity),
        part(rule),
        host(&part(client), &part(name)),
        part(why),
        id.as_i64().unwrap_or_default(),
    );
    Some(text::safe(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medium_and_above_on_one_safe_line() {
        let row = |severity: &str| -> Vec<Value> {
            vec![
                7.into(),
                "2026-11-23T14:22:00.000000Z".into(),
                severity.into(),
                "dga".into(),
                "192.0.2.7".into(),
                "cam\x1b[2Jera".into(),
                "two\nlines".into(),
            ]
        };
        let told = line(&row("high")).unwrap();
        assert!(told.contains("cam\\x1b[2Jera (192.0.2.7)  two\\x0alines  (agentmon alert 7)"));
        assert_eq!(line(&row("low")), None);
        assert_eq!(line(&[]), None);
    }
}
