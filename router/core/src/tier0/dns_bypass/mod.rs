//! Names resolved past the house's resolver: rule `dns-bypass`.
//!
//! A device that asks elsewhere escapes block lists, and leaves connections without names.
//! In: connections and DNS exchanges. Out, per client, once per `repeat_seconds`:
//! - `ADDRESS:53/udp`, `ADDRESS:853/tcp`, ...: a connection to a foreign resolver: plain
//!   DNS, DNS over TLS (RFC 7858) or over QUIC (RFC 9250);
//! - `ADDRESS:443/tcp`: HTTPS to an address known as a resolver's (RFC 8484);
//! - a name: a known resolver's, asked for and not refused.
//!
//! The house's resolvers may: those named in `resolvers` may be asked, those named in
//! `ignore_clients` may ask anybody, and so may the machine this runs on, those it was told ask
//! for others (`Engine::set_resolvers`), and whoever is itself asked by others here (a
//! Pi-hole is seen answering when its clients cross the router). Connections redirected to a
//! machine of the house never left. Whether the client asked for the canary name (Mozilla:
//! `use-application-dns.net`) first is evidence: then it is a browser with its own resolver.
//!
//! Budget: 0.1 us per flow, 0.1 us per exchange. Invariants: bounded memories, counted.

mod known;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::clients::Clients;
use super::locals::{Locals, within};
use super::moment::Moment;
use super::recent::Recent;
use super::sketch::{mix, of_ip};
use super::{ConfigError, Found, domains, is_below, positive, score_range};
use crate::event::{Dns, Flow};
use crate::finding::Finding;
use crate::names::who;
use crate::service::{Service, proto};
use crate::time::Mono;

/// Most (client, place) remembered as told.
const TOLD_MAX: usize = 4_096;
/// Most clients remembered as resolvers or as having asked for the canary.
const MARKS_MAX: usize = 512;
/// Who is asked by others stays a resolver for so long.
const RESOLVER_KEEP: Duration = Duration::from_secs(86_400);
/// Most findings per client and `repeat_seconds`.
const SINGLES_MAX: u32 = 10;

/// Settings of the dns-bypass rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// Resolvers on the internet that anybody may ask: `9.9.9.9`. Private addresses may
    /// always be asked.
    pub resolvers: Vec<IpNet>,
    /// Clients that may ask anybody: the Pi-hole.
    pub ignore_clients: Vec<IpNet>,
    /// More names of resolvers over HTTPS, with all below them.
    pub names: Vec<String>,
    /// More addresses of resolvers over HTTPS.
    pub addresses: Vec<IpNet>,
    /// Names of resolvers that may be used.
    pub allow: Vec<String>,
    /// The same client and resolver are told once in this many seconds.
    pub repeat_seconds: u64,
    /// How grave it is, 0 to 1; asking for a resolver's name counts three quarters.
    pub score: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            resolvers: Vec::new(),
            ignore_clients: Vec::new(),
            names: Vec::new(),
            addresses: Vec::new(),
            allow: Vec::new(),
            repeat_seconds: 3_600,
            score: 0.4,
        }
    }
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("repeat_seconds", self.repeat_seconds)?;
        domains("names", &self.names)?;
        domains("allow", &self.allow)?;
        score_range("score", self.score)
    }

    /// By what means the flow's destination is asked, if it is a resolver.
    fn means(&self, flow: &Flow) -> Option<&'static str> {
        match (flow.dst.port, flow.proto) {
            (53, proto::UDP | proto::TCP) => Some("plain DNS"),
            (853, proto::TCP) => Some("DNS over TLS"),
            // 784 and 8853: drafts before RFC 9250, still met.
            (853 | 784 | 8853, proto::UDP) => Some("DNS over QUIC"),
            (443, proto::UDP | proto::TCP) => {
                let resolver =
                    known::is_address(flow.dst.ip) || within(&self.addresses, flow.dst.ip);
                resolver.then_some("DNS over HTTPS")
            }
            _ => None,
        }
    }
}

