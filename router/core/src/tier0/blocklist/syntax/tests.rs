//! Lines and what they list.

use super::*;

/// `expected`: entries divided by blanks, `+entry` for an exemption, `!reason` for bad ones,
/// `entry<path` for a page's host, `entry*3` for one that three sources name.
#[track_caller]
fn check(line: &[u8], expected: &str) {
    check_after(&[], line, expected);
}

#[track_caller]
fn check_after(before: &[&[u8]], line: &[u8], expected: &str) {
    let mut state = State::default();
    for line in before {
        entries(line, &mut state, &mut |_| {});
    }
    let mut got = Vec::new();
    entries(line, &mut state, &mut |entry| {
        got.push(match entry {
            Ok(entry) => shown(&entry),
            Err(why) => format!("!{}", why.text()),
        });
    });
    assert_eq!(got.join(" "), expected, "{}", String::from_utf8_lossy(line));
}

fn shown(entry: &Entry<'_>) -> String {
    let mut text = if entry.allow { "+".to_owned() } else { String::new() };
    text += &match entry.what {
        What::Name(name) => String::from_utf8_lossy(name).into_owned(),
        What::Net(net) => net.to_string(),
    };
    if let Some(page) = entry.page {
        text += &format!("<{}", String::from_utf8_lossy(page));
    }
    if let Some(number) = entry.number {
        text += &format!("*{number}");
    }
    text
}

#[test]
fn plain_names() {
    check(b"example.com", "example.com");
    check(b"  example.com.  \r", "example.com");
    check(b"Example.COM # why", "Example.COM");
    check(b"example.com\t# why", "example.com");
    check(b"example.com ; why", "example.com");
    check(b"*.example.com", "example.com");
    check(b".example.com", "example.com");
    check(b"_x.example.com", "_x.example.com");
    check("bücher.example".as_bytes(), "bücher.example");
    check(b"\xef\xbb\xbfexample.com", "example.com");
}

#[test]
fn nothing_there() {
    check(b"", "");
    check(b" \t\r", "");
    check(b"# example.com", "");
    check(b"! Title: x", "");
    check(b"[Adblock Plus 2.0]", "");
    check(b"// example.com", "");
    check(b"; rpz", "");
    check(b"server:", "");
}

#[test]
fn hosts_lines() {
    check(b"0.0.0.0 example.com", "example.com");
    check(b"127.0.0.1\texample.com example.net # two", "example.com example.net");
    check(b":: example.com", "example.com");
    check(b"::1 localhost ip6-localhost", "");
    check(b"127.0.0.1 localhost example.com", "example.com");
    check(b"0.0.0.0 0.0.0.0", "");
    check(b"192.0.2.7 nas.example", "!an address that is no sink");
    check(b"0.0.0.0", "!an address without a name");
}

#[test]
fn filters_of_browsers() {
    check(b"||example.com^", "example.com");
    check(b"||example.com", "example.com");
    check(b"||*.example.com^", "example.com");
    check(b"||example.com^$important", "example.com");
    check(b"||example.com^|$all,important", "example.com");
    check(b"@@||example.com^", "+example.com");
    check(b"@@||example.com^$important", "+example.com");
    check(b"||192.0.2.7^", "192.0.2.7");
    check(b"||example.com^$third-party", "!a rule with conditions");
    check(b"||example.com^$badfilter", "!a rule with conditions");
    check(b"||example.com^$dnsrewrite=192.0.2.1", "!a rule with conditions");
    check(b"||example.com/path^", "!a rule with conditions");
    check(b"||ad*.example.com^", "!a pattern within a label");
    check(b"@@|https://example.com/", "!a rule with conditions");
    check(b"@@/ad[0-9]/", "!a regular expression");
    check(b"example.com##.banner", "!a rule about what a page shows");
    check(b"example.com#@#.banner", "!a rule about what a page shows");
}

#[test]
fn resolvers_configurations() {
    check(b"address=/example.com/#", "example.com");
    check(b"address=/example.com/example.net/0.0.0.0", "example.net example.com");
    check(b"server=/example.com/", "example.com");
    check(b"local=/example.com/", "example.com");
    check(b"server=/example.com/#", "+example.com");
    check(b"server=/example.com/192.0.2.53", "!leads somewhere, so it blocks nothing");
    check(b"address=/", "!no name");
    check(b"ipset=/example.com/set", "!a setting that lists nothing");
    check(b"local-zone: \"example.com.\" always_null", "example.com");
    check(b"local-zone: 'example.com' always_nxdomain", "example.com");
    check(b"local-zone: example.com refuse # why", "example.com");
    check(b"local-zone: \"example.com\" transparent", "+example.com");
    check(b"local-zone: \"example.com\" inform", "!leads somewhere, so it blocks nothing");
    check(b"local-data: \"example.com A 0.0.0.0\"", "example.com");
    check(b"local-data: \"example.com. 60 IN AAAA ::\"", "example.com");
    check(b"local-data: \"example.com A 192.0.2.7\"", "!leads somewhere, so it blocks nothing");
    check(b"forward-zone:", "!a setting that lists nothing");
    check(b"private-address: 192.0.2.0/24", "!a setting that lists nothing");
}

