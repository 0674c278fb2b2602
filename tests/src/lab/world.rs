//! One small network per test, in namespaces of its own.
//!
//! [`in_world`] starts the test binary again in new mount, network and process namespaces
//! and runs the test's body there. So names (`/run/netns/lan`) never clash, and the kernel
//! ends every process of a test with it, however the test ends. Files of a test lie in one
//! folder, kept when it fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

use super::proc::{binary, output};
use super::{need, netns, wait};

/// Names of the hosts.
pub const HOSTS: [&str; 5] = ["rtr", "lan", "tv", "hub", "wan"];
/// The router towards the LAN: gateway and resolver.
pub const RTR_LAN: &str = "192.168.77.1";
/// The router's public address: what the internet sees after NAT.
pub const RTR_WAN: &str = "203.0.113.1";
/// First client; it also owns .21 to .29.
pub const LAN: &str = "192.168.77.2";
/// Second client, a device (and MAC) of its own; it also owns .31 to .39.
pub const TV: &str = "192.168.77.3";
/// The hub, as seen from the router.
pub const HUB: &str = "192.168.77.10";
/// Another address of the hub: that of the line that can be broken.
pub const HUB_LINE: &str = "192.168.77.11";
/// The internet's nearest host; it answers for all of 198.51.100.0/24 too.
pub const WAN: &str = "203.0.113.2";

/// Longest a test may take, stretched by the patience.
const TEST_SECONDS_MAX: f64 = 170.0;
/// The test's folder, as seen from inside.
const DIR: &str = "/run/lab";
const IN_WORLD: &str = "AGENTMON_LAB_TEST";

/// The network of one test.
#[derive(Debug)]
pub struct World {
    /// Folder of this test alone: logs, data, configuration.
    pub dir: PathBuf,
    /// Of every random choice; printed.
    pub seed: u64,
}

/// Runs `body` in a world of its own. Leaves the test out, loudly, where the machine lacks
/// something.
///
/// # Panics
/// When the body fails, does not end in time, or the lab must run and cannot.
pub fn in_world(body: fn(&World)) {
    if let Ok(test) = std::env::var(IN_WORLD) {
        body(&World::build(test));
        return;
    }
    let test = test_name();
    if need::lab_can_run(&test) {
        relaunch(&test);
    }
}

/// The test's own name: libtest names the thread after it, or was told it by `--exact`.
fn test_name() -> String {
    let thread = std::thread::current().name().map(str::to_owned);
    thread.filter(|name| name != "main").unwrap_or_else(|| {
        let mut args = std::env::args().skip_while(|arg| arg != "--exact").skip(1);
        args.next().expect("run one test by --exact, or with threads")
    })
}

