//! Names on a list: rule `blocklist`.
//!
//! In: DNS exchanges, and the lists ([`Blocklist`], built once per start or reload). Out: a
//! finding when the name asked for, or a name its answer leads to (CNAME), is listed: once
//! per client and entry within `repeat_seconds`. A name that the resolver itself refused
//! counts half: the attempt is worth telling, but it was stopped.
//!
//! Budget: 0.3 us for a name that is not listed, nothing allocated.
//!
//! Invariants: an entry covers the name and all below it, on label boundaries; exemptions
//! of the configuration win over every list; the finding says which list and which entry.

mod builder;
mod compile;
mod format;
#[cfg(test)]
mod list_tests;
mod punycode;
mod set;
mod syntax;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::moment::Moment;
use super::recent::Recent;
use super::{ConfigError, Found, positive, score_range};
use crate::event::{Answer, Dns};
use crate::finding::Finding;
use crate::name::Name;
use crate::names::who;

pub use builder::{Builder, LINE_BYTES_MAX, ListReport};
pub use compile::{PORTION_NAMES, Read, compile};
pub use format::{Check, FOOTER_BYTES, Footer, FormatError};
pub use set::{Blocklist, Bytes, Hit, LISTS_MAX};

/// Raised whenever a list's text comes to mean something else: what was compiled before is
/// then compiled again.
pub const RULES_VERSION: u32 = 1;
/// Most (client, entry) pairs remembered as told.
const TOLD_MAX: usize = 8_192;
/// What a refused query counts of its list's score.
const STOPPED: f64 = 0.5;

/// Settings of the blocklist rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// The lists: hosts files, plain domains, adblock, dnsmasq, unbound or RPZ syntax.
    pub lists: Vec<ListConfig>,
    /// Names that are never reported, with all below them.
    pub allow: Vec<String>,
    /// Most names over all lists; a million takes 8.3 MB of file, mapped.
    pub entries_max: usize,
    /// The same client and entry are reported once in this many seconds.
    pub repeat_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            lists: Vec::new(),
            allow: Vec::new(),
            // The longest public lists hold about 3 million names.
            entries_max: 4_000_000,
            repeat_seconds: 3_600,
        }
    }
}

/// One list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListConfig {
    /// What findings call it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// How grave a hit is, 0 to 1: from 0.2 low, 0.4 medium, 0.6 high, above 0.8 critical.
    pub score: f64,
}

impl Default for ListConfig {
    fn default() -> Self {
        Self { name: String::new(), path: PathBuf::new(), score: 0.8 }
    }
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.lists.len() > LISTS_MAX {
            return Err(ConfigError::new("lists", format!("at most {LISTS_MAX} lists")));
        }
        for (i, list) in self.lists.iter().enumerate() {
            let key = |field: &str| format!("lists[{i}].{field}");
            if list.name.is_empty() || !list.name.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(ConfigError::new(key("name"), "must be a printable word"));
            }
            if list.path.as_os_str().is_empty() {
                return Err(ConfigError::new(key("path"), "must name a file"));
            }
            score_range(&key("score"), list.score)?;
        }
        for (i, name) in self.allow.iter().enumerate() {
            Name::parse(name.as_bytes())
                .map_err(|e| ConfigError::new(format!("allow[{i}]"), format!("`{name}`: {e}")))?;
        }
        positive("entries_max", self.entries_max as u64)?;
        positive("repeat_seconds", self.repeat_seconds)
    }

    /// A builder with this configuration's maximum and exemptions; the lists' texts are
    /// read by whoever may do I/O and added with [`Builder::list`].
    #[must_use]
    pub fn builder(&self) -> Builder {
        let mut builder = Builder::new(self.entries_max);
        self.allow_in(&mut builder);
        builder
    }

    fn allow_in(&self, builder: &mut Builder) {
        for name in self.allow.iter().filter_map(|n| Name::parse(n.as_bytes()).ok()) {
            builder.allow(&name);
        }
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    enabled: bool,
    lists: Blocklist,
    /// (client, entry, refused by the resolver).
    told: Recent<(IpAddr, u64, bool)>,
}

impl Detector {
    pub(super) fn new(config: &Config, lists: Blocklist) -> Self {
        let window = Duration::from_secs(config.repeat_seconds);
        Self { enabled: config.enabled, lists, told: Recent::new(TOLD_MAX, window) }
    }

    pub(super) fn reconfigure(&mut self, config: &Config, lists: Blocklist) {
        self.enabled = config.enabled;
        self.lists = lists;
        self.told.reconfigure(TOLD_MAX, Duration::from_secs(config.repeat_seconds));
    }

    pub(super) fn on_dns(&mut self, at: Moment, dns: &Dns, found: &mut Vec<Found>) {
        if !self.enabled || self.lists.is_empty() {
            return;
        }
        self.check(at, dns, &dns.name, found);
        for answer in &dns.answers {
            if let Answer::Cname(name) = answer {
                self.check(at, dns, name, found);
            }
        }
    }

    fn check(&mut self, at: Moment, dns: &Dns, name: &Name, found: &mut Vec<Found>) {
        let Some(hit) = self.lists.lookup(name) else { return };
        let stopped = dns.is_refused();
        let key = (who(dns.mac, dns.client), xxh3_64(hit.entry.as_bytes()));
        if (stopped && self.told.contains(&(key.0, key.1, false), at.steady))
            || !self.told.first((key.0, key.1, stopped), at.steady)
        {
            return;
        }
        found.push(Found { time: at.time, finding: finding(dns, name, &hit, stopped) });
    }

