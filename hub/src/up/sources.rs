//! What `agentmon up` can see on this machine, and what it would take to see more.
//!
//! In: the options, this process's rights, the files at the usual places. Out: the router's
//! configuration, and one line for each thing that stays unseen, with the way to change
//! that. Reads a few small files; changes nothing.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agentmon_router::collect::syslog::IpNet;
use agentmon_router::config::{CollectConfig, Config};
use agentmon_router::kernel::Check;
use agentmon_router::kernel::probe::{Groups, probe};

/// Where Pi-hole (v6, v5) and dnsmasq write their logs by default.
const LOGS: [&str; 4] = [
    "/var/log/pihole/pihole.log",
    "/var/log/pihole.log",
    "/var/log/dnsmasq.log",
    "/var/log/dnsmasq/dnsmasq.log",
];
/// Where dnsmasq's configuration may name another.
const DNSMASQ_CONFIG: &str = "/etc/dnsmasq.conf";
const DNSMASQ_CONFIG_DIR: &str = "/etc/dnsmasq.d";
/// Most configuration read of one file.
const CONFIG_BYTES_MAX: u64 = 256 * 1024;

/// What the person asked for, as far as it concerns sources.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Logs named on the command line; they must be there.
    pub logs: Vec<PathBuf>,
    /// Where to take syslog, by datagram and TCP.
    pub syslog: Vec<SocketAddr>,
    /// Who may send it, besides this machine.
    pub syslog_from: Vec<IpNet>,
    /// A recorded day to play: the file, and its block list.
    pub replay: Option<(PathBuf, PathBuf)>,
}

/// Something that stays unseen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What: `connections`.
    pub what: &'static str,
    /// Why, and how to change that.
    pub mend: String,
    /// `--kernel-setup` would change that.
    pub kernel: bool,
}

/// The router's configuration for this machine, with its state below `state_dir`.
#[must_use]
pub fn configure(state_dir: &Path, wishes: &Wishes, machine: &Machine) -> (Config, Vec<Lack>) {
    let mut config = Config { state_dir: state_dir.to_owned(), ..Config::default() };
    let mut lacks = Vec::new();
    let collect = &mut config.collect;
    collect.conntrack.enabled = machine.net_admin;
    collect.firewall.enabled = machine.net_admin;
    collect.passive_dns.enabled = machine.net_admin;
    if !machine.net_admin {
        lacks.push(Lack {
            what: "connections, stopped packets and DNS on the wire",
            mend: "need CAP_NET_ADMIN: run as root, or setcap cap_net_admin+ep on this program"
                .to_owned(),
            kernel: false,
        });
    }
    for check in machine.kernel.iter().filter(|check| !check.ok) {
        let mend = check.mend.as_deref().map_or_else(String::new, |mend| format!("; {mend}"));
        lacks.push(Lack {
            what: check.what,
            mend: format!("{}{mend}", check.detail),
            kernel: true,
        });
    }
    let logs = if wishes.logs.is_empty() { &machine.logs } else { &wishes.logs };
    collect.dnsmasq_log.enabled = !logs.is_empty();
    if logs.is_empty() && wishes.syslog.is_empty() {
        lacks.push(Lack {
            what: "the resolver's log",
            mend: "no log of Pi-hole or dnsmasq at the usual places: name it with --pihole-log \
                   FILE (dnsmasq: log-queries=extra and log-facility=FILE)"
                .to_owned(),
            kernel: false,
        });
    }
    if !logs.is_empty() {
        collect.dnsmasq_log.paths.clone_from(logs);
    }
    if !wishes.syslog.is_empty() {
        let syslog = &mut collect.syslog;
        syslog.enabled = true;
        syslog.udp.clone_from(&wishes.syslog);
        syslog.tcp.clone_from(&wishes.syslog);
        syslog.allow.extend(&wishes.syslog_from);
    }
    if let Some((day, list)) = &wishes.replay {
        collect.replay.enabled = true;
        collect.replay.path.clone_from(day);
        config.tier0.blocklist.lists.push(agentmon_core::tier0::blocklist::ListConfig {
            name: crate::demo::LIST_NAME.to_owned(),
            path: list.clone(),
            score: 0.8,
            ..Default::default()
        });
    }
    (config, lacks)
}

/// What there is on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// May ask the kernel about connections.
    pub net_admin: bool,
    /// What the kernel offers, as far as it may be asked.
    pub kernel: Vec<Check>,
    /// Logs of resolvers that can be read.
    pub logs: Vec<PathBuf>,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn look() -> Self {
        let checks = probe(Groups::from(&CollectConfig::default()));
        // The first check is about the right to ask at all; without it the rest says nothing.
        let net_admin = checks.first().is_some_and(|check| check.ok);
        let kernel = if net_admin { checks } else { Vec::new() };
        Self { net_admin, kernel, logs: logs() }
    }
}

