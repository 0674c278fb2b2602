//! Messages of many machines -> DNS events: the pure heart of the receiver.
//!
//! In: one message, who sent it, and when it came. Out: DNS exchanges and devices, read by
//! the log collector's own [`Reader`], one for each sender and host name; packets a firewall
//! stopped ([`kernel`]); gaps. The collector's thread; at most [`HOSTS_MAX`] readers of up to 0.2 MB.
//!
//! Invariants:
//! - every message is counted once: DNS, a packet (`syslog.packets`), or neither
//!   (`syslog.not_dns`);
//! - lines of different machines never join; process ids keep a machine's processes apart
//!   inside the reader. The host name in a message is what the sender says: it separates,
//!   and is believed for nothing else;
//! - a date more than [`AHEAD_MAX`] ahead or [`BEHIND_MAX`] behind is a wrong clock: then
//!   the time of arrival counts;
//! - `from 127.0.0.1` is the machine that wrote it, not this one.

use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, unmap};
use agentmon_core::time::{Mono, Timestamp};

use super::counted::Counts;
use super::sources::{Now, Sources};
use super::{SOURCE, kernel};
use crate::collect::dnsmasq_log::Reader;
use crate::collect::dnsmasq_log::prefix::Program;
use crate::localtime::Zone;

/// Most readers.
pub(super) const HOSTS_MAX: usize = 64;
/// Most readers for one sender: a relay's machines.
pub(super) const HOSTS_PER_SOURCE_MAX: usize = 16;
/// Most of a host name that tells one from another.
const HOST_BYTES_MAX: usize = 64;
/// A date may be this far ahead: clocks that are kept by NTP differ by less.
pub(super) const AHEAD_MAX: Duration = Duration::from_secs(60);
/// And this far behind: a relay that kept messages while its line was cut. A machine that
/// has no clock begins in 1970, or with the day its system was built.
pub(super) const BEHIND_MAX: Duration = Duration::from_secs(86_400);
/// A reader that was not needed for so long is given up.
const FORGET: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
struct Host {
    peer: IpAddr,
    name: Box<[u8]>,
    reader: Reader,
    last: Mono,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: Vec<Host>,
}

impl Hosts {
    /// One message, without its framing.
    pub(super) fn message(
        &mut self,
        (peer, bytes): (IpAddr, &[u8]),
        now: Now,
        sources: &mut Sources,
        counts: &Counts,
        out: &mut Vec<Event>,
    ) {
        counts.messages.inc();
        let stamper = &mut sources.of(peer, now.mono).stamper;
        let Some(mut prefixed) = stamper.read(bytes, now.wall) else {
            counts.not_dns.inc();
            return;
        };
        if sources.heard(peer, prefixed.time, now, out) {
            counts.late.inc();
        }
        if !is_believable(prefixed.time, now.wall) {
            counts.wrong_clock.inc();
            prefixed.time = now.wall;
            prefixed.fine = false;
        }
        match prefixed.program {
            Program::Dnsmasq | Program::Dhcp => {}
            Program::Kernel => {
                match kernel::packet(&prefixed.message) {
                    Some(packet) => {
                        counts.packets.inc();
                        out.push(Event { time: prefixed.time, body: Body::Firewall(packet) });
                    }
                    None => counts.not_dns.inc(),
                }
                return;
            }
            Program::Other => {
                counts.not_dns.inc();
                return;
            }
        }
        let from = out.len();
        let i = self.host(peer, prefixed.host, now.mono, counts, out);
        let Some(host) = self.hosts.get_mut(i) else { return };
        host.last = now.mono;
        let before = host.reader.counts();
        host.reader.prefixed(&prefixed, out);
        counts.read(before, host.reader.counts());
        own(peer, out.get_mut(from..).unwrap_or_default());
    }

    /// The place of a machine's reader, a new one if need be.
    fn host(
        &mut self,
        peer: IpAddr,
        name: &[u8],
        now: Mono,
        counts: &Counts,
        out: &mut Vec<Event>,
    ) -> usize {
        let name = name.get(..name.len().min(HOST_BYTES_MAX)).unwrap_or_default();
        let known = self.hosts.iter().position(|h| h.peer == peer && *h.name == *name);
        if let Some(known) = known {
            return known;
        }
        // A sender with many names takes its own places, not those of others.
        let own_places = self.hosts.iter().filter(|host| host.peer == peer).count();
        let crowded = own_places >= HOSTS_PER_SOURCE_MAX;
        if crowded || self.hosts.len() >= HOSTS_MAX {
            let rest = self.hosts.iter().enumerate().filter(|(_, h)| !crowded || h.peer == peer);
            if let Some((i, _)) = rest.min_by_key(|(_, host)| host.last) {
                counts.hosts_evicted.inc();
                self.give_up(i, counts, out);
            }
        }
        // The reader is handed lines that are dated already.
        let reader = Reader::new(Zone::utc());
        self.hosts.push(Host { peer, name: name.into(), reader, last: now });
        self.hosts.len() - 1
    }

    fn give_up(&mut self, i: usize, counts: &Counts, out: &mut Vec<Event>) {
        let mut host = self.hosts.swap_remove(i);
        let (from, before) = (out.len(), host.reader.counts());
        host.reader.finish(out);
        counts.read(before, host.reader.counts());
        own(host.peer, out.get_mut(from..).unwrap_or_default());
    }

    /// Time went on: answers are complete, late ones given up.
    pub(super) fn idle(&mut self, now: Mono, counts: &Counts, out: &mut Vec<Event>) {
        for host in &mut self.hosts {
            let (from, before) = (out.len(), host.reader.counts());
            host.reader.idle(now.since(host.last), out);
            counts.read(before, host.reader.counts());
            own(host.peer, out.get_mut(from..).unwrap_or_default());
        }
        while let Some(i) = self.hosts.iter().position(|h| now.since(h.last) >= FORGET) {
            self.give_up(i, counts, out);
        }
    }

    /// Nothing more will come: what waits goes out as it is.
    pub(super) fn finish(&mut self, counts: &Counts, out: &mut Vec<Event>) {
        while !self.hosts.is_empty() {
            self.give_up(0, counts, out);
        }
    }

    /// Machines with a log of DNS, and questions that wait.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.hosts.len(), self.hosts.iter().map(|host| host.reader.waiting()).sum())
    }

    /// A line that was not understood, once.
    pub(super) fn take_unknown(&mut self) -> Option<String> {
        self.hosts.iter_mut().find_map(|host| host.reader.take_unknown())
    }
}

fn is_believable(time: Timestamp, now: Timestamp) -> bool {
    let most = if time > now { AHEAD_MAX } else { BEHIND_MAX };
    time.distance(now) <= most
}

/// Says which collector saw it, and of which machine "this machine" was said.
fn own(peer: IpAddr, events: &mut [Event]) {
    for event in events {
        match &mut event.body {
            Body::Dns(dns) => {
                SOURCE.clone_into(&mut dns.source);
                if unmap(dns.client).is_loopback() {
                    dns.client = peer;
                }
            }
            Body::Gap(gap) => SOURCE.clone_into(&mut gap.collector),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;
