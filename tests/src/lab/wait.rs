//! Waiting for something to become true: never a fixed sleep, always a deadline.
//!
//! `AGENTMON_PATIENCE` (a factor, default 1) stretches every deadline for slow or loaded
//! machines; it never changes what is asserted.

use std::time::Duration;

use agentmon_core::time::{Clock, Mono, SystemClock};

/// First and longest pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Monotonic time now.
#[must_use]
pub fn now() -> Mono {
    SystemClock.mono()
}

/// `seconds`, stretched by `AGENTMON_PATIENCE`.
#[must_use]
pub fn patience(seconds: f64) -> Duration {
    let factor = std::env::var("AGENTMON_PATIENCE").ok().and_then(|v| v.parse::<f64>().ok());
    Duration::from_secs_f64(seconds * factor.unwrap_or(1.0).max(0.1))
}

/// Sleeps; only for spacing out actions, never for waiting on a result.
pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Looks until `probe` gives `Ok`, at most `seconds` (stretched); then fails with its last
/// complaint.
///
/// # Panics
/// When the deadline passes.
#[track_caller]
pub fn eventually<T>(seconds: f64, what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let (start, limit) = (now(), patience(seconds));
    let mut pause = PAUSE_MIN;
    loop {
        let complaint = match probe() {
            Ok(value) => return value,
            Err(complaint) => complaint,
        };
        let waited = now().since(start);
        assert!(waited < limit, "not within {waited:.1?}: {what}\n  last seen: {complaint}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// `Ok(())` or the complaint: makes a condition a probe for [`eventually`].
///
/// # Errors
/// `complaint`, when the condition does not hold.
pub fn want(condition: bool, complaint: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(complaint()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_when_it_is_there() {
        let mut looks = 0;
        let got = eventually(5.0, "third look", || {
            looks += 1;
            want(looks >= 3, || format!("look {looks}")).map(|()| looks)
        });
        assert_eq!(got, 3);
    }

    #[test]
    fn fails_with_the_last_complaint() {
        let failed = std::panic::catch_unwind(|| {
            eventually::<()>(0.02, "never", || Err("still not".to_owned()));
        });
        let text = failed.expect_err("the deadline has passed");
        let text = text.downcast_ref::<String>().map_or("", String::as_str);
        assert!(text.contains("never") && text.contains("still not"), "{text}");
    }
}