/// Logs at the usual places, and those dnsmasq's configuration names, that can be read.
fn logs() -> Vec<PathBuf> {
    let mut logs: Vec<PathBuf> = LOGS.iter().map(PathBuf::from).collect();
    for config in config_files() {
        let mut text = String::new();
        let read = std::fs::File::open(&config)
            .and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_string(&mut text));
        logs.extend(read.ok().and_then(|_| log_facility(&text)));
    }
    logs.retain(|path| path.is_file() && std::fs::File::open(path).is_ok());
    logs.sort();
    logs.dedup();
    logs
}

fn config_files() -> Vec<PathBuf> {
    let dir = std::fs::read_dir(DNSMASQ_CONFIG_DIR).into_iter().flatten();
    let below = dir.filter_map(Result::ok).map(|entry| entry.path());
    let conf = below.filter(|path| path.extension().is_some_and(|e| e == "conf"));
    std::iter::once(PathBuf::from(DNSMASQ_CONFIG)).chain(conf).take(64).collect()
}

/// The file dnsmasq's configuration logs to; a facility's name is no file.
fn log_facility(text: &str) -> Option<PathBuf> {
    let value = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "log-facility").then(|| PathBuf::from(value.trim()))
    };
    text.lines().filter_map(value).next_back().filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_a_dnsmasq_configuration() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(log_facility(text), expected.map(PathBuf::from));
        }
        check("log-queries\nlog-facility=/var/log/dns.log\n", Some("/var/log/dns.log"));
        check(" log-facility = /a \nlog-facility=/b", Some("/b"));
        check("# log-facility=/var/log/dns.log\n", None);
        check("log-facility=DAEMON\n", None);
        check("", None);
    }

    #[test]
    fn without_rights_the_log_and_the_neighbours_remain() {
        let logs = vec!["/var/log/dnsmasq.log".into()];
        let machine = Machine { logs, ..Machine::default() };
        let (config, lacks) = configure(Path::new("/d"), &Wishes::default(), &machine);
        config.validate().unwrap();
        assert!(!config.collect.conntrack.enabled && config.collect.dnsmasq_log.enabled);
        assert!(config.collect.leases.enabled && config.collect.neighbours.enabled);
        assert!(lacks.len() == 1 && lacks[0].mend.contains("root"), "{lacks:?}");
    }

    #[test]
    fn syslog_is_taken_where_asked_for_and_from_whom() {
        let machine = Machine { net_admin: true, ..Machine::default() };
        let wishes = Wishes {
            syslog: vec!["192.0.2.1:5514".parse().unwrap()],
            syslog_from: vec!["192.0.2.0/24".parse().unwrap()],
            ..Wishes::default()
        };
        let (config, lacks) = configure(Path::new("/d"), &wishes, &machine);
        config.validate().unwrap();
        let syslog = &config.collect.syslog;
        assert!(syslog.enabled && !config.collect.dnsmasq_log.enabled && lacks.is_empty());
        assert_eq!((&syslog.udp, &syslog.tcp), (&wishes.syslog, &wishes.syslog));
        assert!(syslog.allows([192, 0, 2, 7].into()) && syslog.allows([127, 0, 0, 1].into()));
        assert!(!syslog.allows([192, 0, 3, 7].into()));
        let (config, _) = configure(Path::new("/d"), &Wishes::default(), &machine);
        assert!(!config.collect.syslog.enabled, "nobody listens unasked");
    }

    #[test]
    fn what_was_named_is_read_and_nothing_else() {
        let logs = vec!["/var/log/dnsmasq.log".into()];
        let machine = Machine { net_admin: true, logs, ..Machine::default() };
        let wishes = Wishes {
            logs: vec!["/tmp/mine.log".into()],
            replay: Some(("/d/day.ndjson".into(), "/d/list".into())),
            ..Wishes::default()
        };
        let (config, lacks) = configure(Path::new("/d"), &wishes, &machine);
        config.validate().unwrap();
        assert_eq!(config.collect.dnsmasq_log.paths, [PathBuf::from("/tmp/mine.log")]);
        assert!(config.collect.replay.enabled && lacks.is_empty());
        let kernel = vec![
            Check::good("flow events", "on"),
            Check::bad("byte counts", "nf_conntrack_acct is 0", "sysctl -w ..."),
        ];
        let nothing = Machine { net_admin: true, kernel, ..Machine::default() };
        let (_, lacks) = configure(Path::new("/d"), &Wishes::default(), &nothing);
        assert!(lacks.iter().any(|l| l.mend.contains("--pihole-log")));
        assert!(lacks.iter().any(|l| l.what == "byte counts" && l.mend.contains("sysctl")));
        assert!(!lacks.iter().any(|l| l.what == "flow events"));
    }
}
