//! What a target does next: pure, so that every rule of patience can be tested.
//!
//! In: its settings, what it has been through, the rows that wait for it, the time. Out: a
//! [`Step`]. The wall clock says how old a row is and which minute of the day it is, the
//! monotonic clock paces retries and the rate: a clock that jumps neither floods a receiver
//! nor silences it for long.

use std::collections::VecDeque;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Severity;
use agentmon_core::time::Mono;

use super::config::Target;

/// Wait after a first failure; doubled by each further one.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(900);
/// More rows than this are told together: nobody reads a burst one by one.
const TOGETHER_FROM: usize = 6;
/// How often to look again at what waits for a time of day.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
/// A message that was refused so often alone is given up.
pub(super) const REFUSED_MAX: u32 = 3;

/// A row that waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Waiting {
    pub(super) severity: Severity,
    pub(super) queued: Timestamp,
    /// Nobody has acknowledged its alert.
    pub(super) open: bool,
}

/// What a target has been through.
#[derive(Debug, Default)]
pub(super) struct State {
    /// In a row.
    pub(super) failures: u32,
    not_before: Option<Mono>,
    /// When messages were sent within the last minute.
    sent: VecDeque<Mono>,
    /// A message of several was refused: one of them may be why.
    pub(super) alone: bool,
    /// How often the first row was refused, told alone.
    pub(super) refused: u32,
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing waits.
    Idle,
    /// Nothing before this time has passed.
    Wait(Duration),
    /// These rows need not be told any more.
    Settle(Vec<usize>, Settled),
    /// These rows in one message.
    Send(Vec<usize>),
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The receiver took it.
    Sent,
    /// Somebody acknowledged the alert before it was this target's turn.
    Unneeded,
    /// The receiver will not have it.
    Refused,
    /// It could not be told for `keep_seconds`.
    Expired,
}

impl Settled {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Unneeded => "unneeded",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

/// The time, as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    pub(super) mono: Mono,
    /// Of the day, in this machine's time zone.
    pub(super) minute: u16,
}

impl State {
    /// A message was taken.
    pub(super) fn succeeded(&mut self, now: Mono) {
        self.sent.push_back(now);
        *self = Self { sent: std::mem::take(&mut self.sent), ..Self::default() };
    }

    /// It was not; the receiver may have asked for patience.
    pub(super) fn failed(&mut self, now: Mono, asked: Option<Duration>) {
        self.sent.push_back(now);
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let wait = RETRY_FIRST.saturating_mul(factor).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now.plus(wait.max(asked.unwrap_or_default())));
    }

    fn pause(&mut self, target: &Target, now: Mono) -> Option<Duration> {
        while self.sent.front().is_some_and(|sent| now.since(*sent) >= MINUTE) {
            self.sent.pop_front();
        }
        let backing_off = self.not_before.map(|at| at.since(now)).filter(|wait| !wait.is_zero());
        let full = self.sent.len() >= target.messages_per_minute as usize;
        let oldest = self.sent.front().filter(|_| full);
        let rate = oldest.map(|sent| MINUTE.saturating_sub(now.since(*sent)));
        backing_off.max(rate)
    }
}

/// What to do next; `rows` are the oldest that wait.
pub(super) fn next(target: &Target, state: &mut State, rows: &[Waiting], now: Now) -> Step {
    if rows.is_empty() {
        return Step::Idle;
    }
    let which = |is: &dyn Fn(&Waiting) -> bool| -> Vec<usize> {
        rows.iter().enumerate().filter(|(_, row)| is(row)).map(|(i, _)| i).collect()
    };
    let keep = Duration::from_secs(target.keep_seconds).max(target.escalates() + MINUTE);
    let expired = which(&|row| now.wall.since(row.queued) > keep);
    if !expired.is_empty() {
        return Step::Settle(expired, Settled::Expired);
    }
    let unneeded = which(&|row| target.escalate_seconds > 0 && !row.open);
    if !unneeded.is_empty() {
        return Step::Settle(unneeded, Settled::Unneeded);
    }
    let held: Vec<Option<Duration>> = held(target, rows, now);
    let ready = which_ready(&held);
    if ready.is_empty() {
        let soonest = held.iter().flatten().min().copied().unwrap_or(LOOK_EVERY);
        return Step::Wait(soonest.clamp(Duration::from_millis(10), LOOK_EVERY));
    }
    if let Some(pause) = state.pause(target, now.mono) {
        return Step::Wait(pause);
    }
    let together = target.digest_seconds > 0 || ready.len() >= TOGETHER_FROM;
    let most = if together && !state.alone { target.alerts_per_message } else { 1 };
    Step::Send(ready.into_iter().take(most).collect())
}

fn which_ready(held: &[Option<Duration>]) -> Vec<usize> {
    held.iter().enumerate().filter(|(_, held)| held.is_none()).map(|(i, _)| i).collect()
}

