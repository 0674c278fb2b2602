//! Limits as people write them: `200MiB/day`, `600/hour`.
//!
//! In: text. Out: a count (bytes, or things) in a span of time. Units of bytes are B, kB, MB,
//! GB (thousands) and KiB, MiB, GiB (1,024s); spans are second, minute, hour, day, week.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Unit and factor.
const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
/// Span and seconds.
const SPANS: [(&str, u64); 5] =
    [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400), ("week", 604_800)];

/// At most this much in this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How much.
    pub most: u64,
    /// In which time.
    pub per: Duration,
    text: String,
}

/// The text is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no limit; write it as 200MiB/day or 600/hour")]
pub struct LimitError(String);

impl FromStr for Limit {
    type Err = LimitError;
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let bad = || LimitError(crate::name::printable(text.as_bytes(), 64));
        let (amount, span) = text.split_once('/').ok_or_else(bad)?;
        let amount = amount.trim();
        let digits = amount.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = amount.split_at_checked(digits).ok_or_else(bad)?;
        let number: u64 = number.parse().map_err(|_| bad())?;
        let unit = UNITS.iter().find(|(word, _)| *word == unit.trim()).ok_or_else(bad)?.1;
        let span = SPANS.iter().find(|(word, _)| *word == span.trim()).ok_or_else(bad)?.1;
        let most = number.checked_mul(unit).ok_or_else(bad)?;
        Ok(Self { most, per: Duration::from_secs(span), text: text.to_owned() })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}
impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(u64, u64)>) {
        let limit = text.parse::<Limit>().ok().map(|l| (l.most, l.per.as_secs()));
        assert_eq!(limit, expected, "{text}");
    }

    #[test]
    fn limits_as_people_write_them() {
        check("200MiB/day", Some((200 << 20, 86_400)));
        check("600/hour", Some((600, 3_600)));
        check("1 GB / week", Some((1_000_000_000, 604_800)));
        check("5kB/minute", Some((5_000, 60)));
        for bad in [
            "",
            "/",
            "200",
            "200MiB",
            "MiB/day",
            "200mib/day",
            "1/fortnight",
            "-1/day",
            "99999999999999999999/day",
            "99999999999GiB/day",
            "1.5GB/day",
        ] {
            check(bad, None);
        }
    }
}
