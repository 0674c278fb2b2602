//! Numbers as a person reads them: bytes, durations, protocol and record type names.
//! Pure; tables only. Machine output keeps the exact number, except for the closed lists
//! of names (protocols, record types, response codes).

use std::time::Duration;

/// Bytes with decimal prefixes, three significant digits: `999 B`, `1.23 kB`, `45.6 MB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1_000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1_000.0;
    let mut unit = 0;
    // 999.5 would be shown as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// A duration in its two largest units: `850 ms`, `12 s`, `3m 20s`, `2h 5m`, `4d 3h`.
pub(crate) fn duration(d: Duration) -> String {
    let (ms, s) = (d.as_millis(), d.as_secs());
    match s {
        0 => format!("{ms} ms"),
        1..=9 => format!("{}.{} s", s, ms / 100 % 10),
        10..=59 => format!("{s} s"),
        60..=3_599 => format!("{}m {}s", s / 60, s % 60),
        3_600..=86_399 => format!("{}h {}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3_600 % 24),
    }
}

/// A count with thousands divided: `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 flow`, `2 flows`.
pub(crate) fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// IP protocols by their usual names (IANA protocol numbers); others as the number.
const PROTOCOLS: [(u8, &str); 9] = [
    (1, "icmp"),
    (2, "igmp"),
    (6, "tcp"),
    (17, "udp"),
    (47, "gre"),
    (50, "esp"),
    (58, "icmpv6"),
    (132, "sctp"),
    (136, "udplite"),
];

/// The name of an IP protocol number.
pub(crate) fn protocol(n: u64) -> String {
    let known = PROTOCOLS.iter().find(|(number, _)| u64::from(*number) == n);
    known.map_or_else(|| n.to_string(), |(_, name)| (*name).to_owned())
}

/// The number of an IP protocol by name or number.
pub(crate) fn protocol_number(text: &str) -> Option<u8> {
    let known = PROTOCOLS.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
    known.map(|(n, _)| *n).or_else(|| text.parse().ok())
}

/// DNS record types (IANA DNS parameters) a home sees.
const RECORD_TYPES: [(u16, &str); 21] = [
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (10, "NULL"),
    (12, "PTR"),
    (15, "MX"),
    (16, "TXT"),
    (25, "KEY"),
    (28, "AAAA"),
    (33, "SRV"),
    (35, "NAPTR"),
    (43, "DS"),
    (46, "RRSIG"),
    (48, "DNSKEY"),
    (52, "TLSA"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (255, "ANY"),
    (257, "CAA"),
];

/// The name of a record type number; unknown ones as `TYPE65400` (RFC 3597).
pub(crate) fn record_type(n: u64) -> String {
    let known = RECORD_TYPES.iter().find(|(number, _)| u64::from(*number) == n);
    known.map_or_else(|| format!("TYPE{n}"), |(_, name)| (*name).to_owned())
}

/// The number of a record type by name, `TYPE65400`, or number.
pub(crate) fn record_type_number(text: &str) -> Option<u16> {
    let text = text.to_ascii_uppercase();
    let known = RECORD_TYPES.iter().find(|(_, name)| *name == text);
    known.map(|(n, _)| *n).or_else(|| text.strip_prefix("TYPE").unwrap_or(&text).parse().ok())
}

/// DNS response codes (RFC 1035, 2136, 6895); others as `RCODE17`.
pub(crate) fn response_code(n: u64) -> String {
    let name = match n {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => return format!("RCODE{n}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_three_digits() {
        #[track_caller]
        fn check(n: u64, expected: &str) {
            assert_eq!(bytes(n), expected);
        }
        check(0, "0 B");
        check(999, "999 B");
        check(1_000, "1.00 kB");
        check(1_476, "1.48 kB");
        check(9_999, "10.0 kB");
        check(99_949, "99.9 kB");
        check(999_499, "999 kB");
        check(999_500, "1.00 MB");
        check(50_424_000, "50.4 MB");
        check(u64::MAX, "18.4 EB");
    }

    #[test]
    fn durations_show_two_units() {
        #[track_caller]
        fn check(ms: u64, expected: &str) {
            assert_eq!(duration(Duration::from_millis(ms)), expected);
        }
        check(0, "0 ms");
        check(850, "850 ms");
        check(3_212, "3.2 s");
        check(59_999, "59 s");
        check(200_000, "3m 20s");
        check(7_500_000, "2h 5m");
        check(356_400_000, "4d 3h");
        check(u64::MAX, "213503982334d 14h");
    }

    #[test]
    fn counts_and_names() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
        assert_eq!(plural(1, "flow", "flows"), "1 flow");
        assert_eq!((protocol(6), protocol(200)), ("tcp".to_owned(), "200".to_owned()));
        assert_eq!(protocol_number("UDP"), Some(17));
        assert_eq!(protocol_number("200"), Some(200));
        assert_eq!(protocol_number("300"), None);
        assert_eq!((record_type(28), record_type(65_400)), ("AAAA".into(), "TYPE65400".into()));
        for (text, n) in
            [("aaaa", Some(28)), ("TYPE65", Some(65)), ("16", Some(16)), ("AAAAA", None)]
        {
            assert_eq!(record_type_number(text), n, "{text}");
        }
        assert_eq!(response_code(3), "NXDOMAIN");
    }
}
