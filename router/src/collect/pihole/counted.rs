//! The collector's totals as shared counters: `pihole.lines`, or, for one with a name of its
//! own, `pihole:attic.lines`.

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
        "lines",
        "queries",
        "leases",
        "unknown_line",
        "resolver_overload",
        "lines_lost",
        "exchanges",
        "orphan_answer",
        "evicted",
        "timeout",
        "bad_name",
        "forgotten",
    ];

    fn new(whose: &str, counters: &Counters) -> Self {
        let counter = |what: &str| counters.counter(&format!("{whose}.{what}"));
        let dropped = |what: &str| counters.counter(&format!("drop.{whose}.{what}"));
        // Lines that FTL itself says it lost, among the reader's totals.
        let read = |what: &str| if what == "lines_lost" { dropped(what) } else { counter(what) };
        Self {
            logins: counter("logins"),
            restarts: counter("ftl_restarts"),
            lost_lines: counter("lines_missed"),
            cut_lines: counter("lines_cut"),
            bad_elements: dropped("bad_element"),
            bad_rows: dropped("bad_row"),
            spans: counter("gaps"),
            filled: counter("filled"),
            given_up: dropped("gap_given_up"),
            devices: counter("devices"),
            bad_devices: dropped("bad_device"),
            read: Self::READ.iter().map(|what| (read(what), 0)).collect(),
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
        self.counted.get_or_insert_with(|| Counted::new(&self.name, counters))
    }

    pub(super) fn count(&mut self, counters: &Counters) {
        let (read, forgotten) = (self.reader.counts(), self.missing.forgotten);
        self.counted(counters).update(read, forgotten);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;
    use crate::collect::Collector as _;

    #[test]
    fn each_pihole_counts_for_itself() {
        let counters = Counters::default();
        for (name, logins) in [("", 1), ("attic", 2)] {
            let mut source = Source::new(Config { name: name.into(), ..Config::default() });
            assert_eq!(source.name(), source.config.shown_name());
            source.counted(&counters).logins.add(logins);
        }
        let counted = counters.snapshot();
        assert_eq!((counted["pihole.logins"], counted["pihole:attic.logins"]), (1, 2));
        assert!(counted.contains_key("drop.pihole:attic.lines_lost"), "{counted:?}");
        assert!(!counted.contains_key("pihole:attic.lines_lost"));
    }
}
