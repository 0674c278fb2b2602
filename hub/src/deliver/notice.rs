//! What a receiver is told of one alert, and the words for several.
//!
//! In: rows of the outbox with their alerts. Out: plain text that is safe to pass on: no
//! control characters, nothing that changes the direction of reading, bounded in length.
//! Escaping for a receiver's own syntax is its file's matter.

use std::fmt::Write as _;

use agentmon_core::Timestamp;
use agentmon_core::finding::Severity;
use serde::Serialize;

/// Longest of each text, in characters.
const WORDS_MAX: usize = 1_000;

/// Why an alert is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reason {
    /// It was made.
    New,
    /// It had been acknowledged and has become worse.
    Again,
    /// A person tries the target.
    Test,
}

impl Reason {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Again => "again",
            Self::Test => "test",
        }
    }

    pub(super) fn of(word: &str) -> Self {
        match word {
            "again" => Self::Again,
            "test" => Self::Test,
            _ => Self::New,
        }
    }
}

/// One alert, as it stands when it is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Notice {
    /// The delivery's number: the same whenever this is sent again.
    #[serde(rename = "delivery")]
    pub(super) row: i64,
    /// The alert's number.
    pub(super) id: i64,
    pub(super) reason: Reason,
    pub(super) severity: Severity,
    pub(super) score: f64,
    pub(super) rule: String,
    pub(super) subject: String,
    /// The device's name, else its MAC, else the client's address; empty: none is known.
    pub(super) device: String,
    pub(super) client: Option<String>,
    pub(super) mac: Option<String>,
    #[serde(serialize_with = "rfc3339")]
    pub(super) first_seen: Timestamp,
    #[serde(serialize_with = "rfc3339")]
    pub(super) last_seen: Timestamp,
    pub(super) findings: u64,
    pub(super) why: String,
}

fn rfc3339<S: serde::Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

/// Plain text of at most [`WORDS_MAX`] characters: what steers a terminal, a reader or the
/// direction of writing becomes U+FFFD.
pub(super) fn plain(text: &str) -> String {
    let steers = |c: char| {
        // Unicode TR 9: marks, embeddings, overrides, isolates; line and paragraph ends.
        c.is_control()
            || matches!(c, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
    };
    let mut out: String =
        text.chars().take(WORDS_MAX).map(|c| if steers(c) { '\u{FFFD}' } else { c }).collect();
    if text.chars().nth(WORDS_MAX).is_some() {
        out.push_str("...");
    }
    out
}

/// A name, an address or a page that no program makes a link of: `evil[.]example`.
///
/// Only the dots that stand between two letters or digits are changed.
pub(super) fn defang(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let inner = |i: usize| {
        let word = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric());
        i > 0 && word(chars.get(i - 1)) && word(chars.get(i + 1))
    };
    let mut out = String::with_capacity(text.len() + 16);
    for (i, c) in chars.iter().enumerate() {
        match c {
            '.' if inner(i) => out.push_str("[.]"),
            ':' if chars.get(i + 1..i + 3) == Some(&['/', '/']) => out.push_str("[:]"),
            c => out.push(*c),
        }
    }
    out
}

impl Notice {
    /// One line: `HIGH dga on laptop: qx7.example`.
    pub(super) fn title(&self) -> String {
        let mut title = format!("{} {}", self.severity.as_str().to_uppercase(), self.rule);
        if !self.device.is_empty() {
            let _infallible = write!(title, " on {}", self.device);
        }
        let _infallible = write!(title, ": {}", self.subject);
        match self.reason {
            Reason::New => title,
            Reason::Again => format!("{title} (worse than when it was acknowledged)"),
            Reason::Test => format!("TEST {title}"),
        }
    }

    /// What stands below the title.
    pub(super) fn details(&self) -> String {
        let times = match self.findings {
            0 | 1 => format!("at {}", short(self.last_seen)),
            n => format!("{n} times from {} to {}", short(self.first_seen), short(self.last_seen)),
        };
        format!("{}\n{times}; see `agentmon alert {}`", self.why, self.id)
    }
}

