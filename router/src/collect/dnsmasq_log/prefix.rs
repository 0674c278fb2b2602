//! What stands before the message: time, host, program.
//!
//! In: one line of any of these shapes (syslog, RFC 3164 and RFC 5424; dnsmasq's own log
//! file; OpenWrt's logread; rsyslog's and Pi-hole's dates; Pi-hole's REST elements).
//! Out: the time as UTC, the program and its process id, and the message. Collector's
//! thread; the common shape takes about 20 ns.
//!
//! Invariants: any bytes give a result; a line without a date has the time it was read at;
//! the zone's table is asked once per minute of log time.

use std::borrow::Cow;
use std::time::Duration;

use agentmon_core::time::{Timestamp, days_from_civil};
use serde::Deserialize;

use super::tag::{Tagged, rfc5424, tag};
use crate::localtime::{Civil, Zone, offset_seconds};

/// Who wrote the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `dnsmasq`, `pihole-FTL`, or not said.
    Dnsmasq,
    /// `dnsmasq-dhcp`.
    Dhcp,
    /// `kernel`: among much else, packets the firewall stopped.
    Kernel,
    /// `dnsmasq-tftp`, `dnsmasq-script`, or a program of its own in a shared log.
    Other,
}

/// A line without its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixed<'a> {
    /// When it was written.
    pub time: Timestamp,
    /// The time has fractions of a second, so that differences of it mean something.
    pub fine: bool,
    /// The machine that wrote it, as it calls itself; empty where that is not said.
    pub host: &'a [u8],
    /// Who wrote it.
    pub program: Program,
    /// Its process id, 0 where it is not said. TCP queries have processes of their own.
    pub pid: u32,
    /// The rest.
    pub message: Cow<'a, [u8]>,
}

/// Reads prefixes; remembers the zone's answer for the current minute.
#[derive(Clone, Debug)]
pub struct Stamper {
    zone: Zone,
    /// `May  8 01:57` and when that minute began.
    minute: ([u8; 12], Timestamp),
    /// The time of the line before.
    last: Option<Timestamp>,
}

/// A time, whether it has fractions, and what follows it.
type Stamp<'a> = (Timestamp, bool, &'a [u8]);

impl Stamper {
    /// For logs written in `zone`.
    #[must_use]
    pub const fn new(zone: Zone) -> Self {
        Self { zone, minute: ([0; 12], Timestamp::EPOCH), last: None }
    }

    /// The time of the line before: decides hours that exist twice.
    #[must_use]
    pub const fn last(&self) -> Option<Timestamp> {
        self.last
    }
    /// After a restart.
    pub fn set_last(&mut self, last: Option<Timestamp>) {
        self.last = last;
    }

    /// `2026-03-23T13:16:49.123456789+01:00` and nothing else.
    #[must_use]
    pub fn rfc3339(&self, text: &[u8]) -> Option<Timestamp> {
        // A date without a zone is no such time.
        let zoned = text.get(19..)?.iter().any(|b| matches!(b, b'Z' | b'+' | b'-'));
        let (time, _, rest) = self.iso(text, Timestamp::EPOCH)?;
        (zoned && rest.is_empty()).then_some(time)
    }

