//! Settings of the syslog receiver, and which of them make sense.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use agentmon_core::event::unmap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::localtime::ZoneSetting;

/// Most addresses of one kind to listen on.
pub const LISTEN_MAX: usize = 8;
/// Most connections that may be allowed at a time: each takes up to 40 KiB.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Most networks that may send.
pub const ALLOW_MAX: usize = 256;
/// Highest rate that may be set.
const RATE_MAX: u32 = 1_000_000;
/// Longest span that may be set: a week.
const SECONDS_MAX: u64 = 7 * 86_400;

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// Addresses and ports to receive datagrams on (RFC 5426, RFC 3164).
    pub udp: Vec<SocketAddr>,
    /// Addresses and ports to take TCP connections on (RFC 6587).
    pub tcp: Vec<SocketAddr>,
    /// Addresses and ports to take TLS connections on (RFC 5425; its own port is 6514).
    pub tls: Vec<SocketAddr>,
    /// The certificate chain for TLS, as PEM.
    pub tls_cert: PathBuf,
    /// Its private key, as PEM.
    pub tls_key: PathBuf,
    /// Where given, senders must show a certificate of one of these CAs (PEM).
    pub tls_client_ca: PathBuf,
    /// Who may send; what others send is counted and thrown away. A datagram's source can
    /// be forged by anyone in the same network: TCP or TLS where that matters.
    pub allow: Vec<IpNet>,
    /// The zone of dates without one: "local", "utc", "+02:00", or a POSIX TZ string.
    pub timezone: ZoneSetting,
    /// Most messages of one source in a second, for as long as it likes; twice as many in a
    /// burst. Datagrams beyond are dropped and told as a gap; connections are read slower.
    pub messages_per_second: u32,
    /// Most connections at a time (1 to 1024), a quarter of them from one source.
    pub connections_max: usize,
    /// Messages that arrive so many seconds late, or are dated as far ahead, are told; when
    /// it lasts for a minute, as a finding.
    pub lag_seconds: u64,
    /// A source that was heard, or is allowed by its own address (as "192.168.1.1/32"), and
    /// is silent for so many seconds is told; 0: never.
    pub silence_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        let any = |port| vec![SocketAddr::from(([0, 0, 0, 0], port))];
        Self {
            enabled: false,
            // Ports below 1024 need a right that the service does not have otherwise.
            udp: any(5_514),
            tcp: Vec::new(),
            tls: Vec::new(),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            tls_client_ca: PathBuf::new(),
            allow: vec![
                Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
                Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
            ],
            timezone: ZoneSetting::Local,
            messages_per_second: 5_000,
            connections_max: 64,
            lag_seconds: 300,
            silence_seconds: 1_800,
        }
    }
}

impl Config {
    /// Whether `ip` may send.
    #[must_use]
    pub fn allows(&self, ip: IpAddr) -> bool {
        let ip = unmap(ip);
        self.allow.iter().any(|net| net.contains(&ip))
    }

    /// Who is named by its own address, this machine aside: its silence means something.
    pub fn expected(&self) -> impl Iterator<Item = IpAddr> {
        let one = |net: &&IpNet| net.prefix_len() == net.max_prefix_len();
        self.allow.iter().filter(one).map(IpNet::addr).filter(|ip| !ip.is_loopback())
    }

    /// Most connections from one source.
    #[must_use]
    pub fn connections_per_source(&self) -> usize {
        self.connections_max.div_ceil(4)
    }

