//! The lease files of dnsmasq and odhcpd.
//!
//! In: a file's bytes. Out: who has which address, and how many lines said nothing. Pure.
//!
//! ```text
//! dnsmasq   EXPIRY MAC IPV4 NAME|* CLIENT-ID|*        (a MAC may have its type before it: 06-...)
//!           duid SERVER-DUID                          (from here on IPv6)
//!           EXPIRY IAID IPV6 NAME|* DUID
//! odhcpd    # IFACE MAC ipv4 NAME|- EXPIRY HEX 32 IPV4/32
//!           # IFACE DUID IAID NAME|- EXPIRY ID LENGTH IPV6/LENGTH...
//! ```
//!
//! Expiry times are left alone: dnsmasq removes what has expired, and on routers without a
//! battery clock the number is no time at all.
//!
//! Invariants: at most [`LEASES_MAX`] leases; lines of more than [`LINE_BYTES_MAX`] bytes are
//! counted, not read; a last line without its newline is still being written and left out;
//! names come out printable.

use std::net::IpAddr;

use agentmon_core::event::{Mac, TEXT_BYTES_MAX, host_name};
use agentmon_core::name::printable;

use crate::collect::dnsmasq_log::dhcp::mac_of;

/// Most leases kept: sixteen times a large home, a third of what dnsmasq hands out at most.
pub const LEASES_MAX: usize = 4_096;
/// Longest line read.
pub const LINE_BYTES_MAX: usize = 1_024;

/// One address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub ip: IpAddr,
    /// Whose it is.
    pub mac: Mac,
    /// The name the device gave.
    pub hostname: Option<String>,
    /// Interface, where the file says so.
    pub iface: Option<String>,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// In the file's order.
    pub leases: Vec<Lease>,
    /// Lines that are no lease.
    pub bad_lines: u64,
    /// IPv6 leases whose DUID holds no MAC.
    pub without_mac: u64,
    /// Leases beyond [`LEASES_MAX`].
    pub cut: u64,
}

enum Line {
    Leases(Vec<Lease>),
    /// A header, or what odhcpd writes for dnsmasq to read.
    Nothing,
    NoMac,
    Bad,
}

/// Reads a whole file.
#[must_use]
pub fn decode(bytes: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    let whole = memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1);
    for line in bytes.get(..whole).unwrap_or_default().split(|b| *b == b'\n') {
        let line = line.trim_ascii();
        if line.len() > LINE_BYTES_MAX {
            decoded.bad_lines += 1;
            continue;
        }
        match read_line(line) {
            Line::Leases(leases) => {
                for lease in leases {
                    if decoded.leases.len() < LEASES_MAX {
                        decoded.leases.push(lease);
                    } else {
                        decoded.cut += 1;
                    }
                }
            }
            Line::Nothing => {}
            Line::NoMac => decoded.without_mac += 1,
            Line::Bad => decoded.bad_lines += 1,
        }
    }
    decoded
}

fn read_line(line: &[u8]) -> Line {
    if line.is_empty() || line.starts_with(b"duid ") {
        return Line::Nothing;
    }
    if let Some(rest) = line.strip_prefix(b"# ") {
        return odhcpd(rest).unwrap_or(Line::Bad);
    }
    // `192.0.2.31<TAB>laptop.lan<TAB>laptop`: the hosts file around odhcpd's comments.
    if memchr::memchr(b'\t', line).is_some() {
        return Line::Nothing;
    }
    dnsmasq(line).unwrap_or(Line::Bad)
}

fn dnsmasq(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|b| *b == b' ').filter(|field| !field.is_empty());
    let expiry = fields.next()?;
    let (hardware, ip, name) = (fields.next()?, address(fields.next()?)?, fields.next()?);
    let client_id = fields.next();
    if !expiry.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // The fourth field of IPv6 is a DUID; the second then only numbers the association.
    let mac = match ip {
        IpAddr::V4(_) => mac_of(without_type(hardware)),
        IpAddr::V6(_) => mac_of(client_id?),
    };
    let Some(mac) = mac else {
        return Some(if ip.is_ipv6() { Line::NoMac } else { Line::Bad });
    };
    Some(Line::Leases(vec![Lease { ip, mac, hostname: name_of(name), iface: None }]))
}

