//! Prometheus' Alertmanager: `POST /api/v2/alerts` (its OpenAPI, version 2).
//!
//! Labels make an alert's identity there, so they are only what does not change while it
//! stands: rule, subject, device and number.

use serde_json::{Value, json};
use ureq::http::Method;

use super::super::Outcome;
use super::super::notice::Notice;
use super::To;

pub(super) fn send(to: &To<'_>, notices: &[Notice]) -> anyhow::Result<Outcome> {
    let secret = to.secret()?;
    let url = format!("{}/api/v2/alerts", to.url(secret.is_some())?.trim_end_matches('/'));
    let body: Vec<Value> = notices.iter().map(alert).collect();
    let headers = secret.map(|s| ("authorization", format!("Bearer {}", s.expose())));
    to.http(Method::POST, &url, headers.into_iter().collect(), Value::from(body).to_string())
}

fn alert(notice: &Notice) -> Value {
    json!({
        "labels": {
            "alertname": notice.rule,
            "severity": notice.severity.as_str(),
            "device": notice.device,
            "subject": notice.subject,
            "alert": notice.id.to_string(),
            "source": "agentmon",
        },
        "annotations": {"summary": notice.title(), "description": notice.details()},
        "startsAt": notice.first_seen.to_string(),
    })
}
