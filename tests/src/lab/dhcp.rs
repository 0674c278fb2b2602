//! Addresses by DHCP: dnsmasq on the router hands them out, BusyBox's `udhcpc` (the client of
//! OpenWrt and of many small devices) takes them.
//!
//! The client speaks through a packet socket and its script sets the address, so all of it
//! is the real protocol on the real bridge.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::Signal;

use super::proc::{Proc, output};
use super::wait::{eventually, want};
use super::{World, dns, need};

/// Sets what the server offers: udhcpc(8) calls it with the event's name as first argument
/// and the offer in the environment.
const SCRIPT: &str = r#"#!/bin/sh
case "$1" in
  deconfig) ip addr flush dev "$interface" ;;
  bound | renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
    ip route replace default via "$router" ;;
esac
"#;

/// Where the server writes its leases.
#[must_use]
pub fn leases(world: &World) -> PathBuf {
    world.file("dhcp.leases")
}

/// Fixed addresses, one `MAC,ADDRESS` a line; the server reads it again on SIGHUP.
fn fixed(world: &World) -> PathBuf {
    world.file("dhcp.hosts")
}

/// The server's half of dnsmasq's configuration.
pub(super) fn server_settings(world: &World) -> String {
    std::fs::write(fixed(world), "").expect("test folder is writable");
    // `no-ping`: without it each new lease waits 3 s for somebody who might have the address.
    format!(
        "dhcp-range=192.168.77.100,192.168.77.149,255.255.255.0,2m\nno-ping\n\
         dhcp-authoritative\ndhcp-leasefile={}\ndhcp-hostsfile={}\n",
        leases(world).display(),
        fixed(world).display()
    )
}

/// From its next request on, the device with that MAC gets that address.
///
/// # Panics
/// When the server does not take it over.
pub fn fix(world: &World, server: &Proc, mac: &str, address: &str) {
    let taken = format!("read {}", fixed(world).display());
    let times = || {
        let log = std::fs::read_to_string(dns::resolver_log(world)).unwrap_or_default();
        log.matches(&taken).count()
    };
    let before = times();
    std::fs::write(fixed(world), format!("{mac},{address}\n")).expect("test folder is writable");
    server.signal(Signal::HUP);
    eventually(5.0, "dnsmasq reads the fixed addresses", || {
        want(times() > before, || "not read".to_owned())
    });
}

/// A device that gets its address by DHCP.
#[derive(Debug)]
pub struct Client {
    host: String,
    proc: Proc,
}

impl Client {
    /// Asks on `host`'s link for an address, giving `name` as its own name, and keeps it.
    ///
    /// # Panics
    /// When the client cannot be started.
    #[must_use]
    pub fn start(world: &World, host: &str, name: &str) -> Self {
        let script = world.file("udhcpc.sh");
        std::fs::write(&script, SCRIPT).expect("test folder is writable");
        let runs = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&script, runs).expect("own file");
        let program = need::find("udhcpc").expect("checked before");
        let (script, option) = (script.to_string_lossy(), format!("hostname:{name}"));
        let args = ["-f", "-i", "eth0", "-s", &script, "-x", &option];
        let log = world.file(&format!("udhcpc-{host}.log"));
        Self { host: host.to_owned(), proc: Proc::start(host, &log, &program, &args) }
    }

    /// Waits until the link has an address other than `before`.
    ///
    /// # Panics
    /// When it has none within 20 s (stretched).
    #[must_use]
    pub fn address_other_than(&self, before: &str) -> String {
        eventually(20.0, "an address by DHCP", || {
            let address = self.link("inet ").unwrap_or_default();
            let address = address.split('/').next().unwrap_or_default().to_owned();
            want(!address.is_empty() && address != before, || self.proc.log_text())?;
            Ok(address)
        })
    }

    /// The link's MAC.
    ///
    /// # Panics
    /// When there is no such link.
    #[must_use]
    pub fn mac(&self) -> String {
        self.link("link/ether ").expect("an Ethernet link")
    }

    /// Has it renew its lease now.
    pub fn renew(&self) {
        self.proc.signal(Signal::USR1);
    }

    /// The word after `label` in what `ip` tells of the link.
    fn link(&self, label: &str) -> Option<String> {
        let ip = need::find("ip").expect("checked before");
        let told = output(&self.host, &ip, &["addr", "show", "dev", "eth0"]);
        let (_, rest) = told.split_once(label)?;
        rest.split_whitespace().next().map(str::to_owned)
    }
}
