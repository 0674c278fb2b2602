//! Names a person wants to know of: rule `watched`.
//!
//! In: DNS exchanges; the names of the configuration, and lists of kind `watch`. Out: a
//! finding of low severity when a device asks for such a name, or one below it, for the first
//! time. Devices are told apart by MAC where it is known, else by address.
//!
//! Budget: 0.1 us per name, nothing allocated. Invariants: once per device and entry within
//! `repeat_seconds`, for [`TOLD_MAX`] of them; exemptions say nothing here: watching is no
//! suspicion.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::blocklist::Blocklist;
use super::moment::Moment;
use super::recent::Recent;
use super::{ConfigError, Found, positive, score_range};
use crate::event::{Answer, Dns};
use crate::finding::Finding;
use crate::name::Name;
use crate::names::who;

/// Most (device, entry) pairs remembered: 80 devices and 100 names.
const TOLD_MAX: usize = 8_192;
/// Most names of the configuration; more belong on a list.
const NAMES_MAX: usize = 1_000;
/// What the configuration's own names are called in findings.
const SETTINGS: &str = "settings";

/// Settings of the watched rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// The names, each with all below it.
    pub names: Vec<String>,
    /// How grave it is, 0 to 1.
    pub score: f64,
    /// The same device and name are told once in this many seconds.
    pub repeat_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        // A month: "the first time", as far as a program that restarts can know.
        Self { enabled: true, names: Vec::new(), score: 0.25, repeat_seconds: 2_592_000 }
    }
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.names.len() > NAMES_MAX {
            let text = format!("at most {NAMES_MAX} names; longer ones as a list of kind `watch`");
            return Err(ConfigError::new("names", text));
        }
        for (i, name) in self.names.iter().enumerate() {
            Name::parse(name.as_bytes())
                .map_err(|e| ConfigError::new(format!("names[{i}]"), format!("`{name}`: {e}")))?;
        }
        score_range("score", self.score)?;
        positive("repeat_seconds", self.repeat_seconds)
    }

    fn names(&self) -> HashSet<Name> {
        self.names.iter().filter_map(|name| Name::parse(name.as_bytes()).ok()).collect()
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    enabled: bool,
    score: f64,
    names: HashSet<Name>,
    told: Recent<(IpAddr, u64)>,
}

/// An entry that has a name.
struct Seen<'a> {
    list: &'a str,
    entry: &'a str,
    score: f64,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            enabled: config.enabled,
            score: config.score,
            names: config.names(),
            told: Recent::each(TOLD_MAX, config.repeat_seconds),
        }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        (self.enabled, self.score, self.names) = (config.enabled, config.score, config.names());
        self.told.every(config.repeat_seconds);
    }

    pub(super) fn on_dns(
        &mut self,
        at: Moment,
        dns: &Dns,
        lists: &Blocklist,
        found: &mut Vec<Found>,
    ) {
        if !self.enabled || (self.names.is_empty() && !lists.watches()) {
            return;
        }
        let aliases = dns.answers.iter().filter_map(|answer| match answer {
            Answer::Cname(name) => Some(name),
            _ => None,
        });
        let who = who(dns.mac, dns.client);
        for name in std::iter::once(&dns.name).chain(aliases) {
            if let Some(seen) = self.look_up(name, lists) {
                let finding = finding(dns, name, &seen);
                if self.told.first((who, xxh3_64(finding.subject.as_bytes())), at.steady) {
                    found.push(Found { time: at.time, finding });
                }
            }
        }
    }

    fn look_up<'a>(&self, name: &'a Name, lists: &'a Blocklist) -> Option<Seen<'a>> {
        let own = name.suffixes().find(|suffix| self.names.contains(*suffix));
        if let Some(entry) = own {
            return Some(Seen { list: SETTINGS, entry, score: self.score });
        }
        let hit = lists.watches().then(|| lists.judge(name).watched)??;
        Some(Seen { list: hit.list, entry: hit.entry, score: self.score.min(hit.score) })
    }

    /// What it would say of a question, whoever asks.
    pub(super) fn verdict(&self, dns: &Dns, lists: &Blocklist) -> Option<Finding> {
        let seen = self.enabled.then(|| self.look_up(&dns.name, lists))??;
        Some(finding(dns, &dns.name, &seen))
    }

    pub(super) const fn evicted(&self) -> u64 {
        self.told.evicted()
    }
}

