//! Figures, their goals and peers, and how they are shown.
//!
//! In: what the benchmarks measured. Out: JSON lines between the processes and for
//! programs, a table for people. Pure apart from [`Report`] and [`talk`].
//!
//! Invariant: nothing is met by default. A goal that is a ratio to a peer which is not
//! there is [`Outcome::Unknown`], and counts as much as a miss.

use std::io::Write as _;

use serde::{Deserialize, Serialize};

/// What must hold for a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Goal {
    /// The value itself, no more.
    AtMost(f64),
    /// The value itself, no less.
    AtLeast(f64),
    /// Value divided by the peer's, no more.
    RatioAtMost(f64),
}

/// Somebody else's program doing the same work in the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// In the figure's unit; `None`: could not be measured.
    pub(crate) value: Option<f64>,
    /// Why there is no value.
    pub(crate) missing: Option<String>,
}

impl Peer {
    pub(crate) fn measured(name: &str, value: f64) -> Self {
        Self { name: name.to_owned(), value: Some(value), missing: None }
    }
    pub(crate) fn missing(name: &str, why: &str) -> Self {
        Self { name: name.to_owned(), value: None, missing: Some(why.to_owned()) }
    }
}

/// One measured number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) benchmark: String,
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    pub(crate) peer: Option<Peer>,
    pub(crate) goal: Option<Goal>,
}

/// Whether a figure's goal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Met,
    Missed,
    /// There is a goal, and no peer to compare with.
    Unknown,
    /// There is no goal.
    Info,
}

impl Figure {
    pub(crate) fn new(what: &str, value: f64, unit: &str) -> Self {
        let (what, unit) = (what.to_owned(), unit.to_owned());
        Self { benchmark: String::new(), what, value, unit, peer: None, goal: None }
    }
    pub(crate) fn peer(mut self, peer: Peer) -> Self {
        self.peer = Some(peer);
        self
    }
    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// This value divided by the peer's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let peer = self.peer.as_ref()?.value?;
        (peer > 0.0).then(|| self.value / peer)
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let met = match self.goal {
            None => return Outcome::Info,
            Some(Goal::AtMost(max)) => self.value <= max,
            Some(Goal::AtLeast(min)) => self.value >= min,
            Some(Goal::RatioAtMost(max)) => match self.ratio() {
                None => return Outcome::Unknown,
                Some(ratio) => ratio <= max,
            },
        };
        if met { Outcome::Met } else { Outcome::Missed }
    }
}

/// Where a benchmark puts its figures: each goes to the parent process at once, so that a
/// benchmark which fails half way has still told what it knew.
pub(crate) struct Report {
    benchmark: &'static str,
}

impl Report {
    pub(crate) const fn new(benchmark: &'static str) -> Self {
        Self { benchmark }
    }
    pub(crate) fn add(&mut self, mut figure: Figure) -> anyhow::Result<()> {
        self.benchmark.clone_into(&mut figure.benchmark);
        let mut line = serde_json::to_vec(&figure)?;
        line.push(b'\n');
        Ok(std::io::stdout().write_all(&line)?)
    }
}

/// A line for the person watching.
pub(crate) fn talk(text: &str) {
    // Nobody listening is no reason to stop measuring.
    drop(writeln!(std::io::stderr(), "bench: {text}"));
}

/// A figure as programs read it: with what follows from it.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    figure: &'a Figure,
    ratio: Option<f64>,
    outcome: Outcome,
}

/// One JSON object per figure.
pub(crate) fn json_lines(figures: &[Figure]) -> anyhow::Result<String> {
    let mut text = String::new();
    for figure in figures {
        let line = Line { figure, ratio: figure.ratio(), outcome: figure.outcome() };
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
    }
    Ok(text)
}

