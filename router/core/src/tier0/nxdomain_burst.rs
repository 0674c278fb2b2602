//! Many names that do not exist: rule `nxdomain-burst`.
//!
//! In: DNS exchanges and how they ended. Out, per client and once per `repeat_seconds`:
//! - `burst`: many missing names in many domains: a generator of names, whatever they look
//!   like, or a program that lost its servers; graver when most look generated. Not beside
//!   what rule `dga` says of missing names: it needs more domains, and says more;
//! - `below DOMAIN`: many missing names below few domains: somebody guesses host names
//!   (ATT&CK T1590.002), or floods a domain's servers through ours.
//!
//! What answers "no such name" as a matter of course does not count: names put together
//! with a search list, service discovery, reverse look-ups and blocklists' addresses and
//! fingerprints, single labels (browsers test resolvers with such), what the resolver itself
//! refused. A mistyped name and its repeats is one name.
//!
//! Budget: 0.1 us per exchange, 0.6 us for a missing name. Invariants: 250 bytes a client, a
//! bounded number of clients; the window slides by halves, in steady time.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clients::Clients;
use super::moment::Moment;
use super::question::{Question, is_fingerprint};
use super::recent::Recent;
use super::sketch::Distinct;
use super::{ConfigError, Found, dga, positive, score_range};
use crate::event::Dns;
use crate::finding::Finding;
use crate::time::Mono;

/// Most (client, kind) remembered as told.
const TOLD_MAX: usize = 2_048;
/// Most different names a sketch counts well.
const NAMES_MOST: u32 = 300;
/// RFC 1035 section 4.1.1.
const NXDOMAIN: u16 = 3;
/// Subject of a finding about many domains.
const BURST: &str = "burst";

/// Settings of the nxdomain-burst rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// Span in which names are counted.
    pub window_seconds: u64,
    /// So many different missing names in at least half as many domains are a burst.
    pub names: u32,
    /// So many different missing names below few domains are somebody guessing.
    pub names_of_few: u32,
    /// The same is told once in this many seconds.
    pub repeat_seconds: u64,
    /// How grave it is, 0 to 1.
    pub score: f64,
    /// How grave a burst is in which most names look generated.
    pub generated_score: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            window_seconds: 300,
            names: 50,
            names_of_few: 100,
            repeat_seconds: 3_600,
            score: 0.45,
            generated_score: 0.6,
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
        positive("repeat_seconds", self.repeat_seconds)?;
        for (key, n) in [("names", self.names), ("names_of_few", self.names_of_few)] {
            if !(4..=NAMES_MOST).contains(&n) {
                return Err(ConfigError::new(key, format!("must lie between 4 and {NAMES_MOST}")));
            }
        }
        score_range("score", self.score)?;
        score_range("generated_score", self.generated_score)
    }
}

/// Different missing names in half a window.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    names: Distinct,
    domains: Distinct,
    generated: Distinct,
}

/// One client's window.
#[derive(Debug, Default)]
struct Client {
    since: Mono,
    now: Half,
    before: Half,
}

#[derive(Clone, Copy, Debug)]
struct Counts {
    names: u32,
    domains: u32,
    generated: u32,
}

impl Client {
    fn note(&mut self, at: Mono, half: Duration, question: &Question<'_>, generated: bool) {
        let passed = at.since(self.since);
        if passed >= half {
            self.before = if passed < half * 2 { self.now } else { Half::default() };
            (self.now, self.since) = (Half::default(), at);
        }
        self.now.names.insert(question.name_hash);
        self.now.domains.insert(question.domain_hash);
        if generated {
            self.now.generated.insert(question.domain_hash);
        }
    }

    fn counts(&self) -> Counts {
        let both = |of: fn(&Half) -> Distinct| of(&self.now).with(of(&self.before)).count();
        Counts {
            names: both(|half| half.names),
            domains: both(|half| half.domains),
            generated: both(|half| half.generated),
        }
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    clients: Clients<Client>,
    /// Client and, for guessing, the domain.
    told: Recent<(IpAddr, u64)>,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
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
        told_already: bool,
        found: &mut Vec<Found>,
    ) {
        if !self.config.enabled || dns.rcode != Some(NXDOMAIN) || is_usual(dns, question) {
            return;
        }
        let config = &self.config;
        let half = Duration::from_millis(config.window_seconds.saturating_mul(500));
        let generated = dga::score(&dns.name).value >= 0.5;
        let client = self.clients.state(question.device, at.steady);
        client.note(at.steady, half, question, generated);
        let counts = client.counts();
        let many_domains = counts.domains * 2 >= config.names;
        if counts.names >= config.names && many_domains {
            if !told_already && self.told.first((question.device, 0), at.steady) {
                let finding = burst(config, dns, counts);
                found.push(Found { time: at.time, finding });
            }
        } else if counts.names >= config.names_of_few
            && !many_domains
            && self.told.first((question.device, question.domain_hash), at.steady)
        {
            let finding = guessing(config, dns, question, counts);
            found.push(Found { time: at.time, finding });
        }
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 2] {
        let clients = u64::try_from(self.clients.len()).unwrap_or(u64::MAX);
        [
            ("tier0.nxdomain_burst.clients", clients),
            ("tier0.nxdomain_burst.evicted", self.clients.evicted() + self.told.evicted()),
        ]
    }
}

