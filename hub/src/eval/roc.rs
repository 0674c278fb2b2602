//! How well a score divides two sets: area under the curve, recall at a false-positive rate.
//!
//! In: the scores of both. Invariants: ties never help (a threshold lies between distinct
//! scores; a positive counts as found only above it); an empty side gives NaN, not a panic.

/// The scores of what should not be found.
#[derive(Clone, Debug)]
pub struct Negatives {
    /// Highest first.
    scores: Vec<f64>,
}

impl Negatives {
    /// In any order.
    #[must_use]
    pub fn new(mut scores: Vec<f64>) -> Self {
        scores.sort_unstable_by(|a, b| b.total_cmp(a));
        Self { scores }
    }

    /// The least threshold that at most this part of the negatives exceeds.
    #[must_use]
    pub fn threshold(&self, rate: f64) -> f64 {
        // A rate of 0.001 of 34,000 must give 34, whatever the floating point makes of it.
        let allowed = (self.scores.len() as f64 * rate + 1e-9).floor() as usize;
        self.scores.get(allowed).copied().unwrap_or(f64::NEG_INFINITY)
    }

    /// The part of `positives` found where at most `rate` of the negatives are.
    #[must_use]
    pub fn recall(&self, positives: &[f64], rate: f64) -> f64 {
        part_above(positives, self.threshold(rate))
    }

    /// Area under the receiver operating characteristic: the probability that a positive
    /// scores above a negative, ties counting half (Mann and Whitney 1947).
    #[must_use]
    pub fn auc(&self, positives: &[f64]) -> f64 {
        let wins = |score: &f64| {
            let above = self.scores.partition_point(|n| n > score);
            let not_below = self.scores.partition_point(|n| n >= score);
            let below = self.scores.len() - not_below;
            below as f64 + (not_below - above) as f64 / 2.0
        };
        let sum: f64 = positives.iter().map(wins).sum();
        sum / (self.scores.len() as f64 * positives.len() as f64)
    }

    /// The part that reaches `threshold`.
    #[must_use]
    pub fn part_reaching(&self, threshold: f64) -> f64 {
        part_reaching(&self.scores, threshold)
    }
}

/// The part of `scores` above `threshold`.
#[must_use]
pub fn part_above(scores: &[f64], threshold: f64) -> f64 {
    scores.iter().filter(|s| **s > threshold).count() as f64 / scores.len() as f64
}

/// The part of `scores` at or above `threshold`, as a detector compares.
#[must_use]
pub fn part_reaching(scores: &[f64], threshold: f64) -> f64 {
    scores.iter().filter(|s| **s >= threshold).count() as f64 / scores.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(negatives: &[f64], positives: &[f64], auc: f64, rate: f64, recall: f64) {
        let negatives = Negatives::new(negatives.to_vec());
        assert!((negatives.auc(positives) - auc).abs() < 1e-12, "{}", negatives.auc(positives));
        assert_eq!(negatives.recall(positives, rate), recall);
    }

    #[test]
    fn known_curves() {
        check(&[0.1, 0.2], &[0.8, 0.9], 1.0, 0.0, 1.0);
        check(&[0.8, 0.9], &[0.1, 0.2], 0.0, 0.0, 0.0);
        check(&[0.1, 0.6], &[0.5, 0.9], 0.75, 0.0, 0.5);
        check(&[0.1, 0.6], &[0.5, 0.9], 0.75, 0.5, 1.0);
        // All the same: a coin, and nothing can be found.
        check(&[0.5; 4], &[0.5; 4], 0.5, 0.25, 0.0);
        // Ties with the last allowed negative do not count.
        check(&[0.9, 0.5, 0.5, 0.1], &[0.9, 0.5, 0.6], 17.0 / 24.0, 0.25, 2.0 / 3.0);
    }

    #[test]
    fn the_allowed_number_is_exact() {
        let negatives = Negatives::new((0..34_000).map(f64::from).collect());
        assert_eq!(negatives.threshold(0.001), 33_999.0 - 34.0);
        assert_eq!(negatives.threshold(0.01), 33_999.0 - 340.0);
        assert_eq!(negatives.part_reaching(33_000.0), 1_000.0 / 34_000.0);
    }

    #[test]
    fn nothing_is_no_number() {
        assert!(Negatives::new(vec![]).auc(&[1.0]).is_nan());
        assert!(Negatives::new(vec![1.0]).recall(&[], 0.1).is_nan());
    }
}
