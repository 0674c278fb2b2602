//! How much a name says that was not said before.
//!
//! In: the part of a name in front of the registered domain, the labels this network has
//! used, and the name asked before it. Out: bits, and what kind of name it is. Pure besides
//! the memory of labels; about 0.3 us for 100 characters, nothing allocated.
//!
//! - Labels are taken apart at their hyphens. A part used before, anywhere, says at most a
//!   byte: which one it is. So `www`, `cdn`, the words of a title, a customer's key or the
//!   octets of an address asked of a mail blocklist soon say little.
//! - A new part says the Shannon entropy of its own bytes: `telemetry` 24 bits, 60
//!   hexadecimal digits 230; a short number, being a counter or a time, a byte.
//! - A name says no more than its part that differs from the name before, and where: what is
//!   the same at both ends says nothing. Where that part is a number or very short, it counts.

use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_64;

use crate::tier0::question::{Question, is_fingerprint};
use crate::tier0::sketch::Seen;
use crate::time::Mono;

/// Which of very few, or the end of a number that counts: a byte.
const KNOWN_PART_BITS: f32 = 8.0;
/// Names that differ by no more than this count something.
const COUNTER_BITS: f32 = 8.0;
/// Digits in a counter or a time in microseconds.
const NUMBER_DIGITS_MAX: usize = 16;
/// Bits from which on a label counts as carrying something.
const CARRIES_BITS: f32 = 40.0;
/// Most fingerprints in a name that asks about something.
const FINGERPRINTS_MAX: u32 = 2;

/// `n log2 n` for the lengths of labels.
static N_LOG_N: LazyLock<[f32; 64]> = LazyLock::new(|| {
    std::array::from_fn(|n| if n < 2 { 0.0 } else { n as f32 * (n as f32).log2() })
});

/// What a name says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Information {
    /// Bits that were not said before.
    pub(super) bits: f32,
    /// Of these, in parts never used before.
    pub(super) fresh: f32,
    /// Bytes that no host name has (RFC 952, RFC 1123, and `_`).
    pub(super) odd_bytes: bool,
    /// All that carries something is one or two fingerprints or identifiers.
    pub(super) fingerprint: bool,
    /// Differs from the name before by a number or next to nothing.
    pub(super) counter: bool,
}

impl Information {
    pub(super) fn of(
        question: &Question<'_>,
        before: Option<&str>,
        labels: &mut Seen,
        at: Mono,
    ) -> Self {
        let mut info = Self::default();
        let (mut carrying, mut fingerprints) = (0, 0);
        for label in question.sub.split('.') {
            let (mut bits, mut odd) = (0.0, false);
            for part in label.as_bytes().split(|b| *b == b'-') {
                let (entropy, strange) = entropy(part);
                let known = is_number(part) || !labels.first(xxh3_64(part), at);
                bits += if known { entropy.min(KNOWN_PART_BITS) } else { entropy };
                info.fresh += if known { 0.0 } else { entropy };
                odd |= strange;
            }
            info.bits += bits;
            info.odd_bytes |= odd;
            if bits >= CARRIES_BITS {
                carrying += 1;
                fingerprints += u32::from(is_fingerprint(label));
            }
        }
        info.fingerprint = carrying > 0 && carrying == fingerprints && carrying <= FINGERPRINTS_MAX;
        if let Some(differs) = before.and_then(|before| differing(question.sub, before)) {
            let entropies = differs.split(|b| *b == b'.').map(|part| entropy(part).0);
            let most = entropies.sum::<f32>();
            info.bits = info.bits.min(most);
            info.fresh = info.fresh.min(most);
            info.counter = most <= COUNTER_BITS || is_number(differs);
        }
        info
    }
}

fn is_number(part: &[u8]) -> bool {
    part.len() <= NUMBER_DIGITS_MAX && part.iter().all(u8::is_ascii_digit)
}

