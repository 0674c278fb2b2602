//! The devices of this network and what each did: a table in memory.
//!
//! In: who was seen (MAC where known, else address), and what they did. Out: rows for the
//! status page. Pure; called under the model's lock, some 100 ns per event.
//!
//! A device is its MAC. An address whose MAC is not known yet is a device of its own until
//! it is; a public address never is (it is somebody out there). At most [`DEVICES_MAX`]
//! devices with [`ADDRESSES_MAX`] addresses each, about 2 KB a device; when the table is full
//! the one not seen for longest makes room, counted.

use std::collections::HashMap;
use std::net::IpAddr;

use agentmon_core::event::{DeviceSource, Mac, host_name, is_public};
use agentmon_core::time::{Mono, Timestamp};

use super::talk::Window;

/// Most devices.
pub const DEVICES_MAX: usize = 256;
/// Most addresses of one device: a week of IPv6 privacy addresses and the lasting ones. For
/// all devices just below what a hash table of 4,096 places takes.
pub const ADDRESSES_MAX: usize = 12;

/// One device.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its link-layer address, once known.
    pub mac: Option<Mac>,
    /// Its name, by the best source that gives it one.
    pub name: Option<String>,
    /// Who gives it that name.
    pub name_source: Option<DeviceSource>,
    /// Another device has the same name.
    shared_name: bool,
    /// Its addresses, newest first.
    pub ips: Vec<IpAddr>,
    /// When it was first seen by this process.
    pub first_seen: Timestamp,
    /// When it last did something.
    pub last_seen: Timestamp,
    /// Questions asked, and of these refused.
    pub asked: Asked,
    /// Flows begun.
    pub flows: u64,
    /// Bytes to it.
    pub bytes_in: u64,
    /// Bytes from it.
    pub bytes_out: u64,
    /// The last minutes.
    pub recent: Window,
    /// For making room: larger is later, whatever the wall clock does.
    order: u64,
}

/// Questions, by who saw them: the resolver's log and the copies of packets see the same
/// ones, so the larger number counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    logged: (u64, u64),
    copied: (u64, u64),
}

impl Asked {
    fn note(&mut self, source: &str, refused: bool) {
        let seen = if source == "passive-dns" { &mut self.copied } else { &mut self.logged };
        seen.0 += 1;
        seen.1 += u64::from(refused);
    }
    /// Questions.
    #[must_use]
    pub fn queries(&self) -> u64 {
        self.logged.0.max(self.copied.0)
    }
    /// Questions the resolver refused.
    #[must_use]
    pub fn blocked(&self) -> u64 {
        self.logged.1.max(self.copied.1)
    }
}

impl Device {
    /// What a person calls it: its name, else its MAC, else its address. A name that another
    /// device has too, by chance or on purpose, comes with the MAC's end.
    #[must_use]
    pub fn label(&self) -> String {
        let mac = || self.mac.map(|mac| mac.to_string());
        let ip = || self.ips.first().map(ToString::to_string);
        match (&self.name, self.mac) {
            (Some(name), Some(Mac([.., a, b, c]))) if self.shared_name => {
                format!("{name} ({a:02x}:{b:02x}:{c:02x})")
            }
            (name, _) => name.clone().or_else(mac).or_else(ip).unwrap_or_default(),
        }
    }

