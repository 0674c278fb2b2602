//! One look-up, seen twice: in a resolver's log, and as its packets passed by.
//!
//! In: DNS records of the two collectors, as they arrive. Out: one record per look-up. The
//! log knows more (cached, blocked and by what, who really asked), the packets are exact
//! (time, latency, TTL): the log's record goes on, with what the packet's adds. Pipeline
//! thread; pure, time is an argument. Budget: [`HELD_MAX`] records of about 400 bytes, one
//! hash look-up per record.
//!
//! Two kinds of twin, both by name and record type, within [`APART_MAX`]:
//! - the same client's: asked the resolver whose log is read;
//! - a question that a resolver passed on: the log says `forwarded NAME to SERVER` for its
//!   client, and a packet to that server asks for the name. That packet is the client's
//!   look-up, not one of the machine the resolver runs on (a Pi-hole beside the router).
//!
//! A client may also ask the resolver and, past it, somebody else for the same name; these
//! are two look-ups. So it is counted which servers and which machines' records have twins
//! and which do not ([`Hits`]).
//!
//! Packets come first, since log lines are written after the answer and read a moment later:
//! their records are held for a moment, longer while the log that is being read has not come
//! as far. Nothing is held where no log is read.
//!
//! Invariants: every record from a log goes on at once; a packet's record goes on, at the
//! latest after [`HOLD_BEHIND`], unless a log told the same look-up; memory is bounded, and
//! when it is full the oldest goes on early.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Name;
use agentmon_core::event::{Body, Dns, DnsStatus, Event};
use agentmon_core::time::{Mono, Timestamp};

use super::hits::Hits;

/// Most records held: 400 look-ups a second for ten seconds.
pub(super) const HELD_MAX: usize = 4_096;
/// How long a record waits for a log that is known to tell such look-ups. A question nobody
/// answers is told after 5 s, by both.
pub(super) const HOLD_MOST: Duration = Duration::from_secs(10);
/// And for one of which that is not known: most logs are read within half a second.
pub(super) const HOLD: Duration = Duration::from_secs(3);
/// And while the log that is being read has not come as far: most of all.
pub(super) const HOLD_BEHIND: Duration = Duration::from_secs(60);
/// Most seconds between the two records' times. A log's may be whole seconds, and it dates
/// the question where the packet's dates the answer.
const APART_MAX: Duration = Duration::from_secs(10);

type What = (Name, u16);

/// A packet's record that waits.
#[derive(Debug)]
struct Held {
    time: Timestamp,
    dns: Dns,
    since: Mono,
    until: Mono,
}

/// A log's record that went on.
#[derive(Debug)]
struct Told {
    client: IpAddr,
    server: Option<IpAddr>,
    time: Timestamp,
    /// Its client's packet was found.
    met: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Twins {
    held: BTreeMap<u64, Held>,
    waiting: HashMap<What, Vec<u64>>,
    next: u64,
    told: HashMap<What, Vec<Told>>,
    told_order: VecDeque<(What, Mono)>,
    /// Time of the newest line told, and when that was.
    log_at: Option<(Timestamp, Mono)>,
    /// Servers whose clients' questions a log tells.
    servers: Hits,
    /// Machines whose own questions are those a log tells as passed on.
    relays: Hits,
    /// Twins of the first kind.
    pub(super) same: u64,
    /// Twins of the second kind.
    pub(super) relayed: u64,
}

impl Twins {
    /// A packet's record. Returns one to go on now, if any: this one, or an older one that
    /// had to make room.
    pub(super) fn passive(&mut self, time: Timestamp, dns: Dns, now: Mono) -> Option<Event> {
        if self.was_told(time, &dns) {
            return None;
        }
        let server = server_of(&dns);
        let known = self.relays.knows(dns.client)
            || server.is_some_and(|server| self.servers.knows(server));
        // What most likely has no twin may take half the memory.
        if !known && self.held.len() >= HELD_MAX / 2 {
            return Some(event(time, dns));
        }
        let made_room = if self.held.len() >= HELD_MAX { self.take_oldest() } else { None };
        let until = now.plus(if known { HOLD_MOST } else { HOLD });
        self.waiting.entry(what(&dns)).or_default().push(self.next);
        self.held.insert(self.next, Held { time, dns, since: now, until });
        self.next += 1;
        made_room
    }

    /// Whether a log has told this look-up already.
    fn was_told(&mut self, time: Timestamp, dns: &Dns) -> bool {
        let server = server_of(dns);
        let Some(told) = self.told.get_mut(&what(dns)) else { return false };
        let near = |told: &&mut Told| told.time.distance(time) <= APART_MAX;
        let (mut of_client, passed_on): (Vec<_>, Vec<_>) =
            told.iter_mut().filter(near).partition(|told| told.client == dns.client);
        let passed_on = server.is_some() && passed_on.iter().any(|told| told.server == server);
        let open = of_client.iter_mut().find(|told| !told.met);
        if let (Some(told), Some(server)) = (open, server)
            && !self.servers.judge(&[server]).is_empty()
        {
            told.met = true;
            self.same += 1;
            return true;
        }
        let relayed = passed_on && !self.relays.judge(&[dns.client]).is_empty();
        self.relayed += u64::from(relayed);
        relayed
    }

