//! Devices: a MAC each, with names, addresses over time and a maker.
//!
//! In: device events; names given at the hub. Out: a MAC for an address at a time (a device's
//! id is its MAC), rows for `devices`, `device_names` and `device_addresses`. Runs inside the
//! writer. [`stays`] knows the addresses, [`names`] the names.
//!
//! Invariants: at most [`DEVICES_MAX`] devices and `STAYS_MAX` addresses in use (more
//! are counted by the caller); a row is written when something changed or [`REWRITE_AFTER`]
//! has passed, since a neighbour table says the same every few seconds; what a reverse
//! look-up says is a name, no sign of life.

mod names;
mod stays;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{Device, DeviceSource, Mac};
use duckdb::{Connection, params};

use crate::store::StoreError;
use crate::store::rows::{AddressRows, DeviceNameRows, DeviceRows};
use crate::vendors::Vendors;
use names::{Called, HUB, Names};
use stays::{STAYS_MAX, Stay, Stays};

/// Most devices remembered.
pub const DEVICES_MAX: usize = 65_536;
/// `last_seen` in the file is at most this old.
const REWRITE_AFTER: Duration = Duration::from_secs(60);
/// Stays of so many days are read when the hub starts.
const STAYS_READ_DAYS: u32 = 30;

#[derive(Debug)]
struct Known {
    names: Names,
    iface: Option<String>,
    /// As the file has it.
    vendor: Option<String>,
    first: Timestamp,
    last: Timestamp,
    written: Timestamp,
}

/// All devices seen.
#[derive(Debug, Default)]
pub struct Devices {
    vendors: Arc<Vendors>,
    devices: HashMap<Mac, Known>,
    stays: Stays,
    changed: BTreeSet<Mac>,
}

/// Rows to write.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) devices: DeviceRows,
    pub(crate) names: DeviceNameRows,
    pub(crate) addresses: AddressRows,
}

impl Devices {
    /// Takes in one sighting; false when the memory is full and it was not kept.
    pub fn see(&mut self, time: Timestamp, seen: &Device) -> bool {
        // Broadcast and multicast name no device, an all-zero MAC is an unfinished entry.
        if !seen.mac.is_device() {
            return true;
        }
        let is_known = self.devices.contains_key(&seen.mac);
        if seen.source == DeviceSource::Ptr {
            if is_known {
                self.call(seen, time);
            }
            return true;
        }
        if !is_known && self.devices.len() >= DEVICES_MAX {
            return false;
        }
        if !self.stays.see(seen.mac, seen.ip, time) {
            return false;
        }
        self.see_device(time, seen);
        self.call(seen, time);
        true
    }

    fn see_device(&mut self, time: Timestamp, seen: &Device) {
        let vendors = &self.vendors;
        let known = self.devices.entry(seen.mac).or_insert_with(|| {
            self.changed.insert(seen.mac);
            let vendor = vendors.of_mac(seen.mac).map(str::to_owned);
            let (first, last) = (time, time);
            Known { names: Names::default(), iface: None, vendor, first, last, written: time }
        });
        let newest = time >= known.last;
        known.first = known.first.min(time);
        known.last = known.last.max(time);
        let mut changed = known.last.since(known.written) >= REWRITE_AFTER;
        if seen.iface.is_some() && known.iface != seen.iface && (newest || known.iface.is_none()) {
            known.iface.clone_from(&seen.iface);
            changed = true;
        }
        if changed {
            self.changed.insert(seen.mac);
        }
    }

    fn call(&mut self, seen: &Device, time: Timestamp) {
        let Some(known) = self.devices.get_mut(&seen.mac) else { return };
        if let Some(name) = &seen.hostname
            && known.names.call(seen.source.as_str(), name, time)
        {
            self.changed.insert(seen.mac);
        }
    }

    /// A name given at the hub to a known device, or taken away; false where there is no such
    /// device, or no such name.
    pub(crate) fn name(&mut self, mac: Mac, name: Option<&str>, time: Timestamp) -> bool {
        let Some(known) = self.devices.get_mut(&mac) else { return false };
        let done = match name {
            Some(name) => {
                known.names.forget(HUB);
                known.names.call(HUB, name, time)
            }
            None => known.names.forget(HUB),
        };
        if done {
            self.changed.insert(mac);
        }
        done
    }

    /// The device that had the address at about that time.
    #[must_use]
    pub fn mac_of(&self, ip: IpAddr, time: Timestamp) -> Option<Mac> {
        self.stays.owner(ip, time).map(|(mac, _)| mac)
    }

