//! Names that look generated: rule `dga`.
//!
//! Malware that finds its master by a domain generation algorithm asks for many names that
//! nobody registered. In: DNS exchanges. Out:
//! - `burst`: a client asked for many generated-looking domains within `window_seconds`,
//!   most of which do not exist: high;
//! - `unknown names`: a client asked for very many domains that do not exist, whatever they
//!   look like (word lists escape the score): medium;
//! - a single domain, when it looks very unlike a chosen name: low, medium when it does not
//!   exist. At most [`SINGLES_MAX`] per client and window, none beside a burst.
//!
//! A score alone is no verdict: among 100,000 names a day even 1 in 1,000 is 100 alarms.
//! So a finding weighs with it whether the name exists, how many like it the client asked
//! for in vain, how many devices of this network ask for it, and since when (`known`). The
//! score looks only at the label a person or a generator chose (`label`), so that hashes
//! below a CDN's domain stay silent; labels popular elsewhere are known (`popular`).
//!
//! Budget: 0.7 us per exchange, nothing allocated for ordinary names. Invariants: at most
//! [`DOMAINS_MAX`] domains for each client and a bounded number of clients; all windows in
//! steady time.

mod known;
mod label;
pub mod model;
pub mod popular;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::clients::Clients;
use super::moment::Moment;
use super::recent::Recent;
use super::sum::Sum;
use super::{ConfigError, Found, positive, score_range};
use crate::event::Dns;
use crate::finding::Finding;
use crate::name::Name;
use crate::names::who;
use crate::time::Mono;
use known::{Known, Standing};
use label::Chosen;
pub use label::Front;
use model::Look;

/// Most domains remembered for one client.
pub const DOMAINS_MAX: usize = 128;
/// Most findings about single domains per client and `repeat_seconds`.
pub const SINGLES_MAX: u32 = 5;
/// Most (client, domain) pairs remembered as told.
const TOLD_MAX: usize = 4_096;
/// Subject of a finding about many domains that look generated.
const BURST: &str = "burst";
/// Subject of a finding about many domains that do not exist.
const UNKNOWN_NAMES: &str = "unknown names";
/// RFC 1035 section 4.1.1.
const NXDOMAIN: u16 = 3;
/// So many devices ask for what software they share asks for: one machine's malware has
/// its names to itself, or it would be in bursts.
const SHARED_DEVICES: u32 = 3;
/// A generated name is dropped within a day or two; what is asked for longer stays.
const SETTLED: Duration = Duration::from_secs(36 * 3_600);
/// What a finding's score is multiplied by for a shared and for a settled domain: each
/// brings it below what a person is told as low.
const SHARED_PART: f64 = 0.3;
const SETTLED_PART: f64 = 0.3;
/// What each further domain that looks generated and does not exist adds, and how many
/// count: more of them are on the way to a burst.
const COMPANY_PART: f64 = 0.1;
const COMPANY_MAX: u32 = 4;

/// Settings of the dga rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// From this value on a name counts towards a burst (0.5: 1 in 100 popular names).
    pub suspicious: f64,
    /// From this value on a single name is told (0.9: 1 in 1,000 popular names).
    pub strong: f64,
    /// Span in which domains are counted for a burst.
    pub window_seconds: u64,
    /// So many suspicious domains that do not exist are a burst; those the resolver
    /// refused count half, those that do exist a quarter.
    pub burst: u32,
    /// So many domains that do not exist, of any look, are told.
    pub unknown_names: u32,
    /// The same is told once in this many seconds.
    pub repeat_seconds: u64,
    /// How grave a burst is, 0 to 1.
    pub burst_score: f64,
    /// How grave very many unknown names are.
    pub unknown_score: f64,
    /// How grave a single name is that does not exist; one that does counts less.
    pub single_score: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            suspicious: 0.5,
            strong: 0.9,
            window_seconds: 600,
            burst: 8,
            unknown_names: 40,
            repeat_seconds: 3_600,
            burst_score: 0.7,
            unknown_score: 0.45,
            single_score: 0.4,
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
        for (key, n) in [("burst", self.burst), ("unknown_names", self.unknown_names)] {
            if n < 2 || n as usize > DOMAINS_MAX {
                let problem = format!("must lie between 2 and {DOMAINS_MAX}");
                return Err(ConfigError::new(key, problem));
            }
        }
        for (key, score) in [
            ("suspicious", self.suspicious),
            ("strong", self.strong),
            ("burst_score", self.burst_score),
            ("unknown_score", self.unknown_score),
            ("single_score", self.single_score),
        ] {
            score_range(key, score)?;
        }
        Ok(())
    }
}

