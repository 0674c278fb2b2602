//! Which label of a name tells who chose it.
//!
//! `a7f3.cdn.example.co.uk` belongs to whoever registered `example`: labels below it are
//! made by that owner's machines and say nothing (CDN hashes, counters, cache busters).
//! Below a dynamic-DNS provider's domain strangers choose the next label, so there it is
//! that one. Below a hosting or CDN suffix of the public suffix list's private part
//! (`d111111abcdef8.cloudfront.net`) machines choose it, so it is the provider's own.
//!
//! In: a name. Out: a label, a part of it. Nothing allocated.

use crate::name::Name;
use crate::suffix::{Kind, suffix};

/// Domains of two labels below which anybody gets a name for free: the well-known
/// providers, sorted.
const DYNAMIC_DNS: &[&str] = &[
    "3utilities.com",
    "bounceme.net",
    "chickenkiller.com",
    "cloudns.cc",
    "cloudns.cl",
    "cloudns.nz",
    "crabdance.com",
    "ddns.net",
    "ddnsking.com",
    "ddnss.de",
    "dnsalias.com",
    "dnsdynamic.org",
    "dnsup.net",
    "duckdns.org",
    "dynalias.com",
    "dyndns.biz",
    "dyndns.info",
    "dyndns.org",
    "dyndns.tv",
    "dynserv.com",
    "dynu.net",
    "dynv6.net",
    "fishdns.com",
    "freedynamicdns.net",
    "freedynamicdns.org",
    "giize.com",
    "gleeze.com",
    "gotdns.ch",
    "homeip.net",
    "homelinux.com",
    "hopto.me",
    "hopto.org",
    "ignorelist.com",
    "jumpingcrab.com",
    "kozow.com",
    "linkpc.net",
    "loseyourip.com",
    "mooo.com",
    "my.to",
    "myddns.me",
    "myftp.biz",
    "myftp.org",
    "mypets.ws",
    "myvnc.com",
    "no-ip.biz",
    "no-ip.info",
    "no-ip.org",
    "ooguy.com",
    "redirectme.net",
    "run.place",
    "servebeer.com",
    "serveblog.net",
    "serveftp.com",
    "servegame.com",
    "servehttp.com",
    "servequake.com",
    "strangled.net",
    "sytes.net",
    "theworkpc.com",
    "twilightparadox.com",
    "uk.to",
    "us.to",
    "webhop.me",
    "yi.org",
    "zapto.org",
];

/// Private suffixes that are sold like a registry's: strangers choose the label before.
/// Sorted.
const SOLD: &[&str] = &[
    "br.com", "cn.com", "co.com", "com.de", "com.se", "de.com", "eu.com", "eu.org", "gb.net",
    "gr.com", "hu.net", "in.net", "jp.net", "jpn.com", "mex.com", "ru.com", "sa.com", "se.net",
    "uk.com", "uk.net", "us.com", "us.org", "za.bz", "za.com",
];

/// Top-level domains that never leave the house (RFC 6761, RFC 6762, RFC 8375, RFC 9476,
/// ICANN's reservation of `internal`, and habit). Browsers look up random names there.
const LOCAL: &[&str] = &[
    "alt",
    "arpa",
    "belkin",
    "consul",
    "corp",
    "dhcp",
    "docker",
    "domain",
    "gateway",
    "home",
    "internal",
    "intranet",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "localnet",
    "novalocal",
    "onion",
    "openstacklocal",
    "priv",
    "private",
    "router",
    "workgroup",
];

/// The label that was chosen by a person or a generator, and the domain it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen<'a> {
    pub(super) label: &'a str,
    /// The label and all behind it: `example.co.uk`.
    pub(super) domain: &'a str,
    /// What stands before the domain.
    pub(super) front: Front,
}

/// What stands before the domain. Generators ask for the bare domain; below a domain that
/// is in use there are hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// Nothing.
    Bare,
    /// `www`.
    Www,
    /// Another label.
    One,
    /// Two labels.
    Two,
    /// More.
    More,
}

impl Front {
    fn of(front: &str) -> Self {
        match front.bytes().filter(|byte| *byte == b'.').count() {
            0 => Self::Bare,
            1 if front == "www." => Self::Www,
            1 => Self::One,
            2 => Self::Two,
            _ => Self::More,
        }
    }
}

/// `None` where nobody chose a label: single labels, public suffixes, local names.
pub(super) fn chosen(name: &Name) -> Option<Chosen<'_>> {
    let text = name.as_str();
    let top = text.rsplit('.').next()?;
    if LOCAL.contains(&top) {
        return None;
    }
    let last_two = below(text, top)?;
    let is_in = |list: &[&str]| list.binary_search(&last_two).is_ok();
    let domain =
        if is_in(DYNAMIC_DNS) || is_in(SOLD) { below(text, last_two)? } else { registered(text)? };
    let front = Front::of(text.strip_suffix(domain)?);
    Some(Chosen { label: domain.split('.').next()?, domain, front })
}

