//! Which name a connection went to: DNS answers joined to flows by (client, address,
//! time), across sensors and in either order of arrival.
//!
//! In: DNS exchanges and flows as they are stored. Out: the name for a flow now, or later
//! when the answer comes after the flow ([`Correlator::late`]): a resolver's log and the
//! router are different sensors with different delays.
//! Runs inside the writer. Memory: [`Names`] and at most [`WAITING_MAX`] nameless flows.
//!
//! A device asks over one address and connects over another (IPv4 resolver, IPv6
//! connection), so answers are also kept by device where its MAC is known.
//!
//! Invariants: an answer explains no connection that began more than [`SLACK`] before it;
//! a flow named by its sensor keeps that name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{Answer, Dns, DnsStatus, Mac, Resolved};
use agentmon_core::names::{Names, NamesConfig, device_key};
use duckdb::Connection;

use crate::devices::Devices;
use crate::store::StoreError;

/// Most flows that wait for an answer; the oldest leaves first.
pub const WAITING_MAX: usize = 16_384;
/// Two sensors' clocks differ, and a resolver's log has whole seconds.
pub const SLACK: Duration = Duration::from_secs(2);
/// How far back answers are read when the hub starts, and the most of them.
const WARM_HOURS: u32 = 6;
const WARM_ROWS_MAX: u32 = 100_000;

/// A stored flow without a name: what finds its row again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The row's time.
    pub time: Timestamp,
    /// The row's sensor.
    pub sensor: i32,
    /// The row's protocol.
    pub proto: u8,
    /// The row's source.
    pub src: IpAddr,
    /// Its port.
    pub sport: u16,
    /// The row's destination.
    pub dst: IpAddr,
    /// Its port.
    pub dport: u16,
    /// When the connection began, as well as it is known.
    pub began: Timestamp,
    /// Whether the other side answered.
    pub replied: bool,
}

/// The memory of answers and of flows without one.
#[derive(Debug)]
pub struct Correlator {
    names: Names,
    waiting: VecDeque<Waiting>,
    /// (client key, destination) of the waiting, with how many.
    wanted: HashMap<(IpAddr, IpAddr), u32>,
    /// Pairs an answer came for since the last pass.
    answered: HashSet<(IpAddr, IpAddr)>,
}

impl Default for Correlator {
    fn default() -> Self {
        // 65,536: a household's day by address and once more by device; about 10 MB.
        let config = NamesConfig { entries_max: 65_536, ..NamesConfig::default() };
        Self {
            names: Names::new(config),
            waiting: VecDeque::new(),
            wanted: HashMap::new(),
            answered: HashSet::new(),
        }
    }
}

impl Correlator {
    /// Takes in one exchange.
    pub fn learn(&mut self, time: Timestamp, dns: &Dns, devices: &Devices) {
        if dns.destinations().next().is_none() {
            return;
        }
        self.learn_as(time, dns);
        if let Some(mac) = dns.mac.or_else(|| devices.mac_of(dns.client, time)) {
            self.learn_as(time, &Dns { client: device_key(mac), ..dns.clone() });
        }
    }

    fn learn_as(&mut self, time: Timestamp, dns: &Dns) {
        self.names.learn(time, dns);
        for address in dns.destinations() {
            if self.wanted.contains_key(&(dns.client, address)) {
                self.answered.insert((dns.client, address));
            }
        }
    }

    /// The name for a connection from `src` (of device `mac`) to `dst` that began at `began`.
    #[must_use]
    pub fn resolve(
        &self,
        src: IpAddr,
        mac: Option<Mac>,
        dst: IpAddr,
        began: Timestamp,
    ) -> Option<Resolved> {
        self.names.resolve_device(src, mac, dst, began).or_else(|| {
            let late = self.names.resolve_device(src, mac, dst, began.plus(SLACK))?;
            let slack_ms = u64::try_from(SLACK.as_millis()).unwrap_or(u64::MAX);
            Some(Resolved { age_ms: late.age_ms.saturating_sub(slack_ms), ..late })
        })
    }

