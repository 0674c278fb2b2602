//! Learns the weights of the DGA score and measures what they are worth.
//!
//! `cargo run --release -p agentmon-core --example train_dga -- BENIGN OUT DGA...`
//!
//! BENIGN and each DGA file hold one name per line (of lines with tabs the first column);
//! a DGA file is one family, and files whose names are equal up to a `_` are variants of
//! one. OUT is `src/tier0/dga/weights.bin`; `-` only measures. The committed weights were
//! learned from 174,544 popular names (top lists under CC0, regional lists under MIT) and
//! the output of 25 published generators (only weights are kept, the names may not be
//! distributed), plus random strings made here.
//!
//! Method: logistic regression on the features of `agentmon_core::tier0::dga::model`, by
//! stochastic gradient descent with AdaGrad (Duchi et al. 2011); classes balanced, each
//! family counting at most [`FAMILY_MAX`] names. Measured by leaving out whole families
//! and, at the same time, a fifth of the benign names by label: neither side was seen.
//! The same input gives the same output, bit by bit.

#![allow(clippy::print_stdout, reason = "a measuring program's output")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use agentmon_core::Name;
use agentmon_core::tier0::dga::model::{WEIGHTS, features};
use agentmon_core::tier0::dga::score;
use anyhow::{Context, Result};
use xxhash_rust::xxh3::xxh3_64;

const FOLDS: u64 = 5;
const FAMILY_MAX: usize = 3_000;
const EPOCHS: usize = 2;
const RATE: f32 = 0.1;
/// Weight of all generated names to that of all benign ones: below 1, because a false
/// alarm costs more than a miss.
const GENERATED_SHARE: f32 = 0.25;
/// Random strings, and their weight to that of the families.
const RANDOM: usize = 12_000;
const RANDOM_SHARE: f32 = 1.0;

struct Family {
    name: String,
    labels: Vec<String>,
}

struct Sample {
    features: Vec<u32>,
    generated: bool,
    weight: f32,
}

/// Weights, the bias last.
struct Model(Vec<f32>);

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: train_dga BENIGN OUT DGA...";
    let (benign, out) = (args.next().context(usage)?, args.next().context(usage)?);
    let benign = labels(&benign)?;
    let families = args.map(|path| family(&path)).collect::<Result<Vec<_>>>()?;
    println!("{} benign names, {} families", benign.len(), families.len());

    let (mut hundredth, mut thousandth) = (0.0, 0.0);
    let mut rows = Vec::new();
    for fold in 0..FOLDS {
        let (held, seen): (Vec<_>, Vec<_>) =
            benign.iter().partition(|l| xxh3_64(l.as_bytes()) % FOLDS == fold);
        let (out, kept): (Vec<_>, Vec<_>) =
            families.iter().partition(|f| group(&families, f) % FOLDS as usize == fold as usize);
        let model = Model::learn(&seen, &kept).quantised();
        let mut odds: Vec<f32> = held.iter().map(|l| model.odds(l)).collect();
        odds.sort_by(|a, b| b.total_cmp(a));
        let (one, tenth) = (odds[odds.len() / 100], odds[odds.len() / 1_000]);
        hundredth += one / FOLDS as f32;
        thousandth += tenth / FOLDS as f32;
        for family in out {
            let odds: Vec<f32> = family.labels.iter().map(|l| model.odds(l)).collect();
            rows.push((family.name.clone(), odds.len(), above(&odds, one), above(&odds, tenth)));
        }
    }
    report(rows);
    known_families(&benign, &families);
    if out != "-" {
        let all: Vec<&String> = benign.iter().collect();
        let model = Model::learn(&all, &families.iter().collect::<Vec<_>>());
        std::fs::write(&out, model.table(hundredth, thousandth)).context(out)?;
    }
    Ok(())
}

/// The easier question: a fifth of the names of every family, the others learned from.
fn known_families(benign: &[String], families: &[Family]) {
    let held = |l: &&String| xxh3_64(l.as_bytes()).is_multiple_of(FOLDS);
    let (benign_held, benign_seen): (Vec<_>, Vec<_>) = benign.iter().partition(held);
    let mut generated_held = Vec::new();
    let mut kept = Vec::new();
    for family in families {
        let (out, seen): (Vec<_>, Vec<_>) = family.labels.iter().partition(held);
        generated_held.extend(out);
        let labels = seen.into_iter().cloned().collect();
        kept.push(Family { name: family.name.clone(), labels });
    }
    let model = Model::learn(&benign_seen, &kept.iter().collect::<Vec<_>>()).quantised();
    let mut odds: Vec<f32> = benign_held.iter().map(|l| model.odds(l)).collect();
    odds.sort_by(|a, b| b.total_cmp(a));
    let generated: Vec<f32> = generated_held.iter().map(|l| model.odds(l)).collect();
    let (one, tenth) = (odds[odds.len() / 100], odds[odds.len() / 1_000]);
    println!("recall on names not learned from, of families that were:");
    println!("{:31} {:.3} {:.3}", "all names", above(&generated, one), above(&generated, tenth));
}

/// The labels that count, one for each name.
fn labels(path: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let names = text.lines().filter_map(|line| line.split('\t').next()?.parse::<Name>().ok());
    Ok(names.map(|name| score(&name).label.to_owned()).filter(|l| !l.is_empty()).collect())
}

fn family(path: &str) -> Result<Family> {
    let stem = Path::new(path).file_stem().context("a file name")?;
    Ok(Family { name: stem.to_string_lossy().into_owned(), labels: labels(path)? })
}

