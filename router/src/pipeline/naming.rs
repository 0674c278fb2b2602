//! Names of devices from where a person or a resolver says them.
//!
//! In: sightings of devices, and reverse look-ups that pass by. Out: further sightings that
//! carry a name: of the list in the configuration (source `static`), of an answer to a PTR
//! question (source `ptr`). Whose name counts is decided where names are kept (see
//! `DeviceSource::rank`). Pure; pipeline thread.
//!
//! Nothing is looked up here: who asks which name an address has, is told by the resolver,
//! and that is heard. Only addresses whose MAC is known are named by it, never somebody's out
//! there; names are hostile and go through `host_name`.
//!
//! Invariants: at most [`NAMES_MAX`] names in the list; an answer heard again is told again
//! only when it changed or [`HEARD_MAX`] others came between.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use agentmon_core::event::{Answer, Device, DeviceSource, Dns, Mac, host_name, is_public};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Most names in the configuration.
pub const NAMES_MAX: usize = 1_024;
/// Most answers remembered as told.
const HEARD_MAX: usize = 4_096;
/// RFC 1035 section 3.2.2.
const PTR: u16 = 12;

/// Settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Names of devices: a MAC or an address, `=`, the name. They come before the names that
    /// devices give themselves.
    pub names: Vec<String>,
    /// Where the devices seen so far are kept, so that after a restart they are not new.
    /// Empty: `known-devices` in the state directory.
    pub known_path: PathBuf,
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.names.len() > NAMES_MAX {
            return Err(("names", format!("want at most {NAMES_MAX}, not {}", self.names.len())));
        }
        for entry in &self.names {
            read(entry).map_err(|problem| ("names", problem))?;
        }
        Ok(())
    }
}

/// Who is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Mac(Mac),
    Address(IpAddr),
}

/// `00:00:5e:00:53:01=printer`.
fn read(entry: &str) -> Result<(Who, String), String> {
    let shown = agentmon_core::name::printable(entry.as_bytes(), 60);
    let wrong = || format!("'{shown}' is no MAC or address, = and a name, as 192.168.1.9=printer");
    let (who, name) = entry.split_once('=').ok_or_else(wrong)?;
    let who = who.trim();
    let who = match (who.parse::<Mac>(), who.parse::<IpAddr>()) {
        (Ok(mac), _) if mac.is_device() => Who::Mac(mac),
        (_, Ok(ip)) => Who::Address(ip.to_canonical()),
        _ => return Err(wrong()),
    };
    let name = host_name(name.as_bytes());
    Ok((who, name.ok_or_else(|| format!("'{shown}' gives no name that can be used"))?))
}

/// The names in force.
#[derive(Debug, Default)]
pub(super) struct Naming {
    list: HashMap<Who, String>,
    /// Address to a hash of MAC and name.
    heard: HashMap<IpAddr, u64>,
}

impl Naming {
    /// Takes over a checked list.
    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.list = config.names.iter().filter_map(|entry| read(entry).ok()).collect();
    }

    /// The same sighting with the name the list has for it. Its MAC comes before its address:
    /// that is the device itself.
    pub(super) fn listed(&self, seen: &Device) -> Option<Device> {
        if seen.source == DeviceSource::Static || self.list.is_empty() {
            return None;
        }
        let by_mac = self.list.get(&Who::Mac(seen.mac));
        let name = by_mac.or_else(|| self.list.get(&Who::Address(seen.ip)))?;
        Some(Device { hostname: Some(name.clone()), source: DeviceSource::Static, ..seen.clone() })
    }

    /// What an answer to a reverse look-up names, when `mac_of` knows the device.
    pub(super) fn heard(
        &mut self,
        dns: &Dns,
        mac_of: impl Fn(IpAddr) -> Option<Mac>,
    ) -> Option<Device> {
        if dns.qtype != PTR || dns.answers.is_empty() {
            return None;
        }
        let ip = address(dns.name.as_str())?;
        // The provider's gateway is a neighbour too.
        if ip.is_ipv4() && is_public(ip) {
            return None;
        }
        let mac = mac_of(ip)?;
        let name = dns.answers.iter().find_map(target)?;
        let hash = xxh3_64(format!("{mac} {name}").as_bytes());
        if self.heard.get(&ip) == Some(&hash) {
            return None;
        }
        if self.heard.len() >= HEARD_MAX {
            self.heard.clear();
        }
        self.heard.insert(ip, hash);
        Some(Device { mac, ip, hostname: Some(name), iface: None, source: DeviceSource::Ptr })
    }
}

/// The name in an answer: as packets tell it (`PTR laptop.lan`), or as a log does.
fn target(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Other(text) => host_name(text.strip_prefix("PTR ").unwrap_or(text).as_bytes()),
        // For parts of a block delegated by RFC 2317 an alias stands before it.
        Answer::Cname(_) | Answer::Address(_) => None,
    }
}

