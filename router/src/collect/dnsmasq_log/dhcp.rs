//! dnsmasq's DHCP messages: `TYPE(IFACE) [IP ]MAC [NAME]`, for IPv6 with a DUID in the
//! place of the MAC.
//!
//! In: a message without prefix and transaction id. Out: a [`Lease`] where a device got or
//! confirmed its address. Pure.

use std::net::IpAddr;

use agentmon_core::event::Mac;

use super::line::What;
use super::value::address;

/// A device got an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease<'a> {
    /// Interface it is behind.
    pub iface: &'a [u8],
    /// Its address now.
    pub ip: IpAddr,
    /// Its MAC.
    pub mac: Mac,
    /// The name it gave; may be empty.
    pub name: &'a [u8],
}

/// `None`: no DHCP or router advertisement message.
pub(super) fn parse(body: &[u8]) -> Option<What<'_>> {
    const OTHERS: [&[u8]; 9] = [
        b"DHCP, ",
        b"DHCPv6, ",
        b"DHCPv4-derived ",
        b"router advertisement on ",
        b"abandoning lease to ",
        b"not using configured address ",
        b"IPv6 router advertisement enabled",
        b"RTR-",
        b"BOOTP(",
    ];
    if OTHERS.iter().any(|begin| body.starts_with(begin)) {
        return Some(What::Other);
    }
    if !body.starts_with(b"DHCP") {
        return None;
    }
    let open = memchr::memchr(b'(', body)?;
    let (kind, rest) = body.split_at(open);
    if !kind.iter().all(|b| b.is_ascii_uppercase() || *b == b'-') {
        return None;
    }
    if kind != b"DHCPACK" && kind != b"DHCPREPLY" {
        return Some(What::Other);
    }
    let close = memchr::memchr(b')', rest)?;
    let (iface, rest) = (rest.get(1..close)?, rest.get(close + 1..)?);
    Some(lease(iface, rest).map_or(What::Other, What::Lease))
}

/// ` 192.0.2.31 00:00:5e:00:53:1f laptop`. Without an address it is no assignment.
fn lease<'a>(iface: &'a [u8], rest: &'a [u8]) -> Option<Lease<'a>> {
    let mut parts = rest.strip_prefix(b" ")?.splitn(3, |b| *b == b' ');
    let ip = address(parts.next()?)?;
    let mac = mac_of(parts.next()?)?;
    let name = parts.next().unwrap_or_default().trim_ascii();
    Some(Lease { iface, ip, mac, name })
}

/// A MAC, or the one inside a DUID of type LLT or LL over Ethernet (RFC 8415 section 11.2
/// and 11.4). Of a device with several interfaces that is one of them, and stays the same.
pub(crate) fn mac_of(text: &[u8]) -> Option<Mac> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.len() <= 64)?;
    if let Ok(mac) = text.parse::<Mac>() {
        return (!mac.is_group() && mac.0 != [0; 6]).then_some(mac);
    }
    let mac = text
        .strip_prefix("00:01:00:01:")
        .and_then(|rest| rest.splitn(5, ':').nth(4))
        .or_else(|| text.strip_prefix("00:03:00:01:"))?;
    mac.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_and_duids() {
        let mac = Some("00:00:5e:00:53:1f".parse().unwrap());
        assert_eq!(mac_of(b"00:00:5e:00:53:1f"), mac);
        assert_eq!(mac_of(b"00:01:00:01:2c:ab:cd:ef:00:00:5e:00:53:1f"), mac);
        assert_eq!(mac_of(b"00:03:00:01:00:00:5e:00:53:1f"), mac);
        // DUID-EN and DUID-UUID hold no MAC.
        assert_eq!(mac_of(b"00:02:00:00:ab:11:00:00:5e:00:53:1f"), None);
        assert_eq!(mac_of(b"ff:ff:ff:ff:ff:ff"), None);
        assert_eq!(mac_of(b"00:00:00:00:00:00"), None);
        assert_eq!(mac_of(b""), None);
    }
}
