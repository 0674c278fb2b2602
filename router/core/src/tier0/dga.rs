//! dga
use super::Found;
use crate::event::Dns;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {}

impl Detector {
    pub(super) fn new(_config: &Config) -> Self {
        Self {}
    }
    pub(super) fn reconfigure(&mut self, _config: &Config) {}
    pub(super) fn on_dns(&mut self, _time: Timestamp, _dns: &Dns, _found: &mut Vec<Found>) {}
    pub(super) fn on_tick(&mut self, _now: Timestamp, _found: &mut Vec<Found>) {}
}
