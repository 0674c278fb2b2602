//! Who talks where: devices and places out of rows of the store.
//!
//! In: MAC, address, name and address of the other end as the store has them. Out: one key
//! for all addresses of a device, one for all addresses and names of a service. Pure but for
//! [`Ground::read`].

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use agentmon_core::Name;
use agentmon_core::event::Mac;
use agentmon_core::finding::Finding;
use duckdb::Connection;
use ipnet::IpNet;

use crate::destinations::{Class, Destination, Destinations};
use crate::store::StoreError;

/// Connections with the MAC of whoever made them, up to `$2` and after `$1`: as the router
/// said it, else of whoever had the address then.
pub(crate) const TALKS: &str = "talks AS (
    SELECT f.* EXCLUDE (mac), coalesce(f.mac, o.device) AS mac
    FROM flows f LEFT JOIN address_owners o ON f.mac IS NULL AND o.address = f.src
        AND f.time >= o.owned_since AND f.time < o.owned_until
    WHERE f.time > make_timestamp($1) AND f.time <= make_timestamp($2))";

/// Most addresses of this network read.
const OWN_MAX: usize = 100_000;

/// A device: its MAC, or an address nobody is known at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    Mac(Mac),
    Address(IpAddr),
}

impl Who {
    pub(crate) fn new(mac: Option<&str>, src: &str) -> Option<Self> {
        let mac = mac.and_then(|mac| mac.parse().ok()).map(Self::Mac);
        mac.or_else(|| src.parse().ok().map(Self::Address))
    }

    /// As the store has it.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Mac(mac) => mac.to_string(),
            Self::Address(ip) => ip.to_string(),
        }
    }
}

/// Where to: a registrable domain, or an address without a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    Domain(String),
    Address(IpAddr),
}

impl Place {
    pub(crate) fn new(name: Option<&str>, dst: IpAddr) -> Self {
        let name = name.and_then(|name| Name::parse(name.as_bytes()).ok());
        name.map_or(Self::Address(dst), |name| Self::Domain(name.domain().to_owned()))
    }

    /// As a finding's subject.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Domain(domain) => domain.clone(),
            Self::Address(ip) => ip.to_string(),
        }
    }

    pub(crate) const fn has_name(&self) -> bool {
        matches!(self, Self::Domain(_))
    }
}

/// What is own, what is allowed, and what kind of network the rest is in.
#[derive(Debug)]
pub(crate) struct Ground {
    own: HashSet<IpAddr>,
    allowed: Allowed,
    destinations: Arc<Destinations>,
}

impl Ground {
    /// Of a store; the kinds of networks of its folder.
    pub(crate) fn read(
        db: &Connection,
        allowed: &Allowed,
        destinations: Arc<Destinations>,
    ) -> Result<Self, StoreError> {
        let mut own = HashSet::new();
        let sql = format!("SELECT DISTINCT ip FROM device_addresses LIMIT {OWN_MAX}");
        let mut statement = db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            own.extend(row.get::<_, String>(0)?.parse::<IpAddr>());
        }
        Ok(Self { own, allowed: allowed.clone(), destinations })
    }

    /// Of what somebody else has read; nothing is allowed.
    pub(crate) fn new(own: HashSet<IpAddr>, destinations: Arc<Destinations>) -> Self {
        Self { own, allowed: Allowed::default(), destinations }
    }

    /// A device of this network.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address) || self.of(address).class == Class::Local
    }

    pub(crate) fn of(&self, address: IpAddr) -> Destination<'_> {
        self.destinations.of(address)
    }

    /// Of a connection that leaves this network to a place these rules may speak of: where to.
    pub(crate) fn leaves(
        &self,
        src: &str,
        name: Option<&str>,
        dst: &str,
    ) -> Option<(Place, IpAddr)> {
        let (src, dst) = (src.parse().ok()?, dst.parse().ok()?);
        if !self.is_own(src) || self.is_own(dst) || self.allowed.address(dst) {
            return None;
        }
        let place = Place::new(name, dst);
        (!self.allowed.place(&place)).then_some((place, dst))
    }
}

