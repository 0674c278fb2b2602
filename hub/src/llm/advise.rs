//! What an opinion may do: say more, or raise. Never lower, never hide.
//!
//! In: the alert's score, whether one of its rules is of known bad, and a [`Verdict`]. Out: [`Advice`]. Pure; the only place
//! that decides it.

use agentmon_core::finding::Severity;

use super::answer::{Confidence, Judgement, Verdict};

/// What comes of an opinion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Advice {
    /// It is shown with the alert, and nothing else.
    Note,
    /// It is shown as "probably benign"; score and severity stay.
    ProbablyBenign,
    /// A finding of its own with this score, at most one severity above.
    Raise(f64),
}

/// What comes of it. `known_bad`: one of the alert's rules is of those whose word stands
/// whatever a model says (lists, authority).
pub(crate) fn advise(known_bad: bool, score: f64, verdict: &Verdict) -> Advice {
    let severity = Severity::from_score(score);
    match (verdict.judgement, verdict.confidence) {
        (Judgement::Malicious, Confidence::High | Confidence::Medium) => {
            next(severity).filter(|raised| *raised > score).map_or(Advice::Note, Advice::Raise)
        }
        (Judgement::Benign, Confidence::High) if severity <= Severity::Medium && !known_bad => {
            Advice::ProbablyBenign
        }
        _ => Advice::Note,
    }
}

/// The lowest score of the next severity; a model alone makes nothing critical.
const fn next(severity: Severity) -> Option<f64> {
    match severity {
        Severity::Info => Some(0.2),
        Severity::Low => Some(0.4),
        Severity::Medium => Some(0.6),
        Severity::High | Severity::Critical => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::answer::tests::verdict;
    use super::*;

    fn any() -> impl Strategy<Value = Verdict> {
        let judgement = prop::sample::select(Judgement::ALL.to_vec());
        let confidence = prop::sample::select(Confidence::ALL.to_vec());
        (judgement, confidence).prop_map(|(judgement, confidence)| verdict(judgement, confidence))
    }

    proptest! {
        /// No verdict lowers any alert, and none raises one by more than a step.
        #[test]
        fn never_lower_and_one_step_at_most(score in 0.0..=1.0_f64, verdict in any()) {
            let before = Severity::from_score(score);
            if let Advice::Raise(raised) = advise(false, score, &verdict) {
                let after = Severity::from_score(raised);
                prop_assert!(raised > score && after > before && after < Severity::Critical);
                let step = |s| Severity::ALL.iter().position(|x| *x == s).unwrap();
                prop_assert_eq!(step(after), step(before) + 1);
            }
        }

        /// What lists and people decided is not even called probably benign.
        #[test]
        fn known_bad_stands(score in 0.0..=1.0_f64, verdict in any()) {
            prop_assert_ne!(advise(true, score, &verdict), Advice::ProbablyBenign);
        }

        /// Nor is anything grave.
        #[test]
        fn grave_stands(score in 0.6..=1.0_f64, verdict in any()) {
            prop_assert_ne!(advise(false, score, &verdict), Advice::ProbablyBenign);
        }
    }

    #[test]
    fn by_example() {
        let malicious = verdict(Judgement::Malicious, Confidence::High);
        assert_eq!(advise(false, 0.45, &malicious), Advice::Raise(0.6));
        assert_eq!(advise(false, 0.7, &malicious), Advice::Note);
        let unsure = verdict(Judgement::Malicious, Confidence::Low);
        assert_eq!(advise(false, 0.45, &unsure), Advice::Note);
        let benign = verdict(Judgement::Benign, Confidence::High);
        assert_eq!(advise(false, 0.45, &benign), Advice::ProbablyBenign);
        assert_eq!(advise(true, 0.45, &benign), Advice::Note);
    }
}
