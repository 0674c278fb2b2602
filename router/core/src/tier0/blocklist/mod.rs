//! Names and addresses on a list: rule `blocklist`.
//!
//! In: DNS exchanges and flows, and the lists ([`Blocklist`], built once per start or reload).
//! Out: a finding when the name asked for, or a name its answer leads to (CNAME), is listed,
//! when an answer gives a listed address, and when a connection goes to one: once per client
//! and entry within `repeat_seconds`. A name that the resolver itself refused counts half:
//! the attempt is worth telling, but it was stopped. A listed address that connects to a
//! device of ours and is answered counts a quarter: who serves the internet is scanned by it.
//!
//! Budget: 0.3 us for a name that is not listed, 0.1 us for an address and each length of
//! network on the lists; nothing allocated.
//!
//! Invariants: an entry covers the name and all below it, on label boundaries; exemptions
//! of the configuration and lists that allow win over every list, those of another list
//! over that list alone; the finding says which list and which entry.

mod address;
mod builder;
mod compile;
mod entries;
mod extras;
mod find;
mod format;
#[cfg(test)]
mod kind_tests;
#[cfg(test)]
mod list_tests;
mod patterns;
mod punycode;
mod report;
mod set;
mod sniff;
mod syntax;

use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::locals::Locals;
use super::moment::Moment;
use super::recent::Recent;
use super::{ConfigError, Found, positive, score_range};
use crate::event::{Answer, Dns, Flow, FlowPhase};
use crate::finding::Finding;
use crate::name::{Name, NameError};
use crate::names::who;
use crate::service::Service;

pub use address::Indicator;
pub use builder::{Builder, LINE_BYTES_MAX};
pub use compile::{PORTION_NAMES, Read, compile};
pub use entries::{Listed, Named, entries};
pub use find::LineFinder;
pub use format::{Check, FOOTER_BYTES, Footer, FormatError};
pub use patterns::PATTERNS_MAX;
pub use report::{Kind, ListReport, Refused, Why};
pub use set::{About, Blocklist, Bytes, FORMS_MAX, Hit, Judged, LISTS_MAX, List, ListKind};
pub use sniff::{SNIFF_BYTES, no_list};
pub use syntax::Format;
use syntax::indicator as word_of;

/// Raised whenever a list's text comes to mean something else: what was compiled before is
/// then compiled again.
pub const RULES_VERSION: u32 = 2;
/// Most (client, entry) pairs remembered as told.
const TOLD_MAX: usize = 8_192;
/// What a refused query counts of its list's score.
const STOPPED: f64 = 0.5;
/// What an answer with a listed address counts: nobody has connected to it yet.
const ANSWERED: f64 = 0.75;
/// What a connection from a listed address counts.
const INBOUND: f64 = 0.25;

/// Settings of the blocklist rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// The lists: names (hosts files, plain domains, adblock, dnsmasq, unbound or RPZ
    /// syntax), addresses, networks and the addresses of pages.
    pub lists: Vec<ListConfig>,
    /// Names, addresses and networks that are never reported, with all below and in them.
    pub allow: Vec<String>,
    /// Known-bad parts of names: `evil-` finds `evil-7.example`, at the begin of a label only.
    pub patterns: Vec<String>,
    /// How grave a name is that a pattern finds, 0 to 1.
    pub pattern_score: f64,
    /// Whether to tell of listed addresses that connect to devices here and are answered.
    pub inbound: bool,
    /// Most entries over all lists; a million takes 8.3 MB of file, mapped.
    pub entries_max: usize,
    /// A list that has lost more than so many of a hundred entries is not taken, the old one
    /// stays: it was cut short, mostly. 100: it is always taken.
    pub shrink_percent: u8,
    /// The same client and entry are reported once in this many seconds.
    pub repeat_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            lists: Vec::new(),
            allow: Vec::new(),
            patterns: Vec::new(),
            pattern_score: 0.7,
            inbound: true,
            // The longest public lists hold about 3 million names.
            entries_max: 4_000_000,
            shrink_percent: 50,
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
    /// `auto` (each line says itself what it is), or hosts, domains, wildcard, adblock,
    /// dnsmasq, unbound, rpz, addresses, urls: then other lines are refused.
    pub format: Format,
    /// `bad`; `allow`: what stands on it is never told because of any list; `watch`: told
    /// once of each device (rule `watched`).
    pub kind: ListKind,
    /// Whether `enforce` may act by it.
    pub block: bool,
    /// Of lists that say how many sources name an address: at least so many.
    pub sources_min: u32,
    /// Its licence, told with it.
    pub licence: String,
    /// Where it is from.
    #[serde(skip)]
    pub about: About,
}

