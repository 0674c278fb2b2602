//! Values as people write them in UCI: switches, durations, sizes.
//!
//! In: the text of an option. Out: the number it means, or what would have been right. Pure.

/// Why a text is no such value: `'5x' is not a duration; use e.g. 15s`.
fn no(text: &str, what: &str, example: &str) -> String {
    let text = agentmon_core::name::printable(text.as_bytes(), 60);
    format!("'{text}' is not {what}; use e.g. {example}")
}

/// The words that UCI takes for on and off.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "true" | "yes" | "enabled" => Ok(true),
        "0" | "off" | "false" | "no" | "disabled" => Ok(false),
        _ => Err(no(text, "a switch", "1 or 0")),
    }
}

/// `15s`, `5m`, `24h`, `7d`, or plain seconds; whole seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    scaled(text, &units).ok_or_else(|| no(text, "a duration", "15s"))
}

/// `512K`, `32M`, `1G`, or plain bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("k", 1 << 10),
        ("kb", 1 << 10),
        ("kib", 1 << 10),
        ("m", 1 << 20),
        ("mb", 1 << 20),
        ("mib", 1 << 20),
        ("g", 1 << 30),
        ("gb", 1 << 30),
        ("gib", 1 << 30),
    ];
    scaled(text, &units).ok_or_else(|| no(text, "a size", "32M"))
}

/// A whole number.
pub(super) fn count(text: &str) -> Result<u64, String> {
    scaled(text, &[]).ok_or_else(|| no(text, "a whole number", "100"))
}

/// A number with a fraction.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = text.parse().ok().filter(|n: &f64| plain && n.is_finite());
    number.ok_or_else(|| no(text, "a number", "0.5"))
}

/// Digits, and at most one unit behind them.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit = unit.trim_start();
    let factor = match units.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => return None,
    };
    // TOML has signed numbers.
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|n| i64::try_from(*n).is_ok())
}

/// The known word that a mistyped one most likely means.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<u8> = word.bytes().take(64).map(|b| b.to_ascii_lowercase()).collect();
    let far = (word.len() / 2).max(2);
    known.map(|k| (distance(&word, k.as_bytes()), k)).filter(|(d, _)| *d <= far).min().map(|f| f.1)
}

/// Insertions, deletions, replacements and swaps of neighbours from one to the other.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let above = |up: usize, left: usize| {
                let line = (i + 1).checked_sub(up).and_then(|k| rows.get(k));
                let at = (j + 1).checked_sub(left);
                line.and_then(|line| line.get(at?)).copied().unwrap_or(usize::MAX / 2)
            };
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            let best = (above(1, 1) + usize::from(x != y))
                .min(above(1, 0) + 1)
                .min(row.last().copied().unwrap_or(0) + 1)
                .min(if swapped { above(2, 2) + 1 } else { usize::MAX });
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: PartialEq + std::fmt::Debug>(got: Result<T, String>, expected: Result<T, &str>) {
        assert_eq!(got, expected.map_err(str::to_owned));
    }

    #[test]
    fn switches() {
        check(flag("1"), Ok(true));
        check(flag("Yes"), Ok(true));
        check(flag("disabled"), Ok(false));
        check(flag("2"), Err("'2' is not a switch; use e.g. 1 or 0"));
        check(flag(""), Err("'' is not a switch; use e.g. 1 or 0"));
    }

    #[test]
    fn durations() {
        check(seconds("15"), Ok(15));
        check(seconds("15s"), Ok(15));
        check(seconds("5 m"), Ok(300));
        check(seconds("24H"), Ok(86_400));
        check(seconds("7d"), Ok(604_800));
        check(seconds("0"), Ok(0));
        check(seconds("5x"), Err("'5x' is not a duration; use e.g. 15s"));
        check(seconds("s"), Err("'s' is not a duration; use e.g. 15s"));
        check(seconds("-1"), Err("'-1' is not a duration; use e.g. 15s"));
        check(seconds("1.5h"), Err("'1.5h' is not a duration; use e.g. 15s"));
        check(
            seconds("99999999999999999d"),
            Err("'99999999999999999d' is not a duration; use e.g. 15s"),
        );
    }

    #[test]
    fn sizes_and_numbers() {
        check(bytes("4096"), Ok(4096));
        check(bytes("512K"), Ok(512 << 10));
        check(bytes("16M"), Ok(16 << 20));
        check(bytes("1 GiB"), Ok(1 << 30));
        check(bytes("1T"), Err("'1T' is not a size; use e.g. 32M"));
        check(count("12"), Ok(12));
        check(count("12s"), Err("'12s' is not a whole number; use e.g. 100"));
        check(fraction("0.5"), Ok(0.5));
        check(fraction("1"), Ok(1.0));
        check(fraction("inf"), Err("'inf' is not a number; use e.g. 0.5"));
        check(fraction("-1"), Err("'-1' is not a number; use e.g. 0.5"));
        check(fraction("1.2.3"), Err("'1.2.3' is not a number; use e.g. 0.5"));
    }

    #[track_caller]
    fn near(word: &str, expected: Option<&str>) {
        assert_eq!(nearest(word, ["enabled", "path", "dump_interval"].into_iter()), expected);
    }

    #[test]
    fn the_nearest_word() {
        near("enable", Some("enabled"));
        near("dump_intreval", Some("dump_interval"));
        near("dump-interval", Some("dump_interval"));
        near("paht", Some("path"));
        near("colour", None);
        near("", None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_never_panics(text in "\\PC{0,40}") {
            drop((flag(&text), seconds(&text), bytes(&text), count(&text), fraction(&text)));
            proptest::prop_assert!(nearest(&text, ["enabled"].into_iter()).is_none_or(|w| w == "enabled"));
        }

        #[test]
        fn the_distance_is_symmetric(a in "[a-c]{0,6}", b in "[a-c]{0,6}") {
            let (x, y) = (distance(a.as_bytes(), b.as_bytes()), distance(b.as_bytes(), a.as_bytes()));
            proptest::prop_assert_eq!(x, y);
            proptest::prop_assert!(x <= a.len().max(b.len()));
            proptest::prop_assert_eq!(x == 0, a == b);
        }
    }
}