    /// Whether `word` is its name, MAC or one of its addresses.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        self.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(word))
            || word.parse().is_ok_and(|mac: Mac| self.mac == Some(mac))
            || word.parse().is_ok_and(|ip: IpAddr| self.ips.contains(&ip))
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Devices {
    list: Vec<Device>,
    by_mac: HashMap<Mac, usize>,
    by_ip: HashMap<IpAddr, usize>,
    order: u64,
    evicted: u64,
}

impl Devices {
    pub(super) fn list(&self) -> &[Device] {
        &self.list
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The device with that address, if it is one.
    pub(super) fn at(&self, ip: IpAddr) -> Option<&Device> {
        self.by_ip.get(&ip).and_then(|slot| self.list.get(*slot))
    }

    /// The device with that MAC or, failing that, address.
    pub(super) fn who(&self, mac: Option<Mac>, ip: Option<IpAddr>) -> Option<&Device> {
        let slot = mac.and_then(|mac| self.by_mac.get(&mac)).copied();
        slot.and_then(|slot| self.list.get(slot)).or_else(|| self.at(ip?))
    }

    /// A sighting, with or without a name.
    pub(super) fn learn(&mut self, seen: &agentmon_core::event::Device, time: Timestamp) {
        let Some(device) = self.seen(Some(seen.mac), seen.ip, time) else { return };
        let Some(name) = seen.hostname.as_deref().and_then(|n| host_name(n.as_bytes())) else {
            return;
        };
        let better = device.name_source.is_none_or(|known| known.rank() <= seen.source.rank());
        if better && device.name.as_deref() != Some(&name) {
            let before = device.name.replace(name);
            device.name_source = Some(seen.source);
            let names = [before, device.name.clone()];
            names.into_iter().flatten().for_each(|name| self.mark_shared(&name));
        } else if better {
            device.name_source = Some(seen.source);
        }
    }

    /// Finds out who shares a name. Names change seldom.
    fn mark_shared(&mut self, name: &str) {
        let has = |d: &Device| d.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name));
        let shared = self.list.iter().filter(|device| has(device)).count() > 1;
        for device in self.list.iter_mut().filter(|device| has(device)) {
            device.shared_name = shared;
        }
    }

    /// A question.
    pub(super) fn asked(&mut self, dns: &agentmon_core::event::Dns, time: Timestamp) {
        if let Some(device) = self.seen(dns.mac, dns.client, time) {
            device.asked.note(&dns.source, dns.is_refused());
        }
    }

    /// Traffic of the device at `ip`.
    pub(super) fn talked(
        &mut self,
        (mac, ip): (Option<Mac>, IpAddr),
        traffic: super::talk::Traffic,
        time: Timestamp,
        now: Mono,
    ) -> bool {
        let Some(device) = self.seen(mac, ip, time) else { return false };
        device.flows += u64::from(traffic.new);
        device.bytes_in = device.bytes_in.saturating_add(traffic.bytes_in);
        device.bytes_out = device.bytes_out.saturating_add(traffic.bytes_out);
        device.recent.add(now, traffic);
        true
    }

    /// The wall clock was set for the first time: what was seen before happened so long ago
    /// by the new clock.
    pub(super) fn clock_set(&mut self, from: Timestamp, to: Timestamp) {
        for device in &mut self.list {
            for time in [&mut device.first_seen, &mut device.last_seen] {
                *time = super::moved(*time, from, to);
            }
        }
    }

    /// The device that was seen, new where it must be; `None` for who is none of ours.
    fn seen(&mut self, mac: Option<Mac>, ip: IpAddr, time: Timestamp) -> Option<&mut Device> {
        let mac = mac.filter(|mac| !mac.is_group() && *mac != Mac([0; 6]));
        let slot = self.slot(mac, ip, time)?;
        self.order += 1;
        let order = self.order;
        if mac.is_some() && self.by_ip.get(&ip) != Some(&slot) && is_somebody(ip) {
            self.attach(slot, ip);
        }
        let device = self.list.get_mut(slot)?;
        device.order = order;
        device.last_seen = device.last_seen.max(time);
        Some(device)
    }

    fn slot(&mut self, mac: Option<Mac>, ip: IpAddr, time: Timestamp) -> Option<usize> {
        let at_address = self.by_ip.get(&ip).copied();
        let Some(mac) = mac else {
            let is_ours = is_somebody(ip) && !is_public(ip);
            return at_address.or_else(|| is_ours.then(|| self.insert(None, ip, time)));
        };
        if let Some(slot) = self.by_mac.get(&mac) {
            return Some(*slot);
        }
        // The address was known before its MAC: now it is that device.
        let nameless =
            at_address.filter(|slot| self.list.get(*slot).is_some_and(|d| d.mac.is_none()));
        let slot = nameless.unwrap_or_else(|| self.insert(Some(mac), ip, time));
        if let Some(device) = self.list.get_mut(slot) {
            device.mac = Some(mac);
        }
        self.by_mac.insert(mac, slot);
        Some(slot)
    }

