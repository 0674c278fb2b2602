//! Time: one type for wall time, one for monotonic time, one trait for both.
//!
//! The wall clock says *when* something was seen and may jump (a router without a battery
//! clock boots in 1970 until NTP sets it); the monotonic clock says *how long* and never
//! goes back. They are different types so that nobody subtracts one from the other.
//! This file is the only one that asks the operating system for the time; the methods it
//! uses are banned elsewhere by clippy.toml.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Wall time: nanoseconds since 1970-01-01T00:00:00Z, leap seconds ignored.
///
/// Range about 1677 to 2262; arithmetic saturates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn from_nanos(ns: i64) -> Self {
        Self(ns)
    }
    /// From microseconds since the Unix epoch; saturates.
    #[must_use]
    pub const fn from_micros(us: i64) -> Self {
        Self(us.saturating_mul(1_000))
    }
    /// From seconds since the Unix epoch; saturates.
    #[must_use]
    pub const fn from_secs(s: i64) -> Self {
        Self(s.saturating_mul(1_000_000_000))
    }
    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }
    /// Microseconds since the Unix epoch, rounded down: the hub's column resolution.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0.div_euclid(1_000)
    }
    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }
    /// `self - earlier`, or zero when the clock went back: a duration is never negative.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
    /// Distance in either direction.
    #[must_use]
    pub fn distance(self, other: Self) -> Duration {
        Duration::from_nanos(self.0.abs_diff(other.0))
    }
    /// `self + d`; saturates.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
    /// `self - d`; saturates.
    #[must_use]
    pub fn minus(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
    /// False before 2020: a clock that nobody has set yet.
    #[must_use]
    pub const fn is_plausible(self) -> bool {
        self.0 >= 1_577_836_800_000_000_000
    }
}

/// RFC 3339 in UTC with microseconds, as `2026-11-23T14:32:07.000123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, secs) = (self.secs().div_euclid(86_400), self.secs().rem_euclid(86_400));
        let (y, m, d) = civil_from_days(days);
        let us = self.micros().rem_euclid(1_000_000);
        write!(
            f,
            "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{us:06}Z",
            secs / 3600,
            secs / 60 % 60,
            secs % 60
        )
    }
}

/// Days since 1970-01-01 -> (year, month, day) in the proleptic Gregorian calendar.
/// Method: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" (400-year eras
/// that begin on 1 March).
#[must_use]
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// (year, month 1-12, day 1-31) -> days since 1970-01-01; the inverse of [`civil_from_days`].
#[must_use]
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// Monotonic time: nanoseconds since some fixed moment of this process or machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Mono(u64);

impl Mono {
    /// From nanoseconds.
    #[must_use]
    pub const fn from_nanos(ns: u64) -> Self {
        Self(ns)
    }
    /// Nanoseconds since the clock's own zero.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }
    /// Time passed since `earlier`, or zero.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
    /// `self + d`; saturates.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Where the shell of a program gets its time from. Detectors never see this trait:
/// they are handed timestamps.
pub trait Clock: Send + Sync {
    /// Wall time, for stamping what was just seen.
    fn wall(&self) -> Timestamp;
    /// Monotonic time, for time-outs and rates.
    fn mono(&self) -> Mono;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn wall(&self) -> Timestamp {
        let now = std::time::SystemTime::now();
        let wall = match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(d) => Timestamp::EPOCH.plus(d),
            Err(before) => Timestamp::EPOCH.minus(before.duration()),
        };
        #[cfg(feature = "test-clock")]
        let wall = test_clock::moved(wall);
        wall
    }
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    fn mono(&self) -> Mono {
        use std::sync::OnceLock;
        use std::time::Instant;
        static ZERO: OnceLock<Instant> = OnceLock::new();
        let zero = *ZERO.get_or_init(Instant::now);
        // +1 s so that "long ago" can be expressed right after the start.
        Mono(0).plus(zero.elapsed() + Duration::from_secs(1))
    }
}

/// Wall-clock jumps for tests of whole programs: setting the machine's own date would hit
/// everything else on it. Not in any build that is shipped.
#[cfg(feature = "test-clock")]
mod test_clock {
    use super::Timestamp;

    /// Names a file that holds the seconds to add to the wall clock.
    const ENV: &str = "AGENTMON_CLOCK_OFFSET_FILE";

    /// The file is read every time, so that a test can move the clock of a running program.
    pub(super) fn moved(wall: Timestamp) -> Timestamp {
        let offset = std::env::var_os(ENV)
            .and_then(|path| std::fs::read_to_string(path).ok())
            .and_then(|text| text.trim().parse::<i64>().ok())
            .unwrap_or(0);
        let moved = offset.saturating_mul(1_000_000_000).saturating_add(wall.nanos());
        Timestamp::from_nanos(moved)
    }
}

/// A clock that moves only when told to: for tests and simulations.
#[derive(Debug, Default)]
pub struct SimClock {
    wall_ns: AtomicI64,
    mono_ns: AtomicU64,
}

impl SimClock {
    /// Starts at the given wall time, monotonic 1 s.
    #[must_use]
    pub fn at(wall: Timestamp) -> Self {
        Self { wall_ns: AtomicI64::new(wall.nanos()), mono_ns: AtomicU64::new(1_000_000_000) }
    }
    /// Both clocks go on by `d`.
    pub fn advance(&self, d: Duration) {
        let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        self.mono_ns.fetch_add(ns, Ordering::SeqCst);
        self.wall_ns.fetch_add(i64::try_from(ns).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
    /// Only the wall clock jumps, as when NTP sets it.
    pub fn set_wall(&self, wall: Timestamp) {
        self.wall_ns.store(wall.nanos(), Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_nanos(self.wall_ns.load(Ordering::SeqCst))
    }
    fn mono(&self) -> Mono {
        Mono(self.mono_ns.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shows(secs: i64, text: &str) {
        assert_eq!(Timestamp::from_secs(secs).to_string(), text);
    }

    #[test]
    fn display_is_rfc3339() {
        shows(0, "1970-01-01T00:00:00.000000Z");
        shows(-1, "1969-12-31T23:59:59.000000Z");
        shows(951_782_400, "2000-02-29T00:00:00.000000Z");
        shows(1_795_444_327, "2026-11-23T14:32:07.000000Z");
    }

    #[test]
    fn civil_round_trips_over_four_centuries() {
        for days in -100_000..100_000 {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_zero() {
        let (a, b) = (Timestamp::from_secs(10), Timestamp::from_secs(4));
        assert_eq!(b.since(a), Duration::ZERO);
        assert_eq!(a.since(b), Duration::from_secs(6));
        assert_eq!(b.distance(a), Duration::from_secs(6));
    }
}
