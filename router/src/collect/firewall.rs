//! Packets that the firewall stopped, copied to us by `log group N` (NFLOG).
//!
//! In: the first 96 bytes of each packet with the rule's prefix, interfaces and MAC. Out:
//! [`Firewall`] records. Runs on a thread of its own. Budget: 2 us a packet. The verdict is
//! read from the rule's prefix, because the log rule stands before the one that decides:
//! `log prefix "agentmon-reject " group 5 snaplen 96`, then `reject`.
//!
//! bytes -> `netlink::nflog` -> `packet` -> [`normalise`] -> delivery.
//!
//! Invariants: lost packets are counted and told as a gap; nothing here can hold up a
//! packet.

use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Firewall, TEXT_BYTES_MAX, Verdict};
use agentmon_core::name::printable;
use agentmon_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::gaps::Gaps;
use super::{Collector, Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::counters::Counter;
use crate::netlink::interfaces::Interfaces;
use crate::netlink::nflog::{Group, Logged, Turn};
use crate::packet;

/// IPv6 and TCP headers need 60 to 80 bytes.
const COPY_BYTES: u32 = 96;
/// A port scan is read in batches; a single packet waits 100 ms at most.
const BATCH: u32 = 32;
/// Longest wait, so that the wish to stop is heard.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// Let packets gather after each read: a port scan comes in thousands.
const NAP: Duration = Duration::from_millis(20);

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// Number of the NFLOG group that the firewall's log rules name.
    pub group: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, group: 5 }
    }
}

/// The collector.
#[derive(Debug)]
pub struct Source {
    config: Config,
}

impl Source {
    /// Not yet reading.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Collector for Source {
    fn name(&self) -> &str {
        "firewall"
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        let mut group = Group::bind(self.config.group, COPY_BYTES, BATCH)?;
        let mut reader = Reader::new(context);
        let number = self.config.group;
        context.state.set(format!(
            "ok: no packet so far; the firewall must log what it stops to group {number} \
             (`agentmon-router setup --print` shows the rule)"
        ));
        while !context.stop.is_set() {
            let ready = group.wait(WAIT_MAX)?;
            reader.turn(context, &mut group)?;
            if ready {
                std::thread::sleep(NAP);
            }
        }
        Ok(())
    }
}

/// What one run keeps between reads.
struct Reader {
    interfaces: Interfaces,
    gaps: Gaps,
    /// Last time that nothing was missing.
    intact: Timestamp,
    seen: u64,
    packets: Counter,
    lost: Counter,
    decode_errors: Counter,
}

impl Reader {
    fn new(context: &Context) -> Self {
        let counter = |name: &str| context.counters.counter(name);
        Self {
            interfaces: Interfaces::default(),
            gaps: Gaps::new("firewall"),
            intact: context.clock.wall(),
            seen: 0,
            packets: counter("firewall.packets"),
            lost: counter("drop.firewall.enobufs"),
            decode_errors: counter("firewall.decode_errors"),
        }
    }

    /// Reads what waits and delivers it.
    fn turn(&mut self, context: &Context, group: &mut Group) -> anyhow::Result<()> {
        let (wall, mono) = (context.clock.wall(), context.clock.mono());
        let mut events = Vec::new();
        let mut not_ip = 0;
        let turn = group.read(|logged| {
            match normalise(logged, &mut |index| self.interfaces.name(index, mono)) {
                Some(record) => {
                    let time = logged.time_near(wall).unwrap_or(wall);
                    events.push(Event { time, body: Body::Firewall(record) });
                }
                None => not_ip += 1,
            }
        })?;
        self.count(&turn, not_ip, wall);
        if turn.packets > 0 {
            self.seen += turn.packets;
            context.state.set(format!("ok: {} packets", self.seen));
        }
        events.extend(self.gaps.take(wall, mono));
        send(context, events)
    }

    fn count(&mut self, turn: &Turn, not_ip: u64, wall: Timestamp) {
        self.packets.add(turn.packets);
        self.lost.add(turn.lost);
        self.decode_errors.add(turn.unreadable + not_ip);
        self.gaps.note(turn.lost, self.intact);
        self.intact = wall;
    }
}

