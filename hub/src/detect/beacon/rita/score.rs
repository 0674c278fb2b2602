//! The arithmetic of one pair: how regular its times and sizes are, how long and how evenly
//! it goes on.
//!
//! In: whole seconds and bytes of one source and destination, and the window. Out: [`Beacon`].
//! Sorts its input, otherwise linear; never panics, whatever the numbers.

/// Bins of the histogram: one an hour.
pub const BINS: usize = 24;
/// Bins with something in them below which there is no score for duration.
const DURATION_BARS_MIN: usize = 6;
/// Consecutive bins that make the whole score for duration.
const DURATION_RUN: f64 = 12.0;
/// Bins with something in them below which two heights are not looked for.
const BIMODAL_BARS_MIN: usize = 11;
/// Heights this close together, as a part of the highest bin, are one.
const BIMODAL_WIDTH: f64 = 0.05;
/// Bins that may be of other heights.
const BIMODAL_OUTLIERS: usize = 1;
/// Quartiles closer together than this say nothing of skewness.
const QUARTILES_APART_MIN: f64 = 10.0;

/// The scores of one pair, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Beacon {
    /// The whole.
    pub score: f64,
    /// Regularity of the gaps between connections.
    pub timestamps: f64,
    /// Sameness of the bytes sent.
    pub sizes: f64,
    /// Part of the window it goes on for.
    pub duration: f64,
    /// Evenness over the hours.
    pub histogram: f64,
}

/// First and last second of what is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First.
    pub lo: i64,
    /// Last.
    pub hi: i64,
}

impl Window {
    const fn seconds(self) -> i64 {
        self.hi.saturating_sub(self.lo)
    }
}

/// Scores a pair; `None` where there are fewer than three gaps. Times in whole seconds, in
/// any order and with repetitions; one size for each connection.
#[must_use]
pub fn beacon(times: &[i64], sizes: &[f64], window: Window) -> Option<Beacon> {
    let mut times = times.to_vec();
    times.sort_unstable();
    let timestamps = timestamps(&times)?;
    let sizes = sizes_score(sizes);
    let bins = histogram(&times, window);
    let first_to_last = times.first().zip(times.last()).map_or(0, |(a, b)| b.saturating_sub(*a));
    let duration = duration(first_to_last, window, &bins);
    let histogram = variation(&bins).max(bimodal(&bins));
    let score = round3(0.25 * timestamps + 0.25 * sizes + 0.25 * duration + 0.25 * histogram);
    Some(Beacon { score, timestamps, sizes, duration, histogram })
}

/// Regularity of sorted times.
#[must_use]
pub fn timestamps(times: &[i64]) -> Option<f64> {
    let gaps = times.windows(2).filter_map(|pair| match pair {
        [a, b] => Some(b.saturating_sub(*a)).filter(|gap| *gap > 0),
        _ => None,
    });
    let gaps: Vec<f64> = gaps.map(|gap| gap as f64).collect();
    (gaps.len() >= 3).then(|| statistical(gaps, 1.0))
}

/// Sameness of sizes.
#[must_use]
pub fn sizes_score(sizes: &[f64]) -> f64 {
    statistical(sizes.to_vec(), 0.0)
}

/// `(1 - |skewness| + closeness) / 2`; closeness is `default` where the median is below 1.
pub(super) fn statistical(mut values: Vec<f64>, default: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let (median, spread) = (median(&values), deviation(&values));
    let closeness = if median >= 1.0 { ((median - spread) / median).max(0.0) } else { default };
    round3((1.0 - bowley(&values).abs() + closeness) / 2.0)
}

/// Of sorted values; 0 of none.
#[must_use]
pub fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    let at = |i: usize| sorted.get(i).copied().unwrap_or(0.0);
    if sorted.len() % 2 == 1 { at(half) } else { (at(half.saturating_sub(1)) + at(half)) / 2.0 }
}

/// Quartiles of sorted values by halves: the middle one of an odd number is in neither.
#[must_use]
pub fn quartiles(sorted: &[f64]) -> [f64; 3] {
    let half = sorted.len() / 2;
    let lower = sorted.get(..half).unwrap_or_default();
    let upper = sorted.get(sorted.len() - half..).unwrap_or_default();
    [median(lower), median(sorted), median(upper)]
}