    /// Since when the device had the address it had at about that time.
    #[must_use]
    pub fn since(&self, mac: Mac, ip: IpAddr, time: Timestamp) -> Option<Timestamp> {
        self.stays.owner(ip, time).filter(|(owner, _)| *owner == mac).map(|(_, since)| since)
    }

    /// The device seen last at an address.
    #[must_use]
    pub fn newest(&self, ip: IpAddr) -> Option<Mac> {
        self.stays.newest(ip)
    }

    /// When the device was seen first.
    #[must_use]
    pub fn first_seen(&self, mac: Mac) -> Option<Timestamp> {
        self.devices.get(&mac).map(|known| known.first)
    }

    /// Who made the device.
    #[must_use]
    pub fn vendor(&self, mac: Mac) -> Option<&str> {
        self.vendors.of_mac(mac)
    }

    /// Another table of makers; what it says otherwise is written with the next rows.
    pub fn revise(&mut self, vendors: Arc<Vendors>) {
        self.vendors = vendors;
        for (mac, known) in &mut self.devices {
            let vendor = self.vendors.of_mac(*mac);
            if known.vendor.as_deref() != vendor {
                known.vendor = vendor.map(str::to_owned);
                self.changed.insert(*mac);
            }
        }
    }

    /// Rows to write; counts as written.
    pub(crate) fn rows(&mut self) -> Written {
        let mut out = Written::default();
        for mac in std::mem::take(&mut self.changed) {
            let Some(known) = self.devices.get_mut(&mac) else { continue };
            known.written = known.last;
            push_device(&mut out.devices, mac, known);
            for called in known.names.all_mut() {
                called.written = called.last;
                push_name(&mut out.names, mac, called);
            }
        }
        for (mac, ip, stay) in self.stays.take_changed() {
            out.addresses.mac.show(mac);
            out.addresses.ip.show(ip);
            out.addresses.first_seen.push(stay.first);
            out.addresses.last_seen.push(stay.last);
            out.addresses.stay.append_value(stay.number);
            out.addresses.rows += 1;
        }
        out
    }

    /// Reads what the file knows.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn load(connection: &Connection, vendors: Arc<Vendors>) -> Result<Self, StoreError> {
        let mut all = Self::default();
        all.load_devices(connection)?;
        all.load_names(connection)?;
        all.load_stays(connection)?;
        all.revise(vendors);
        let kinds = "SELECT mac FROM devices WHERE mac_kind IS NULL";
        let mut statement = connection.prepare(kinds)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            all.changed.extend(row.get::<_, String>(0)?.parse::<Mac>());
        }
        Ok(all)
    }

    fn load_devices(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare(
            "SELECT mac, iface, vendor, epoch_us(first_seen), epoch_us(last_seen) FROM devices",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (first, last) = span(row, 3)?;
            let Ok(mac) = row.get::<_, String>(0)?.parse() else { continue };
            let (iface, vendor) = (row.get(1)?, row.get(2)?);
            let names = Names::default();
            self.devices.insert(mac, Known { names, iface, vendor, first, last, written: last });
        }
        Ok(())
    }

    fn load_names(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare(
            "SELECT mac, source, name, epoch_us(first_seen), epoch_us(last_seen) FROM device_names",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mac = row.get::<_, String>(0)?.parse();
            let source = names::source(&row.get::<_, String>(1)?);
            let (Ok(mac), Some(source)) = (mac, source) else { continue };
            let (first, last) = span(row, 3)?;
            let called = Called { source, name: row.get(2)?, first, last, written: last };
            if let Some(known) = self.devices.get_mut(&mac) {
                known.names.restore(called);
            }
        }
        Ok(())
    }

    /// The latest: for what is older, the file is asked.
    fn load_stays(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare(&format!(
            "FROM (SELECT mac, ip, epoch_us(first_seen) AS since, epoch_us(last_seen), stay
                FROM device_addresses
                WHERE last_seen > (SELECT max(last_seen) FROM device_addresses)
                    - INTERVAL {STAYS_READ_DAYS} DAY
                ORDER BY last_seen DESC LIMIT ?)
             ORDER BY since",
        ))?;
        let mut rows = statement.query(params![STAYS_MAX as u64])?;
        while let Some(row) = rows.next()? {
            let (first, last) = span(row, 2)?;
            let (mac, ip) = (row.get::<_, String>(0)?.parse(), row.get::<_, String>(1)?.parse());
            let (Ok(mac), Ok(ip)) = (mac, ip) else { continue };
            self.stays.restore(mac, ip, Stay::new(row.get(4)?, first, last));
        }
        Ok(())
    }
}

