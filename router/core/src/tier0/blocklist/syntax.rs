//! One line of a list -> the names it lists.
//!
//! Shapes understood: a bare domain; a hosts line (`0.0.0.0 a b`, `127.0.0.1 a`, `::1 a`);
//! `*.d`, `.d`; `||d^` and `@@||d^` (adblock: block, allow); `address=/d/#`, `server=/d/`,
//! `local=/d/` (dnsmasq); `local-zone: "d." always_null` (unbound); `d CNAME .` (RPZ).
//! Comments begin with `#`, `!`, `;` or `[`, or with `#` behind the entry. Any line end.
//!
//! In: a line's bytes, hostile. Out: entries, or what is wrong with the line. No
//! allocation. One bad line never loses the list.

use std::net::IpAddr;

/// What a line holds; a hosts line may hold several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// A name on the list.
    Block(&'a [u8]),
    /// A name the list itself exempts.
    Allow(&'a [u8]),
    /// Not understood, and why.
    Bad(&'static str),
}

/// Names every hosts file begins with: the machine itself and IPv6 groups.
const HOSTS_OWN: &[&[u8]] = &[
    b"localhost",
    b"localhost.localdomain",
    b"localhost4",
    b"localhost6",
    b"local",
    b"broadcasthost",
    b"ip6-localhost",
    b"ip6-loopback",
    b"ip6-localnet",
    b"ip6-mcastprefix",
    b"ip6-allnodes",
    b"ip6-allrouters",
    b"ip6-allhosts",
    b"0.0.0.0",
];

/// Calls `each` for every entry of the line; not at all for comments and blank lines.
pub(super) fn entries<'a>(line: &'a [u8], mut each: impl FnMut(Entry<'a>)) {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    match line.first() {
        None | Some(b'#' | b'!' | b';' | b'[') => return,
        Some(_) => {}
    }
    let line = without_comment(line);
    let allow = line.strip_prefix(b"@@");
    if let Some(rule) = allow.unwrap_or(line).strip_prefix(b"||") {
        each(adblock(rule, if allow.is_some() { Entry::Allow } else { Entry::Block }));
    } else if let Some(zone) = line.strip_prefix(b"local-zone:") {
        each(unbound(zone));
    } else if let Some(rest) = dnsmasq_option(line) {
        dnsmasq(rest, each);
    } else if line != b"server:" && !line.starts_with(b"local-data:") {
        words(line, each);
    }
}

/// Cuts at a `#` behind a blank. (`address=/d/#` is no comment.)
fn without_comment(line: &[u8]) -> &[u8] {
    let starts = |pair: &[u8]| matches!(pair, [b' ' | b'\t', b'#']);
    let end = line.windows(2).position(starts).unwrap_or(line.len());
    line.get(..end).unwrap_or(line).trim_ascii_end()
}

/// `d^`, with nothing that makes the rule depend on the page it is met on.
fn adblock<'a>(rule: &'a [u8], kind: fn(&'a [u8]) -> Entry<'a>) -> Entry<'a> {
    let end = rule.iter().position(|b| *b == b'^').unwrap_or(rule.len());
    let (name, options) = rule.split_at_checked(end).unwrap_or((rule, b""));
    match options {
        b"" | b"^" | b"^$important" | b"^$all" | b"^|" => named(name, kind),
        _ => Entry::Bad("a rule with conditions"),
    }
}

/// ` "d." kind`
fn unbound(zone: &[u8]) -> Entry<'_> {
    let mut parts = zone.trim_ascii().splitn(3, |b| *b == b'"');
    match (parts.next(), parts.next(), parts.next().map(<[u8]>::trim_ascii)) {
        (Some(b""), Some(name), Some(kind)) => match kind {
            b"transparent" | b"typetransparent" | b"always_transparent" => {
                named(name, Entry::Allow)
            }
            _ => named(name, Entry::Block),
        },
        _ => Entry::Bad("a local-zone without a quoted name"),
    }
}

fn dnsmasq_option(line: &[u8]) -> Option<&[u8]> {
    [&b"address=/"[..], b"server=/", b"local=/"].iter().find_map(|start| line.strip_prefix(*start))
}

/// `d/`, `d/#`, `a/b/0.0.0.0`: names, then where they lead.
fn dnsmasq<'a>(rest: &'a [u8], mut each: impl FnMut(Entry<'a>)) {
    let mut parts = rest.rsplit(|b| *b == b'/');
    let target = parts.next().unwrap_or_default();
    if !(target.is_empty() || target == b"#" || is_sink(target) == Some(true)) {
        return each(Entry::Bad("leads somewhere, so it blocks nothing"));
    }
    all_of(parts, "no name", each);
}

