//! The score of RITA 5, so that its users find their figures again.
//!
//! In: connections as Zeek tells them, with the names their TLS or HTTP carried, and
//! [`Settings`]. Out: one [`Row`] for each source and name, or source and address. Pure, in
//! memory; bounded by the caller's rows and [`TIMES_MAX`] per pair.
//!
//! Order: [`scope`] says which connections count, [`pairs`] gathers them into rows, [`score`]
//! is the arithmetic of one row, `spread` who else goes there, `subdomains` the domains with
//! very many names, [`fuse`] turns all into a threat score.
//!
//! Formulas and thresholds are RITA's published ones (its documentation and configuration
//! file); there are two sets of defaults, see [`Defaults`].

pub mod fuse;
pub mod pairs;
pub mod scope;
pub mod score;
mod spread;
mod subdomains;
#[cfg(test)]
mod tests;

use ipnet::IpNet;

pub use pairs::{Asked, Connection, Logs, Row, analyse};

/// Most times and sizes kept of one pair: one a second for a day. A pair with more
/// connections is a strobe, not a beacon.
pub const TIMES_MAX: usize = 86_400;
/// Distinct seconds a pair needs to be looked at.
pub const TIMES_MIN: usize = 4;
/// Length of the window that is scored, in seconds.
pub const WINDOW_SECONDS: i64 = 86_400;

/// RITA has two sets of defaults, which differ: those in its code, in force where a
/// configuration does not name a value, and those of the configuration file it ships.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Defaults {
    /// Those in its code; what its own published results were made with.
    #[default]
    Code,
    /// Those of its configuration file.
    Shipped,
}

impl Defaults {
    /// Thresholds of the beacon score, in percent.
    #[must_use]
    pub const fn beacon(self) -> fuse::Thresholds {
        match self {
            Self::Code => fuse::Thresholds([50.0, 75.0, 90.0, 100.0]),
            Self::Shipped => fuse::Thresholds([50.0, 70.0, 90.0, 100.0]),
        }
    }

    /// What a program adds that its source showed to one destination alone.
    #[must_use]
    pub const fn rare_signature(self) -> f64 {
        match self {
            Self::Code => 0.0,
            Self::Shipped => 0.15,
        }
    }

    /// What a rare (or common) destination adds (or takes off).
    #[must_use]
    pub const fn prevalence(self) -> f64 {
        match self {
            Self::Code => 0.0,
            Self::Shipped => 0.15,
        }
    }
}

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Networks of one's own.
    pub internal: Vec<IpNet>,
    /// Keep connections from outside to the inside.
    pub external_to_internal: bool,
    /// Which set of defaults.
    pub defaults: Defaults,
}

impl Default for Settings {
    fn default() -> Self {
        let internal = scope::INTERNAL.iter().filter_map(|net| net.parse().ok()).collect();
        Self { internal, external_to_internal: false, defaults: Defaults::default() }
    }
}
