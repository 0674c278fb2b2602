//! A topic of an ntfy server: JSON by POST to the server's root, which takes titles in UTF-8
//! (ntfy's documentation, "Publish as JSON"). A body above 4,096 bytes would become an
//! attachment, so it is cut before.
//!
//! Log-in: the secret as bearer token, or, with `user`, as password (RFC 7617).

use agentmon_core::finding::Severity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use ureq::http::Method;

use super::super::Outcome;
use super::super::notice::{Notice, cut, text_of, title_of};
use super::To;

/// Longest message in bytes.
const TEXT: usize = 3_900;
/// Longest title in bytes; the server takes 1 KiB.
const TITLE: usize = 240;

pub(super) fn send(to: &To<'_>, notices: &[Notice]) -> anyhow::Result<Outcome> {
    let secret = to.secret()?;
    let url = to.url(secret.is_some())?;
    let worst = notices.iter().map(|n| n.severity).max().unwrap_or(Severity::Info);
    let body = json!({
        "topic": to.target.topic,
        "title": cut(title_of(notices), TITLE),
        "message": text_of(notices, TEXT),
        "priority": priority(worst),
        "tags": [tag(worst), worst.as_str()],
    });
    let headers = secret.map(|secret| {
        let value = if to.target.user.is_empty() {
            format!("Bearer {}", secret.expose())
        } else {
            let pair = format!("{}:{}", to.target.user, secret.expose());
            format!("Basic {}", STANDARD.encode(pair))
        };
        ("authorization", value)
    });
    to.http(Method::POST, &url, headers.into_iter().collect(), body.to_string())
}

/// 1 (min) to 5 (max).
const fn priority(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Low => 2,
        Severity::Medium => 3,
        Severity::High => 4,
        Severity::Critical => 5,
    }
}

/// An emoji of ntfy's table.
const fn tag(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "rotating_light",
        Severity::High | Severity::Medium => "warning",
        Severity::Low | Severity::Info => "information_source",
    }
}
