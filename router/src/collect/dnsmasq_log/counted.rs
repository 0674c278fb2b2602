//! The collector's own totals as shared counters.
//!
//! The reader and the follower count in plain numbers, which cost nothing per line; from
//! time to time what was added is carried over.

use super::reader::ReadCounts;
use crate::counters::{Counter, Counters};
use crate::tail::Counts as TailCounts;

/// Carries the totals of this collector over into the shared counters.
#[derive(Debug)]
pub(in crate::collect) struct Counted {
    counters: Vec<(Counter, u64)>,
}

impl Counted {
    const NAMES: [&'static str; 21] = [
        "dnsmasq_log.lines",
        "dnsmasq_log.queries",
        "dnsmasq_log.leases",
        "dnsmasq_log.other_program",
        "dnsmasq_log.unknown_line",
        "dnsmasq_log.unknown_source",
        "dnsmasq_log.unknown_type",
        "dnsmasq_log.resolver_overload",
        "drop.dnsmasq_log.lines_lost",
        "dnsmasq_log.exchanges",
        "dnsmasq_log.orphan_answer",
        "dnsmasq_log.evicted",
        "dnsmasq_log.timeout",
        "dnsmasq_log.bad_name",
        "dnsmasq_log.answers_cut",
        "tail.rotated",
        "tail.truncated",
        "tail.lost_rotated",
        "drop.tail.line_too_long",
        "drop.tail.half_line",
        "tail.nul_bytes",
    ];

    pub(in crate::collect) fn new(counters: &Counters) -> Self {
        let counters = Self::NAMES.iter().map(|name| (counters.counter(name), 0)).collect();
        Self { counters }
    }

    pub(in crate::collect) fn update(&mut self, read: ReadCounts, tail: TailCounts) {
        let join = read.join;
        let totals = [
            read.lines,
            read.queries,
            read.leases,
            read.other_programs,
            read.unknown_lines,
            read.unknown_sources,
            read.unknown_types,
            read.overloads,
            read.lines_lost,
            join.exchanges,
            join.orphan_answers,
            join.evicted,
            join.timeouts,
            join.bad_names,
            join.answers_cut,
            tail.rotated,
            tail.truncated,
            tail.lost_rotated,
            tail.lines.too_long,
            tail.half_lines,
            tail.lines.nul_bytes,
        ];
        for ((counter, seen), total) in self.counters.iter_mut().zip(totals) {
            counter.add(total.saturating_sub(*seen));
            *seen = total;
        }
    }
}