impl Default for ListConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            path: PathBuf::new(),
            score: 0.8,
            format: Format::Auto,
            kind: ListKind::Bad,
            block: false,
            // With one or two sources many are false alarms.
            sources_min: 3,
            licence: String::new(),
            about: About::default(),
        }
    }
}

/// Lists of fewer entries may change as they like.
const SHRINK_LEAST: usize = 100;

/// Why a list that had `old` entries is not taken with `new` ones; see
/// [`Config::shrink_percent`].
#[must_use]
pub fn shrunk(old: usize, new: usize, percent: u8) -> Option<String> {
    if old > 0 && new == 0 && percent < 100 {
        return Some(format!("nothing is left of {old} entries"));
    }
    let lost = old.saturating_sub(new).saturating_mul(100);
    let too_much = old >= SHRINK_LEAST && lost > old.saturating_mul(usize::from(percent));
    too_much.then(|| format!("it shrank from {old} to {new} entries"))
}

/// Something that is never reported.
enum Exempt {
    Name(Name),
    Net(Indicator),
}

impl Exempt {
    fn parse(text: &str) -> Result<Self, NameError> {
        let host = text.parse::<IpAddr>().map(|ip| Indicator::host(ip, None));
        match host.or_else(|_| text.parse::<IpNet>().map(Indicator::net)) {
            Ok(net) => Ok(Self::Net(net)),
            Err(_) => Name::parse(text.as_bytes()).map(Self::Name),
        }
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
        for (i, text) in self.allow.iter().enumerate() {
            Exempt::parse(text)
                .map_err(|e| ConfigError::new(format!("allow[{i}]"), format!("`{text}`: {e}")))?;
        }
        if self.patterns.len() > PATTERNS_MAX {
            return Err(ConfigError::new("patterns", format!("at most {PATTERNS_MAX}")));
        }
        for (i, pattern) in self.patterns.iter().enumerate() {
            patterns::check(pattern).map_err(|problem| {
                ConfigError::new(format!("patterns[{i}]"), format!("`{pattern}`: {problem}"))
            })?;
        }
        score_range("pattern_score", self.pattern_score)?;
        positive("entries_max", self.entries_max as u64)?;
        if self.shrink_percent > 100 {
            return Err(ConfigError::new("shrink_percent", "must be at most 100"));
        }
        positive("repeat_seconds", self.repeat_seconds)
    }

    /// A builder with this configuration's maximum, exemptions and patterns; the lists'
    /// texts are read by whoever may do I/O and added with [`Builder::list`].
    #[must_use]
    pub fn builder(&self) -> Builder {
        let mut builder = Builder::new(self.entries_max);
        self.own_in(&mut builder);
        builder
    }

    /// The lists alone, without what [`Self::own`] is made of.
    #[must_use]
    pub fn of_lists(&self) -> Self {
        Self { allow: Vec::new(), patterns: Vec::new(), ..self.clone() }
    }

    /// The exemptions and patterns alone, as a set beside those of the lists.
    #[must_use]
    pub fn own(&self) -> Blocklist {
        if !self.enabled || (self.allow.is_empty() && self.patterns.is_empty()) {
            return Blocklist::default();
        }
        self.builder().build()
    }

    fn own_in(&self, builder: &mut Builder) {
        for exempt in self.allow.iter().filter_map(|text| Exempt::parse(text).ok()) {
            match exempt {
                Exempt::Name(name) => builder.allow(&name),
                Exempt::Net(net) => builder.allow_net(net),
            }
        }
        builder.patterns(&self.patterns, self.pattern_score);
    }
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// The resolver refused the name.
    Stopped,
    /// The name was asked for, and not refused.
    Asked,
    /// An answer gave the address.
    Answered,
    /// A connection was made to the address.
    Connected,
    /// The address connected to a device of ours.
    Inbound,
}

