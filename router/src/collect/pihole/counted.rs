//! The collector's totals as shared counters.

use super::Source;
use crate::collect::dnsmasq_log::ReadCounts;
use crate::counters::{Counter, Counters};

/// Counters of this collector, and how much of the reader's totals is in them.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) logins: Counter,
    pub(super) restarts: Counter,
    pub(super) lost_lines: Counter,
    pub(super) cut_lines: Counter,
    pub(super) bad_elements: Counter,
    pub(super) bad_rows: Counter,
    pub(super) spans: Counter,
    pub(super) filled: Counter,
    pub(super) given_up: Counter,
    pub(super) devices: Counter,
    pub(super) bad_devices: Counter,
    read: Vec<(Counter, u64)>,
}

impl Counted {
    const READ: [&'static str; 12] = [
        "pihole.lines",
        "pihole.queries",
        "pihole.leases",
        "pihole.unknown_line",
        "pihole.resolver_overload",
        "drop.pihole.lines_lost",
        "pihole.exchanges",
        "pihole.orphan_answer",
        "pihole.evicted",
        "pihole.timeout",
        "pihole.bad_name",
        "pihole.forgotten",
    ];

    fn new(counters: &Counters) -> Self {
        let counter = |name: &str| counters.counter(name);
        Self {
            logins: counter("pihole.logins"),
            restarts: counter("pihole.ftl_restarts"),
            lost_lines: counter("pihole.lines_missed"),
            cut_lines: counter("pihole.lines_cut"),
            bad_elements: counter("drop.pihole.bad_element"),
            bad_rows: counter("drop.pihole.bad_row"),
            spans: counter("pihole.gaps"),
            filled: counter("pihole.filled"),
            given_up: counter("drop.pihole.gap_given_up"),
            devices: counter("pihole.devices"),
            bad_devices: counter("drop.pihole.bad_device"),
            read: Self::READ.iter().map(|name| (counter(name), 0)).collect(),
        }
    }

    fn update(&mut self, read: ReadCounts, forgotten: u64) {
        let totals = [
            read.lines,
            read.queries,
            read.leases,
            read.unknown_lines,
            read.overloads,
            read.lines_lost,
            read.join.exchanges,
            read.join.orphan_answers,
            read.join.evicted,
            read.join.timeouts,
            read.join.bad_names,
            forgotten,
        ];
        for ((counter, seen), total) in self.read.iter_mut().zip(totals) {
            counter.add(total.saturating_sub(*seen));
            *seen = total;
        }
    }
}

impl Source {
    pub(super) fn counted(&mut self, counters: &Counters) -> &mut Counted {
        self.counted.get_or_insert_with(|| Counted::new(counters))
    }

    pub(super) fn count(&mut self, counters: &Counters) {
        let (read, forgotten) = (self.reader.counts(), self.missing.forgotten);
        self.counted(counters).update(read, forgotten);
    }
}
