//! blocklist
use super::Found;
use crate::event::Dns;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

/// A set of names.
#[derive(Debug, Default)]
pub struct Blocklist {}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    lists: Blocklist,
}

impl Detector {
    pub(super) fn new(_config: &Config, lists: Blocklist) -> Self {
        Self { lists }
    }
    pub(super) fn reconfigure(&mut self, _config: &Config) {}
    pub(super) fn on_dns(&mut self, _time: Timestamp, _dns: &Dns, _found: &mut Vec<Found>) {}
    pub(super) const fn lists(&self) -> &Blocklist {
        &self.lists
    }
}