fn push_device(rows: &mut DeviceRows, mac: Mac, known: &Known) {
    let best = known.names.best();
    rows.mac.show(mac);
    rows.hostname.option(best.map(|called| called.name.as_str()));
    rows.name_source.option(best.map(|called| called.source));
    rows.iface.option(known.iface.as_deref());
    rows.mac_kind.push(mac.kind().as_str());
    rows.vendor.option(known.vendor.as_deref());
    rows.first_seen.push(known.first);
    rows.last_seen.push(known.last);
    rows.rows += 1;
}

fn push_name(rows: &mut DeviceNameRows, mac: Mac, called: &Called) {
    rows.mac.show(mac);
    rows.source.push(called.source);
    rows.name.push(&called.name);
    rows.first_seen.push(called.first);
    rows.last_seen.push(called.last);
    rows.rows += 1;
}

fn span(row: &duckdb::Row<'_>, at: usize) -> Result<(Timestamp, Timestamp), StoreError> {
    Ok((Timestamp::from_micros(row.get(at)?), Timestamp::from_micros(row.get(at + 1)?)))
}

#[cfg(test)]
mod tests {
    use agentmon_core::event::DeviceSource;

    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(1_795_000_000 + s)
    }
    fn device(mac: u8, ip: &str, hostname: Option<&str>) -> Device {
        Device {
            mac: Mac([0, 0, 0x5e, 0, 0x53, mac]),
            ip: ip.parse().unwrap(),
            hostname: hostname.map(Into::into),
            iface: None,
            source: DeviceSource::Lease,
        }
    }

    #[test]
    fn rows_are_written_for_changes_and_once_a_minute() {
        let mut devices = Devices::default();
        let mut written = |s, name| {
            devices.see(at(s), &device(1, "192.0.2.9", name));
            let written = devices.rows();
            (written.devices.rows, written.addresses.rows)
        };
        assert_eq!(written(0, None), (1, 1));
        assert_eq!(written(10, None), (0, 0));
        assert_eq!(written(20, Some("laptop")), (1, 0));
        assert_eq!(written(30, None), (0, 0), "a sighting without a name keeps the name");
        assert_eq!(written(90, None), (1, 1));
    }

    #[test]
    fn group_addresses_are_no_devices_and_memory_is_bounded() {
        let mut devices = Devices::default();
        let mut group = device(1, "192.0.2.9", None);
        group.mac.0[0] = 1;
        assert!(devices.see(at(0), &group));
        assert_eq!(devices.rows().devices.rows, 0);
        for n in 0..u32::try_from(STAYS_MAX).unwrap() {
            let mut d = device(1, "192.0.2.9", None);
            d.ip = std::net::Ipv4Addr::from(n).into();
            assert!(devices.see(at(0), &d));
        }
        assert!(!devices.see(at(0), &device(2, "2001:db8::1", None)));
    }

    #[test]
    fn what_a_reverse_look_up_says_is_a_name_and_no_sign_of_life() {
        let mut devices = Devices::default();
        let ptr = |ip: &str| Device { source: DeviceSource::Ptr, ..device(1, ip, Some("a.lan")) };
        assert!(devices.see(at(0), &ptr("192.0.2.9")));
        assert_eq!(devices.rows().devices.rows, 0, "nobody there");
        devices.see(at(1), &device(1, "192.0.2.9", None));
        devices.see(at(2), &ptr("192.0.2.10"));
        let written = devices.rows();
        assert_eq!((written.devices.rows, written.names.rows, written.addresses.rows), (1, 1, 1));
        assert_eq!(devices.mac_of("192.0.2.10".parse().unwrap(), at(2)), None);
    }

    #[test]
    fn names_given_here_come_first_and_go_again() {
        let mut devices = Devices::default();
        devices.see(at(0), &device(1, "192.0.2.9", Some("esp32")));
        let mac = Mac([0, 0, 0x5e, 0, 0x53, 1]);
        let best = |devices: &Devices| devices.devices[&mac].names.best().map(|c| c.name.clone());
        assert!(devices.name(mac, Some("boiler"), at(1)));
        devices.see(at(100), &device(1, "192.0.2.9", Some("esp32")));
        assert_eq!(best(&devices).as_deref(), Some("boiler"));
        assert!(devices.name(mac, None, at(2)));
        assert_eq!(best(&devices).as_deref(), Some("esp32"));
        assert!(!devices.name(mac, None, at(3)), "there is none any more");
        assert!(!devices.name(Mac([2; 6]), Some("x"), at(3)), "nobody there");
    }
}
