//! A model's answer: checked word by word, whatever the endpoint promised.
//!
//! In: the text of an answer and what was asked. Out: a [`Verdict`] for each id, or why the
//! answer is none. Pure. An answer that lacks an id, has one too many, or breaks the schema
//! anywhere is no answer; one that calls something bad without naming a fact is "unknown".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest note.
pub(super) const NOTE_MAX: usize = 120;
/// Longest answer in bytes: some 50 verdicts.
const ANSWER_MAX: usize = 64 * 1_024;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the words say it")]
pub(crate) enum Judgement {
    Benign,
    Suspicious,
    Malicious,
    Unknown,
}

impl Judgement {
    pub(super) const ALL: [Self; 4] =
        [Self::Benign, Self::Suspicious, Self::Malicious, Self::Unknown];

    /// The word stored and shown.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Benign => "benign",
            Self::Suspicious => "suspicious",
            Self::Malicious => "malicious",
            Self::Unknown => "unknown",
        }
    }
}

/// How sure; numbers of small models are noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the words say it")]
pub(crate) enum Confidence {
    Low,
    Medium,
    High,
}

impl Confidence {
    pub(super) const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// The word stored and shown.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// What kind of thing it is.
pub(super) const CATEGORIES: [&str; 14] = [
    "cdn",
    "cloud",
    "advertising",
    "telemetry",
    "software-update",
    "media",
    "ai-service",
    "iot-vendor",
    "remote-access",
    "file-sharing",
    "command-and-control",
    "phishing",
    "mining",
    "other",
];

/// An opinion about one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    #[serde(rename = "verdict")]
    pub(crate) judgement: Judgement,
    pub(crate) category: String,
    pub(crate) confidence: Confidence,
    /// The facts it rests on: `f1`, `f2`.
    pub(crate) facts: Vec<String>,
    /// A model's words: text that nobody vouches for.
    #[serde(default)]
    pub(crate) note: String,
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub(crate) enum Bad {
    #[error("the answer was cut off")]
    Truncated,
    #[error("the answer is longer than {ANSWER_MAX} bytes")]
    TooLong,
    #[error("the model refused to answer")]
    Refusal,
    #[error("the answer is not what was asked for: {0}")]
    Schema(String),
    #[error("the answer does not speak of {0}")]
    Missing(String),
    #[error("the answer speaks of something that was not asked")]
    Extra,
    #[error("the answer is wrong about what is known: {0}")]
    Control(&'static str),
}

/// Characters of a note.
pub(super) fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || " ,.;:()'/%+-".contains(c)
}

/// Reads an answer; `asked`: how many facts each id has.
///
/// # Errors
/// [`Bad`].
pub(super) fn read(
    text: &str,
    asked: &BTreeMap<String, usize>,
) -> Result<BTreeMap<String, Verdict>, Bad> {
    if text.len() > ANSWER_MAX {
        return Err(Bad::TooLong);
    }
    // The reason is for the log; of the answer itself nothing is quoted.
    let schema =
        |e: serde_json::Error| Bad::Schema(format!("line {}, column {}", e.line(), e.column()));
    let mut verdicts: BTreeMap<String, Verdict> =
        serde_json::from_str(text.trim()).map_err(schema)?;
    if let Some(missing) = asked.keys().find(|id| !verdicts.contains_key(*id)) {
        return Err(Bad::Missing(missing.clone()));
    }
    if verdicts.len() > asked.len() {
        return Err(Bad::Extra);
    }
    for (id, verdict) in &mut verdicts {
        check(verdict, asked.get(id).copied().unwrap_or_default())?;
    }
    Ok(verdicts)
}

fn check(verdict: &mut Verdict, facts: usize) -> Result<(), Bad> {
    if !CATEGORIES.contains(&verdict.category.as_str()) {
        return Err(Bad::Schema("an unknown category".into()));
    }
    let known = |fact: &String| {
        let number = fact.strip_prefix('f').and_then(|n| n.parse::<usize>().ok());
        number.is_some_and(|n| (1..=facts).contains(&n))
    };
    if !verdict.facts.iter().all(known) {
        return Err(Bad::Schema("a fact that was not given".into()));
    }
    verdict.facts.sort_unstable();
    verdict.facts.dedup();
    if verdict.note.len() > NOTE_MAX || !verdict.note.chars().all(is_plain) {
        verdict.note.clear();
    }
    let bad = matches!(verdict.judgement, Judgement::Suspicious | Judgement::Malicious);
    if bad && verdict.facts.is_empty() {
        verdict.judgement = Judgement::Unknown;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::llm) fn verdict(judgement: Judgement, confidence: Confidence) -> Verdict {
        Verdict {
            judgement,
            category: "other".into(),
            confidence,
            facts: vec!["f1".into()],
            note: String::new(),
        }
    }

    fn asked(ids: &[&str]) -> BTreeMap<String, usize> {
        ids.iter().map(|id| ((*id).to_owned(), 2)).collect()
    }

    fn row(verdict: &str, facts: &str) -> String {
        format!(
            r#"{{"verdict":"{verdict}","category":"cdn","confidence":"high","facts":[{facts}],"note":"a b"}}"#
        )
    }

    #[track_caller]
    fn check(text: &str, want: Result<&str, &str>) {
        let got = read(text, &asked(&["r0"]));
        match (got, want) {
            (Ok(verdicts), Ok(word)) => {
                assert_eq!(verdicts["r0"].judgement.as_str(), word, "{text}")
            }
            (Err(bad), Err(says)) => assert!(bad.to_string().contains(says), "{bad}: {text}"),
            (got, want) => panic!("{got:?}, want {want:?}: {text}"),
        }
    }

    #[test]
    fn answers() {
        check(&format!(r#"{{"r0":{}}}"#, row("malicious", r#""f1""#)), Ok("malicious"));
        check(&format!(r#"{{"r0":{}}}"#, row("malicious", "")), Ok("unknown"));
        check(&format!(r#"{{"r0":{}}}"#, row("benign", "")), Ok("benign"));
        check(&format!(r#"{{"r0":{}}}"#, row("fine", "")), Err("not what was asked"));
        check(&format!(r#"{{"r0":{}}}"#, row("benign", r#""f3""#)), Err("not given"));
        check(&format!(r#"{{"r1":{}}}"#, row("benign", "")), Err("does not speak of r0"));
        let two = format!(r#"{{"r0":{0},"r1":{0}}}"#, row("benign", ""));
        check(&two, Err("was not asked"));
        check("Sure! Here is the JSON", Err("line 1"));
        check(r#"{"r0":{"verdict":"benign""#, Err("line 1"));
        check("[]", Err("not what was asked"));
        check(&" ".repeat(ANSWER_MAX + 1), Err("longer"));
    }

    #[test]
    fn a_note_is_plain_or_nothing() {
        let text = |note: &str| {
            let note = serde_json::to_string(note).unwrap();
            format!(
                r#"{{"r0":{{"verdict":"benign","category":"cdn","confidence":"low","facts":[],"note":{note}}}}}"#
            )
        };
        let note = |n: &str| read(&text(n), &asked(&["r0"])).unwrap()["r0"].note.clone();
        assert_eq!(note("a CDN, widely used"), "a CDN, widely used");
        assert_eq!(note("<b>"), "");
        assert_eq!(note("a\u{1b}[2J"), "");
        assert_eq!(note(&"a".repeat(NOTE_MAX + 1)), "");
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in ".{0,300}") {
            drop(read(&text, &asked(&["r0", "r1"])));
        }
    }
}