    /// Remembers a stored flow that has no name yet.
    pub fn wait(&mut self, flow: Waiting, mac: Option<Mac>) {
        while self.waiting.len() >= WAITING_MAX {
            if let Some(oldest) = self.waiting.pop_front() {
                self.unwant(&oldest);
            }
        }
        *self.wanted.entry((flow.src, flow.dst)).or_default() += 1;
        if let Some(mac) = mac {
            *self.wanted.entry((device_key(mac), flow.dst)).or_default() += 1;
        }
        self.waiting.push_back(flow);
    }

    fn unwant(&mut self, flow: &Waiting) {
        if let Some(n) = self.wanted.get_mut(&(flow.src, flow.dst)) {
            *n -= 1;
            if *n == 0 {
                self.wanted.remove(&(flow.src, flow.dst));
            }
        }
        // The device's own pairs are swept when nobody waits any more: a stale one costs
        // an idle pass, nothing else.
        if self.waiting.is_empty() || self.wanted.len() > 4 * WAITING_MAX {
            self.rebuild_wanted();
        }
    }

    fn rebuild_wanted(&mut self) {
        self.wanted.clear();
        for flow in &self.waiting {
            *self.wanted.entry((flow.src, flow.dst)).or_default() += 1;
        }
    }

    /// The waiting flows that an answer has come for meanwhile; they wait no longer.
    pub fn late(&mut self, devices: &Devices) -> Vec<(Waiting, Resolved)> {
        if self.answered.is_empty() {
            return Vec::new();
        }
        self.answered.clear();
        let mut named = Vec::new();
        let mut still = VecDeque::with_capacity(self.waiting.len());
        for flow in std::mem::take(&mut self.waiting) {
            let mac = devices.mac_of(flow.src, flow.began);
            match self.resolve(flow.src, mac, flow.dst, flow.began) {
                Some(resolved) => named.push((flow, resolved)),
                None => still.push_back(flow),
            }
        }
        self.waiting = still;
        named.iter().for_each(|(flow, _)| self.unwant(flow));
        named
    }

