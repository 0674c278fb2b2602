//! Far more questions than usual: rule `query-rate`.
//!
//! In: DNS exchanges. Out, once per `repeat_seconds`, when a client asks in one window both
//! very often and many times as often as it usually does:
//! - `DOMAIN`: below one domain;
//! - `all names`: altogether.
//!
//! Causes: a program in a retry loop, a device that lost its server, a tunnel or a flood. A
//! device that always asks often (25,000 a day for one name is met) is as it always is: its
//! usual rate is learnt from its own windows, and an unusual window teaches only a little.
//!
//! Budget: 0.1 us per exchange, 400 kB. Invariants: a table of fixed size for (client,
//! domain), a bounded number of clients; windows in steady time.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clients::Clients;
use super::moment::Moment;
use super::question::Question;
use super::recent::Recent;
use super::sketch::{Kept, Table};
use super::{ConfigError, Found, positive, score_range};
use crate::event::Dns;
use crate::finding::Finding;
use crate::time::Mono;

/// Rows of four (client, domain) pairs.
const PAIRS_ROWS: usize = 2_048;
/// Most (client, domain) remembered as told.
const TOLD_MAX: usize = 2_048;
/// Subject of a finding about a client's questions altogether.
const ALL_NAMES: &str = "all names";

/// Settings of the query-rate rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// Span in which questions are counted.
    pub window_seconds: u64,
    /// Fewer questions of one client below one domain than this are no spike.
    pub queries: u32,
    /// Fewer questions of one client altogether than this are no spike.
    pub queries_all: u32,
    /// So many times as many as usual are a spike.
    pub times_usual: u32,
    /// The same is told once in this many seconds.
    pub repeat_seconds: u64,
    /// How grave it is, 0 to 1.
    pub score: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            window_seconds: 300,
            // Two a second for five minutes; a page with all it loads is 50 to 200.
            queries: 600,
            queries_all: 3_000,
            times_usual: 8,
            repeat_seconds: 3_600,
            score: 0.3,
        }
    }
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("window_seconds", self.window_seconds)?;
        positive("queries", u64::from(self.queries))?;
        positive("queries_all", u64::from(self.queries_all))?;
        positive("times_usual", u64::from(self.times_usual))?;
        positive("repeat_seconds", self.repeat_seconds)?;
        score_range("score", self.score)
    }
}

/// Questions in this window, and in windows before.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    since: Mono,
    count: u32,
    usual: f32,
}

impl Rate {
    /// Counts one; true when that makes it a spike.
    fn count(&mut self, at: Mono, config: &Config, least: u32) -> bool {
        let window = Duration::from_secs(config.window_seconds);
        let windows = at.since(self.since).as_secs() / config.window_seconds;
        if self.count > 0 && windows > 0 {
            self.learn(windows, least);
        }
        if self.count == 0 || at.since(self.since) >= window {
            (self.since, self.count) = (at, 0);
        }
        self.count = self.count.saturating_add(1);
        self.count >= least && self.count as f32 >= self.usual * config.times_usual as f32
    }

    /// A window is over, and some in which nothing was asked. What is far above the usual
    /// teaches little, so that a flood does not become usual at once.
    fn learn(&mut self, windows: u64, least: u32) {
        let seen = (self.count as f32).min(self.usual * 2.0 + least as f32 / 4.0);
        self.usual += (seen - self.usual) / 4.0;
        // Silence lowers it more slowly than questions raise it: devices sleep.
        let silent = i32::try_from(windows.saturating_sub(1).min(1_000)).unwrap_or(0);
        self.usual *= 0.98f32.powi(silent);
    }
}

