//! Who resolved what to which address: the join between DNS answers and flows.
//!
//! In: DNS events and time. Out: "client C had address A from name N, T before".
//! Runs inside tier-0 on the pipeline thread and inside the hub's writer.
//! Budget: at most [`NamesConfig::entries_max`] entries, about 120 bytes each.
//!
//! Invariants: memory is bounded, eviction (oldest first) is counted; an answer never
//! explains a connection that happened before it.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{Dns, Resolved};
use crate::name::Name;
use crate::time::Timestamp;

/// Limits of the address -> name memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamesConfig {
    /// Most (client, address) pairs remembered.
    pub entries_max: usize,
    /// How long an answer explains connections to its address, in seconds. Far longer than
    /// most TTLs, because clients keep addresses (browsers, connection pools, phones asleep).
    pub keep_seconds: u64,
}

impl Default for NamesConfig {
    fn default() -> Self {
        // 16,384: 75 devices with 200 live addresses each; about 2 MB.
        Self { entries_max: 16_384, keep_seconds: 86_400 }
    }
}

/// Bounded memory of DNS answers by (client, address).
#[derive(Debug)]
pub struct Names {
    config: NamesConfig,
    map: HashMap<(IpAddr, IpAddr), Entry>,
    /// Insertion order with the stamp it was queued under; stale stamps are skipped.
    order: VecDeque<((IpAddr, IpAddr), Timestamp)>,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    time: Timestamp,
    /// The answer before this one, for flows that lie between the two.
    before: Option<(Name, Timestamp)>,
}

impl Names {
    /// Empty.
    #[must_use]
    pub fn new(config: NamesConfig) -> Self {
        Self { config, map: HashMap::new(), order: VecDeque::new(), evicted: 0 }
    }

    /// New limits; what is remembered stays as far as they allow.
    pub fn reconfigure(&mut self, config: NamesConfig) {
        self.config = config;
    }

    /// Remembers the address answers of one exchange.
    pub fn learn(&mut self, time: Timestamp, dns: &Dns) {
        for address in dns.addresses() {
            self.insert(dns.client, address, &dns.name, time);
        }
    }

    fn insert(&mut self, client: IpAddr, address: IpAddr, name: &Name, time: Timestamp) {
        let key = (client, address);
        match self.map.get_mut(&key) {
            Some(entry) if entry.time > time => {
                // A late, older answer only fills the place before.
                if entry.before.as_ref().is_none_or(|(_, t)| *t < time) && entry.name != *name {
                    entry.before = Some((name.clone(), time));
                }
                return;
            }
            Some(entry) if entry.name == *name && entry.time == time => return,
            Some(entry) if entry.name == *name => entry.time = time,
            Some(entry) => {
                let old = std::mem::replace(&mut entry.name, name.clone());
                entry.before = Some((old, entry.time));
                entry.time = time;
            }
            None => {
                self.map.insert(key, Entry { name: name.clone(), time, before: None });
            }
        }
        self.order.push_back((key, time));
        self.trim(time);
    }

    /// Drops the oldest until both limits hold. A queue entry whose stamp is not the
    /// map's is an old one of a pair that was refreshed since.
    fn trim(&mut self, now: Timestamp) {
        let keep = Duration::from_secs(self.config.keep_seconds);
        while let Some(&(key, stamp)) = self.order.front() {
            let live = self.map.get(&key).is_some_and(|e| e.time == stamp);
            let full = self.map.len() > self.config.entries_max;
            let old = now.since(stamp) > keep;
            if live && !full && !old {
                break;
            }
            self.order.pop_front();
            if live {
                self.map.remove(&key);
                self.evicted += u64::from(!old);
            }
        }
        // Refreshed pairs leave stale entries behind: swept when they are the majority.
        if self.order.len() > self.config.entries_max.saturating_mul(4) {
            self.order.retain(|(key, stamp)| self.map.get(key).is_some_and(|e| e.time == *stamp));
        }
    }

    /// The name by which `client` had resolved `address` at `time`, if it had.
    #[must_use]
    pub fn resolve(&self, client: IpAddr, address: IpAddr, time: Timestamp) -> Option<Resolved> {
        let entry = self.map.get(&(client, address))?;
        let (name, at) = if entry.time <= time {
            (&entry.name, entry.time)
        } else {
            let (name, at) = entry.before.as_ref()?;
            (*at <= time).then_some((name, *at))?
        };
        let age = time.since(at);
        (age <= Duration::from_secs(self.config.keep_seconds)).then(|| Resolved {
            name: name.clone(),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Pairs remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }
    /// Nothing remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
    /// Pairs forgotten because the memory was full, since the start.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Answer, DnsStatus};

    fn answer(client: &str, name: &str, ip: &str) -> Dns {
        Dns {
            client: client.parse().unwrap(),
            mac: None,
            name: name.parse().unwrap(),
            qtype: 1,
            status: DnsStatus::Forwarded,
            rcode: Some(0),
            answers: vec![Answer::Address(ip.parse().unwrap())],
            ttl: None,
            upstream: None,
            latency_us: None,
            blocked_by: None,
            source: "test".into(),
        }
    }
    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(1_795_000_000 + s)
    }
    #[track_caller]
    fn check(names: &Names, client: &str, ip: &str, time: i64, expected: Option<(&str, u64)>) {
        let got = names.resolve(client.parse().unwrap(), ip.parse().unwrap(), at(time));
        let got = got.as_ref().map(|r| (r.name.as_str(), r.age_ms));
        assert_eq!(got, expected);
    }

    #[test]
    fn only_the_client_that_asked_and_only_afterwards() {
        let mut names = Names::new(NamesConfig::default());
        names.learn(at(10), &answer("192.0.2.1", "a.example", "203.0.113.1"));
        check(&names, "192.0.2.1", "203.0.113.1", 12, Some(("a.example", 2000)));
        check(&names, "192.0.2.1", "203.0.113.1", 9, None);
        check(&names, "192.0.2.2", "203.0.113.1", 12, None);
        check(&names, "192.0.2.1", "203.0.113.1", 10 + 86_401, None);
    }

    #[test]
    fn a_shared_address_goes_by_the_latest_name_before_the_flow() {
        let mut names = Names::new(NamesConfig::default());
        names.learn(at(10), &answer("192.0.2.1", "a.example", "203.0.113.1"));
        names.learn(at(20), &answer("192.0.2.1", "b.example", "203.0.113.1"));
        check(&names, "192.0.2.1", "203.0.113.1", 25, Some(("b.example", 5000)));
        check(&names, "192.0.2.1", "203.0.113.1", 15, Some(("a.example", 5000)));
    }

    #[test]
    fn bounded_and_counted() {
        let mut names = Names::new(NamesConfig { entries_max: 10, keep_seconds: 3600 });
        for i in 0..100i64 {
            let ip = format!("203.0.113.{i}");
            for _ in 0..50 {
                names.learn(at(i), &answer("192.0.2.1", "a.example", &ip));
            }
        }
        assert!(names.len() <= 10);
        assert!(names.order.len() <= 41);
        assert_eq!(names.evicted(), 90);
        check(&names, "192.0.2.1", "203.0.113.99", 99, Some(("a.example", 0)));
    }
}