/// Asked for by programs that expect a no.
fn is_usual(dns: &Dns, question: &Question<'_>) -> bool {
    question.leads_nowhere()
        || dns.is_refused()
        || question.is_glued()
        || question.has_address()
        || question.is_service()
        || question.sub.split('.').any(is_fingerprint)
}

fn burst(config: &Config, dns: &Dns, counts: Counts) -> Finding {
    let generated = counts.generated * 2 >= counts.domains;
    let score = if generated { config.generated_score } else { config.score };
    let looks = if generated { ", most of which look generated" } else { "" };
    let why = format!(
        "asked for about {} names in {} domains within {} s that do not exist{looks}; latest {}",
        counts.names, counts.domains, config.window_seconds, dns.name
    );
    tell(dns, BURST.into(), score, why, counts)
}

fn guessing(config: &Config, dns: &Dns, question: &Question<'_>, counts: Counts) -> Finding {
    let why = format!(
        "asked for about {} names within {} s that do not exist, below {} and few other domains: \
         it guesses names, or floods the domain's servers",
        counts.names, config.window_seconds, question.domain
    );
    tell(dns, format!("below {}", question.domain), config.score, why, counts)
}

fn tell(dns: &Dns, subject: String, score: f64, why: String, counts: Counts) -> Finding {
    let finding = Finding {
        rule: "nxdomain-burst".into(),
        subject,
        client: Some(dns.client),
        mac: dns.mac,
        score,
        why,
        evidence: Vec::new(),
    };
    let share = f64::from(counts.generated.min(counts.domains)) / f64::from(counts.domains.max(1));
    finding
        .with("names", counts.names)
        .with("domains", counts.domains)
        .with("generated_share", format!("{share:.2}"))
        .with("latest", &dns.name)
        .with("source", &dns.source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier0::Tier0Config;
    use crate::tier0::tests::{Script, dns};

    fn missing(client: &str, name: &str) -> Dns {
        Dns { rcode: Some(NXDOMAIN), ..dns(client, name, &[]) }
    }

    /// `n` missing names, two a second, made by `name`.
    #[track_caller]
    fn check(n: i64, name: impl Fn(i64) -> String, expected: &[&str]) {
        let mut s = Script::new(Tier0Config::default(), "nxdomain-burst");
        for i in 0..n {
            s.dns(i / 2, missing("192.168.1.5", &name(i)));
            s.dns(i / 2, missing("192.168.1.5", &name(i)));
        }
        s.said(expected);
    }

    fn word(i: i64) -> String {
        let part =
            |n: i64| ["red", "blue", "lamp", "chair", "house", "river", "stone"][n as usize % 7];
        format!("{}{}{}", part(i), part(i / 7), part(i / 49))
    }

    #[test]
    fn words_that_nobody_registered() {
        check(60, |i| format!("n{}.{}.example", i, word(i % 30)), &["burst"]);
        check(40, |i| format!("n{}.{}.example", i, word(i % 30)), &[]);
        // Rule dga tells of forty domains.
        check(60, |i| format!("{}.example", word(i)), &[]);
    }

    #[test]
    fn host_names_guessed() {
        check(130, |i| format!("{}.shop.example", word(i)), &["below shop.example"]);
        check(80, |i| format!("{}.shop.example", word(i)), &[]);
    }

    #[test]
    fn noes_as_a_matter_of_course() {
        check(200, |i| format!("www.{}.com.house.example", word(i)), &[]);
        check(200, |i| format!("{}.{}.3.192.list.example", i % 256, i / 256), &[]);
        check(200, |i| format!("{}.2.0.192.in-addr.arpa", i), &[]);
        check(200, |i| format!("{:032x}.av.example", i * 0x1234_5678_9abc), &[]);
        check(200, word, &[]);
        check(200, |i| format!("{}.local", word(i)), &[]);
        check(200, |i| format!("wwww{}.example", i % 3), &[]);
    }

    #[test]
    fn slowly_is_no_burst() {
        let mut s = Script::new(Tier0Config::default(), "nxdomain-burst");
        for i in 0..200 {
            s.dns(i * 20, missing("192.168.1.5", &format!("{}.example", word(i))));
        }
        s.said(&[]);
    }

    #[track_caller]
    fn generated(config: Tier0Config) -> Script {
        let mut s = Script::new(config, "nxdomain-burst");
        let mut random = 7u64;
        for i in 0..60 {
            let mut letter = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'a' + u8::try_from((random >> 33) % 26).unwrap())
            };
            let label: String = (0..16).map(|_| letter()).collect();
            s.dns(i, missing("192.168.1.5", &format!("{label}.example")));
        }
        s
    }

    #[test]
    fn most_look_generated() {
        generated(Tier0Config::default()).said(&[]);
        let mut config = Tier0Config::default();
        config.dga.enabled = false;
        let s = generated(config);
        let found = s.found.iter().find(|f| f.finding.rule == "nxdomain-burst").unwrap();
        assert!(found.finding.why.contains("look generated"), "{}", found.finding.why);
        assert!(found.finding.score >= 0.6);
    }
}
