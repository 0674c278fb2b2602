//! Made-up generators: what malware not seen yet may come up with.
//!
//! Thousands of families, each with parameters drawn at random (alphabet, lengths,
//! syllables, words, fixed parts), of the shapes that descriptions of malware name. So the
//! model learns the shapes and not the few families whose output is at hand. Words and
//! letter chains come from the popular names themselves.

use agentmon_core::tier0::dga::Front;

use crate::names::Named;

const FAMILIES: u64 = 2_000;
const NAMES: usize = 40;
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const DIGITS: &[u8] = b"0123456789";
const HEX: &[u8] = b"0123456789abcdef";
const VOWELS: &[u8] = b"aeiou";
const CONSONANTS: &[u8] = b"bcdfghjklmnpqrstvwxz";

/// A made-up name and how much it counts.
pub(crate) struct Made {
    pub(crate) name: Named,
    pub(crate) weight: f32,
}

/// SplitMix64 (Steele et al. 2014): the same numbers every time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }
    fn range(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to + 1 - from)
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
    fn letter(&mut self, from: &[u8]) -> char {
        char::from(*self.pick(from))
    }
    fn letters(&mut self, from: &[u8], count: usize) -> String {
        (0..count).map(|_| self.letter(from)).collect()
    }
    fn some(&mut self, of: &[u8], count: usize) -> Vec<u8> {
        let mut all = of.to_vec();
        for i in (1..all.len()).rev() {
            all.swap(i, self.below(i + 1));
        }
        all.truncate(count);
        all
    }
}

/// Draws a family's parameters and makes its names.
type Shape = fn(&mut Random, &Stock) -> Vec<String>;

/// The shapes, with how often each is drawn (of 32) and how much its names count: those
/// that look like chosen names count less, or the model would alarm on chosen ones.
const SHAPES: [(usize, f32, Shape); 12] = [
    (10, 1.0, uniform),
    (2, 1.0, biased),
    (2, 1.0, by_place),
    (3, 0.7, alternating),
    (3, 0.7, syllables),
    (2, 0.7, fixed_part),
    (1, 1.0, tagged),
    (2, 1.0, letter_and_digits),
    (3, 0.5, chained),
    (2, 0.15, words),
    (1, 0.5, word_and_tail),
    (1, 1.0, every_second_letter),
];

/// What the shapes are made of.
struct Stock {
    words: Vec<String>,
    /// Letters that follow one, and two, letters in popular labels; 26 is the beginning.
    after_one: Vec<Vec<u8>>,
    after_two: Vec<Vec<u8>>,
}

/// All families, the same every time.
pub(crate) fn families(benign: &[Named]) -> Vec<Made> {
    let stock = Stock::of(benign);
    let mut made = Vec::new();
    for number in 1..=FAMILIES {
        let mut random = Random(number.wrapping_mul(0x0123_4567));
        let mut draw = random.below(32);
        let shape = SHAPES.iter().find(|shape| {
            let here = draw < shape.0;
            draw = draw.wrapping_sub(shape.0);
            here
        });
        let Some((_, weight, make)) = shape else { continue };
        let labels = make(&mut random, &stock).into_iter().filter(|l| l.len() >= 5);
        for label in labels {
            let front = front(&mut random);
            made.push(Made { name: Named { label, front }, weight: *weight });
        }
    }
    made
}

/// Nearly all malware asks for the bare domain. Nearly.
fn front(random: &mut Random) -> Front {
    match random.below(100) {
        0..=1 => Front::Www,
        2 => Front::One,
        _ => Front::Bare,
    }
}

