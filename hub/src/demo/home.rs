//! Who lives in the demo home: forty devices and the services they use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agentmon_core::event::Mac;

/// What kind of life a device leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    Agent,
    Appliance,
    Camera,
    Console,
    Desktop,
    Laptop,
    Light,
    Nas,
    Phone,
    Plug,
    Printer,
    Server,
    Speaker,
    Tablet,
    Tv,
}

/// One device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) name: &'static str,
    pub(super) profile: Profile,
    pub(super) mac: Mac,
    pub(super) ip: IpAddr,
}

/// Name and profile; the position makes the addresses.
const CAST: [(&str, Profile); 40] = [
    ("home-server", Profile::Server),
    ("nas", Profile::Nas),
    ("agent-box", Profile::Agent),
    ("desk-anna", Profile::Desktop),
    ("desk-ben", Profile::Desktop),
    ("laptop-anna", Profile::Laptop),
    ("laptop-ben", Profile::Laptop),
    ("work-laptop", Profile::Laptop),
    ("kids-laptop", Profile::Laptop),
    ("guest-laptop", Profile::Laptop),
    ("phone-anna", Profile::Phone),
    ("phone-ben", Profile::Phone),
    ("phone-kid1", Profile::Phone),
    ("phone-kid2", Profile::Phone),
    ("phone-guest", Profile::Phone),
    ("tablet-anna", Profile::Tablet),
    ("kids-tablet", Profile::Tablet),
    ("kitchen-tablet", Profile::Tablet),
    ("tv-living", Profile::Tv),
    ("tv-bedroom", Profile::Tv),
    ("stream-stick", Profile::Tv),
    ("console", Profile::Console),
    ("speaker-kitchen", Profile::Speaker),
    ("speaker-bath", Profile::Speaker),
    ("speaker-office", Profile::Speaker),
    ("doorbell", Profile::Camera),
    ("garage-camera", Profile::Camera),
    ("garden-camera", Profile::Camera),
    ("old-dvr", Profile::Camera),
    ("printer", Profile::Printer),
    ("thermostat", Profile::Appliance),
    ("vacuum", Profile::Appliance),
    ("washer", Profile::Appliance),
    ("solar", Profile::Appliance),
    ("car-charger", Profile::Appliance),
    ("light-bridge", Profile::Light),
    ("plug-heater", Profile::Plug),
    ("plug-desk", Profile::Plug),
    ("plug-tree", Profile::Plug),
    ("plug-pump", Profile::Plug),
];

/// All devices.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) devices: Vec<Device>,
}

impl Home {
    pub(super) fn new() -> Self {
        Self::of(CAST.len())
    }

    /// So many devices, at most 200: the cast, and then the cast again.
    pub(super) fn of(count: usize) -> Self {
        let device = |(i, (name, profile)): (usize, &(&'static str, Profile))| {
            let n = u8::try_from(i).expect("the devices fit in a byte");
            // Phones make up their MACs (the locally administered bit).
            let first = if *profile == Profile::Phone { 2 } else { 0 };
            let mac = Mac([first, 0, 0x5e, 0, 0x53, n]);
            // The kitchen tablet lives on IPv6 alone.
            let ip = if *name == "kitchen-tablet" {
                IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, u16::from(n) + 20))
            } else {
                IpAddr::V4(Ipv4Addr::new(192, 168, 77, n + 20))
            };
            Device { name, profile: *profile, mac, ip }
        };
        Self { devices: CAST.iter().cycle().take(count.min(200)).enumerate().map(device).collect() }
    }

    /// The device of that name.
    pub(super) fn named(&self, name: &str) -> &Device {
        self.devices.iter().find(|d| d.name == name).expect("the cast is fixed")
    }
}

/// Where a name leads: one to three documentation addresses, the same in every run. Names
/// of one provider share addresses, as behind a content network.
pub(super) fn addresses(name: &str, ipv6: bool) -> Vec<IpAddr> {
    let provider = name.split('.').rev().nth(1).unwrap_or(name);
    let hash = fnv(provider.as_bytes());
    let count = 1 + (fnv(name.as_bytes()) % 3) as u16;
    (0..count)
        .map(|i| {
            let slot = (hash.wrapping_add(u64::from(i) * 7)) % 600;
            if ipv6 {
                let low = u16::try_from(slot).unwrap_or(0);
                return IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 1, low));
            }
            // 16 to 215 of each of the three nets; the attacks use the rest.
            let host = u8::try_from(slot % 200 + 16).unwrap_or(16);
            IpAddr::V4(match slot / 200 {
                0 => Ipv4Addr::new(192, 0, 2, host),
                1 => Ipv4Addr::new(198, 51, 100, host),
                _ => Ipv4Addr::new(203, 0, 113, host),
            })
        })
        .collect()
}

/// FNV-1a: small, and the same for ever.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
