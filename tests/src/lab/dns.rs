//! Names in the lab: the internet's name server, the router's resolver (dnsmasq, writing its
//! log as OpenWrt and Pi-hole do) and a client that asks.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use agentmon_core::dns_wire;
use agentmon_core::event::Answer;

use super::proc::Proc;
use super::wait::eventually;
use super::world::{RTR_LAN, WAN};
use super::{World, dhcp, need, netns};

/// Record types asked for.
pub const A: u16 = 1;
/// IPv6 address.
pub const AAAA: u16 = 28;

/// What a question came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Response code; 3 is NXDOMAIN.
    pub rcode: u16,
    /// Address answers.
    pub addresses: Vec<IpAddr>,
}

/// The internet's name server, in `wan`: knows `zones` (a domain with all below it, and its
/// address); all else does not exist.
#[must_use]
pub fn internet(world: &World, zones: &[(&str, &str)]) -> Proc {
    let mut conf = format!("listen-address={WAN}\nlocal=/#/\nlocal-ttl=60\n");
    for (domain, address) in zones {
        conf += &format!("address=/{domain}/{address}\n");
    }
    dnsmasq(world, "wan", WAN, "internet-dns", &conf)
}

/// The router's resolver, which hands out addresses too. Its query log is [`resolver_log`].
#[must_use]
pub fn resolver(world: &World) -> Proc {
    let log = resolver_log(world);
    let conf = format!(
        "listen-address={RTR_LAN}\nserver={WAN}\nlog-queries=extra\nlog-facility={}\n{}",
        log.display(),
        dhcp::server_settings(world)
    );
    dnsmasq(world, "rtr", RTR_LAN, "resolver", &conf)
}

/// Another machine in the LAN that resolves for others, as a Pi-hole beside the router: in
/// `host`, at `address`. Its query log is [`pihole_log`].
#[must_use]
pub fn pihole(world: &World, host: &str, address: &str) -> Proc {
    world.plug_in(host);
    world.set_address(host, address);
    let log = pihole_log(world);
    let conf = format!(
        "listen-address={address}\nserver={WAN}\nlog-queries=extra\nlog-facility={}\n",
        log.display()
    );
    dnsmasq(world, host, address, "pihole", &conf)
}

/// Another machine that resolves for others and has no disk for its log: in `host`, at
/// `address`; busybox's syslogd sends it to `to` by datagram. Both see a `/dev` of their own.
///
/// # Panics
/// When it does not answer.
#[must_use]
pub fn resolver_with_syslog(world: &World, host: &str, address: &str, to: (&str, u16)) -> Proc {
    world.plug_in(host);
    world.set_address(host, address);
    let conf = format!("listen-address={address}\nserver={WAN}\nlog-queries=extra\n");
    let file = configuration(world, host, &conf);
    let tool = |name| need::find(name).expect("checked before").display().to_string();
    let (busybox, dnsmasq) = (tool("busybox"), tool("dnsmasq"));
    let script = format!(
        "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && \
         mknod -m 666 /dev/urandom c 1 9 || exit 1
         {busybox} syslogd -n -O /dev/null -R {}:{} &
         while [ ! -S /dev/log ]; do sleep 0.05; done
         exec {dnsmasq} --keep-in-foreground --conf-file={file}",
        to.0, to.1
    );
    let log = world.file(&format!("{host}.log"));
    // `ip netns exec` has made a mount namespace of its own.
    let server = Proc::start(host, &log, std::path::Path::new("/bin/sh"), &["-c", &script]);
    is_ready(host, address, host);
    server
}

/// Where the Pi-hole writes its queries.
#[must_use]
pub fn pihole_log(world: &World) -> PathBuf {
    world.file("pihole.txt")
}

/// Where the resolver writes its queries.
#[must_use]
pub fn resolver_log(world: &World) -> PathBuf {
    world.file("queries.txt")
}

/// Starts one that answers at `address`, and waits until it does.
pub(super) fn dnsmasq(world: &World, host: &str, address: &str, name: &str, conf: &str) -> Proc {
    let server = start(world, host, name, conf);
    is_ready(host, address, name);
    server
}

/// Starts one.
pub(super) fn start(world: &World, host: &str, name: &str, conf: &str) -> Proc {
    let conf = format!("--conf-file={}", configuration(world, name, conf));
    let program = need::find("dnsmasq").expect("checked before");
    let log = world.file(&format!("{name}.log"));
    Proc::start(host, &log, &program, &["--keep-in-foreground", &conf])
}

/// A configuration file of dnsmasq; its path.
fn configuration(world: &World, name: &str, conf: &str) -> String {
    let file = world.file(&format!("{name}.conf"));
    let common = "no-resolv\nno-hosts\nbind-interfaces\nuser=root\npid-file=\ncache-size=1000\n";
    std::fs::write(&file, format!("{common}{conf}")).expect("test folder is writable");
    file.display().to_string()
}

#[track_caller]
fn is_ready(host: &str, address: &str, name: &str) {
    eventually(5.0, &format!("{name} answers"), || {
        ask_from(host, None, address, "ready.invalid", A).map(drop)
    });
}

/// A client in `lan` or `tv`, by its own address `from`, asks the router's resolver.
///
/// # Panics
/// When no answer comes within 5 s (stretched).
#[track_caller]
pub fn ask(host: &str, from: &str, name: &str, qtype: u16) -> Reply {
    eventually(5.0, &format!("an answer to {name}"), || {
        ask_from(host, Some(from), RTR_LAN, name, qtype)
    })
}

/// Asks any server once.
///
/// # Errors
/// When no answer comes within a second.
pub fn ask_from(
    host: &str,
    from: Option<&str>,
    server: &str,
    name: &str,
    qtype: u16,
) -> Result<Reply, String> {
    let any = if server.contains(':') { "::" } else { "0.0.0.0" };
    let from: IpAddr = from.unwrap_or(any).parse().expect("an address");
    let server = SocketAddr::new(server.parse().expect("an address"), 53);
    static ID: AtomicU16 = AtomicU16::new(1);
    let query = query(ID.fetch_add(1, Ordering::Relaxed), name, qtype);
    netns::run(host, move || exchange(from, server, &query)).map_err(|e| e.to_string())
}

fn exchange(from: IpAddr, server: SocketAddr, query: &[u8]) -> std::io::Result<Reply> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(server)?;
    socket.send(query)?;
    let mut buffer = [0; 1500];
    let used = socket.recv(&mut buffer)?;
    let message = dns_wire::decode(buffer.get(..used).unwrap_or_default());
    let message = message.map_err(|e| std::io::Error::other(e.to_string()))?;
    let addresses = message.answers.iter().filter_map(|record| match record.data {
        Answer::Address(ip) => Some(ip),
        _ => None,
    });
    Ok(Reply { rcode: message.rcode, addresses: addresses.collect() })
}

/// A query as it stands on the wire (RFC 1035 section 4.1): one question, recursion desired.
#[must_use]
pub fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut bytes = Vec::from(id.to_be_bytes());
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label has at most 63 octets"));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(qtype.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}
