//! How unlike a chosen name a label looks: a number and the features behind it.
//!
//! A logistic model over groups of 2 to 4 neighbouring characters, pairs with a gap, and
//! counts (length, digits, vowels, longest run of consonants, what stands before the
//! domain, ...). Its 66,560 weights of one byte are learned by `examples/train_dga` from
//! lists of popular names, from generated names of published malware generators and from
//! generators of its own; the program says how to do it again. Labels that look generated
//! but are popular are known by a filter ([`super::popular`]). The top-level domain does
//! not count: which ones generators use changes with their makers.
//!
//! The value is scaled so that it can be read: 0.5 is exceeded by 1 in 100, 0.9 by 1 in
//! 1,000 names of a top list that was not learned from, among them ones that are generated.
//! Of names really asked for, ten times fewer.
//!
//! Budget: about 0.2 us for a label of 12 characters; tables of 197,652 bytes; nothing
//! allocated.

use super::label::Front;
use super::popular::{self, POPULAR_BYTES};

/// Weights for character groups, found by hash.
const GROUPS: usize = 1 << 16;
/// Weights for counts: see [`counts`].
const COUNTS: usize = 1_024;
/// All weights.
pub const WEIGHTS: usize = GROUPS + COUNTS;
/// Shortest label judged.
pub const LABEL_MIN: usize = 5;
/// Characters of a label judged; RFC 1035 allows 63 octets.
const LABEL_MAX: usize = 63;
/// Bytes before the weights: unit, bias, middle, slope and what being popular takes off,
/// as `f32`, little-endian.
pub const HEADER_BYTES: usize = 20;
/// The whole table: header, weights of one signed byte each, filter of popular labels.
pub const TABLE_BYTES: usize = HEADER_BYTES + WEIGHTS + POPULAR_BYTES;
const _: () = assert!(TABLE_BYTES <= 200_000, "the tables' budget");

/// What was learned.
static TABLE: &[u8; TABLE_BYTES] = include_bytes!("weights.bin");

/// The features behind a value, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Characters.
    pub length: usize,
    /// Digits among them.
    pub digits: usize,
    /// Vowels among them, `y` included.
    pub vowels: usize,
    /// Longest run of consonants.
    pub consonants: usize,
    /// Shannon entropy of the characters in bits.
    pub entropy: f64,
}

/// Counts what a person would look at.
#[must_use]
pub fn look(label: &str) -> Look {
    let shape = Shape::of(label.as_bytes());
    Look {
        length: label.len(),
        digits: shape.digits,
        vowels: shape.vowels,
        consonants: shape.consonants,
        entropy: entropy(label.as_bytes()),
    }
}

impl Look {
    /// In words: what is out of the ordinary about it.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { length, digits, vowels, consonants, entropy } = *self;
        let mut words = vec![format!("{length} characters")];
        if digits > 0 {
            words.push(format!("{digits} digits"));
        }
        match vowels {
            0 if length > digits => words.push("no vowels".to_owned()),
            _ if vowels * 4 < length.saturating_sub(digits) => {
                words.push(format!("only {vowels} vowels"));
            }
            _ => {}
        }
        if consonants >= 5 {
            words.push(format!("{consonants} consonants in a row"));
        }
        if length >= 10 && entropy >= 3.3 {
            words.push("hardly any character twice".to_owned());
        }
        words.join(", ")
    }
}

/// Groups of three characters told as evidence.
const UNUSUAL_MAX: usize = 3;

/// The groups of three characters that speak most for a generator, in their order; only
/// such as speak for it at all, none overlapping.
#[must_use]
pub fn unusual(label: &str) -> Vec<&str> {
    let bytes = label.as_bytes().get(..LABEL_MAX).unwrap_or(label.as_bytes());
    let weigh = |group: &[u8]| {
        let symbols: Vec<u8> = group.iter().map(|byte| symbol_of(*byte)).collect();
        let pairs = symbols.windows(2).map(|pair| i32::from(weight(group_index(pair))));
        pairs.sum::<i32>() + i32::from(weight(group_index(&symbols)))
    };
    let mut groups: Vec<(i32, usize)> =
        bytes.windows(3).enumerate().map(|(at, group)| (weigh(group), at)).collect();
    groups.sort_by_key(|(weight, at)| (std::cmp::Reverse(*weight), *at));
    let mut chosen: Vec<usize> = Vec::new();
    for (_, at) in groups.into_iter().filter(|(weight, _)| *weight > 0) {
        if chosen.len() < UNUSUAL_MAX && chosen.iter().all(|other| at.abs_diff(*other) >= 3) {
            chosen.push(at);
        }
    }
    chosen.sort_unstable();
    chosen.into_iter().filter_map(|at| label.get(at..at + 3)).collect()
}