/// To the second: `2026-11-01 14:32:07Z`.
fn short(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('T') {
        Some((day, clock)) => {
            format!("{day} {}Z", clock.split(['.', 'Z']).next().unwrap_or_default())
        }
        None => text,
    }
}

/// The title of a message about all of these.
pub(super) fn title_of(notices: &[Notice]) -> String {
    match notices {
        [one] => one.title(),
        all => {
            let worst = all.iter().map(|n| n.severity).max().unwrap_or(Severity::Info);
            let at_worst = all.iter().filter(|n| n.severity == worst).count();
            format!("{} alerts, {at_worst} of them {}", all.len(), worst.as_str())
        }
    }
}

/// The text of a message about all of these, at most so many bytes; what does not fit is
/// counted in its last line.
pub(super) fn text_of(notices: &[Notice], bytes_max: usize) -> String {
    let [one] = notices else {
        let mut text = String::new();
        for (told, notice) in notices.iter().enumerate() {
            let line = format!("{}\n{}\n\n", notice.title(), notice.details());
            if text.len() + line.len() + 80 > bytes_max {
                let left = notices.len() - told;
                let _infallible = write!(text, "and {left} more; see `agentmon alerts`");
                return cut(text, bytes_max);
            }
            text.push_str(&line);
        }
        return text.trim_end().to_owned();
    };
    cut(one.details(), bytes_max)
}

/// At most so many bytes, ended by `...` where it was longer.
pub(super) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let mut end = bytes_max.saturating_sub(3);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::deliver) fn sample(id: i64) -> Notice {
        Notice {
            row: id + 100,
            id,
            reason: Reason::New,
            severity: Severity::High,
            score: 0.75,
            rule: "dga".into(),
            subject: "qx7kz.example".into(),
            device: "laptop".into(),
            client: Some("192.0.2.7".into()),
            mac: Some("00:00:5e:00:53:01".into()),
            first_seen: Timestamp::from_secs(1_793_500_000),
            last_seen: Timestamp::from_secs(1_793_500_060),
            findings: 3,
            why: "laptop asked for qx7kz.example, a name that looks generated".into(),
        }
    }

    #[test]
    fn one_and_many() {
        assert_eq!(title_of(&[sample(4)]), "HIGH dga on laptop: qx7kz.example");
        assert_eq!(title_of(&[sample(4), sample(5)]), "2 alerts, 2 of them high");
        let text = text_of(&[sample(4)], 4_000);
        assert!(text.ends_with("see `agentmon alert 4`"), "{text}");
        assert!(text.contains("3 times from 2026-11-"), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let many: Vec<_> = (0..100).map(sample).collect();
        let text = text_of(&many, 2_000);
        assert!(text.len() <= 2_000, "{}", text.len());
        let told = text.matches("HIGH dga").count();
        assert!(text.ends_with(&format!("and {} more; see `agentmon alerts`", 100 - told)));
    }

    #[test]
    fn nothing_steers_the_reader() {
        assert_eq!(
            plain("a\u{1b}[31mb\r\nc\u{202e}d\u{200b}"),
            "a\u{FFFD}[31mb\u{FFFD}\u{FFFD}c\u{FFFD}d\u{FFFD}"
        );
        assert_eq!(plain(&"x".repeat(2_000)).chars().count(), WORDS_MAX + 3);
        assert_eq!(plain("Büro-Kamera"), "Büro-Kamera");
    }

    #[track_caller]
    fn defanged(text: &str, want: &str) {
        assert_eq!(defang(text), want);
    }

    #[test]
    fn no_links() {
        defanged("evil.example", "evil[.]example");
        defanged("see http://evil.example/x. Then", "see http[:]//evil[.]example/x. Then");
        defanged("192.0.2.1:443", "192[.]0[.]2[.]1:443");
        defanged("12:30 .", "12:30 .");
        defanged("", "");
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(cut("äöü".to_owned(), 5), "ä...");
        assert_eq!(cut("abc".to_owned(), 3), "abc");
    }
}
