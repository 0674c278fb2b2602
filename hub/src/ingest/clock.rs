//! Whose clock is right: puts a sensor's times on the hub's clock where they must be wrong.
//!
//! A router without a battery clock boots in 1970, or at the date of its firmware, until
//! NTP sets it. Its events are kept; their order and distances among each other are good,
//! only the origin is off. Pure.
//!
//! Rules, in order:
//! 1. The sensor's clock agrees with the hub's now (sent and received within
//!    [`SKEW_MAX`]): an event's time stands, unless it lies before 2020 or in the future.
//!    Those were stamped before the clock was set; when is unknown, so the time is that
//!    of arrival.
//! 2. It disagrees: the event happened `sent - time` before it was sent, by one and the
//!    same wrong clock, so its time is `received - (sent - time)`.

use std::time::Duration;

use agentmon_core::Timestamp;

/// Largest difference taken for honest drift and travel time.
pub const SKEW_MAX: Duration = Duration::from_secs(300);
/// Longest an event waits in a ring: more says that the clock jumped in between.
const WAIT_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The time by the hub's clock where the sensor's `time` cannot be right; `None`: it stands.
#[must_use]
pub fn corrected(time: Timestamp, sent: Timestamp, received: Timestamp) -> Option<Timestamp> {
    let in_future = time > received.plus(SKEW_MAX);
    if sent.distance(received) <= SKEW_MAX {
        return (in_future || !time.is_plausible()).then_some(received);
    }
    if time > sent.plus(SKEW_MAX) {
        // Stamped by another setting of the clock than `sent`: the good one, by its looks.
        return (in_future || !time.is_plausible()).then_some(received);
    }
    let waited = sent.since(time);
    Some(if waited > WAIT_MAX { received } else { received.minus(waited) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_444_327;
    const DAY: i64 = 86_400;

    /// Seconds in, seconds out.
    #[track_caller]
    fn check(time: i64, sent: i64, expected: Option<i64>) {
        let at = Timestamp::from_secs;
        assert_eq!(corrected(at(time), at(sent), at(NOW)), expected.map(at));
    }

    #[test]
    fn a_right_clock_stands() {
        check(NOW - 5, NOW, None);
        check(NOW - 5, NOW - 200, None);
        check(NOW + 200, NOW + 200, None);
        // The hub was away for a week; an old log was read in.
        check(NOW - 7 * DAY, NOW, None);
        check(NOW - 400 * DAY, NOW, None);
    }

    #[test]
    fn a_wrong_clock_is_shifted() {
        check(100, 160, Some(NOW - 60));
        check(NOW + DAY - 10, NOW + DAY, Some(NOW - 10));
        check(NOW - DAY - 10, NOW - DAY, Some(NOW - 10));
        // Booted at the firmware's date, events since.
        check(NOW - 300 * DAY, NOW - 300 * DAY + 30, Some(NOW - 30));
    }

    #[test]
    fn a_clock_set_in_between_gives_arrival_or_stands() {
        check(100, NOW, Some(NOW));
        check(NOW + DAY, NOW, Some(NOW));
        check(100, NOW - DAY, Some(NOW));
        check(NOW - 20, 160, None);
    }

    #[test]
    fn extremes_do_not_overflow() {
        for time in [i64::MIN, -1, 0, i64::MAX] {
            for sent in [i64::MIN, 0, NOW, i64::MAX] {
                let (t, s) = (Timestamp::from_nanos(time), Timestamp::from_nanos(sent));
                let fixed = corrected(t, s, Timestamp::from_secs(NOW));
                if let Some(fixed) = fixed {
                    assert!(fixed <= Timestamp::from_secs(NOW), "{time} {sent} {fixed}");
                }
            }
        }
    }
}
