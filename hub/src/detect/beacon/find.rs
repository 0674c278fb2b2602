//! Beacons of a span: services read, their rhythms, their ranks.
//!
//! In: a connection to read on, the end of the span, what is known of networks. Out:
//! [`Beacon`]s, highest rank first. Two spans are looked at: the last day for all that beats
//! within it, the last two weeks for what beats slower ([`Span`]). Scores on all cores;
//! budget: 10M flows of a day in 10 s on two.

use std::net::IpAddr;
use std::num::NonZero;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Severity;
use duckdb::Connection;

use super::rank::{Facts, Rank, SCORE_MAX, rank};
use super::rhythm::{Rhythm, rhythm_from};
use super::services::{self, Service, Services, TIMES_MIN, Target, Use};
use crate::destinations::Destinations;
use crate::store::StoreError;

/// What one look covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Periods up to a few hours.
    Day,
    /// Periods from there to a day.
    Fortnight,
}

impl Span {
    /// How far back it looks.
    #[must_use]
    pub const fn length(self) -> Duration {
        match self {
            Self::Day => Duration::from_secs(86_400),
            Self::Fortnight => Duration::from_secs(14 * 86_400),
        }
    }

    /// Seconds within which things are one.
    const fn grain(self) -> u32 {
        match self {
            Self::Day => 1,
            Self::Fortnight => 600,
        }
    }

    /// Periods that are this one's to find, in seconds.
    fn holds(self, period: f64) -> bool {
        match self {
            Self::Day => period <= 4.0 * 3_600.0,
            Self::Fortnight => period > 2.5 * 3_600.0,
        }
    }
}

/// By what the rhythm was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// Connections.
    #[default]
    Flows,
    /// Questions to DNS.
    Dns,
    /// All names of a domain, connections and questions.
    Domain,
}

impl Via {
    /// The word shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Dns => "dns",
            Self::Domain => "domain",
        }
    }
}

/// One device and one service, the part of it that beats most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beacon {
    /// MAC, or address.
    pub device: String,
    /// One of its addresses.
    pub client: Option<IpAddr>,
    /// Name, address or domain.
    pub target: String,
    /// What it was heard by.
    pub via: Via,
    /// How it beats.
    pub rhythm: Rhythm,
    /// How much that matters.
    pub rank: Rank,
    /// First and last time, in seconds since 1970.
    pub seen: (i64, i64),
    /// Connections or questions.
    pub events: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Devices that use the service.
    pub devices: usize,
    /// The only port.
    pub port: Option<u16>,
    /// The kind of network.
    pub network: Option<&'static str>,
}

impl Beacon {
    /// What a finding of it would say.
    #[must_use]
    pub fn severity(&self) -> Severity {
        Severity::from_score(self.rank.rank * SCORE_MAX)
    }
}

/// Beacons of the spans ending `now` that score at least `score`.
///
/// # Errors
/// What DuckDB says.
pub fn find(
    db: &Connection,
    now: Timestamp,
    spans: &[Span],
    networks: &Destinations,
    score: f64,
) -> Result<Vec<Beacon>, StoreError> {
    let mut found = Vec::new();
    for span in spans {
        let (from, grain) = (now.minus(span.length()), span.grain());
        let services = services::read_times(db, from, now, grain)?;
        let mut all: Vec<(Service, Heard)> = rhythms(services.all, score);
        all.retain(|(_, heard)| span.holds(heard.rhythm.period));
        services::details(db, from, now, grain, all.iter_mut().map(|(service, _)| service))?;
        found.extend(all.into_iter().map(|(service, heard)| beacon(&service, heard, networks)));
    }
    best(&mut found);
    Ok(found)
}

/// Highest first; of one device and target the first alone.
fn best(found: &mut Vec<Beacon>) {
    let order = |a: &Beacon, b: &Beacon| {
        let by_score = b.rhythm.score.total_cmp(&a.rhythm.score);
        let by_rank = b.rank.rank.total_cmp(&a.rank.rank).then(by_score);
        by_rank.then_with(|| (&a.device, &a.target).cmp(&(&b.device, &b.target)))
    };
    found.sort_by(order);
    let mut known = std::collections::HashSet::new();
    found.retain(|b| known.insert((b.device.clone(), b.target.clone())));
}

