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

use std::collections::{BTreeSet, HashMap, VecDeque};
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

/// Who it is, for whatever is remembered of a client: its device where the MAC is known, else
/// its address. A device keeps its memory when its address changes, and has one for all of
/// its addresses; two devices that have an address one after the other have one each.
#[must_use]
pub fn who(mac: Option<Mac>, client: IpAddr) -> IpAddr {
    mac.map_or(client, device_key)
}

/// Bounded memory of DNS answers by client and address.
#[derive(Debug)]
pub struct Names {
    config: NamesConfig,
    clients: HashMap<IpAddr, Client>,
    /// How many addresses each client has, so that the largest is known at once.
    sizes: BTreeSet<(usize, IpAddr)>,
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
        let (clients, sizes) = (HashMap::new(), BTreeSet::new());
        Self { config, clients, sizes, entries: 0, evicted: 0, turn: 0 }
    }

    /// New limits; what is remembered stays as far as they allow.
    pub fn reconfigure(&mut self, config: NamesConfig) {
        self.config = config;
        self.make_room(0);
    }

    /// Remembers the address answers of one exchange.
    pub fn learn(&mut self, time: Timestamp, dns: &Dns) {
        for address in dns.destinations() {
            self.insert(dns.client, address, &dns.name, time);
        }
    }

    /// As [`Self::learn`], but by device where its MAC is known: a device asks over one of
    /// its addresses and connects over another (IPv4 resolver, IPv6 connection).
    pub fn learn_device(&mut self, time: Timestamp, dns: &Dns) {
        let client = dns.mac.map_or(dns.client, device_key);
        for address in dns.destinations() {
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
        let own = self.clients.entry(client).or_default();
        own.heard = self.turn;
        self.sizes.remove(&(own.map.len(), client));
        own.map.insert(address, entry);
        self.sizes.insert((own.map.len(), client));
        own.order.push_back(address);
        self.entries += 1;
    }

    /// Room for `more` entries.
    fn make_room(&mut self, more: usize) {
        while self.entries + more > self.config.entries_max {
            let Some((size, largest)) = self.sizes.pop_last() else { return };
            let evicted = self.clients.get_mut(&largest).is_some_and(Client::evict);
            if !evicted {
                return;
            }
            self.sizes.insert((size.saturating_sub(1), largest));
            self.entries -= 1;
            self.evicted += 1;
        }
    }

    fn forget_quietest_client(&mut self) {
        let quietest = self.clients.iter().min_by_key(|(_, c)| c.heard).map(|(ip, _)| *ip);
        if let Some((ip, client)) = quietest.and_then(|ip| self.clients.remove_entry(&ip)) {
            self.sizes.remove(&(client.map.len(), ip));
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
mod tests;
