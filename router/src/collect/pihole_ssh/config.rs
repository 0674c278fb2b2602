//! Settings of the collector of a Pi-hole by SSH, and which of them make sense.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::localtime::ZoneSetting;
use crate::ssh::{Target, is_path};

/// Sensible lengths of a database: an empty one, and more than a Pi-hole has disk.
const COPY_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 30;

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
    /// The long-term database there (`/etc/pihole/pihole-FTL.db`), which is copied and read.
    /// Empty: it is not. The log is better: it is earlier and has the answers.
    pub database: String,
    /// How often to copy it, where it has changed, in seconds (30 to 86400).
    pub copy_seconds: u64,
    /// Longest database taken, in bytes, its write-ahead log included.
    pub copy_bytes_max: u64,
    /// The folder where the copy is made. Empty: the system's for temporary files, which on
    /// OpenWrt is in memory.
    pub copy_folder: PathBuf,
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
            database: String::new(),
            copy_seconds: 900,
            copy_bytes_max: 512 * 1024 * 1024,
            copy_folder: PathBuf::new(),
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
        for (key, path) in [("log", &self.log), ("database", &self.database)] {
            if !path.is_empty() && !is_path(path) {
                return Err((key, "want an absolute path of a file there, or nothing".into()));
            }
        }
        if self.enabled && self.log.is_empty() && self.database.is_empty() {
            return Err((
                "log",
                "name the log there or its database, or set enabled = false".into(),
            ));
        }
        if !(30..=86_400).contains(&self.copy_seconds) {
            return Err(("copy_seconds", format!("want 30 to 86400, not {}", self.copy_seconds)));
        }
        if !COPY_BYTES.contains(&self.copy_bytes_max) {
            let (least, most) = (COPY_BYTES.start(), COPY_BYTES.end());
            let problem = format!("want {least} to {most}, not {}", self.copy_bytes_max);
            return Err(("copy_bytes_max", problem));
        }
        if !self.copy_folder.as_os_str().is_empty() && !self.copy_folder.is_absolute() {
            return Err(("copy_folder", "want an absolute path, or nothing".into()));
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
        check(
            |c| (c.log, c.database) = (String::new(), "/etc/pihole/pihole-FTL.db".into()),
            Ok(()),
        );
        check(|c| c.database = "/etc/pihole/".into(), Err("database"));
        check(|c| c.copy_seconds = 29, Err("copy_seconds"));
        check(|c| c.copy_bytes_max = 65_535, Err("copy_bytes_max"));
        check(|c| c.copy_folder = "x".into(), Err("copy_folder"));
        check(|c| (c.log, c.enabled) = (String::new(), false), Ok(()));
        for (poll_ms, fine) in [(199, false), (200, true), (60_000, true), (60_001, false)] {
            check(|c| c.poll_ms = poll_ms, if fine { Ok(()) } else { Err("poll_ms") });
        }
    }
}