#[test]
fn policy_zones() {
    check(b"example.com CNAME .", "example.com");
    check(b"*.example.com cname .", "example.com");
    check(b"example.com 3600 IN CNAME *.", "example.com");
    check(b"example.com CNAME rpz-passthru.", "+example.com");
    check(b"example.com CNAME rpz-drop.", "example.com");
    check(b"example.com CNAME safe.example.net.", "!leads somewhere, so it blocks nothing");
    check(b"example.com A 0.0.0.0", "example.com");
    check(b"example.com A 192.0.2.1", "!leads somewhere, so it blocks nothing");
    check(b"24.0.2.0.192.rpz-ip CNAME .", "192.0.2.0/24");
    check(b"32.7.2.0.192.rpz-ip CNAME rpz-passthru.", "+192.0.2.7");
    check(b"128.57.zz.db8.2001.rpz-ip CNAME .", "2001:db8::57");
    check(b"32.zz.db8.2001.rpz-ip CNAME .", "2001:db8::/32");
    check(b"999.7.2.0.192.rpz-ip CNAME .", "!not a domain name");
    check(b"24.0.2.0.192.rpz-client-ip CNAME .", "!a rule about clients or name servers");
    check(b"ns.example.rpz-nsdname CNAME .", "!a rule about clients or name servers");
    check(b"$TTL 300", "");
    check(b"@ IN NS localhost.", "");
    check(b" IN NS localhost.", "");
    let origin: &[u8] = b"$ORIGIN rpz.example.net.";
    check_after(&[origin], b"example.com.rpz.example.net. CNAME .", "example.com");
    check_after(&[origin], b"example.com. CNAME .", "example.com");
    let soa: &[u8] = b"@ 3600 IN SOA localhost. root.localhost. (";
    check_after(&[soa], b"  2026112301 ; serial", "");
    check_after(&[soa, b"1", b"2 3 4 )"], b"example.com CNAME .", "example.com");
    // A parenthesis that is never closed does not swallow the list.
    let open: Vec<&[u8]> = std::iter::once(soa).chain(std::iter::repeat_n(&b"1"[..], 10)).collect();
    check_after(&open, b"example.com CNAME .", "example.com");
}

#[test]
fn addresses() {
    check(b"203.0.113.9", "203.0.113.9");
    check(b"203.0.113.9 # why", "203.0.113.9");
    check(b"203.0.113.0/24", "203.0.113.0/24");
    check(b"203.0.113.0/24 ; SBL1", "203.0.113.0/24");
    check(b"203.0.113.77/24", "203.0.113.0/24");
    check(b"203.0.113.9:8080", "203.0.113.9:8080");
    check(b"203.0.113.9\t7", "203.0.113.9*7");
    check(b"203.0.113.8-203.0.113.9", "203.0.113.8/31");
    check(b"2001:db8::1", "2001:db8::1");
    check(b"2001:DB8::/32", "2001:db8::/32");
    check(b"[2001:db8::1]:443", "[2001:db8::1]:443");
    check(b"[2001:db8::1]", "2001:db8::1");
    check(b"::ffff:203.0.113.9", "203.0.113.9");
    check(b"203.0.113.9 7 x", "!an address that is no sink");
    check(b"203.0.113.9-203.0.113.1", "!not a domain name");
    check(b"1.2.3", "!an address, not a name");
    check(b"203.0.113.0/33", "!not a domain name");
    check(b"dead.beef.example", "dead.beef.example");
    check(b"abcd", "abcd");
}

#[test]
fn pages_are_reduced_to_their_hosts() {
    check(b"https://example.com/x.exe", "example.com</x.exe");
    check(b"hxxp://example.com/x?y=1#z", "example.com</x?y=1#z");
    check(b"http://user:pw@example.com:8080/x", "example.com</x");
    check(b"https://example.com/", "example.com");
    check(b"https://example.com", "example.com");
    check(b"example.com/path # why", "example.com</path");
    check(b"example.com:8080", "example.com");
    check(b"http://203.0.113.9/bin", "203.0.113.9:80</bin");
    check(b"http://203.0.113.9:8081/bin", "203.0.113.9:8081</bin");
    check(b"https://[2001:db8::1]/bin", "[2001:db8::1]:443</bin");
    check(b"203.0.113.9/x/y", "203.0.113.9</x/y");
}

#[test]
fn bad_and_unsupported_lines() {
    check(b"/path", "!a path without a host");
    check(b"/path/to/gate.php", "!a path without a host");
    check(b"(ads|track)\\.example", "!a regular expression");
    check(b"^ads[0-9]+\\.", "!a regular expression");
    check(b"/^ad[0-9]*\\./", "!a regular expression");
    check(b"ad*.example.com", "!a pattern within a label");
    check(b"*ads.example.com", "!a pattern within a label");
    check(b"*", "!no name");
    check(b".", "!no name");
    check(b"two words", "!more than one word");
    check(b"a\0b.example", "!not a domain name");
    check(b"http://", "!not a domain name");
}

#[test]
fn a_format_takes_its_own() {
    assert!(Format::ALL.iter().all(|syntax| Format::Auto.takes(*syntax)));
    assert!(Format::Domains.takes(Format::Wildcard) && !Format::Domains.takes(Format::Hosts));
    assert!(Format::Urls.takes(Format::Addresses) && !Format::Hosts.takes(Format::Addresses));
    for format in Format::ALL {
        let word = serde_json::to_value(format).unwrap();
        assert_eq!(word, format.as_str());
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes(lines in proptest::collection::vec(
        proptest::collection::vec(proptest::num::u8::ANY, 0..100), 0..20)
    ) {
        let mut state = State::default();
        for line in &lines {
            entries(line, &mut state, &mut |entry| drop(format!("{entry:?}")));
        }
    }

    /// Made of the pieces that the syntaxes are made of.
    #[test]
    fn any_pieces(line in "(\\$ORIGIN|CNAME|IN|A|@|\\||\\^|/|:|\\[|\\]|://|[0-9.]{1,9}|[a-f:]{1,6}|rpz-ip|zz| |#|\\(|\\)|-|\\*|server=|local-zone:|\"){0,14}") {
        let mut state = State::default();
        for _ in 0..2 {
            entries(line.as_bytes(), &mut state, &mut |entry| drop(format!("{entry:?}")));
        }
    }
}
