//! Devices from the kernel's neighbour table (ARP, NDP).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use agentmon_core::event::Mac;
use serde::{Deserialize, Serialize};

use super::{Collector, Context};

/// Who is behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Link-layer address.
    pub mac: Mac,
    /// Interface, printable.
    pub iface: Arc<str>,
}

/// The neighbour table by address.
pub type Table = HashMap<IpAddr, Neighbour>;

/// The latest table, shared by the neighbours collector (which writes it) and those who
/// want to know whose address it is. Cheap to clone; clones share the table.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(Arc<RwLock<Arc<Table>>>);

impl Neighbours {
    /// The table now; to be kept for a batch, not for longer.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Table> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
    /// Puts another table in its place.
    pub fn replace(&self, table: Table) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
}

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
