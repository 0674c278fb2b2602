//! Lines of one or two words: bare names, hosts lines, addresses, the addresses of pages.
//!
//! A page's address is reduced to its host, as neither a question for a name nor a connection
//! tells the path; the path is handed on, to be told with a hit. Pure.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{Each, Entry, Format, HOSTS_OWN, What, words_of};
use crate::tier0::blocklist::address::{Indicator, range};
use crate::tier0::blocklist::report::Why;

/// A bare domain, a hosts line, an address or a page's address.
pub(super) fn words<'a>(line: &'a [u8], each: Each<'_, 'a>) {
    let mut words = words_of(line);
    let (first, rest) = (words.next().unwrap_or_default(), words.clone());
    let second = words.next();
    if let Some(net) = indicator(first) {
        let number = second.and_then(number);
        let entry = Entry::new(What::Net(net), Format::Addresses);
        return match (sink(first), second) {
            (Some(true), None) => each(Err(Why::AddressAlone)),
            (_, None) => each(Ok(entry)),
            _ if number.is_some() && words.next().is_none() => each(Ok(Entry { number, ..entry })),
            (Some(true), _) => hosts(rest, each),
            _ => each(Err(Why::NoSink)),
        };
    }
    match second {
        None if !one(first, each) => each(Entry::name(first, syntax_of(first))),
        None => {}
        Some(_) if first.contains(&b'\\') || first.contains(&b'(') => each(Err(Why::Regex)),
        Some(_) => each(Err(Why::MoreWords)),
    }
}

fn syntax_of(name: &[u8]) -> Format {
    let wild = name.starts_with(b"*.") || name.starts_with(b".");
    if wild { Format::Wildcard } else { Format::Domains }
}

/// Every name of a line that may hold several, but for the machine's own.
fn hosts<'a>(names: impl Iterator<Item = &'a [u8]>, each: Each<'_, 'a>) {
    for name in names.filter(|name| !HOSTS_OWN.contains(name)) {
        each(Entry::name(name, Format::Hosts));
    }
}

/// A range or a page's address; false: neither.
fn one<'a>(word: &'a [u8], each: Each<'_, 'a>) -> bool {
    if let Some((from, to)) = split(word, b'-').and_then(|(a, b)| Some((ip(a)?, ip(b)?))) {
        match range(from, to) {
            Some(nets) => nets
                .into_iter()
                .for_each(|net| each(Ok(Entry::new(What::Net(net), Format::Addresses)))),
            None => each(Err(Why::NotAName)),
        }
        return true;
    }
    match page(word) {
        Some(entry) => {
            each(entry);
            true
        }
        None => false,
    }
}

/// `None`: no address. `Some(true)`: one that leads nowhere or back to the machine itself.
pub(super) fn sink(word: &[u8]) -> Option<bool> {
    let ip = ip(word)?;
    Some(ip.is_unspecified() || ip.is_loopback())
}

/// An address, a network, or an address with a port.
pub(in crate::tier0::blocklist) fn indicator(word: &[u8]) -> Option<Indicator> {
    // Most words are names: no parser needs to look at them.
    if !word.first().is_some_and(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'[')) {
        return None;
    }
    let text = std::str::from_utf8(word).ok()?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Indicator::host(ip, None));
    }
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(Indicator::net(net));
    }
    if let Ok(at) = text.parse::<SocketAddr>() {
        return Some(Indicator::host(at.ip(), Some(at.port()).filter(|port| *port > 0)));
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    Some(Indicator::host(IpAddr::V6(bare.parse().ok()?), None))
}

fn ip(word: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn number(word: &[u8]) -> Option<u32> {
    std::str::from_utf8(word).ok().filter(|w| w.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

fn split(word: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = word.iter().position(|b| *b == at)?;
    Some((word.get(..at)?, word.get(at + 1..)?))
}

/// `scheme://user@host:port/path`, `host/path`, `host:port`; `None`: nothing of that.
fn page(word: &[u8]) -> Option<Result<Entry<'_>, Why>> {
    let scheme_end = word.windows(3).position(|part| part == b"://");
    let scheme = scheme_end.and_then(|end| word.get(..end)).unwrap_or_default();
    let rest = scheme_end.and_then(|end| word.get(end + 3..)).unwrap_or(word);
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let host_port = authority.rsplit(|b| *b == b'@').next().unwrap_or_default();
    if scheme_end.is_none() && path.is_empty() && !has_port(host_port) {
        return None;
    }
    let plain =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | 0x80..);
    let bracketed = host_port.starts_with(b"[");
    if host_port.is_empty() || !(bracketed || host_port.iter().all(plain)) {
        // A path alone, or a pattern that happens to hold a slash.
        return None;
    }
    let page = Some(path).filter(|path| path.len() > 1);
    // `203.0.113.0/33`: no network, and no page either.
    if scheme_end.is_none() && ip(host_port).is_some() && number(path.get(1..)?).is_some() {
        return None;
    }
    let entry = match indicator(host_port) {
        Some(net) => Ok(Entry::new(What::Net(with_port(net, host_port, scheme)), Format::Urls)),
        None => {
            let host = if has_port(host_port) { split(host_port, b':')?.0 } else { host_port };
            Entry::name(host, Format::Urls)
        }
    };
    Some(entry.map(|entry| Entry { page, ..entry }))
}

/// `host:8080`
fn has_port(host: &[u8]) -> bool {
    split(host, b':').is_some_and(|(_, port)| {
        !port.is_empty() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
    })
}

/// An address named with its scheme is meant at that service.
fn with_port(net: Indicator, written: &[u8], scheme: &[u8]) -> Indicator {
    let port = match scheme {
        b"http" | b"hxxp" => 80,
        b"https" | b"hxxps" => 443,
        b"ftp" => 21,
        _ => return net,
    };
    match ip(written.strip_prefix(b"[").and_then(|w| w.strip_suffix(b"]")).unwrap_or(written)) {
        Some(ip) => Indicator::host(ip, Some(port)),
        None => net,
    }
}
