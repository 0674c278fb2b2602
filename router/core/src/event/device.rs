//! A device that showed itself: a lease or a neighbour entry.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Mac;

/// How a device was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceSource {
    /// A DHCP lease.
    Lease,
    /// The kernel's neighbour table (ARP, NDP).
    #[default]
    Neighbour,
}

impl DeviceSource {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Neighbour => "neighbour",
        }
    }
}

/// A device showed itself at an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its link-layer address.
    pub mac: Mac,
    /// The address it has now.
    pub ip: IpAddr,
    /// The name it gave, printable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Interface it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// Lease or neighbour entry.
    #[serde(default)]
    pub source: DeviceSource,
}