    /// Reads the newest hours of answers, so that a restart forgets no names.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn warm_up(
        &mut self,
        connection: &Connection,
        devices: &Devices,
    ) -> Result<(), StoreError> {
        let mut statement = connection.prepare(&format!(
            "FROM (SELECT epoch_us(time) AS us, client, mac, name,
                    array_to_string(answers, ' ') AS answers
                FROM dns_hot
                WHERE answers IS NOT NULL
                    AND time > (SELECT max(time) FROM dns_hot) - INTERVAL {WARM_HOURS} HOUR
                ORDER BY time DESC LIMIT {WARM_ROWS_MAX})
             ORDER BY us"
        ))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (client, name) =
                (row.get::<_, String>(1)?.parse(), row.get::<_, String>(3)?.parse());
            let (Ok(client), Ok(name)) = (client, name) else { continue };
            let answers = row.get::<_, String>(4)?;
            let dns = Dns {
                client,
                mac: row.get::<_, Option<String>>(2)?.and_then(|m| m.parse().ok()),
                name,
                qtype: 0,
                status: DnsStatus::Unknown,
                rcode: None,
                answers: answers
                    .split(' ')
                    .filter_map(|a| a.parse().ok().map(Answer::Address))
                    .collect(),
                ttl: None,
                upstream: None,
                latency_us: None,
                blocked_by: None,
                source: String::new(),
            };
            self.learn(Timestamp::from_micros(row.get(0)?), &dns, devices);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use agentmon_core::event::{Device, DeviceSource};
    use agentmon_core::sample;

    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(1_795_000_000 + s)
    }
    fn dns(client: &str, name: &str, ip: &str) -> Dns {
        sample::dns(client, name, &[ip])
    }
    fn flow(src: &str, dst: &str, began: i64) -> Waiting {
        Waiting {
            time: at(began + 10),
            sensor: 1,
            proto: 6,
            src: src.parse().unwrap(),
            sport: 1000,
            dst: dst.parse().unwrap(),
            dport: 443,
            began: at(began),
            replied: true,
        }
    }
    fn named(c: &mut Correlator, devices: &Devices) -> Vec<String> {
        c.late(devices).iter().map(|(_, r)| r.name.to_string()).collect()
    }

    #[test]
    fn an_answer_that_comes_late_names_the_flow_once() {
        let (mut c, devices) = (Correlator::default(), Devices::default());
        c.wait(flow("192.0.2.1", "203.0.113.1", 10), None);
        c.wait(flow("192.0.2.2", "203.0.113.1", 10), None);
        assert_eq!(named(&mut c, &devices), Vec::<String>::new());
        c.learn(at(9), &dns("192.0.2.1", "a.example", "203.0.113.1"), &devices);
        assert_eq!(named(&mut c, &devices), ["a.example"]);
        c.learn(at(9), &dns("192.0.2.1", "a.example", "203.0.113.1"), &devices);
        assert_eq!(named(&mut c, &devices), Vec::<String>::new());
    }

    #[test]
    fn an_answer_after_the_connection_does_not_explain_it() {
        let (mut c, devices) = (Correlator::default(), Devices::default());
        c.wait(flow("192.0.2.1", "203.0.113.1", 10), None);
        c.learn(at(13), &dns("192.0.2.1", "a.example", "203.0.113.1"), &devices);
        assert_eq!(named(&mut c, &devices), Vec::<String>::new());
        // Within the slack of two clocks it does, with an age of nothing.
        let resolved =
            c.resolve("192.0.2.1".parse().unwrap(), None, "203.0.113.1".parse().unwrap(), at(12));
        assert_eq!(resolved.map(|r| r.age_ms), Some(1_000 - 1_000));
    }

    #[test]
    fn a_device_may_ask_by_one_address_and_connect_by_another() {
        let (mut c, mut devices) = (Correlator::default(), Devices::default());
        let mac = Mac([0, 0, 0x5e, 0, 0x53, 1]);
        for ip in ["192.0.2.1", "2001:db8::1"] {
            let ip = ip.parse().unwrap();
            let seen = Device { mac, ip, hostname: None, iface: None, source: DeviceSource::Lease };
            devices.see(at(0), &seen);
        }
        let answer = dns("192.0.2.1", "a.example", "2001:db8:ff::1");
        c.learn(at(5), &answer, &devices);
        let (src, dst) = ("2001:db8::1".parse().unwrap(), "2001:db8:ff::1".parse().unwrap());
        assert_eq!(c.resolve(src, Some(mac), dst, at(6)).map(|r| r.age_ms), Some(1_000));
        assert_eq!(c.resolve(src, None, dst, at(6)), None);
        // And late.
        c.wait(flow("2001:db8::1", "2001:db8:ff::2", 6), Some(mac));
        c.learn(at(5), &dns("192.0.2.1", "b.example", "2001:db8:ff::2"), &devices);
        assert_eq!(named(&mut c, &devices), ["b.example"]);
    }

    #[test]
    fn waiting_is_bounded() {
        let mut c = Correlator::default();
        for n in 0..3 * u32::try_from(WAITING_MAX).unwrap() {
            let mut f = flow("192.0.2.1", "203.0.113.1", 10);
            f.dst = std::net::Ipv4Addr::from(n).into();
            c.wait(f, Some(Mac([0, 0, 0x5e, 0, 0x53, 1])));
        }
        assert_eq!(c.waiting.len(), WAITING_MAX);
        assert!(c.wanted.len() <= 4 * WAITING_MAX + 2);
    }
}
