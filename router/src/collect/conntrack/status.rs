//! What the conntrack collector says about itself: one line, with what to do.
//!
//! In: what each dump showed, and the sysctls. Out: the state line, and how long to wait
//! for the next dump. Pure but for the reading of `/proc/sys`.

use std::path::Path;
use std::time::Duration;

use super::Config;
use super::timeouts::{SYSCTL_FOLDER, read_number};
use super::track::DumpSummary;

/// So many dumps in a row must show new flows without any event before events count as
/// silent: one may be a race or a burst of losses.
const SILENT_DUMPS: u32 = 2;

/// What happened between two dumps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Events read, of any kind.
    pub(super) events: u64,
    /// An entry carried byte counts.
    pub(super) counted: bool,
}

/// The collector's health as its dumps show it.
#[derive(Debug)]
pub(super) struct Health {
    wanted_bytes: usize,
    buffer_bytes: usize,
    poll_seconds: u64,
    /// Dumps in a row that showed new flows without an event.
    silent: u32,
    ever_seen: bool,
    counted: bool,
    losing: bool,
}

impl Health {
    pub(super) fn new(config: &Config, buffer_bytes: usize) -> Self {
        Self {
            wanted_bytes: config.buffer_bytes,
            buffer_bytes,
            poll_seconds: config.poll_seconds,
            silent: 0,
            ever_seen: false,
            counted: false,
            losing: false,
        }
    }

    /// `lost`: events were lost since the dump before, which explains missing ones.
    pub(super) fn on_dump(&mut self, summary: &DumpSummary, totals: &Totals, lost: bool) {
        self.ever_seen |= summary.entries > 0 || totals.events > 0;
        self.counted = totals.counted || (self.counted && summary.entries == 0);
        self.losing = lost;
        if totals.events > 0 {
            self.silent = 0;
        } else if summary.missed_new > 0 && !lost {
            self.silent = self.silent.saturating_add(1);
        }
    }

    /// The first event after a dump that showed nothing: connections are tracked after all.
    /// True when that is news.
    pub(super) fn on_life(&mut self, totals: &Totals) -> bool {
        let news = !self.ever_seen && totals.events > 0;
        self.ever_seen |= news;
        news
    }

    /// Whether dumps have to stand in for events.
    pub(super) const fn is_polling(&self) -> bool {
        self.silent >= SILENT_DUMPS
    }

    /// Time to the next dump.
    pub(super) fn pause(&self, config: &Config) -> Duration {
        let polling = self.is_polling() || self.silent > 0;
        Duration::from_secs(if polling { config.poll_seconds } else { config.dump_seconds })
    }

    /// The line for `status`: the worst thing first.
    pub(super) fn line(&self, open: usize) -> String {
        let sysctl = |name: &str| read_number(Path::new(SYSCTL_FOLDER), name);
        self.line_with(open, sysctl("nf_conntrack_acct"), sysctl("nf_conntrack_events"))
    }

    fn line_with(&self, open: usize, acct: Option<u64>, events: Option<u64>) -> String {
        if self.is_polling() {
            let why = if events == Some(0) {
                "net.netfilter.nf_conntrack_events is 0; mend with: \
                 sysctl -w net.netfilter.nf_conntrack_events=1"
            } else {
                "hardware offload, or a kernel without CONFIG_NF_CONNTRACK_EVENTS"
            };
            let seconds = self.poll_seconds;
            return format!(
                "the kernel sends no connection events ({why}); reading the table every \
                 {seconds} s instead: short flows may be missed"
            );
        }
        if !self.ever_seen {
            return "no connection is tracked here: no firewall rule of this network namespace \
                    uses conntrack; `agentmon-router setup --rules` adds a passive one"
                .into();
        }
        if acct == Some(0) && !self.counted {
            return "no byte counts: net.netfilter.nf_conntrack_acct is 0; mend with: sysctl -w \
                    net.netfilter.nf_conntrack_acct=1 (counts flows that begin afterwards)"
                .into();
        }
        if self.losing {
            return "events were lost (ENOBUFS) and the table was read again; if this stays, \
                    raise conntrack.buffer_bytes"
                .into();
        }
        // The kernel doubles what is asked for; half is what a missing capability leaves.
        if self.buffer_bytes < self.wanted_bytes {
            let bytes = self.buffer_bytes;
            return format!(
                "receive buffer is only {bytes} bytes; mend with CAP_NET_ADMIN or: \
                 sysctl -w net.core.rmem_max={}",
                self.wanted_bytes
            );
        }
        format!("ok: open flows: {open}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        let config = Config::default();
        let bytes = 2 * config.buffer_bytes;
        Health::new(&config, bytes)
    }
    fn dump(entries: u64, missed_new: u64) -> DumpSummary {
        DumpSummary { entries, missed_new, vanished: 0 }
    }

    #[track_caller]
    fn says(health: &Health, acct: u64, events: u64, words: &str) {
        let line = health.line_with(3, Some(acct), Some(events));
        assert!(line.contains(words) && !line.contains('\n'), "{line}");
    }

    #[test]
    fn an_untouched_namespace_has_no_hook() {
        let mut health = health();
        health.on_dump(&dump(0, 0), &Totals::default(), false);
        says(&health, 1, 1, "no firewall rule");
        // Until the first event.
        assert!(!health.on_life(&Totals::default()));
        let alive = Totals { events: 1, counted: false };
        assert!(health.on_life(&alive) && !health.on_life(&alive));
        says(&health, 1, 1, "ok: ");
    }

    #[test]
    fn flows_without_events_lead_to_polling_and_an_event_ends_it() {
        let (mut health, config) = (health(), Config::default());
        let silent = Totals { events: 0, counted: true };
        health.on_dump(&dump(10, 0), &silent, false);
        assert_eq!(health.pause(&config), Duration::from_secs(15));
        health.on_dump(&dump(12, 2), &silent, false);
        assert!(!health.is_polling());
        assert_eq!(health.pause(&config), Duration::from_secs(5));
        health.on_dump(&dump(14, 2), &silent, false);
        assert!(health.is_polling());
        says(&health, 1, 2, "offload");
        says(&health, 1, 0, "nf_conntrack_events=1");
        health.on_dump(&dump(14, 0), &Totals { events: 1, counted: true }, false);
        says(&health, 1, 2, "ok: open flows: 3");
    }

    #[test]
    fn lost_events_do_not_look_like_silence() {
        let mut health = health();
        for _ in 0..5 {
            health.on_dump(&dump(9, 5), &Totals::default(), true);
        }
        assert!(!health.is_polling());
        says(&health, 0, 1, "nf_conntrack_acct=1");
    }

    #[test]
    fn what_lacks_is_named() {
        let mut health = health();
        health.on_dump(&dump(5, 0), &Totals { events: 5, counted: true }, true);
        says(&health, 1, 1, "ENOBUFS");
        health.buffer_bytes = 425_984;
        health.on_dump(&dump(5, 0), &Totals { events: 5, counted: true }, false);
        says(&health, 1, 1, "rmem_max=33554432");
    }
}
