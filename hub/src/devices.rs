//! Which device an address belongs to: leases and neighbour entries, newest wins.
//!
//! In: device events. Out: a MAC for an address (a device's id is its MAC), rows for
//! `devices` and `device_addresses`. Runs inside the writer.
//!
//! Invariants: at most [`ADDRESSES_MAX`] pairs (more are counted by the caller); a row is
//! written when something changed or [`REWRITE_AFTER`] has passed, since a neighbour
//! table says the same every few seconds.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{Device, Mac};
use duckdb::Connection;

use crate::store::StoreError;
use crate::store::rows::{AddressRows, DeviceRows};

/// Most (MAC, address) pairs remembered: 80 devices with 20 addresses each are 1,600;
/// beyond the maximum somebody is making addresses up.
pub const ADDRESSES_MAX: usize = 65_536;
/// `last_seen` in the file is at most this old.
const REWRITE_AFTER: Duration = Duration::from_secs(60);
/// How long an address stands for the device it was last seen at (the usual DHCP lease).
const ADDRESS_KEPT: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
struct Known {
    hostname: Option<String>,
    iface: Option<String>,
    first: Timestamp,
    last: Timestamp,
    written: Timestamp,
}

#[derive(Debug)]
struct Span {
    first: Timestamp,
    last: Timestamp,
    written: Timestamp,
}

/// All devices seen.
#[derive(Debug, Default)]
pub struct Devices {
    devices: HashMap<Mac, Known>,
    spans: HashMap<(Mac, IpAddr), Span>,
    owners: HashMap<IpAddr, (Mac, Timestamp)>,
    changed_devices: BTreeSet<Mac>,
    changed_addresses: BTreeSet<(Mac, IpAddr)>,
}

impl Devices {
    /// Takes in one sighting; false when the memory is full and it was not kept.
    pub fn see(&mut self, time: Timestamp, seen: &Device) -> bool {
        // Broadcast and multicast name no device, an all-zero MAC is an unfinished entry.
        if seen.mac.is_group() || seen.mac.0 == [0; 6] {
            return true;
        }
        let key = (seen.mac, seen.ip);
        if !self.spans.contains_key(&key) && self.spans.len() >= ADDRESSES_MAX {
            return false;
        }
        self.see_device(time, seen);
        let span = self.spans.entry(key).or_insert_with(|| {
            self.changed_addresses.insert(key);
            Span { first: time, last: time, written: time }
        });
        span.first = span.first.min(time);
        span.last = span.last.max(time);
        if span.last.since(span.written) >= REWRITE_AFTER {
            self.changed_addresses.insert(key);
        }
        let owner = self.owners.entry(seen.ip).or_insert((seen.mac, time));
        if owner.1 <= time {
            *owner = (seen.mac, time);
        }
        true
    }

    fn see_device(&mut self, time: Timestamp, seen: &Device) {
        let known = self.devices.entry(seen.mac).or_insert_with(|| {
            self.changed_devices.insert(seen.mac);
            Known { hostname: None, iface: None, first: time, last: time, written: time }
        });
        let newest = time >= known.last;
        known.first = known.first.min(time);
        known.last = known.last.max(time);
        let mut changed = known.last.since(known.written) >= REWRITE_AFTER;
        for (have, new) in [(&mut known.hostname, &seen.hostname), (&mut known.iface, &seen.iface)]
        {
            if new.is_some() && have != new && (newest || have.is_none()) {
                have.clone_from(new);
                changed = true;
            }
        }
        if changed {
            self.changed_devices.insert(seen.mac);
        }
    }

    /// The device that had the address at about that time.
    #[must_use]
    pub fn mac_of(&self, ip: IpAddr, time: Timestamp) -> Option<Mac> {
        let (mac, last) = self.owners.get(&ip)?;
        (time.distance(*last) <= ADDRESS_KEPT).then_some(*mac)
    }

    /// Rows to write; counts as written.
    pub(crate) fn rows(&mut self) -> (DeviceRows, AddressRows) {
        let (mut devices, mut addresses) = (DeviceRows::default(), AddressRows::default());
        for mac in std::mem::take(&mut self.changed_devices) {
            let Some(known) = self.devices.get_mut(&mac) else { continue };
            known.written = known.last;
            devices.mac.show(mac);
            devices.hostname.option(known.hostname.as_deref());
            devices.iface.option(known.iface.as_deref());
            devices.first_seen.push(known.first);
            devices.last_seen.push(known.last);
            devices.rows += 1;
        }
        for key in std::mem::take(&mut self.changed_addresses) {
            let Some(span) = self.spans.get_mut(&key) else { continue };
            span.written = span.last;
            addresses.mac.show(key.0);
            addresses.ip.show(key.1);
            addresses.first_seen.push(span.first);
            addresses.last_seen.push(span.last);
            addresses.rows += 1;
        }
        (devices, addresses)
    }

    /// Reads what the file knows.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut all = Self::default();
        let mut statement = connection.prepare(
            "SELECT mac, hostname, iface, epoch_us(first_seen), epoch_us(last_seen) FROM devices",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (first, last) = span(row, 3)?;
            let Ok(mac) = row.get::<_, String>(0)?.parse() else { continue };
            let known =
                Known { hostname: row.get(1)?, iface: row.get(2)?, first, last, written: last };
            all.devices.insert(mac, known);
        }
        let mut statement = connection.prepare(
            "SELECT mac, ip, epoch_us(first_seen), epoch_us(last_seen) FROM device_addresses
             ORDER BY last_seen",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (first, last) = span(row, 2)?;
            let (mac, ip) = (row.get::<_, String>(0)?.parse(), row.get::<_, String>(1)?.parse());
            let (Ok(mac), Ok(ip)) = (mac, ip) else { continue };
            all.spans.insert((mac, ip), Span { first, last, written: last });
            all.owners.insert(ip, (mac, last));
        }
        Ok(all)
    }
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
    fn the_newest_owner_of_an_address_wins() {
        let mut devices = Devices::default();
        let ip = "192.0.2.9".parse().unwrap();
        devices.see(at(0), &device(1, "192.0.2.9", None));
        devices.see(at(100), &device(2, "192.0.2.9", None));
        devices.see(at(50), &device(3, "192.0.2.9", None));
        assert_eq!(devices.mac_of(ip, at(200)).map(|m| m.0[5]), Some(2));
        assert_eq!(devices.mac_of(ip, at(100 + 86_401)), None);
    }

    #[test]
    fn rows_are_written_for_changes_and_once_a_minute() {
        let mut devices = Devices::default();
        let mut written = |s, name| {
            devices.see(at(s), &device(1, "192.0.2.9", name));
            let (d, a) = devices.rows();
            (d.rows, a.rows)
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
        assert_eq!(devices.rows().0.rows, 0);
        for n in 0..u32::try_from(ADDRESSES_MAX).unwrap() {
            let mut d = device(1, "192.0.2.9", None);
            d.ip = std::net::Ipv4Addr::from(n).into();
            assert!(devices.see(at(0), &d));
        }
        assert!(!devices.see(at(0), &device(2, "2001:db8::1", None)));
    }
}
