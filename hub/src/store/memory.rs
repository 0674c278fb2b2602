//! What the writer keeps in memory beside the file, so that storing a batch asks the file
//! nothing: cursors, open flows, devices, names, numbers, last health.
//!
//! Everything here can be read back from the file ([`Memory::load`]); after a failed
//! transaction it is, because memory may then be ahead of the file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use agentmon_core::Timestamp;
use duckdb::Connection;

use super::StoreError;
use super::arrivals::Arrivals;
use super::peers::Peers;
use crate::alert::Numbers;
use crate::alert::watch::Watches;
use crate::authority::judge::Judge;
use crate::correlate::Correlator;
use crate::devices::Devices;
use crate::vendors::Vendors;

/// Most open flows followed; a full conntrack table of a large router holds 262,144.
pub(crate) const OPEN_FLOWS_MAX: usize = 524_288;
/// Most epochs remembered per sensor: each is one restart of the sensor with its ring lost.
pub(crate) const EPOCHS_MAX: usize = 256;
/// The same of imports, where each is a stream of one file: some for each hour of some years.
pub(crate) const IMPORT_EPOCHS_MAX: usize = 131_072;

/// How far one epoch of a sensor is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) seq: u64,
    pub(crate) events: u64,
    pub(crate) bad: u64,
    pub(crate) updated: Timestamp,
}

/// The last health of a sensor as it stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) collectors: BTreeMap<String, String>,
}

/// The writer's memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// By (sensor, epoch).
    pub(crate) cursors: BTreeMap<(i32, u64), Cursor>,
    /// (sensor, flow id) of the rows in `flows_open`.
    pub(crate) open: HashSet<(i32, u64)>,
    pub(crate) devices: Devices,
    /// Makers of devices.
    pub(crate) vendors: Arc<Vendors>,
    pub(crate) peers: Peers,
    pub(crate) correlator: Correlator,
    pub(crate) numbers: Numbers,
    pub(crate) arrivals: Arrivals,
    /// Watched names that were asked for and wait for a connection.
    pub(crate) watches: Watches,
    /// The policy about hosts' connections.
    pub(crate) judge: Judge,
    /// What is found now is not told unless it is known bad; of the configuration.
    pub(crate) learning: bool,
    pub(crate) reported: HashMap<i32, Reported>,
    /// `hub_counters` as they stand in the file.
    pub(crate) counters: BTreeMap<String, u64>,
}

impl Memory {
    /// Reads everything, names included.
    ///
    /// # Errors
    /// What DuckDB says.
    pub(crate) fn load(connection: &Connection, vendors: Arc<Vendors>) -> Result<Self, StoreError> {
        let mut memory = Self { vendors, ..Self::default() };
        memory.reload(connection)?;
        memory.correlator.warm_up(connection, &memory.devices)?;
        Ok(memory)
    }

    /// Reads again all that a failed transaction may have put ahead of the file. Names
    /// stay: that an answer was seen is true even if its row was not stored.
    ///
    /// # Errors
    /// What DuckDB says.
    pub(crate) fn reload(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.cursors = load_cursors(connection)?;
        self.open = load_open(connection)?;
        self.devices = Devices::load(connection, Arc::clone(&self.vendors))?;
        self.peers = Peers::load(connection)?;
        self.numbers = Numbers::load(connection)?;
        self.arrivals.reload(connection)?;
        self.watches = Watches::load(connection)?;
        self.reported = load_reported(connection)?;
        self.counters = load_counters(connection)?;
        self.judge.forget();
        Ok(())
    }

    /// The sensor's epoch that was heard of last.
    pub(crate) fn newest_epoch(&self, sensor: i32) -> Option<u64> {
        let epochs = self.cursors.range((sensor, 0)..=(sensor, u64::MAX));
        epochs.max_by_key(|(_, cursor)| cursor.updated).map(|((_, epoch), _)| *epoch)
    }

    /// The epochs beyond `most`, longest unheard of first; forgotten here.
    pub(crate) fn drop_old_epochs(&mut self, sensor: i32, most: usize) -> Vec<u64> {
        let epochs = self.cursors.range((sensor, 0)..=(sensor, u64::MAX));
        let excess = epochs.clone().count().saturating_sub(most);
        if excess == 0 {
            return Vec::new();
        }
        let mut epochs: Vec<_> = epochs.map(|((_, epoch), c)| (c.updated, *epoch)).collect();
        epochs.sort_unstable();
        let old: Vec<u64> = epochs.into_iter().take(excess).map(|(_, epoch)| epoch).collect();
        self.cursors.retain(|(of, epoch), _| *of != sensor || !old.contains(epoch));
        old
    }
}

fn load_cursors(connection: &Connection) -> Result<BTreeMap<(i32, u64), Cursor>, StoreError> {
    let sql = "SELECT sensor, epoch, seq, events, bad, epoch_us(updated) FROM ingest_cursor";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut cursors = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let updated = Timestamp::from_micros(row.get(5)?);
        let cursor = Cursor { seq: row.get(2)?, events: row.get(3)?, bad: row.get(4)?, updated };
        cursors.insert((row.get(0)?, row.get(1)?), cursor);
    }
    Ok(cursors)
}

fn load_open(connection: &Connection) -> Result<HashSet<(i32, u64)>, StoreError> {
    let mut statement = connection.prepare("SELECT sensor, id FROM flows_open")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn load_reported(connection: &Connection) -> Result<HashMap<i32, Reported>, StoreError> {
    let mut all: HashMap<i32, Reported> = HashMap::new();
    let mut statement = connection.prepare("SELECT sensor, name, value FROM sensor_counters")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        all.entry(row.get(0)?).or_default().counters.insert(row.get(1)?, row.get(2)?);
    }
    let mut statement = connection.prepare("SELECT sensor, name, state FROM sensor_collectors")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        all.entry(row.get(0)?).or_default().collectors.insert(row.get(1)?, row.get(2)?);
    }
    Ok(all)
}

fn load_counters(connection: &Connection) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut statement = connection.prepare("SELECT name, value FROM hub_counters")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
