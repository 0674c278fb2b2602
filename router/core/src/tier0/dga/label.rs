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

/// Top-level domains that never leave the house (RFC 6761, RFC 6762, RFC 8375, RFC 9476,
/// ICANN's reservation of `internal`, and habit). Browsers look up random names there.
const LOCAL: &[&str] = &[
    "arpa",
    "alt",
    "corp",
    "home",
    "internal",
    "intranet",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
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
    let domain = match DYNAMIC_DNS.binary_search(&last_two) {
        Ok(_) => below(text, last_two)?,
        Err(_) => registered(text)?,
    };
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
    }

    #[test]
    fn lists_are_in_order() {
        assert!(DYNAMIC_DNS.is_sorted(), "binary search wants order");
        assert!(DYNAMIC_DNS.iter().all(|d| d.split('.').count() == 2));
    }
}
