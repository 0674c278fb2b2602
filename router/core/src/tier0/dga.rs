//! dga
use super::moment::Moment;
use super::{ConfigError, Found};
use crate::event::Dns;
use serde::{Deserialize, Serialize};

/// Settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {}

impl Detector {
    pub(super) fn new(_config: &Config) -> Self {
        Self {}
    }
    pub(super) fn reconfigure(&mut self, _config: &Config) {}
    pub(super) fn on_dns(&mut self, _at: Moment, _dns: &Dns, _found: &mut Vec<Found>) {}
    pub(super) fn status(&self) -> [(&'static str, u64); 0] {
        []
    }
}
