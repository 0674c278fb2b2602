//! A span of the day: `22:00-07:00`, also over midnight.
//!
//! In: its text. Out: whether a minute of the day lies in it. Pure; whose time zone the
//! minute is of is the caller's matter.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// A span of the day; the default is no time at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quiet {
    /// First minute.
    from: u16,
    /// First minute after.
    to: u16,
}

impl Quiet {
    /// Whether that minute of the day lies in it.
    #[must_use]
    pub const fn contains(self, minute: u16) -> bool {
        if self.from <= self.to {
            self.from <= minute && minute < self.to
        } else {
            self.from <= minute || minute < self.to
        }
    }
}

impl TryFrom<String> for Quiet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let minute = |text: &str| -> Option<u16> {
            let (hour, minute) = text.trim().split_once(':')?;
            let (hour, minute): (u8, u8) = (hour.parse().ok()?, minute.parse().ok()?);
            let of_day = u16::from(hour) * 60 + u16::from(minute);
            (minute < 60 && of_day <= DAY).then_some(of_day)
        };
        let span = text.split_once('-').and_then(|(a, b)| Some((minute(a)?, minute(b)?)));
        match span {
            Some((from, to)) if from != to => Ok(Self { from: from % DAY, to }),
            _ => Err(format!("`{text}`: want a span of the day as \"22:00-07:00\", or \"\"")),
        }
    }
}

impl fmt::Display for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return Ok(());
        }
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl From<Quiet> for String {
    fn from(quiet: Quiet) -> Self {
        quiet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(span: &str, minute: u16, want: bool) {
        let quiet = Quiet::try_from(span.to_owned()).unwrap();
        assert_eq!(quiet.contains(minute), want, "{span} at {minute}");
        assert_eq!(quiet.to_string(), span);
    }

    #[test]
    fn spans_of_the_day() {
        check("", 0, false);
        check("", 700, false);
        check("09:00-17:30", 539, false);
        check("09:00-17:30", 540, true);
        check("09:00-17:30", 1_049, true);
        check("09:00-17:30", 1_050, false);
        check("22:00-07:00", 1_319, false);
        check("22:00-07:00", 1_320, true);
        check("22:00-07:00", 0, true);
        check("22:00-07:00", 419, true);
        check("22:00-07:00", 420, false);
        check("00:00-24:00", 1_439, true);
    }

    #[test]
    fn what_is_no_span() {
        for text in ["22-7", "22:00", "22:60-07:00", "25:00-07:00", "07:00-07:00", "a-b", "-"] {
            assert!(Quiet::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
