//! Look-ups against a plain set, exemptions, reports, sizes.

use super::builder::covers_strangers;
use super::*;
use crate::name::Name;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Two lists and one exemption of the configuration.
fn sample() -> Blocklist {
    let mut builder = Builder::new(1_000);
    let ads = builder.list("ads", 0.3, b"ads.example.com\nexample.net\n@@||fine.example.net^");
    let bad = builder.list("malware", 0.9, b"0.0.0.0 EXAMPLE.net\nevil.example\n");
    assert!(ads.is_clean() && bad.is_clean());
    builder.allow(&name("good.evil.example"));
    builder.build()
}

#[track_caller]
fn check(text: &str, expected: Option<(&str, &str)>) {
    let (lists, name) = (sample(), name(text));
    assert_eq!(lists.lookup(&name).map(|hit| (hit.list, hit.entry)), expected, "{text}");
}

#[test]
fn names_and_what_lies_below() {
    check("ads.example.com", Some(("ads", "ads.example.com")));
    check("x.y.ads.example.com", Some(("ads", "ads.example.com")));
    check("example.com", None);
    check("bads.example.com", None);
    check("ads.example.com.example", None);
    check("com", None);
    check(".", None);
}

#[test]
fn the_graver_list_wins_and_exemptions_win_over_both() {
    check("www.example.net", Some(("malware", "example.net")));
    // The first list's own exemption does not silence the second.
    check("fine.example.net", Some(("malware", "example.net")));
    check("evil.example", Some(("malware", "evil.example")));
    check("good.evil.example", None);
    check("a.good.evil.example", None);
}

#[test]
fn a_lists_own_exemption() {
    let mut builder = Builder::new(10);
    builder.list("ads", 0.3, b"example.net\n@@||fine.example.net^\n");
    let lists = builder.build();
    assert!(lists.lookup(&name("fine.example.net")).is_none());
    assert!(lists.lookup(&name("example.net")).is_some());
}

#[test]
fn an_empty_set_finds_nothing() {
    assert!(Blocklist::default().lookup(&name("example.com")).is_none());
    assert!(Builder::new(10).build().lookup(&name("example.com")).is_none());
    assert_eq!(Blocklist::default().size_bytes(), 0);
}

#[test]
fn reports_say_what_was_refused_and_where() {
    let mut builder = Builder::new(3);
    let text = b"# head\r\ncom\r\nco.uk\r\ngithub.io\r\na.example\r\na/b c\r\n\r\nb.example\r\na.example\r\nc.example";
    let report = builder.list("x", 0.5, text);
    assert_eq!(
        report.to_string(),
        "x: 3 entries in 10 lines (domains); refused: 3 a public suffix, not a name somebody \
         registered (line 2, 3, 4), 1 more than one word (line 6), 1 more entries than \
         `entries_max` (line 10)"
    );
    let of = [Kind::Bad, Kind::Refused, Kind::OverLimit, Kind::Unsupported].map(|k| report.of(k));
    assert_eq!(of, [1, 3, 1, 0]);
    let lists = builder.build();
    assert_eq!(lists.len(), 2, "a double is held once");
    assert_eq!(counts(&lists), [("x", 0.5, 2)]);
}

fn counts(lists: &Blocklist) -> Vec<(&str, f64, usize)> {
    lists.lists().map(|list| (list.name.as_str(), list.score, list.entries)).collect()
}

#[track_caller]
fn strangers(text: &str, expected: bool) {
    assert_eq!(covers_strangers(&name(text)), expected, "{text}");
}

#[test]
fn public_suffixes_cover_strangers_and_single_machines_do_not() {
    strangers("com", true);
    strangers("co.uk", true);
    strangers("anything.ck", true);
    strangers("github.io", true);
    strangers("s3.amazonaws.com", true);
    strangers("localhost", true);
    strangers("example.com", false);
    strangers("someone.github.io", false);
    strangers("ec2-192-0-2-1.compute-1.amazonaws.com", false);
}

