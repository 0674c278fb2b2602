//! The smallest grants that would have allowed what was seen, for a person to accept.
//!
//! In: destinations of one subject. Out: patterns, each with how often and on how many days
//! it was used. A name stands for itself; [`MANY`] or more names below one registered domain
//! with the same port become `*.domain`, but never on a platform where anybody can have a
//! name. Addresses without a name stay addresses, one by one. Pure.

use std::collections::{BTreeMap, BTreeSet};

use agentmon_core::Timestamp;
use agentmon_core::name::Name;
use agentmon_core::service::proto_name;
use agentmon_core::suffix::{self, Kind};

/// So many names below one domain are taken together.
const MANY: usize = 3;

/// Where anybody can have a name, beyond what the Public Suffix List calls private.
const SHARED: [&str; 22] = [
    "akamaiedge.net",
    "akamaihd.net",
    "akamaized.net",
    "amazonaws.com",
    "appspot.com",
    "azureedge.net",
    "azurefd.net",
    "azurewebsites.net",
    "cloudfront.net",
    "fastly.net",
    "fastlylb.net",
    "github.io",
    "githubusercontent.com",
    "googleapis.com",
    "googleusercontent.com",
    "herokuapp.com",
    "netlify.app",
    "ngrok.io",
    "pages.dev",
    "trycloudflare.com",
    "windows.net",
    "workers.dev",
];

/// A pattern that is proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) pattern: String,
    pub(crate) connections: u64,
    pub(crate) days: usize,
    /// Names that it stands for, where it is more than one.
    pub(crate) names: usize,
}

/// Names below one domain, with their use.
type Names<'a> = Vec<(&'a Name, &'a Used)>;

#[derive(Default)]
struct Used {
    connections: u64,
    days: BTreeSet<i64>,
}

/// What was seen of a subject.
#[derive(Default)]
pub(crate) struct Seen {
    names: BTreeMap<(u16, u8, Name), Used>,
    addresses: BTreeMap<(u16, u8, std::net::IpAddr), Used>,
}

impl Seen {
    /// One connection.
    pub(crate) fn add(
        &mut self,
        time: Timestamp,
        name: Option<&Name>,
        ip: std::net::IpAddr,
        port: u16,
        proto: u8,
    ) {
        let used = match name {
            Some(name) => self.names.entry((port, proto, name.clone())).or_default(),
            None => self.addresses.entry((port, proto, ip)).or_default(),
        };
        used.connections += 1;
        used.days.insert(time.secs().div_euclid(86_400));
    }

    /// What would have allowed it all.
    pub(crate) fn proposals(&self) -> Vec<Proposal> {
        let mut groups: BTreeMap<(u16, u8, &str), Names<'_>> = BTreeMap::new();
        for ((port, proto, name), used) in &self.names {
            groups.entry((*port, *proto, name.domain())).or_default().push((name, used));
        }
        let mut out = Vec::new();
        for ((port, proto, domain), members) in groups {
            let below = members.iter().filter(|(name, _)| name.as_str() != domain).count();
            let together = below >= MANY && may_be_joined(domain);
            for (name, used) in members.iter().filter(|(n, _)| !together || n.as_str() == domain) {
                out.push(proposal(name.as_str(), port, proto, &[used]));
            }
            if together {
                let all: Vec<&Used> =
                    members.iter().filter(|(n, _)| n.as_str() != domain).map(|(_, u)| *u).collect();
                out.push(proposal(&format!("*.{domain}"), port, proto, &all));
            }
        }
        for ((port, proto, ip), used) in &self.addresses {
            let place = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            out.push(proposal(&place, *port, *proto, &[used]));
        }
        out
    }
}

fn proposal(place: &str, port: u16, proto: u8, used: &[&Used]) -> Proposal {
    let word = if proto == 6 { String::new() } else { format!("/{}", proto_name(proto)) };
    Proposal {
        pattern: format!("{place}:{port}{word}"),
        connections: used.iter().map(|u| u.connections).sum(),
        days: used.iter().flat_map(|u| &u.days).collect::<BTreeSet<_>>().len(),
        names: used.len(),
    }
}

/// Whether all below a domain is likely one owner's.
fn may_be_joined(domain: &str) -> bool {
    let shared = |text: &str| SHARED.iter().any(|s| text == *s || text.ends_with(&format!(".{s}")));
    let registered = suffix::suffix(domain).is_some_and(|s| s.kind == Some(Kind::Registry));
    registered && suffix::domain(domain).is_some() && !shared(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seen: &[&str], expected: &[&str]) {
        let mut all = Seen::default();
        for (n, text) in seen.iter().enumerate() {
            let (place, port) = text.rsplit_once(':').unwrap();
            let name =
                place.parse::<std::net::IpAddr>().is_err().then(|| place.parse::<Name>().unwrap());
            let ip = place.parse().unwrap_or_else(|_| "203.0.113.5".parse().unwrap());
            let time = Timestamp::from_secs(i64::try_from(n).unwrap() * 86_400);
            all.add(time, name.as_ref(), ip, port.parse().unwrap(), 6);
        }
        let got: Vec<String> = all
            .proposals()
            .into_iter()
            .map(|p| format!("{} {} {}", p.pattern, p.connections, p.days))
            .collect();
        assert_eq!(got, expected);
        for p in all.proposals() {
            p.pattern.parse::<agentmon_core::authority::Pattern>().unwrap();
        }
    }

    #[test]
    fn the_smallest_grants() {
        check(&["api.example.com:443", "api.example.com:443"], &["api.example.com:443 2 2"]);
        check(
            &["a.example.com:443", "b.example.com:443", "c.example.com:443", "example.com:443"],
            &["example.com:443 1 1", "*.example.com:443 3 3"],
        );
        // Other ports are other grants, and two names are two names.
        check(
            &["a.example.com:443", "b.example.com:443", "c.example.com:80"],
            &["c.example.com:80 1 1", "a.example.com:443 1 1", "b.example.com:443 1 1"],
        );
        check(&["203.0.113.9:22"], &["203.0.113.9:22 1 1"]);
    }

    #[test]
    fn never_a_star_where_anybody_can_have_a_name() {
        for platform in [
            "github.io",
            "s3.amazonaws.com",
            "x.cloudfront.net",
            "workers.dev",
            "storage.googleapis.com",
            "blob.core.windows.net",
        ] {
            let seen: Vec<String> = (0..5).map(|n| format!("n{n}.{platform}:443")).collect();
            let mut all = Seen::default();
            for text in &seen {
                let name: Name = text.trim_end_matches(":443").parse().unwrap();
                all.add(Timestamp::EPOCH, Some(&name), "203.0.113.5".parse().unwrap(), 443, 6);
            }
            assert!(
                all.proposals().iter().all(|p| !p.pattern.starts_with('*')),
                "{platform}: {:?}",
                all.proposals()
            );
        }
    }
}