/// Those of the services that beat.
#[must_use]
pub fn hear(services: &Services, networks: &Destinations, score: f64) -> Vec<Beacon> {
    let of = |service: &Service| Some(beacon(service, loudest(service, score)?, networks));
    on_all_cores(services.all.iter().collect(), of)
}

/// The services that beat, and how.
fn rhythms(services: Vec<Service>, score: f64) -> Vec<(Service, Heard)> {
    on_all_cores(services, |service| {
        let heard = loudest(&service, score)?;
        Some((service, heard))
    })
}

fn on_all_cores<T: Send, R: Send>(all: Vec<T>, of: impl Fn(T) -> Option<R> + Sync) -> Vec<R> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let chunk = all.len().div_ceil(workers * 64).max(1);
    let next = std::sync::Mutex::new(all.into_iter());
    let work = || {
        let mut found = Vec::new();
        loop {
            let mut next = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let part: Vec<T> = next.by_ref().take(chunk).collect();
            drop(next);
            if part.is_empty() {
                return found;
            }
            found.extend(part.into_iter().filter_map(&of));
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let parts = workers.into_iter().map(|w| w.join().expect("scoring never panics"));
        parts.flatten().collect()
    })
}

/// What was heard of a service.
struct Heard {
    rhythm: Rhythm,
    target: String,
    via: Via,
}

/// What of a service beats most clearly: a name's connections, its questions, or all names of
/// the domain together.
fn loudest(service: &Service, least: f64) -> Option<Heard> {
    let mut best: Option<(Rhythm, &str, Via)> = None;
    let mut look = |times: &[i64], target, via| {
        if times.len() < TIMES_MIN {
            return;
        }
        let Some(heard) = rhythm_from(times, least) else { return };
        let clearer = |(known, ..): &(Rhythm, &str, Via)| {
            (heard.score, heard.ahead) > (known.score, known.ahead)
        };
        if heard.score >= least && best.as_ref().is_none_or(clearer) {
            best = Some((heard, target, via));
        }
    };
    for (name, target) in &service.targets {
        for (using, via) in [(&target.flows, Via::Flows), (&target.questions, Via::Dns)] {
            look(using.as_ref().map_or(&[][..], |u| &u.times), name, via);
        }
    }
    if service.targets.len() > 1 {
        let all: Vec<i64> = uses(service, None).flat_map(|u| &u.times).copied().collect();
        look(&all, &service.group, Via::Domain);
    }
    let (rhythm, target, via) = best?;
    Some(Heard { rhythm, target: target.to_owned(), via })
}

