//! The one that writes: batches, commands and upkeep, one after the other.
//!
//! In: [`Incoming`] batches and changes. Out: committed transactions. [`Writer`] is the
//! work itself, on whatever thread owns it; [`super::handle`] runs it on a thread behind
//! a queue.
//!
//! Invariants: a batch is stored exactly once (its rows and its cursor are one
//! transaction); a failed transaction leaves file and memory as before it; a file that
//! DuckDB declared broken (full disk at a bad moment) is opened anew.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use agentmon_core::Timestamp;
use agentmon_core::event::Mac;
use agentmon_core::time::{Clock, Mono};
use agentmon_router::counters::Counters;
use duckdb::Connection;

use super::memory::Memory;
use super::peers::Peers;
use super::readers::Readers;
use super::staging::{Outcome, Staging};
use super::{Limits, StoreError, commit, open_write};
use crate::alert::News;
use crate::authority::judge::{Judge, Waits};
use crate::deliver::Routes;
use crate::ingest::Incoming;
use crate::vendors::{self, Vendors};

/// Upkeep of open flows happens this often.
const SWEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// A device, as a person names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// By its MAC.
    Mac(Mac),
    /// By an address it has.
    Address(IpAddr),
}

/// When the data directory's own table of makers was written; `None` where there is none.
fn table_time(data_dir: &Path) -> Option<SystemTime> {
    std::fs::metadata(vendors::file(data_dir)).and_then(|meta| meta.modified()).ok()
}

/// The writer's own state.
pub struct Writer {
    data_dir: PathBuf,
    limits: Limits,
    /// `None` only between a broken database and a successful new opening.
    connection: Option<Connection>,
    readers: Arc<Readers>,
    memory: Memory,
    counters: Counters,
    clock: Arc<dyn Clock>,
    swept: Mono,
    /// When the data directory's table of makers was written.
    table: Option<SystemTime>,
    /// Who is told of alerts.
    routes: Arc<Routes>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl Writer {
    /// Opens the store for writing.
    ///
    /// # Errors
    /// As [`open_write`].
    pub fn open(
        data_dir: &Path,
        limits: &Limits,
        counters: Counters,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let connection = open_write(data_dir, limits)?;
        let data_dir = &super::absolute(data_dir)?;
        let mut memory = Memory::load(&connection, Vendors::of(data_dir))?;
        memory.judge = Judge::of(data_dir);
        memory.judge.warm_up(&connection)?;
        // Counters go on where the last run ended.
        for (name, value) in &memory.counters {
            counters.counter(name).add(*value);
        }
        let readers = Arc::new(Readers::new(connection.try_clone()?));
        Ok(Self {
            data_dir: data_dir.to_owned(),
            limits: limits.clone(),
            connection: Some(connection),
            readers,
            memory,
            counters,
            swept: clock.mono(),
            clock,
            table: table_time(data_dir),
            routes: Arc::default(),
        })
    }

    /// From now on alerts go into the outbox of those.
    pub fn tell(&mut self, routes: Arc<Routes>) {
        self.routes = routes;
    }

    /// From now on findings are kept and not told, unless they are known bad; or no longer.
    pub fn learn(&mut self, learning: bool) {
        self.memory.learning = learning;
    }

    /// Where readers get their connections.
    #[must_use]
    pub fn readers(&self) -> Arc<Readers> {
        Arc::clone(&self.readers)
    }

    /// Wall time, as this writer sees it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Stores batches in one transaction.
    ///
    /// # Errors
    /// What DuckDB says; then nothing of them is stored.
    pub fn store(&mut self, batches: Vec<Incoming>) -> Result<Vec<Outcome>, StoreError> {
        let counters = self.counters.clone();
        let (routes, now) = (self.routes(), self.now());
        let stored: Result<_, StoreError> = self.transaction(|connection, memory| {
            let mut staging = Staging::default();
            let outcomes: Vec<_> =
                batches.into_iter().map(|b| staging.add(b, memory, &counters)).collect();
            let news = commit::flush(connection, staging, memory, &counters)?;
            let told = routes.enqueue(connection, &news, now, &counters)?;
            Ok((outcomes, news, told))
        });
        let (outcomes, news, told) = stored?;
        self.announce(&news, told);
        Ok(outcomes)
    }

    /// Who is told of alerts.
    pub(super) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }

