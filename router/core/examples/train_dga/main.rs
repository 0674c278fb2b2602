//! Learns the weights of the DGA score and measures what they are worth.
//!
//! `cargo run --release -p agentmon-core --example train_dga -- OUT BENIGN POPULAR QUERIED
//! NOISE DGA...`
//!
//! OUT is `src/tier0/dga/weights.bin`; `-` only measures. The others hold one name per line
//! (of lines with tabs the first column; `.gz` is unpacked), or are MISP warning lists
//! (`.json`); several files of one kind are divided by `,`. BENIGN: popular names. POPULAR: more of them, of
//! lower quality. QUERIED: names really asked for, to measure with; no weight is
//! learned from them, and the filter knows them only when all is measured.
//! NOISE: names that stand among the popular ones and are generated. Each DGA file is one
//! family; files whose names are equal up to a `_` are variants of one.
//!
//! The committed weights were learned from 174,544 popular names (top lists under CC0,
//! regional lists under MIT), the Chrome, Tranco and university lists of the Python
//! package `pymispwarninglists` 1.7.0 (BSD-3-Clause, its lists CC0), the output of 25
//! published generators (only weights are kept, the names may not be distributed) and
//! generators made up in [`made`]. The package's Cisco list of 20,000 names was left for
//! measuring, and put into the filter after it. To get those lists:
//!
//! ```text
//! pip download --no-deps pymispwarninglists==1.7.0 && unzip pymispwarninglists-*.whl
//! L=pymispwarninglists/data/misp-warninglists/lists
//! POPULAR=$L/google-chrome-crux-1million/list.json,$L/tranco/list.json,$L/university_domains/list.json
//! QUERIED=$L/cisco_top20k/list.json
//! ```
//!
//! Measured by leaving out whole families and, at the same time, a fifth of the benign
//! labels: neither side was seen. The filter of popular labels is made from POPULAR alone
//! there, so that no benign name answers for itself. The same input gives the same output,
//! bit by bit.

#![allow(clippy::print_stdout, reason = "a measuring program's output")]

mod fit;
mod learn;
mod made;
mod names;

use std::collections::{BTreeMap, HashSet};

use agentmon_core::tier0::dga::model::is_judged;
use agentmon_core::tier0::dga::popular;
use anyhow::{Context, Result};
use xxhash_rust::xxh3::xxh3_64;

use fit::Model;
use learn::{Input, learn};
use names::{Family, Named};

const FOLDS: u64 = 5;
/// What standing in the popular lists takes off the odds.
const POPULAR_ODDS: f32 = 6.0;
/// Labels in the filter: 10 bits each, so that 7 of 1,000 others seem to be in. More labels
/// with fewer bits find more: what is wrongly taken for popular costs as many generated names.
const FILTER_LABELS: usize = 100_000;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next =
        || args.next().context("usage: train_dga OUT BENIGN POPULAR QUERIED NOISE DGA...");
    let out = next()?;
    let (benign, more, queried, noise) = (next()?, next()?, next()?, next()?);
    let noise: HashSet<String> = names::read(&noise)?.into_iter().map(|n| n.label).collect();
    let mut benign = names::read(&benign)?;
    benign.retain(|n| !noise.contains(&n.label));
    let mut more = names::read(&more)?;
    more.retain(|n| !noise.contains(&n.label));
    let families = args.map(|path| Family::read(&path)).collect::<Result<Vec<_>>>()?;
    let made = made::families(&benign);
    let queried = names::read(&queried)?;
    let input = Input { benign, popular: more, families, made };
    println!(
        "{} popular names, {} more, {} queried, {} families, {} made-up names",
        input.benign.len(),
        input.popular.len(),
        queried.len(),
        input.families.len(),
        input.made.len()
    );
    let lines = measure(&input, &queried);
    if out != "-" {
        std::fs::write(&out, table(&input, &queried, lines)).context(out)?;
    }
    Ok(())
}

/// Odds that one in 100 and one in 1,000 benign names exceed.
#[derive(Clone, Copy, Default)]
struct Lines {
    hundredth: f32,
    thousandth: f32,
}

impl Lines {
    fn of(mut odds: Vec<f32>) -> Self {
        odds.sort_by(|a, b| b.total_cmp(a));
        Self { hundredth: odds[odds.len() / 100], thousandth: odds[odds.len() / 1_000] }
    }
}