/// Places no rule tells of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Allowed {
    domains: Vec<String>,
    networks: Vec<IpNet>,
}

impl Allowed {
    /// Of the configuration's words.
    ///
    /// # Errors
    /// The word that is neither.
    pub(crate) fn new(words: &[String]) -> Result<Self, String> {
        let mut this = Self::default();
        for word in words {
            if let Ok(net) = word.parse::<IpNet>() {
                this.networks.push(net);
            } else if let Ok(address) = word.parse::<IpAddr>() {
                this.networks.push(address.into());
            } else {
                let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || b > 127;
                let name = Name::parse(word.as_bytes()).ok().filter(|_| word.bytes().all(fine));
                let name = name.filter(|name| !name.as_str().is_empty());
                let wrong = || format!("`{word}` is no domain, address or network");
                this.domains.push(name.ok_or_else(wrong)?.as_str().to_owned());
            }
        }
        Ok(this)
    }

    fn address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(&address))
    }

    fn place(&self, place: &Place) -> bool {
        match place {
            Place::Domain(domain) => {
                let below = |parent: &String| {
                    domain == parent
                        || domain.strip_suffix(parent.as_str()).is_some_and(|d| d.ends_with('.'))
                };
                self.domains.iter().any(below)
            }
            Place::Address(address) => self.address(*address),
        }
    }
}

/// The data directory a connection reads of.
pub(crate) fn data_dir(db: &Connection) -> Option<&Path> {
    db.path().and_then(Path::parent)
}

/// A finding about a device, as yet without words.
pub(crate) fn finding(
    rule: &str,
    who: Who,
    client: IpAddr,
    subject: String,
    score: f64,
) -> Finding {
    let mac = match who {
        Who::Mac(mac) => Some(mac),
        Who::Address(_) => None,
    };
    let (rule, why, evidence) = (rule.to_owned(), String::new(), Vec::new());
    Finding { rule, subject, client: Some(client), mac, score, why, evidence }
}

/// What a person is told of the other end's network, as evidence.
pub(crate) fn with_network(finding: Finding, of: &Destination<'_>) -> Finding {
    let finding = finding.with("class", of.class.as_str());
    let finding = match of.provider {
        Some(provider) => finding.with("provider", provider),
        None => finding,
    };
    match of.country {
        Some(country) => finding.with("country", country),
        None => finding,
    }
}

/// Bytes for a sentence.
pub(crate) fn bytes(n: u64) -> String {
    crate::cli::units::bytes(n)
}

/// Seconds for a sentence.
pub(crate) fn seconds(s: u64) -> String {
    crate::cli::units::duration(std::time::Duration::from_secs(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let dst: IpAddr = "203.0.113.7".parse().unwrap();
        assert_eq!(Place::new(Some("a.b.example.co.uk"), dst).text(), "example.co.uk");
        assert_eq!(Place::new(None, dst).text(), "203.0.113.7");
    }

    #[test]
    fn who_is_the_mac_where_one_is_known() {
        let mac = Who::new(Some("00:00:5e:00:53:01"), "192.168.1.2").unwrap();
        assert_eq!(mac, Who::new(Some("00:00:5e:00:53:01"), "fd00::2").unwrap());
        assert_eq!(Who::new(None, "fd00::2").unwrap().text(), "fd00::2");
        assert_eq!(Who::new(None, "nonsense"), None);
    }

    #[test]
    fn what_is_allowed_is_left_alone() {
        let words = ["example.net", "198.51.100.0/24", "2001:db8::1"].map(str::to_owned);
        let allowed = Allowed::new(&words).unwrap();
        let place = |name: &str| Place::Domain(name.to_owned());
        assert!(allowed.place(&place("example.net")) && allowed.place(&place("a.example.net")));
        assert!(!allowed.place(&place("anexample.net")));
        assert!(allowed.address("198.51.100.9".parse().unwrap()));
        assert!(!allowed.address("2001:db8::2".parse().unwrap()));
        assert!(Allowed::new(&["a b".into()]).unwrap_err().contains("no domain"));
    }
}