/// In pieces no larger than a delivery may be.
pub(super) fn send(context: &Context, mut events: Vec<Event>) -> anyhow::Result<()> {
    while !events.is_empty() {
        let rest = events.split_off(events.len().min(DELIVERY_EVENTS_MAX));
        context.outbox.send(Delivery { events, checkpoint: None })?;
        events = rest;
    }
    Ok(())
}

/// The record of one logged packet; `None` when it is no IP packet.
pub fn normalise(
    logged: &Logged<'_>,
    interface: &mut dyn FnMut(u32) -> Option<String>,
) -> Option<Firewall> {
    let packet = packet::parse(logged.payload).ok()?;
    Some(Firewall {
        verdict: verdict(logged.prefix),
        prefix: printable(logged.prefix, TEXT_BYTES_MAX).trim_end().to_owned(),
        proto: packet.proto,
        src: packet.src,
        dst: packet.dst,
        in_iface: logged.in_index.and_then(&mut *interface),
        out_iface: logged.out_index.and_then(&mut *interface),
        mac: logged.mac.filter(|mac| !mac.is_group()),
        bytes: packet.length,
    })
}

/// What the rule's prefix says will happen: `agentmon-reject `, fw4's `drop wan in: `.
pub(super) fn verdict(prefix: &[u8]) -> Verdict {
    let has = |word: &[u8]| prefix.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
    if has(b"reject") {
        Verdict::Reject
    } else if has(b"drop") || has(b"block") || has(b"deny") {
        Verdict::Drop
    } else {
        Verdict::Logged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::captured::{self, bytes};
    use crate::netlink::{messages, nflog};

    fn record(hex: &str) -> Firewall {
        let bytes = bytes(hex);
        let logged = nflog::decode(&messages(&bytes).next().unwrap().unwrap()).unwrap();
        normalise(&logged, &mut |index| Some(format!("if{index}"))).unwrap()
    }

    #[test]
    fn a_rejected_connection() {
        let record = record(captured::REJECTED_TCP);
        assert_eq!((record.verdict, record.proto, record.bytes), (Verdict::Reject, 6, 60));
        assert_eq!(record.prefix, "agentmon-reject");
        assert_eq!(record.src.ip.to_string(), "192.168.77.2");
        assert_eq!(record.dst.to_string(), "203.0.113.2:6666");
        assert!(record.in_iface.is_some() && record.in_iface != record.out_iface);
        assert!(record.mac.is_some());
    }

    #[test]
    fn a_dropped_datagram() {
        let record = record(captured::DROPPED_UDP6);
        assert_eq!((record.verdict, record.proto, record.bytes), (Verdict::Drop, 17, 148));
        assert_eq!(record.dst.to_string(), "[2001:db8:99::2]:6667");
    }

    #[test]
    fn the_verdict_is_in_the_prefix() {
        let check = |prefix: &str, expected| assert_eq!(verdict(prefix.as_bytes()), expected);
        check("agentmon-reject ", Verdict::Reject);
        check("reject wan in: ", Verdict::Reject);
        check("DROP wan forward: ", Verdict::Drop);
        check("[UFW BLOCK] ", Verdict::Drop);
        check("seen ", Verdict::Logged);
        check("", Verdict::Logged);
    }

    #[test]
    fn a_prefix_is_made_printable_and_no_packet_is_no_record() {
        let payload = bytes(captured::REJECTED_TCP);
        let payload = &payload[payload.len() - 60..];
        let logged = Logged { prefix: b"\x1b[2Jdrop\xff", payload, ..Logged::default() };
        let record = normalise(&logged, &mut |_| None).unwrap();
        assert_eq!((record.prefix.as_str(), record.verdict), ("\\x1b[2Jdrop\\xff", Verdict::Drop));
        let logged = Logged { payload: b"no packet", ..Logged::default() };
        assert_eq!(normalise(&logged, &mut |_| None), None);
    }
}
