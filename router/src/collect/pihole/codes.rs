//! Pi-hole's own codes and words -> what a DNS record says.
//!
//! In: numbers of the long-term database (`pihole-FTL.db`) or the words that
//! `/api/queries` writes for the same things. Out: record type, status, response code. Pure;
//! shared by the collector and by the hub's import of databases.
//!
//! Source: `enum query_type`, `query_status`, `reply_type` of Pi-hole FTL (database version
//! 21) and the OpenAPI description of its REST interface. Invariant: a code that is not
//! known is "unknown", never an error: FTL's lists grow.

use agentmon_core::event::DnsStatus;

/// Database codes of at least this are 100 + the DNS type's own number.
const TYPE_OWN_NUMBER: i64 = 100;
/// FTL's query types from 1 on, as words and as DNS type numbers; 14 is "other".
const TYPES: [(&str, u16); 16] = [
    ("A", 1),
    ("AAAA", 28),
    ("ANY", 255),
    ("SRV", 33),
    ("SOA", 6),
    ("PTR", 12),
    ("TXT", 16),
    ("NAPTR", 35),
    ("MX", 15),
    ("DS", 43),
    ("RRSIG", 46),
    ("DNSKEY", 48),
    ("NS", 2),
    ("OTHER", 0),
    ("SVCB", 64),
    ("HTTPS", 65),
];

/// FTL's query states from 0 on.
const STATUS: [(&str, Fate); 19] = [
    ("UNKNOWN", Fate::of(DnsStatus::Unknown)),
    ("GRAVITY", Fate::blocked("gravity")),
    ("FORWARDED", Fate::of(DnsStatus::Forwarded)),
    ("CACHE", Fate::of(DnsStatus::Cached)),
    ("REGEX", Fate::blocked("regex")),
    ("DENYLIST", Fate::blocked("exact")),
    ("EXTERNAL_BLOCKED_IP", Fate::blocked("upstream (known address)")),
    ("EXTERNAL_BLOCKED_NULL", Fate::blocked("upstream (null address)")),
    ("EXTERNAL_BLOCKED_NXRA", Fate::blocked("upstream (NXDOMAIN)")),
    ("GRAVITY_CNAME", Fate::blocked("gravity (CNAME)")),
    ("REGEX_CNAME", Fate::blocked("regex (CNAME)")),
    ("DENYLIST_CNAME", Fate::blocked("exact (CNAME)")),
    ("RETRIED", Fate::of(DnsStatus::Forwarded)),
    ("RETRIED_DNSSEC", Fate::of(DnsStatus::Forwarded)),
    ("IN_PROGRESS", Fate::of(DnsStatus::Forwarded)),
    ("DBBUSY", Fate::blocked("database busy")),
    ("SPECIAL_DOMAIN", Fate::blocked("special domain")),
    ("CACHE_STALE", Fate::of(DnsStatus::Cached)),
    ("EXTERNAL_BLOCKED_EDE15", Fate::blocked("upstream (EDE 15)")),
];

/// FTL's reply types from 0 on, with the response code they tell. Where there were records,
/// FTL does not keep them; a code 0 without any would say that there were none.
const REPLIES: [(&str, Option<u16>); 14] = [
    ("UNKNOWN", None),
    ("NODATA", Some(0)),
    ("NXDOMAIN", Some(3)),
    ("CNAME", None),
    ("IP", None),
    ("DOMAIN", None),
    ("RRNAME", None),
    ("SERVFAIL", Some(2)),
    ("REFUSED", Some(5)),
    ("NOTIMP", Some(4)),
    ("OTHER", None),
    ("DNSSEC", None),
    ("NONE", None),
    ("BLOB", None),
];

/// What became of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// How it ended.
    pub status: DnsStatus,
    /// What blocked it.
    pub blocked_by: Option<&'static str>,
}

impl Fate {
    const fn of(status: DnsStatus) -> Self {
        Self { status, blocked_by: None }
    }
    const fn blocked(by: &'static str) -> Self {
        Self { status: DnsStatus::Blocked, blocked_by: Some(by) }
    }
}

/// The DNS type of a database code; 0 where it is not known.
#[must_use]
pub fn qtype_of_code(code: i64) -> u16 {
    if code >= TYPE_OWN_NUMBER {
        return u16::try_from(code - TYPE_OWN_NUMBER).unwrap_or(0);
    }
    let row = code.checked_sub(1).and_then(|i| usize::try_from(i).ok());
    row.and_then(|i| TYPES.get(i)).map_or(0, |(_, number)| *number)
}

