//! A download becomes the text of a list, and what has left a feed stays for a while.
//!
//! In: a download, the text kept so far, the time. Out: the text to keep. Feeds that only
//! tell what is new (the last two days) would forget what they told a week ago: with
//! `keep_days` each entry of theirs carries the day on which it ends, and what the feed no
//! longer has is carried over until then. Pure. Memory: 8 bytes for each entry of such a
//! feed, beside the texts.

use std::collections::HashSet;

use agentmon_core::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use super::Source;
use super::facts::Facts;

const DAY_S: i64 = 86_400;

/// What is kept of a download.
#[derive(Debug)]
pub(super) struct Derived {
    /// The list.
    pub(super) text: Vec<u8>,
    /// What of the download says nothing about names and addresses; empty: nothing.
    pub(super) left_out: String,
}

/// The list of a download; `kept` is asked for the text kept so far only where it matters.
///
/// # Errors
/// What the download is instead.
pub(super) fn list(
    source: &Source,
    download: &[u8],
    kept: impl FnOnce() -> Vec<u8>,
    now: Timestamp,
) -> Result<Derived, String> {
    let out = match source.form.list(download) {
        None => return Ok(Derived { text: download.to_owned(), left_out: String::new() }),
        Some(out) => out.map_err(|what| format!("it {what}"))?,
    };
    let left_out = out.left_out();
    let ends = (source.keep_days > 0)
        .then(|| Timestamp::from_secs(now.secs() + i64::from(source.keep_days) * DAY_S));
    let mut text = Vec::with_capacity(out.text.len());
    let mut seen = HashSet::new();
    for line in lines(out.text.as_bytes()) {
        let (entry, mut facts) = read(line);
        if facts.expires.is_some_and(|at| at <= now) {
            continue;
        }
        if ends.is_some() {
            seen.insert(xxh3_64(entry));
            facts.expires = facts.expires.or(ends);
            write(entry, &facts, &mut text);
        } else {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
    }
    if ends.is_some() {
        for line in lines(&kept()) {
            let (entry, facts) = read(line);
            let lasts = facts.expires.is_some_and(|at| at > now);
            if lasts && !seen.contains(&xxh3_64(entry)) {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
        }
    }
    Ok(Derived { text, left_out })
}

/// The text without what has expired; `None`: nothing has.
pub(super) fn without_expired(text: &[u8], now: Timestamp) -> Option<Vec<u8>> {
    let over = |line: &[u8]| read(line).1.expires.is_some_and(|at| at <= now);
    if !lines(text).any(over) {
        return None;
    }
    let mut rest = Vec::with_capacity(text.len());
    for line in lines(text).filter(|line| !over(line)) {
        rest.extend_from_slice(line);
        rest.push(b'\n');
    }
    Some(rest)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

/// An entry, and what is known of it.
fn read(line: &[u8]) -> (&[u8], Facts) {
    let at = line.windows(3).position(|three| three == b" # ");
    match at.and_then(|at| line.split_at_checked(at)) {
        Some((entry, comment)) => (entry, Facts::read(comment.get(3..).unwrap_or_default())),
        None => (line, Facts::default()),
    }
}

fn write(entry: &[u8], facts: &Facts, text: &mut Vec<u8>) {
    text.extend_from_slice(entry);
    text.extend_from_slice(b" # ");
    text.extend_from_slice(facts.comment().as_bytes());
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::Form;
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_446_000);

    fn days(n: i64) -> Timestamp {
        Timestamp::from_secs(NOW.secs() + n * DAY_S)
    }

    fn pages(keep_days: u32) -> Source {
        Source { name: "p".into(), form: Form::Pages, keep_days, ..Source::default() }
    }

    fn of(source: &Source, download: &str, kept: &[u8], now: Timestamp) -> String {
        let derived = list(source, download.as_bytes(), || kept.to_owned(), now).unwrap();
        String::from_utf8(derived.text).unwrap()
    }

    fn entries(text: &str) -> Vec<&str> {
        text.lines().map(|line| line.split(" # ").next().unwrap_or_default()).collect()
    }

    #[test]
    fn what_left_a_feed_stays_for_its_days() {
        let source = pages(7);
        let first = of(&source, "http://a.example/x\nhttp://b.example/y\n", b"", NOW);
        let second = of(&source, "http://b.example/y\n", first.as_bytes(), days(3));
        assert_eq!(entries(&second), ["http://b.example/y", "http://a.example/x"]);
        let third = of(&source, "http://b.example/y\n", second.as_bytes(), days(8));
        assert_eq!(entries(&third), ["http://b.example/y"], "seven days after it was last there");
        let fourth = of(&source, "http://c.example/\n", third.as_bytes(), days(14));
        assert_eq!(entries(&fourth), ["http://c.example/", "http://b.example/y"]);
    }

    #[test]
    fn without_days_it_goes_at_once() {
        let first = of(&pages(0), "http://a.example/x\n", b"", NOW);
        assert!(
            entries(&of(&pages(0), "http://b.example/\n", first.as_bytes(), NOW))
                == ["http://b.example/"]
        );
    }

    #[test]
    fn what_has_expired_goes() {
        let facts = |at| Facts { expires: Some(at), ..Facts::default() }.comment();
        let text =
            format!("a.example # {}\nb.example # {}\nc.example\n", facts(days(1)), facts(days(2)));
        assert_eq!(without_expired(text.as_bytes(), NOW), None);
        let rest = String::from_utf8(without_expired(text.as_bytes(), days(1)).unwrap()).unwrap();
        assert_eq!(entries(&rest), ["b.example", "c.example"]);
    }
}
