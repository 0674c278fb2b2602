//! Names in other scripts as the DNS carries them: `bücher.example` -> `xn--bcher-kva.example`.
//!
//! In: a name as lists write it, UTF-8, composed (NFC), in any case. Out: its ASCII form.
//! Punycode is RFC 3492; beyond it only what lists need of UTS 46: lower case, and the
//! full stops of East Asian scripts as dots. A full mapping would cost the router's binary
//! hundreds of kilobytes of tables for names that real lists write in ASCII form anyway.
//!
//! Invariants: pure; what is ASCII stays as it is; output is bounded by the input's length
//! and each label by 63 octets.

use std::fmt::Write;

// RFC 3492 section 5.
const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const INITIAL_BIAS: u32 = 72;
const INITIAL_N: u32 = 128;
/// RFC 1035 section 2.3.4; also keeps the encoder's quadratic time small.
const LABEL_CHARS_MAX: usize = 63;

/// The ASCII form; `None` for what is no UTF-8, holds blanks or control characters, or has
/// a label that is too long.
pub(super) fn to_ascii(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let mut out = String::with_capacity(name.len() + 8);
    for (i, label) in name.split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).enumerate() {
        if i > 0 {
            out.push('.');
        }
        if label.is_ascii() {
            out.push_str(label);
            continue;
        }
        let label: Vec<char> = label.chars().flat_map(char::to_lowercase).collect();
        let strange = |c: &char| c.is_control() || c.is_whitespace();
        if label.len() > LABEL_CHARS_MAX || label.iter().any(strange) {
            return None;
        }
        out.push_str("xn--");
        encode(&label, &mut out)?;
    }
    Some(out)
}

/// RFC 3492 section 6.3.
fn encode(label: &[char], out: &mut String) -> Option<()> {
    let basic = || label.iter().filter(|c| c.is_ascii());
    out.extend(basic());
    let mut handled = u32::try_from(basic().count()).ok()?;
    if handled > 0 {
        out.push('-');
    }
    let all = u32::try_from(label.len()).ok()?;
    let (mut n, mut delta, mut bias, first) = (INITIAL_N, 0u32, INITIAL_BIAS, handled);
    while handled < all {
        let next = label.iter().map(|c| u32::from(*c)).filter(|c| *c >= n).min()?;
        delta = delta.checked_add((next - n).checked_mul(handled + 1)?)?;
        n = next;
        for c in label.iter().map(|c| u32::from(*c)) {
            if c < n {
                delta = delta.checked_add(1)?;
            } else if c == n {
                variable_length(delta, bias, out);
                bias = adapt(delta, handled + 1, handled == first);
                (delta, handled) = (0, handled + 1);
            }
        }
        (delta, n) = (delta.checked_add(1)?, n.checked_add(1)?);
    }
    Some(())
}

fn variable_length(mut q: u32, bias: u32, out: &mut String) {
    let mut k = BASE;
    loop {
        let t = k.saturating_sub(bias).clamp(T_MIN, T_MAX);
        if q < t {
            return digit(q, out);
        }
        digit(t + (q - t) % (BASE - t), out);
        q = (q - t) / (BASE - t);
        k += BASE;
    }
}

/// 0 to 25 are `a` to `z`, 26 to 35 are `0` to `9`.
fn digit(value: u32, out: &mut String) {
    match u8::try_from(value) {
        Ok(letter @ 0..26) => out.push(char::from(b'a' + letter)),
        _ => drop(write!(out, "{}", value.saturating_sub(26))),
    }
}

/// RFC 3492 section 6.1.
fn adapt(delta: u32, points: u32, first: bool) -> u32 {
    let mut delta = if first { delta / DAMP } else { delta / 2 };
    delta += delta / points;
    let mut k = 0;
    while delta > (BASE - T_MIN) * T_MAX / 2 {
        delta /= BASE - T_MIN;
        k += BASE;
    }
    k + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<&str>) {
        assert_eq!(to_ascii(name.as_bytes()).as_deref(), expected, "{name}");
    }

    /// The label samples are those of RFC 3492 section 7.1.
    #[test]
    fn known_forms() {
        check("example.com", Some("example.com"));
        check("bücher.example", Some("xn--bcher-kva.example"));
        check("BÜCHER.example", Some("xn--bcher-kva.example"));
        check("www.почта.example", Some("www.xn--80a1acny.example"));
        check("他们为什么不说中文", Some("xn--ihqwcrb4cv8a8dqg056pqjye"));
        check("למההםפשוטלאמדבריםעברית", Some("xn--4dbcagdahymbxekheh6e0a7fei0b"));
        check(
            "なぜみんな日本語を話してくれないのか",
            Some("xn--n8jok5ay5dzabd5bym9f0cm5685rrjetr6pdxa"),
        );
        check("3年b組金八先生", Some("xn--3b-ww4c5e180e575a65lsy2b"));
        check("日本。example", Some("xn--wgv71a.example"));
        check("☃.example", Some("xn--n3h.example"));
    }

    #[test]
    fn what_cannot_be() {
        check("a\u{a0}b.example", None);
        check("a\u{85}b.example", None);
        check(&format!("{}.example", "ü".repeat(64)), None);
        assert_eq!(to_ascii(b"b\xfccher.example"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_bounded_ascii(name in ".{0,300}") {
            if let Some(ascii) = to_ascii(name.as_bytes()) {
                proptest::prop_assert!(ascii.is_ascii());
                proptest::prop_assert!(ascii.len() <= 8 * name.len() + 8);
            }
        }

        #[test]
        fn any_bytes(name in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            drop(to_ascii(&name));
        }
    }
}