/// Shannon entropy of some bytes times their number, and whether one of them stands in
/// no host name. Escapes (`\DDD`, see [`crate::name`]) are one byte.
fn entropy(label: &[u8]) -> (f32, bool) {
    let mut counts = [0u8; 256];
    let (mut bytes, mut odd, mut rest) = (0usize, false, label);
    while let Some((byte, after)) = next(rest) {
        rest = after;
        odd |= !(byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        let count = &mut counts[usize::from(byte)];
        *count = count.saturating_add(1);
        bytes += 1;
    }
    let n_log_n = |n: usize| N_LOG_N.get(n).copied().unwrap_or_default();
    let same: f32 = counts.iter().filter(|n| **n > 1).map(|n| n_log_n(usize::from(*n))).sum();
    (n_log_n(bytes) - same, odd)
}

fn next(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'\\', a, b, c, rest @ ..] => {
            let digit = |d: &u8| u32::from(d.wrapping_sub(b'0'));
            let byte = digit(a) * 100 + digit(b) * 10 + digit(c);
            Some((u8::try_from(byte).unwrap_or(b'\\'), rest))
        }
        [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

/// The part of `text` that does not stand at the same end of `before`; `None` where nothing
/// is the same.
fn differing<'a>(text: &'a str, before: &str) -> Option<&'a [u8]> {
    let (text, before) = (text.as_bytes(), before.as_bytes());
    let most = text.len().min(before.len());
    let front = text.iter().zip(before).take(most).take_while(|(a, b)| a == b).count();
    let back = text.iter().rev().zip(before.iter().rev());
    let back = back.take(most - front).take_while(|(a, b)| a == b).count();
    if front + back == 0 { None } else { text.get(front..text.len() - back) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::dns;
    use std::time::Duration;

    /// Bits of the last name, after the others.
    #[track_caller]
    fn bits(names: &[&str], expected: std::ops::RangeInclusive<f32>) -> Information {
        let mut labels = Seen::new(1_000, Duration::from_secs(3_600));
        let (mut info, mut before) = (Information::default(), None);
        for sub in names {
            let dns = dns("192.168.1.5", &format!("{sub}.shop.example"), &[]);
            info = Information::of(&Question::of(&dns), before, &mut labels, Mono::default());
            before = Some(*sub);
        }
        assert!(expected.contains(&info.bits), "{names:?}: {info:?}");
        info
    }

    const HEX: &str = "204065e53a6e177f76cf58cf54f742b7f8e8f7e4650e0969434826a7fd77";

    #[test]
    fn what_names_say() {
        bits(&["www"], 0.0..=1.0);
        bits(&["telemetry"], 20.0..=26.0);
        bits(&[HEX], 210.0..=240.0);
        bits(&[&format!("{HEX}.{HEX}")], 210.0..=245.0);
        assert!(!bits(&[HEX], 200.0..=240.0).fingerprint);
        assert!(bits(&["d41d8cd98f00b204e9800998ecf8427e.a1"], 100.0..=125.0).fingerprint);
    }

    #[test]
    fn what_was_said_before_says_little() {
        bits(&["eu.metrics", "metrics.us", "us.eu"], 0.0..=16.0);
        bits(&["1.2.3.4", "5.1.7.3", "7.5.4.2"], 0.0..=32.0);
        let counter = bits(&["sn00482913-000417", "sn00482913-000418"], 0.0..=6.0);
        assert!(counter.counter);
        bits(&["sn00482913-000417", "tv-9-aa", "sn00482913-000418"], 0.0..=17.0);
        bits(&["a-very-long-title", "title-of-a-very-long-title"], 0.0..=30.0);
    }

    #[test]
    fn bytes_that_no_host_name_has() {
        let info = bits(&["\\190\\222wymgdb\\190"], 15.0..=40.0);
        assert!(info.odd_bytes);
        assert_eq!(entropy(b"\\190\\190\\190\\190"), (0.0, true));
        assert!(!entropy(b"a-b_c0").1);
        assert_eq!(entropy(b""), (0.0, false));
    }
}
