//! Rules of browser filters, as far as they are about whole hosts.
//!
//! `||d^` lists a name, `@@||d^` exempts it; behind `^` may stand a `|` and options that do
//! not make the rule depend on the page it is met on. Everything else is about parts of pages
//! or of addresses, which names and addresses cannot tell: counted as unsupported.
//! Format: the syntax of Adblock Plus, and AdGuard's for DNS. Pure.

use super::word::indicator;
use super::{Entry, Format, What};
use crate::tier0::blocklist::report::Why;

/// Options that change nothing for a name: how weighty the rule is, or that the page itself
/// is meant too.
const PLAIN_OPTIONS: [&[u8]; 9] = [
    b"important",
    b"all",
    b"document",
    b"doc",
    b"dnsrewrite=NXDOMAIN",
    b"dnsrewrite=REFUSED",
    b"dnsrewrite=NXDOMAIN;;",
    b"dnsrewrite=REFUSED;;",
    b"dnsrewrite=0.0.0.0",
];

/// Whether it is a rule about elements of pages.
pub(super) fn is_cosmetic(line: &[u8]) -> bool {
    const MARKS: [&[u8]; 6] = [b"##", b"#@#", b"#?#", b"#$#", b"#%#", b"$$"];
    MARKS.iter().any(|mark| line.windows(mark.len()).any(|part| part == *mark))
}

/// The one entry of a rule.
pub(super) fn rule(line: &[u8]) -> Result<Entry<'_>, Why> {
    if is_cosmetic(line) {
        return Err(Why::PageContent);
    }
    let allow = line.strip_prefix(b"@@");
    let rule = allow.unwrap_or(line);
    let Some(rule) = rule.strip_prefix(b"||") else {
        return Err(if rule.starts_with(b"/") { Why::Regex } else { Why::Conditions });
    };
    let end = rule.iter().position(|b| matches!(b, b'^' | b'$' | b'/')).unwrap_or(rule.len());
    let (name, rest) = rule.split_at_checked(end).unwrap_or((rule, b""));
    if !is_plain(rest) {
        return Err(Why::Conditions);
    }
    let entry = match indicator(name) {
        Some(net) => Entry::new(What::Net(net), Format::Adblock),
        None => Entry::name(name, Format::Adblock)?,
    };
    Ok(entry.allowing(allow.is_some()))
}

/// Nothing behind the name, or `^`, `^|`, and options without meaning for a name.
fn is_plain(rest: &[u8]) -> bool {
    let rest = rest.strip_prefix(b"^").unwrap_or(rest);
    let rest = rest.strip_prefix(b"|").unwrap_or(rest);
    match rest.strip_prefix(b"$") {
        None => rest.is_empty(),
        Some(options) => options.split(|b| *b == b',').all(|o| PLAIN_OPTIONS.contains(&o)),
    }
}
