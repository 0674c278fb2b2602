//! Devices from the kernel's neighbour table (ARP, NDP).

use serde::{Deserialize, Serialize};

use super::{Collector, Context};

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// The collector.
#[derive(Debug)]
pub struct Source {
    config: Config,
}

impl Source {
    /// Not yet reading.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Collector for Source {
    fn name(&self) -> &str {
        "neighbours"
    }

    fn run(&mut self, _context: &Context) -> anyhow::Result<()> {
        anyhow::bail!("not there yet: {:?}", self.config)
    }
}