/// A bare domain, a hosts line or an RPZ record.
fn words<'a>(line: &'a [u8], mut each: impl FnMut(Entry<'a>)) {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    let first = words.next().unwrap_or_default();
    match is_sink(first) {
        Some(true) => all_of(words, "an address without a name", each),
        Some(false) => each(Entry::Bad("an address that is no sink")),
        None => match (words.next(), words.next(), words.next()) {
            (None, ..) => each(named(first, Entry::Block)),
            (Some(kind), Some(b"."), None) if kind.eq_ignore_ascii_case(b"CNAME") => {
                each(named(first, Entry::Block));
            }
            _ => each(Entry::Bad("more than one word")),
        },
    }
}

/// Every name of a line that may hold several, but for the machine's own.
fn all_of<'a>(
    names: impl Iterator<Item = &'a [u8]>,
    none: &'static str,
    mut each: impl FnMut(Entry<'a>),
) {
    let mut any = false;
    for name in names {
        any = true;
        if !HOSTS_OWN.contains(&name) {
            each(named(name, Entry::Block));
        }
    }
    if !any {
        each(Entry::Bad(none));
    }
}

/// `None`: no address. `Some(true)`: one that leads nowhere or back to the machine itself.
fn is_sink(word: &[u8]) -> Option<bool> {
    let ip: IpAddr = std::str::from_utf8(word).ok()?.parse().ok()?;
    Some(ip.is_unspecified() || ip.is_loopback())
}

/// `d`, `.d`, `*.d` and `d.` as `d`, checked for what cannot stand in a domain.
fn named<'a>(name: &'a [u8], kind: fn(&'a [u8]) -> Entry<'a>) -> Entry<'a> {
    let name = name.strip_prefix(b"*").unwrap_or(name);
    let name = name.strip_prefix(b".").unwrap_or(name);
    let name = name.strip_suffix(b".").unwrap_or(name);
    // Bytes above ASCII: a name in another script, translated by whoever takes the entry.
    let fine = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | 0x80..);
    let top = name.rsplit(|b| *b == b'.').next().unwrap_or_default();
    if name.is_empty() {
        Entry::Bad("no name")
    } else if !name.iter().all(fine) {
        Entry::Bad("not a domain name")
    } else if top.iter().all(u8::is_ascii_digit) {
        Entry::Bad("an address, not a name")
    } else {
        kind(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected`: names divided by blanks, `+name` for an exemption, `!reason` for bad.
    #[track_caller]
    fn check(line: &[u8], expected: &str) {
        let mut got = Vec::new();
        entries(line, |entry| {
            got.push(match entry {
                Entry::Block(name) => String::from_utf8_lossy(name).into_owned(),
                Entry::Allow(name) => format!("+{}", String::from_utf8_lossy(name)),
                Entry::Bad(why) => format!("!{why}"),
            });
        });
        assert_eq!(got.join(" "), expected);
    }

    #[test]
    fn plain_names() {
        check(b"example.com", "example.com");
        check(b"  example.com.  \r", "example.com");
        check(b"Example.COM # why", "Example.COM");
        check(b"example.com\t# why", "example.com");
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
        check(b"; rpz", "");
        check(b"server:", "");
        check(b"local-data: \"example.com A 0.0.0.0\"", "");
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
    fn other_syntaxes() {
        check(b"||example.com^", "example.com");
        check(b"||example.com^$important", "example.com");
        check(b"@@||example.com^", "+example.com");
        check(b"||example.com^$third-party", "!a rule with conditions");
        check(b"||example.com/path^", "!not a domain name");
        check(b"address=/example.com/#", "example.com");
        check(b"address=/example.com/example.net/0.0.0.0", "example.net example.com");
        check(b"server=/example.com/", "example.com");
        check(b"local=/example.com/", "example.com");
        check(b"server=/example.com/192.0.2.53", "!leads somewhere, so it blocks nothing");
        check(b"address=/", "!no name");
        check(b"local-zone: \"example.com.\" always_null", "example.com");
        check(b"local-zone: \"example.com\" transparent", "+example.com");
        check(b"local-zone: example.com", "!a local-zone without a quoted name");
        check(b"example.com CNAME .", "example.com");
        check(b"*.example.com cname .", "example.com");
    }

    #[test]
    fn bad_lines() {
        check(b"192.0.2.1", "!an address that is no sink");
        check(b"192.0.2.1:8080", "!not a domain name");
        check(b"192.0.2.0/24", "!not a domain name");
        check(b"1.2.3", "!an address, not a name");
        check(b"http://example.com/x", "!not a domain name");
        check(b"example.com/path", "!not a domain name");
        check(b"/path", "!not a domain name");
        check(b"(ads|track)\\.example", "!not a domain name");
        check(b"ad*.example.com", "!not a domain name");
        check(b"*", "!no name");
        check(b".", "!no name");
        check(b"two words", "!more than one word");
        check(b"a\0b.example", "!not a domain name");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(line in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            entries(&line, |entry| drop(format!("{entry:?}")));
        }
    }
}