impl Stage {
    const fn counts(self) -> f64 {
        match self {
            Self::Stopped => STOPPED,
            Self::Asked | Self::Connected => 1.0,
            Self::Answered => ANSWERED,
            Self::Inbound => INBOUND,
        }
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    enabled: bool,
    inbound: bool,
    lists: Blocklist,
    /// (client, entry, how far it came).
    told: Recent<(IpAddr, u64, Stage)>,
}

impl Detector {
    pub(super) fn new(config: &Config, lists: Blocklist) -> Self {
        let told = Recent::each(TOLD_MAX, config.repeat_seconds);
        let (enabled, inbound) = (config.enabled, config.inbound);
        Self { enabled, inbound, lists, told }
    }

    pub(super) fn reconfigure(&mut self, config: &Config, lists: Blocklist) {
        (self.enabled, self.inbound) = (config.enabled, config.inbound);
        self.lists = lists;
        self.told.every(config.repeat_seconds);
    }

    pub(super) fn on_dns(&mut self, at: Moment, dns: &Dns, found: &mut Vec<Found>) {
        if !self.enabled || self.lists.is_empty() {
            return;
        }
        self.check(at, dns, &dns.name, found);
        for answer in &dns.answers {
            match answer {
                Answer::Cname(name) => self.check(at, dns, name, found),
                Answer::Address(ip) => self.answered(at, dns, *ip, found),
                Answer::Other(_) => {}
            }
        }
    }

    fn check(&mut self, at: Moment, dns: &Dns, name: &Name, found: &mut Vec<Found>) {
        let Some(hit) = self.lists.lookup(name) else { return };
        let stage = if dns.is_refused() { Stage::Stopped } else { Stage::Asked };
        let (who, entry) = (who(dns.mac, dns.client), xxh3_64(hit.entry.as_bytes()));
        // What got through is told even after a refusal, but not the other way round.
        let worse =
            stage == Stage::Stopped && self.told.contains(&(who, entry, Stage::Asked), at.steady);
        if !worse && self.told.first((who, entry, stage), at.steady) {
            found.push(Found { time: at.time, finding: named(dns, name, &hit, stage) });
        }
    }

    /// A name answers with a listed address.
    fn answered(&mut self, at: Moment, dns: &Dns, ip: IpAddr, found: &mut Vec<Found>) {
        let Some(hit) = self.lists.lookup_address(ip, None) else { return };
        let key = |stage| (who(dns.mac, dns.client), hash_of_ip(ip), stage);
        if self.told.contains(&key(Stage::Connected), at.steady)
            || !self.told.first(key(Stage::Answered), at.steady)
        {
            return;
        }
        let why = format!("asked for {}, which is at {ip}", dns.name);
        let finding = addressed(dns.client, ip, why, &hit, Stage::Answered);
        let finding = Finding { mac: dns.mac, ..finding };
        let finding = finding.with("name", &dns.name).with("source", &dns.source);
        found.push(Found { time: at.time, finding });
    }

    pub(super) fn on_flow(
        &mut self,
        at: Moment,
        flow: &Flow,
        locals: &Locals,
        found: &mut Vec<Found>,
    ) {
        if !self.enabled || self.lists.is_empty() {
            return;
        }
        let own = |ip| locals.contain(ip, at.steady);
        match (own(flow.src.ip), own(flow.dst.ip)) {
            (true, false) => self.connected(at, flow, found),
            (false, true) if self.inbound && flow.replied && flow.phase != FlowPhase::Start => {
                self.came_in(at, flow, flow.nat_dst.map_or(flow.dst.ip, |to| to.ip), found);
            }
            // Its destination is the house's own public address.
            (false, false) if self.inbound && flow.replied && flow.phase != FlowPhase::Start => {
                if let Some(to) = flow.nat_dst.filter(|to| own(to.ip)) {
                    self.came_in(at, flow, to.ip, found);
                }
            }
            _ => {}
        }
    }

    fn connected(&mut self, at: Moment, flow: &Flow, found: &mut Vec<Found>) {
        let (client, ip) = (flow.src.ip, flow.dst.ip);
        let Some(hit) = self.lists.lookup_address(ip, Some(flow.dst.port)) else { return };
        if !self.told.first((who(flow.mac, client), hash_of_ip(ip), Stage::Connected), at.steady) {
            return;
        }
        let service = Service { port: flow.dst.port, proto: flow.proto };
        let why = format!("connected to {}", service.at(ip));
        let finding = addressed(client, ip, why, &hit, Stage::Connected);
        let mut finding = Finding { mac: flow.mac, ..finding }.with("service", service);
        if let Some(resolved) = &flow.resolved {
            finding = finding.with("name", &resolved.name);
        }
        found.push(Found { time: at.time, finding });
    }