    /// Takes one line apart. `None`: it is empty. `now` is the time of reading.
    pub fn read<'a>(&mut self, line: &'a [u8], now: Timestamp) -> Option<Prefixed<'a>> {
        if line.first() == Some(&b'{') {
            return self.json(line, now);
        }
        let line = skip_priority(line);
        let (stamp, five_parts) = match self.bsd(line, now) {
            Some(stamp) => (Some(stamp), false),
            None => self.other_date(line, now),
        };
        let Some((time, fine, rest)) = stamp else {
            return Some(self.tagged(now, false, tag(line, false)?));
        };
        let tagged = if five_parts { rfc5424(rest)? } else { tag(rest, true)? };
        Some(self.tagged(time, fine, tagged))
    }

    fn tagged<'a>(&mut self, time: Timestamp, fine: bool, tagged: Tagged<'a>) -> Prefixed<'a> {
        self.last = Some(time);
        let Tagged { host, program, pid, message } = tagged;
        Prefixed { time, fine, host, program, pid, message: Cow::Borrowed(message) }
    }

    /// A message of the resolver that names nobody.
    fn bare<'a>(&mut self, time: Timestamp, fine: bool, message: Cow<'a, [u8]>) -> Prefixed<'a> {
        self.last = Some(time);
        Prefixed { time, fine, host: b"", program: Program::Dnsmasq, pid: 0, message }
    }

    /// `May  8 01:57:01 `, in local time and without year.
    fn bsd<'a>(&mut self, line: &'a [u8], now: Timestamp) -> Option<Stamp<'a>> {
        let (stamp, rest) = line.split_at_checked(15)?;
        let (minute, second) = stamp.split_first_chunk::<12>()?;
        let [b':', a, b] = *second else { return None };
        let rest = rest.strip_prefix(b" ")?;
        let second = two(a, b).filter(|s| *s <= 60)?;
        if *minute != self.minute.0 {
            let mut civil = civil_of_minute(minute)?;
            civil.second += second;
            let time = self.zone.to_utc(civil, self.last, now);
            self.minute = (*minute, time.minus(Duration::from_secs(u64::from(second))));
        }
        Some((plus_nanos(self.minute.1, u64::from(second) * 1_000_000_000), false, rest))
    }

    /// The rarer dates; true with RFC 5424, whose next fields are host, program, process,
    /// message id and structured data.
    fn other_date<'a>(&mut self, line: &'a [u8], now: Timestamp) -> (Option<Stamp<'a>>, bool) {
        if let Some(rest) = line.strip_prefix(b"1 ") {
            // A sender without a clock says so with a dash (RFC 5424 section 6.2.3).
            let unknown = || Some((now, false, rest.strip_prefix(b"- ")?));
            if let Some(stamp) = self.iso(rest, now).or_else(unknown) {
                return (Some(stamp), true);
            }
        }
        (self.iso(line, now).or_else(|| self.logread(line, now)), false)
    }

    /// `2026-03-23T13:16:49.123456+01:00 ` or `2025-06-28 08:47:18.378 `.
    fn iso<'a>(&self, line: &'a [u8], now: Timestamp) -> Option<Stamp<'a>> {
        let (date, rest) = line.split_at_checked(19)?;
        let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T' | b' ', clock @ ..] = date else {
            return None;
        };
        let year = i64::from(two(*y1, *y2)?) * 100 + i64::from(two(*y3, *y4)?);
        let (month, day) = (two(*m1, *m2)?, two(*d1, *d2)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let civil = Civil { year: Some(year), month, day, second: clock_seconds(clock)? };
        let (nanos, fine, rest) = fraction(rest);
        let space = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        let (zone, rest) = rest.split_at(space);
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        let base = match zone {
            b"" => self.zone.to_utc(civil, self.last, now),
            b"Z" => utc(civil, 0),
            offset => utc(civil, offset_seconds(offset)?),
        };
        Some((plus_nanos(base, nanos), fine, rest))
    }

    /// `Mon Mar 23 13:16:49 2026 daemon.info `.
    fn logread<'a>(&self, line: &'a [u8], now: Timestamp) -> Option<Stamp<'a>> {
        let (stamp, rest) = line.split_at_checked(25)?;
        let [_, _, _, b' ', stamp @ .., b' '] = stamp else { return None };
        let (minute, rest_of_date) = stamp.split_first_chunk::<12>()?;
        let [b':', s1, s2, b' ', y1, y2, y3, y4] = rest_of_date else { return None };
        let mut civil = civil_of_minute(minute)?;
        civil.year = Some(i64::from(two(*y1, *y2)?) * 100 + i64::from(two(*y3, *y4)?));
        civil.second += two(*s1, *s2)?;
        let space = memchr::memchr(b' ', rest)?;
        let (facility, rest) = rest.split_at(space);
        if !facility.contains(&b'.') {
            return None;
        }
        Some((self.zone.to_utc(civil, self.last, now), false, rest.get(1..)?))
    }

    /// `{"timestamp":1711199809.0,"message":"...","prio":null}`.
    fn json<'a>(&mut self, line: &'a [u8], now: Timestamp) -> Option<Prefixed<'a>> {
        #[derive(Deserialize)]
        struct Element<'a> {
            #[serde(default)]
            timestamp: Option<f64>,
            #[serde(borrow)]
            message: Cow<'a, str>,
        }
        let Ok(element) = serde_json::from_slice::<Element<'a>>(line) else {
            return Some(self.bare(now, false, Cow::Borrowed(line)));
        };
        let (time, fine) = match element.timestamp {
            // Microseconds: more than a double holds at this size is noise.
            Some(t) if t.is_finite() => {
                (Timestamp::from_micros((t * 1e6) as i64), t.fract() != 0.0)
            }
            _ => (now, false),
        };
        let message = match element.message {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Some(self.bare(time, fine, message))
    }
}