#[test]
fn very_long_lines_and_names_are_bad_lines() {
    let mut builder = Builder::new(10);
    let label = "a".repeat(64);
    let line = "x".repeat(LINE_BYTES_MAX + 1);
    let report = builder.list("x", 0.5, format!("{label}.example\n{line}\n").as_bytes());
    assert_eq!((report.of(Kind::Bad), report.entries), (2, 0));
}

#[test]
fn lists_beyond_the_maximum_are_refused() {
    let mut builder = Builder::new(1_000);
    for i in 0..LISTS_MAX {
        assert!(builder.list("x", 0.5, format!("a{i}.example").as_bytes()).is_clean());
    }
    assert_eq!(builder.list("y", 0.5, b"y.example").of(Kind::OverLimit), 1);
    let (lists, last) = (builder.build(), name(&format!("a{}.example", LISTS_MAX - 1)));
    assert!(lists.lookup(&last).is_some());
    assert!(lists.lookup(&name("y.example")).is_none());
}

#[test]
fn size_of_many_names() {
    let mut builder = Builder::new(usize::MAX);
    let text: String = (0..3_000).map(|i| format!("host{i}.example\n")).collect();
    assert!(builder.list("many", 0.5, text.as_bytes()).is_clean());
    let lists = builder.build();
    assert_eq!(lists.len(), 3_000);
    assert!(lists.size_bytes() < 3_000 * 8 + 263_000, "{}", lists.size_bytes());
    for i in 0..3_000 {
        assert!(lists.lookup(&name(&format!("www.host{i}.example"))).is_some());
        assert!(lists.lookup(&name(&format!("most{i}.example"))).is_none());
    }
}

#[test]
fn names_in_other_scripts_are_taken_as_the_dns_has_them() {
    let mut builder = Builder::new(10);
    let report =
        builder.list("x", 0.5, "BÜCHER.example\n0.0.0.0 почта.example\nplain.example\n".as_bytes());
    assert_eq!(report.to_string(), "x: 3 entries in 3 lines (domains), 2 from other scripts");
    let report = builder.list("y", 0.5, b"b\xfccher.example\n");
    assert_eq!((report.of(Kind::Bad), report.translated), (1, 0));
    let lists = builder.build();
    assert!(lists.lookup(&name("www.xn--bcher-kva.example")).is_some());
    assert!(lists.lookup(&name("xn--80a1acny.example")).is_some());
}

/// A configuration whose lists' texts are given: `path` is their number.
fn config(texts: &[(f64, String)], allow: &[String], entries_max: usize) -> Config {
    let list = |(i, (score, _)): (usize, &(f64, String))| ListConfig {
        name: format!("list{i}"),
        path: i.to_string().into(),
        score: *score,
        ..ListConfig::default()
    };
    let lists = texts.iter().enumerate().map(list).collect();
    Config { lists, allow: allow.to_vec(), entries_max, ..Config::default() }
}

/// Compiled with at most `names_max` names in memory, texts handed on in `portion` bytes.
fn compiled(
    config: &Config,
    texts: &[(f64, String)],
    names_max: usize,
    portion: usize,
) -> (Vec<u8>, Vec<ListReport>) {
    let mut out = Vec::new();
    let mut read = |list: &ListConfig, each: &mut dyn FnMut(&[u8])| -> std::io::Result<()> {
        let number: usize = list.path.to_str().unwrap().parse().unwrap();
        texts[number].1.as_bytes().chunks(portion).for_each(each);
        Ok(())
    };
    let reports = compile::compile_by(names_max, config, 7, &mut read, &mut out).unwrap();
    (out, reports)
}

fn opened(bytes: &[u8]) -> Result<Blocklist, FormatError> {
    Blocklist::open(std::sync::Arc::new(bytes.to_vec()))
}

fn checked(bytes: &[u8], portion: usize) -> Result<Footer, FormatError> {
    let mut check = Check::default();
    bytes.chunks(portion).for_each(|part| check.feed(part));
    check.finish()
}

fn many() -> (Config, Vec<(f64, String)>) {
    let text = |from: usize, to: usize| (from..to).map(|i| format!("host{i}.example\n")).collect();
    let texts = vec![(0.3, text(0, 3_000)), (0.9, text(2_000, 4_000))];
    (config(&texts, &["host7.example".to_owned()], 10_000), texts)
}