/// What a name looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score<'a> {
    /// 0 = like any name, 1 = like nothing a person would choose; 0 where there is no label
    /// to judge. See [`model::value`].
    pub value: f64,
    /// The label judged; empty where there is none.
    pub label: &'a str,
    /// The registered domain it stands for.
    pub domain: &'a str,
    /// What the name has before that.
    pub front: Front,
}

impl Score<'_> {
    /// The features behind the value.
    #[must_use]
    pub fn look(&self) -> Look {
        model::look(self.label)
    }

    /// Whether the label stands in lists of popular names although it looks generated.
    #[must_use]
    pub fn is_popular(&self) -> bool {
        model::is_popular(self.label)
    }
}

/// Judges a name by its looks alone. Pure; nothing allocated.
#[must_use]
pub fn score(name: &Name) -> Score<'_> {
    match label::chosen(name) {
        Some(Chosen { label, domain, front }) => {
            Score { value: model::value(label, front), label, domain, front }
        }
        None => Score { value: 0.0, label: "", domain: name.as_str(), front: Front::Bare },
    }
}

/// How the look-up ended, as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// It exists, or nobody knows.
    Open,
    /// The resolver refused it.
    Refused,
    /// There is no such name.
    Missing,
}

impl Fate {
    fn of(dns: &Dns) -> Self {
        if dns.is_refused() {
            Self::Refused
        } else if dns.rcode == Some(NXDOMAIN) {
            Self::Missing
        } else {
            Self::Open
        }
    }
    /// In quarters of a missing one.
    const fn quarters(self) -> u32 {
        match self {
            Self::Open => 1,
            Self::Refused => 2,
            Self::Missing => 4,
        }
    }
}

/// A domain that counts towards a burst.
#[derive(Clone, Copy, Debug)]
struct Asked {
    domain: u64,
    when: Mono,
    fate: Fate,
    suspicious: bool,
}

#[derive(Debug, Default)]
struct Client {
    /// Oldest first, each domain once.
    asked: VecDeque<Asked>,
    singles: u32,
    singles_since: Mono,
}

impl Client {
    /// Enters a domain; one asked for again (A and AAAA, log and packet) stays one, with
    /// the worse fate.
    fn note(&mut self, new: Asked, window: Duration) {
        while self.asked.front().is_some_and(|a| new.when.since(a.when) >= window) {
            self.asked.pop_front();
        }
        if let Some(known) = self.asked.iter_mut().find(|a| a.domain == new.domain) {
            known.fate = known.fate.max(new.fate);
            return;
        }
        if self.asked.len() >= DOMAINS_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(new);
    }

    /// Suspicious domains (in quarters of a missing one, and as a number), missing ones.
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for asked in &self.asked {
            if asked.suspicious {
                counts.quarters += asked.fate.quarters();
                counts.suspicious += 1;
                counts.lost += u32::from(asked.fate == Fate::Missing);
            }
            counts.missing += u32::from(asked.fate == Fate::Missing);
        }
        counts
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    quarters: u32,
    suspicious: u32,
    /// Suspicious and missing.
    lost: u32,
    missing: u32,
}

