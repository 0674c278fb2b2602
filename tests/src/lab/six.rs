//! IPv6 on the LAN: the router announces a prefix (dnsmasq), and hosts make up addresses in it
//! by themselves, also temporary ones that they change (RFC 8981): the kernel's own doing.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::proc::{Proc, output};
use super::wait::{eventually, want};
use super::world::{WAN, World};
use super::{dns, need, netns};

/// The router's address in the LAN's prefix.
pub const RTR_LAN6: &str = "fd77:1::1";
/// Of the kernel's flags of an address (`linux/if_addr.h`): made up for a while.
const TEMPORARY: u32 = 0x01;
/// Not to be used yet or any more: tentative, deprecated, a duplicate.
const UNUSABLE: u32 = 0x40 | 0x20 | 0x08;

/// What this machine lacks for it.
#[must_use]
pub fn missing() -> Vec<String> {
    let has = std::path::Path::new("/proc/net/if_inet6").exists();
    if has { Vec::new() } else { vec!["IPv6 in the kernel".to_owned()] }
}

/// Where this resolver writes its queries.
#[must_use]
pub fn log(world: &World) -> PathBuf {
    world.file("queries6.txt")
}

/// Gives the router's LAN a prefix, answers questions there, and announces it. Two processes:
/// who announces on a link would listen for questions at all its addresses.
#[must_use]
pub fn announce(world: &World) -> [Proc; 2] {
    let ip = need::find("ip").expect("checked before");
    let address = format!("{RTR_LAN6}/64");
    drop(output("rtr", &ip, &["addr", "add", &address, "dev", "br-lan", "nodad"]));
    let conf = format!(
        "listen-address={RTR_LAN6}\nserver={WAN}\nlog-queries=extra\nlog-facility={}\n",
        log(world).display()
    );
    let resolver = dns::dnsmasq(world, "rtr", RTR_LAN6, "resolver6", &conf);
    let conf = "port=0\ninterface=br-lan\nenable-ra\ndhcp-range=fd77:1::,ra-only,64,1h\n";
    [resolver, dns::start(world, "rtr", "announcer", conf)]
}

/// Has `host` make up temporary addresses, and use them before all others.
pub fn be_private(host: &str) {
    for (name, value) in [("use_tempaddr", "2"), ("accept_ra", "2"), ("dad_transmits", "0")] {
        netns::sysctl(host, &format!("net.ipv6.conf.eth0.{name}"), value);
    }
}

/// Has `host` come anew, as a phone that went out: its link goes and comes, and with it all its
/// addresses.
pub fn come_anew(host: &str) {
    let ip = need::find("ip").expect("checked before");
    for state in ["down", "up"] {
        drop(output(host, &ip, &["link", "set", "eth0", state]));
    }
}

/// Waits until `host` has a temporary address other than `before`.
///
/// # Panics
/// When it has none within 20 s (stretched).
#[must_use]
pub fn temporary_other_than(host: &str, before: &str) -> String {
    eventually(20.0, "a temporary address", || {
        let table = netns::run(host, || std::fs::read_to_string("/proc/thread-self/net/if_inet6"));
        let table = table.map_err(|e| e.to_string())?;
        let found = table.lines().find_map(temporary).unwrap_or_default();
        want(!found.is_empty() && found != before, || table.clone())?;
        Ok(found)
    })
}

/// `fd770001...  index length scope flags name`, all hexadecimal (the kernel's
/// `net/ipv6/addrconf.c`).
fn temporary(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let address = u128::from_str_radix(words.next()?, 16).ok()?;
    let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
    (flags & TEMPORARY != 0 && flags & UNUSABLE == 0).then(|| Ipv6Addr::from(address).to_string())
}