/// The DNS type of a word: `AAAA`, `TYPE65400`; 0 where it is not known.
#[must_use]
pub fn qtype_of_word(word: &str) -> u16 {
    let known = TYPES.iter().find(|(text, _)| *text == word).map(|(_, number)| *number);
    known.or_else(|| word.strip_prefix("TYPE")?.parse().ok()).unwrap_or(0)
}

/// What a status code of the database means.
#[must_use]
pub fn fate_of_code(code: i64) -> Fate {
    let row = usize::try_from(code).ok().and_then(|i| STATUS.get(i));
    row.map_or_else(Fate::default, |(_, fate)| *fate)
}

/// What a status word means; `None` for one that is not known.
#[must_use]
pub fn fate_of_word(word: &str) -> Option<Fate> {
    STATUS.iter().find(|(text, _)| *text == word).map(|(_, fate)| *fate)
}

/// The response code that a reply type of the database tells.
#[must_use]
pub fn rcode_of_code(code: i64) -> Option<u16> {
    usize::try_from(code).ok().and_then(|i| REPLIES.get(i)).and_then(|(_, rcode)| *rcode)
}

/// The response code that a reply word tells.
#[must_use]
pub fn rcode_of_word(word: &str) -> Option<u16> {
    REPLIES.iter().find(|(text, _)| *text == word).and_then(|(_, rcode)| *rcode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn qtype(code: i64, word: &str, expected: u16) {
        assert_eq!((qtype_of_code(code), qtype_of_word(word)), (expected, expected));
    }

    #[track_caller]
    fn status(code: i64, word: &str, expected: DnsStatus, by: Option<&str>) {
        let fate = fate_of_code(code);
        assert_eq!(Some(fate), fate_of_word(word));
        assert_eq!((fate.status, fate.blocked_by), (expected, by));
    }

    #[track_caller]
    fn reply(code: i64, word: &str, expected: Option<u16>) {
        assert_eq!((rcode_of_code(code), rcode_of_word(word)), (expected, expected));
    }

    #[test]
    fn types() {
        qtype(1, "A", 1);
        qtype(2, "AAAA", 28);
        qtype(7, "TXT", 16);
        qtype(14, "OTHER", 0);
        // FTL's 16 is HTTPS, which is 65 on the wire; 16 on the wire is TXT.
        qtype(16, "HTTPS", 65);
        qtype(110, "TYPE10", 10);
        qtype(65_635, "TYPE65535", 65_535);
        qtype(0, "", 0);
        qtype(-1, "TYPE", 0);
        qtype(17, "TYPE65536", 0);
        qtype(i64::MIN, "aaaa", 0);
        qtype(i64::MAX, "TYPE-1", 0);
    }

    #[test]
    fn states() {
        status(0, "UNKNOWN", DnsStatus::Unknown, None);
        status(1, "GRAVITY", DnsStatus::Blocked, Some("gravity"));
        status(2, "FORWARDED", DnsStatus::Forwarded, None);
        status(3, "CACHE", DnsStatus::Cached, None);
        status(5, "DENYLIST", DnsStatus::Blocked, Some("exact"));
        status(8, "EXTERNAL_BLOCKED_NXRA", DnsStatus::Blocked, Some("upstream (NXDOMAIN)"));
        status(9, "GRAVITY_CNAME", DnsStatus::Blocked, Some("gravity (CNAME)"));
        status(14, "IN_PROGRESS", DnsStatus::Forwarded, None);
        status(15, "DBBUSY", DnsStatus::Blocked, Some("database busy"));
        status(17, "CACHE_STALE", DnsStatus::Cached, None);
        status(18, "EXTERNAL_BLOCKED_EDE15", DnsStatus::Blocked, Some("upstream (EDE 15)"));
        assert_eq!(fate_of_code(19), Fate::default());
        assert_eq!(fate_of_code(-1), Fate::default());
        assert_eq!(fate_of_word("NEW_IN_2030"), None);
    }

    #[test]
    fn replies() {
        reply(0, "UNKNOWN", None);
        reply(1, "NODATA", Some(0));
        reply(2, "NXDOMAIN", Some(3));
        reply(7, "SERVFAIL", Some(2));
        reply(8, "REFUSED", Some(5));
        reply(9, "NOTIMP", Some(4));
        reply(12, "NONE", None);
        reply(4, "IP", None);
        reply(13, "BLOB", None);
        reply(14, "?", None);
    }

    proptest! {
        #[test]
        fn any_code_has_a_meaning(code in any::<i64>(), word in ".{0,20}") {
            let fate = fate_of_code(code);
            prop_assert_eq!(fate.blocked_by.is_some(), fate.status == DnsStatus::Blocked);
            prop_assert!(qtype_of_code(code) == 0 || code > 0);
            let _ = (rcode_of_code(code), qtype_of_word(&word), rcode_of_word(&word));
        }
    }
}