/// What was said about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Said {
    Burst,
    UnknownNames,
    Domain(u64),
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    clients: Clients<Client>,
    known: Known,
    told: Recent<(IpAddr, Said)>,
    /// Findings about single domains left out: a burst says it, or there were too many.
    folded: u64,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            clients: Clients::new(),
            known: Known::default(),
            told: Recent::each(TOLD_MAX, config.repeat_seconds),
            folded: 0,
        }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
        self.told.every(config.repeat_seconds);
    }

    pub(super) fn on_dns(&mut self, at: Moment, dns: &Dns, found: &mut Vec<Found>) {
        if !self.config.enabled {
            return;
        }
        let (score, fate) = (score(&dns.name), Fate::of(dns));
        let mut suspicious = score.value >= self.config.suspicious;
        if score.label.is_empty() || !(suspicious || fate == Fate::Missing) {
            return;
        }
        let domain = xxh3_64(score.domain.as_bytes());
        let who = who(dns.mac, dns.client);
        let standing = suspicious.then(|| self.known.ask(domain, device(who), at.steady));
        suspicious &= standing.is_some_and(|s| !s.is_shared() && !s.is_settled());
        let client = self.clients.state(who, at.steady);
        let window = Duration::from_secs(self.config.window_seconds);
        client.note(Asked { domain, when: at.steady, fate, suspicious }, window);
        let counts = client.counts();
        self.burst(at, dns, counts, found);
        if score.value >= self.config.strong {
            let weighed = Weighed { fate, standing, lost: counts.lost };
            self.single(at, dns, &score, weighed, found);
        }
    }

    fn burst(&mut self, at: Moment, dns: &Dns, counts: Counts, found: &mut Vec<Found>) {
        let (config, who) = (&self.config, who(dns.mac, dns.client));
        let seconds = config.window_seconds;
        if counts.quarters >= config.burst * 4 && self.told.first((who, Said::Burst), at.steady) {
            let why = format!(
                "asked for {} domains within {seconds} s that look generated; latest {}",
                counts.suspicious, dns.name
            );
            found.push(tell(at, dns, BURST, config.burst_score, why, counts));
        }
        if counts.missing >= config.unknown_names
            && !self.told.contains(&(who, Said::Burst), at.steady)
            && self.told.first((who, Said::UnknownNames), at.steady)
        {
            let why = format!(
                "asked for {} domains within {seconds} s that do not exist; latest {}",
                counts.missing, dns.name
            );
            found.push(tell(at, dns, UNKNOWN_NAMES, config.unknown_score, why, counts));
        }
    }

    fn single(
        &mut self,
        at: Moment,
        dns: &Dns,
        score: &Score<'_>,
        weighed: Weighed,
        found: &mut Vec<Found>,
    ) {
        let who = who(dns.mac, dns.client);
        let key = (who, Said::Domain(xxh3_64(score.domain.as_bytes())));
        if self.told.contains(&(who, Said::Burst), at.steady) {
            self.folded += u64::from(self.told.first(key, at.steady));
            return;
        }
        if !self.told.first(key, at.steady) {
            return;
        }
        let client = self.clients.state(who, at.steady);
        let window = Duration::from_secs(self.config.repeat_seconds);
        if client.singles == 0 || at.steady.since(client.singles_since) >= window {
            (client.singles, client.singles_since) = (0, at.steady);
        }
        client.singles = client.singles.saturating_add(1);
        if client.singles > SINGLES_MAX {
            self.folded += 1;
            return;
        }
        found.push(Found { time: at.time, finding: single(&self.config, dns, score, weighed) });
    }

    /// Whether it was told that many of a device's names are missing.
    pub(super) fn told_missing(&self, device: IpAddr, now: Mono) -> bool {
        self.told.contains(&(device, Said::Burst), now)
            || self.told.contains(&(device, Said::UnknownNames), now)
    }

    /// What it would say of a single question, whoever asks and whatever was said before.
    pub(super) fn verdict(&self, dns: &Dns) -> Option<Finding> {
        let score = score(&dns.name);
        let tells =
            self.config.enabled && !score.label.is_empty() && score.value >= self.config.strong;
        let weighed = Weighed { fate: Fate::of(dns), standing: None, lost: 0 };
        tells.then(|| single(&self.config, dns, &score, weighed))
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 4] {
        [
            ("tier0.dga.clients", u64::try_from(self.clients.len()).unwrap_or(u64::MAX)),
            ("tier0.dga.evicted", self.told.evicted() + self.clients.evicted()),
            ("tier0.dga.forgotten", self.known.evicted()),
            ("tier0.dga.folded", self.folded),
        ]
    }
}

