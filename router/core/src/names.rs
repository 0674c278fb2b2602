//! Who resolved what to which address: the join between DNS answers and flows.
//!
//! In: DNS events and time. Out: "client C had address A from name N, T before".
//! Runs inside tier-0 on the pipeline thread and inside the hub's writer.
//! Budget: at most [`NamesConfig::entries_max`] entries, about 150 bytes each, of at most
//! [`CLIENTS_MAX`] clients.
//!
//! Invariants: memory is bounded, eviction is counted; an answer never explains a
//! connection that happened before it; when memory is short, the client that holds most
//! loses its oldest, so that nobody's flood of look-ups makes others forgotten.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{Dns, Mac, Resolved};
use crate::name::Name;
use crate::tier0::{ConfigError, positive};
use crate::time::Timestamp;

/// Most clients; see `tier0::clients` for the reasoning.
pub const CLIENTS_MAX: usize = 1_024;

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
        // 16,384: 75 devices with 200 live addresses each; about 2.5 MB.
        Self { entries_max: 16_384, keep_seconds: 86_400 }
    }
}

impl NamesConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("entries_max", self.entries_max as u64)?;
        positive("keep_seconds", self.keep_seconds)
    }
}

/// A device's stand-in among addresses: its MAC in the discard-only prefix 100::/64 (RFC
/// 6666), which no real client has.
#[must_use]
pub fn device_key(mac: Mac) -> IpAddr {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, a << 8 | b, c << 8 | d, e << 8 | f))
}

/// Bounded memory of DNS answers by client and address.
#[derive(Debug)]
pub struct Names {
    config: NamesConfig,
    clients: HashMap<IpAddr, Client>,
    entries: usize,
    evicted: u64,
    /// Counts look-ups learned: the order of clients, independent of any clock.
    turn: u64,
}

#[derive(Debug, Default)]
struct Client {
    map: HashMap<IpAddr, Entry>,
    /// The addresses in `map`, each once, oldest first.
    order: VecDeque<IpAddr>,
    /// `Names::turn` of its latest answer.
    heard: u64,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    time: Timestamp,
    /// The answer before this one, for flows that lie between the two.
    before: Option<(Name, Timestamp)>,
    /// Answered again since it was queued: gets a second round when its turn comes.
    again: bool,
}

impl Entry {
    fn update(&mut self, name: &Name, time: Timestamp) {
        self.again = true;
        if self.time > time {
            // A late, older answer only fills the place before.
            if self.name != *name && self.before.as_ref().is_none_or(|(_, t)| *t < time) {
                self.before = Some((name.clone(), time));
            }
        } else {
            if self.name != *name {
                let old = std::mem::replace(&mut self.name, name.clone());
                self.before = Some((old, self.time));
            }
            self.time = time;
        }
    }
}

impl Client {
    /// Forgets the address that was answered longest ago, more or less: those answered
    /// again since they were queued go to the end of the queue instead.
    fn evict(&mut self) -> bool {
        while let Some(address) = self.order.pop_front() {
            match self.map.get_mut(&address) {
                Some(entry) if entry.again => {
                    entry.again = false;
                    self.order.push_back(address);
                }
                _ => return self.map.remove(&address).is_some(),
            }
        }
        false
    }
}

impl Names {
    /// Empty.
    #[must_use]
    pub fn new(config: NamesConfig) -> Self {
        Self { config, clients: HashMap::new(), entries: 0, evicted: 0, turn: 0 }
    }

    /// New limits; what is remembered stays as far as they allow.
    pub fn reconfigure(&mut self, config: NamesConfig) {
        self.config = config;
        self.make_room(0);
    }

    /// Remembers the address answers of one exchange.
    pub fn learn(&mut self, time: Timestamp, dns: &Dns) {
        for address in dns.addresses() {
            self.insert(dns.client, address, &dns.name, time);
        }
    }

    /// As [`Self::learn`], but by device where its MAC is known: a device asks over one of
    /// its addresses and connects over another (IPv4 resolver, IPv6 connection).
    pub fn learn_device(&mut self, time: Timestamp, dns: &Dns) {
        let client = dns.mac.map_or(dns.client, device_key);
        for address in dns.addresses() {
            self.insert(client, address, &dns.name, time);
        }
    }

