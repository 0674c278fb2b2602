//! Does a series of times beat? A likelihood ratio between a heart and chance.
//!
//! In: whole seconds at which one source did something with one destination, in any order.
//! Out: [`Rhythm`]: a score from 0 to 1, the period, its jitter and how many beats are missing.
//! Pure, linear in the times after a sort; the fit itself looks at [`POINTS_MAX`] gaps.
//!
//! Two stories compete for the gaps between beats:
//! - a heart: each gap is one period or, where beats were missed, a few of them, give or take
//!   the jitter; some gaps are anything at all (somebody used the service by hand);
//! - chance: gaps are exponential, as those of independent events are, or of any length, as
//!   those of people are.
//!
//! Both are fitted to the gaps as well as they can be; the score is how much likelier the
//! heart is, all gaps together, provided that each gap says so by itself a little
//! ([`PER_GAP`]): a long series of not quite independent events is not a heart.

/// Times closer together are one beat: a beat may be several connections and a question.
pub const MERGE_SECONDS: f64 = 6.0;
/// Gaps below which nothing can be said.
pub const GAPS_MIN: usize = 3;
/// Of more gaps, so many quantiles stand for all.
const POINTS_MAX: usize = 64;
/// Missed beats in a row that are told from others.
const MULTIPLES: usize = 5;
/// Stories told: jitter as standard deviations of a bell or half widths of a box, in parts of
/// the period; parts of the beats that may be missing; parts of the gaps that may be anything.
struct Grid {
    bells: &'static [f64],
    boxes: &'static [f64],
    missed: &'static [f64],
    any: &'static [f64],
}
const ROUGH: Grid =
    Grid { bells: &[0.025, 0.12, 0.3], boxes: &[0.25, 0.5], missed: &[0.02, 0.25], any: &[0.05] };
const FINE: Grid = Grid {
    bells: &[0.004, 0.01, 0.025, 0.05, 0.09, 0.14, 0.2, 0.28, 0.38],
    boxes: &[0.1, 0.2, 0.3, 0.4, 0.5],
    missed: &[0.02, 0.1, 0.2, 0.33],
    any: &[0.02, 0.12],
};
/// What the heart has to be ahead for the freedom it was given, in nats.
const FREEDOM: f64 = 1.5;
/// Nats ahead at which the score is one half, and how fast it goes up.
const HALF: f64 = 1.0;
const STEEP: f64 = 0.6;
/// With fewer gaps than this more is asked, so much with none at all.
const FEW: f64 = 10.0;
const FEW_NATS: f64 = 1.0;
/// A rough fit that is so far behind is not made finer.
const BEHIND: f64 = -6.0;
/// Nats ahead per gap from which the score counts, and from which it counts fully.
const PER_GAP: [f64; 2] = [0.06, 0.14];
/// Gaps shorter than this part of the median speak for chance; so many are let through.
const SHORT: f64 = 0.4;
const SHORT_PART: f64 = 0.2;
/// Deviations beyond which a bell is nothing.
const FAR: f64 = 6.0;
/// Nats ahead at which a rough fit has said all; what is left is to tell the period well.
const CERTAIN: f64 = 8.0;
/// How far the finer fit then looks, in parts of the period.
const NEAR: f64 = 0.03;
/// Sums of logarithms are not exact.
const ROUNDING: f64 = 1e-6;
/// Whole seconds are not exact.
const RESOLUTION: f64 = 0.5;

/// How a series beats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rhythm {
    /// From 0 (chance) to 1.
    pub score: f64,
    /// Seconds.
    pub period: f64,
    /// Part of the period by which a beat comes early or late.
    pub jitter: f64,
    /// Part of the beats that are missing.
    pub missed: f64,
    /// Beats seen.
    pub beats: usize,
    /// How much likelier a heart is than chance, in nats.
    pub ahead: f64,
}

/// Times as beats, gaps between beats as a rhythm; `None` where there are too few.
#[must_use]
pub fn rhythm(times: &[i64]) -> Option<Rhythm> {
    rhythm_from(times, 0.0)
}