/// The figures as aligned columns, and a closing line.
pub(crate) fn table(figures: &[Figure]) -> String {
    const HEAD: [&str; 7] = ["benchmark", "figure", "value", "peer", "ratio", "goal", ""];
    let rows: Vec<[String; 7]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(figures.iter().map(row)).collect();
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    let count = |o: Outcome| figures.iter().filter(|f| f.outcome() == o).count();
    let (met, missed, unknown) =
        (count(Outcome::Met), count(Outcome::Missed), count(Outcome::Unknown));
    text.push_str(&format!("{met} goals met, {missed} missed, {unknown} without their peer\n"));
    text
}

fn row(figure: &Figure) -> [String; 7] {
    let value = |v: f64| format!("{} {}", number(v), figure.unit);
    let peer = figure.peer.as_ref().map(|p| match (&p.value, &p.missing) {
        (Some(v), _) => format!("{} {}", p.name, number(*v)),
        (None, why) => format!("{} MISSING: {}", p.name, why.as_deref().unwrap_or("not measured")),
    });
    let goal = figure.goal.map(|g| match g {
        Goal::AtMost(max) => format!("<= {}", number(max)),
        Goal::AtLeast(min) => format!(">= {}", number(min)),
        Goal::RatioAtMost(max) => format!("ratio <= {}", number(max)),
    });
    let outcome = match figure.outcome() {
        Outcome::Met => "met",
        Outcome::Missed => "MISSED",
        Outcome::Unknown => "UNKNOWN",
        Outcome::Info => "",
    };
    [
        figure.benchmark.clone(),
        figure.what.clone(),
        value(figure.value),
        peer.unwrap_or_default(),
        figure.ratio().map(number).unwrap_or_default(),
        goal.unwrap_or_default(),
        outcome.to_owned(),
    ]
}

/// Three significant digits, or all of a large number, in groups of three.
fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if size < 100.0 {
        let digits = if size >= 10.0 {
            1
        } else if size >= 1.0 {
            2
        } else {
            3
        };
        return format!("{value:.digits$}");
    }
    let plain = format!("{value:.0}");
    let mut grouped = String::new();
    for (i, c) in plain.chars().enumerate() {
        let left = plain.len() - i;
        if i > 0 && left % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(' ');
        }
        grouped.push(c);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64) -> Figure {
        Figure::new("cost", value, "us")
    }

    #[track_caller]
    fn check(figure: Figure, expected: Outcome) {
        assert_eq!(figure.outcome(), expected, "{figure:?}");
    }

    #[test]
    fn goals() {
        check(figure(5.0), Outcome::Info);
        check(figure(5.0).goal(Goal::AtMost(5.0)), Outcome::Met);
        check(figure(5.1).goal(Goal::AtMost(5.0)), Outcome::Missed);
        check(figure(5.0).goal(Goal::AtLeast(5.0)), Outcome::Met);
        check(figure(4.9).goal(Goal::AtLeast(5.0)), Outcome::Missed);
        let ratio = figure(2.0).goal(Goal::RatioAtMost(0.2));
        check(ratio.clone().peer(Peer::measured("p", 10.0)), Outcome::Met);
        check(ratio.clone().peer(Peer::measured("p", 9.0)), Outcome::Missed);
        check(ratio.clone().peer(Peer::missing("p", "not installed")), Outcome::Unknown);
        check(ratio.peer(Peer::measured("p", 0.0)), Outcome::Unknown);
    }

    #[test]
    fn numbers() {
        for (value, expected) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234.0, "1 234"),
            (1_234_567.0, "1 234 567"),
            (-123_456.0, "-123 456"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn a_missing_peer_is_loud_and_survives_the_pipe() {
        let figure = figure(2.0).goal(Goal::RatioAtMost(0.2)).peer(Peer::missing("p", "gone"));
        let again: Figure = serde_json::from_slice(&serde_json::to_vec(&figure).unwrap()).unwrap();
        assert_eq!(figure, again);
        let text = table(&[again]);
        assert!(text.contains("p MISSING: gone") && text.contains("UNKNOWN"), "{text}");
    }
}