/// How unlike a chosen name a label looks, as it stands in a [`crate::Name`]: 0 = like any
/// other, 1 = like nothing a person would choose. 0 for what [`is_judged`] excludes.
#[must_use]
pub(super) fn value(label: &str, front: Front) -> f64 {
    if !is_judged(label) {
        return 0.0;
    }
    let [unit, bias, middle, slope, popular] = header();
    let mut sum = 0i32;
    features(label.as_bytes(), front, |index| sum += i32::from(weight(index)));
    let mut odds = f64::from(sum) * unit + bias;
    if is_popular(label) {
        odds -= popular;
    }
    1.0 / (1.0 + (slope * (middle - odds)).exp())
}

/// Internationalised names look random in their ASCII form, very short labels like
/// anything.
#[must_use]
pub fn is_judged(label: &str) -> bool {
    label.len() >= LABEL_MIN && !label.starts_with("xn--")
}

/// Whether a label stands in lists of popular names although it looks generated.
pub(super) fn is_popular(label: &str) -> bool {
    popular::contains(TABLE.get(HEADER_BYTES + WEIGHTS..).unwrap_or_default(), label)
}

fn weight(index: usize) -> i8 {
    TABLE.get(HEADER_BYTES + index).copied().unwrap_or(0).cast_signed()
}

fn header() -> [f64; 5] {
    let mut fields = [0.0; 5];
    for (field, bytes) in fields.iter_mut().zip(TABLE.chunks_exact(4)) {
        *field = <[u8; 4]>::try_from(bytes).map_or(0.0, |b| f64::from(f32::from_le_bytes(b)));
    }
    fields
}

/// Calls `each` with the index of every weight that counts for this label. Public for the
/// program that learns the weights.
pub fn features(label: &[u8], front: Front, mut each: impl FnMut(usize)) {
    let label = label.get(..LABEL_MAX).unwrap_or(label);
    let mut symbols = [EDGE; LABEL_MAX + 2];
    for (symbol, byte) in symbols.iter_mut().skip(1).zip(label) {
        *symbol = symbol_of(*byte);
    }
    let symbols = symbols.get(..label.len() + 2).unwrap_or_default();
    for size in 2..=4 {
        symbols.windows(size).for_each(|group| each(group_index(group)));
    }
    for pair in symbols.windows(3) {
        if let [first, _, third] = pair {
            each(group_index(&[*first, GAP, *third]));
        }
    }
    counts(label, |index| each(GROUPS + index));
    each(GROUPS + 1_000 + front as usize);
}

/// Stands before the first and behind the last character.
const EDGE: u8 = 38;
/// Stands for any character.
const GAP: u8 = 39;

const fn symbol_of(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => byte - b'a',
        b'0'..=b'9' => byte - b'0' + 26,
        b'-' => 36,
        _ => 37,
    }
}

/// Multiplicative hashing (Knuth, "The Art of Computer Programming" 6.4), the upper bits.
fn group_index(group: &[u8]) -> usize {
    let number =
        group.iter().fold(group.len() as u64, |n, s| n.wrapping_mul(41) + u64::from(*s) + 1);
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % GROUPS
}

/// Counts over a label.
#[derive(Clone, Copy, Debug, Default)]
struct Shape {
    digits: usize,
    vowels: usize,
    consonants: usize,
    /// Changes between digit and other.
    changes: usize,
    /// Changes between vowel and other.
    swings: usize,
    /// Characters like the one before, and like the one before that.
    doubled: usize,
    echoed: usize,
    hyphens: usize,
    distinct: usize,
    hex: bool,
}

impl Shape {
    fn of(label: &[u8]) -> Self {
        let mut shape = Self { hex: label.len() >= 8, ..Self::default() };
        let (mut run, mut seen) = (0, [false; 256]);
        // The character before and the one before that; NUL is in no name.
        let (mut last, mut older) = (0u8, 0u8);
        for &byte in label {
            let (digit, vowel) = (byte.is_ascii_digit(), is_vowel(byte));
            shape.digits += usize::from(digit);
            shape.vowels += usize::from(vowel);
            run = if byte.is_ascii_alphabetic() && !vowel { run + 1 } else { 0 };
            shape.consonants = shape.consonants.max(run);
            if last != 0 {
                shape.changes += usize::from(last.is_ascii_digit() != digit);
                shape.swings += usize::from(is_vowel(last) != vowel);
            }
            shape.doubled += usize::from(last == byte);
            shape.echoed += usize::from(older == byte);
            shape.hyphens += usize::from(byte == b'-');
            shape.hex &= byte.is_ascii_hexdigit();
            if let Some(seen) = seen.get_mut(usize::from(byte)) {
                shape.distinct += usize::from(!std::mem::replace(seen, true));
            }
            (older, last) = (last, byte);
        }
        shape
    }
}

