//! Another machine, and how to reach it by SSH.
//!
//! In: settings. Out: the arguments of the system's `ssh`, or what is wrong with the
//! settings. Pure.
//!
//! No shell sees any of it: each value is an argument of its own, and none can be taken for
//! an option. `ssh` itself expands `%`, `~`, `$` and blanks in the names of files, so these
//! are refused. The user's and the system's own configuration of `ssh` are left out: what may
//! happen stands here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Longest name of a host or user.
const NAME_BYTES_MAX: usize = 253;
/// For the connection until the key was exchanged.
const CONNECT_SECONDS: u32 = 15;
/// A connection on which nothing comes is asked this often whether it lives.
const ALIVE_SECONDS: u32 = 15;
/// So often.
const ALIVE_TRIES: u32 = 3;

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Name or address.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// Who to be there.
    pub(crate) user: String,
    /// File with the private key, without a passphrase.
    pub(crate) key: PathBuf,
    /// File with the host's key.
    pub(crate) known_hosts: PathBuf,
}

impl Target {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        if !is_name(&self.host, b"._:-%") {
            return Err(("host", "want a name or an address".into()));
        }
        if !is_name(&self.user, b"._-") {
            return Err(("user", "want a user's name".into()));
        }
        if self.port == 0 {
            return Err(("port", "want 1 to 65535".into()));
        }
        for (key, path) in [("key", &self.key), ("known_hosts", &self.known_hosts)] {
            if !is_plain(path) {
                return Err((
                    key,
                    "want an absolute path of letters, digits, dots, dashes, underscores".into(),
                ));
            }
        }
        Ok(())
    }

    /// `USER@HOST` as people write it.
    pub(crate) fn shown(&self) -> String {
        let port = if self.port == 22 { String::new() } else { format!(":{}", self.port) };
        format!("{}@{}{port}", self.user, self.host)
    }

    /// The arguments of `ssh` for a conversation with the server's `sftp`.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let known = format!("UserKnownHostsFile={}", self.known_hosts.display());
        let options = [
            "BatchMode=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            known,
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "UpdateHostKeys=no".to_owned(),
            "CheckHostIP=no".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "PreferredAuthentications=publickey".to_owned(),
            "ClearAllForwardings=yes".to_owned(),
            "ForwardAgent=no".to_owned(),
            "ForwardX11=no".to_owned(),
            "PermitLocalCommand=no".to_owned(),
            "ControlMaster=no".to_owned(),
            "ControlPath=none".to_owned(),
            "EscapeChar=none".to_owned(),
            "LogLevel=ERROR".to_owned(),
            "ConnectionAttempts=1".to_owned(),
            format!("ConnectTimeout={CONNECT_SECONDS}"),
            format!("ServerAliveInterval={ALIVE_SECONDS}"),
            format!("ServerAliveCountMax={ALIVE_TRIES}"),
        ];
        let mut arguments: Vec<OsString> = vec!["-F".into(), "none".into(), "-T".into()];
        arguments.extend(["-i".into(), self.key.clone().into_os_string()]);
        arguments.extend(["-p".into(), self.port.to_string().into()]);
        arguments.extend(["-l".into(), (&self.user).into()]);
        for option in options {
            arguments.extend(["-o".into(), option.into()]);
        }
        // `-s`: the last word is a subsystem of the server and no command.
        arguments.extend(["-s".into(), "--".into(), (&self.host).into(), "sftp".into()]);
        arguments
    }
}

fn is_name(text: &str, besides: &[u8]) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || besides.contains(&b);
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && !text.starts_with(['-', '%'])
        && text.bytes().all(fine)
}

fn is_plain(path: &Path) -> bool {
    let fine = |b: &u8| b.is_ascii_alphanumeric() || b"/._-+@,".contains(b);
    path.is_absolute() && path.as_os_str().as_encoded_bytes().iter().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            host: "pi.hole".into(),
            port: 22,
            user: "agentmon".into(),
            key: "/etc/agentmon/pihole.key".into(),
            known_hosts: "/etc/agentmon/known_hosts".into(),
        }
    }

    #[track_caller]
    fn check(change: impl Fn(&mut Target), expected: Result<(), &str>) {
        let mut target = target();
        change(&mut target);
        assert_eq!(target.validate().map_err(|(key, _)| key), expected, "{target:?}");
    }

    #[test]
    fn what_makes_sense() {
        check(|_| (), Ok(()));
        for host in ["192.0.2.2", "2001:db8::2", "fe80::1%eth0", "pi-hole.lan"] {
            check(|t| t.host = host.into(), Ok(()));
        }
        let wrong = ["", "-oProxyCommand=id", "a b", "pi;id", "$(id)", "a\nb", "pi@hole", "a/b"];
        for host in wrong {
            check(|t| t.host = host.into(), Err("host"));
            check(|t| t.user = host.into(), Err("user"));
        }
        check(|t| t.port = 0, Err("port"));
        for path in ["", "key", "~/key", "/a b", "/%h", "/${HOME}/k", "/a\"b", "/a\nb"] {
            check(|t| t.key = path.into(), Err("key"));
            check(|t| t.known_hosts = path.into(), Err("known_hosts"));
        }
    }

    #[test]
    fn each_value_is_an_argument_of_its_own() {
        let arguments = target().arguments();
        let all: Vec<_> = arguments.iter().map(|a| a.to_str().unwrap()).collect();
        let follows = |a: &str, b: &str| all.windows(2).any(|pair| pair == [a, b]);
        assert!(follows("-i", "/etc/agentmon/pihole.key") && follows("-l", "agentmon"));
        assert!(follows("-o", "BatchMode=yes") && follows("-o", "StrictHostKeyChecking=yes"));
        assert!(follows("-o", "UserKnownHostsFile=/etc/agentmon/known_hosts"));
        assert!(follows("-F", "none"), "{all:?}");
        assert!(all.ends_with(&["-s", "--", "pi.hole", "sftp"]));
        assert_eq!(target().shown(), "agentmon@pi.hole");
    }
}
