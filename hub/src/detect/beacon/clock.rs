//! Does a series of times keep to a clock? What gaps cannot show.
//!
//! In: the gaps between beats. Out: a [`Rhythm`] with its score, or nothing. Pure.
//!
//! A program that is due at fixed times and comes early or late by half of its period makes
//! gaps of any length up to two periods: as a series of gaps it looks like chance. But what is
//! early once makes up for it the next time: each cell of the clock has one beat, or none
//! where it was missed, and hardly ever two. Events by chance leave cells empty and fill
//! others twice. The score is how much likelier the counts of the cells are with a clock than
//! by chance, at the best of many periods and phases, less what so many tries find by luck.
//!
//! By chance means independent events after which nothing is heard for the time within which
//! things are one beat, else a fast series would be even by that alone.
//!
//! Budget: looked at are [`BEATS_MAX`] beats from the middle of the series, about a million
//! steps; a series whose counts are no more even than chance's ([`is_even`]) costs nothing.

use super::rhythm::{HALF, MERGE_SECONDS, Rhythm, STEEP};

/// Fewer gaps say nothing.
const GAPS_MIN: usize = 11;
/// Beats looked at.
const BEATS_MAX: usize = 96;
/// Phases tried for each period, and periods for each cell.
const PHASES: u32 = 8;
const STEPS: f64 = 8.0;
/// Periods tried, in parts of the mean gap: a third of the beats may be missing.
const PERIODS: [f64; 2] = [0.6, 1.08];
/// Parts of the beats that may be missing.
const MISSED: [f64; 3] = [0.03, 0.15, 0.3];
/// Cells with two beats: a period is never quite right.
const TWICE: f64 = 0.03;
/// What the tries find by luck, in nats, beside the logarithm of the gaps.
const LUCK: f64 = 3.0;
/// With fewer gaps more is asked: so many nats, divided by the gaps. At two or three of a
/// hundred series of independent events.
const FEW_NATS: f64 = 18.0;
/// The jitter at which cells have one beat each and nothing is known of when.
const JITTER: f64 = 0.5;

/// How it keeps to a clock; `None` where there are too few beats, or they are not even.
pub(super) fn clock(gaps: &[f64]) -> Option<Rhythm> {
    let n = gaps.len().min(BEATS_MAX);
    if n < GAPS_MIN {
        return None;
    }
    let from = (gaps.len() - n) / 2;
    let times: Vec<f64> = std::iter::once(0.0)
        .chain(gaps.get(from..from + n)?.iter().scan(0.0, |time, gap| {
            *time += gap;
            Some(*time)
        }))
        .collect();
    let span = times.last().copied().unwrap_or_default().max(1.0);
    let mean = span / n as f64;
    if !is_even(&times, mean) {
        return None;
    }
    let mut best = Fit::default();
    let mut period = mean * PERIODS[0];
    while period < mean * PERIODS[1] {
        for phase in 0..PHASES {
            let shift = period * f64::from(phase) / f64::from(PHASES);
            let cells = Cells::count(&times, period, shift);
            for missed in MISSED {
                let ahead = cells.ahead(missed, by_chance(period, mean));
                if ahead > best.ahead {
                    best = Fit { ahead, period, missed };
                }
            }
        }
        period *= 1.0 + 1.0 / (STEPS * (span / period + 1.0));
    }
    let ahead = best.ahead - (n as f64).ln() - LUCK;
    let half = HALF + FEW_NATS / (n as f64 + 1.0);
    Some(Rhythm {
        score: 1.0 / (1.0 + (-(ahead - half) / STEEP).exp()),
        period: best.period,
        jitter: JITTER,
        missed: best.missed,
        beats: gaps.len() + 1,
        ahead,
    })
}

struct Fit {
    ahead: f64,
    period: f64,
    missed: f64,
}

impl Default for Fit {
    fn default() -> Self {
        Self { ahead: f64::NEG_INFINITY, period: 0.0, missed: 0.0 }
    }
}

/// Cells with no beat, with one, with more.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cells {
    none: f64,
    one: f64,
    more: f64,
}

impl Cells {
    /// Of sorted times, the first in the cell that `shift` says.
    fn count(times: &[f64], period: f64, shift: f64) -> Self {
        let mut cells = Self::default();
        let (mut cell, mut inside) = (f64::NAN, 0u32);
        let mut close = |inside: u32| match inside {
            0 => {}
            1 => cells.one += 1.0,
            _ => cells.more += 1.0,
        };
        let (mut first, mut last) = (None, 0.0);
        for time in times {
            let at = ((time + shift) / period).floor();
            if at == cell {
                inside += 1;
            } else {
                close(inside);
                (cell, inside) = (at, 1);
            }
            first.get_or_insert(at);
            last = at;
        }
        close(inside);
        let all = last - first.unwrap_or_default() + 1.0;
        cells.none = (all - cells.one - cells.more).max(0.0);
        cells
    }

