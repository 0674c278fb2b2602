//! Who says what a name is: the known sources of answers, and unknown ones by their form.
//!
//! In: a message body. Out: an answer. Pure. Pi-hole's words for why it blocks grow with its
//! versions, so an unknown word before a known kind of value is an answer too, and counted.

use super::line::{Answer, Origin, What, answer, split_last, without_note};
use super::value::{Value, address};

/// The answer that `body` is, if it begins with a known source.
pub(super) fn known_source(body: &[u8]) -> Option<What<'_>> {
    for (source, origin) in SOURCES {
        if let Some(rest) = body.strip_prefix(source.as_bytes())
            && let Some(rest) = rest.strip_prefix(b" ")
        {
            let reason = if *origin == Origin::Blocked { source.as_bytes() } else { b"" };
            return Some(answer(*origin, reason, rest));
        }
    }
    if body.first() == Some(&b'/') {
        return Some(hosts_file(body));
    }
    if body.starts_with(b"blocked upstream with ")
        && let What::Answer(a) = unknown_source(body)
    {
        return Some(What::Answer(Answer { unknown_source: false, ..a }));
    }
    None
}

/// Sources of answers besides `reply` and `cached`; a longer one before what begins it.
const SOURCES: &[(&str, Origin)] = &[
    ("gravity blocked (CNAME)", Origin::Blocked),
    ("gravity blocked", Origin::Blocked),
    ("cached-stale", Origin::Cache),
    ("config", Origin::Local),
    ("DHCP", Origin::Local),
    ("auth", Origin::Local),
    ("Pi-hole hostname", Origin::Local),
    ("regex denied (CNAME)", Origin::Blocked),
    ("regex denied", Origin::Blocked),
    ("exactly denied (CNAME)", Origin::Blocked),
    ("exactly denied", Origin::Blocked),
    ("regex blacklisted (CNAME)", Origin::Blocked),
    ("regex blacklisted", Origin::Blocked),
    ("exactly blacklisted (CNAME)", Origin::Blocked),
    ("exactly blacklisted", Origin::Blocked),
    ("special domain", Origin::Blocked),
    ("Mozilla canary domain", Origin::Blocked),
    ("Apple iCloud Private Relay domain", Origin::Blocked),
    ("Designated Resolver domain", Origin::Blocked),
    ("Rate-limiting", Origin::Blocked),
    ("to be blocked (gravity database is not available)", Origin::Blocked),
    ("to be refused (gravity database is not available)", Origin::Blocked),
    ("to be dropped (gravity database is not available)", Origin::Blocked),
];

/// `/etc/hosts nas.example.com is 192.0.2.5`; the path may hold blanks.
fn hosts_file(body: &[u8]) -> What<'_> {
    let Some(space) = memchr::memchr(b' ', body) else { return What::Unknown };
    let (path, rest) = body.split_at(space);
    // Pi-hole before version 5 kept its lists in hosts form.
    let list = path.ends_with(b"/gravity.list") || path.ends_with(b"/black.list");
    let origin = if list { Origin::Blocked } else { Origin::Local };
    match answer(origin, path, rest.get(1..).unwrap_or_default()) {
        // A free text is an answer only for a reverse look-up, which prints the address.
        What::Answer(a) if a.splits().any(|(n, v)| v.is_sure() || address(n).is_some()) => {
            What::Answer(a)
        }
        _ => unknown_source(body),
    }
}

/// `NEW WORDS name is VALUE`: taken for an answer if the value is of a kind we know. The
/// words decide whether it reads as blocked.
pub(super) fn unknown_source(body: &[u8]) -> What<'_> {
    let (text, ede) = without_note(body);
    let Some((before, value)) = split_last(text, b" is ") else { return What::Unknown };
    let Some(space) = memchr::memrchr(b' ', before) else { return What::Unknown };
    if !Value::parse(value).is_sure() {
        return What::Unknown;
    }
    let (source, _) = before.split_at(space);
    let text = text.get(space + 1..).unwrap_or_default();
    let blocks = ["block", "denied", "deny", "blacklist", "refuse", "drop", "filter", "sinkhole"];
    let lower = source.to_ascii_lowercase();
    let blocked = blocks.iter().any(|word| memchr::memmem::find(&lower, word.as_bytes()).is_some());
    let origin = if blocked { Origin::Blocked } else { Origin::Local };
    What::Answer(Answer { origin, source, unknown_source: true, text, ede })
}