    /// Whether the values make sense together.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        for (key, list) in [("udp", &self.udp), ("tcp", &self.tcp), ("tls", &self.tls)] {
            if list.len() > LISTEN_MAX {
                return Err((key, format!("want at most {LISTEN_MAX}, not {}", list.len())));
            }
        }
        if let Some(twice) = self.tcp.iter().find(|at| self.tls.contains(at) && at.port() != 0) {
            return Err(("tls", format!("{twice} is taken by `tcp`")));
        }
        if self.allow.len() > ALLOW_MAX {
            return Err(("allow", format!("want at most {ALLOW_MAX} networks")));
        }
        if !(1..=RATE_MAX).contains(&self.messages_per_second) {
            let text = format!("want 1 to {RATE_MAX}, not {}", self.messages_per_second);
            return Err(("messages_per_second", text));
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.connections_max) {
            let text = format!("want 1 to {CONNECTIONS_MAX}, not {}", self.connections_max);
            return Err(("connections_max", text));
        }
        if !(1..=SECONDS_MAX).contains(&self.lag_seconds) {
            return Err(("lag_seconds", format!("want 1 to {SECONDS_MAX}")));
        }
        if self.silence_seconds > SECONDS_MAX {
            return Err(("silence_seconds", format!("want at most {SECONDS_MAX}")));
        }
        self.validate_files()?;
        if self.enabled { self.validate_enabled() } else { Ok(()) }
    }

    fn validate_files(&self) -> Result<(), (&'static str, String)> {
        let files = [
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
            ("tls_client_ca", &self.tls_client_ca),
        ];
        for (key, path) in files {
            if !is_empty(path) && !path.is_absolute() {
                return Err((key, format!("{} is no absolute path", path.display())));
            }
        }
        Ok(())
    }

    /// What is wanted only of a receiver that runs.
    fn validate_enabled(&self) -> Result<(), (&'static str, String)> {
        if self.udp.is_empty() && self.tcp.is_empty() && self.tls.is_empty() {
            return Err(("udp", "name at least one address, or set enabled = false".into()));
        }
        if self.allow.is_empty() {
            return Err(("allow", "name who may send, as \"192.168.1.0/24\"".into()));
        }
        if !self.tls.is_empty() {
            for (key, path) in [("tls_cert", &self.tls_cert), ("tls_key", &self.tls_key)] {
                if is_empty(path) {
                    return Err((key, "`tls` needs a certificate and its key".into()));
                }
            }
        }
        Ok(())
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(change: impl Fn(&mut Config), key: &str) {
        let mut config = Config { enabled: true, ..Config::default() };
        assert_eq!(config.validate(), Ok(()));
        change(&mut config);
        assert_eq!(config.validate().map_err(|(key, _)| key), Err(key));
    }

    #[test]
    fn what_makes_no_sense() {
        refused(|c| c.udp.clear(), "udp");
        refused(|c| c.allow.clear(), "allow");
        refused(|c| c.tls = c.udp.clone(), "tls_cert");
        refused(|c| (c.tls, c.tls_cert) = (c.udp.clone(), "/c".into()), "tls_key");
        refused(|c| (c.tls, c.tcp) = (c.udp.clone(), c.udp.clone()), "tls");
        refused(|c| c.tls_key = "relative".into(), "tls_key");
        refused(|c| c.connections_max = 0, "connections_max");
        refused(|c| c.messages_per_second = 0, "messages_per_second");
        refused(|c| c.lag_seconds = 0, "lag_seconds");
        refused(|c| c.silence_seconds = u64::MAX, "silence_seconds");
        refused(|c| c.udp = vec![c.udp[0]; LISTEN_MAX + 1], "udp");
    }

    #[test]
    fn who_may_send() {
        #[track_caller]
        fn check(ip: &str, expected: bool) {
            let allow = ["192.0.2.0/24", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec();
            let config = Config { allow, ..Config::default() };
            assert_eq!(config.allows(ip.parse().unwrap()), expected, "{ip}");
        }
        check("192.0.2.7", true);
        check("::ffff:192.0.2.7", true);
        check("192.0.3.7", false);
        check("2001:db8::7", true);
        check("2001:db9::7", false);
        assert!(Config::default().allows(IpAddr::from([127, 0, 0, 1])));
        assert!(!Config::default().allows(IpAddr::from([192, 0, 2, 1])));
    }
}
