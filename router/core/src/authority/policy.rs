//! The policy as it is written.
//!
//! In: TOML, by serde. Out: plain structures, not yet checked: see [`super::compile`].
//!
//! ```toml
//! version = 1
//!
//! [defaults]                        # for processes no grant names
//! mode = "learn"                    # allow, learn, flag, alert
//!
//! [[process]]                       # who "builder" is
//! id = "builder"
//! any = [{ exe = ["/opt/builder/**"] }, { exe_name = ["node"], argv = ["*/builder/*"] }]
//!
//! [[authority]]
//! process = "builder"
//! allowed = ["api.example.com:443", "lan:dns"]
//! denied = ["paste.example"]
//!
//! [[exception]]
//! process = "builder"
//! allowed = ["packages.example"]
//! until = 2026-12-01
//! reason = "the move to the new registry"
//!
//! [group]                           # hosts = ["group:dev"]
//! dev = ["laptop-*", "desk-7"]
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Strength;
use super::quantity::Limit;
use crate::time::{Timestamp, days_from_civil};

/// A whole policy file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Of this form: 1.
    pub version: Option<u32>,
    /// What holds where no grant says anything.
    pub defaults: Defaults,
    /// Who is who; before the catalogue of known agents, and instead of an entry of it with
    /// the same `id`.
    pub process: Vec<ProcessDef>,
    /// Who may do what.
    pub authority: Vec<Grant>,
    /// What is let through for a while.
    pub exception: Vec<Exception>,
    /// Sets of destinations by name, as `"ai:mine" = ["models.example"]`.
    pub class: BTreeMap<String, Vec<String>>,
    /// Sets of hosts by name, as `dev = ["laptop-*", "group:lab"]`; `hosts` names them as
    /// `group:dev`.
    pub group: BTreeMap<String, Some1>,
}

/// What is done about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing.
    Allow,
    /// Nothing but to remember it: `authority learn` proposes grants from it.
    Learn,
    /// A finding of low weight.
    Flag,
    /// A finding that a person is told.
    #[default]
    Alert,
}

impl Mode {
    /// The word of the policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Learn => "learn",
            Self::Flag => "flag",
            Self::Alert => "alert",
        }
    }
}

/// What holds where no grant says anything.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// For processes no grant names.
    pub mode: Mode,
    /// For connections whose process nobody knows.
    pub unknown_process: Mode,
    /// For public names that stand for private addresses.
    pub private_answers: Mode,
    /// For limits that are passed.
    pub limits: Mode,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            mode: Mode::Learn,
            unknown_process: Mode::Flag,
            private_answers: Mode::Alert,
            limits: Mode::Alert,
        }
    }
}

/// One or several: `"a"` or `["a", "b"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Some1(pub Vec<String>);

impl<'de> Deserialize<'de> for Some1 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            One(String),
            Many(Vec<String>),
        }
        Ok(match Form::deserialize(d)? {
            Form::One(text) => Self(vec![text]),
            Form::Many(texts) => Self(texts),
        })
    }
}
impl<const N: usize> From<[&str; N]> for Some1 {
    fn from(texts: [&str; N]) -> Self {
        Self(texts.map(str::to_owned).into())
    }
}
impl std::ops::Deref for Some1 {
    type Target = [String];
    fn deref(&self) -> &[String] {
        &self.0
    }
}

/// Who is who.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessDef {
    /// The name grants use.
    pub id: String,
    /// A process that any of these matches.
    #[serde(default)]
    pub any: Vec<Matcher>,
    /// Whether what runs below it counts as it.
    #[serde(default = "yes")]
    pub tree: bool,
    /// Names of programs that do not count as it although they run below it: daemons that
    /// outlive it and serve others.
    #[serde(default)]
    pub except_children: Vec<String>,
    /// For people.
    #[serde(default)]
    pub comment: String,
}

fn yes() -> bool {
    true
}