fn plus_nanos(t: Timestamp, nanos: u64) -> Timestamp {
    t.plus(Duration::from_nanos(nanos))
}

fn utc(civil: Civil, offset: i32) -> Timestamp {
    let days = days_from_civil(civil.year.unwrap_or(1970), civil.month, civil.day);
    Timestamp::from_secs(days * 86_400 + i64::from(civil.second) - i64::from(offset))
}

const fn two(a: u8, b: u8) -> Option<u32> {
    if a.is_ascii_digit() && b.is_ascii_digit() {
        Some((a - b'0') as u32 * 10 + (b - b'0') as u32)
    } else {
        None
    }
}

/// `13:16:49`.
fn clock_seconds(clock: &[u8]) -> Option<u32> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = clock else { return None };
    let (h, m, s) = (two(*h1, *h2)?, two(*m1, *m2)?, two(*s1, *s2)?);
    (h < 24 && m < 60 && s <= 60).then_some(h * 3_600 + m * 60 + s)
}

/// `May  8 01:57` without year and seconds.
fn civil_of_minute(text: &[u8; 12]) -> Option<Civil> {
    let [a, b, c, b' ', d1, d2, b' ', h1, h2, b':', m1, m2] = *text else { return None };
    let month = match &[a, b, c] {
        b"Jan" => 1,
        b"Feb" => 2,
        b"Mar" => 3,
        b"Apr" => 4,
        b"May" => 5,
        b"Jun" => 6,
        b"Jul" => 7,
        b"Aug" => 8,
        b"Sep" => 9,
        b"Oct" => 10,
        b"Nov" => 11,
        b"Dec" => 12,
        _ => return None,
    };
    let day = two(if d1 == b' ' { b'0' } else { d1 }, d2)?;
    let (h, m) = (two(h1, h2)?, two(m1, m2)?);
    let right = (1..=31).contains(&day) && h < 24 && m < 60;
    right.then_some(Civil { year: None, month, day, second: h * 3_600 + m * 60 })
}

/// `.378` or `,378` and up to nine digits: nanoseconds.
fn fraction(text: &[u8]) -> (u64, bool, &[u8]) {
    let Some((b'.' | b',', digits)) = text.split_first() else { return (0, false, text) };
    let n = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, rest) = digits.split_at(n);
    let mut nanos = 0u64;
    let mut unit = 100_000_000u64;
    for digit in digits {
        nanos += u64::from(digit - b'0') * unit;
        unit /= 10;
    }
    (nanos, n > 0, rest)
}

/// `<30>`: facility and severity of syslog.
fn skip_priority(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(b"<") else { return line };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    match rest.get(digits) {
        Some(b'>') if (1..=3).contains(&digits) => rest.get(digits + 1..).unwrap_or_default(),
        _ => line,
    }
}

#[cfg(test)]
#[path = "prefix_tests.rs"]
mod tests;