const fn is_vowel(byte: u8) -> bool {
    matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u' | b'y')
}

/// One weight for each count, by its value; below 1,000. Parts of the length are in
/// fifteenths; the later ones are told apart by length too, in steps of four.
fn counts(label: &[u8], mut each: impl FnMut(usize)) {
    let shape = Shape::of(label);
    let length = label.len();
    let part = |n: usize| n * 15 / length.max(1);
    let step = length.min(31) / 4 * 16;
    each(length.min(40));
    each(64 + shape.digits.min(15));
    each(80 + part(shape.vowels));
    each(96 + shape.consonants.min(15));
    each(112 + shape.changes.min(12));
    if shape.hex {
        each(126);
    }
    each(128 + part(shape.distinct));
    each(144 + shape.hyphens.min(4));
    each(149 + shape.doubled.min(4));
    each(154 + shape.echoed.min(5));
    each(160 + step + part(shape.vowels));
    each(320 + step + shape.digits.min(15));
    each(448 + step + part(shape.swings));
    each(576 + step + part(shape.distinct));
    each(704 + step + shape.consonants.min(15));
}

/// Bits per character, from the label's own frequencies.
fn entropy(label: &[u8]) -> f64 {
    let mut counts = [0u8; 256];
    for byte in label {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let length = label.len() as f64;
    let parts = counts.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / length);
    parts.map(|p| -p * p.log2()).sum::<f64>() + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_a_weight() {
        for label in ["a", "example", &"z9-".repeat(30), &"x".repeat(300), "", "\\255\\254"] {
            for front in [Front::Bare, Front::More] {
                features(label.as_bytes(), front, |index| {
                    assert!(index < WEIGHTS, "{label} {index}");
                });
            }
        }
    }

    #[test]
    fn the_numbers_shown() {
        let look = look("abba-2x7");
        assert_eq!((look.length, look.digits, look.vowels, look.consonants), (8, 2, 2, 2));
        assert!((look.entropy - 2.5).abs() < 1e-9, "{}", look.entropy);
        assert_eq!(super::look("").entropy, 0.0);
    }

    #[test]
    fn evidence_in_words() {
        assert_eq!(
            look("xkqzvwpjhtrbn").words(),
            "13 characters, no vowels, 13 consonants in a row, hardly any character twice"
        );
        assert_eq!(
            look("3f9a7c1e5b2d8").words(),
            "13 characters, 7 digits, hardly any character twice"
        );
        assert_eq!(look("example").words(), "7 characters");
        assert_eq!(look("").words(), "0 characters");
        let unusual = unusual("wikiqzvx");
        assert!(unusual.contains(&"qzv") || unusual.contains(&"zvx"), "{unusual:?}");
        assert!(!unusual.contains(&"wik"), "{unusual:?}");
        assert!(super::unusual("ab").is_empty());
    }

    /// Names nobody would ask about, and names nobody would choose. The numbers of false
    /// alarms and misses over real lists are measured by `examples/train_dga.rs`.
    #[test]
    fn ordinary_labels_are_below_the_line_and_random_ones_above() {
        for label in [
            "example",
            "wikipedia",
            "openstreetmap",
            "debian",
            "kernel",
            "archive",
            "mozilla",
            "cloudflare",
            "letsencrypt",
            "googleusercontent",
            "akamaiedge",
            "microsoftonline",
            "bundesregierung",
            "stackoverflow",
            "xn--bcher-kva",
            "k8s",
        ] {
            assert!(value(label, Front::Bare) < 0.5, "{label} {}", value(label, Front::Bare));
        }
        for label in [
            "xkqzvwpjhtrbn",
            "q7w9zk31xv8b2n",
            "vbnmqzxkjhgf",
            "3f9a7c1e5b2d8",
            "zxqwvkjprtfgh",
            "h7g2k9q4w1z8x3v6",
            "pqzmwnxbrvtyc",
        ] {
            assert!(value(label, Front::Bare) > 0.9, "{label} {}", value(label, Front::Bare));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_label(label in "[!-~]{0,300}") {
            assert!((0.0..=1.0).contains(&value(&label, Front::Bare)));
            let look = look(&label);
            assert!(look.entropy >= 0.0 && look.consonants <= look.length);
            assert!(unusual(&label).len() <= UNUSUAL_MAX);
            assert!(look.words().len() < 200);
        }
    }
}
