//! Look-ups against a plain set, exemptions, reports, sizes.

use super::*;

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
    assert_eq!(Blocklist::default().memory_bytes(), 0);
}

#[test]
fn reports_say_what_was_refused_and_where() {
    let mut builder = Builder::new(3);
    let text = b"# head\r\ncom\r\nco.uk\r\ngithub.io\r\na.example\r\na/b\r\n\r\nb.example\r\na.example\r\nc.example";
    let report = builder.list("x", 0.5, text);
    assert_eq!(
        report.to_string(),
        "x: 3 names in 10 lines; refused: 1 bad, 3 public suffixes, 1 beyond the maximum \
         (line 2: a public suffix, not a name somebody registered, \
         line 3: a public suffix, not a name somebody registered, \
         line 4: a public suffix, not a name somebody registered, \
         line 6: not a domain name, line 10: more names than `entries_max`)"
    );
    let lists = builder.build();
    assert_eq!(lists.len(), 2, "a double is held once");
    assert_eq!(lists.lists().collect::<Vec<_>>(), [("x", 0.5, 2)]);
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
    assert_eq!((report.bad, report.entries), (2, 0));
}

#[test]
fn lists_beyond_the_maximum_are_refused() {
    let mut builder = Builder::new(1_000);
    for i in 0..LISTS_MAX {
        assert!(builder.list("x", 0.5, format!("a{i}.example").as_bytes()).is_clean());
    }
    assert_eq!(builder.list("y", 0.5, b"y.example").over_limit, 1);
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
    assert!(lists.memory_bytes() < 3_000 * 8 + 270_000, "{}", lists.memory_bytes());
    for i in 0..3_000 {
        assert!(lists.lookup(&name(&format!("www.host{i}.example"))).is_some());
        assert!(lists.lookup(&name(&format!("most{i}.example"))).is_none());
    }
}

proptest::proptest! {
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
}
