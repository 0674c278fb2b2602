//! A webhook: the alerts as JSON, signed.
//!
//! Body: `{"version":1,"source":"agentmon","alerts":[...]}`. Headers: `idempotency-key`, and
//! with a secret `x-agentmon-timestamp` (Unix seconds) and `x-agentmon-signature`, which is
//! `sha256=` and the hex of HMAC-SHA256 (RFC 2104) over timestamp, a dot and the body. The
//! timestamp is the one of the newest alert: the same message is the same when sent again.

use std::fmt::Write as _;

use ring::hmac;
use serde_json::json;
use ureq::http::Method;

use super::super::Outcome;
use super::super::notice::Notice;
use super::To;

pub(super) fn send(to: &To<'_>, notices: &[Notice]) -> anyhow::Result<Outcome> {
    let body = json!({"version": 1, "source": "agentmon", "alerts": notices}).to_string();
    let mut headers = vec![("idempotency-key", super::key(notices))];
    if let Some(secret) = to.secret()? {
        let newest = notices.iter().map(|n| n.last_seen.secs()).max().unwrap_or(0).to_string();
        let signature = sign(secret.expose(), &newest, &body);
        headers.push(("x-agentmon-timestamp", newest));
        headers.push(("x-agentmon-signature", signature));
    }
    to.http(Method::POST, &to.url(false)?, headers, body)
}

fn sign(secret: &str, timestamp: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{timestamp}.{body}").as_bytes());
    let mut text = "sha256=".to_owned();
    for byte in tag.as_ref() {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn signature() {
        // printf '1.{}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            super::sign("key", "1", "{}"),
            "sha256=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"
        );
    }
}
