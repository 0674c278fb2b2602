//! How grave something is: a base, and what speaks for and against it, in words. Pure.

/// A score in the making; every step that counted is a reason.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Weighed {
    pub(crate) score: f64,
    pub(crate) because: Vec<String>,
}

impl Weighed {
    pub(crate) const fn new(base: f64) -> Self {
        Self { score: base, because: Vec::new() }
    }

    /// Adds to the score and to the reasons where it holds.
    pub(crate) fn when(mut self, holds: bool, by: f64, words: &str) -> Self {
        if holds {
            self.score += by;
            self.because.push(words.to_owned());
        }
        self
    }

    /// What nobody can be blamed for while habits are still being learnt.
    pub(crate) fn at_most(mut self, most: f64, holds: bool, words: &str) -> Self {
        if holds && self.score > most {
            self.score = most;
            self.because.push(words.to_owned());
        }
        self
    }

    /// Within 0 to 1, without the rounding of sums.
    pub(crate) fn score(&self) -> f64 {
        (self.score.clamp(0.0, 1.0) * 1_000.0).round() / 1_000.0
    }

    /// One sentence: what happened, and why it counts.
    pub(crate) fn why(&self, what: &str) -> String {
        if self.because.is_empty() {
            return what.to_owned();
        }
        format!("{what}: {}", self.because.join(", "))
    }
}
