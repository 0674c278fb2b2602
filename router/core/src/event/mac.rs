//! Link-layer addresses: as text and in NDJSON, and what they say of where they come from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A link-layer address (IEEE 802 EUI-48).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// What an address says of where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MacKind {
    /// Given by a maker, from a block of the IEEE's registry.
    Registered,
    /// Of a virtual machine, a container or a bridge; the word says whose.
    Virtual(&'static str),
    /// Made up by the device itself: phones and laptops do so for each network.
    Random,
}

impl MacKind {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Virtual(_) => "virtual",
            Self::Random => "random",
        }
    }
}

/// Beginnings of locally administered addresses that software gives out. Docker did so up to
/// version 27 (later ones make theirs up altogether), libvirt and QEMU, VirtualBox's host-only
/// networks, the Container Network Interface, Microsoft's loopback and load balancing.
const VIRTUAL: [(&[u8], &str); 9] = [
    (&[0x02, 0x42], "Docker"),
    (&[0x52, 0x54, 0x00], "QEMU or KVM"),
    (&[0x52, 0x55, 0x0a], "QEMU user network"),
    (&[0xfe, 0x54, 0x00], "libvirt bridge"),
    (&[0x0a, 0x00, 0x27], "VirtualBox"),
    (&[0x0a, 0x58], "container network"),
    (&[0x02, 0x00, 0x4c, 0x4f, 0x4f, 0x50], "Microsoft loopback"),
    (&[0x02, 0xbf], "Microsoft load balancing"),
    (&[0xaa, 0x00, 0x04, 0x00], "DECnet"),
];

/// Blocks with the local bit that were given to makers before the bit meant anything; all
/// others of the registry have it clear.
const REGISTERED_LOCAL: [[u8; 3]; 18] = [
    [0x02, 0x07, 0x01],
    [0x02, 0x1c, 0x7c],
    [0x02, 0x60, 0x86],
    [0x02, 0x60, 0x8c],
    [0x02, 0x70, 0x01],
    [0x02, 0x70, 0xb0],
    [0x02, 0x70, 0xb3],
    [0x02, 0x9d, 0x8e],
    [0x02, 0xaa, 0x3c],
    [0x02, 0xbb, 0x01],
    [0x02, 0xc0, 0x8c],
    [0x02, 0xcf, 0x1c],
    [0x02, 0xe6, 0xd3],
    [0xaa, 0x00, 0x00],
    [0xaa, 0x00, 0x01],
    [0xaa, 0x00, 0x02],
    [0xaa, 0x00, 0x03],
    [0xaa, 0x00, 0x04],
];

impl Mac {
    /// True for addresses with the IEEE 802 "locally administered" bit (RFC 9542 section
    /// 2.1.1): not from the registry, as a rule.
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 != 0
    }
    /// Where it comes from, as far as it tells: the local bit less what is known to set it
    /// for other reasons.
    #[must_use]
    pub fn kind(self) -> MacKind {
        if !self.is_local() {
            return MacKind::Registered;
        }
        let known = VIRTUAL.iter().find(|(prefix, _)| self.0.starts_with(prefix));
        match known {
            Some((_, whose)) => MacKind::Virtual(whose),
            None if REGISTERED_LOCAL.iter().any(|block| self.0.starts_with(block)) => {
                MacKind::Registered
            }
            None => MacKind::Random,
        }
    }
    /// Made up by the device itself; see [`MacKind::Random`].
    #[must_use]
    pub fn is_random(self) -> bool {
        self.kind() == MacKind::Random
    }
    /// Names one device: no group, not the all-zero address of an unfinished entry.
    #[must_use]
    pub fn is_device(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }
    /// True for broadcast and multicast, which name no device.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}
/// Lower case with colons: `00:00:5e:00:53:01`.
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
/// The text is no MAC address of six hexadecimal octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address (want six hexadecimal octets, as 00:00:5e:00:53:01)")]
pub struct MacError;

impl std::str::FromStr for Mac {
    type Err = MacError;
    fn from_str(s: &str) -> Result<Self, MacError> {
        let mut octets = [0u8; 6];
        let mut parts = s.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or(MacError)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        if parts.next().is_some() { Err(MacError) } else { Ok(Self(octets)) }
    }
}
impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mac: &str, expected: MacKind) {
        assert_eq!(mac.parse::<Mac>().unwrap().kind(), expected, "{mac}");
    }

    #[test]
    fn kinds() {
        check("00:00:5e:00:53:01", MacKind::Registered);
        check("da:a1:19:00:53:01", MacKind::Random);
        check("02:00:00:00:00:00", MacKind::Random);
        check("3e:5c:91:00:00:01", MacKind::Random);
        check("02:42:ac:11:00:02", MacKind::Virtual("Docker"));
        check("52:54:00:12:34:56", MacKind::Virtual("QEMU or KVM"));
        check("aa:00:04:00:0a:04", MacKind::Virtual("DECnet"));
        check("02:60:8c:00:00:01", MacKind::Registered);
        assert!(!Mac([0; 6]).is_device() && !Mac([0xff; 6]).is_device());
    }

    #[test]
    fn mac_text_round_trips() {
        let mac: Mac = "00-00-5E-00-53-0a".parse().unwrap();
        assert_eq!(mac.to_string(), "00:00:5e:00:53:0a");
        assert!("00:00:5e:00:53".parse::<Mac>().is_err());
        assert!("00:00:5e:00:53:0a:0b".parse::<Mac>().is_err());
        assert!("00:00:5e:00:53:+a".parse::<Mac>().is_err());
    }
}
