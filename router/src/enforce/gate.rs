//! What is in force: lists, what each wants done, who our clients are, and exceptions.
//!
//! In: new lists and settings from whoever loads them, exceptions from whoever adds them.
//! Out: one handle that the queue's thread takes for each packet. Any thread.
//!
//! Invariant: the queue's thread never waits for a file: locks are held for an exchange of
//! pointers, and exceptions are looked through only for what is listed.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use agentmon_core::Name;
use agentmon_core::event::is_public;
use agentmon_core::tier0::Tier0Config;
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::time::Timestamp;
use ipnet::IpNet;

use super::exceptions::{AddError, Case, Exception, Exceptions, Rule};
use crate::collect::neighbours::Neighbours;

/// The lists and settings of one moment.
#[derive(Debug, Default)]
pub struct InForce {
    lists: Blocklist,
    local: Vec<IpNet>,
    neighbours: Neighbours,
}

impl InForce {
    /// The list to be enforced that has a name, and what stands there.
    #[must_use]
    pub fn name(&self, name: &Name) -> Option<(String, String)> {
        let hit = self.lists.judge(name).block?;
        Some((hit.list.to_owned(), hit.entry.to_owned()))
    }

    /// The list to be enforced that has an address, or this port of it, and what stands there.
    #[must_use]
    pub fn address(&self, ip: IpAddr, port: Option<u16>) -> Option<(String, String)> {
        let hit = self.lists.judge_address(ip, port).block?;
        Some((hit.list.to_owned(), hit.entry.to_string()))
    }

    /// Ours to judge: a private address, one of the networks of `tier0.local`, or an IPv6
    /// address of the neighbour table. Anybody else is the internet, who must get no answer
    /// from us: it could be somebody's false return address.
    #[must_use]
    pub fn is_client(&self, ip: IpAddr) -> bool {
        !is_public(ip)
            || self.local.iter().any(|net| net.contains(&ip))
            || (ip.is_ipv6() && self.neighbours.snapshot().contains_key(&ip))
    }
}

#[derive(Debug, Default)]
struct Shared {
    in_force: RwLock<Arc<InForce>>,
    exceptions: RwLock<Arc<Exceptions>>,
    /// Held while exceptions are changed and written down.
    changing: Mutex<()>,
    neighbours: Neighbours,
}

/// What is in force, shared with whoever changes it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Shared>);

impl Gate {
    /// With the neighbour table by which clients are known.
    #[must_use]
    pub fn new(neighbours: Neighbours) -> Self {
        Self(Arc::new(Shared { neighbours, ..Shared::default() }))
    }

    /// Puts other lists in force, and what the settings say of our clients.
    pub fn set(&self, lists: Blocklist, config: &Tier0Config) {
        let (local, neighbours) = (config.local.clone(), self.0.neighbours.clone());
        let in_force = Arc::new(InForce { lists, local, neighbours });
        *self.0.in_force.write().unwrap_or_else(PoisonError::into_inner) = in_force;
    }

    /// The lists in force, by a handle: asked for with every packet.
    #[must_use]
    pub fn lists(&self) -> Arc<InForce> {
        Arc::clone(&self.0.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whose address it is.
    pub(super) fn neighbours(&self) -> &Neighbours {
        &self.0.neighbours
    }

    /// The exceptions, by a handle.
    #[must_use]
    pub fn exceptions(&self) -> Arc<Exceptions> {
        Arc::clone(&self.0.exceptions.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The exception that this falls under.
    pub(super) fn excepted(&self, case: &Case<'_>, now: Timestamp) -> Option<String> {
        self.exceptions().find(case, now).map(Rule::to_string)
    }

    /// What was added before the last restart. What cannot be read lets nothing through.
    ///
    /// # Errors
    /// As [`Exceptions::load`].
    pub fn load(&self, folder: &Path, now: Timestamp) -> anyhow::Result<()> {
        let _changing = self.changing();
        self.put(Exceptions::load(folder, now)?);
        Ok(())
    }

    /// Puts the configuration's exceptions in force.
    pub fn configure(&self, exceptions: &[Exception]) {
        let _changing = self.changing();
        let mut all = Exceptions::clone(&self.exceptions());
        all.configure(exceptions);
        self.put(all);
    }

    /// Adds an exception, at once.
    ///
    /// # Errors
    /// As [`Exceptions::add`].
    pub fn allow(&self, exception: &Exception, now: Timestamp) -> Result<Rule, AddError> {
        self.change(|all| all.add(exception, now))
    }

    /// Takes exceptions away that were added, at once; how many.
    ///
    /// # Errors
    /// As [`Exceptions::remove`].
    pub fn forbid(&self, which: &str) -> Result<usize, AddError> {
        self.change(|all| all.remove(which))
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Exceptions) -> Result<T, AddError>,
    ) -> Result<T, AddError> {
        let _changing = self.changing();
        let mut all = Exceptions::clone(&self.exceptions());
        let changed = change(&mut all);
        // Also where it could not be written down: it was asked for now.
        self.put(all);
        changed
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, all: Exceptions) {
        *self.0.exceptions.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
    }
}