/// Bowley's skewness of sorted values, where the quartiles are far enough apart to say.
#[must_use]
pub fn bowley(sorted: &[f64]) -> f64 {
    let [q1, q2, q3] = quartiles(sorted);
    if q3 - q1 < QUARTILES_APART_MIN || q2 == q1 || q2 == q3 {
        return 0.0;
    }
    (q1 + q3 - 2.0 * q2) / (q3 - q1)
}

/// Median of the distances to the median, of sorted values.
#[must_use]
pub fn deviation(sorted: &[f64]) -> f64 {
    let middle = median(sorted);
    let mut distances: Vec<f64> = sorted.iter().map(|v| (v - middle).abs()).collect();
    distances.sort_unstable_by(f64::total_cmp);
    median(&distances)
}

/// Connections in each of the equal bins of the window. What lies just before it (whole hours
/// are read) is in the first one.
#[must_use]
pub fn histogram(times: &[i64], window: Window) -> [u32; BINS] {
    let mut bins = [0u32; BINS];
    let width = window.seconds().max(1) as f64 / BINS as f64;
    for time in times {
        // Saturating: a negative distance is bin 0.
        let bin = (time.saturating_sub(window.lo) as f64 / width) as usize;
        if let Some(count) = bins.get_mut(bin.min(BINS - 1)) {
            *count = count.saturating_add(1);
        }
    }
    bins
}

/// Bins with something in them.
#[must_use]
pub fn bars(bins: &[u32; BINS]) -> usize {
    bins.iter().filter(|n| **n > 0).count()
}

/// Longest run of bins with something in them; the last is followed by the first.
#[must_use]
pub fn longest_run(bins: &[u32; BINS]) -> usize {
    let (mut run, mut longest) = (0, 0);
    for count in bins.iter().chain(bins) {
        run = if *count > 0 { run + 1 } else { 0 };
        longest = run.max(longest);
    }
    longest.min(BINS)
}

/// 1 where every bin is as high as the other, 0 where they differ by their mean.
#[must_use]
pub fn variation(bins: &[u32; BINS]) -> f64 {
    let n = BINS as f64;
    let mean = bins.iter().map(|c| f64::from(*c)).sum::<f64>() / n;
    if mean <= 0.0 {
        return 0.0;
    }
    let variance = bins.iter().map(|c| (f64::from(*c) - mean).powi(2)).sum::<f64>() / n;
    let relative = variance.sqrt() / mean;
    if relative > 1.0 { 0.0 } else { round3(1.0 - relative) }
}

/// The part of the bins that are of one of the two commonest heights.
#[must_use]
pub fn bimodal(bins: &[u32; BINS]) -> f64 {
    let bars = bars(bins);
    if bars < BIMODAL_BARS_MIN {
        return 0.0;
    }
    let highest = bins.iter().copied().max().unwrap_or_default();
    let width = ((f64::from(highest) * BIMODAL_WIDTH).ceil() as u32).max(1);
    let mut heights: Vec<u32> = bins.iter().filter(|n| **n > 0).map(|n| n / width).collect();
    heights.sort_unstable();
    let mut alike: Vec<usize> = heights.chunk_by(|a, b| a == b).map(<[u32]>::len).collect();
    alike.sort_unstable_by(|a, b| b.cmp(a));
    let two: usize = alike.iter().take(2).sum();
    let of = bars.saturating_sub(BIMODAL_OUTLIERS).max(1);
    round3(two as f64 / of as f64).min(1.0)
}

/// Part of the window from first to last connection, or the longest run of bins, whichever
/// says more. Rounded up, unlike all others.
#[must_use]
pub fn duration(first_to_last: i64, window: Window, bins: &[u32; BINS]) -> f64 {
    if bars(bins) < DURATION_BARS_MIN || window.seconds() <= 0 {
        return 0.0;
    }
    let coverage = ceil3(first_to_last as f64 / window.seconds() as f64).min(1.0);
    let run = ceil3(longest_run(bins) as f64 / DURATION_RUN).min(1.0);
    coverage.max(run)
}

/// To three decimals, half up.
fn round3(value: f64) -> f64 {
    (value * 1_000.0 + 0.5).floor() / 1_000.0
}

/// Up to three decimals.
fn ceil3(value: f64) -> f64 {
    (value * 1_000.0).ceil() / 1_000.0
}