    /// How much likelier these counts are with a clock than by chance, in nats.
    fn ahead(self, missed: f64, (none, one): (f64, f64)) -> f64 {
        let heard = 1.0 - missed;
        let more = (1.0 - none - one).max(1e-9);
        self.none * (missed / none).ln()
            + self.one * (heard * (1.0 - TWICE) / one).ln()
            + self.more * (heard * TWICE / more).ln()
    }
}

/// How likely a cell has no event by chance, and one: events `mean` apart, none of them within
/// the time of a beat after another (a renewal process seen from any moment).
fn by_chance(cell: f64, mean: f64) -> (f64, f64) {
    let dead = MERGE_SECONDS.min(cell / 2.0).min(mean / 2.0);
    let rest = mean - dead;
    let (far, near) = ((-(cell - dead) / rest).exp(), (-(cell - 2.0 * dead) / rest).exp());
    let none = (1.0 - dead / mean) * far;
    let one = (2.0 * rest * (near - far) + (cell - 2.0 * dead) * near) / mean;
    (none.clamp(1e-9, 1.0), one.clamp(1e-9, 1.0))
}

/// Counts of windows differ less than those of independent events, whose variance is their
/// mean; few windows say nothing.
fn is_even(times: &[f64], mean: f64) -> bool {
    const GAPS: f64 = 6.0;
    const EVEN: f64 = 0.75;
    let width = GAPS * mean;
    let windows = (times.last().copied().unwrap_or_default() / width) as usize;
    if windows < 2 {
        return true;
    }
    let mut counts = vec![0.0; windows];
    for time in times {
        if let Some(count) = counts.get_mut((time / width) as usize) {
            *count += 1.0;
        }
    }
    let n = windows as f64;
    let mean = counts.iter().sum::<f64>() / n;
    let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / (n - 1.0);
    variance < EVEN * mean
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;
    use crate::detect::beacon::synth::{self, Beat};

    fn gaps(times: &[i64]) -> Vec<f64> {
        times.windows(2).map(|pair| (pair[1] - pair[0]).max(1) as f64).collect()
    }

    /// The part of a hundred series that score so much.
    fn part(least: f64, mut make: impl FnMut(&mut StdRng) -> Vec<i64>) -> f64 {
        let mut rng = StdRng::seed_from_u64(11);
        let scores = |_| clock(&gaps(&make(&mut rng))).map_or(0.0, |rhythm| rhythm.score);
        (0..100).map(scores).filter(|score| *score >= least).count() as f64 / 100.0
    }

    #[test]
    fn one_beat_in_each_cell_is_heard_however_late_in_it() {
        for (period, missed, least) in
            [(300.0, 0.0, 0.99), (300.0, 0.3, 0.99), (1_800.0, 0.3, 0.8), (3_600.0, 0.0, 0.9)]
        {
            let beat = Beat { period, jitter: 0.5, missed };
            let heard = part(0.9, |rng| synth::clock(rng, beat, 86_400.0));
            assert!(heard >= least, "{period} s, {missed} missed: {heard}");
        }
    }

    #[test]
    fn chance_keeps_no_clock_also_where_close_events_are_one() {
        for mean in [60.0, 432.0, 2_160.0, 6_000.0] {
            let high = part(0.3, |rng| synth::chance(rng, mean, 86_400.0));
            assert!(high <= 0.04, "mean {mean}: {high}");
        }
        // 26 s apart, and never closer than six.
        let high = part(0.3, |rng| {
            let mut time = 0.0;
            let mut gap = || {
                time += 6.0 - 20.0 * (1.0 - rng.random::<f64>()).ln();
                time as i64
            };
            (0..300).map(|_| gap()).collect()
        });
        assert!(high <= 0.04, "{high}");
    }

    #[test]
    fn cells_are_counted() {
        let cells = |times: &[f64], shift| Cells::count(times, 10.0, shift);
        let got = cells(&[0.0, 12.0, 15.0, 44.0], 0.0);
        assert_eq!(got, Cells { none: 2.0, one: 2.0, more: 1.0 });
        // 12 and 15 are 17 and 20 after the shift.
        assert_eq!(cells(&[0.0, 12.0, 15.0], 5.0), Cells { none: 0.0, one: 3.0, more: 0.0 });
    }

    #[test]
    fn what_chance_does_adds_up_to_no_more_than_all() {
        for cell in [13.0, 30.0, 300.0, 86_400.0] {
            for part in [0.4, 0.9, 1.0, 1.6] {
                let (none, one) = by_chance(cell, cell * part);
                assert!(none > 0.0 && one > 0.0 && none + one <= 1.0, "{cell} {part}");
            }
        }
        // Without a dead time that matters: Poisson's.
        let (none, one) = by_chance(1e6, 1e6);
        assert!((none - 0.3679).abs() < 1e-3 && (one - 0.3679).abs() < 1e-3, "{none} {one}");
    }
}