fn relaunch(test: &str) {
    let dir = folder_of(test);
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let log = dir.join("test.log");
    let out = File::create(&log).expect("the test's log can be made");
    let err = out.try_clone().expect("the test's log opens twice");
    let mut child = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child", "--"])
        .arg(std::env::current_exe().expect("own path"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(IN_WORLD, test)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .expect("unshare can be run");
    let (start, limit) = (wait::now(), wait::patience(TEST_SECONDS_MAX));
    let status = loop {
        if let Some(status) = child.try_wait().expect("own child") {
            break Some(status);
        }
        if wait::now().since(start) > limit {
            drop(child.kill());
            drop(child.wait());
            break None;
        }
        wait::pause(20);
    };
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let passed = status.is_some_and(|s| s.success()) && said.contains("1 passed");
    if passed {
        // The test runner's own words may stand before the first.
        said.lines().filter_map(|l| l.split_once("lab: ")).for_each(|(_, line)| say(line));
        drop(std::fs::remove_dir_all(&dir));
        return;
    }
    let end = status.map_or_else(|| format!("stopped after {limit:?}"), |s| s.to_string());
    // Set off, so that nobody counts the inner runner's summary as one more.
    let said = said.lines().map(|line| format!("| {line}\n")).collect::<String>();
    panic!("{test}: {end}; everything is kept in {}\n{said}\n{}", dir.display(), tails(&dir));
}

/// The last lines of every log in the folder.
fn tails(dir: &Path) -> String {
    const LINES: usize = 25;
    let mut text = String::new();
    let mut files: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().collect();
    files.sort_by_key(std::fs::DirEntry::path);
    for path in files.iter().map(std::fs::DirEntry::path) {
        let is_log = path.extension().is_some_and(|e| e == "log") && !path.ends_with("test.log");
        if let (true, Ok(bytes)) = (is_log, std::fs::read(&path)) {
            let all = String::from_utf8_lossy(&bytes);
            let lines: Vec<_> = all.lines().collect();
            let skipped = lines.len().saturating_sub(LINES);
            text += &format!("--- {} ({skipped} lines before)\n", path.display());
            lines.iter().skip(skipped).for_each(|line| text += &format!("{line}\n"));
        }
    }
    text
}

fn folder_of(test: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("own path");
    let target = exe.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    target.join("lab").join(test.replace("::", "."))
}

impl World {
    fn build(test: String) -> Self {
        let seed = std::env::var("AGENTMON_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(StdRng::from_os_rng().next_u32()));
        say(&format!("{test}: AGENTMON_SEED={seed}"));
        let world = Self { dir: PathBuf::from(DIR), seed };
        world.make_ground(&folder_of(&test));
        world.make_hosts();
        world.make_links();
        world.set_kernel();
        world.load_firewall();
        world
    }

    /// Random choices, repeatable by the seed.
    #[must_use]
    pub fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// A file in the test's folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file system of `kilobytes` in the test's folder: for a disk that runs full.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn small_disk(&self, name: &str, kilobytes: u32) -> PathBuf {
        let folder = self.file(name);
        std::fs::create_dir_all(&folder).expect("folder can be made");
        let options = format!("size={kilobytes}k");
        let target = folder.to_string_lossy();
        sh("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &target]);
        folder
    }

    /// A `/run` of this world's own: for the names of its namespaces, and for the test's
    /// folder under a path short enough for Unix sockets (108 bytes, unix(7)).
    fn make_ground(&self, kept: &Path) {
        sh("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        for folder in ["/run/netns", DIR] {
            std::fs::create_dir(folder).expect("a new /run is writable");
        }
        sh("mount", &["--bind", &kept.to_string_lossy(), DIR]);
    }

    fn make_hosts(&self) {
        for host in HOSTS {
            sh("ip", &["netns", "add", host]);
            ip(host, "link set lo up");
        }
    }

    fn make_links(&self) {
        ip("rtr", "link add br-lan type bridge");
        for (host, port, address) in [("lan", "p1", LAN), ("tv", "p2", TV), ("hub", "p3", HUB)] {
            ip("rtr", &format!("link add {port} type veth peer name eth0 netns {host}"));
            ip("rtr", &format!("link set {port} master br-lan up"));
            ip(host, &format!("addr add {address}/24 dev eth0"));
            ip(host, "link set eth0 up");
        }
        ip("rtr", &format!("addr add {RTR_LAN}/24 dev br-lan"));
        ip("rtr", "link set br-lan up");
        ip("rtr", "link add rw type veth peer name eth0 netns wan");
        ip("rtr", &format!("addr add {RTR_WAN}/24 dev rw"));
        ip("rtr", "link set rw up");
        ip("wan", &format!("addr add {WAN}/24 dev eth0"));
        ip("wan", "link set eth0 up");
        // Anything in 198.51.100.0/24 is answered by the internet's one machine.
        ip("wan", "route add local 198.51.100.0/24 dev lo");
        ip("rtr", &format!("route add default via {WAN}"));
        for host in ["lan", "tv", "hub"] {
            ip(host, &format!("route add default via {RTR_LAN}"));
        }
        ip("hub", &format!("addr add {HUB_LINE}/24 dev eth0"));
        for last in 1..10 {
            ip("lan", &format!("addr add 192.168.77.{}/24 dev eth0", 20 + last));
            ip("tv", &format!("addr add 192.168.77.{}/24 dev eth0", 30 + last));
        }
    }

    /// One more device on the LAN's switch: a host of its own, link up, without an address.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn plug_in(&self, host: &str) {
        sh("ip", &["netns", "add", host]);
        ip(host, "link set lo up");
        ip("rtr", &format!("link add port-{host} type veth peer name eth0 netns {host}"));
        ip("rtr", &format!("link set port-{host} master br-lan up"));
        ip(host, "link set eth0 up");
    }

    /// Gives a host an address of the LAN by hand, and the router as its way out.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn set_address(&self, host: &str, address: &str) {
        ip(host, &format!("addr add {address}/24 dev eth0"));
        ip(host, &format!("route add default via {RTR_LAN}"));
    }

    /// Pulls the hub's cable out of the switch, or puts it back: no side is told.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn hub_cable(&self, plugged: bool) {
        ip("rtr", if plugged { "link set p3 up" } else { "link set p3 down" });
    }

    /// As on a router, but flows end within seconds.
    fn set_kernel(&self) {
        for (name, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.netfilter.nf_conntrack_acct", "1"),
            ("net.netfilter.nf_conntrack_timestamp", "1"),
            ("net.netfilter.nf_conntrack_events", "1"),
            ("net.netfilter.nf_conntrack_tcp_timeout_time_wait", "1"),
            ("net.netfilter.nf_conntrack_tcp_timeout_close", "1"),
            ("net.netfilter.nf_conntrack_udp_timeout", "2"),
            ("net.netfilter.nf_conntrack_udp_timeout_stream", "2"),
        ] {
            netns::sysctl("rtr", name, value);
        }
        // Where some other program has loaded br_netfilter, frames within the LAN would pass
        // the firewall; on a router they do not.
        if Path::new("/proc/sys/net/bridge").is_dir() {
            netns::sysctl("rtr", "net.bridge.bridge-nf-call-iptables", "0");
        }
    }

    fn load_firewall(&self) {
        let file = self.file("fw4.nft");
        std::fs::write(&file, include_str!("fw4.nft")).expect("test folder is writable");
        let nft = need::find("nft").expect("checked before");
        drop(output("rtr", &nft, &["-f", &file.to_string_lossy()]));
    }

    /// One of this workspace's programs.
    #[must_use]
    pub fn binary(&self, name: &str) -> PathBuf {
        binary(name)
    }
}

/// One line of a test's own talk, shown when it passes too: seeds, figures.
pub fn say(line: &str) {
    eprintln!("lab: {line}");
}

fn ip(host: &str, what: &str) {
    let mut args = vec!["-n", host];
    args.extend(what.split(' '));
    sh("ip", &args);
}

fn sh(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output();
    let out = out.unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {}: {said}", out.status);
}