    /// After the commit that stored the news, and so many rows in the outbox.
    pub(super) fn announce(&self, news: &[News], queued: usize) {
        if queued > 0 {
            self.routes.ring();
        }
        news.iter().for_each(News::log);
    }

    /// Upkeep, about once a second: late names, vanished flows, counters.
    ///
    /// # Errors
    /// What DuckDB says; the next tick tries again.
    pub fn tick(&mut self) -> Result<(), StoreError> {
        if self.connection.is_none() {
            self.reopen()?;
        }
        if self.memory.judge.look()
            && let Some(connection) = &self.connection
        {
            self.memory.judge.warm_up(connection)?;
        }
        self.judge_waiting()?;
        let late = self.memory.correlator.late(&self.memory.devices);
        if !late.is_empty() {
            let counters = self.counters.clone();
            let (routes, now) = (self.routes(), self.now());
            let (named, news, told) = self.transaction(|connection, memory| {
                let hits = late.iter().filter_map(|(flow, resolved)| {
                    let mac = memory.devices.mac_of(flow.src, flow.began);
                    memory.watches.named_late(flow, mac, resolved)
                });
                let hits: Vec<_> = hits.collect();
                let named = commit::name_late(connection, &mut memory.peers, &late)?;
                let news = commit::follow(connection, &hits, memory)?;
                let told = routes.enqueue(connection, &news, now, &counters)?;
                Ok::<_, StoreError>((named, news, told))
            })?;
            self.announce(&news, told);
            self.counters.counter("correlate.named_late").add(u64::try_from(named).unwrap_or(0));
        }
        if self.counters.snapshot() != self.memory.counters {
            let counters = self.counters.clone();
            self.transaction(|connection, memory| {
                commit::flush_counters(connection, memory, &counters)
            })?;
        }
        if self.clock.mono().since(self.swept) >= SWEEP_EVERY {
            self.swept = self.clock.mono();
            let now = self.now();
            let swept =
                self.transaction(|connection, memory| commit::sweep_open(connection, memory, now))?;
            self.counters.counter("ingest.flows_vanished").add(u64::try_from(swept).unwrap_or(0));
            self.revise_vendors()?;
        }
        Ok(())
    }

    /// Hosts' connections that have waited for a name: it has come, or nobody waits longer.
    fn judge_waiting(&mut self) -> Result<(), StoreError> {
        let Memory { judge, correlator, devices, .. } = &mut self.memory;
        let due = judge.due(self.clock.mono(), |waits| {
            let c = &waits.connection;
            let began = c.start.unwrap_or(waits.time);
            let mac = devices.mac_of(c.local.ip, began);
            correlator.resolve(c.local.ip, mac, c.remote.ip, began)
        });
        if due.is_empty() {
            return Ok(());
        }
        let (counters, routes, now) = (self.counters.clone(), self.routes(), self.now());
        let stored = self.transaction(|connection, memory| {
            let mut staging = Staging::default();
            for waits in &due {
                let Waits { time, sensor, connection, .. } = waits;
                for finding in memory.judge.decide(*time, *sensor, connection) {
                    staging.finding(*time, *sensor, None, finding, memory);
                }
            }
            let named = commit::name_connections(connection, &due)?;
            let news = commit::flush(connection, staging, memory, &counters)?;
            let told = routes.enqueue(connection, &news, now, &counters)?;
            Ok::<_, StoreError>((named, news, told))
        });
        let (named, news, told) = match stored {
            Ok(stored) => stored,
            Err(error) => {
                self.memory.judge.put_back(due);
                return Err(error);
            }
        };
        self.announce(&news, told);
        self.counters.counter("correlate.named_late").add(u64::try_from(named).unwrap_or(0));
        Ok(())
    }

    /// Runs a change in a transaction of its own.
    ///
    /// # Errors
    /// The change's own error, or what DuckDB says; then nothing is changed.
    pub fn change<T, E: From<StoreError>>(
        &mut self,
        change: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transaction(|connection, _| change(connection))
    }