/// How much was said about a client.
#[derive(Debug, Default)]
struct Said {
    since: Mono,
    count: u32,
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    told: Recent<(IpAddr, u64)>,
    /// Machines that may ask anybody, as the program found out; few.
    known: Vec<IpAddr>,
    /// Machines of the house that others are seen to ask.
    resolvers: Recent<IpAddr>,
    /// Clients that asked for the canary.
    canary: Recent<IpAddr>,
    said: Clients<Said>,
    folded: u64,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            told: Recent::each(TOLD_MAX, config.repeat_seconds),
            known: Vec::new(),
            resolvers: Recent::new(MARKS_MAX, RESOLVER_KEEP),
            canary: Recent::new(MARKS_MAX, RESOLVER_KEEP),
            said: Clients::new(),
            folded: 0,
        }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
        self.told.every(config.repeat_seconds);
    }

    /// Machines that ask for others, or are this one.
    pub(super) fn set_resolvers(&mut self, known: &[IpAddr]) {
        self.known = known.iter().take(MARKS_MAX).copied().collect();
    }

    pub(super) fn on_flow(
        &mut self,
        at: Moment,
        flow: &Flow,
        locals: &Locals,
        found: &mut Vec<Found>,
    ) {
        if !self.config.enabled {
            return;
        }
        let Some(means) = self.config.means(flow) else { return };
        let own = |ip| locals.contain(ip, at.steady);
        let (client, dst) = (flow.src.ip, flow.dst.ip);
        if !own(client) {
            return;
        }
        if own(dst) {
            // Only one who answers is a resolver; asking oneself makes nobody one.
            if flow.replied && client != dst && !self.resolvers.refresh(&dst, at.steady) {
                self.resolvers.first(dst, at.steady);
            }
            return;
        }
        // Redirected to a machine of ours: it never left.
        let redirected = flow.nat_dst.is_some_and(|to| own(to.ip));
        if redirected || !dst_is_one(dst) || self.may(client, at) {
            return;
        }
        if within(&self.config.resolvers, dst) {
            return;
        }
        let service = Service { port: flow.dst.port, proto: flow.proto };
        let place = mix(of_ip(dst), u64::from(service.port) << 8 | u64::from(service.proto));
        if !self.first(at, who(flow.mac, client), place) {
            return;
        }
        let subject = service.at(dst);
        let finding = Finding {
            rule: "dns-bypass".into(),
            why: format!("asks {subject} by {means}, past the resolver of this network"),
            subject,
            client: Some(client),
            mac: flow.mac,
            score: self.config.score,
            evidence: Vec::new(),
        };
        let mut finding = finding.with("means", means).with("answered", flow.replied);
        if let Some(resolved) = &flow.resolved {
            finding = finding.with("name", &resolved.name);
        }
        finding =
            finding.with("asked_canary", self.canary.contains(&who(flow.mac, client), at.steady));
        found.push(Found { time: at.time, finding });
    }

    pub(super) fn on_dns(&mut self, at: Moment, dns: &Dns, found: &mut Vec<Found>) {
        if !self.config.enabled {
            return;
        }
        if dns.name.as_str() == known::CANARY {
            self.canary.first(who(dns.mac, dns.client), at.steady);
            return;
        }
        // A refused question, or one for a name that does not exist, leads nowhere.
        let leads = !dns.is_refused() && dns.rcode.unwrap_or(0) == 0;
        if !leads || !self.is_resolver(dns) || self.may(dns.client, at) {
            return;
        }
        if !self.first(at, who(dns.mac, dns.client), xxh3_64(dns.name.as_str().as_bytes())) {
            return;
        }
        let finding = Finding {
            rule: "dns-bypass".into(),
            subject: dns.name.as_str().to_owned(),
            client: Some(dns.client),
            mac: dns.mac,
            score: self.config.score * 0.75,
            why: format!("asked for {}, a public resolver that is used over HTTPS", dns.name),
            evidence: Vec::new(),
        };
        let finding = finding
            .with("means", "DNS over HTTPS")
            .with("asked_canary", self.canary.contains(&who(dns.mac, dns.client), at.steady))
            .with("source", &dns.source);
        found.push(Found { time: at.time, finding });
    }

    fn is_resolver(&self, dns: &Dns) -> bool {
        // The table is sorted, and holds whole names and parents.
        let known = dns.name.suffixes().any(|name| known::NAMES.binary_search(&name).is_ok());
        (known || is_below(&dns.name, &self.config.names))
            && !is_below(&dns.name, &self.config.allow)
    }

    fn may(&self, client: IpAddr, at: Moment) -> bool {
        within(&self.config.ignore_clients, client)
            || self.known.contains(&client)
            || self.resolvers.contains(&client, at.steady)
    }

    /// Whether it is time to say this.
    fn first(&mut self, at: Moment, client: IpAddr, what: u64) -> bool {
        if !self.told.first((client, what), at.steady) {
            return false;
        }
        let said = self.said.state(client, at.steady);
        let window = Duration::from_secs(self.config.repeat_seconds);
        if said.count == 0 || at.steady.since(said.since) >= window {
            *said = Said { since: at.steady, count: 0 };
        }
        said.count = said.count.saturating_add(1);
        self.folded += u64::from(said.count > SINGLES_MAX);
        said.count <= SINGLES_MAX
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 3] {
        let size = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        [
            ("tier0.dns_bypass.evicted", self.told.evicted() + self.said.evicted()),
            ("tier0.dns_bypass.folded", self.folded),
            ("tier0.dns_bypass.resolvers", size(self.resolvers.len())),
        ]
    }
}

