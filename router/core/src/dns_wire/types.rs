//! Names of DNS record types and response codes.
//!
//! Source: IANA's registry "Domain Name System (DNS) Parameters". Only what is met on a
//! home network has a name here; all others are written `TYPE123` (RFC 3597 section 5) and
//! `RCODE99`.

use std::borrow::Cow;

/// Record types by number.
const TYPES: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (10, "NULL"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (24, "SIG"),
    (25, "KEY"),
    (28, "AAAA"),
    (29, "LOC"),
    (33, "SRV"),
    (35, "NAPTR"),
    (37, "CERT"),
    (39, "DNAME"),
    (41, "OPT"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (108, "EUI48"),
    (109, "EUI64"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
    (32769, "DLV"),
];

/// Response codes by number (RFC 6895 section 2.3).
const RCODES: &[(u16, &str)] = &[
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (11, "DSOTYPENI"),
    (16, "BADVERS"),
    (17, "BADKEY"),
    (18, "BADTIME"),
    (22, "BADTRUNC"),
    (23, "BADCOOKIE"),
];

/// IANA's registry "Extended DNS Error Codes" (RFC 8914 section 5.2), by number.
const EXTENDED_ERRORS: [&str; 31] = [
    "other",
    "unsupported DNSKEY algorithm",
    "unsupported DS digest",
    "stale answer",
    "forged",
    "DNSSEC indeterminate",
    "DNSSEC bogus",
    "DNSSEC signature expired",
    "DNSSEC signature not yet valid",
    "DNSKEY missing",
    "RRSIG missing",
    "no zone key bit set",
    "NSEC missing",
    "cached error",
    "not ready",
    "blocked",
    "censored",
    "filtered",
    "prohibited",
    "stale NXDOMAIN",
    "not authoritative",
    "not supported",
    "no reachable authority",
    "network error",
    "invalid data",
    "signature expired before valid",
    "too early",
    "unsupported NSEC3 iterations value",
    "unable to conform to policy",
    "synthesized",
    "invalid query type",
];

/// `15` -> `blocked`, `99` -> `code 99`.
#[must_use]
pub fn ede_name(code: u16) -> Cow<'static, str> {
    match EXTENDED_ERRORS.get(usize::from(code)) {
        Some(name) => Cow::Borrowed(*name),
        None => Cow::Owned(format!("code {code}")),
    }
}

/// `1` -> `A`, `65` -> `HTTPS`, `4660` -> `TYPE4660`.
#[must_use]
pub fn type_name(number: u16) -> Cow<'static, str> {
    match TYPES.binary_search_by_key(&number, |(n, _)| *n) {
        Ok(i) => TYPES.get(i).map_or(Cow::Borrowed(""), |(_, name)| Cow::Borrowed(*name)),
        Err(_) => Cow::Owned(format!("TYPE{number}")),
    }
}

/// The inverse of [`type_name`], without regard to case. dnsmasq's form `type=123` for
/// types it has no name for, and `*` for ANY, are understood too.
#[must_use]
pub fn type_number(text: &str) -> Option<u16> {
    if text == "*" {
        return Some(255);
    }
    if let Some((number, _)) = TYPES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)) {
        return Some(*number);
    }
    let (word, rest) = text.split_at_checked(4)?;
    let digits = rest.strip_prefix('=').unwrap_or(rest);
    let plain = word.eq_ignore_ascii_case("TYPE") && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// `3` -> `NXDOMAIN`, `99` -> `RCODE99`.
#[must_use]
pub fn rcode_name(code: u16) -> Cow<'static, str> {
    match RCODES.iter().find(|(n, _)| *n == code) {
        Some((_, name)) => Cow::Borrowed(*name),
        None => Cow::Owned(format!("RCODE{code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn number(text: &str, expected: Option<u16>) {
        assert_eq!(type_number(text), expected, "{text}");
    }

    #[test]
    fn names_and_numbers() {
        number("A", Some(1));
        number("aaaa", Some(28));
        number("HTTPS", Some(65));
        number("TYPE65", Some(65));
        number("type=65534", Some(65534));
        number("*", Some(255));
        number("TYPE65536", None);
        number("TYPE", None);
        number("TYPE+1", None);
        number("", None);
        number("ééé", None);
        number("B", None);
        assert_eq!(type_name(16), "TXT");
        assert_eq!(type_name(4660), "TYPE4660");
        assert_eq!(rcode_name(3), "NXDOMAIN");
        assert_eq!(rcode_name(16), "BADVERS");
        assert_eq!(rcode_name(99), "RCODE99");
    }

    #[test]
    fn every_number_reads_back() {
        assert!(TYPES.is_sorted_by_key(|(n, _)| n), "binary search wants order");
        for n in 0..=u16::MAX {
            number(&type_name(n), Some(n));
        }
    }
}
