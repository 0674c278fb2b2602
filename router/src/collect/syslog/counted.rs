//! The receiver's counters.
//!
//! Kept by the collector, added to by its parts; one atomic add each.

use crate::collect::dnsmasq_log::ReadCounts;
use crate::counters::{Counter, Counters};

macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)*) => {
        /// What came, and what became of it.
        #[derive(Clone, Debug)]
        pub(super) struct Counts {
            $($(#[$doc])* pub(super) $field: Counter,)*
        }

        impl Counts {
            pub(super) fn new(counters: &Counters) -> Self {
                Self { $($field: counters.counter($name),)* }
            }
        }
    };
}

counts! {
    /// Messages taken.
    messages = "syslog.messages",
    /// Packets a firewall stopped.
    packets = "syslog.packets",
    /// Of other programs, or of none that is understood.
    not_dns = "syslog.not_dns",
    queries = "syslog.queries",
    leases = "syslog.leases",
    exchanges = "syslog.exchanges",
    orphan_answers = "syslog.orphan_answer",
    timeouts = "syslog.timeout",
    evicted = "syslog.evicted",
    bad_names = "syslog.bad_name",
    /// Readers given up early for others.
    hosts_evicted = "syslog.hosts_evicted",
    /// Dated too far from now to be believed.
    wrong_clock = "syslog.wrong_clock",
    late = "syslog.late",
    connections = "syslog.connections",
    /// Bytes on a connection that are no syslog, or no TLS.
    bad_stream = "syslog.bad_stream",
    lines_lost = "drop.syslog.lines_lost",
    not_allowed = "drop.syslog.not_allowed",
    rate = "drop.syslog.rate",
    /// Datagrams the kernel had no room for.
    kernel = "drop.syslog.kernel",
    too_long = "drop.syslog.too_long",
    /// Connections that ended, or stood still, inside a message.
    half_message = "drop.syslog.half_message",
    /// Connections refused because there are too many.
    connections_refused = "drop.syslog.connections",
}

impl Counts {
    /// Carries over what a reader counted.
    pub(super) fn read(&self, before: ReadCounts, after: ReadCounts) {
        let not_dns = |c: ReadCounts| c.other_programs + c.unknown_lines;
        for (counter, before, after) in [
            (&self.not_dns, not_dns(before), not_dns(after)),
            (&self.queries, before.queries, after.queries),
            (&self.leases, before.leases, after.leases),
            (&self.lines_lost, before.lines_lost, after.lines_lost),
            (&self.exchanges, before.join.exchanges, after.join.exchanges),
            (&self.orphan_answers, before.join.orphan_answers, after.join.orphan_answers),
            (&self.timeouts, before.join.timeouts, after.join.timeouts),
            (&self.evicted, before.join.evicted, after.join.evicted),
            (&self.bad_names, before.join.bad_names, after.join.bad_names),
        ] {
            if after != before {
                counter.add(after.saturating_sub(before));
            }
        }
    }
}
