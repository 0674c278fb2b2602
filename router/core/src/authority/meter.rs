//! How much of its limits each grant has used.
//!
//! In: what a connection carried, in event time. Out: which limit was passed, once per span.
//! Spans follow each other without overlap and begin with the Unix epoch; a clock that goes
//! back counts into the span it is in. Invariants: at most [`WINDOWS_MAX`] (grant, host) are
//! counted, the one used longest ago makes room.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use super::compile::Authority;
use super::decide::Scope;
use super::identity::Identity;
use super::quantity::Limit;
use crate::time::Timestamp;

/// Most (grant, host, limit) counted at once: 500 hosts with 40 limited grants each.
pub const WINDOWS_MAX: usize = 20_000;

/// What a connection carried since it was last told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes sent by the host.
    pub upload: u64,
    /// Bytes received.
    pub download: u64,
    /// Connections begun.
    pub connections: u64,
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `max_upload`
    Upload,
    /// `max_download`
    Download,
    /// `max_connections`
    Connections,
}

impl Kind {
    /// The key of the policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "max_upload",
            Self::Download => "max_download",
            Self::Connections => "max_connections",
        }
    }
}

/// A limit was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded<'a> {
    /// Which one.
    pub kind: Kind,
    /// What was allowed.
    pub limit: &'a Limit,
    /// What was used in the span so far.
    pub used: u64,
    /// Where the grant stands.
    pub place: &'a str,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    span: i64,
    used: u64,
    told: bool,
    touched: u64,
}

/// The counts.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    windows: HashMap<(u32, u64, Kind), Window>,
    turn: u64,
}

impl Meter {
    fn add(
        &mut self,
        key: (u32, u64, Kind),
        limit: &Limit,
        amount: u64,
        now: Timestamp,
    ) -> Option<u64> {
        if !self.windows.contains_key(&key) && self.windows.len() >= WINDOWS_MAX {
            let oldest = self.windows.iter().min_by_key(|(_, w)| w.touched).map(|(k, _)| *k);
            oldest.map(|k| self.windows.remove(&k));
        }
        self.turn += 1;
        let seconds = i64::try_from(limit.per.as_secs()).unwrap_or(i64::MAX).max(1);
        let span = now.secs().div_euclid(seconds);
        let window = self.windows.entry(key).or_insert(Window { span, ..Window::default() });
        if span > window.span {
            *window = Window { span, ..Window::default() };
        }
        window.touched = self.turn;
        window.used = window.used.saturating_add(amount);
        let passed = window.used > limit.most && !window.told;
        window.told |= passed;
        passed.then_some(window.used)
    }
}

impl Authority {
    /// Counts what a connection of the subject carried; tells each limit that it passed.
    pub fn charge(
        &self,
        meter: &mut Meter,
        identity: Option<Identity>,
        scope: &Scope<'_>,
        usage: Usage,
        now: Timestamp,
    ) -> Vec<Exceeded<'_>> {
        let subject = identity.and_then(|i| self.subjects.get(i.subject as usize));
        let host = xxh3_64(scope.host.as_bytes());
        let mut passed = Vec::new();
        for subject in subject.into_iter().chain([&self.everyone]) {
            for number in &subject.grants {
                let Some(owner) = self.owners.get(*number as usize) else { continue };
                let limits = [
                    (Kind::Upload, &owner.max_upload, usage.upload),
                    (Kind::Download, &owner.max_download, usage.download),
                    (Kind::Connections, &owner.max_connections, usage.connections),
                ];
                if limits.iter().all(|(_, limit, _)| limit.is_none()) || !owner.applies(scope) {
                    continue;
                }
                for (kind, limit, amount) in limits {
                    let Some(limit) = limit else { continue };
                    let used = meter.add((*number, host, kind), limit, amount, now);
                    let place = owner.place.as_str();
                    passed.extend(used.map(|used| Exceeded { kind, limit, used, place }));
                }
            }
        }
        passed
    }
}