    /// A device of ours answered a listed address.
    fn came_in(&mut self, at: Moment, flow: &Flow, to: IpAddr, found: &mut Vec<Found>) {
        let ip = flow.src.ip;
        let Some(hit) = self.lists.lookup_address(ip, None) else { return };
        if !self.told.first((to, hash_of_ip(ip), Stage::Inbound), at.steady) {
            return;
        }
        let service = Service { port: flow.dst.port, proto: flow.proto };
        let why = format!("answered {ip}, which connected to its {service}");
        let finding = addressed(to, ip, why, &hit, Stage::Inbound);
        found.push(Found { time: at.time, finding: finding.with("service", service) });
    }

    /// What it would say of a question, whoever asks and whatever was said before.
    pub(super) fn verdict(&self, dns: &Dns) -> Option<Finding> {
        let hit = self.enabled.then(|| self.lists.lookup(&dns.name))??;
        let stage = if dns.is_refused() { Stage::Stopped } else { Stage::Asked };
        Some(named(dns, &dns.name, &hit, stage))
    }

    /// What it would say of a connection.
    pub(super) fn verdict_of_address(
        &self,
        client: IpAddr,
        ip: IpAddr,
        port: Option<u16>,
    ) -> Option<Finding> {
        let hit = self.enabled.then(|| self.lists.lookup_address(ip, port))??;
        let why = format!("connected to {ip}");
        Some(addressed(client, ip, why, &hit, Stage::Connected))
    }

    pub(super) const fn lists(&self) -> &Blocklist {
        &self.lists
    }
    pub(super) const fn evicted(&self) -> u64 {
        self.told.evicted()
    }
}

fn hash_of_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => xxh3_64(&v6.octets()),
    }
}

fn named(dns: &Dns, name: &Name, hit: &Hit<'_>, stage: Stage) -> Finding {
    let what = if *name == dns.name {
        format!("asked for {name}")
    } else {
        format!("asked for {}, which leads to {name}", dns.name)
    };
    let fate = if stage == Stage::Stopped { "; the resolver refused it" } else { "" };
    // The part that the pattern found goes on to the name's end.
    let subject = if hit.pattern.is_some() { name.as_str() } else { hit.entry };
    let finding = Finding {
        rule: "blocklist".into(),
        subject: subject.to_owned(),
        client: Some(dns.client),
        mac: dns.mac,
        score: hit.score * stage.counts(),
        why: format!("{what}: {}{fate}", on_list(hit, name.as_str())),
        evidence: Vec::new(),
    };
    evidence(finding, hit)
        .with("name", &dns.name)
        .with("status", dns.status.as_str())
        .with("source", &dns.source)
}

fn addressed(
    client: IpAddr,
    ip: IpAddr,
    what: String,
    hit: &Hit<'_, Indicator>,
    stage: Stage,
) -> Finding {
    let finding = Finding {
        rule: "blocklist".into(),
        subject: ip.to_string(),
        client: Some(client),
        mac: None,
        score: hit.score * stage.counts(),
        why: format!("{what}: {}", on_list(hit, &ip.to_string())),
        evidence: Vec::new(),
    };
    evidence(finding, hit).with("address", ip)
}

/// `on list ads (entry example.net)`
fn on_list<E: Display>(hit: &Hit<'_, E>, asked: &str) -> String {
    let entry = hit.entry.to_string();
    let entry = match (hit.pattern, entry == asked) {
        (Some(pattern), _) => format!(" (pattern {pattern})"),
        (None, true) => String::new(),
        (None, false) => format!(" (entry {entry})"),
    };
    let page = if hit.is_page { ", for one of its pages" } else { "" };
    format!("on list {}{entry}{page}", hit.list)
}

fn evidence<E: Display>(finding: Finding, hit: &Hit<'_, E>) -> Finding {
    let finding = finding.with("list", hit.list);
    let finding = match hit.pattern {
        Some(pattern) => finding.with("pattern", pattern),
        None => finding.with("entry", &hit.entry),
    };
    match hit.page {
        Some(page) => finding.with("page", page),
        None => finding,
    }
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
            lists: vec![ListConfig {
                name: name.into(),
                path: path.into(),
                score,
                ..ListConfig::default()
            }],
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