    /// What it would say of a question, whoever asks and whatever was said before.
    pub(super) fn verdict(&self, dns: &Dns) -> Option<Finding> {
        let hit = self.enabled.then(|| self.lists.lookup(&dns.name))??;
        Some(finding(dns, &dns.name, &hit, dns.is_refused()))
    }

    pub(super) const fn lists(&self) -> &Blocklist {
        &self.lists
    }
    pub(super) const fn evicted(&self) -> u64 {
        self.told.evicted()
    }
}

fn finding(dns: &Dns, name: &Name, hit: &Hit<'_>, stopped: bool) -> Finding {
    let what = if *name == dns.name {
        format!("asked for {name}")
    } else {
        format!("asked for {}, which leads to {name}", dns.name)
    };
    let fate = if stopped { "; the resolver refused it" } else { "" };
    let entry =
        if hit.entry == name.as_str() { String::new() } else { format!(" (entry {})", hit.entry) };
    let finding = Finding {
        rule: "blocklist".into(),
        subject: hit.entry.to_owned(),
        client: Some(dns.client),
        mac: dns.mac,
        score: if stopped { hit.score * STOPPED } else { hit.score },
        why: format!("{what}: on list {}{entry}{fate}", hit.list),
        evidence: Vec::new(),
    };
    finding
        .with("list", hit.list)
        .with("entry", hit.entry)
        .with("name", &dns.name)
        .with("status", dns.status.as_str())
        .with("source", &dns.source)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{dns, engine_with_lists};
    use super::*;
    use crate::event::{DnsStatus, Event};
    use crate::time::Timestamp;

    const LISTS: &[(&str, f64, &str)] =
        &[("malware", 0.8, "evil.example\nbad.example.com"), ("ads", 0.3, "ads.example")];

    /// Feeds the exchanges one second apart; shows `subject score` of each finding.
    #[track_caller]
    fn check(exchanges: Vec<Dns>, expected: &[&str]) {
        let mut engine = engine_with_lists(&Config::default(), LISTS);
        let mut found = Vec::new();
        for (i, dns) in exchanges.into_iter().enumerate() {
            let time = Timestamp::from_secs(1_795_000_000 + i as i64);
            engine.on_event(&mut Event { time, body: crate::event::Body::Dns(dns) }, &mut found);
        }
        let shown: Vec<String> = found
            .iter()
            .filter(|f| f.finding.rule == "blocklist")
            .map(|f| format!("{} {:.2}", f.finding.subject, f.finding.score))
            .collect();
        assert_eq!(shown, expected);
    }

    fn refused(name: &str) -> Dns {
        Dns { status: DnsStatus::Blocked, ..dns("192.0.2.1", name, &[]) }
    }

    #[test]
    fn a_listed_name_is_told_once_per_client() {
        check(vec![dns("192.0.2.1", "fine.example", &["203.0.113.1"])], &[]);
        check(
            vec![
                dns("192.0.2.1", "evil.example", &["203.0.113.1"]),
                dns("192.0.2.1", "www.evil.example", &["203.0.113.1"]),
                dns("192.0.2.2", "evil.example", &["203.0.113.1"]),
            ],
            &["evil.example 0.80", "evil.example 0.80"],
        );
    }

    #[test]
    fn refused_by_the_resolver_counts_half() {
        check(vec![refused("evil.example")], &["evil.example 0.40"]);
        check(vec![dns("192.0.2.1", "evil.example", &["0.0.0.0"])], &["evil.example 0.40"]);
        check(vec![dns("192.0.2.1", "evil.example", &["::"])], &["evil.example 0.40"]);
        // What got through is told even after a refusal, but not the other way round.
        let through = || dns("192.0.2.1", "evil.example", &["203.0.113.1"]);
        check(
            vec![refused("evil.example"), through()],
            &["evil.example 0.40", "evil.example 0.80"],
        );
        check(vec![through(), refused("evil.example")], &["evil.example 0.80"]);
    }

    #[test]
    fn an_alias_that_leads_to_a_listed_name() {
        let mut alias = dns("192.0.2.1", "shop.example.org", &["203.0.113.1"]);
        alias.answers.insert(0, Answer::Cname("x.ads.example".parse().unwrap()));
        check(vec![alias], &["ads.example 0.30"]);
    }

    #[test]
    fn the_finding_says_why() {
        let mut engine = engine_with_lists(&Config::default(), LISTS);
        let mut found = Vec::new();
        let body = crate::event::Body::Dns(dns("192.0.2.1", "a.evil.example", &["203.0.113.1"]));
        engine.on_event(&mut Event { time: Timestamp::from_secs(1), body }, &mut found);
        let finding = &found[0].finding;
        assert_eq!(finding.why, "asked for a.evil.example: on list malware (entry evil.example)");
        assert_eq!(finding.evidence[0], ("list".to_owned(), "malware".to_owned()));
    }

    #[test]
    fn configuration_is_checked() {
        let list = |name: &str, path: &str, score| Config {
            lists: vec![ListConfig { name: name.into(), path: path.into(), score }],
            ..Config::default()
        };
        let problem = |c: Config| c.validate().unwrap_err().to_string();
        assert!(list("a", "/etc/a", 1.0).validate().is_ok());
        assert_eq!(problem(list("", "/a", 0.5)), "`lists[0].name` must be a printable word");
        assert_eq!(problem(list("a", "", 0.5)), "`lists[0].path` must name a file");
        assert_eq!(
            problem(list("a", "/a", 7.0)),
            "`lists[0].score` must lie between 0 and 1, is 7"
        );
        let allow = Config { allow: vec!["a..b".into()], ..Config::default() };
        assert_eq!(problem(allow), "`allow[0]` `a..b`: empty label");
    }
}
