//! Names of devices from where a person or a resolver says them.
//!
//! In: sightings of devices, and reverse look-ups that pass by. Out: further sightings that
//! carry a name: of the list in the configuration (source `static`), of an answer to a PTR
//! question, or of a hosts file (source `ptr`). Whose name counts is decided where names are kept (see
//! `DeviceSource::rank`). Pure; pipeline thread.
//!
//! Nothing is looked up here: who asks which name an address has, is told by the resolver,
//! and that is heard; what the router's own resolver would say stands in its hosts files. Only addresses whose MAC is known are named by it, never somebody's out
//! there; names are hostile and go through `host_name`.
//!
//! Invariants: at most [`NAMES_MAX`] names in the list; an answer heard again is told again
//! only when it changed or [`HEARD_MAX`] others came between.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use agentmon_core::event::{Answer, Device, DeviceSource, Dns, Mac, host_name, is_public};
use agentmon_core::time::Mono;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::hosts::Hosts;

/// Most names in the configuration.
pub const NAMES_MAX: usize = 1_024;
/// Most hosts files and folders of such.
pub const HOSTS_MAX: usize = 16;
/// Most answers remembered as told.
const HEARD_MAX: usize = 4_096;
/// RFC 1035 section 3.2.2.
const PTR: u16 = 12;

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Names of devices: a MAC or an address, `=`, the name. They come before the names that
    /// devices give themselves.
    pub names: Vec<String>,
    /// Hosts files, and folders of such, from which the router's resolver answers reverse
    /// look-ups: the names they give to private addresses are names of devices.
    pub hosts: Vec<PathBuf>,
    /// Where the devices seen so far are kept, so that after a restart they are not new.
    /// Empty: `known-devices` in the state directory. Beside it `known-ports` is kept, what
    /// ports each device uses.
    pub known_path: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        let hosts = ["/etc/hosts", "/tmp/hosts"].map(PathBuf::from).to_vec();
        Self { names: Vec::new(), hosts, known_path: PathBuf::new() }
    }
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
        if self.hosts.len() > HOSTS_MAX {
            return Err(("hosts", format!("want at most {HOSTS_MAX}, not {}", self.hosts.len())));
        }
        if let Some(path) = self.hosts.iter().find(|path| !path.is_absolute()) {
            return Err(("hosts", format!("{} is no absolute path", path.display())));
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
    hosts: Hosts,
    /// Address to a hash of MAC and name.
    heard: HashMap<IpAddr, u64>,
}

impl Naming {
    /// Takes over a checked list.
    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.list = config.names.iter().filter_map(|entry| read(entry).ok()).collect();
        self.hosts.reconfigure(&config.hosts);
    }

    /// Once a second.
    pub(super) fn tick(&mut self, now: Mono) {
        self.hosts.tick(now);
    }

    /// The same sighting with the name the list has for it, else with that of a hosts file. Its
    /// MAC comes before its address: that is the device itself.
    pub(super) fn listed(&self, seen: &Device) -> Option<Device> {
        if !matches!(seen.source, DeviceSource::Lease | DeviceSource::Neighbour) {
            return None;
        }
        let by_mac = self.list.get(&Who::Mac(seen.mac));
        let by_list = by_mac.or_else(|| self.list.get(&Who::Address(seen.ip)));
        let by_list = by_list.map(|name| (name.clone(), DeviceSource::Static));
        let by_hosts = || Some((self.hosts.name(seen.ip)?.to_owned(), DeviceSource::Ptr));
        let (name, source) = by_list.or_else(by_hosts)?;
        Some(Device { hostname: Some(name), source, ..seen.clone() })
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
    fn a_hosts_file_names_what_the_list_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, "192.168.1.9 printer.lan\n192.168.1.10 other.lan\n").unwrap();
        let config = Config {
            names: vec!["192.168.1.10=mine".into()],
            hosts: vec![path],
            ..Config::default()
        };
        let mut naming = Naming::default();
        naming.reconfigure(&config);
        naming.tick(Mono::from_nanos(0));
        let called = |ip: &str| {
            let (ip, source) = (ip.parse().unwrap(), DeviceSource::Neighbour);
            let seen = Device { mac: MAC, ip, hostname: None, iface: None, source };
            let named = naming.listed(&seen)?;
            assert!(naming.listed(&named).is_none(), "named once");
            Some(format!("{} {}", named.hostname.unwrap(), named.source.as_str()))
        };
        assert_eq!(called("192.168.1.9").as_deref(), Some("printer.lan ptr"));
        assert_eq!(called("192.168.1.10").as_deref(), Some("mine static"));
        assert_eq!(called("192.168.1.11"), None);
        let relative = Config { hosts: vec!["hosts".into()], ..config };
        assert_eq!(relative.validate().unwrap_err().0, "hosts");
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