/// For [`super::sum::Sum`]: a burst says it all, unknown names all but that.
pub(super) fn sum(subject: &str) -> Option<Sum<'_>> {
    match subject {
        BURST => Some(Sum::All),
        UNKNOWN_NAMES => Some(Sum::AllBut(BURST)),
        _ => None,
    }
}

/// What is weighed with the looks of a single name.
#[derive(Clone, Copy, Debug)]
struct Weighed {
    fate: Fate,
    /// `None` where nothing of the network is known.
    standing: Option<Standing>,
    /// Domains that look generated and do not exist, of this client within the window.
    lost: u32,
}

impl Standing {
    const fn is_shared(&self) -> bool {
        self.devices >= SHARED_DEVICES
    }
    const fn is_settled(&self) -> bool {
        self.age.as_secs() >= SETTLED.as_secs()
    }
}

impl Weighed {
    /// What the score of a single name is multiplied by.
    fn part(&self) -> f64 {
        let fate = match self.fate {
            Fate::Missing => 1.0,
            Fate::Refused => 0.75,
            Fate::Open => 0.6,
        };
        let others = self.lost.saturating_sub(u32::from(self.fate == Fate::Missing));
        let company = 1.0 + COMPANY_PART * f64::from(others.min(COMPANY_MAX));
        let is = |what: fn(&Standing) -> bool| self.standing.as_ref().is_some_and(what);
        let shared = if is(Standing::is_shared) { SHARED_PART } else { 1.0 };
        let settled = if is(Standing::is_settled) { SETTLED_PART } else { 1.0 };
        fate * company * shared * settled
    }
}

/// A number for a device.
fn device(who: IpAddr) -> u64 {
    match who {
        IpAddr::V4(ip) => xxh3_64(&ip.octets()),
        IpAddr::V6(ip) => xxh3_64(&ip.octets()),
    }
}

fn single(config: &Config, dns: &Dns, score: &Score<'_>, weighed: Weighed) -> Finding {
    let look = score.look();
    let what = match weighed.fate {
        Fate::Missing => " and does not exist",
        Fate::Refused => "; the resolver refused it",
        Fate::Open => "",
    };
    let mut finding = Finding {
        rule: "dga".into(),
        subject: score.domain.to_owned(),
        client: Some(dns.client),
        mac: dns.mac,
        score: (config.single_score * weighed.part()).min(1.0),
        why: format!("asked for {}, which looks generated{what}", dns.name),
        evidence: Vec::new(),
    };
    finding = finding
        .with("label", score.label)
        .with("value", format!("{:.3}", score.value))
        .with("looks", look.words())
        .with("unusual", model::unusual(score.label).join(" "))
        .with("length", look.length)
        .with("digits", look.digits)
        .with("vowels", look.vowels)
        .with("consonants", look.consonants)
        .with("entropy", format!("{:.2}", look.entropy));
    if score.is_popular() {
        finding = finding.with("popular", "in public lists of popular names");
    }
    let first = |s: &Standing| s.devices <= 1 && s.age.as_secs() < 3_600;
    if let Some(standing) = weighed.standing.filter(|s| !first(s)) {
        let hours = standing.age.as_secs() / 3_600;
        finding = finding.with("devices", standing.devices).with("known_hours", hours);
    }
    finding.with("like_it_missing", weighed.lost).with("source", &dns.source)
}

fn tell(at: Moment, dns: &Dns, subject: &str, score: f64, why: String, counts: Counts) -> Found {
    let finding = Finding {
        rule: "dga".into(),
        subject: subject.into(),
        client: Some(dns.client),
        mac: dns.mac,
        score,
        why,
        evidence: Vec::new(),
    };
    let finding = finding
        .with("suspicious", counts.suspicious)
        .with("missing", counts.missing)
        .with("latest", &dns.name)
        .with("source", &dns.source);
    Found { time: at.time, finding }
}

#[cfg(test)]
mod tests;