    /// A log's record: takes over what its twins know, and puts them aside.
    pub(super) fn log(&mut self, time: &mut Timestamp, dns: &mut Dns, now: Mono) {
        let newest = self.log_at.map_or(*time, |(newest, _)| newest.max(*time));
        self.log_at = Some((newest, now));
        let same = self.same_look_up(*time, dns);
        let relayed = self.passed_on(*time, dns);
        let met = same.is_some();
        if let Some(twin) = same {
            self.same += 1;
            dns.latency_us = dns.latency_us.or(twin.dns.latency_us);
            adopt(time, dns, twin);
        }
        for twin in relayed {
            self.relayed += 1;
            // Of its latency nothing: the client waited for its resolver.
            if !met {
                adopt(time, dns, twin);
            }
        }
        self.told_order.push_back((what(dns), now.plus(HOLD_MOST)));
        let told = Told { client: dns.client, server: server_of(dns), time: *time, met };
        self.told.entry(what(dns)).or_default().push(told);
        self.forget(now);
    }

    /// The packet by which the client asked the resolver that told it.
    fn same_look_up(&mut self, time: Timestamp, dns: &Dns) -> Option<Held> {
        let its = self.matching(time, dns, |held| held.client == dns.client);
        let asked: Vec<IpAddr> = its.iter().filter_map(|(_, server, _)| *server).collect();
        let good = self.servers.judge(&asked);
        let twin = its.iter().find(|(_, server, _)| server.is_some_and(|s| good.contains(&s)));
        twin.and_then(|(id, ..)| self.remove(*id))
    }

    /// The packets by which a resolver passed the question on.
    fn passed_on(&mut self, time: Timestamp, dns: &Dns) -> Vec<Held> {
        let server = server_of(dns);
        if server.is_none() || dns.status != DnsStatus::Forwarded {
            return Vec::new();
        }
        let passed_on = |held: &Dns| held.client != dns.client && server_of(held) == server;
        let its = self.matching(time, dns, passed_on);
        let asked: Vec<IpAddr> = its.iter().map(|(.., client)| *client).collect();
        let good = self.relays.judge(&asked);
        let ids = its.iter().filter(|(.., client)| good.contains(client)).map(|(id, ..)| *id);
        let ids: Vec<u64> = ids.collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Held records of the same name and time for which `its` holds: number, server, client.
    fn matching(
        &self,
        time: Timestamp,
        dns: &Dns,
        its: impl Fn(&Dns) -> bool,
    ) -> Vec<(u64, Option<IpAddr>, IpAddr)> {
        let ids = self.waiting.get(&what(dns)).into_iter().flatten();
        let held = ids.filter_map(|id| self.held.get(id).map(|held| (*id, held)));
        held.filter(|(_, held)| held.time.distance(time) <= APART_MAX && its(&held.dns))
            .map(|(id, held)| (id, server_of(&held.dns), held.dns.client))
            .collect()
    }

    fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        let what = what(&held.dns);
        if let Some(ids) = self.waiting.get_mut(&what) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.waiting.remove(&what);
            }
        }
        Some(held)
    }

    fn take_oldest(&mut self) -> Option<Event> {
        let id = *self.held.first_key_value()?.0;
        self.remove(id).map(|held| event(held.time, held.dns))
    }

    /// Forgets what logs told too long ago, or too much of it.
    fn forget(&mut self, now: Mono) {
        while let Some((what, until)) = self.told_order.front() {
            if now < *until && self.told_order.len() <= HELD_MAX {
                return;
            }
            if let Some(told) = self.told.get_mut(what) {
                told.remove(0);
                if told.is_empty() {
                    self.told.remove(what);
                }
            }
            self.told_order.pop_front();
        }
    }

    /// Records that have waited long enough: no log tells them.
    pub(super) fn due(&mut self, now: Mono) -> Vec<Event> {
        let due = self.held.iter().filter(|(_, held)| self.is_due(held, now)).map(|(id, _)| *id);
        let due: Vec<u64> = due.collect();
        let due: Vec<Held> = due.into_iter().filter_map(|id| self.remove(id)).collect();
        for held in &due {
            self.relays.miss(held.dns.client);
            server_of(&held.dns).into_iter().for_each(|server| self.servers.miss(server));
        }
        due.into_iter().map(|held| event(held.time, held.dns)).collect()
    }

    fn is_due(&self, held: &Held, now: Mono) -> bool {
        let behind = self.log_at.is_some_and(|(at, told)| at < held.time && now.since(told) < HOLD);
        let until = if behind { held.since.plus(HOLD_BEHIND) } else { held.until };
        now >= until
    }

    /// All that are held: the program ends, or no log is read any more.
    pub(super) fn all(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.take_oldest()).collect()
    }

    /// Records held.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

/// What the packet knows better, or the log not at all.
fn adopt(time: &mut Timestamp, dns: &mut Dns, twin: Held) {
    *time = twin.time;
    dns.mac = dns.mac.or(twin.dns.mac.filter(|_| twin.dns.client == dns.client));
    dns.ttl = dns.ttl.or(twin.dns.ttl);
    dns.rcode = dns.rcode.or(twin.dns.rcode);
    let open = !matches!(dns.status, DnsStatus::Blocked);
    if open && dns.answers.is_empty() {
        dns.answers = twin.dns.answers;
    }
}

fn what(dns: &Dns) -> What {
    (dns.name.clone(), dns.qtype)
}

/// Who was asked: `192.0.2.1`, or `192.0.2.1#5353` as dnsmasq writes it.
fn server_of(dns: &Dns) -> Option<IpAddr> {
    dns.upstream.as_deref()?.split('#').next()?.parse().ok()
}

fn event(time: Timestamp, dns: Dns) -> Event {
    Event { time, body: Body::Dns(dns) }
}

#[cfg(test)]
#[path = "twins_tests.rs"]
mod tests;