/// What a process looks like: every key that is given must hold, any value of a key will do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matcher {
    /// `linux`, `macos`, `windows`.
    pub os: Some1,
    /// Who signed the file: team, subject.
    #[serde(alias = "team_id", alias = "signature")]
    pub signer: Some1,
    /// SHA-256 of the file, hexadecimal.
    #[serde(alias = "hash")]
    pub sha256: Some1,
    /// The file, with `*`, `**` and `~/`.
    #[serde(alias = "path")]
    pub exe: Some1,
    /// The installed package the file belongs to, as `deb:git`.
    pub package: Some1,
    /// One of the arguments, with `*`.
    pub argv: Some1,
    /// The file's name, or where that is not known what the process calls itself, with `*`.
    #[serde(alias = "name")]
    pub exe_name: Some1,
    /// The account it runs as.
    pub user: Some1,
    /// `id` of what must be above it.
    pub ancestor: Some1,
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grant {
    /// `id` of a `[[process]]` or of the catalogue; none: every process.
    pub process: Some1,
    /// Only on these hosts, with `*`; `group:NAME` for a group.
    pub hosts: Some1,
    /// Only for these accounts, with `*`.
    pub users: Some1,
    /// Where it may go. A name means that name; `*.name` what is below it, `.name` both.
    #[serde(alias = "allow")]
    pub allowed: Some1,
    /// Where it must not go. A name means it and all below it.
    #[serde(alias = "deny")]
    pub denied: Some1,
    /// What anything else is.
    pub otherwise: Option<Mode>,
    /// The least by which the process must be known for `allowed` to hold.
    pub require: Option<Strength>,
    /// At most this many bytes sent.
    pub max_upload: Option<Limit>,
    /// At most this many bytes received.
    pub max_download: Option<Limit>,
    /// At most this many connections.
    pub max_connections: Option<Limit>,
    /// For people.
    pub comment: String,
}

/// What is let through for a while.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// As in a grant.
    #[serde(default)]
    pub process: Some1,
    /// As in a grant.
    #[serde(default)]
    pub hosts: Some1,
    /// As in a grant.
    #[serde(default)]
    pub users: Some1,
    /// As in a grant; also what is denied there.
    #[serde(alias = "allow")]
    pub allowed: Some1,
    /// Up to when: a date (its beginning, UTC) or a time.
    pub until: Until,
    /// Why.
    #[serde(alias = "comment")]
    pub reason: String,
    /// Who wrote it.
    #[serde(default)]
    pub by: String,
}

/// A moment: TOML's date or time, or the same as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until(pub Timestamp);

impl Until {
    /// `2026-12-01`, `2026-12-01T12:00:00Z`, `2026-12-01 12:00:00+01:00`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |range: std::ops::Range<usize>| -> Option<u32> {
            let part = text.get(range)?;
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
        };
        let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
        let marks = text.get(4..5) == Some("-") && text.get(7..8) == Some("-");
        if !marks || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let days = days_from_civil(i64::from(year), month, day);
        if crate::time::civil_from_days(days) != (i64::from(year), month, day) {
            return None;
        }
        let clock = match text.get(10..)? {
            "" => 0,
            _ if text.get(13..14) != Some(":") || text.get(16..17) != Some(":") => return None,
            _ => {
                let (h, m, s) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
                (h < 24 && m < 60 && s < 61).then(|| i64::from(h * 3_600 + m * 60 + s))?
                    - offset(text.get(19..)?)?
            }
        };
        Some(Self(Timestamp::from_secs(days * 86_400 + clock)))
    }
}

/// `Z`, nothing, `+01:00`, each after an optional fraction: seconds east of UTC.
fn offset(text: &str) -> Option<i64> {
    let text = text.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let sign = match text.bytes().next() {
        None | Some(b'Z' | b'z') => return (text.len() < 2).then_some(0),
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    ((0..24).contains(&hours) && (0..60).contains(&minutes))
        .then_some(sign * (hours * 3_600 + minutes * 60))
}

impl Serialize for Until {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.to_string())
    }
}
impl<'de> Deserialize<'de> for Until {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(UntilVisitor)
    }
}

/// TOML hands its own times over as a map with one text.
struct UntilVisitor;

impl<'de> Visitor<'de> for UntilVisitor {
    type Value = Until;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a date or time as 2026-12-01 or 2026-12-01T12:00:00Z")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Until, E> {
        Until::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Until, A::Error> {
        let entry: Option<(String, String)> = map.next_entry()?;
        let (_, text) = entry.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        self.visit_str(&text)
    }
}