/// As [`rhythm`]; of what scores less than `least` no more is told than its beats. That much
/// cheaper: what cannot come so far is not fitted to the end.
#[must_use]
pub fn rhythm_from(times: &[i64], least: f64) -> Option<Rhythm> {
    let mut times = times.to_vec();
    times.sort_unstable();
    let gaps = gaps(&times);
    if gaps.len() < GAPS_MIN {
        return None;
    }
    let beats = gaps.len() + 1;
    let mut sorted = gaps;
    sorted.sort_unstable_by(f64::total_cmp);
    let none = Rhythm { beats, ..Rhythm::default() };
    let n = sorted.len() as f64;
    let median = quantile(&sorted, 0.5);
    let short = sorted.iter().filter(|g| **g < SHORT * median).count() as f64;
    if short > SHORT_PART * n + 1.5 * (n * 0.15).sqrt() {
        return Some(none);
    }
    let points = points(&sorted);
    let weight = n / points.len() as f64;
    let span = sorted.iter().sum::<f64>().max(2.0 * MERGE_SECONDS);
    let chance = chance(&points, span);
    let ahead = |heart: &Heart| (heart.likelihood - chance) * weight - FREEDOM;
    // The likelihood of a heart that is so far ahead, and a little less: sums are rounded.
    let at = |ahead: f64| (ahead + FREEDOM) / weight + chance - ROUNDING;
    let half = HALF + FEW_NATS * (1.0 - n / FEW).max(0.0);
    let periods = periods(&points);
    let limit = BEHIND.min(-0.1 * n);
    let rough = heart(&points, span, &periods, &ROUGH, at(limit));
    let Some(rough) = rough.filter(|rough| ahead(rough) >= limit) else { return Some(none) };
    let certain = ahead(&rough) > CERTAIN.max(1.5 * PER_GAP[1] * n);
    let near = |p: &&f64| !certain || (**p - rough.period).abs() <= NEAR * rough.period;
    let periods: Vec<f64> = periods.iter().filter(near).copied().collect();
    let needed = at(needed(least, n, half));
    let fine = heart(&points, span, &periods, &FINE, rough.likelihood.max(needed));
    let Some(heart) = fine.or((rough.likelihood > needed).then_some(rough)) else {
        return Some(none);
    };
    let ahead = ahead(&heart);
    let each = ((ahead / n - PER_GAP[0]) / (PER_GAP[1] - PER_GAP[0])).clamp(0.0, 1.0);
    let score = each / (1.0 + (-(ahead - half) / STEEP).exp());
    Some(Rhythm {
        score,
        period: heart.period,
        jitter: heart.jitter,
        missed: heart.missed,
        beats,
        ahead,
    })
}

/// How far ahead `n` gaps must be for a score of `least`: the score is the product of two
/// parts of at most 1, so each of them must come so far.
fn needed(least: f64, n: f64, half: f64) -> f64 {
    if least <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let least = least.min(0.999);
    let each = n * (PER_GAP[0] + least * (PER_GAP[1] - PER_GAP[0]));
    each.max(half + STEEP * (least / (1.0 - least)).ln())
}

