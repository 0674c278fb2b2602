//! Connections that stay open for hours: rule `long-flow`.
//!
//! In: reports about flows that are still open, and their ends. Out, once per client, place
//! and day: a connection to the internet that has been open for `seconds`. A remote control
//! that waits for orders looks so (ATT&CK T1571, T1572), and so do a VPN, notifications and
//! a device's message queue: those on their well-known ports ([`super::ports`]) are told as
//! mere information.
//!
//! Flows whose begin nobody saw are as old as they have been watched. Budget: 50 ns per
//! flow. Invariants: bounded memory of what was told, counted; a duration is the kernel's,
//! whatever the clock says.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::locals::Locals;
use super::moment::Moment;
use super::ports::{self, Use};
use super::recent::Recent;
use super::{ConfigError, Found, positive, score_range};
use crate::event::{Flow, FlowPhase};
use crate::finding::Finding;
use crate::service::Service;
use crate::time::Mono;

/// Most open flows watched whose begin nobody saw: those open at the start.
const WATCHED_MAX: usize = 2_048;
/// Most (client, place) remembered as told.
const TOLD_MAX: usize = 4_096;
/// How grave a connection is that is meant to last.
const INFO_SCORE: f64 = 0.1;

/// Settings of the long-flow rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// From this duration on a connection is told.
    pub seconds: u64,
    /// The same client and place are told once in this many seconds.
    pub repeat_seconds: u64,
    /// Whether to tell of VPNs, notifications and message queues too, as information.
    pub expected: bool,
    /// How grave it is, 0 to 1; a third more where the client had looked up no name.
    pub score: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            // RITA's second step of four: 1, 4, 8 and 12 hours.
            seconds: 14_400,
            repeat_seconds: 86_400,
            expected: true,
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
        positive("seconds", self.seconds)?;
        positive("repeat_seconds", self.repeat_seconds)?;
        score_range("score", self.score)
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    told: Recent<(IpAddr, IpAddr, u16, u8)>,
    /// Flows whose begin nobody saw, and since when they are watched.
    watched: HashMap<u64, Mono>,
    /// Flows not watched because too many were.
    saturated: u64,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        let told = Recent::each(TOLD_MAX, config.repeat_seconds);
        Self { config: config.clone(), told, watched: HashMap::new(), saturated: 0 }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
        self.told.every(config.repeat_seconds);
    }

    pub(super) fn on_flow(
        &mut self,
        at: Moment,
        flow: &Flow,
        locals: &Locals,
        found: &mut Vec<Found>,
    ) {
        if !self.config.enabled || flow.phase == FlowPhase::Start {
            return;
        }
        let open = match flow.duration_ms {
            Some(ms) => Duration::from_millis(ms),
            None => self.watched_for(at, flow),
        };
        if open < Duration::from_secs(self.config.seconds) {
            return;
        }
        let own = |ip| locals.contain(ip, at.steady);
        let service = Service { port: flow.dst.port, proto: flow.proto };
        let expected = matches!(ports::known(service), Some(Use::Push | Use::Vpn));
        if !own(flow.src.ip) || own(flow.dst.ip) || (expected && !self.config.expected) {
            return;
        }
        let key = (flow.src.ip, flow.dst.ip, service.port, service.proto);
        if self.told.first(key, at.steady) {
            let finding = tell(&self.config, flow, service, open);
            found.push(Found { time: at.time, finding });
        }
    }

    /// How long a flow is known that nobody saw begin.
    fn watched_for(&mut self, at: Moment, flow: &Flow) -> Duration {
        if flow.phase == FlowPhase::End {
            return self
                .watched
                .remove(&flow.id)
                .map_or(Duration::ZERO, |since| at.steady.since(since));
        }
        if self.watched.len() >= WATCHED_MAX && !self.watched.contains_key(&flow.id) {
            self.saturated += 1;
            return Duration::ZERO;
        }
        at.steady.since(*self.watched.entry(flow.id).or_insert(at.steady))
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 2] {
        [
            ("tier0.long_flow.evicted", self.told.evicted()),
            ("tier0.long_flow.saturated", self.saturated),
        ]
    }
}