/// `06-00:00:5e:00:53:1f`: dnsmasq puts the ARP hardware type first if it is not Ethernet.
fn without_type(hardware: &[u8]) -> &[u8] {
    match hardware {
        [a, b, b'-', rest @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest,
        _ => hardware,
    }
}

fn odhcpd(rest: &[u8]) -> Option<Line> {
    let mut fields = rest.split(|b| *b == b' ').filter(|field| !field.is_empty());
    let (iface, owner, association) = (fields.next()?, fields.next()?, fields.next()?);
    let (name, _expiry, _id, length) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    // Prefixes handed to a router below are no addresses of it.
    let v4 = association == b"ipv4";
    if !v4 && length != b"128" {
        return Some(Line::Nothing);
    }
    let Some(mac) = mac_of(owner).or_else(|| mac_of(&with_colons(owner))) else {
        return Some(Line::NoMac);
    };
    let addresses = fields.filter_map(|field| address(field.split(|b| *b == b'/').next()?));
    let iface = Some(printable(iface, TEXT_BYTES_MAX - 3));
    let hostname = name_of(name.strip_prefix(b"broken\\x20").unwrap_or(name));
    let lease = |ip| Lease { ip, mac, hostname: hostname.clone(), iface: iface.clone() };
    Some(Line::Leases(addresses.take(8).map(lease).collect()))
}

/// `00005e00531f` -> `00:00:5e:00:53:1f`.
fn with_colons(hex: &[u8]) -> Vec<u8> {
    hex.get(..hex.len().min(64)).unwrap_or_default().chunks(2).collect::<Vec<_>>().join(&b':')
}

fn name_of(field: &[u8]) -> Option<String> {
    host_name(field)
}

fn address(text: &[u8]) -> Option<IpAddr> {
    let ip: IpAddr = std::str::from_utf8(text).ok()?.parse().ok()?;
    let ip = agentmon_core::event::unmap(ip);
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(file: &str, expected: &[&str]) {
        let got: Vec<String> = decode(file.as_bytes())
            .leases
            .iter()
            .map(|l| {
                let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".into());
                format!("{} {} {} {}", l.ip, l.mac, text(&l.hostname), text(&l.iface))
            })
            .collect();
        assert_eq!(got, expected);
    }

    const MAC: &str = "00:00:5e:00:53:1f";
    const DUID: &str = "00:01:00:01:2c:ab:cd:ef:00:00:5e:00:53:1f";

    #[test]
    fn dnsmasq_files() {
        check(
            &format!("1711243009 {MAC} 192.0.2.31 laptop 01:{MAC}\n"),
            &[&format!("192.0.2.31 {MAC} laptop -")],
        );
        check(&format!("0 {MAC} 192.0.2.31 * *\n"), &[&format!("192.0.2.31 {MAC} - -")]);
        check(&format!("0 06-{MAC} 192.0.2.31 * *\n"), &[&format!("192.0.2.31 {MAC} - -")]);
        check(
            &format!("duid {DUID}\n1711243009 6161 2001:db8::31 laptop {DUID}\n"),
            &[&format!("2001:db8::31 {MAC} laptop -")],
        );
        // Still being written.
        check(&format!("0 {MAC} 192.0.2.31 lap"), &[]);
        check(
            &format!("0 {MAC} 192.0.2.31 a\x1b[2Jb *\n"),
            &[&format!("192.0.2.31 {MAC} a\\x1b[2Jb -")],
        );
    }

    #[test]
    fn odhcpd_files() {
        check(
            "# br-lan 00005e00531f ipv4 laptop 1711243009 c000021f 32 192.0.2.31/32\n",
            &[&format!("192.0.2.31 {MAC} laptop br-lan")],
        );
        check(
            "# br-lan 0:0:5e:0:53:1f ipv4 - -1 c000021f 32 192.0.2.31/32\n",
            &[&format!("192.0.2.31 {MAC} - br-lan")],
        );
        check(
            "# br-lan 000100012cabcdef00005e00531f 1 broken\\x20my_pc 1711243009 31 128 2001:db8::31/128 fd00::31/128\n\
             192.0.2.31\tlaptop.lan\tlaptop\n",
            &[&format!("2001:db8::31 {MAC} my_pc br-lan"), &format!("fd00::31 {MAC} my_pc br-lan")],
        );
        check("# br-lan 000300010000 1 - 1711243009 31 62 2001:db8::/62\n", &[]);
        // Since 2026 odhcpd escapes what is no letter, digit, dash, dot or underscore in a name.
        check(
            "# br-lan 00:00:5e:00:53:1f ipv4 broken\\x20Anna\\x27s\\x0a\\x23 -1 c000021f 32 192.0.2.31/32\n",
            &[&format!("192.0.2.31 {MAC} Anna\\x27s\\x0a\\x23 br-lan")],
        );
    }

    #[test]
    fn what_is_no_lease_is_counted() {
        let long = format!("0 {MAC} 192.0.2.31 {} *\n", "x".repeat(LINE_BYTES_MAX));
        let uuid =
            "0 1 2001:db8::31 tablet 00:04:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19\n";
        let file = format!("nonsense\n{MAC} 192.0.2.31\n0 {MAC} 0.0.0.0 * *\n{uuid}{long}");
        let decoded = decode(file.as_bytes());
        assert_eq!((decoded.bad_lines, decoded.without_mac), (4, 1));
        assert_eq!(decoded.leases, []);
    }

    #[test]
    fn bounded() {
        let file: String = (0..5_000u32)
            .map(|i| format!("0 {MAC} 10.0.{}.{} * *\n", i / 250, i % 250 + 1))
            .collect();
        let decoded = decode(file.as_bytes());
        assert_eq!((decoded.leases.len(), decoded.cut), (LEASES_MAX, 904));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let decoded = decode(&bytes);
            prop_assert!(decoded.leases.len() <= bytes.len());
        }
        #[test]
        fn nearly_right(file in "((# |duid )?[0-9a-f:.* -]{0,60}(ipv4|laptop|128)?[ /0-9a-f:.]{0,40}\n){0,8}") {
            for lease in decode(file.as_bytes()).leases {
                prop_assert!(lease.hostname.is_none_or(|n| n.bytes().all(|b| (b' '..=b'~').contains(&b))));
            }
        }
    }
}