/// How long each row has to wait yet; `None`: not at all.
fn held(target: &Target, rows: &[Waiting], now: Now) -> Vec<Option<Duration>> {
    let age = |row: &Waiting| now.wall.since(row.queued);
    let patient = |row: &&Waiting| row.severity < target.urgent && age(row) >= target.escalates();
    let oldest = rows.iter().filter(patient).map(age).max().unwrap_or_default();
    let digest = Duration::from_secs(target.digest_seconds)
        .checked_sub(oldest.saturating_sub(target.escalates()))
        .filter(|left| !left.is_zero());
    let quiet = target.quiet.contains(now.minute).then_some(LOOK_EVERY);
    let wait = |row: &Waiting| {
        let escalation = target.escalates().checked_sub(age(row)).filter(|left| !left.is_zero());
        let company = if row.severity < target.urgent { digest.max(quiet) } else { None };
        escalation.max(company)
    };
    rows.iter().map(wait).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_793_500_000;

    fn row(severity: Severity, age: u64) -> Waiting {
        let queued = Timestamp::from_secs(T0).minus(Duration::from_secs(age));
        Waiting { severity, queued, open: true }
    }

    fn at(seconds: u64) -> Now {
        let later = Duration::from_secs(seconds);
        Now {
            wall: Timestamp::from_secs(T0).plus(later),
            mono: Mono::from_nanos(0).plus(later),
            minute: 720,
        }
    }

    fn target(toml: &str) -> Target {
        toml::from_str(toml).unwrap()
    }

    #[track_caller]
    fn check(toml: &str, rows: &[Waiting], want: Step) {
        assert_eq!(next(&target(toml), &mut State::default(), rows, at(0)), want, "{toml}");
    }

    const MEDIUM: Severity = Severity::Medium;

    #[test]
    fn at_once_or_together() {
        check("", &[], Step::Idle);
        check("", &[row(MEDIUM, 0)], Step::Send(vec![0]));
        check("", &[row(MEDIUM, 0); 5], Step::Send(vec![0]));
        check("", &[row(MEDIUM, 0); 6], Step::Send((0..6).collect()));
        check("alerts_per_message = 4", &[row(MEDIUM, 0); 9], Step::Send((0..4).collect()));
    }

    #[test]
    fn a_digest_waits_for_its_oldest() {
        let digest = "digest_seconds = 20";
        check(digest, &[row(MEDIUM, 0)], Step::Wait(Duration::from_secs(20)));
        check(digest, &[row(MEDIUM, 15), row(MEDIUM, 0)], Step::Wait(Duration::from_secs(5)));
        check(digest, &[row(MEDIUM, 20), row(MEDIUM, 0)], Step::Send(vec![0, 1]));
        check(digest, &[row(MEDIUM, 0), row(Severity::Critical, 0)], Step::Send(vec![1]));
    }

    #[test]
    fn quiet_hours() {
        let quiet = "quiet = '11:00-13:00'";
        check(quiet, &[row(Severity::High, 0)], Step::Wait(LOOK_EVERY));
        check(quiet, &[row(Severity::High, 0), row(Severity::Critical, 0)], Step::Send(vec![1]));
        check("quiet = '13:00-11:00'", &[row(MEDIUM, 0)], Step::Send(vec![0]));
    }

    #[test]
    fn escalation_is_for_what_nobody_saw_to() {
        let escalate = "escalate_seconds = 20";
        check(escalate, &[row(Severity::Critical, 5)], Step::Wait(Duration::from_secs(15)));
        check(escalate, &[row(Severity::Critical, 20)], Step::Send(vec![0]));
        let seen = Waiting { open: false, ..row(MEDIUM, 5) };
        check(escalate, &[row(MEDIUM, 30), seen], Step::Settle(vec![1], Settled::Unneeded));
        check("", &[seen], Step::Send(vec![0]));
    }

    #[test]
    fn what_is_too_old_is_given_up() {
        check(
            "keep_seconds = 60",
            &[row(MEDIUM, 61), row(MEDIUM, 0)],
            Step::Settle(vec![0], Settled::Expired),
        );
        // But not before it was its turn.
        check(
            "keep_seconds = 60\nescalate_seconds = 120",
            &[row(MEDIUM, 121)],
            Step::Send(vec![0]),
        );
    }

    #[test]
    fn failures_are_paced_and_forgotten() {
        let (target, mut state) = (target(""), State::default());
        let rows = [row(MEDIUM, 0)];
        state.failed(at(0).mono, None);
        assert_eq!(next(&target, &mut state, &rows, at(0)), Step::Wait(RETRY_FIRST));
        assert_eq!(next(&target, &mut state, &rows, at(1)), Step::Send(vec![0]));
        for _ in 0..40 {
            state.failed(at(1).mono, None);
        }
        state.sent.clear();
        assert_eq!(next(&target, &mut state, &rows, at(1)), Step::Wait(RETRY_MAX));
        state.failed(at(1).mono, Some(Duration::from_secs(3_600)));
        assert_eq!(
            next(&target, &mut state, &rows, at(3_000)),
            Step::Wait(Duration::from_secs(601))
        );
        state.succeeded(at(4_000).mono);
        assert_eq!(next(&target, &mut state, &rows, at(4_000)), Step::Send(vec![0]));
    }

    #[test]
    fn no_more_than_so_many_in_a_minute() {
        let (target, mut state) = (target("messages_per_minute = 2"), State::default());
        let rows = [row(MEDIUM, 0)];
        state.succeeded(at(0).mono);
        state.succeeded(at(10).mono);
        assert_eq!(next(&target, &mut state, &rows, at(20)), Step::Wait(Duration::from_secs(40)));
        assert_eq!(next(&target, &mut state, &rows, at(60)), Step::Send(vec![0]));
    }

    #[test]
    fn one_by_one_after_a_refusal() {
        let mut state = State { alone: true, ..State::default() };
        assert_eq!(next(&target(""), &mut state, &[row(MEDIUM, 0); 9], at(0)), Step::Send(vec![0]));
    }
}