fn tell(config: &Config, flow: &Flow, service: Service, open: Duration) -> Finding {
    let place = service.at(flow.dst.ip);
    let to = flow.resolved.as_ref().map(|resolved| &resolved.name);
    let used = ports::known(service);
    let (score, what) = match used {
        Some(used @ (Use::Push | Use::Vpn)) => {
            (INFO_SCORE, format!(", as is usual on this port ({})", used.as_str()))
        }
        _ if to.is_none() => ((config.score * 4.0 / 3.0).min(1.0), String::new()),
        _ => (config.score, String::new()),
    };
    let named = to.map_or_else(String::new, |name| format!(" ({name})"));
    let minutes = open.as_secs() / 60;
    let finding = Finding {
        rule: "long-flow".into(),
        why: format!(
            "has been connected to {place}{named} for {} h {:02} min{what}",
            minutes / 60,
            minutes % 60
        ),
        subject: place,
        client: Some(flow.src.ip),
        mac: flow.mac,
        score,
        evidence: Vec::new(),
    };
    let mut finding = finding.with("seconds", open.as_secs());
    if let Some(volume) = flow.volume {
        finding = finding.with("bytes_out", volume.bytes_out).with("bytes_in", volume.bytes_in);
    }
    if let Some(name) = to {
        finding = finding.with("name", name);
    }
    finding.with("open", flow.phase == FlowPhase::Update)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier0::Tier0Config;
    use crate::tier0::tests::{Script, dns, flow};

    const CLIENT: &str = "192.168.1.5";

    /// A flow open for so many minutes, seen every quarter of an hour; its findings' scores.
    #[track_caller]
    fn check(client: &str, dst: &str, proto: u8, minutes: u64, scores: &[f64]) {
        let mut s = Script::new(Tier0Config::default(), "long-flow");
        s.dns(0, dns(CLIENT, "shop.example", &["203.0.113.9"]));
        s.flow(0, Flow { proto, ..flow(client, dst) });
        for minute in (15..=minutes).step_by(15) {
            let update = Flow {
                proto,
                phase: FlowPhase::Update,
                duration_ms: Some(minute * 60_000),
                replied: true,
                ..flow(client, dst)
            };
            s.flow(i64::try_from(minute * 60).unwrap(), update);
        }
        let said: Vec<f64> = s
            .found
            .iter()
            .filter(|f| f.finding.rule == "long-flow")
            .map(|f| (f.finding.score * 100.0).round() / 100.0)
            .collect();
        assert_eq!(said, scores, "{dst}");
    }

    #[test]
    fn hours() {
        check(CLIENT, "203.0.113.9:443", 6, 225, &[]);
        check(CLIENT, "203.0.113.9:443", 6, 240, &[0.3]);
        check(CLIENT, "203.0.113.9:443", 6, 1_400, &[0.3]);
        check(CLIENT, "203.0.113.10:4444", 6, 240, &[0.4]);
    }

    #[test]
    fn meant_to_last() {
        check(CLIENT, "203.0.113.9:5228", 6, 1_000, &[0.1]);
        check(CLIENT, "203.0.113.9:8883", 6, 1_000, &[0.1]);
        check(CLIENT, "203.0.113.9:51820", 17, 1_000, &[0.1]);
    }

    #[test]
    fn inside_and_from_outside() {
        check(CLIENT, "192.168.2.9:22", 6, 1_000, &[]);
        check("203.0.113.9", "192.168.1.5:22", 6, 1_000, &[]);
    }

    #[test]
    fn older_than_we_are() {
        let mut s = Script::new(Tier0Config::default(), "long-flow");
        for minute in 0..=241 {
            let open = Flow { phase: FlowPhase::Update, ..flow(CLIENT, "203.0.113.9:443") };
            s.flow(minute * 60, open);
            s.said(if minute == 240 { &["203.0.113.9:443/tcp"] } else { &[] });
        }
    }

    #[test]
    fn told_when_it_is_over_too() {
        let mut s = Script::new(Tier0Config::default(), "long-flow");
        let end = Flow {
            phase: FlowPhase::End,
            duration_ms: Some(50_000_000),
            ..flow(CLIENT, "203.0.113.9:443")
        };
        s.flow(0, end);
        s.said(&["203.0.113.9:443/tcp"]);
    }
}