/// Not a group of machines.
fn dst_is_one(dst: IpAddr) -> bool {
    !(dst.is_multicast() || dst.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Endpoint;
    use crate::tier0::Tier0Config;
    use crate::tier0::tests::{Script, dns, flow};

    const CLIENT: &str = "192.168.1.5";

    fn script() -> Script {
        Script::new(Tier0Config::default(), "dns-bypass")
    }

    #[track_caller]
    fn check_flow(dst: &str, proto: u8, expected: &[&str]) {
        let mut s = script();
        for second in 0..3 {
            s.flow(second, Flow { proto, ..flow(CLIENT, dst) });
        }
        s.said(expected);
    }

    #[test]
    fn connections() {
        check_flow("203.0.113.53:53", 17, &["203.0.113.53:53/udp"]);
        check_flow("203.0.113.53:53", 6, &["203.0.113.53:53/tcp"]);
        check_flow("203.0.113.53:853", 6, &["203.0.113.53:853/tcp"]);
        check_flow("203.0.113.53:853", 17, &["203.0.113.53:853/udp"]);
        check_flow("9.9.9.9:443", 6, &["9.9.9.9:443/tcp"]);
        check_flow("[2606:4700:4700::1111]:443", 17, &["[2606:4700:4700::1111]:443/udp"]);
        check_flow("203.0.113.53:443", 6, &[]);
        check_flow("192.168.1.1:53", 17, &[]);
        check_flow("224.0.0.251:5353", 17, &[]);
    }

    #[track_caller]
    fn check_name(question: Dns, expected: &[&str]) {
        let mut s = script();
        s.dns(0, question.clone());
        s.dns(9, question);
        s.said(expected);
    }

    #[test]
    fn names() {
        check_name(dns(CLIENT, "dns.google", &["8.8.8.8"]), &["dns.google"]);
        check_name(
            dns(CLIENT, "abc123.dns.nextdns.io", &["203.0.113.1"]),
            &["abc123.dns.nextdns.io"],
        );
        check_name(dns(CLIENT, "notdns.google", &["203.0.113.1"]), &[]);
        check_name(dns(CLIENT, "use-application-dns.net", &["203.0.113.1"]), &[]);
        check_name(dns(CLIENT, "dns.google", &["0.0.0.0"]), &[]);
        check_name(Dns { rcode: Some(3), ..dns(CLIENT, "dns.google", &[]) }, &[]);
    }

    /// The Pi-hole, which its clients are seen to ask, may ask whom it likes.
    #[test]
    fn who_is_asked_may_ask() {
        let mut s = script();
        let asks = Flow { proto: 17, replied: true, ..flow(CLIENT, "192.168.2.53:53") };
        s.flow(0, asks);
        s.flow(1, Flow { proto: 17, ..flow("192.168.2.53", "203.0.113.53:53") });
        s.flow(2, Flow { proto: 17, ..flow("192.168.2.54", "203.0.113.53:53") });
        let said: Vec<_> = s.found.iter().filter_map(|f| f.finding.client).collect();
        assert_eq!(said, ["192.168.2.54".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn redirected_or_allowed() {
        let mut config = Tier0Config::default();
        config.dns_bypass.resolvers = vec!["203.0.113.0/28".parse().unwrap()];
        config.dns_bypass.ignore_clients = vec!["192.168.1.9/32".parse().unwrap()];
        config.dns_bypass.allow = vec!["dns.quad9.net".into()];
        config.dns_bypass.names = vec!["doh.shop.example".into()];
        let mut s = Script::new(config, "dns-bypass");
        s.flow(0, Flow { proto: 17, ..flow(CLIENT, "203.0.113.1:53") });
        s.flow(1, Flow { proto: 17, ..flow("192.168.1.9", "198.51.100.1:53") });
        let to = Endpoint::new("192.168.1.1".parse().unwrap(), 53);
        s.flow(2, Flow { proto: 17, nat_dst: Some(to), ..flow(CLIENT, "198.51.100.1:53") });
        s.dns(3, dns(CLIENT, "dns.quad9.net", &["9.9.9.9"]));
        s.said(&[]);
        s.dns(4, dns(CLIENT, "a.doh.shop.example", &["203.0.113.1"]));
        s.said(&["a.doh.shop.example"]);
    }

    #[test]
    fn this_machine_and_those_told_of_may_ask() {
        let mut s = script();
        s.engine.set_resolvers(&["192.168.1.53".parse().unwrap()]);
        s.flow(0, Flow { proto: 17, ..flow("192.168.1.53", "203.0.113.53:53") });
        s.said(&[]);
        s.flow(1, Flow { proto: 17, ..flow(CLIENT, "203.0.113.53:53") });
        s.said(&["203.0.113.53:53/udp"]);
    }

    #[test]
    fn at_most_ten_of_a_client() {
        let mut s = script();
        for n in 0..50 {
            s.flow(n, Flow { proto: 17, ..flow(CLIENT, &format!("203.0.113.{n}:53")) });
        }
        assert_eq!(s.found.iter().filter(|f| f.finding.rule == "dns-bypass").count(), 10);
        assert_eq!(s.status("tier0.dns_bypass.folded"), 40);
    }
}
