//! A room of a Matrix home server: one message by PUT, with the delivery's key as the
//! transaction, so that a repetition is one message (client-server API v1.11, section
//! "Sending events to a room").

use serde_json::json;
use ureq::http::Method;

use super::super::Outcome;
use super::super::notice::{Notice, defang, text_of, title_of};
use super::To;

/// An event may have 65,536 bytes; escaped text of this length stays below.
const TEXT: usize = 12_000;

pub(super) fn send(to: &To<'_>, notices: &[Notice]) -> anyhow::Result<Outcome> {
    let Some(token) = to.secret()? else { anyhow::bail!("there is no access token") };
    let base = to.url(true)?;
    let url = format!(
        "{}/_matrix/client/v3/rooms/{}/send/m.room.message/{}",
        base.trim_end_matches('/'),
        percent(&to.target.topic),
        super::key(notices)
    );
    // Without `formatted_body` clients show plain text.
    let text = format!("{}\n{}", title_of(notices), text_of(notices, TEXT));
    let body = json!({"msgtype": "m.text", "body": defang(&text), "m.mentions": {}});
    let headers = vec![("authorization", format!("Bearer {}", token.expose()))];
    to.http(Method::PUT, &url, headers, body.to_string())
}

/// All but unreserved characters as `%XX` (RFC 3986 section 2.3).
fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn rooms() {
        assert_eq!(super::percent("!aB1:m.example/.."), "%21aB1%3Am.example%2F..");
    }
}
