//! A packet that the firewall stopped or logged.

use serde::{Deserialize, Serialize};

use super::{Endpoint, Mac};

/// What the firewall did with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Logged; nothing says that it was stopped.
    #[default]
    Logged,
    /// Silently discarded.
    Drop,
    /// Discarded with a reply.
    Reject,
}

impl Verdict {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logged => "logged",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
}

/// A packet the firewall stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Firewall {
    /// What happened to it.
    #[serde(default)]
    pub verdict: Verdict,
    /// The rule's log prefix, printable.
    #[serde(default)]
    pub prefix: String,
    /// IP protocol number.
    pub proto: u8,
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// Interface it came in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_iface: Option<String>,
    /// Interface it would have left by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_iface: Option<String>,
    /// Sender's MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// IP bytes of the packet, where known.
    #[serde(default)]
    pub bytes: u32,
}