    fn insert(&mut self, mac: Option<Mac>, ip: IpAddr, time: Timestamp) -> usize {
        let device = Device {
            mac,
            name: None,
            name_source: None,
            shared_name: false,
            ips: Vec::new(),
            first_seen: time,
            last_seen: time,
            asked: Asked::default(),
            flows: 0,
            bytes_in: 0,
            bytes_out: 0,
            recent: Window::default(),
            order: self.order,
        };
        let slot = if self.list.len() < DEVICES_MAX {
            self.list.push(device);
            self.list.len() - 1
        } else {
            self.evict(device)
        };
        if is_somebody(ip) {
            self.attach(slot, ip);
        }
        slot
    }

    /// Puts a device in the place of the one not seen for longest.
    fn evict(&mut self, device: Device) -> usize {
        let oldest = self.list.iter().enumerate().min_by_key(|(_, d)| d.order);
        let slot = oldest.map_or(0, |(slot, _)| slot);
        self.evicted += 1;
        if let Some(place) = self.list.get_mut(slot) {
            let gone = std::mem::replace(place, device);
            if let Some(mac) = gone.mac {
                self.by_mac.remove(&mac);
            }
            for ip in gone.ips {
                self.by_ip.remove(&ip);
            }
            if let Some(name) = gone.name {
                self.mark_shared(&name);
            }
        }
        slot
    }

    /// The address belongs to this device now, and to no other.
    fn attach(&mut self, slot: usize, ip: IpAddr) {
        if let Some(before) = self.by_ip.insert(ip, slot)
            && before != slot
        {
            self.detach(before, ip);
        }
        let Some(device) = self.list.get_mut(slot) else { return };
        device.ips.retain(|known| *known != ip);
        device.ips.insert(0, ip);
        if device.ips.len() > ADDRESSES_MAX
            && let Some(oldest) = device.ips.pop()
        {
            self.by_ip.remove(&oldest);
        }
    }

    /// Takes an address from its former device. One that was nothing but this address
    /// becomes the first to make room.
    fn detach(&mut self, slot: usize, ip: IpAddr) {
        let Some(device) = self.list.get_mut(slot) else { return };
        device.ips.retain(|known| *known != ip);
        if device.ips.is_empty() && device.mac.is_none() {
            device.order = 0;
        }
    }
}