#[test]
fn portions_of_memory_do_not_show_in_the_result() {
    let (config, texts) = many();
    let (whole, reports) = compiled(&config, &texts, usize::MAX, usize::MAX);
    assert_eq!((reports[0].entries, reports[1].entries), (3_000, 2_000));
    for names_max in [700, 4_999, 5_001] {
        let (parts, same) = compiled(&config, &texts, names_max, 10);
        assert_eq!(same, reports);
        assert!(parts == whole, "{names_max} names at a time");
    }
    let lists = opened(&whole).unwrap();
    assert_eq!(counts(&lists), [("list0", 0.3, 3_000), ("list1", 0.9, 2_000)]);
    let list = |text: &str| lists.lookup(&name(text)).map(|hit| hit.list.to_owned());
    assert_eq!(list("a.host1.example").as_deref(), Some("list0"));
    assert_eq!(list("host2500.example").as_deref(), Some("list1"));
    assert_eq!(list("host7.example"), None);
    assert_eq!(list("host4000.example"), None);
}

#[test]
fn the_maximum_is_the_same_in_every_pass() {
    let (_, texts) = many();
    for entries_max in [0, 1, 2_999, 3_000, 3_001, 5_001] {
        let config = config(&texts, &["host7.example".to_owned()], entries_max);
        let (whole, reports) = compiled(&config, &texts, usize::MAX, usize::MAX);
        let taken: usize = reports.iter().map(|r| r.entries).sum();
        assert_eq!(taken, entries_max.saturating_sub(1).min(5_000));
        assert_eq!(reports.iter().map(|r| r.entries + r.of(Kind::OverLimit)).sum::<usize>(), 5_000);
        assert!(compiled(&config, &texts, 1_500, 1_000).0 == whole, "{entries_max}");
    }
}

#[test]
fn a_list_that_changes_meanwhile_is_an_error() {
    let (config, texts) = many();
    let mut reads = 0;
    let mut read = |_: &ListConfig, each: &mut dyn FnMut(&[u8])| -> std::io::Result<()> {
        reads += 1;
        each(texts[0].1.as_bytes());
        if reads > 2 {
            each(texts[1].1.as_bytes());
        }
        Ok(())
    };
    let error = compile::compile_by(500, &config, 0, &mut read, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("changed"), "{error}");
}

#[test]
fn what_was_made_of_what_stands_in_the_footer() {
    let (config, texts) = many();
    let (bytes, _) = compiled(&config, &texts, usize::MAX, usize::MAX);
    let footer = Footer::parse(&bytes[bytes.len() - FOOTER_BYTES..]).unwrap();
    assert_eq!((footer.source, footer.total_bytes()), (7, Some(bytes.len())));
    for portion in [1, 39, 4_096, usize::MAX] {
        assert_eq!(checked(&bytes, portion), Ok(footer));
    }
}

#[test]
fn damage_is_seen() {
    let (config, texts) = many();
    let (bytes, _) = compiled(&config, &texts, usize::MAX, usize::MAX);
    let refused = |bytes: &[u8]| {
        assert!(checked(bytes, 1_000).is_err());
        // Without the checksum: perhaps taken, and then harmless.
        let _harmless = opened(bytes).map(|l| l.lookup(&name("a.host1.example")).is_some());
    };
    for length in [0, 1, FOOTER_BYTES, bytes.len() / 2, bytes.len() - 1] {
        refused(&bytes[..length]);
        assert!(opened(&bytes[..length]).is_err());
        refused(&bytes[bytes.len() - length..]);
    }
    for at in (0..bytes.len()).step_by(997).chain(bytes.len() - 300..bytes.len()) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        refused(&bytes);
    }
    let mut newer = bytes.clone();
    newer[bytes.len() - FOOTER_BYTES + 7] += 1;
    assert_eq!(opened(&newer).unwrap_err(), FormatError::OtherVersion);
    assert_eq!(opened(b"").unwrap_err(), FormatError::NotLists);
}

