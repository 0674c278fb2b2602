//! Names of DNS record types as dnsmasq prints them (its table follows IANA's registry
//! "Resource Record (RR) TYPEs"), and back to numbers.

/// The number of a type name; `type=65400` and RFC 3597's `TYPE65400` included.
#[must_use]
pub fn number_of(name: &[u8]) -> Option<u16> {
    // Nearly all queries of a home are of these.
    match name {
        b"A" => return Some(1),
        b"AAAA" => return Some(28),
        b"HTTPS" => return Some(65),
        b"PTR" => return Some(12),
        _ => {}
    }
    if let Some(digits) = name.strip_prefix(b"type=").or_else(|| name.strip_prefix(b"TYPE")) {
        return std::str::from_utf8(digits).ok()?.parse().ok();
    }
    TYPES.iter().find(|(text, _)| text.as_bytes() == name).map(|(_, number)| *number)
}

const TYPES: &[(&str, u16)] = &[
    ("NS", 2),
    ("MD", 3),
    ("MF", 4),
    ("CNAME", 5),
    ("SOA", 6),
    ("MB", 7),
    ("MG", 8),
    ("MR", 9),
    ("NULL", 10),
    ("WKS", 11),
    ("HINFO", 13),
    ("MINFO", 14),
    ("MX", 15),
    ("TXT", 16),
    ("RP", 17),
    ("AFSDB", 18),
    ("X25", 19),
    ("ISDN", 20),
    ("RT", 21),
    ("NSAP", 22),
    ("NSAP_PTR", 23),
    ("NSAP-PTR", 23),
    ("SIG", 24),
    ("KEY", 25),
    ("PX", 26),
    ("GPOS", 27),
    ("LOC", 29),
    ("NXT", 30),
    ("EID", 31),
    ("NIMLOC", 32),
    ("SRV", 33),
    ("ATMA", 34),
    ("NAPTR", 35),
    ("KX", 36),
    ("CERT", 37),
    ("A6", 38),
    ("DNAME", 39),
    ("SINK", 40),
    ("OPT", 41),
    ("APL", 42),
    ("DS", 43),
    ("SSHFP", 44),
    ("IPSECKEY", 45),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("DHCID", 49),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
    ("TLSA", 52),
    ("SMIMEA", 53),
    ("HIP", 55),
    ("NINFO", 56),
    ("RKEY", 57),
    ("TALINK", 58),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("OPENPGPKEY", 61),
    ("CSYNC", 62),
    ("ZONEMD", 63),
    ("SVCB", 64),
    ("SPF", 99),
    ("UINFO", 100),
    ("UID", 101),
    ("GID", 102),
    ("UNSPEC", 103),
    ("NID", 104),
    ("L32", 105),
    ("L64", 106),
    ("LP", 107),
    ("EUI48", 108),
    ("EUI64", 109),
    ("TKEY", 249),
    ("TSIG", 250),
    ("IXFR", 251),
    ("AXFR", 252),
    ("MAILB", 253),
    ("MAILA", 254),
    ("ANY", 255),
    ("URI", 256),
    ("CAA", 257),
    ("AVC", 258),
    ("DOA", 259),
    ("AMTRELAY", 260),
    ("TA", 32_768),
    ("DLV", 32_769),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (name, number) in [("A", 1), ("AAAA", 28), ("SVCB", 64), ("DLV", 32_769)] {
            assert_eq!(number_of(name.as_bytes()), Some(number), "{name}");
        }
        assert_eq!(number_of(b"type=65400"), Some(65_400));
        assert_eq!(number_of(b"TYPE65400"), Some(65_400));
        assert_eq!(number_of(b"type=65536"), None);
        assert_eq!(number_of(b"WHAT"), None);
    }

    #[test]
    fn the_table_is_sorted_and_without_doubles() {
        assert!(TYPES.is_sorted_by_key(|(_, number)| *number));
        for (i, (name, _)) in TYPES.iter().enumerate() {
            assert!(TYPES.iter().skip(i + 1).all(|(other, _)| other != name), "{name}");
        }
    }
}
