//! Devices from the kernel's neighbour table (ARP, NDP).
//!
//! In: a dump of the table every [`Config::dump_seconds`] and its changes (rtnetlink; no
//! privilege needed). Out: a [`Device`] record for every address that is new, has another
//! MAC, or was not told for an hour; and the shared [`Neighbours`] table by which other
//! collectors put a MAC and an interface to an address. Runs on a thread of its own;
//! budget: some hundred entries, once a minute.
//!
//! Invariants: at most [`NEIGHBOURS_MAX`] entries are kept; an entry leaves the shared
//! table when two dumps do not show it, so that a device that sleeps keeps its name for
//! the flows that end meanwhile.

pub mod decode;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Device, DeviceSource, Mac};
use agentmon_core::time::Mono;
use serde::{Deserialize, Serialize};

use super::firewall::send;
use super::{Collector, Context};
use crate::netlink::interfaces::Interfaces;
use crate::netlink::message::NLM_F_DUMP;
use crate::netlink::{DATAGRAM_BYTES_MAX, ROUTE, Received, Request, Socket, messages};

/// Most addresses kept; a /22 full of devices with three IPv6 addresses each.
pub const NEIGHBOURS_MAX: usize = 4_096;
/// `RTNLGRP_NEIGH`.
const GROUP: u32 = 3;
/// A device that stays where it is, is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(3_600);
/// Longest wait, so that the wish to stop is heard.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// Changes come in pairs and dozens (a probe, its answer); let them gather.
const NAP: Duration = Duration::from_millis(200);
/// Datagrams read before other duties get their turn.
const READ_DATAGRAMS_MAX: usize = 1_024;

/// Who is behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Link-layer address.
    pub mac: Mac,
    /// Interface, printable.
    pub iface: Arc<str>,
}

/// The neighbour table by address.
pub type Table = HashMap<IpAddr, Neighbour>;

/// The latest table, shared by the neighbours collector (which writes it) and those who
/// want to know whose address it is. Cheap to clone; clones share the table.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(Arc<RwLock<Arc<Table>>>);

impl Neighbours {
    /// The table now; to be kept for a batch, not for longer.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Table> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
    /// Puts another table in its place.
    pub fn replace(&self, table: Table) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
}

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// Seconds between two dumps of the neighbour table; changes are seen at once.
    pub dump_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, dump_seconds: 60 }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key, and what is allowed.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let n = self.dump_seconds;
        if (1..=3_600).contains(&n) {
            Ok(())
        } else {
            Err(("dump_seconds", format!("want 1 to 3600, not {n}")))
        }
    }
}

/// The collector.
#[derive(Debug)]
pub struct Source {
    config: Config,
    shared: Neighbours,
    known: Known,
}

impl Source {
    /// Not yet reading; nobody else sees its table.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_neighbours(config, Neighbours::default())
    }

    /// Not yet reading; keeps that table.
    #[must_use]
    pub fn with_neighbours(config: Config, shared: Neighbours) -> Self {
        Self { config, shared, known: Known::default() }
    }
}

impl Collector for Source {
    fn name(&self) -> &str {
        "neighbours"
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        let mut socket = Socket::open(ROUTE)?;
        socket.join(GROUP)?;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut next_dump = context.clock.mono();
        let full = context.counters.counter("neighbours.full");
        while !context.stop.is_set() {
            let now = context.clock.mono();
            if now >= next_dump {
                self.known.begin_dump();
                let request = Request::new(decode::GET, NLM_F_DUMP);
                socket.send(
                    "asking for the neighbour table",
                    request.body(&[0; decode::HEADER_BYTES]),
                )?;
                next_dump = now.plus(Duration::from_secs(self.config.dump_seconds));
            }
            if !socket.wait(WAIT_MAX)? {
                continue;
            }
            std::thread::sleep(NAP);
            let news = self.read(&socket, &mut buffer, context.clock.mono())?;
            full.add(self.known.take_refused());
            self.shared.replace(self.known.table());
            context.state.set(format!("ok: {} addresses", self.known.entries.len()));
            let time = context.clock.wall();
            let event = |device| Event { time, body: Body::Device(device) };
            send(context, news.into_iter().map(event).collect())?;
        }
        Ok(())
    }
}

impl Source {
    fn read(
        &mut self,
        socket: &Socket,
        buffer: &mut [u8],
        now: Mono,
    ) -> anyhow::Result<Vec<Device>> {
        let mut news = Vec::new();
        for _ in 0..READ_DATAGRAMS_MAX {
            let datagram = match socket.receive(buffer)? {
                Received::Data(datagram) => datagram,
                Received::Empty => break,
                // The next dump mends it.
                Received::Overrun | Received::Skipped => continue,
            };
            for raw in messages(datagram).flatten().filter_map(|m| decode::decode(&m)) {
                news.extend(self.known.see(&raw, now));
            }
        }
        Ok(news)
    }
}

