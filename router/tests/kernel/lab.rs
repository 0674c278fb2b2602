//! A network of three namespaces, lan - router - wan, on veth pairs, for one test: real
//! kernel, real nft, real `conntrack`. Needs root; see [`Lab::new`] for what happens without.
//!
//! Every namespace bears the test's process and a number in its name, and goes when the
//! [`Lab`] is dropped.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::time::{Clock as _, SystemClock};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A factor that stretches every wait, for slow or loaded machines.
const PATIENCE_VARIABLE: &str = "AGENTMON_PATIENCE";
/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a command or thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// 192.168.77.2, 2001:db8:77::2.
    Lan,
    /// 192.168.77.1 and 203.0.113.1, 2001:db8:77::1 and 2001:db8:99::1.
    Router,
    /// 203.0.113.2, 2001:db8:99::2.
    Wan,
}

/// The three namespaces.
pub(crate) struct Lab {
    id: String,
}

/// Why there can be no lab; each line names what to do.
fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = bits.and_then(|b| u64::from_str_radix(b.trim(), 16).ok()).unwrap_or(0);
    // CAP_NET_ADMIN and CAP_SYS_ADMIN: interfaces, and namespaces.
    for (bit, name) in [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")] {
        if bits >> bit & 1 == 0 {
            missing.push(format!("{name} (run as root)"));
        }
    }
    for (tool, package) in [
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("iptables", "iptables"),
        ("conntrack", "conntrack"),
    ] {
        // Its version, so that a broken installation counts as missing too.
        if Command::new(tool).arg("-V").output().is_err() {
            missing.push(format!("the tool {tool} (apt-get install {package})"));
        }
    }
    missing
}

impl Lab {
    /// Builds the network; `settings` are sysctls of the router below `net.netfilter`.
    ///
    /// Without root or a tool it says so in one line on standard error and returns `None`:
    /// the test is then left out. With `AGENTMON_REQUIRE_LAB=1` that is a failure.
    pub(crate) fn new(settings: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let missing = missing();
        if !missing.is_empty() {
            let line = format!("LEFT OUT, the kernel lab lacks: {}", missing.join(", "));
            let required = std::env::var("AGENTMON_REQUIRE_LAB").is_ok_and(|v| v == "1");
            assert!(!required, "{line}");
            // Past the test harness, which would keep it to itself.
            drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let lab = Self { id: format!("amk{}n{number}", std::process::id()) };
        lab.build(settings);
        Some(lab)
    }

    fn build(&self, settings: &[&str]) {
        for host in [Host::Lan, Host::Router, Host::Wan] {
            run(&format!("ip netns add {}", self.name(host)));
            self.ip(host, "link set lo up");
        }
        let (lan, router, wan) =
            (self.name(Host::Lan), self.name(Host::Router), self.name(Host::Wan));
        run(&format!("ip link add l0 netns {lan} type veth peer name rl netns {router}"));
        run(&format!("ip link add w0 netns {wan} type veth peer name rw netns {router}"));
        for (host, link, v4, v6) in [
            (Host::Lan, "l0", "192.168.77.2/24", "2001:db8:77::2/64"),
            (Host::Router, "rl", "192.168.77.1/24", "2001:db8:77::1/64"),
            (Host::Router, "rw", "203.0.113.1/24", "2001:db8:99::1/64"),
            (Host::Wan, "w0", "203.0.113.2/24", "2001:db8:99::2/64"),
        ] {
            self.ip(host, &format!("addr add {v4} dev {link}"));
            self.ip(host, &format!("addr add {v6} dev {link} nodad"));
            self.ip(host, &format!("link set {link} up"));
        }
        for (host, v4, v6) in [
            (Host::Lan, "192.168.77.1", "2001:db8:77::1"),
            (Host::Wan, "203.0.113.1", "2001:db8:99::1"),
        ] {
            self.ip(host, &format!("route add default via {v4}"));
            self.ip(host, &format!("-6 route add default via {v6}"));
        }
        let base = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
        let ours = settings.iter().map(|s| format!("net.netfilter.{s}"));
        for setting in base.iter().map(|s| (*s).to_owned()).chain(ours) {
            self.exec(Host::Router, &format!("sysctl -qw {setting}"));
        }
    }

    fn name(&self, host: Host) -> String {
        format!("{}{host:?}", self.id).to_lowercase()
    }

    fn ip(&self, host: Host, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.name(host)));
    }

    /// Runs a command there; it must succeed.
    pub(crate) fn exec(&self, host: Host, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.name(host)))
    }

    /// Starts a command there; killed when dropped.
    pub(crate) fn spawn(&self, host: Host, command: &str) -> Running {
        let mut words = command.split_whitespace();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.name(host)])
            .args(&mut words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("ip starts");
        Running(child)
    }

    /// Applies nftables text in the router.
    pub(crate) fn nft(&self, text: &str) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("rules.nft");
        std::fs::write(&path, text).expect("rules are written");
        self.exec(Host::Router, &format!("nft -f {}", path.display()));
    }

    /// Runs `work` on a thread of that host: its sockets, its /proc/sys/net, the programs
    /// it starts.
    pub(crate) fn on<R: Send + 'static>(
        &self,
        host: Host,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let file = File::open(format!("/run/netns/{}", self.name(host))).expect("the namespace");
        std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter");
            work()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in [Host::Lan, Host::Router, Host::Wan] {
            let delete = ["netns", "del", &self.name(host)];
            // A test that failed while building has not made them all.
            drop(Command::new("ip").args(delete).stderr(Stdio::null()).status());
        }
    }
}

/// A program that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command"))
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("{command}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Asks until the answer comes, or patience ends with what was seen last.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let factor = std::env::var(PATIENCE_VARIABLE).ok().and_then(|v| v.parse::<f64>().ok());
    let patience = PATIENCE.mul_f64(factor.unwrap_or(1.0).max(0.1));
    let begun = SystemClock.mono();
    let mut last = String::new();
    while SystemClock.mono().since(begun) < patience {
        match ask() {
            Ok(answer) => return answer,
            Err(seen) => last = seen,
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: not within {patience:?}; last seen: {last}");
}