/// Variants of a family share a number.
fn group(families: &[Family], family: &Family) -> usize {
    let stem = |f: &Family| f.name.split('_').next().unwrap_or_default().to_owned();
    let mut stems: Vec<String> = families.iter().map(stem).collect();
    stems.sort();
    stems.dedup();
    stems.iter().position(|s| *s == stem(family)).unwrap_or(0)
}

fn above(odds: &[f32], line: f32) -> f64 {
    odds.iter().filter(|o| **o > line).count() as f64 / odds.len().max(1) as f64
}

fn report(mut rows: Vec<(String, usize, f64, f64)>) {
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    println!("recall on families not learned from, at false-positive rates of 1 % and 0.1 %:");
    let mut sums = BTreeMap::<&str, [f64; 3]>::new();
    for (name, count, one, tenth) in &rows {
        println!("{name:24} {count:6} {one:.3} {tenth:.3}");
        for (key, weight) in [("all names", *count as f64), ("mean of families", 1.0)] {
            let sum = sums.entry(key).or_default();
            *sum = [sum[0] + weight, sum[1] + weight * one, sum[2] + weight * tenth];
        }
    }
    for (key, [weight, one, tenth]) in sums {
        println!("{key:31} {:.3} {:.3}", one / weight, tenth / weight);
    }
}

impl Sample {
    fn new(label: &str, generated: bool, weight: f32) -> Self {
        let mut indices = Vec::new();
        features(label.as_bytes(), |index| indices.push(index as u32));
        Self { features: indices, generated, weight }
    }
}

/// A linear congruential generator (Knuth's MMIX constants): the same numbers every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// Letters, letters of a part of the alphabet, letters and digits, hexadecimal digits.
fn random_labels() -> Vec<String> {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let hex = b"0123456789abcdef";
    let mut random = Random(99);
    let mut label = |kind: usize| {
        let length = 6 + random.below(22);
        let letters = match kind {
            0..=2 => &alphabet[..26],
            3 => &alphabet[..],
            4 => &hex[..],
            _ => &alphabet[..17 + random.below(8)],
        };
        (0..length).map(|_| char::from(letters[random.below(letters.len())])).collect()
    };
    (0..RANDOM).map(|i| label(i % 6)).collect()
}

impl Model {
    fn learn(benign: &[&String], families: &[&Family]) -> Self {
        let mut samples = Vec::new();
        let mut seen = HashSet::new();
        for label in benign.iter().filter(|l| seen.insert(l.as_str())) {
            samples.push(Sample::new(label, false, 1.0));
        }
        let share = samples.len() as f32 * GENERATED_SHARE;
        let kept: usize = families.iter().map(|f| f.labels.len().min(FAMILY_MAX)).sum();
        for family in families {
            let step = family.labels.len().div_ceil(FAMILY_MAX).max(1);
            let mut seen = HashSet::new();
            for label in family.labels.iter().step_by(step).filter(|l| seen.insert(l.as_str())) {
                samples.push(Sample::new(label, true, share / kept as f32));
            }
        }
        for label in random_labels() {
            samples.push(Sample::new(&label, true, share * RANDOM_SHARE / RANDOM as f32));
        }
        Self::fit(&samples)
    }

    fn fit(samples: &[Sample]) -> Self {
        let mut weights = vec![0f32; WEIGHTS + 1];
        let mut squares = vec![1e-6f32; WEIGHTS + 1];
        let mut order: Vec<usize> = (0..samples.len()).collect();
        let mut random = Random(12_345);
        for _ in 0..EPOCHS {
            for i in (1..order.len()).rev() {
                order.swap(i, random.below(i + 1));
            }
            for sample in order.iter().map(|i| &samples[*i]) {
                let bias = WEIGHTS as u32;
                let indices = || sample.features.iter().chain(std::iter::once(&bias));
                let odds: f32 = indices().map(|i| weights[*i as usize]).sum();
                let expected = f32::from(u8::from(sample.generated));
                let slope = (1.0 / (1.0 + (-odds).exp()) - expected) * sample.weight;
                for i in indices().map(|i| *i as usize) {
                    squares[i] += slope * slope;
                    weights[i] -= RATE * slope / squares[i].sqrt();
                }
            }
        }
        Self(weights)
    }

    /// The weight that one step of the byte stands for.
    fn unit(&self) -> f32 {
        self.0[..WEIGHTS].iter().fold(0f32, |most, w| most.max(w.abs())) / 127.0
    }

    /// As it will be after a round trip through bytes.
    fn quantised(mut self) -> Self {
        let unit = self.unit();
        for weight in &mut self.0[..WEIGHTS] {
            *weight = (*weight / unit).round() * unit;
        }
        self
    }

    fn odds(&self, label: &str) -> f32 {
        let mut odds = self.0[WEIGHTS];
        features(label.as_bytes(), |index| odds += self.0[index]);
        odds
    }

    /// Header and weights as `model` reads them: 0.5 where 1 in 100 benign names lie
    /// above, 0.9 where 1 in 1,000 do.
    fn table(&self, hundredth: f32, thousandth: f32) -> Vec<u8> {
        let unit = self.unit();
        let slope = 9f32.ln() / (thousandth - hundredth);
        let mut bytes = Vec::new();
        for field in [unit, self.0[WEIGHTS], hundredth, slope] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(self.0[..WEIGHTS].iter().map(|w| ((w / unit).round() as i8).cast_unsigned()));
        bytes
    }
}
