//! One line of a list -> what it lists.
//!
//! Shapes understood, each by itself or mixed in one list: a bare domain; a hosts line
//! (`0.0.0.0 a b`, `127.0.0.1 a`, `::1 a`); `*.d`, `.d`; `||d^` and `@@||d^` (adblock: block,
//! allow); `address=/d/#`, `server=/d/`, `local=/d/` (dnsmasq); `local-zone: "d." always_null`,
//! `local-data: "d A 0.0.0.0"` (unbound); `d CNAME .` with `$ORIGIN` (RPZ, [`rpz`]);
//! addresses, networks, `ip:port`, ranges, `ip<TAB>number of sources`, and the addresses of
//! pages, `https://d/path` ([`word`]). Comments begin with `#`, `!`, `;`, `[` or `//`, or
//! with `#` or `;` behind the entry. Any line end.
//!
//! In: a line's bytes, hostile, and what lines before it said ([`State`]). Out: entries, or
//! what is wrong with the line. One bad line never loses the list.

mod adblock;
mod rpz;
mod word;

use serde::{Deserialize, Serialize};

use super::address::Indicator;
use super::report::Why;
pub(super) use rpz::State;
pub(super) use word::indicator;

/// How a list is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Each line says itself what it is.
    #[default]
    Auto,
    /// `0.0.0.0 example.com`
    Hosts,
    /// `example.com`
    Domains,
    /// `*.example.com`
    Wildcard,
    /// `||example.com^`
    Adblock,
    /// `address=/example.com/#`
    Dnsmasq,
    /// `local-zone: "example.com" always_null`
    Unbound,
    /// `example.com CNAME .`
    Rpz,
    /// `192.0.2.1`, `192.0.2.0/24`, `192.0.2.1:80`
    Addresses,
    /// `https://example.com/path`
    Urls,
}

impl Format {
    /// All, in order.
    pub const ALL: [Self; 10] = [
        Self::Auto,
        Self::Hosts,
        Self::Domains,
        Self::Wildcard,
        Self::Adblock,
        Self::Dnsmasq,
        Self::Unbound,
        Self::Rpz,
        Self::Addresses,
        Self::Urls,
    ];

    /// The word in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Hosts => "hosts",
            Self::Domains => "domains",
            Self::Wildcard => "wildcard",
            Self::Adblock => "adblock",
            Self::Dnsmasq => "dnsmasq",
            Self::Unbound => "unbound",
            Self::Rpz => "rpz",
            Self::Addresses => "addresses",
            Self::Urls => "urls",
        }
    }

    /// Whether a list of this format may hold an entry of that syntax.
    pub(super) fn takes(self, syntax: Self) -> bool {
        use Format::{Adblock, Addresses, Auto, Domains, Urls, Wildcard};
        match self {
            Auto => true,
            Domains | Wildcard => matches!(syntax, Domains | Wildcard),
            Adblock => matches!(syntax, Adblock | Domains),
            Urls => matches!(syntax, Urls | Domains | Addresses),
            other => other == syntax,
        }
    }
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    /// A name and all below it.
    Name(&'a [u8]),
    /// An address or network.
    Net(Indicator),
}

/// One entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) what: What<'a>,
    /// The list itself exempts it.
    pub(super) allow: bool,
    /// How many sources name it, where the list says so.
    pub(super) number: Option<u32>,
    /// It was the address of this page of the host.
    pub(super) page: Option<&'a [u8]>,
    pub(super) syntax: Format,
}

impl<'a> Entry<'a> {
    pub(super) const fn new(what: What<'a>, syntax: Format) -> Self {
        Self { what, allow: false, number: None, page: None, syntax }
    }
    /// A name, checked.
    pub(super) fn name(name: &'a [u8], syntax: Format) -> Result<Self, Why> {
        Ok(Self::new(What::Name(named(name)?), syntax))
    }
    pub(super) const fn allowing(self, allow: bool) -> Self {
        Self { allow, ..self }
    }
}

/// What is done with entries.
pub(super) type Each<'e, 'a> = &'e mut dyn FnMut(Result<Entry<'a>, Why>);

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
pub(super) fn entries<'a>(line: &'a [u8], state: &mut State, each: Each<'_, 'a>) {
    let full = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let line = full.trim_ascii();
    if is_comment(line) {
        return;
    }
    let line = without_comment(line);
    if rpz::takes(full, line, state, each) {
        return;
    }
    if line.starts_with(b"||") || line.starts_with(b"@@") || adblock::is_cosmetic(line) {
        each(adblock::rule(line));
    } else if let Some((kind, rest)) = unbound_option(line) {
        unbound(kind, rest, each);
    } else if let Some((kind, rest)) = dnsmasq_option(line) {
        dnsmasq(kind, rest, each);
    } else if is_setting(line) {
        each(Err(Why::Setting));
    } else if line != b"server:" {
        word::words(line, each);
    }
}

