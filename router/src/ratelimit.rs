//! One log line per cause and minute: a problem that repeats a thousand times a second must
//! not fill the log, nor hide the others.
//!
//! In: a cause (a short fixed word) and monotonic time. Out: whether to log now, and how
//! many were left out since the last time. Any thread. At most [`CAUSES_MAX`] causes are
//! told apart; all beyond share one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agentmon_core::time::Mono;

/// Most causes told apart.
pub const CAUSES_MAX: usize = 64;
/// One line per cause in this time.
pub const EVERY: Duration = Duration::from_secs(60);

/// Remembers when each cause was logged last.
#[derive(Debug, Default)]
pub struct LogLimit {
    causes: Mutex<BTreeMap<&'static str, Cause>>,
}

#[derive(Debug)]
struct Cause {
    logged: Mono,
    suppressed: u64,
}

/// How many lines were left out: shows as nothing, or as ` (7 more like this)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed(pub u64);

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, " ({} more like this)", self.0) }
    }
}

impl LogLimit {
    /// `Some` when a line about `cause` may be written now.
    ///
    /// ```
    /// # use agentmon_router::ratelimit::LogLimit;
    /// # use agentmon_core::time::{Clock, SystemClock};
    /// let (limit, clock) = (LogLimit::default(), SystemClock);
    /// if let Some(more) = limit.allow("bad-line", clock.mono()) {
    ///     eprintln!("line 7: not JSON{more}");
    /// }
    /// ```
    pub fn allow(&self, cause: &'static str, now: Mono) -> Option<Suppressed> {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = causes.contains_key(cause) || causes.len() < CAUSES_MAX;
        let cause = if known { cause } else { "other" };
        let Some(entry) = causes.get_mut(cause) else {
            causes.insert(cause, Cause { logged: now, suppressed: 0 });
            return Some(Suppressed(0));
        };
        if now.since(entry.logged) < EVERY {
            entry.suppressed += 1;
            return None;
        }
        entry.logged = now;
        Some(Suppressed(std::mem::take(&mut entry.suppressed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_cause_and_minute() {
        let limit = LogLimit::default();
        let at = |s: u64| Mono::from_nanos(s * 1_000_000_000);
        let shown = |cause, s| limit.allow(cause, at(s)).map(|more| more.to_string());
        assert_eq!(shown("a", 10).as_deref(), Some(""));
        assert_eq!(shown("a", 11), None);
        assert_eq!(shown("b", 12).as_deref(), Some(""));
        assert_eq!(shown("a", 69), None);
        assert_eq!(shown("a", 70).as_deref(), Some(" (2 more like this)"));
        assert_eq!(shown("a", 131).as_deref(), Some(""));
    }
}
