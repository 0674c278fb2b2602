//! A made-up home: 75 devices, the names and servers they use, their flows and their DNS
//! log. Seeded: the same numbers in every run.
//!
//! Shapes that matter to what is measured: popularity follows Zipf's law (few names make
//! most of the traffic), sizes and durations are spread over orders of magnitude, client
//! ports and flow ids are random and do not compress, DNS answers come from the cache, from
//! upstream with a CNAME, or from a block list. Names are made of syllables; none is looked
//! up anywhere.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use agentmon_core::event::{
    Body, Endpoint, Event, Flow, FlowPhase, Mac, Resolved, TcpState, Volume,
};
use agentmon_core::{Name, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// Devices in the home.
const DEVICES: u8 = 75;
/// Servers they talk to, each with a name.
const SERVERS: usize = 8_000;
/// 2026-11-23T14:00:00Z.
const BEGIN: Timestamp = Timestamp::from_secs(1_795_442_400);

/// The home.
pub(crate) struct Home {
    random: SmallRng,
    servers: Vec<Server>,
    now: Timestamp,
}

struct Server {
    name: String,
    cname: Option<String>,
    ip: Ipv4Addr,
    port: u16,
    proto: u8,
}

impl Home {
    /// Its day begins at [`BEGIN`].
    pub(crate) fn new(seed: u64) -> Self {
        Self::since(seed, BEGIN)
    }

    pub(crate) fn since(seed: u64, now: Timestamp) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let servers = (0..SERVERS).map(|_| Server::new(&mut random)).collect();
        Self { random, servers, now }
    }

    /// Zipf with exponent 1: rank r has probability proportional to 1/r.
    fn server(&mut self) -> usize {
        let rank = (SERVERS as f64).powf(self.random.random::<f64>());
        (rank as usize).min(SERVERS - 1)
    }

    /// Few devices are busy, most are not.
    fn device(&mut self) -> u8 {
        let rank = f64::from(DEVICES).powf(self.random.random::<f64>());
        (rank as u8).min(DEVICES - 1)
    }

    /// Spread evenly over the orders of magnitude from `low` to `high`.
    fn magnitude(&mut self, low: f64, high: f64) -> u64 {
        (low * (high / low).powf(self.random.random::<f64>())) as u64
    }

    /// The next flow that ends, about 50 a second.
    pub(crate) fn flow(&mut self) -> Event {
        self.now = self.now.plus(Duration::from_micros(self.random.random_range(1..40_000)));
        let device = self.device();
        let server = self.server();
        // Most flows fetch something small; a few carry most bytes: 90 KB on average, which
        // makes 45 GB of half a million flows a day.
        let bytes_out = self.magnitude(200.0, 20_000.0);
        let bytes_in = if self.random.random_ratio(1, 200) {
            self.magnitude(1e5, 1e8)
        } else {
            self.magnitude(100.0, 1e5)
        };
        let duration = Duration::from_millis(self.magnitude(5.0, 300_000.0));
        let source_port = self.random.random_range(32_768..61_000);
        let (id, age_ms) = (self.random.random(), self.magnitude(1.0, 60_000.0));
        let Some(server) = self.servers.get(server) else { unreachable!("rank below SERVERS") };
        let tcp = server.proto == 6;
        let flow = Flow {
            id,
            phase: FlowPhase::End,
            proto: server.proto,
            src: Endpoint::new(client(device), source_port),
            dst: Endpoint::new(IpAddr::V4(server.ip), server.port),
            nat_src: Some(Endpoint::new(Ipv4Addr::new(203, 0, 113, 1).into(), source_port)),
            nat_dst: None,
            start: Some(self.now.minus(duration)),
            duration_ms: u64::try_from(duration.as_millis()).ok(),
            volume: Some(Volume {
                bytes_out,
                bytes_in,
                packets_out: bytes_out / 600 + 1,
                packets_in: bytes_in / 1_300 + 1,
            }),
            tcp_state: tcp.then_some(TcpState::TimeWait),
            replied: true,
            offloaded: false,
            iface: Some("br-lan".to_owned()),
            mac: Some(mac(device)),
            resolved: Name::parse(server.name.as_bytes())
                .ok()
                .map(|name| Resolved { name, age_ms }),
        };
        Event { time: self.now, body: Body::Flow(flow) }
    }

    /// Adds one exchange to a log as dnsmasq writes it with `log-queries=extra`; returns
    /// the number of lines.
    pub(crate) fn dns_log(&mut self, log: &mut String) -> u64 {
        self.now = self.now.plus(Duration::from_micros(self.random.random_range(1..20_000)));
        let (client, port) = (client(self.device()), self.random.random_range(1_024..65_535));
        let serial = self.random.random_range(1..4_000_000u32);
        let rank = self.server();
        let Some(server) = self.servers.get(rank) else { unreachable!("rank below SERVERS") };
        let (name, ip) = (&server.name, server.ip);
        let second = self.now.secs().rem_euclid(86_400);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let mut lines = 0;
        let mut line = |text: std::fmt::Arguments<'_>| {
            lines += 1;
            let text = format_args!("{serial} {client}/{port} {text}");
            // Writing to a String cannot fail.
            _ = writeln!(log, "Nov 23 {hour:02}:{minute:02}:{second:02} dnsmasq[731]: {text}");
        };
        let kind = self.random.random_range(0..100);
        let qtype = ["A", "A", "A", "AAAA", "HTTPS"][self.random.random_range(0..5)];
        line(format_args!("query[{qtype}] {name} from {client}"));
        match kind {
            0..12 => line(format_args!("gravity blocked {name} is 0.0.0.0")),
            12..18 => line(format_args!("cached {name} is NXDOMAIN")),
            18..55 => line(format_args!("cached {name} is {ip}")),
            _ => {
                line(format_args!("forwarded {name} to 198.51.100.53"));
                if let Some(cname) = &server.cname {
                    line(format_args!("reply {name} is <CNAME>"));
                    line(format_args!("reply {cname} is {ip}"));
                } else {
                    line(format_args!("reply {name} is {ip}"));
                }
            }
        }
        lines
    }
}

