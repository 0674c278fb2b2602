//! A device that showed itself, or was given a name: a lease, a neighbour entry, a list.
//!
//! Names of devices come from the devices themselves, or from whoever answers for them: they
//! are hostile. [`host_name`] makes them safe to keep and to show, and throws away those
//! that name nothing.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Mac;
use crate::name::{cut, printable};

/// Longest name of a device kept, in bytes; longer ones are cut. DNS labels have at most 63.
pub const HOST_NAME_BYTES_MAX: usize = 63;

/// How a device was seen, or who gave it its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceSource {
    /// A DHCP lease.
    Lease,
    /// The kernel's neighbour table (ARP, NDP): no names.
    #[default]
    Neighbour,
    /// A person, in the configuration or at the hub.
    Static,
    /// The reverse look-up of its address (PTR).
    Ptr,
    /// Pi-hole's network table.
    Pihole,
}

impl DeviceSource {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Neighbour, Self::Lease, Self::Static, Self::Ptr, Self::Pihole];

    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Neighbour => "neighbour",
            Self::Static => "static",
            Self::Ptr => "ptr",
            Self::Pihole => "pihole",
        }
    }

    /// The source of a stored word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == word)
    }

    /// Whose name counts when several give one; larger is better. A person's word, then what
    /// the device said of itself, then what others say of it.
    #[must_use]
    pub const fn rank(self) -> u8 {
        match self {
            Self::Static => 4,
            Self::Lease => 3,
            Self::Pihole => 2,
            Self::Ptr => 1,
            Self::Neighbour => 0,
        }
    }
}

/// A device showed itself at an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its link-layer address.
    pub mac: Mac,
    /// The address it has now.
    pub ip: IpAddr,
    /// The name the source gives it, printable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Interface it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// Who says so.
    #[serde(default)]
    pub source: DeviceSource,
}

/// What devices are called that were given no name: by DHCP clients, by resolvers.
const NO_NAMES: [&str; 12] = [
    "*",
    "-",
    "?",
    "localhost",
    "localhost.localdomain",
    "localhost6",
    "ip6-localhost",
    "unknown",
    "(none)",
    "none",
    "null",
    "nohost",
];

/// A device's name as it is kept: printable ASCII, at most [`HOST_NAME_BYTES_MAX`] bytes,
/// without the dot at its end. `None` for what names no device: nothing, placeholders, and
/// texts that read as an address or a MAC and would be taken for one.
#[must_use]
pub fn host_name(text: &[u8]) -> Option<String> {
    let text = text.trim_ascii();
    let text = text.strip_suffix(b".").unwrap_or(text);
    let is_name = text.iter().any(u8::is_ascii_alphanumeric) || !text.is_ascii();
    let plain = std::str::from_utf8(text).unwrap_or_default();
    let is_other = plain.parse::<IpAddr>().is_ok() || plain.parse::<Mac>().is_ok();
    if !is_name || is_other || NO_NAMES.iter().any(|no| plain.eq_ignore_ascii_case(no)) {
        return None;
    }
    // What is printable already may hold the escapes of an earlier stop: kept as they are.
    let safe = text.iter().all(|b| (b' '..=b'~').contains(b));
    let name = if safe { plain.to_owned() } else { printable(text, HOST_NAME_BYTES_MAX) };
    Some(cut(name, HOST_NAME_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &[u8], expected: Option<&str>) {
        assert_eq!(host_name(text).as_deref(), expected, "{text:?}");
    }

    #[test]
    fn names_are_safe_and_name_something() {
        check(b"laptop", Some("laptop"));
        check(b" Anna's laptop ", Some("Anna's laptop"));
        check(b"printer.lan.", Some("printer.lan"));
        check(b"a\x1b[2Jb", Some("a\\x1b[2Jb"));
        check(b"a\\x1b[2Jb", Some("a\\x1b[2Jb"));
        check("k\u{fc}che".as_bytes(), Some("k\\xc3\\xbcche"));
        let cut = format!("{}...", "x".repeat(60));
        check("x".repeat(255).as_bytes(), Some(&cut));
        for none in ["", " ", ".", "*", "-", "...", "localhost", "LocalHost.", "unknown"] {
            check(none.as_bytes(), None);
        }
        for other in ["192.0.2.7", "2001:db8::7", "00:00:5e:00:53:01", "00-00-5E-00-53-01"] {
            check(other.as_bytes(), None);
        }
    }

    #[test]
    fn sources_are_found_by_their_word_and_ranked() {
        let mut ranks = DeviceSource::ALL.map(DeviceSource::rank);
        ranks.sort_unstable();
        assert_eq!(ranks, [0, 1, 2, 3, 4]);
        for source in DeviceSource::ALL {
            assert_eq!(DeviceSource::from_word(source.as_str()), Some(source));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_become_a_safe_name_that_stays(text in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            if let Some(name) = host_name(&text) {
                proptest::prop_assert!(name.len() <= HOST_NAME_BYTES_MAX && !name.is_empty());
                proptest::prop_assert!(name.bytes().all(|b| (b' '..=b'~').contains(&b)));
                let again = host_name(name.as_bytes());
                proptest::prop_assert!(again.is_none_or(|again| name.starts_with(again.trim_end_matches('.'))));
            }
        }
    }
}
