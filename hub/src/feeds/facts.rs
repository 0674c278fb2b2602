//! What a feed says of an entry, kept beside it: a comment that people can read.
//!
//! ```text
//! 203.0.113.9:443 # Mozi | https://feeds.example.net/id/7 | 2026-11-20T10:00:00Z | -
//! ```
//! Threat, reference, first seen, expiry; `-` where nothing is known. Every word of it comes
//! from strangers: control characters and the divider go, lengths are bounded. Of a list that
//! was not written here, the whole comment is the threat.

use agentmon_core::Timestamp;
use agentmon_core::name::printable;

/// Longest threat in bytes.
const THREAT_BYTES: usize = 100;
/// Longest reference in bytes.
const REFERENCE_BYTES: usize = 200;
const DIVIDER: &str = " | ";
const NOTHING: &str = "-";

/// What is known of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Family or kind: `Mozi`, `phishing`.
    pub(super) threat: String,
    /// Where to read on: an address or a number of the feed's own.
    pub(super) reference: String,
    pub(super) first_seen: Option<Timestamp>,
    /// From then on it says nothing.
    pub(super) expires: Option<Timestamp>,
}

impl Facts {
    /// As the comment of a line, without the `#`.
    pub(super) fn comment(&self) -> String {
        let text = |text: &str, max| match clean(text, max) {
            text if text.is_empty() => NOTHING.to_owned(),
            text => text,
        };
        let time = |time: Option<Timestamp>| {
            time.map_or_else(|| NOTHING.to_owned(), |t| Timestamp::from_secs(t.secs()).to_string())
        };
        [
            text(&self.threat, THREAT_BYTES),
            text(&self.reference, REFERENCE_BYTES),
            time(self.first_seen),
            time(self.expires),
        ]
        .join(DIVIDER)
    }

    /// Of a line's comment, ours or anybody's.
    pub(super) fn read(comment: &[u8]) -> Self {
        let text = String::from_utf8_lossy(comment);
        let parts: Vec<&str> = text.trim().split(DIVIDER).collect();
        let known = |part: &str| if part == NOTHING { String::new() } else { part.to_owned() };
        match parts.as_slice() {
            [threat, reference, first, expires] => Self {
                threat: known(&clean(threat, THREAT_BYTES)),
                reference: known(&clean(reference, REFERENCE_BYTES)),
                first_seen: time(first),
                expires: time(expires),
            },
            _ => Self { threat: clean(&text, THREAT_BYTES), ..Self::default() },
        }
    }
}

fn clean(text: &str, max: usize) -> String {
    let calm: String =
        text.chars().map(|c| if c == '|' || c.is_control() { ' ' } else { c }).collect();
    printable(calm.trim().as_bytes(), max)
}

/// `2026-11-20 10:00:00`, with `T`, `Z`, ` UTC`, an offset or fractions, or the day alone.
/// Without an offset it is UTC.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim().trim_end_matches("UTC").trim_end();
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_secs(at.as_second()));
    }
    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
    let at = jiff::tz::Offset::UTC.to_timestamp(civil).ok()?;
    Some(Timestamp::from_secs(at.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_all_dresses() {
        let want = Some(Timestamp::from_secs(1_763_634_600));
        for text in [
            "2025-11-20 10:30:00",
            " 2025-11-20 10:30:00 UTC",
            "2025-11-20T10:30:00Z",
            "2025-11-20T10:30:00.123456Z",
            "2025-11-20T11:30:00+01:00",
            "2025-11-20T10:30:00",
        ] {
            assert_eq!(time(text), want, "{text}");
        }
        assert_eq!(time("2025-11-20"), Some(Timestamp::from_secs(1_763_596_800)));
        assert_eq!(time("yesterday"), None);
        assert_eq!(time(""), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let all = Facts {
            threat: "Mozi".into(),
            reference: "https://feeds.example.net/id/7#a".into(),
            first_seen: time("2025-11-20 10:30:00"),
            expires: None,
        };
        assert_eq!(Facts::read(all.comment().as_bytes()), all);
        assert_eq!(Facts::read(Facts::default().comment().as_bytes()), Facts::default());
    }

    #[test]
    fn a_feed_cannot_write_lines_or_fields() {
        let facts =
            Facts { threat: "a\n0.0.0.0 evil.example | b\u{1b}[2J".into(), ..Facts::default() };
        let comment = facts.comment();
        assert!(!comment.contains('\n') && !comment.contains('\u{1b}'), "{comment:?}");
        assert_eq!(comment.matches(" | ").count(), 3, "{comment:?}");
        assert!(Facts { threat: "x".repeat(9_999), ..facts }.comment().len() < 400);
    }

    #[test]
    fn anybodys_comment_is_the_threat() {
        assert_eq!(Facts::read(b" emotet c2 ").threat, "emotet c2");
        assert_eq!(Facts::read(b"").threat, "");
    }
}