impl Kept for Rate {
    fn worth(&self, at: Mono) -> f32 {
        let old = at.since(self.since).as_secs_f32() / 3_600.0;
        (self.count as f32 + self.usual) * (-old).exp2()
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    pairs: Table<Rate>,
    clients: Clients<Rate>,
    told: Recent<(IpAddr, u64)>,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            pairs: Table::new(PAIRS_ROWS),
            clients: Clients::new(),
            told: Recent::each(TOLD_MAX, config.repeat_seconds),
        }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
        self.told.every(config.repeat_seconds);
    }

    pub(super) fn on_dns(
        &mut self,
        at: Moment,
        dns: &Dns,
        question: &Question<'_>,
        found: &mut Vec<Found>,
    ) {
        let config = &self.config;
        if !config.enabled {
            return;
        }
        let (pair, _) = self.pairs.entry(question.pair(), at.steady);
        if pair.count(at.steady, config, config.queries)
            && self.told.first((question.device, question.domain_hash), at.steady)
        {
            found.push(tell(at, config, dns, question.domain, question.domain, *pair));
        }
        let all = self.clients.state(question.device, at.steady);
        if all.count(at.steady, config, config.queries_all)
            && self.told.first((question.device, 0), at.steady)
        {
            found.push(tell(at, config, dns, ALL_NAMES, "anything", *all));
        }
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 2] {
        [
            ("tier0.query_rate.evicted", self.pairs.evicted() + self.clients.evicted()),
            ("tier0.query_rate.pairs", u64::try_from(self.pairs.len()).unwrap_or(u64::MAX)),
        ]
    }
}

fn tell(at: Moment, config: &Config, dns: &Dns, subject: &str, what: &str, rate: Rate) -> Found {
    let finding = Finding {
        rule: "query-rate".into(),
        subject: subject.into(),
        client: Some(dns.client),
        mac: dns.mac,
        score: config.score,
        why: format!(
            "asked for {what} {} times within {} s, usually {:.0} times; latest {}",
            rate.count,
            at.steady.since(rate.since).as_secs().max(1),
            rate.usual,
            dns.name
        ),
        evidence: Vec::new(),
    };
    let finding = finding
        .with("queries", rate.count)
        .with("usual", format!("{:.0}", rate.usual))
        .with("window_seconds", config.window_seconds)
        .with("source", &dns.source);
    Found { time: at.time, finding }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier0::Tier0Config;
    use crate::tier0::tests::{Script, dns};

    fn script() -> Script {
        Script::new(Tier0Config::default(), "query-rate")
    }

    /// `each` questions every second.
    fn ask(s: &mut Script, seconds: std::ops::Range<i64>, each: u32, name: &str) {
        for second in seconds {
            (0..each).for_each(|_| s.dns(second, dns("192.168.1.5", name, &["203.0.113.9"])));
        }
    }

    #[test]
    fn a_retry_loop_is_told_once() {
        let mut s = script();
        ask(&mut s, 0..1_000, 3, "api.shop.example");
        s.said(&["shop.example"]);
    }

    #[test]
    fn a_device_that_always_asks_often_is_as_it_always_is() {
        let mut s = script();
        // 29,000 a day.
        (0..6_000).step_by(3).for_each(|n| ask(&mut s, n..n + 1, 1, "mail.shop.example"));
        s.said(&[]);
        // Four times as often on one evening.
        ask(&mut s, 6_000..6_400, 2, "mail.shop.example");
        s.said(&[]);
        ask(&mut s, 6_400..6_700, 10, "mail.shop.example");
        s.said(&["shop.example"]);
    }

    #[test]
    fn many_domains_altogether() {
        let mut s = script();
        for i in 0..4_000 {
            let name = format!("www.n{}.example", i % 500);
            s.dns(i / 16, dns("192.168.1.5", &name, &["203.0.113.9"]));
        }
        s.said(&["all names"]);
    }

    #[test]
    fn a_flood_does_not_become_usual_at_once() {
        let mut rate = Rate { count: 30_000, usual: 10.0, ..Rate::default() };
        rate.learn(1, 600);
        assert!(rate.usual < 60.0, "{rate:?}");
    }
}