/// What stands between blanks.
pub(super) fn words_of(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn is_comment(line: &[u8]) -> bool {
    match line {
        [] | [b'#' | b'!' | b';', ..] | [b'/', b'/', ..] => true,
        // `[Adblock Plus 2.0]`, but not `[2001:db8::1]:443`.
        [b'[', rest @ ..] => {
            !rest.iter().take_while(|b| **b != b']').all(|b| b.is_ascii_hexdigit() || *b == b':')
        }
        _ => false,
    }
}

/// Cuts at a `#` or `;` behind a blank. (`address=/d/#` is no comment.)
fn without_comment(line: &[u8]) -> &[u8] {
    let end = comment_at(line).unwrap_or(line.len());
    line.get(..end).unwrap_or(line).trim_ascii_end()
}

fn comment_at(line: &[u8]) -> Option<usize> {
    line.windows(2).position(|pair| matches!(pair, [b' ' | b'\t', b'#' | b';']))
}

/// The comment behind the entry, without its sign; empty: none.
pub(super) fn comment(line: &[u8]) -> &[u8] {
    let start = comment_at(line).unwrap_or(line.len());
    line.get(start + 2..).unwrap_or_default().trim_ascii()
}

/// The kinds of zone that block a name, and those that exempt it.
const ZONES: [&[u8]; 9] = [
    b"always_null",
    b"always_nxdomain",
    b"always_nodata",
    b"always_refuse",
    b"always_deny",
    b"deny",
    b"refuse",
    b"static",
    b"redirect",
];
const OPEN_ZONES: [&[u8]; 3] = [b"transparent", b"typetransparent", b"always_transparent"];

fn unbound_option(line: &[u8]) -> Option<(&'static str, &[u8])> {
    let rest = |start: &[u8]| line.strip_prefix(start).map(<[u8]>::trim_ascii);
    rest(b"local-zone:")
        .map(|rest| ("zone", rest))
        .or_else(|| rest(b"local-data:").map(|rest| ("data", rest)))
}

/// `"d." always_null` or, of data, `"d A 0.0.0.0"`.
fn unbound<'a>(kind: &str, rest: &'a [u8], each: Each<'_, 'a>) {
    let bare = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'');
    let mut words = rest.split(bare).filter(|word| !word.is_empty());
    let name = words.next().unwrap_or_default();
    if kind == "zone" {
        let zone = words.next().unwrap_or_default();
        let (blocks, opens) = (ZONES.contains(&zone), OPEN_ZONES.contains(&zone));
        if !blocks && !opens {
            return each(Err(Why::Leads));
        }
        return each(Entry::name(name, Format::Unbound).map(|e| e.allowing(opens)));
    }
    // A zone of kind `redirect` comes with its data: counted once, taken twice.
    match words.next_back().and_then(word::sink) {
        Some(true) => each(Entry::name(name, Format::Unbound)),
        _ => each(Err(Why::Leads)),
    }
}

fn dnsmasq_option(line: &[u8]) -> Option<(&'static str, &[u8])> {
    ["address", "server", "local"].iter().find_map(|kind| {
        let rest = line.strip_prefix(kind.as_bytes())?.strip_prefix(b"=/")?;
        Some((*kind, rest))
    })
}

/// `d/`, `d/#`, `a/b/0.0.0.0`: names, then where they lead. Of a `server`, `#` means the
/// usual servers: an exception.
fn dnsmasq<'a>(kind: &str, rest: &'a [u8], each: Each<'_, 'a>) {
    let mut parts = rest.rsplit(|b| *b == b'/');
    let target = parts.next().unwrap_or_default();
    let allow = target == b"#" && kind != "address";
    let blocks = target.is_empty() || target == b"#" || word::sink(target) == Some(true);
    if !blocks {
        return each(Err(Why::Leads));
    }
    let mut any = false;
    for name in parts {
        any = true;
        each(Entry::name(name, Format::Dnsmasq).map(|entry| entry.allowing(allow)));
    }
    if !any {
        each(Err(Why::NoName));
    }
}

/// `ipset=/d/set`, `forward-zone:`: of a resolver's configuration, but no list.
fn is_setting(line: &[u8]) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || *b == b'-';
    let end = line.iter().position(|b| !word(b)).unwrap_or(line.len());
    let known = matches!(line.get(end), Some(b'=')) && end > 2;
    known
        || (line.get(end) == Some(&b':') && end > 2 && line != b"server:" && {
            // `name:` or `name: value`, and no `host:port` or `http://`.
            matches!(line.get(end + 1), None | Some(b' '))
        })
}

/// `d`, `.d`, `*.d` and `d.` as `d`, checked for what cannot stand in a domain.
fn named(name: &[u8]) -> Result<&[u8], Why> {
    let name = name.strip_prefix(b"*.").unwrap_or(name);
    let name = name.strip_prefix(b".").unwrap_or(name);
    let name = name.strip_suffix(b".").unwrap_or(name);
    // Bytes above ASCII: a name in another script, translated by whoever takes the entry.
    let fine = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | 0x80..);
    let top = name.rsplit(|b| *b == b'.').next().unwrap_or_default();
    let regex = |b: &u8| b"\\()[]{}|^$+?".contains(b);
    if name.is_empty() || name == b"*" {
        Err(Why::NoName)
    } else if name.iter().any(regex) {
        Err(Why::Regex)
    } else if name.contains(&b'*') {
        Err(Why::Pattern)
    } else if name.starts_with(b"/") {
        Err(Why::PathAlone)
    } else if !name.iter().all(fine) {
        Err(Why::NotAName)
    } else if top.iter().all(u8::is_ascii_digit) {
        Err(Why::Number)
    } else {
        Ok(name)
    }
}

#[cfg(test)]
mod tests;