fn gaps(times: &[i64]) -> Vec<f64> {
    let (mut gaps, mut begin) = (Vec::new(), None::<i64>);
    let mut last = None::<i64>;
    for time in times {
        match last {
            Some(last) if (time.saturating_sub(last) as f64) < MERGE_SECONDS => {}
            _ => {
                if let Some(begin) = begin {
                    gaps.push(time.saturating_sub(begin) as f64);
                }
                begin = Some(*time);
            }
        }
        last = Some(*time);
    }
    gaps
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = (part * (sorted.len() - 1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

fn points(sorted: &[f64]) -> Vec<f64> {
    if sorted.len() <= POINTS_MAX {
        return sorted.to_vec();
    }
    (0..POINTS_MAX).map(|i| quantile(sorted, (i as f64 + 0.5) / POINTS_MAX as f64)).collect()
}

/// Of any length between two merged times and all of them: the same for each magnitude.
fn anything(points: &[f64], span: f64) -> Vec<f64> {
    let magnitudes = (span / MERGE_SECONDS).ln();
    points.iter().map(|gap| 1.0 / (gap.max(1.0) * magnitudes)).collect()
}

/// Log likelihood of the best story without a heart.
fn chance(points: &[f64], span: f64) -> f64 {
    let over: Vec<f64> = points.iter().map(|g| (g - MERGE_SECONDS).max(0.0)).collect();
    let mean = over.iter().sum::<f64>() / over.len() as f64;
    let median = quantile(&over, 0.5) / std::f64::consts::LN_2;
    let anything = anything(points, span);
    let mut best = f64::NEG_INFINITY;
    for mean in [mean, median, median * 0.8] {
        let mean = mean.max(1.0);
        let even: Vec<f64> = over.iter().map(|over| (-over / mean).exp() / mean).collect();
        for any in [0.0, 0.05, 0.2, 0.5, 0.8] {
            let one = |(even, anything): (&f64, &f64)| {
                ((1.0 - any) * even + any * anything).max(1e-12).ln()
            };
            best = best.max(even.iter().zip(&anything).map(one).sum());
        }
    }
    best
}

#[derive(Clone, Copy, Debug)]
struct Heart {
    likelihood: f64,
    period: f64,
    jitter: f64,
    missed: f64,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Bell(f64),
    Box(f64),
}

impl Shape {
    /// Standard deviation of one period.
    fn deviation(self, period: f64) -> f64 {
        let part = match self {
            Self::Bell(part) => part,
            Self::Box(half) => half / 3f64.sqrt(),
        };
        (part * period).hypot(RESOLUTION)
    }

    fn jitter(self) -> f64 {
        match self {
            Self::Bell(part) => part * 3f64.sqrt(),
            Self::Box(half) => half,
        }
    }

    fn density(self, gap: f64, period: f64, k: f64, deviation: f64) -> f64 {
        if let (Self::Box(half), true) = (self, k == 1.0) {
            // Soft at its edges: the period is a guess.
            let (half, edge) = (half * period, 0.06 * half * period + RESOLUTION);
            let inside = |x: f64| 1.0 / (1.0 + (-x / edge).exp());
            return inside(gap - period + half) * inside(period + half - gap) / (2.0 * half);
        }
        let z = (gap - k * period) / deviation;
        if z.abs() > FAR {
            return 0.0;
        }
        (-0.5 * z * z).exp() / (deviation * (std::f64::consts::TAU.sqrt()))
    }
}

/// The likeliest story of a heart that is likelier than `floor`.
fn heart(points: &[f64], span: f64, periods: &[f64], grid: &Grid, floor: f64) -> Option<Heart> {
    let mut best = Heart { likelihood: floor, period: 0.0, jitter: 0.0, missed: 0.0 };
    let bells = grid.bells.iter().map(|part| Shape::Bell(*part));
    let shapes: Vec<Shape> = bells.chain(grid.boxes.iter().map(|half| Shape::Box(*half))).collect();
    let any = anything(points, span);
    let most = grid.most();
    let mut densities = vec![[0.0; MULTIPLES]; points.len()];
    for period in periods {
        for shape in &shapes {
            let one = shape.deviation(*period);
            let deviations: [f64; MULTIPLES] =
                std::array::from_fn(|nth| one * ((nth + 1) as f64).sqrt());
            for (gap, row) in points.iter().zip(&mut densities) {
                for ((k, density), deviation) in (1u8..).zip(row.iter_mut()).zip(deviations) {
                    *density = shape.density(*gap, *period, f64::from(k), deviation);
                }
            }
            if at_most(&densities, &any, &most) + ROUNDING <= best.likelihood {
                continue;
            }
            for missed in grid.missed {
                let beats: Vec<f64> = densities.iter().map(|row| beat(row, *missed)).collect();
                for part in grid.any {
                    let one = |(beat, any): (&f64, &f64)| {
                        ((1.0 - part) * beat + part * any).max(1e-12).ln()
                    };
                    let likelihood: f64 = beats.iter().zip(&any).map(one).sum();
                    if likelihood > best.likelihood {
                        let jitter = shape.jitter();
                        best = Heart { likelihood, period: *period, jitter, missed: *missed };
                    }
                }
            }
        }
    }
    (best.period > 0.0).then_some(best)
}

/// The largest weights that any story of a grid gives to a gap of one, two... periods, and
/// to one of any length.
struct Most {
    beats: [f64; MULTIPLES],
    heart: f64,
    any: f64,
}

impl Grid {
    fn most(&self) -> Most {
        let mut beats = [0.0f64; MULTIPLES];
        for missed in self.missed {
            let mut part = 1.0 - missed;
            for most in &mut beats {
                *most = most.max(part);
                part *= missed;
            }
        }
        let any = self.any.iter().copied().fold(0.0, f64::max);
        let heart = 1.0 - self.any.iter().copied().fold(1.0, f64::min);
        Most { beats, heart, any }
    }
}

/// What no story with these densities is likelier than.
fn at_most(densities: &[[f64; MULTIPLES]], any: &[f64], most: &Most) -> f64 {
    let (mut sum, mut product) = (0.0, 1.0f64);
    for (row, any) in densities.iter().zip(any) {
        let beat: f64 = row.iter().zip(&most.beats).map(|(density, most)| density * most).sum();
        product *= (most.heart * beat + most.any * any).max(1e-12);
        // One logarithm for many factors, before they are too small or too large for it.
        if !(1e-200..1e200).contains(&product) {
            sum += product.ln();
            product = 1.0;
        }
    }
    sum + product.ln()
}

/// A gap of one period, or of several where beats are missing.
fn beat(densities: &[f64; MULTIPLES], missed: f64) -> f64 {
    let (mut beat, mut part) = (0.0, 1.0 - missed);
    for density in densities {
        beat += part * density;
        part *= missed;
    }
    beat
}

/// Where gaps lie close together: guesses for the period.
fn periods(points: &[f64]) -> Vec<f64> {
    let mut periods: Vec<f64> = Vec::new();
    for part in [0.1, 0.25, 0.4, 0.5, 0.65] {
        let anchor = quantile(points, part);
        for near in [0.03, 0.12, 0.3, 0.5] {
            let mut period = anchor;
            for _ in 0..3 {
                let close = points.iter().filter(|g| (**g - period).abs() <= near * period);
                let (n, sum) = close.fold((0.0, 0.0), |(n, sum), g| (n + 1.0, sum + g));
                if n > 0.0 {
                    period = sum / n;
                }
            }
            let known = |p: &f64| (p - period).abs() < 0.003 * period;
            if period >= 1.0 && !periods.iter().any(known) {
                periods.push(period);
            }
        }
    }
    periods
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;
    use crate::detect::beacon::synth::{self, Beat};

    const DAY: f64 = 86_400.0;
    const SEED: u64 = 7;

    fn scores(n: usize, mut make: impl FnMut(&mut StdRng) -> Vec<i64>) -> Vec<Rhythm> {
        let mut rng = StdRng::seed_from_u64(SEED);
        (0..n).map(|_| rhythm(&make(&mut rng)).unwrap_or_default()).collect()
    }

    /// The part of `of` that scores at least 0.9, over `days`.
    fn recall(beat: Beat, days: f64, of: usize) -> f64 {
        let all = scores(of, |rng| synth::beats(rng, beat, days * DAY));
        all.iter().filter(|r| r.score >= 0.9).count() as f64 / of as f64
    }

    #[track_caller]
    fn check(period: f64, jitter: f64, missed: f64, days: f64, least: f64) {
        let got = recall(Beat { period, jitter, missed }, days, 20);
        assert!(got >= least, "period {period}, jitter {jitter}, missed {missed}: {got}");
    }

    #[test]
    fn hearts_are_heard_within_a_day() {
        for period in [30.0, 300.0, 1_800.0] {
            for missed in [0.0, 0.3] {
                check(period, 0.0, missed, 1.0, 1.0);
                check(period, 0.2, missed, 1.0, 0.95);
                check(period, 0.5, missed, 1.0, 0.9);
            }
        }
        check(10_800.0, 0.2, 0.0, 1.0, 0.95);
        check(10_800.0, 0.5, 0.0, 1.0, 0.9);
    }

    #[test]
    fn slow_hearts_are_heard_within_two_weeks() {
        for period in [21_600.0, 43_200.0, 86_400.0] {
            check(period, 0.2, 0.0, 14.0, 0.95);
            check(period, 0.5, 0.0, 14.0, 0.9);
        }
        check(21_600.0, 0.5, 0.3, 14.0, 0.9);
    }

    #[test]
    fn chance_is_no_heart() {
        for mean in [20.0, 60.0, 432.0, 2_160.0] {
            let all = scores(100, |rng| synth::chance(rng, mean, DAY));
            let high = all.iter().filter(|r| r.score >= 0.3).count();
            assert!(high <= 1, "mean {mean}: {high} of 100");
        }
    }

    #[test]
    fn people_are_no_hearts() {
        let all = scores(100, |rng| synth::sessions(rng, 5_400.0, DAY));
        assert!(all.iter().all(|r| r.score < 0.3));
    }

    #[test]
    fn what_is_said_of_a_heart() {
        let mut rng = StdRng::seed_from_u64(SEED);
        let beat = Beat { period: 300.0, jitter: 0.2, missed: 0.2 };
        let heard = rhythm(&synth::beats(&mut rng, beat, DAY)).unwrap();
        assert!((heard.period - 300.0).abs() < 15.0, "{heard:?}");
        assert!((0.1..0.35).contains(&heard.jitter), "{heard:?}");
        assert!((0.1..=0.33).contains(&heard.missed), "{heard:?}");
    }

    /// Connections and a question of one beat are one beat.
    #[test]
    fn bursts_are_beats() {
        let mut rng = StdRng::seed_from_u64(SEED);
        let times: Vec<i64> = (0..144)
            .flat_map(|i| (0..5).map(move |k| (i, k)).collect::<Vec<_>>())
            .map(|(i, k)| i * 600 + k * 2 + i64::from(rng.random_range(0..2u8)))
            .collect();
        let heard = rhythm(&times).unwrap();
        assert_eq!((heard.beats, heard.period.round()), (144, 600.0));
        assert!(heard.score > 0.9);
    }

    #[test]
    fn too_little_says_nothing() {
        for times in [&[][..], &[7], &[1, 2, 3, 4, 5, 6, 7], &[0, 600, 1_200]] {
            assert_eq!(rhythm(times), None, "{times:?}");
        }
    }

    /// Hearts, chance and people: what is cut off early scores less, all else is the same.
    #[test]
    fn what_is_cut_off_early_is_below_what_was_asked_for() {
        let mut rng = StdRng::seed_from_u64(SEED);
        let mut told = 0;
        for nth in 0..600 {
            let (mean, jitter) = (300.0 * f64::from(1 + nth % 40), f64::from(nth % 6) / 10.0);
            let mut times = match nth % 3 {
                0 => synth::beats(&mut rng, Beat { period: mean, jitter, missed: 0.2 }, DAY),
                1 => synth::chance(&mut rng, mean, DAY),
                _ => synth::sessions(&mut rng, mean, DAY),
            };
            times.truncate(4 + nth as usize % 90);
            let whole = rhythm(&times);
            for least in [0.05, 0.5, 0.8, 0.95] {
                match (whole, rhythm_from(&times, least)) {
                    (Some(whole), Some(cut)) if whole.score >= least => {
                        assert_eq!(cut, whole, "from {least}");
                        told += 1;
                    }
                    (Some(whole), Some(cut)) => {
                        assert!(cut.score < least, "{cut:?} from {least}, {whole:?}");
                        assert_eq!(cut.beats, whole.beats);
                    }
                    (whole, cut) => assert_eq!(cut, whole),
                }
            }
        }
        assert!(told > 300, "{told}");
    }

    proptest::proptest! {
        #[test]
        fn any_times_have_a_score(times in proptest::collection::vec(proptest::prelude::any::<i64>(), 0..60)) {
            if let Some(heard) = rhythm(&times) {
                proptest::prop_assert!((0.0..=1.0).contains(&heard.score), "{heard:?}");
            }
        }
    }
}