/// No multicast, no loopback, not "any".
fn is_somebody(ip: IpAddr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn mac(n: u32) -> Mac {
        let [_, _, a, b] = n.to_be_bytes();
        Mac([0, 0, 0x5e, 0, a, b])
    }

    fn lease(n: u32, ip: &str, name: Option<&str>) -> agentmon_core::event::Device {
        agentmon_core::event::Device {
            mac: mac(n),
            ip: ip.parse().unwrap(),
            hostname: name.map(str::to_owned),
            iface: None,
            source: agentmon_core::event::DeviceSource::Lease,
        }
    }

    /// Each device as `label: addresses`.
    #[track_caller]
    fn check(devices: &Devices, expected: &[&str]) {
        let shown = |d: &Device| {
            let ips: Vec<_> = d.ips.iter().map(ToString::to_string).collect();
            format!("{}: {}", d.label(), ips.join(" "))
        };
        assert_eq!(devices.list().iter().map(shown).collect::<Vec<_>>(), expected);
        for (ip, slot) in &devices.by_ip {
            assert!(devices.list[*slot].ips.contains(ip), "{ip} leads nowhere");
        }
    }

    fn seen(devices: &mut Devices, mac: Option<Mac>, ip: &str) {
        devices.seen(mac, ip.parse().unwrap(), T);
    }

    #[test]
    fn a_device_is_its_mac() {
        let mut devices = Devices::default();
        seen(&mut devices, None, "192.168.1.7");
        check(&devices, &["192.168.1.7: 192.168.1.7"]);
        devices.learn(&lease(7, "192.168.1.7", None), T);
        devices.learn(&lease(7, "fd00::7", Some("laptop\x1b[31m")), T);
        check(&devices, &["laptop\\x1b[31m: fd00::7 192.168.1.7"]);
        assert!(devices.list()[0].is("192.168.1.7") && devices.list()[0].is("00-00-5E-00-00-07"));
        // Its address goes to another.
        devices.learn(&lease(8, "192.168.1.7", Some("phone")), T);
        check(&devices, &["laptop\\x1b[31m: fd00::7", "phone: 192.168.1.7"]);
        assert_eq!(devices.at("192.168.1.7".parse().unwrap()).unwrap().label(), "phone");
    }

    #[test]
    fn the_best_source_names_it() {
        #[track_caller]
        fn check(told: &[(DeviceSource, &str)], expected: &str) {
            let mut devices = Devices::default();
            for (source, name) in told {
                let seen = agentmon_core::event::Device {
                    source: *source,
                    ..lease(1, "192.168.1.7", Some(name))
                };
                devices.learn(&seen, T);
            }
            let device = &devices.list()[0];
            let source = device.name_source.map_or("-", DeviceSource::as_str);
            assert_eq!(format!("{} {source}", device.label()), expected);
        }
        use DeviceSource::{Lease, Pihole, Ptr, Static};
        check(&[(Ptr, "a.lan"), (Lease, "a"), (Ptr, "b.lan")], "a lease");
        check(&[(Lease, "a"), (Static, "desk"), (Lease, "b"), (Pihole, "c")], "desk static");
        check(&[(Pihole, "a"), (Ptr, "b")], "a pihole");
        check(&[(Lease, "a"), (Lease, "b")], "b lease");
        check(&[(Lease, "a"), (Lease, "localhost"), (Lease, "*")], "a lease");
        check(&[(Lease, "192.168.1.1")], "00:00:5e:00:00:01 -");
    }

    #[test]
    fn two_of_one_name_are_told_apart() {
        let mut devices = Devices::default();
        devices.learn(&lease(1, "192.168.1.1", Some("laptop")), T);
        check(&devices, &["laptop: 192.168.1.1"]);
        devices.learn(&lease(2, "192.168.1.2", Some("Laptop")), T);
        check(&devices, &["laptop (00:00:01): 192.168.1.1", "Laptop (00:00:02): 192.168.1.2"]);
        devices.learn(&lease(2, "192.168.1.2", Some("phone")), T);
        check(&devices, &["laptop: 192.168.1.1", "phone: 192.168.1.2"]);
    }

    #[test]
    fn strangers_and_groups_are_no_devices() {
        let mut devices = Devices::default();
        for ip in ["203.0.113.9", "2001:db8::1", "0.0.0.0", "127.0.0.1", "224.0.0.251", "ff02::1"] {
            seen(&mut devices, None, ip);
        }
        check(&devices, &[]);
        // A public address with a known MAC is one of ours.
        seen(&mut devices, Some(mac(1)), "2001:db8::1");
        seen(&mut devices, Some(Mac([0xff; 6])), "203.0.113.9");
        seen(&mut devices, Some(Mac([0; 6])), "192.168.1.1");
        check(&devices, &["00:00:5e:00:00:01: 2001:db8::1", "192.168.1.1: 192.168.1.1"]);
    }

    #[test]
    fn bounded_and_the_idle_make_room() {
        let mut devices = Devices::default();
        let ip = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n).into();
        let keep = mac(60_000);
        for n in 0..3 * DEVICES_MAX as u32 {
            devices.seen(Some(mac(n)), ip(n), T);
            devices.seen(Some(keep), ip(99_999), T);
        }
        assert_eq!(devices.list().len(), DEVICES_MAX);
        assert_eq!(devices.evicted(), 2 * DEVICES_MAX as u64 + 1);
        assert!(
            devices.who(Some(keep), None).is_some() && devices.who(Some(mac(0)), None).is_none()
        );
        for n in 0..100 {
            devices.seen(Some(keep), ip(200_000 + n), T);
        }
        let kept = devices.who(Some(keep), None).unwrap();
        assert_eq!((kept.ips.len(), kept.ips[0]), (ADDRESSES_MAX, ip(200_099)));
        assert!(devices.by_ip.len() <= DEVICES_MAX * ADDRESSES_MAX);
        assert_eq!(devices.by_mac.len(), DEVICES_MAX);
    }

    #[test]
    fn the_same_question_seen_twice_counts_once() {
        let mut asked = Asked::default();
        for source in ["dnsmasq-log", "passive-dns", "dnsmasq-log", "passive-dns", "passive-dns"] {
            asked.note(source, source == "dnsmasq-log");
        }
        assert_eq!((asked.queries(), asked.blocked()), (3, 2));
    }
}
