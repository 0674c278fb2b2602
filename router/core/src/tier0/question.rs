//! What several detectors want to know of a DNS name: whose it is, and what kind of machine
//! makes such names.
//!
//! In: a DNS exchange. Out: [`Question`], made once for each. Pure; nothing allocated; about
//! 250 ns, most of it the public suffix.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use super::sketch::{mix, of_ip};
use crate::event::Dns;
use crate::names::device_key;
use crate::suffix;

/// Ends of names that nobody on the internet runs (RFC 6761, RFC 6762, RFC 8375, RFC 9476,
/// ICANN's list of names not to be delegated, and home routers' own): what is asked below
/// them goes nowhere.
const NOWHERE: [&str; 16] = [
    "alt",
    "arpa",
    "box",
    "corp",
    "domain",
    "home",
    "intranet",
    "internal",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "mail",
    "onion",
    "private",
    "workgroup",
];

/// A DNS question, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    /// The registrable domain, or the whole name where there is none.
    pub(super) domain: &'a str,
    /// What stands before it, without the last dot; may be empty.
    pub(super) sub: &'a str,
    pub(super) domain_hash: u64,
    pub(super) name_hash: u64,
    /// Who asks: the device where it is known, else the address.
    pub(super) device: IpAddr,
    pub(super) device_hash: u64,
}

impl<'a> Question<'a> {
    pub(super) fn of(dns: &'a Dns) -> Self {
        let name = dns.name.as_str();
        let domain = dns.name.domain();
        let sub = name.strip_suffix(domain).and_then(|sub| sub.strip_suffix('.'));
        let device = dns.mac.map_or(dns.client, device_key);
        Self {
            domain,
            sub: sub.unwrap_or_default(),
            domain_hash: xxh3_64(domain.as_bytes()),
            name_hash: xxh3_64(name.as_bytes()),
            device,
            device_hash: of_ip(device),
        }
    }

    /// For state by device and domain.
    pub(super) fn pair(&self) -> u64 {
        mix(self.domain_hash, self.device_hash)
    }

    /// Names of the house, reverse look-ups and single labels: nobody outside answers them.
    pub(super) fn leads_nowhere(&self) -> bool {
        let top = self.domain.rsplit('.').next().unwrap_or_default();
        !self.domain.contains('.') || top.is_empty() || NOWHERE.contains(&top)
    }

    /// A public name with a domain put behind it, by a resolver's search list:
    /// `www.example.com.house.example`.
    pub(super) fn is_glued(&self) -> bool {
        suffix::suffix(self.sub).is_some_and(|suffix| {
            suffix.kind == Some(suffix::Kind::Registry) && suffix.text.len() < self.sub.len()
        })
    }

    /// Labels of numbers up to 255 or of one hexadecimal digit each: an address backwards, as
    /// mail servers ask blocklists (RFC 5782). `least` so many of them.
    pub(super) fn has_address(&self) -> bool {
        let mut labels = self.sub.split('.').peekable();
        let octets = self.sub.split('.').take(4).filter(|l| is_octet(l)).count();
        let nibble = |l: &str| l.len() == 1 && l.bytes().all(|b| b.is_ascii_hexdigit());
        octets == 4 || labels.by_ref().take(32).filter(|l| nibble(l)).count() == 32
    }

    /// Names of services (RFC 6763): instance names are free text.
    pub(super) fn is_service(&self) -> bool {
        self.sub.split('.').any(|label| label == "_tcp" || label == "_udp" || label == "_dns-sd")
    }
}

fn is_octet(label: &str) -> bool {
    label.len() <= 3 && label.parse::<u8>().is_ok()
}

/// A label that is one fingerprint or one identifier, of the usual lengths: MD5, SHA-1 and
/// SHA-256 in hexadecimal or base 32, or a UUID.
pub(super) fn is_fingerprint(label: &str) -> bool {
    let hex = |l: &str| l.bytes().all(|b| b.is_ascii_hexdigit());
    let base32 = |l: &str| l.bytes().all(|b| b.is_ascii_alphanumeric());
    match label.len() {
        32 | 40 | 64 if hex(label) => true,
        26 | 32 | 52 => base32(label),
        36 => label.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && label.split('-').all(hex),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::dns;

    #[track_caller]
    fn check(name: &str, test: impl Fn(&Question<'_>) -> bool, expected: bool) {
        let dns = dns("192.168.1.5", name, &[]);
        assert_eq!(test(&Question::of(&dns)), expected, "{name}");
    }

    #[test]
    fn taken_apart() {
        let dns = dns("192.168.1.5", "a.b.example.co.uk", &[]);
        let question = Question::of(&dns);
        assert_eq!((question.sub, question.domain), ("a.b", "example.co.uk"));
    }

    #[test]
    fn names_that_nobody_outside_answers() {
        let test = |q: &Question<'_>| q.leads_nowhere();
        for name in ["printer", "tv.local", "nas.fritz.box", "1.0.0.127.in-addr.arpa", "."] {
            check(name, test, true);
        }
        check("www.example.com", test, false);
        check("local.example", test, false);
    }

    #[test]
    fn search_lists() {
        check("www.example.com.house.example", |q| q.is_glued(), true);
        check("example.co.uk.house.example", |q| q.is_glued(), true);
        check("com.house.example", |q| q.is_glued(), false);
        check("www.house.example", |q| q.is_glued(), false);
        check("house.example", |q| q.is_glued(), false);
    }

    #[test]
    fn addresses_backwards() {
        check("4.3.2.192.list.example", |q| q.has_address(), true);
        check("4.3.2.256.list.example", |q| q.has_address(), false);
        check("4.3.2.example", |q| q.has_address(), false);
        let nibbles = "1.0.".repeat(16);
        check(&format!("{nibbles}list.example"), |q| q.has_address(), true);
    }

    #[test]
    fn services() {
        check("tv._airplay._tcp.house.example", |q| q.is_service(), true);
        check("tcp.house.example", |q| q.is_service(), false);
    }

    #[test]
    fn fingerprints() {
        for label in [
            "d41d8cd98f00b204e9800998ecf8427e",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "4z9p5tjmcbnblehp4557z1d136",
            "123e4567-e89b-12d3-a456-426614174000",
        ] {
            assert!(is_fingerprint(label), "{label}");
        }
        for label in ["5d8b0165e61592b5e9957e0e1de2ba680f", "www", "paaaevdi", ""] {
            assert!(!is_fingerprint(label), "{label}");
        }
    }
}
