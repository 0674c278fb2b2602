//! What is learned from what: samples and their weights.

use std::collections::HashSet;

use agentmon_core::tier0::dga::model::is_judged;

use crate::fit::{Model, Sample};
use crate::made::Made;
use crate::names::{Family, Named};

/// Names of one family that count.
const FAMILY_MAX: usize = 3_000;
/// Weight of the published families, and of the made-up ones, to that of all benign names:
/// below 1, because a false alarm costs more than a miss.
const PUBLISHED_SHARE: f32 = 0.1;
const MADE_SHARE: f32 = 0.5;
/// How many names of the long popular lists are learned from, and the weight of each:
/// their tails hold what is popular with few.
const POPULAR_MAX: usize = 400_000;
const POPULAR_WEIGHT: f32 = 0.1;
/// This part of the benign names, those that look generated most, is left out of a second
/// round: most of them are, or tell nothing.
const UNLIKELY: f32 = 0.003;
/// Everything that is read.
pub(crate) struct Input {
    pub(crate) benign: Vec<Named>,
    pub(crate) popular: Vec<Named>,
    pub(crate) families: Vec<Family>,
    pub(crate) made: Vec<Made>,
}

/// Two rounds: the second without benign names that look generated.
pub(crate) fn learn(
    input: &Input,
    seen: impl Fn(&Named) -> bool,
    kept: impl Fn(&Family) -> bool,
) -> Model {
    let mut samples = Vec::new();
    let mut labels = HashSet::new();
    for name in input.benign.iter().filter(|n| seen(n) && is_judged(&n.label)) {
        if labels.insert((name.label.as_str(), name.front as u8)) {
            samples.push(Sample::new(name, false, 1.0));
        }
    }
    let known: HashSet<&str> = input.benign.iter().map(|n| n.label.as_str()).collect();
    let more =
        input.popular.iter().filter(|n| !known.contains(n.label.as_str()) && is_judged(&n.label));
    let more: Vec<&Named> = more.filter(|n| labels.insert((n.label.as_str(), 0))).collect();
    let step = more.len().div_ceil(POPULAR_MAX).max(1);
    for name in more.into_iter().step_by(step).filter(|n| seen(n)) {
        samples.push(Sample::new(name, false, POPULAR_WEIGHT));
    }
    let benign: f32 = samples.iter().map(|s| s.weight).sum();
    let families: Vec<&Family> = input.families.iter().filter(|f| kept(f)).collect();
    let total: usize = families.iter().map(|f| f.names.len().min(FAMILY_MAX)).sum();
    for family in families {
        let step = family.names.len().div_ceil(FAMILY_MAX).max(1);
        for name in family.names.iter().step_by(step) {
            samples.push(Sample::new(name, true, benign * PUBLISHED_SHARE / total as f32));
        }
    }
    let total: f32 = input.made.iter().map(|m| m.weight).sum();
    for made in &input.made {
        samples.push(Sample::new(&made.name, true, benign * MADE_SHARE * made.weight / total));
    }
    let first = Model::fit(&samples);
    let mut odds: Vec<f32> =
        samples.iter().filter(|s| !s.generated).map(|s| first.odds(&s.features)).collect();
    odds.sort_by(|a, b| b.total_cmp(a));
    let line = odds[(odds.len() as f32 * UNLIKELY) as usize];
    samples.retain(|s| s.generated || first.odds(&s.features) <= line);
    Model::fit(&samples)
}