/// The plainest way to do it: every entry is looked at.
fn plainly<'a>(
    texts: &[(f64, String)],
    allow: &[String],
    asked: &'a Name,
) -> Option<(usize, &'a str)> {
    let covered = |by: &str| asked.is_at_or_below(by);
    if allow.iter().any(|name| covered(name)) {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for suffix in asked.suffixes() {
        for (i, (score, text)) in texts.iter().enumerate() {
            let exempt = text.lines().filter_map(|l| l.strip_prefix("@@||")?.strip_suffix('^'));
            let listed = text.lines().any(|line| line == suffix);
            let graver = best.is_none_or(|(other, _)| texts[other].0 < *score);
            if listed && graver && !exempt.clone().any(covered) {
                best = Some((i, suffix));
            }
        }
    }
    best
}

proptest::proptest! {
    // Each case passes over 65,536 buckets some times.
    #![proptest_config(proptest::test_runner::Config::with_cases(100))]

    /// The same answer as the plainest way to do it.
    #[test]
    fn agrees_with_a_plain_set(
        listed in proptest::collection::vec("[ab]{1,2}(\\.[ab]{1,2}){1,3}", 1..40),
        asked in "[ab]{1,2}(\\.[ab]{1,2}){0,4}",
    ) {
        let mut builder = Builder::new(1_000);
        builder.list("x", 0.5, listed.join("\n").as_bytes());
        let (lists, asked) = (builder.build(), name(&asked));
        let expected = asked.suffixes().find(|s| listed.iter().any(|l| l == s));
        proptest::prop_assert_eq!(lists.lookup(&asked).map(|hit| hit.entry), expected);
    }

    #[test]
    fn any_text(text in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000)) {
        let mut builder = Builder::new(100);
        drop(builder.list("x", 0.5, &text).to_string());
        drop(builder.build());
    }

    /// Several lists, with exemptions of their own and of the configuration, in any
    /// portions.
    #[test]
    fn compiled_lists_agree_with_looking_at_every_entry(
        listed in proptest::collection::vec((0usize..3, 0u8..10, "[ab]{1,2}(\\.[ab]{1,2}){1,3}"), 1..40),
        allow in proptest::collection::vec("[ab]{1,2}(\\.[ab]{1,2}){2,3}", 0..3),
        asked in proptest::collection::vec("[ab]{1,2}(\\.[ab]{1,2}){0,4}", 20),
        names_max in 4usize..50,
        portion in 1usize..40,
    ) {
        let mut texts = vec![(0.5, String::new()), (0.8, String::new()), (0.5, String::new())];
        for (list, kind, entry) in listed {
            let line = if kind == 0 { format!("@@||{entry}^\n") } else { format!("{entry}\n") };
            texts[list].1.push_str(&line);
        }
        let config = config(&texts, &allow, 1_000);
        let lists = opened(&compiled(&config, &texts, names_max, portion).0).unwrap();
        for asked in asked {
            let asked = name(&asked);
            let got = lists.lookup(&asked).map(|hit| (hit.list.to_owned(), hit.entry));
            let wanted = plainly(&texts, &allow, &asked).map(|(i, entry)| (format!("list{i}"), entry));
            proptest::prop_assert_eq!(got, wanted, "{}", asked);
        }
    }

    /// Any bytes, and damaged ones of which the sizes may fit, are taken or refused, and
    /// then looked up in.
    #[test]
    fn any_bytes_are_harmless(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
        words in 0usize..40,
        flips in proptest::collection::vec((0usize..1_000_000, proptest::num::u8::ANY), 0..20),
    ) {
        drop(opened(&bytes));
        let text: String = (0..words).map(|i| format!("host{i}.example\n")).collect();
        let texts = [(0.5, text)];
        let mut whole = compiled(&config(&texts, &[], 100), &texts, usize::MAX, usize::MAX).0;
        for (at, value) in flips {
            let at = at % whole.len();
            whole[at] = value;
        }
        if let Ok(lists) = opened(&whole) {
            for i in 0..50 {
                let asked = name(&format!("a.host{i}.example"));
                let _harmless = lists.lookup(&asked).map(|hit| hit.list.len());
            }
        }
    }
}
