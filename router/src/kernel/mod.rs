//! What the kernel offers on this machine, and how to get more of it.
//!
//! [`probe`] looks and changes nothing; [`setup`] sets the few kernel switches and can
//! install agentmon's own firewall table. Used by `agentmon-router check` and `setup`, and
//! by `agentmon up`. Runs once, on the caller's thread; some milliseconds.
//!
//! Invariants: probing leaves no trace; nothing is set up unless asked for; agentmon's
//! table decides over no packet, and removing it leaves no trace.

pub mod fw4;
pub mod hold;
pub mod probe;
pub mod rules;
pub mod setup;

use std::fmt;

use serde::Serialize;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What: `byte counts`.
    pub what: &'static str,
    /// As it should be.
    pub ok: bool,
    /// What was found: `net.netfilter.nf_conntrack_acct is 0`.
    pub detail: String,
    /// What to do about it.
    pub mend: Option<String>,
}

impl Check {
    /// As it should be.
    #[must_use]
    pub fn good(what: &'static str, detail: impl Into<String>) -> Self {
        Self { what, ok: true, detail: detail.into(), mend: None }
    }
    /// Not as it should be.
    #[must_use]
    pub fn bad(what: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, ok: false, detail: detail.into(), mend: Some(mend.into()) }
    }
}

/// `byte counts: net.netfilter.nf_conntrack_acct is 0; mend: sysctl -w ...`.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.detail)?;
        match &self.mend {
            Some(mend) => write!(f, "; mend: {mend}"),
            None => Ok(()),
        }
    }
}
