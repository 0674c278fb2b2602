//! What a finding is about, as something several detectors can agree on.
//!
//! In: a finding's subject, in its rule's own terms (`www.example.com`, `example.com`,
//! `203.0.113.9:443/tcp`, `burst`). Out: the registrable domain or the address both mean; a
//! subject that is neither stands for itself, below its own rule. Pure.

use std::net::{IpAddr, SocketAddr};

use agentmon_core::Name;

/// What several rules can say something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// A registrable domain.
    Domain(String),
    /// An address, whatever the port.
    Address(IpAddr),
    /// Something only its own rule speaks of.
    Own,
}

impl Topic {
    /// Of a finding's subject.
    pub(crate) fn of(subject: &str) -> Self {
        if let Some(ip) = address(subject) {
            return Self::Address(ip);
        }
        match name(subject) {
            Some(name) => Self::Domain(name.domain().to_owned()),
            None => Self::Own,
        }
    }

    /// As stored beside the alert; `None` for what is its rule's own.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Domain(domain) => Some(domain.clone()),
            Self::Address(ip) => Some(ip.to_string()),
            Self::Own => None,
        }
    }
}

/// The address of `192.0.2.1`, `192.0.2.1:23/tcp`, `192.0.2.1/icmp`, `[2001:db8::1]:23/tcp`.
pub(super) fn address(subject: &str) -> Option<IpAddr> {
    let place = subject.rsplit_once('/').map_or(subject, |(place, _)| place);
    let ip = place.parse::<IpAddr>().or_else(|_| place.parse::<SocketAddr>().map(|at| at.ip()));
    ip.ok().map(|ip| ip.to_canonical())
}

/// A subject that is a domain name: labels of letters, digits, `-` and `_`, two at least.
pub(super) fn name(subject: &str) -> Option<Name> {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain = subject.contains('.') && subject.chars().all(letters);
    let name = plain.then(|| Name::parse(subject.as_bytes()).ok())??;
    // `4.3` is a version, not a place.
    let top = name.labels().next_back()?;
    (!top.chars().all(|c| c.is_ascii_digit())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subject: &str, expected: Option<&str>) {
        assert_eq!(Topic::of(subject).text().as_deref(), expected, "{subject}");
    }

    #[test]
    fn a_subject_is_a_domain_an_address_or_its_own() {
        check("example.com", Some("example.com"));
        check("a.b.example.com", Some("example.com"));
        check("WWW.Example.COM", Some("example.com"));
        check("192.0.2.1", Some("192.0.2.1"));
        check("192.0.2.1:23/tcp", Some("192.0.2.1"));
        check("192.0.2.1/icmp", Some("192.0.2.1"));
        check("[2001:db8::1]:23/tcp", Some("2001:db8::1"));
        check("2001:db8::1/icmpv6", Some("2001:db8::1"));
        check("::ffff:192.0.2.1", Some("192.0.2.1"));
        check("23/tcp", None);
        check("burst", None);
        check("many ports of 192.0.2.1", None);
        check("00:00:5e:00:53:07", None);
        check("unknown names", None);
        check("1.2.3", None);
        check("", None);
        check("\u{1b}[2Jevil.example", None);
    }

    proptest::proptest! {
        #[test]
        fn any_subject_has_one_topic(subject in "\\PC{0,80}") {
            drop(Topic::of(&subject));
        }
        #[test]
        fn what_is_below_a_domain_is_about_it(label in "[a-z0-9]{1,12}") {
            proptest::prop_assert_eq!(Topic::of(&format!("{label}.x.example")), Topic::of("x.example"));
        }
    }
}
