//! Single fields to the wire and back: addresses, texts, pairs.
//!
//! Out: printable texts of bounded length, addresses of four or sixteen bytes; anything
//! else is [`WireError::Field`] with the name of the field.

use std::net::IpAddr;

use super::{WireError, pb};
use crate::event::{Endpoint, Mac, TEXT_BYTES_MAX};
use crate::name::{Name, cut, printable};

pub(super) fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
pub(super) fn mac_bytes(mac: Option<Mac>) -> Vec<u8> {
    mac.map(|m| m.0.to_vec()).unwrap_or_default()
}
pub(super) fn endpoint(e: Endpoint) -> pb::Endpoint {
    pb::Endpoint { ip: ip_bytes(e.ip), port: u32::from(e.port) }
}
pub(super) fn text(t: Option<&String>) -> String {
    t.cloned().unwrap_or_default()
}
pub(super) fn pairs(list: &[(String, String)]) -> Vec<pb::Pair> {
    list.iter().map(|(k, v)| pb::Pair { key: k.clone(), value: v.clone() }).collect()
}

pub(super) fn to_ip(bytes: &[u8], field: &'static str) -> Result<IpAddr, WireError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| WireError::Field(field))?;
    Ok(IpAddr::from(v6).to_canonical())
}
pub(super) fn to_mac(bytes: &[u8]) -> Result<Option<Mac>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    <[u8; 6]>::try_from(bytes).map(|m| Some(Mac(m))).map_err(|_| WireError::Field("mac"))
}
pub(super) fn to_u16(n: u32, field: &'static str) -> Result<u16, WireError> {
    u16::try_from(n).map_err(|_| WireError::Field(field))
}
pub(super) fn to_endpoint(
    e: Option<pb::Endpoint>,
    field: &'static str,
) -> Result<Endpoint, WireError> {
    let e = e.ok_or(WireError::Field(field))?;
    Ok(Endpoint { ip: to_ip(&e.ip, field)?, port: to_u16(e.port, field)? })
}
/// Printable and at most `max` bytes; already printable text is kept as it is.
pub(super) fn clean(text: String, max: usize) -> String {
    let fine = text.len() <= max && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if fine { text } else { cut(printable(text.as_bytes(), max), max) }
}
pub(super) fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then(|| clean(text, TEXT_BYTES_MAX))
}
pub(super) fn to_name(text: &str, field: &'static str) -> Result<Name, WireError> {
    Name::parse(text.as_bytes()).map_err(|_| WireError::Field(field))
}
pub(super) fn to_pairs(list: Vec<pb::Pair>, most: usize) -> Vec<(String, String)> {
    let pair = |p: pb::Pair| (clean(p.key, TEXT_BYTES_MAX), clean(p.value, 1_024));
    list.into_iter().take(most).map(pair).collect()
}