/// Leaves out each fold in turn. Returns the mean lines of names whose popularity other
/// lists may know: what the scale of the value goes by.
fn measure(input: &Input, queried: &[Named]) -> Lines {
    let known: HashSet<&str> = input.popular.iter().map(|n| n.label.as_str()).collect();
    let mut scale = Lines::default();
    let mut rows: [Vec<Row>; 3] = Default::default();
    let mut queried_above = [0.0; 2];
    for fold in 0..FOLDS {
        let held = |n: &Named| xxh3_64(n.label.as_bytes()) % FOLDS == fold;
        let out = |f: &Family| f.number(&input.families) % FOLDS == fold;
        let model = learn(input, |n| !held(n), |f| !out(f)).quantised();
        let plain = |names: &mut dyn Iterator<Item = &Named>| -> Vec<f32> {
            names.map(|n| model.odds_of(n)).collect()
        };
        let informed = |names: &mut dyn Iterator<Item = &Named>| -> Vec<f32> {
            let less =
                |n: &Named| if known.contains(n.label.as_str()) { POPULAR_ODDS } else { 0.0 };
            names.map(|n| model.odds_of(n) - less(n)).collect()
        };
        let looks = Lines::of(plain(&mut input.benign.iter().filter(|n| held(n))));
        let held_out = Lines::of(informed(&mut input.benign.iter().filter(|n| held(n))));
        let asked = informed(&mut queried.iter());
        for (sum, line) in queried_above.iter_mut().zip([held_out.hundredth, held_out.thousandth]) {
            *sum += above(&asked, line) / FOLDS as f64;
        }
        let lines = [looks, held_out, Lines::of(asked)];
        scale.hundredth += held_out.hundredth / FOLDS as f32;
        scale.thousandth += held_out.thousandth / FOLDS as f32;
        for family in input.families.iter().filter(|f| out(f)) {
            for (i, (rows, lines)) in rows.iter_mut().zip(lines).enumerate() {
                let names = &mut family.names.iter();
                let odds = if i == 0 { plain(names) } else { informed(names) };
                rows.push(Row::new(family, &odds, lines));
            }
        }
    }
    let titles = [
        "popular names, looks alone",
        "popular names, popularity in other lists known",
        "queried names, popularity in other lists known",
    ];
    for (title, rows) in titles.into_iter().zip(rows) {
        println!("\nrecall on families not learned from, at 1 % and 0.1 % of {title}:");
        report(rows);
    }
    let [suspicious, strong] = queried_above;
    println!(
        "\nqueried names above 0.5: {:.3} %, above 0.9: {:.3} %",
        suspicious * 100.0,
        strong * 100.0
    );
    scale
}

struct Row {
    family: String,
    names: usize,
    hundredth: f64,
    thousandth: f64,
}

impl Row {
    fn new(family: &Family, odds: &[f32], lines: Lines) -> Self {
        let (hundredth, thousandth) = (above(odds, lines.hundredth), above(odds, lines.thousandth));
        Self { family: family.name.clone(), names: odds.len(), hundredth, thousandth }
    }
}

fn above(odds: &[f32], line: f32) -> f64 {
    odds.iter().filter(|o| **o > line).count() as f64 / odds.len().max(1) as f64
}

fn report(mut rows: Vec<Row>) {
    rows.sort_by(|a, b| a.family.cmp(&b.family));
    let mut sums = BTreeMap::<&str, [f64; 3]>::new();
    for row in &rows {
        println!("{:24} {:6} {:.3} {:.3}", row.family, row.names, row.hundredth, row.thousandth);
        let names = row.names as f64;
        let weights = [
            ("all names", names),
            ("at most 1,000 of each", names.min(1e3)),
            ("mean of families", 1.0),
        ];
        for (key, weight) in weights {
            let sum = sums.entry(key).or_default();
            *sum = [
                sum[0] + weight,
                sum[1] + weight * row.hundredth,
                sum[2] + weight * row.thousandth,
            ];
        }
    }
    for (key, [weight, one, tenth]) in sums {
        println!("{key:31} {:.3} {:.3}", one / weight, tenth / weight);
    }
}

/// Header, weights and filter as `model` reads them: 0.5 where 1 in 100 benign names lie
/// above, 0.9 where 1 in 1,000 do.
fn table(input: &Input, queried: &[Named], lines: Lines) -> Vec<u8> {
    let model = learn(input, |_| true, |_| true);
    let slope = 9f32.ln() / (lines.thousandth - lines.hundredth);
    let mut bytes = Vec::new();
    for field in [model.unit(), model.bias(), lines.hundredth, slope, POPULAR_ODDS] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(model.steps());
    bytes.extend(filter(input, queried, &model.quantised()));
    bytes
}

/// The popular labels that look generated most.
fn filter(input: &Input, queried: &[Named], model: &Model) -> Vec<u8> {
    let names = input.benign.iter().chain(&input.popular).chain(queried);
    let names = names.filter(|n| is_judged(&n.label));
    let mut odds: BTreeMap<&str, f32> = BTreeMap::new();
    for name in names {
        let odds = odds.entry(&name.label).or_insert(f32::MIN);
        *odds = odds.max(model.odds_of(name));
    }
    let mut labels: Vec<(&str, f32)> = odds.into_iter().collect();
    labels.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    labels.truncate(FILTER_LABELS);
    let least = labels.last().map_or(0.0, |l| l.1);
    println!("{} popular labels in the filter, down to odds of {least:.2}", labels.len());
    let mut filter = vec![0; popular::POPULAR_BYTES];
    labels.iter().for_each(|(label, _)| popular::insert(&mut filter, label));
    filter
}