impl Stock {
    fn of(benign: &[Named]) -> Self {
        let plain = |l: &str| l.bytes().all(|b| b.is_ascii_lowercase());
        let vowels = |l: &str| l.bytes().filter(|b| b"aeiouy".contains(b)).count();
        let labels = || benign.iter().map(|n| n.label.as_str()).filter(|l| plain(l));
        let wordy = |l: &&str| (5..=8).contains(&l.len()) && vowels(l) * 3 >= l.len();
        let mut words: Vec<String> = labels().filter(wordy).map(str::to_owned).collect();
        words.sort();
        words.dedup();
        let (mut after_one, mut after_two) = (vec![Vec::new(); 27], vec![Vec::new(); 27 * 27]);
        for label in labels().filter(|l| l.len() >= 6) {
            let (mut older, mut last) = (26, 26);
            for letter in label.bytes() {
                after_one[last].push(letter);
                after_two[older * 27 + last].push(letter);
                (older, last) = (last, usize::from(letter - b'a'));
            }
        }
        Self { words, after_one, after_two }
    }
}

/// Shortest and longest label of a family.
fn lengths(random: &mut Random) -> (usize, usize) {
    let least = match random.below(10) {
        0..=1 => random.range(5, 7),
        2..=5 => random.range(7, 12),
        6..=7 => random.range(10, 16),
        8 => random.range(14, 22),
        _ => random.range(18, 36),
    };
    let more = if random.chance(50) { 0 } else { random.range(1, 8) };
    (least, least + more)
}

fn alphabet(random: &mut Random) -> Vec<u8> {
    match random.below(10) {
        0..=3 => LETTERS.to_vec(),
        4 => LETTERS[..25].to_vec(),
        5 => LETTERS[..random.range(14, 25)].to_vec(),
        6 => {
            let count = random.range(6, 24);
            random.some(LETTERS, count)
        }
        7 => [LETTERS, DIGITS].concat(),
        8 => [random.some(LETTERS, 20), random.some(DIGITS, 5)].concat(),
        _ => HEX.to_vec(),
    }
}

fn many(mut one: impl FnMut() -> String) -> Vec<String> {
    (0..NAMES).map(|_| one()).collect()
}

fn uniform(random: &mut Random, _: &Stock) -> Vec<String> {
    let (least, most) = lengths(random);
    let letters = alphabet(random);
    let least = if letters == HEX { least.max(8) } else { least };
    many(|| {
        let length = random.range(least, most.max(least));
        random.letters(&letters, length)
    })
}

/// Some letters more often than others.
fn biased(random: &mut Random, _: &Stock) -> Vec<String> {
    let (least, most) = lengths(random);
    let mut bag = Vec::new();
    for letter in alphabet(random) {
        let count = random.range(1, 6);
        bag.extend(std::iter::repeat_n(letter, count));
    }
    many(|| {
        let length = random.range(least, most);
        random.letters(&bag, length)
    })
}

/// A few letters for each place.
fn by_place(random: &mut Random, _: &Stock) -> Vec<String> {
    let length = lengths(random).0.clamp(6, 16);
    let mut places = Vec::new();
    for _ in 0..length {
        let count = random.range(2, 9);
        places.push(random.some(LETTERS, count));
    }
    many(|| places.iter().map(|letters| random.letter(letters)).collect())
}

/// Consonant, vowel, consonant, vowel, with slips.
fn alternating(random: &mut Random, _: &Stock) -> Vec<String> {
    let (least, most) = lengths(random);
    let (least, most) = (least.clamp(6, 16), most.clamp(6, 18));
    let count = random.range(8, 20);
    let consonants = random.some(CONSONANTS, count);
    let count = random.range(3, 5);
    let mut vowels = random.some(VOWELS, count);
    if random.chance(40) {
        vowels.push(b'y');
    }
    let begins = random.chance(50);
    let slips = if random.chance(50) { 0 } else { random.range(5, 30) };
    many(|| {
        let length = random.range(least, most.max(least));
        let mut vowel = begins ^ random.chance(30);
        let mut label = String::new();
        while label.len() < length {
            label.push(random.letter(if vowel { &vowels } else { &consonants }));
            vowel ^= !random.chance(slips);
        }
        label
    })
}

