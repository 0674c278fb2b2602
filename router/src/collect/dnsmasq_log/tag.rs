//! Who wrote a line of a syslog: host, program, process id before the message.
//!
//! In: what follows the date. Out: the program, its process id, the message. Pure.

use super::prefix::Program;

/// A message and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tagged<'a> {
    /// The machine; empty where it is not said.
    pub(super) host: &'a [u8],
    pub(super) program: Program,
    pub(super) pid: u32,
    pub(super) message: &'a [u8],
}

/// `dnsmasq[1234]: ` or `router dnsmasq-dhcp: ` before the message; without any, all is
/// message. A program of another name owns its line; such lines exist after a date only.
pub(super) fn tag(rest: &[u8], dated: bool) -> Option<Tagged<'_>> {
    if rest.is_empty() {
        return None;
    }
    let tagged = |host, (program, pid, message)| Some(Tagged { host, program, pid, message });
    let none: &[u8] = b"";
    if let Some(found) = own_tag(rest) {
        return tagged(none, found);
    }
    if let Some(message) = rest.strip_prefix(b"kernel:") {
        return tagged(none, (Program::Kernel, 0, message.trim_ascii_start()));
    }
    let Some(space) = memchr::memchr(b' ', rest) else {
        return tagged(none, (Program::Dnsmasq, 0, rest));
    };
    let (host, after_host) = rest.split_at(space);
    let after_host = after_host.get(1..).unwrap_or_default();
    if let Some(found) = own_tag(after_host) {
        return tagged(host, found);
    }
    if let Some(message) = after_host.strip_prefix(b"kernel:") {
        return tagged(host, (Program::Kernel, 0, message.trim_ascii_start()));
    }
    if dated && is_foreign_tag(rest) {
        return tagged(none, (Program::Other, 0, rest));
    }
    if dated && is_foreign_tag(after_host) {
        return tagged(host, (Program::Other, 0, rest));
    }
    tagged(none, (Program::Dnsmasq, 0, rest))
}

/// A tag of dnsmasq's own at the begin of `text`.
fn own_tag(text: &[u8]) -> Option<(Program, u32, &[u8])> {
    let (program, rest) = if let Some(rest) = text.strip_prefix(b"dnsmasq") {
        match rest.strip_prefix(b"-") {
            None => (Program::Dnsmasq, rest),
            Some(suffix) => {
                let n = suffix.iter().take_while(|b| b.is_ascii_alphabetic()).count();
                let (suffix, rest) = suffix.split_at(n);
                (if suffix == b"dhcp" { Program::Dhcp } else { Program::Other }, rest)
            }
        }
    } else {
        (Program::Dnsmasq, text.strip_prefix(b"pihole-FTL")?)
    };
    let (pid, rest) = match rest.strip_prefix(b"[") {
        None => (0, rest),
        Some(rest) => {
            let n = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let (digits, rest) = rest.split_at(n);
            (number(digits), rest.strip_prefix(b"]")?)
        }
    };
    let message = rest.strip_prefix(b":")?;
    Some((program, pid, message.strip_prefix(b" ").unwrap_or(message)))
}

/// `cron[77]: `, `kernel: `: a word, perhaps a process id, a colon and a blank.
fn is_foreign_tag(text: &[u8]) -> bool {
    let word = text.iter().take_while(|b| !matches!(b, b' ' | b':' | b'[')).count();
    if word == 0 {
        return false;
    }
    let rest = text.get(word..).unwrap_or_default();
    let rest = match rest.strip_prefix(b"[") {
        Some(inner) => match memchr::memchr(b']', inner) {
            Some(n) => inner.get(n + 1..).unwrap_or_default(),
            None => return false,
        },
        None => rest,
    };
    rest.starts_with(b": ")
}

/// `router dnsmasq 1234 - - message`, or structured data in brackets for the last `-`.
pub(super) fn rfc5424(rest: &[u8]) -> Option<Tagged<'_>> {
    let mut parts = rest.splitn(5, |b| *b == b' ');
    let (host, app, pid, _id) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let message = after_structured_data(parts.next()?)?;
    let message = message.strip_prefix(b" ").unwrap_or(message);
    // A byte order mark says that the text is UTF-8 (RFC 5424 section 6.4).
    let message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    let program = match app {
        b"dnsmasq" | b"pihole-FTL" => Program::Dnsmasq,
        b"dnsmasq-dhcp" => Program::Dhcp,
        b"kernel" => Program::Kernel,
        _ => Program::Other,
    };
    let host = if host == b"-" { b"" } else { host };
    Some(Tagged { host, program, pid: number(pid), message })
}

/// `-`, or elements `[id name="value"]` one behind the other. Inside the quotes a backslash
/// takes the meaning off `"`, `\` and `]` (RFC 5424 section 6.3.3).
fn after_structured_data(rest: &[u8]) -> Option<&[u8]> {
    if let Some(after) = rest.strip_prefix(b"-") {
        return Some(after);
    }
    let mut rest = rest.strip_prefix(b"[")?;
    let mut quoted = false;
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'\\' if quoted => rest = rest.split_first()?.1,
            b'"' => quoted = !quoted,
            b']' if !quoted => match rest.strip_prefix(b"[") {
                Some(next) => rest = next,
                None => return Some(rest),
            },
            _ => {}
        }
    }
}

fn number(digits: &[u8]) -> u32 {
    std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok()).unwrap_or(0)
}