/// What was seen, and what was told of it.
#[derive(Debug, Default)]
struct Known {
    entries: HashMap<IpAddr, Entry>,
    interfaces: Interfaces,
    dump: u32,
    refused: u64,
}

#[derive(Debug)]
struct Entry {
    neighbour: Neighbour,
    told: Mono,
    seen_in: u32,
}

impl Known {
    /// Forgets what the last two dumps did not show.
    fn begin_dump(&mut self) {
        let dump = self.dump;
        self.entries.retain(|_, entry| entry.seen_in.saturating_add(2) > dump);
        self.dump = dump.saturating_add(1);
    }

    /// The record, if there is something new to tell.
    fn see(&mut self, raw: &decode::Raw, now: Mono) -> Option<Device> {
        let iface = self.interfaces.name(raw.index, now).unwrap_or_default();
        self.see_at(raw, &iface, now)
    }

    fn see_at(&mut self, raw: &decode::Raw, iface: &str, now: Mono) -> Option<Device> {
        let neighbour = || Neighbour { mac: raw.mac, iface: iface.into() };
        let full = self.entries.len() >= NEIGHBOURS_MAX;
        if let Some(entry) = self.entries.get_mut(&raw.ip) {
            entry.seen_in = self.dump;
            let same = entry.neighbour.mac == raw.mac && &*entry.neighbour.iface == iface;
            if same && now.since(entry.told) < TELL_AGAIN {
                return None;
            }
            entry.told = now;
            entry.neighbour = neighbour();
        } else if full {
            self.refused += 1;
            return None;
        } else {
            let entry = Entry { neighbour: neighbour(), told: now, seen_in: self.dump };
            self.entries.insert(raw.ip, entry);
        }
        Some(Device {
            mac: raw.mac,
            ip: raw.ip,
            hostname: None,
            iface: (!iface.is_empty()).then(|| iface.to_owned()),
            source: DeviceSource::Neighbour,
        })
    }

    fn table(&self) -> Table {
        self.entries.iter().map(|(ip, entry)| (*ip, entry.neighbour.clone())).collect()
    }

    fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(ip: [u8; 4], mac: u8) -> decode::Raw {
        decode::Raw { ip: ip.into(), mac: Mac([0, 0, 0x5e, 0, 0x53, mac]), index: 2 }
    }
    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn only_news_is_told() {
        let mut known = Known::default();
        let nine = [192, 0, 2, 9];
        let mut told = |mac, iface, seconds| known.see_at(&raw(nine, mac), iface, at(seconds));
        let first = told(1, "br-lan", 1).unwrap();
        assert_eq!(
            (first.ip.to_string().as_str(), first.iface.as_deref()),
            ("192.0.2.9", Some("br-lan"))
        );
        assert_eq!(told(1, "br-lan", 3_000), None);
        assert_eq!(told(2, "br-lan", 3_001).unwrap().mac.0[5], 2);
        assert!(told(2, "guest", 3_002).is_some());
        assert_eq!(told(2, "guest", 6_601), None);
        assert!(told(2, "guest", 6_602).is_some(), "an hour later");
    }

    #[test]
    fn an_entry_goes_when_two_dumps_do_not_show_it() {
        let mut known = Known::default();
        known.begin_dump();
        known.see_at(&raw([192, 0, 2, 9], 1), "br-lan", at(1));
        known.begin_dump();
        assert_eq!(known.table().len(), 1);
        known.begin_dump();
        assert_eq!(known.table().len(), 1);
        known.begin_dump();
        assert_eq!(known.table().len(), 0);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut known = Known::default();
        for n in 0..5_000u32 {
            known.see_at(&raw(n.to_be_bytes(), 1), "br-lan", at(1));
        }
        assert_eq!((known.table().len(), known.take_refused()), (NEIGHBOURS_MAX, 904));
    }

    #[test]
    fn clones_share_the_table() {
        let shared = Neighbours::default();
        let other = shared.clone();
        let neighbour = Neighbour { mac: Mac([0, 0, 0x5e, 0, 0x53, 1]), iface: "br-lan".into() };
        shared.replace(HashMap::from([([192, 0, 2, 9].into(), neighbour.clone())]));
        assert_eq!(other.snapshot().get(&IpAddr::from([192, 0, 2, 9])), Some(&neighbour));
    }
}