    /// Where the files are.
    #[must_use]
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Forgets where flows went that are hot no longer: their files say it themselves.
    ///
    /// # Errors
    /// What DuckDB says.
    pub(crate) fn forget_peers(&mut self) -> Result<usize, StoreError> {
        self.transaction(|connection, memory| {
            let sql = "DELETE FROM peers WHERE id NOT IN (SELECT peer FROM flows_done)";
            let gone = connection.execute(sql, [])?;
            memory.peers = Peers::load(connection)?;
            Ok(gone)
        })
    }

    /// Takes over a table of makers that was put there meanwhile.
    fn revise_vendors(&mut self) -> Result<(), StoreError> {
        let table = table_time(&self.data_dir);
        if table == self.table {
            return Ok(());
        }
        self.table = table;
        let vendors = Vendors::of(&self.data_dir);
        tracing::info!("makers of devices: {} blocks, {}", vendors.len(), vendors.about());
        self.transaction(|connection, memory| {
            memory.vendors = Arc::clone(&vendors);
            memory.devices.revise(vendors);
            commit::flush_devices(connection, memory)
        })
    }

    /// Gives a device a name, or takes it away; false where there is no such device or name.
    /// An address stands for the device seen there last.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn name_device(&mut self, who: Who, name: Option<&str>) -> Result<bool, StoreError> {
        let now = self.now();
        self.transaction(|connection, memory| {
            let mac = match who {
                Who::Mac(mac) => Some(mac),
                Who::Address(ip) => memory.devices.newest(ip),
            };
            let Some(mac) = mac.filter(|mac| memory.devices.name(*mac, name, now)) else {
                return Ok(false);
            };
            if name.is_none() {
                let sql = "DELETE FROM device_names WHERE mac = ? AND source = 'hub'";
                connection.execute(sql, [mac.to_string()]).map_err(StoreError::from)?;
            }
            commit::flush_devices(connection, memory).map(|()| true)
        })
    }

    pub(super) const fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    pub(super) const fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn transaction<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&Connection, &mut Memory) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.connection.is_none() {
            self.reopen()?;
        }
        let Some(connection) = self.connection.as_ref() else {
            return Err(StoreError::Db("the database is closed".into()).into());
        };
        let run = |memory: &mut Memory| -> Result<T, E> {
            connection.execute_batch("BEGIN").map_err(StoreError::from)?;
            let value = work(connection, memory)?;
            connection.execute_batch("COMMIT").map_err(StoreError::from)?;
            Ok(value)
        };
        let outcome = run(&mut self.memory);
        if outcome.is_err() {
            self.restore();
        }
        outcome
    }

    /// After a failed transaction: file and memory agree again.
    fn restore(&mut self) {
        if let Some(connection) = &self.connection {
            // A failed COMMIT has rolled back already; then this fails, which is fine.
            drop(connection.execute_batch("ROLLBACK"));
            match self.memory.reload(connection) {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(%error, "the database cannot be read after a failed write; opening it anew");
                }
            }
        }
        if let Err(error) = self.reopen() {
            tracing::error!(%error, "the database cannot be opened; trying again");
        }
    }

    /// DuckDB refuses everything after an error in the middle of a checkpoint or commit;
    /// the file itself is sound (the log is replayed), so it is closed and opened.
    fn reopen(&mut self) -> Result<(), StoreError> {
        self.readers.close();
        self.connection = None;
        let connection = open_write(&self.data_dir, &self.limits)?;
        self.memory.reload(&connection)?;
        self.readers.open(connection.try_clone()?);
        self.connection = Some(connection);
        self.counters.counter("store.reopened").inc();
        Ok(())
    }

    /// Folds the log into the file and closes it.
    ///
    /// # Errors
    /// What DuckDB says; what was committed stays committed.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.memory.judge.hurry();
        let upkeep = self.tick();
        self.readers.close();
        if let Some(connection) = self.connection.take() {
            connection.execute_batch("CHECKPOINT")?;
        }
        upkeep
    }
}
