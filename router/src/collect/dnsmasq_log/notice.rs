//! Messages that are no part of an exchange: the resolver's start, its troubles, its talk.
//!
//! In: a message body. Out: what matters of it. Pure.

use super::line::{What, without_note};

/// Begins of messages that matter for health, and of those that say nothing about clients.
pub(super) fn notice(body: &[u8]) -> Option<What<'_>> {
    if body.starts_with(b"started, ") {
        return Some(What::Started);
    }
    if body.starts_with(b"Maximum number of concurrent DNS queries reached") {
        return Some(What::Overload);
    }
    if let Some(name) = body.strip_prefix(b"possible DNS-rebind attack detected: ") {
        return Some(What::Rebind(name));
    }
    if let Some(rest) = body.strip_prefix(b"overflow: ") {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let number = std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
        return Some(What::LinesLost(number));
    }
    if body.starts_with(b"validation ") {
        let (text, ede) = without_note(body);
        let bogus = text.ends_with(b" is BOGUS");
        return Some(if bogus { What::Bogus(ede) } else { What::Dnssec });
    }
    OTHERS.iter().any(|begin| body.starts_with(begin.as_bytes())).then_some(What::Other)
}

const OTHERS: &[&str] = &[
    "ipset add ",
    "nftset add ",
    "non-query opcode ",
    "compile time options: ",
    "using ",
    "read ",
    "reading ",
    "ignoring ",
    "exiting on receipt of ",
    "cleared cache",
    "reducing DNS packet size ",
    "server ",
    "cache size ",
    "queries ",
    "pool memory ",
    "child processes ",
    "DNS service limited ",
    "DNSSEC ",
    "asynchronous logging ",
    "warning: ",
    "nameserver ",
    "no servers found",
    "failed to ",
    "inotify",
    "listening on ",
    "bad ",
    "time ",
    "Insecure DS reply ",
    "host ",
    "Host ",
    "Total ",
];