fn finding(dns: &Dns, name: &Name, seen: &Seen<'_>) -> Finding {
    let what = if *name == dns.name {
        format!("asked for {name}")
    } else {
        format!("asked for {}, which leads to {name}", dns.name)
    };
    let finding = Finding {
        rule: "watched".into(),
        subject: seen.entry.to_owned(),
        client: Some(dns.client),
        mac: dns.mac,
        score: seen.score,
        why: format!("{what}, for the first time: {} is watched", seen.entry),
        evidence: Vec::new(),
    };
    finding.with("list", seen.list).with("name", &dns.name).with("source", &dns.source)
}

#[cfg(test)]
mod tests {
    use super::super::tests::dns;
    use super::super::{Engine, Tier0Config};
    use super::*;
    use crate::event::{Body, Event};
    use crate::tier0::blocklist::{ListConfig, ListKind};
    use crate::time::Timestamp;

    /// An engine that watches `ai.example` by its settings and `ci.example` by a list.
    fn engine() -> Engine {
        let mut config = Tier0Config::default();
        config.watched.names = vec!["ai.example".into()];
        config.blocklist.allow = vec!["ci.example".into()];
        let mut builder = config.blocklist.builder();
        let list =
            ListConfig { name: "mine".into(), kind: ListKind::Watch, ..ListConfig::default() };
        assert!(builder.list_of(&list, b"ci.example\n").is_clean());
        Engine::new(&config, builder.build())
    }

    #[track_caller]
    fn check(engine: &mut Engine, exchanges: Vec<Dns>, expected: &[&str]) {
        let mut found = Vec::new();
        for (i, dns) in exchanges.into_iter().enumerate() {
            let time = Timestamp::from_secs(1_795_000_000 + i as i64);
            engine.on_event(&mut Event { time, body: Body::Dns(dns) }, &mut found);
        }
        let shown =
            |f: &Found| format!("{} {} {:.2}", f.finding.rule, f.finding.subject, f.finding.score);
        assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), expected);
    }

    fn by(mac: &str, client: &str, name: &str) -> Dns {
        Dns { mac: mac.parse().ok(), ..dns(client, name, &["203.0.113.9"]) }
    }

    #[test]
    fn the_first_question_of_each_device() {
        let mut e = engine();
        let said = "watched ai.example 0.25";
        check(&mut e, vec![dns("192.0.2.1", "api.ai.example", &[])], &[said]);
        check(&mut e, vec![dns("192.0.2.1", "x.ai.example", &[])], &[]);
        check(&mut e, vec![dns("192.0.2.2", "ai.example", &[])], &[said]);
        check(&mut e, vec![dns("192.0.2.3", "notai.example", &[])], &[]);
        check(&mut e, vec![dns("192.0.2.3", "ai.example.net", &[])], &[]);
        // An address of the day does not make a new device.
        let mac = "00:00:5e:00:53:01";
        check(&mut e, vec![by(mac, "192.0.2.4", "ai.example")], &[said]);
        check(&mut e, vec![by(mac, "192.0.2.5", "ai.example")], &[]);
    }

    #[test]
    fn lists_that_watch_and_exemptions() {
        let mut e = engine();
        let said = "watched ci.example 0.25";
        check(&mut e, vec![dns("192.0.2.1", "www.ci.example", &[])], &[said]);
        let mut alias = dns("192.0.2.2", "shop.example.org", &["203.0.113.1"]);
        alias.answers.insert(0, Answer::Cname("x.ci.example".parse().unwrap()));
        check(&mut e, vec![alias], &[said]);
    }

    #[test]
    fn configuration_is_checked() {
        let config = Config { names: vec!["a..b".into()], ..Config::default() };
        assert_eq!(config.validate().unwrap_err().to_string(), "`names[0]` `a..b`: empty label");
        let config = Config { names: vec!["a".into(); NAMES_MAX + 1], ..Config::default() };
        assert!(config.validate().unwrap_err().to_string().contains("kind `watch`"));
        assert!(Config { score: 2.0, ..Config::default() }.validate().is_err());
    }
}
