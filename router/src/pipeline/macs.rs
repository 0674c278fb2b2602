//! Which MAC an address belongs to, learned from the device events that pass by (leases,
//! neighbour table). Pure; pipeline thread; at most [`ADDRESSES_MAX`] addresses, 40 bytes
//! each: when the younger half is full the older half is forgotten, and addresses in use
//! come back with the next neighbour report.

use std::collections::HashMap;
use std::net::IpAddr;

use agentmon_core::event::{Body, Device, Mac};

/// Most addresses remembered: 80 devices with a dozen IPv6 privacy addresses each, times four.
pub(super) const ADDRESSES_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Macs {
    young: HashMap<IpAddr, Mac>,
    old: HashMap<IpAddr, Mac>,
}

impl Macs {
    fn learn(&mut self, device: &Device) {
        if device.mac.is_group() || device.mac == Mac([0; 6]) {
            return;
        }
        if self.young.len() >= ADDRESSES_MAX / 2 && !self.young.contains_key(&device.ip) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(device.ip, device.mac);
    }

    pub(super) fn get(&self, ip: IpAddr) -> Option<Mac> {
        self.young.get(&ip).or_else(|| self.old.get(&ip)).copied()
    }

    /// Learns from a device event; fills in the client's MAC of any other that lacks it.
    pub(super) fn attach(&mut self, body: &mut Body) {
        let (ip, mac) = match body {
            Body::Device(device) => return self.learn(device),
            Body::Dns(dns) => (dns.client, &mut dns.mac),
            Body::Flow(flow) => (flow.src.ip, &mut flow.mac),
            Body::Firewall(packet) => (packet.src.ip, &mut packet.mac),
            Body::Finding(_) | Body::Gap(_) | Body::Process(_) | Body::Connection(_) => return,
        };
        if mac.is_none() {
            *mac = self.get(ip);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentmon_core::event::{DeviceSource, Endpoint, Firewall};

    fn device(last: u32, mac: u8) -> Body {
        Body::Device(Device {
            mac: Mac([2, 0, 0, 0, 0, mac]),
            ip: std::net::Ipv4Addr::from(0x0a00_0000 + last).into(),
            hostname: None,
            iface: None,
            source: DeviceSource::Neighbour,
        })
    }

    #[track_caller]
    fn check(macs: &mut Macs, last: u32, expected: Option<u8>) {
        let ip = std::net::Ipv4Addr::from(0x0a00_0000 + last).into();
        let mut body = Body::Firewall(Firewall {
            verdict: agentmon_core::event::Verdict::Drop,
            prefix: String::new(),
            proto: 6,
            src: Endpoint::new(ip, 1),
            dst: Endpoint::new(ip, 2),
            in_iface: None,
            out_iface: None,
            mac: None,
            bytes: 0,
        });
        macs.attach(&mut body);
        let Body::Firewall(packet) = body else { unreachable!() };
        assert_eq!(packet.mac.map(|m| m.0[5]), expected);
    }

    #[test]
    fn the_newest_owner_of_an_address_counts() {
        let mut macs = Macs::default();
        check(&mut macs, 1, None);
        macs.attach(&mut device(1, 7));
        check(&mut macs, 1, Some(7));
        macs.attach(&mut device(1, 8));
        check(&mut macs, 1, Some(8));
        let mut group = device(2, 9);
        if let Body::Device(d) = &mut group {
            d.mac.0[0] = 1;
        }
        macs.attach(&mut group);
        check(&mut macs, 2, None);
    }

    #[test]
    fn bounded_and_keeps_the_younger_half() {
        let mut macs = Macs::default();
        for i in 0..3 * ADDRESSES_MAX as u32 {
            macs.attach(&mut device(i, 1));
            assert!(macs.len() <= ADDRESSES_MAX);
        }
        check(&mut macs, 3 * ADDRESSES_MAX as u32 - 1, Some(1));
        check(&mut macs, 0, None);
    }
}
