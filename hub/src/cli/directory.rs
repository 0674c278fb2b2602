//! Which device an address was at a time: names next to addresses in every list. A name that
//! two devices have, by chance or on purpose, comes with the MAC's end.
//!
//! In: the store's devices and the addresses they had. Out: a device's name for (address,
//! MAC, time). Loaded once per command; at most [`ADDRESSES_MAX`] rows, newest first, far
//! above a home's few hundred.

use std::collections::HashMap;
use std::sync::Arc;

use agentmon_core::Timestamp;
use serde_json::Value;

use super::backend::{Backend, query};
use super::when;
use crate::destinations::Destinations;

/// Most address rows loaded.
const ADDRESSES_MAX: usize = 20_000;

/// Devices by address and MAC.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    by_mac: HashMap<String, String>,
    /// Who had the address, with the time it was first seen there; newest first.
    by_address: HashMap<String, Vec<(Timestamp, String)>>,
    destinations: Option<Arc<Destinations>>,
}

impl Directory {
    /// Reads devices and their addresses.
    pub(crate) fn load(hub: &mut dyn Backend) -> anyhow::Result<Self> {
        let mut this = Self::default();
        let sql = format!(
            "SELECT a.ip, a.mac, CASE WHEN d.shared THEN d.hostname || ' (' || right(a.mac, 8) || ')' \
               ELSE d.hostname END, a.first_seen FROM device_addresses a \
             JOIN (SELECT mac, hostname, count(*) OVER (PARTITION BY lower(hostname)) > 1 AS shared \
               FROM devices WHERE hostname IS NOT NULL) d USING (mac) \
             ORDER BY a.first_seen DESC, a.last_seen DESC, a.mac LIMIT {ADDRESSES_MAX}"
        );
        query(hub, &sql, vec![], &mut |row| {
            if let [Value::String(ip), Value::String(mac), Value::String(name), since] =
                row.as_slice()
            {
                let since = since.as_str().and_then(when::from_answer).unwrap_or_default();
                this.add(ip, mac, name, since);
            }
            Ok(())
        })?;
        Ok(this)
    }

    /// Kinds of networks, for sheets that tell them.
    pub(crate) fn with(mut self, destinations: Arc<Destinations>) -> Self {
        self.destinations = Some(destinations);
        self
    }

    pub(crate) fn destinations(&self) -> Option<&Destinations> {
        self.destinations.as_deref()
    }

    fn add(&mut self, ip: &str, mac: &str, name: &str, since: Timestamp) {
        self.by_mac.insert(mac.to_owned(), name.to_owned());
        self.by_address.entry(ip.to_owned()).or_default().push((since, name.to_owned()));
    }

    /// The device's name: by its MAC where the record has one, else whoever had come to
    /// the address last at that time, else whoever came next.
    pub(crate) fn name(&self, ip: &str, mac: Option<&str>, at: Option<Timestamp>) -> Option<&str> {
        if let Some(name) = mac.and_then(|mac| self.by_mac.get(mac)) {
            return Some(name);
        }
        let owners = self.by_address.get(ip)?;
        let at_the_time = owners.iter().find(|(since, _)| at.is_none_or(|at| *since <= at));
        at_the_time.or(owners.last()).map(|(_, name)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_owner_at_the_time() {
        let at = Timestamp::from_secs;
        let mut d = Directory::default();
        d.add("192.0.2.5", "m2", "phone", at(200));
        d.add("192.0.2.5", "m1", "laptop", at(100));
        #[track_caller]
        fn check(d: &Directory, mac: Option<&str>, at: Option<i64>, expected: Option<&str>) {
            assert_eq!(d.name("192.0.2.5", mac, at.map(Timestamp::from_secs)), expected);
        }
        check(&d, None, Some(150), Some("laptop"));
        check(&d, None, Some(250), Some("phone"));
        check(&d, None, Some(50), Some("laptop"));
        check(&d, None, None, Some("phone"));
        check(&d, Some("m1"), Some(250), Some("laptop"));
        check(&d, Some("m9"), Some(250), Some("phone"));
        assert_eq!(d.name("192.0.2.6", None, None), None);
    }
}
