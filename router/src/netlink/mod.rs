//! Netlink, as thin as the collectors need it: a socket, messages and attributes read in
//! place, and NFLOG groups.
//!
//! Kernel names (`CTA_*`, `NFULA_*`) live here and in the decoders; they end at
//! `normalise`.

#[cfg(test)]
pub(crate) mod captured;
pub mod interfaces;
pub mod message;
pub mod nflog;
pub mod socket;

pub use message::{Attribute, Attributes, Malformed, Message, Request, attributes, messages};
pub use socket::{DATAGRAM_BYTES_MAX, NetlinkError, Received, Socket};

/// `NETLINK_NETFILTER`: conntrack, NFLOG, nftables.
pub const NETFILTER: isize = netlink_sys::protocols::NETLINK_NETFILTER;
/// `NETLINK_ROUTE`: interfaces, addresses, neighbours.
pub const ROUTE: isize = netlink_sys::protocols::NETLINK_ROUTE;