impl Server {
    fn new(random: &mut SmallRng) -> Self {
        let domain = domain(random);
        let host = ["www", "api", "cdn", "static", "img", "events", "push", "telemetry"];
        let host = host[random.random_range(0..host.len())];
        let number: u16 = random.random_range(0..500);
        let name = match random.random_range(0..4) {
            0 => domain.clone(),
            1 => format!("{host}{number}.{domain}"),
            _ => format!("{host}.{domain}"),
        };
        let cname =
            random.random_bool(0.4).then(|| format!("{host}{number}.edge.cdn{}.net", number % 9));
        let ip = Ipv4Addr::from(random.random_range(0x0b00_0000_u32..0x7f00_0000));
        let (port, proto) = match random.random_range(0..100) {
            0..70 => (443, 6),
            70..80 => (443, 17),
            80..86 => (80, 6),
            86..90 => (123, 17),
            90..93 => (5_223, 6),
            93..95 => (993, 6),
            95..97 => (853, 6),
            _ => (random.random_range(1_024..65_535), 17),
        };
        Self { name, cname, ip, port, proto }
    }
}

fn client(device: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 77, 10 + device).into()
}

fn mac(device: u8) -> Mac {
    // The range for documentation, RFC 7042 section 2.1.1.
    Mac([0x00, 0x00, 0x5e, 0x00, 0x53, device])
}

/// A pronounceable registrable name.
fn domain(random: &mut SmallRng) -> String {
    const FIRST: &[u8] = b"bcdfghklmnprstvw";
    const SECOND: &[u8] = b"aeiou";
    const TLDS: [&str; 6] = ["com", "com", "com", "net", "org", "io"];
    let mut name = String::new();
    for _ in 0..random.random_range(3..6) {
        name.push(char::from(FIRST[random.random_range(0..FIRST.len())]));
        name.push(char::from(SECOND[random.random_range(0..SECOND.len())]));
    }
    format!("{name}.{}", TLDS[random.random_range(0..TLDS.len())])
}

/// A block list of that many different names in hosts form, which has `every` n-th server
/// of `home` on it.
pub(crate) fn block_list(home: &Home, entries: usize, every: usize) -> String {
    let mut text = String::from("# made up\n");
    let mut listed = 0;
    for server in home.servers.iter().step_by(every.max(1)) {
        text.push_str(&format!("0.0.0.0 {}\n", server.name));
        listed += 1;
    }
    let mut random = SmallRng::seed_from_u64(2);
    for number in listed..entries {
        // The number makes each name different.
        text.push_str(&format!("0.0.0.0 ad{number}.{}\n", domain(&mut random)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_home() {
        let (mut one, mut two) = (Home::new(7), Home::new(7));
        for _ in 0..100 {
            assert_eq!(one.flow(), two.flow());
        }
    }

    #[test]
    fn a_log_counts_its_lines_and_a_list_has_its_entries() {
        let mut home = Home::new(1);
        let mut log = String::new();
        let lines: u64 = (0..1_000).map(|_| home.dns_log(&mut log)).sum();
        assert_eq!(log.lines().count() as u64, lines);
        let list = block_list(&home, 10_000, 20);
        let mut names: Vec<&str> = list.lines().skip(1).collect();
        names.sort_unstable();
        names.dedup();
        // Two servers may share a name by chance.
        assert!((9_950..=10_000).contains(&names.len()), "{}", names.len());
    }
}