/// Syllables from a table.
fn syllables(random: &mut Random, _: &Stock) -> Vec<String> {
    let shape = random.below(4);
    let mut table = Vec::new();
    for _ in 0..random.range(5, 80) {
        let (c, v, d) =
            (random.letter(CONSONANTS), random.letter(VOWELS), random.letter(CONSONANTS));
        table.push(match shape {
            0 => format!("{c}{v}"),
            1 => format!("{c}{v}{d}"),
            2 => random.letters(LETTERS, 2),
            _ if random.chance(50) => format!("{v}{c}"),
            _ => format!("{c}{v}"),
        });
    }
    let least = if shape == 1 { random.range(2, 4) } else { random.range(3, 6) };
    let most = least + random.below(2);
    many(|| {
        let count = random.range(least, most);
        (0..count).map(|_| random.pick(&table).as_str()).collect()
    })
}

/// One long label of which a few letters change.
fn fixed_part(random: &mut Random, stock: &Stock) -> Vec<String> {
    let base: String = match random.below(3) {
        0 => {
            let length = random.range(7, 14);
            random.letters(LETTERS, length)
        }
        words => (0..=words).map(|_| random.pick(&stock.words).as_str()).collect(),
    };
    let (count, front) = (random.range(3, 6), random.chance(65));
    many(|| {
        let changing = random.letters(LETTERS, count);
        if front { changing + &base } else { base.clone() + &changing }
    })
}

/// Random letters behind or before a few fixed ones.
fn tagged(random: &mut Random, _: &Stock) -> Vec<String> {
    let (least, most) = lengths(random);
    let (least, most) = (least.min(14), most.min(16));
    let count = random.range(1, 3);
    let tag = random.letters(LETTERS, count);
    let front = random.chance(50);
    many(|| {
        let length = random.range(least, most.max(least));
        let letters = random.letters(LETTERS, length);
        if front { tag.clone() + &letters } else { letters + &tag }
    })
}

/// Letters, many of them with digits behind.
fn letter_and_digits(random: &mut Random, _: &Stock) -> Vec<String> {
    let (least, most) = lengths(random);
    let digits = random.range(1, 3);
    many(|| {
        let length = random.range(least.max(8), most.max(8));
        let mut label = String::new();
        while label.len() < length {
            label.push(random.letter(LETTERS));
            if random.chance(60) {
                label.push_str(&random.letters(DIGITS, digits));
            }
        }
        label
    })
}

/// Letters that follow each other in popular names: can be spoken.
fn chained(random: &mut Random, stock: &Stock) -> Vec<String> {
    let (least, most) = lengths(random);
    let (least, most) = (least.clamp(7, 16), most.clamp(8, 18));
    let two = random.chance(50);
    many(|| {
        let length = random.range(least, most.max(least));
        let (mut older, mut last, mut label) = (26, 26, String::new());
        while label.len() < length {
            let next =
                if two { &stock.after_two[older * 27 + last] } else { &stock.after_one[last] };
            let letter = *random.pick(if next.is_empty() { LETTERS } else { next });
            label.push(char::from(letter));
            (older, last) = (last, usize::from(letter - b'a'));
        }
        label
    })
}

fn words(random: &mut Random, stock: &Stock) -> Vec<String> {
    let count = random.range(2, 4);
    let list: Vec<&String> = (0..60).map(|_| random.pick(&stock.words)).collect();
    many(|| (0..count).map(|_| random.pick(&list).as_str()).collect())
}

fn word_and_tail(random: &mut Random, stock: &Stock) -> Vec<String> {
    let list: Vec<&String> = (0..30).map(|_| random.pick(&stock.words)).collect();
    let (count, letters) = (random.range(3, 7), if random.chance(50) { DIGITS } else { LETTERS });
    many(|| random.pick(&list).to_string() + &random.letters(letters, count))
}

fn every_second_letter(random: &mut Random, _: &Stock) -> Vec<String> {
    let length = lengths(random).0.max(8);
    let first = random.below(2);
    let letters: Vec<u8> = LETTERS.iter().copied().skip(first).step_by(2).collect();
    many(|| random.letters(&letters, length))
}
