//! What the score of generated names is worth.
//!
//! Measured is [`agentmon_core::tier0::dga::score`]: the very function, table and default
//! threshold that the router's detector uses for every DNS exchange (rule `dga`). Not part
//! of it is what the detector knows beside the name: whether it exists, who else asks.
//! The second set of figures is of the same names with everything behind the judged label
//! replaced by `.invalid`: whether the score lives on the top-level domains of the sample.

use std::time::Duration;

use agentmon_core::Name;
use agentmon_core::tier0::dga::{Config, score};
use agentmon_core::time::Clock;

use super::names::Names;
use super::roc::{Negatives, part_reaching};

/// False-positive rates at which recall is told: one name in 100, 1,000, 10,000.
pub const RATES: [f64; 3] = [1e-2, 1e-3, 1e-4];
/// Most passes over the names for the time of one.
const PASSES_MAX: u32 = 5;

/// Figures of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Positive names.
    pub positives: usize,
    /// Negative names.
    pub negatives: usize,
    /// Lines of both that hold no name.
    pub bad_lines: u64,
    /// The names as they are.
    pub whole: Figures,
    /// The names with `.invalid` behind the judged label.
    pub without_tld: Figures,
    /// From this score on the detector tells of a single name, by default.
    pub threshold: f64,
    /// Time for scoring one name, the fastest of some passes.
    pub ns_per_name: f64,
    /// Recall by family, where the positives are a directory.
    pub families: Vec<Family>,
}

/// How the two sets divide.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Area under the curve.
    pub auc: f64,
    /// Recall at each of [`RATES`].
    pub recall: [f64; 3],
    /// Positives at or above the default threshold.
    pub flagged_positives: f64,
    /// Negatives at or above it.
    pub flagged_negatives: f64,
}

/// Figures of one family.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its file's name up to the first dot.
    pub name: String,
    /// How many names.
    pub names: usize,
    /// Recall at each of [`RATES`], by the thresholds of the whole.
    pub recall: [f64; 3],
    /// At or above the default threshold.
    pub flagged: f64,
}

/// Measures. `positives` are families, `negatives` one or several files.
#[must_use]
pub fn measure(positives: &[Names], negatives: &[Names], clock: &dyn Clock) -> Report {
    let threshold = Config::default().strong;
    let values = |names: &Names| names.names.iter().map(value).collect::<Vec<f64>>();
    let by_family: Vec<Vec<f64>> = positives.iter().map(values).collect();
    let found = by_family.concat();
    let wrong = Negatives::new(negatives.iter().flat_map(values).collect());
    let bare = |names: &Names| names.names.iter().map(value_without_tld).collect::<Vec<f64>>();
    let found_bare: Vec<f64> = positives.iter().flat_map(bare).collect();
    let wrong_bare = Negatives::new(negatives.iter().flat_map(bare).collect());
    let family = |(names, values): (&Names, &Vec<f64>)| Family {
        name: names.family.clone(),
        names: values.len(),
        recall: RATES.map(|rate| wrong.recall(values, rate)),
        flagged: part_reaching(values, threshold),
    };
    let all = || positives.iter().chain(negatives);
    Report {
        positives: found.len(),
        negatives: negatives.iter().map(|n| n.names.len()).sum(),
        bad_lines: all().map(|n| n.bad_lines).sum(),
        whole: Figures::of(&found, &wrong, threshold),
        without_tld: Figures::of(&found_bare, &wrong_bare, threshold),
        threshold,
        ns_per_name: time(all(), clock),
        families: positives.iter().zip(&by_family).map(family).collect(),
    }
}

fn value(name: &Name) -> f64 {
    score(name).value
}

fn value_without_tld(name: &Name) -> f64 {
    let score = score(name);
    let front = name.as_str().strip_suffix(score.domain).unwrap_or_default();
    let name = format!("{front}{}.invalid", score.label);
    if score.label.is_empty() {
        0.0
    } else {
        Name::parse(name.as_bytes()).map_or(0.0, |n| value(&n))
    }
}

impl Figures {
    fn of(found: &[f64], wrong: &Negatives, threshold: f64) -> Self {
        Self {
            auc: wrong.auc(found),
            recall: RATES.map(|rate| wrong.recall(found, rate)),
            flagged_positives: part_reaching(found, threshold),
            flagged_negatives: wrong.part_reaching(threshold),
        }
    }
}

/// Nanoseconds for one name: the fastest pass, since other programs only ever add.
fn time<'a>(files: impl Iterator<Item = &'a Names>, clock: &dyn Clock) -> f64 {
    let names: Vec<&Name> = files.flat_map(|file| &file.names).collect();
    let mut best = Duration::MAX;
    for _ in 0..PASSES_MAX {
        let begin = clock.mono();
        let sum: f64 = names.iter().map(|name| value(name)).sum();
        std::hint::black_box(sum);
        best = best.min(clock.mono().since(begin));
    }
    best.as_nanos() as f64 / names.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use agentmon_core::time::SimClock;

    use super::*;

    fn names(family: &str, texts: &[&str]) -> Names {
        let names = texts.iter().map(|t| t.parse().unwrap()).collect();
        Names { family: family.into(), names, bad_lines: 1 }
    }

    fn report() -> Report {
        let random =
            names("random", &["xkqzvwpjhtrbn.com", "q7w9zk31xv8b2n.biz", "zxqwvkjprtfgh.ddns.net"]);
        let calm = names("calm", &["nas.lan"]);
        let benign = names(
            "benign",
            &["www.wikipedia.org", "d111111abcdef8.cloudfront.net", "printer.lan", "."],
        );
        let clock = SimClock::at(agentmon_core::Timestamp::EPOCH);
        measure(&[random, calm], &[benign], &clock)
    }

    #[test]
    fn figures_of_a_small_set() {
        let report = report();
        assert_eq!((report.positives, report.negatives, report.bad_lines), (4, 4, 3));
        assert_eq!(report.whole.recall[0], 0.75);
        assert_eq!(report.whole.flagged_positives, 0.75);
        assert_eq!(report.whole.flagged_negatives, 0.0);
        assert!(report.whole.auc > 0.8);
        let families: Vec<_> = report.families.iter().map(|f| (&*f.name, f.recall[0])).collect();
        assert_eq!(families, [("random", 1.0), ("calm", 0.0)]);
    }

    /// The score does not look at the top-level domain.
    #[test]
    fn nothing_is_lost_without_the_tld() {
        let report = report();
        assert_eq!(report.whole.auc, report.without_tld.auc);
        assert_eq!(report.whole.recall, report.without_tld.recall);
    }
}