    fn insert(&mut self, client: IpAddr, address: IpAddr, name: &Name, time: Timestamp) {
        // A block list's answer: nothing is at that address.
        if address.is_unspecified() {
            return;
        }
        self.turn += 1;
        if let Some(client) = self.clients.get_mut(&client) {
            client.heard = self.turn;
            if let Some(entry) = client.map.get_mut(&address) {
                return entry.update(name, time);
            }
        }
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&client) {
            self.forget_quietest_client();
        }
        // Before and not after: the newest must not be the one that goes.
        self.make_room(1);
        let entry = Entry { name: name.clone(), time, before: None, again: false };
        let client = self.clients.entry(client).or_default();
        client.heard = self.turn;
        client.map.insert(address, entry);
        client.order.push_back(address);
        self.entries += 1;
    }

    /// Room for `more` entries.
    fn make_room(&mut self, more: usize) {
        while self.entries + more > self.config.entries_max {
            let largest = self.clients.iter_mut().max_by_key(|(ip, c)| (c.map.len(), **ip));
            let Some((_, client)) = largest else { return };
            if !client.evict() {
                return;
            }
            self.entries -= 1;
            self.evicted += 1;
        }
    }

    fn forget_quietest_client(&mut self) {
        let quietest = self.clients.iter().min_by_key(|(_, c)| c.heard).map(|(ip, _)| *ip);
        if let Some(client) = quietest.and_then(|ip| self.clients.remove(&ip)) {
            self.entries -= client.map.len();
            self.evicted += client.map.len() as u64;
        }
    }

    /// The name by which `client` had resolved `address` at `time`, if it had.
    #[must_use]
    pub fn resolve(&self, client: IpAddr, address: IpAddr, time: Timestamp) -> Option<Resolved> {
        let entry = self.clients.get(&client)?.map.get(&address)?;
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

    /// As [`Self::resolve`], for a memory filled by [`Self::learn_device`]: the latest of
    /// what the device and what its address was told.
    #[must_use]
    pub fn resolve_device(
        &self,
        client: IpAddr,
        mac: Option<Mac>,
        address: IpAddr,
        time: Timestamp,
    ) -> Option<Resolved> {
        let by_device = mac.and_then(|mac| self.resolve(device_key(mac), address, time));
        let by_address = self.resolve(client, address, time);
        by_device.into_iter().chain(by_address).min_by_key(|resolved| resolved.age_ms)
    }

    /// Whether an answer remembered explains a connection of this device to `address`,
    /// whenever it came: holds across a clock that was set in between.
    ///
    /// A device that was never seen asking has a resolver behind the place where we look
    /// (a Pi-hole in the same network, whose own questions pass by): for it, an answer to
    /// anybody will do.
    #[must_use]
    pub fn explains(&self, client: IpAddr, mac: Option<Mac>, address: IpAddr) -> bool {
        let keys = [Some(client), mac.map(device_key)];
        let mut own = keys.iter().flatten().filter_map(|key| self.clients.get(key)).peekable();
        if own.peek().is_some() {
            return own.any(|c| c.map.contains_key(&address));
        }
        self.clients.values().any(|c| c.map.contains_key(&address))
    }

    /// Whether any answer was ever seen here: otherwise nothing can be said.
    #[must_use]
    pub const fn sees_answers(&self) -> bool {
        self.turn > 0
    }

    /// The wall clock was set from `from` to `to`: what was learned moves along, so that
    /// ages stay true.
    pub fn clock_set(&mut self, from: Timestamp, to: Timestamp) {
        let moved = |t: Timestamp| {
            if to >= from { t.plus(to.since(from)) } else { t.minus(from.since(to)) }
        };
        for entry in self.clients.values_mut().flat_map(|client| client.map.values_mut()) {
            entry.time = moved(entry.time);
            if let Some((_, time)) = &mut entry.before {
                *time = moved(*time);
            }
        }
    }

    /// Pairs remembered now.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries
    }
    /// Nothing remembered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
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
        // Repeats keep the name before.
        names.learn(at(30), &answer("192.0.2.1", "b.example", "203.0.113.1"));
        check(&names, "192.0.2.1", "203.0.113.1", 35, Some(("b.example", 5000)));
        check(&names, "192.0.2.1", "203.0.113.1", 15, Some(("a.example", 5000)));
    }

    #[test]
    fn a_late_answer_fills_the_place_before() {
        let mut names = Names::new(NamesConfig::default());
        names.learn(at(20), &answer("192.0.2.1", "b.example", "203.0.113.1"));
        names.learn(at(10), &answer("192.0.2.1", "a.example", "203.0.113.1"));
        check(&names, "192.0.2.1", "203.0.113.1", 15, Some(("a.example", 5000)));
        check(&names, "192.0.2.1", "203.0.113.1", 25, Some(("b.example", 5000)));
    }

    #[test]
    fn a_blocked_answer_names_no_address() {
        let mut names = Names::new(NamesConfig::default());
        names.learn(at(10), &answer("192.0.2.1", "a.example", "0.0.0.0"));
        assert!(names.is_empty());
    }

    #[test]
    fn the_clock_is_set() {
        let mut names = Names::new(NamesConfig::default());
        let (old, new) = (Timestamp::from_secs(100), at(0));
        names.learn(old, &answer("192.0.2.1", "a.example", "203.0.113.1"));
        names.clock_set(old.plus(Duration::from_secs(5)), new);
        check(&names, "192.0.2.1", "203.0.113.1", 1, Some(("a.example", 6000)));
        names.clock_set(new, old);
        assert!(names.explains("192.0.2.1".parse().unwrap(), None, "203.0.113.1".parse().unwrap()));
        check(&names, "192.0.2.1", "203.0.113.1", 1, None);
    }

    /// A device is one client whatever address it uses.
    #[test]
    fn a_device_asks_by_one_address_and_connects_by_another() {
        let mac = Some(Mac([0, 0, 0x5e, 0, 0x53, 1]));
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let address = "203.0.113.1".parse().unwrap();
        let mut names = Names::new(NamesConfig::default());
        names.learn_device(at(0), &Dns { mac, ..answer("192.0.2.1", "a.example", "203.0.113.1") });
        for client in [v4, v6] {
            let resolved = names.resolve_device(client, mac, address, at(2)).unwrap();
            assert_eq!((resolved.name.as_str(), resolved.age_ms), ("a.example", 2000));
            assert!(names.explains(client, mac, address));
        }
        assert_eq!(names.len(), 1);
        // Before the MAC was known, answers were kept by address; the latest counts.
        names.learn_device(at(5), &answer("192.0.2.1", "b.example", "203.0.113.1"));
        let resolved = names.resolve_device(v4, mac, address, at(6)).unwrap();
        assert_eq!((resolved.name.as_str(), resolved.age_ms), ("b.example", 1000));
    }

    #[test]
    fn who_never_asks_is_explained_by_anybodys_answer() {
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|ip| ip.parse().unwrap());
        let address = "203.0.113.1".parse().unwrap();
        let mut names = Names::new(NamesConfig::default());
        assert!(!names.sees_answers());
        names.learn(at(0), &answer("192.0.2.1", "a.example", "203.0.113.1"));
        names.learn(at(0), &answer("192.0.2.2", "b.example", "203.0.113.2"));
        assert!(names.sees_answers());
        assert!(names.explains(a, None, address));
        assert!(!names.explains(b, None, address), "asks here, so its own answers count");
        assert!(names.explains(c, None, address));
        assert!(!names.explains(c, None, "203.0.113.3".parse().unwrap()));
    }

    /// Many answers, many of them repeated at the same moment under changing names.
    #[test]
    fn bounded_and_counted() {
        let mut names = Names::new(NamesConfig { entries_max: 10, keep_seconds: 3600 });
        for i in 0..100i64 {
            let ip = format!("203.0.113.{i}");
            for name in ["a.example", "b.example"].into_iter().cycle().take(50) {
                names.learn(at(i), &answer("192.0.2.1", name, &ip));
            }
        }
        assert_eq!((names.len(), names.evicted()), (10, 90));
        let client = &names.clients[&"192.0.2.1".parse::<IpAddr>().unwrap()];
        assert_eq!((client.map.len(), client.order.len()), (10, 10));
        check(&names, "192.0.2.1", "203.0.113.99", 99, Some(("b.example", 0)));
    }

    #[test]
    fn one_clients_flood_does_not_make_others_forgotten() {
        let mut names = Names::new(NamesConfig { entries_max: 100, keep_seconds: 3600 });
        names.learn(at(0), &answer("192.0.2.1", "a.example", "203.0.113.1"));
        for i in 0..1_000u32 {
            let ip = std::net::Ipv4Addr::from(0xcb00_0000 + i).to_string();
            names.learn(at(1), &answer("192.0.2.66", "flood.example", &ip));
        }
        check(&names, "192.0.2.1", "203.0.113.1", 2, Some(("a.example", 2000)));
        assert_eq!(names.len(), 100);
    }

    #[test]
    fn what_is_answered_again_stays_longer() {
        let mut names = Names::new(NamesConfig { entries_max: 10, keep_seconds: 3600 });
        for i in 0..100 {
            names.learn(at(i), &answer("192.0.2.1", "hot.example", "203.0.113.200"));
            let ip = format!("203.0.113.{i}");
            names.learn(at(i), &answer("192.0.2.1", "cold.example", &ip));
        }
        check(&names, "192.0.2.1", "203.0.113.200", 100, Some(("hot.example", 1000)));
    }

    #[test]
    fn forged_clients_are_bounded() {
        let mut names = Names::new(NamesConfig::default());
        for i in 0..1_500u32 {
            let client = std::net::Ipv4Addr::from(0x0a00_0000 + i).to_string();
            names.learn(at(0), &answer(&client, "a.example", "203.0.113.1"));
        }
        assert_eq!((names.clients.len(), names.len()), (CLIENTS_MAX, CLIENTS_MAX));
        assert_eq!(names.evicted(), 1_500 - CLIENTS_MAX as u64);
    }

    #[test]
    fn new_limits_hold_at_once() {
        let mut names = Names::new(NamesConfig::default());
        for i in 0..100 {
            names.learn(at(0), &answer("192.0.2.1", "a.example", &format!("203.0.113.{i}")));
        }
        names.reconfigure(NamesConfig { entries_max: 10, keep_seconds: 3600 });
        assert_eq!(names.len(), 10);
    }
}
