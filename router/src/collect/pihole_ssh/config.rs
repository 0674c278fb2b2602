//! Settings of the collector of a Pi-hole by SSH, and which of them make sense.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::localtime::ZoneSetting;
use crate::ssh::{Target, is_path};

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs. It needs OpenSSH's `ssh` here, and its sftp there.
    pub enabled: bool,
    /// The Pi-hole's name or address.
    pub host: String,
    /// Its port for SSH.
    pub port: u16,
    /// Who to be there: best a user who may do nothing but read these files by sftp.
    pub user: String,
    /// File with the private key, without a passphrase.
    pub key: PathBuf,
    /// File with the Pi-hole's own key, as `ssh-keyscan` writes it. Compare it before.
    pub known_hosts: PathBuf,
    /// The log there. Empty: it is not read.
    pub log: String,
    /// The zone of dates in the log: "local", "utc", "+02:00", or a POSIX TZ string.
    pub timezone: ZoneSetting,
    /// At the very first start, read what is there already (false: only what is added).
    pub from_start: bool,
    /// How often to look for new lines, in milliseconds (200 to 60000).
    pub poll_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            host: "pi.hole".to_owned(),
            port: 22,
            user: "agentmon".to_owned(),
            key: PathBuf::from("/etc/agentmon/pihole.key"),
            known_hosts: PathBuf::from("/etc/agentmon/pihole.known_hosts"),
            log: "/var/log/pihole/pihole.log".to_owned(),
            timezone: ZoneSetting::Local,
            from_start: false,
            poll_ms: 1_000,
        }
    }
}

impl Config {
    /// The machine.
    pub(super) fn target(&self) -> Target {
        Target {
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            key: self.key.clone(),
            known_hosts: self.known_hosts.clone(),
        }
    }

    /// Whether the values make sense together.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        self.target().validate()?;
        if !self.log.is_empty() && !is_path(&self.log) {
            return Err(("log", "want an absolute path of a file there, or nothing".into()));
        }
        if self.enabled && self.log.is_empty() {
            return Err(("log", "name the log there, or set enabled = false".into()));
        }
        if !(200..=60_000).contains(&self.poll_ms) {
            return Err(("poll_ms", format!("want 200 to 60000, not {}", self.poll_ms)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl Fn(&mut Config), expected: Result<(), &str>) {
        let mut config = Config { enabled: true, ..Config::default() };
        change(&mut config);
        assert_eq!(config.validate().map_err(|(key, _)| key), expected, "{config:?}");
    }

    #[test]
    fn what_makes_sense() {
        check(|_| (), Ok(()));
        check(|c| c.host = "-oProxyCommand=id".into(), Err("host"));
        check(|c| c.user = "a b".into(), Err("user"));
        check(|c| c.key = "id".into(), Err("key"));
        check(|c| c.log = "pihole.log".into(), Err("log"));
        check(|c| c.log = String::new(), Err("log"));
        check(|c| (c.log, c.enabled) = (String::new(), false), Ok(()));
        for (poll_ms, fine) in [(199, false), (200, true), (60_000, true), (60_001, false)] {
            check(|c| c.poll_ms = poll_ms, if fine { Ok(()) } else { Err("poll_ms") });
        }
    }
}