/// How the service was used: by that name, or by all.
fn uses<'a>(service: &'a Service, name: Option<&'a str>) -> impl Iterator<Item = &'a Use> {
    let named = service.targets.iter().filter(move |(n, _)| name.is_none_or(|name| name == *n));
    let both = |(_, target): (_, &'a Target)| [&target.flows, &target.questions];
    named.flat_map(both).filter_map(|using| using.as_deref())
}

fn beacon(service: &Service, heard: Heard, networks: &Destinations) -> Beacon {
    let Heard { rhythm, target, via } = heard;
    let target = target.as_str();
    let name = (via != Via::Domain).then_some(target);
    let using = || uses(service, name);
    let address = using().find_map(|u| u.address);
    let class = address.map(|ip| networks.of(ip).class);
    let times = || using().flat_map(|u| &u.times).copied();
    let (bytes_out, bytes_in) =
        using().fold((0, 0), |(out, inward), u| (out + u.bytes_out, inward + u.bytes_in));
    let ports = using().filter_map(|u| u.ports);
    let ports = ports.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    let facts = Facts {
        target,
        named: service.named,
        devices: service.devices,
        names: service.targets.len(),
        ports,
        class,
        ttl: using().filter_map(|u| u.ttl).max(),
        flows: ports.is_some(),
        spread: using().map(|u| u.spread).fold(0.0, f64::max),
        bytes: (bytes_out + bytes_in) as f64 / rhythm.beats.max(1) as f64,
    };
    Beacon {
        device: service.device.clone(),
        client: service.client,
        target: target.to_owned(),
        via,
        rank: rank(&rhythm, &facts),
        rhythm,
        seen: (times().min().unwrap_or(0), times().max().unwrap_or(0)),
        events: using().map(|u| u.times.len() as u64).sum(),
        bytes_out,
        bytes_in,
        devices: service.devices,
        port: ports.filter(|(low, high)| low == high).map(|(low, _)| low),
        network: class.map(crate::destinations::Class::as_str),
    }
}

#[cfg(test)]
mod tests {
    use super::super::detector::Detector;
    use super::super::synth::{self, Beat};
    use super::*;
    use crate::detect::Windowed as _;
    use crate::store::{Limits, open_write};
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    /// Noon of a day whose hour is one of those that look at two weeks.
    const NOW: i64 = 1_795_176_000;
    const DAY: f64 = 86_400.0;

    /// A store on disk, and a source of times.
    struct House {
        db: Connection,
        rng: StdRng,
        peers: u32,
        _dir: tempfile::TempDir,
    }

    impl House {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let db = open_write(dir.path(), &Limits::default()).unwrap();
            Self { db, rng: StdRng::seed_from_u64(3), peers: 0, _dir: dir }
        }

        /// Within the last `days`.
        fn beats(&mut self, period: f64, jitter: f64, days: f64) -> Vec<i64> {
            let beat = Beat { period, jitter, missed: 0.0 };
            let times = synth::beats(&mut self.rng, beat, days * DAY);
            times.into_iter().map(|t| t + NOW - (days * DAY) as i64).collect()
        }

        /// Connections of device `n`; `name` where it had asked for one.
        fn flows(&mut self, n: u8, name: Option<&str>, dst: &str, port: u16, times: &[i64]) {
            self.peers += 1;
            let peer = self.peers;
            self.db
                .execute("INSERT INTO peers VALUES (?, ?, ?)", duckdb::params![peer, dst, name])
                .unwrap();
            let sql = format!(
                "INSERT INTO flows_done BY NAME SELECT make_timestamp(t * 1000000 + 500000) AS time,
                     1 AS sensor, 6 AS proto, '192.168.7.{n}' AS src, 50000 AS sport,
                     {peer} AS peer, {port} AS dport, true AS replied, false AS offloaded,
                     make_timestamp(t * 1000000) AS start, 420 AS bytes_out, 640 AS bytes_in,
                     '00:00:5e:00:53:{n:02x}' AS mac
                 FROM (SELECT unnest({times:?}::BIGINT[]) AS t)"
            );
            self.db.execute_batch(&sql).unwrap();
        }

        /// Questions of device `n`, each for the next of the names.
        fn asks(&mut self, n: u8, name: &dyn Fn(usize) -> String, ttl: u32, times: &[i64]) {
            for (i, time) in times.iter().enumerate() {
                let name = name(i);
                let sql = format!(
                    "INSERT INTO dns_hot BY NAME SELECT make_timestamp({time}::BIGINT * 1000000) AS time,
                         1 AS sensor, '192.168.7.{n}' AS client,
                         '00:00:5e:00:53:{n:02x}' AS mac, '{name}' AS name, '{name}' AS domain,
                         1 AS qtype, 'forwarded' AS status, {ttl} AS ttl, 'test' AS source"
                );
                self.db.execute_batch(&sql).unwrap();
            }
        }

        fn found(&self) -> Vec<Beacon> {
            let spans = [Span::Day, Span::Fortnight];
            let networks = Destinations::built_in();
            find(&self.db, Timestamp::from_secs(NOW), &spans, &networks, 0.9).unwrap()
        }

        fn findings(&self) -> Vec<String> {
            let found = Detector::default().run(&self.db, Timestamp::from_secs(NOW)).unwrap();
            let mut subjects: Vec<String> = found.into_iter().map(|f| f.subject).collect();
            subjects.sort();
            subjects
        }
    }

    /// The same rhythm, with and without something that explains it.
    #[test]
    fn a_beacon_is_found_and_its_twins_are_not() {
        let mut house = House::new();
        let times = house.beats(300.0, 0.1, 1.0);
        house.flows(1, Some("status.quiet.example"), "203.0.113.9", 443, &times);
        let times = house.beats(600.0, 0.3, 1.0);
        house.flows(2, None, "203.0.113.77", 8_443, &times);
        // Time, mail, push, what everybody does, what a cache does.
        let times = house.beats(1_024.0, 0.05, 1.0);
        house.flows(3, None, "203.0.113.123", 123, &times);
        house.flows(3, Some("imap.post.example"), "203.0.113.25", 993, &times);
        house.flows(3, Some("line.phone.example"), "203.0.113.52", 5_228, &times);
        for n in 4..8 {
            let times = house.beats(240.0, 0.2, 1.0);
            house.flows(n, Some("sync.maker.example"), "203.0.113.31", 443, &times);
        }
        let times = house.beats(330.0, 0.05, 1.0);
        house.asks(8, &|_| "feed.news.example".to_owned(), 300, &times);
        // Somebody reads.
        let times: Vec<i64> = synth::sessions(&mut house.rng, 5_400.0, DAY)
            .iter()
            .map(|t| t + NOW - 86_400)
            .collect();
        house.flows(9, Some("www.paper.example"), "203.0.113.80", 443, &times);
        assert_eq!(house.findings(), ["203.0.113.77", "status.quiet.example"]);
        // All that beats is shown all the same.
        let shown: Vec<String> = house.found().into_iter().map(|b| b.target).collect();
        for target in
            ["203.0.113.123", "imap.post.example", "sync.maker.example", "feed.news.example"]
        {
            assert!(shown.iter().any(|t| t == target), "{target}: {shown:?}");
        }
        assert!(!shown.iter().any(|t| t == "www.paper.example"), "{shown:?}");
    }

    /// Each beat asks for another name: only the domain beats.
    #[test]
    fn questions_for_ever_new_names_are_heard_as_their_domain() {
        let mut house = House::new();
        let times = house.beats(900.0, 0.2, 1.0);
        house.asks(1, &|i| format!("x{i}.drop.example"), 5, &times);
        let found = house.found();
        let told: Vec<_> = found.iter().map(|b| (b.target.as_str(), b.via)).collect();
        assert_eq!(told, [("drop.example", Via::Domain)]);
        assert!((found[0].rhythm.period - 900.0).abs() < 60.0, "{:?}", found[0].rhythm);
        assert_eq!(found[0].devices, 1);
    }

    /// Ports and addresses of one service are one, and what is slow needs the longer span.
    #[test]
    fn services_are_whole_and_slow_ones_are_heard() {
        let mut house = House::new();
        let times = house.beats(1_800.0, 0.1, 1.0);
        for (k, part) in [(0usize, 443), (1, 8_443)] {
            let part_times: Vec<i64> = times.iter().copied().skip(k).step_by(2).collect();
            let dst = format!("203.0.113.{}", 40 + k);
            house.flows(1, Some("two.ports.example"), &dst, part, &part_times);
        }
        let times = house.beats(43_200.0, 0.1, 14.0);
        house.flows(2, Some("slow.example.com"), "203.0.113.60", 443, &times);
        let found = house.found();
        let told: Vec<_> = found
            .iter()
            .map(|b| (b.target.as_str(), (b.rhythm.period / 1_800.0).round(), b.port))
            .collect();
        assert!(told.contains(&("two.ports.example", 1.0, None)), "{told:?}");
        assert!(told.contains(&("slow.example.com", 24.0, Some(443))), "{told:?}");
    }

    /// What a finding says is what a person needs to look for it.
    #[test]
    fn a_finding_says_what_how_often_and_who() {
        let mut house = House::new();
        let times = house.beats(300.0, 0.0, 1.0);
        house.flows(1, Some("status.quiet.example"), "203.0.113.9", 443, &times);
        let found = Detector::default().run(&house.db, Timestamp::from_secs(NOW)).unwrap();
        let [finding] = found.as_slice() else { panic!("{found:?}") };
        assert!(finding.why.starts_with("calls status.quiet.example about every 5 min"));
        assert_eq!(finding.mac.unwrap().to_string(), "00:00:5e:00:53:01");
        assert!((0.6..=SCORE_MAX).contains(&finding.score), "{finding:?}");
        let said = |key: &str| finding.evidence.iter().find(|(k, _)| k == key).map(|(_, v)| v);
        assert_eq!(said("period_s").unwrap(), "300");
        assert!(said("because").unwrap().contains("same few bytes"));
    }
}