/// The domain under the part of the public suffix list that registries run.
fn registered(text: &str) -> Option<&str> {
    let mut found = suffix(text)?;
    // A private suffix lies below a registry's: go up until that is reached.
    while found.kind == Some(Kind::Private) {
        found = suffix(found.text.split_once('.')?.1)?;
    }
    below(text, found.text)
}

/// `suffix` with one more label of `text` in front.
fn below<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let front = text.strip_suffix(suffix)?.strip_suffix('.')?;
    let start = front.rfind('.').map_or(0, |dot| dot + 1);
    text.get(start..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, &str)>) {
        let name: Name = text.parse().unwrap();
        assert_eq!(chosen(&name).map(|c| (c.label, c.domain)), expected, "{text}");
    }

    #[test]
    fn the_label_somebody_chose() {
        check("example.com", Some(("example", "example.com")));
        check("www.example.co.uk", Some(("example", "example.co.uk")));
        check("a7f3.x.cdn.example.com", Some(("example", "example.com")));
        // Machines choose names below a CDN or a host.
        check("d111111abcdef8.cloudfront.net", Some(("cloudfront", "cloudfront.net")));
        check("x7.s3.eu-west-1.amazonaws.com", Some(("amazonaws", "amazonaws.com")));
        check("someone.github.io", Some(("github", "github.io")));
        // Strangers choose names below a dynamic-DNS provider.
        check("qwxz7.ddns.net", Some(("qwxz7", "qwxz7.ddns.net")));
        check("a.qwxz7.mooo.com", Some(("qwxz7", "qwxz7.mooo.com")));
        check("mooo.com", None);
        // And below a suffix that is sold.
        check("www.qwxz7.uk.com", Some(("qwxz7", "qwxz7.uk.com")));
        // A top-level domain that is on no list.
        check("qwxz7.bazar", Some(("qwxz7", "qwxz7.bazar")));
    }

    #[test]
    fn what_stands_before_the_domain() {
        let front = |text: &str| chosen(&text.parse().unwrap()).unwrap().front;
        assert_eq!(front("example.co.uk"), Front::Bare);
        assert_eq!(front("www.example.com"), Front::Www);
        assert_eq!(front("mail.example.com"), Front::One);
        assert_eq!(front("a.b.example.com"), Front::Two);
        assert_eq!(front("a.b.c.example.com"), Front::More);
        assert_eq!(front("qwxz7.ddns.net"), Front::Bare);
    }

    #[test]
    fn nobody_chose_these() {
        check("localhost", None);
        check("com", None);
        check("co.uk", None);
        check(".", None);
        check("qkzjxwvtr.lan", None);
        check("1.2.0.192.in-addr.arpa", None);
        check("x.home.arpa", None);
        check("host-7f3a9c2e41b8.openstacklocal", None);
    }

    proptest::proptest! {
        /// Names are bytes: whatever they hold, the label is a part of the name.
        #[test]
        fn any_name(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..260)) {
            let Ok(name) = Name::parse(&bytes) else { return Ok(()) };
            if let Some(Chosen { label, domain, .. }) = chosen(&name) {
                assert!(!label.is_empty() && domain.starts_with(label));
                assert!(name.is_at_or_below(domain));
            }
            let score = super::super::score(&name);
            assert!((0.0..=1.0).contains(&score.value), "{}", score.value);
            assert!(score.look().words().is_ascii());
        }

        /// Letter case (0x20, draft-vixie-dnsext-dns0x20) changes nothing.
        #[test]
        fn any_case(text in "[a-zA-Z0-9-]{1,20}(\\.[a-zA-Z0-9]{2,12}){1,5}") {
            let value = |text: &str| super::super::score(&text.parse().unwrap()).value;
            assert_eq!(value(&text), value(&text.to_lowercase()));
        }
    }

    #[test]
    fn the_longest_and_the_shortest() {
        let longest = format!("{0}.{0}.{0}.{1}", "q".repeat(63), "q".repeat(61));
        for text in [&longest, ".", "a", "\\000.com", "a\\.b.com", "com", "..", ""] {
            let Ok(name) = Name::parse(text.as_bytes()) else { continue };
            let value = super::super::score(&name).value;
            assert!((0.0..=1.0).contains(&value), "{text}");
        }
        assert_eq!(longest.len(), 253);
    }

    #[test]
    fn lists_are_in_order() {
        assert!(DYNAMIC_DNS.is_sorted() && SOLD.is_sorted(), "binary search wants order");
        assert!(DYNAMIC_DNS.iter().chain(SOLD).all(|d| d.split('.').count() == 2));
    }
}