/// The address of `7.1.168.192.in-addr.arpa` (RFC 1035 section 3.5) or of 32 hexadecimal
/// digits below `ip6.arpa` (RFC 3596 section 2.5).
fn address(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = labels.rsplit('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let (mut bits, mut digits) = (0u128, 0);
    for label in labels.rsplit('.') {
        let digit = u128::from(u8::from_str_radix(label, 16).ok().filter(|d| *d < 16)?);
        bits = bits << 4 | digit;
        digits += 1;
    }
    (digits == 32).then(|| Ipv6Addr::from(bits).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentmon_core::sample;

    const MAC: Mac = Mac([0, 0, 0x5e, 0, 0x53, 1]);

    fn naming(names: &[&str]) -> Naming {
        let config =
            Config { names: names.iter().map(|n| (*n).into()).collect(), ..Config::default() };
        config.validate().unwrap();
        let mut naming = Naming::default();
        naming.reconfigure(&config);
        naming
    }

    #[track_caller]
    fn listed(names: &[&str], ip: &str, expected: Option<&str>) {
        let (ip, source) = (ip.parse().unwrap(), DeviceSource::Neighbour);
        let seen = Device { mac: MAC, ip, hostname: None, iface: None, source };
        let named = naming(names).listed(&seen);
        assert_eq!(named.as_ref().and_then(|d| d.hostname.as_deref()), expected);
        assert!(named.is_none_or(|d| d.source == DeviceSource::Static && d.mac == MAC));
    }

    #[test]
    fn the_list_names_devices_by_mac_or_address() {
        listed(&["00:00:5E:00:53:01=printer"], "192.168.1.9", Some("printer"));
        listed(&["192.168.1.9 = printer"], "192.168.1.9", Some("printer"));
        listed(
            &["192.168.1.9=by address", "00-00-5e-00-53-01=by mac"],
            "192.168.1.9",
            Some("by mac"),
        );
        listed(&["192.168.1.9=printer"], "192.168.1.10", None);
        listed(&["fd00::9=printer"], "fd00::9", Some("printer"));
    }

    #[track_caller]
    fn refused(entry: &str, says: &str) {
        let config = Config { names: vec![entry.into()], ..Config::default() };
        let (key, problem) = config.validate().unwrap_err();
        assert!(key == "names" && problem.contains(says), "{problem}");
    }

    #[test]
    fn nonsense_in_the_list_is_refused() {
        refused("printer", "no MAC or address");
        refused("printer=192.168.1.9", "no MAC or address");
        refused("ff:ff:ff:ff:ff:ff=all", "no MAC or address");
        refused("192.168.1.9=", "no name");
        refused("192.168.1.9=localhost", "no name");
        refused("\x1b[2J=x", "\\x1b[2J");
    }

    #[track_caller]
    fn heard(name: &str, answer: &str, expected: Option<&str>) {
        let mut dns = sample::dns("192.168.1.2", name, &[]);
        dns.qtype = PTR;
        dns.answers = vec![Answer::Other(answer.into())];
        let mut naming = Naming::default();
        let known = |ip: IpAddr| (ip.to_string() != "192.168.1.8").then_some(MAC);
        let device = naming.heard(&dns, known);
        let shown = device.map(|d| format!("{} {}", d.ip, d.hostname.unwrap()));
        assert_eq!(shown.as_deref(), expected);
        assert_eq!(naming.heard(&dns, known), None, "heard already");
    }

    #[test]
    fn reverse_answers_name_known_devices() {
        heard("7.1.168.192.in-addr.arpa", "PTR laptop.lan", Some("192.168.1.7 laptop.lan"));
        heard("7.1.168.192.in-addr.arpa", "laptop.lan", Some("192.168.1.7 laptop.lan"));
        let v6 = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        heard(v6, "PTR tablet.lan", Some("fd00::9 tablet.lan"));
        heard("8.1.168.192.in-addr.arpa", "PTR stranger.lan", None);
        heard("9.113.0.203.in-addr.arpa", "PTR gateway.example.net", None);
        heard("7.1.168.192.in-addr.arpa", "PTR localhost", None);
        heard("1.168.192.in-addr.arpa", "PTR laptop.lan", None);
        heard("x.1.168.192.in-addr.arpa", "PTR laptop.lan", None);
        heard("256.1.168.192.in-addr.arpa", "PTR laptop.lan", None);
        heard("1.0.ip6.arpa", "PTR laptop.lan", None);
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_an_address_or_none(name in "([0-9a-f]{1,3}\\.){0,34}(in-addr|ip6)\\.arpa") {
            proptest::prop_assert!(address(&name).is_none_or(|ip| ip.is_ipv4() || name.len() == 72));
        }
        #[test]
        fn any_entry_never_panics(entry in ".{0,80}") {
            drop(read(&entry));
        }
    }
}
