//! The bus as other threads see it: its settings, its state, and a way to wake its thread.
//!
//! Each lock is held for a copy. Waking never blocks: the bell is a socket pair that may be
//! full, which is as good as rung.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::collect::State;
use crate::wake::Wake;

/// Settings of OpenWrt's message bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether to publish the object `agentmon` and to send the event `agentmon.alert`,
    /// where there is a bus.
    pub enabled: bool,
    /// The socket of ubusd.
    pub socket: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, socket: "/var/run/ubus/ubus.sock".into() }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key below `[ubus]` and what is allowed.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.socket.is_absolute() {
            return Ok(());
        }
        Err(("socket", "want an absolute path".to_owned()))
    }
}

/// Shared by the bus's thread and the supervisor.
#[derive(Debug)]
pub struct Shared {
    config: Mutex<Config>,
    /// `ok: ..`, `off: ..`, or what is wrong.
    pub state: State,
    wake: Wake,
    ringer: Mutex<Option<UnixStream>>,
}

impl Shared {
    /// Not yet running.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let state = State::default();
        state.set("starting");
        Self { config: Mutex::new(config), state, wake: Wake::default(), ringer: Mutex::default() }
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> Config {
        lock(&self.config).clone()
    }

    /// Other settings from now on.
    pub fn reconfigure(&self, config: Config) {
        *lock(&self.config) = config;
        self.poke();
    }

    /// Makes the thread look whether it should stop or has other settings.
    pub fn poke(&self) {
        self.wake.ring();
        if let Some(mut ringer) = lock(&self.ringer).as_ref() {
            // Full is rung; closed means that nobody waits.
            drop(ringer.write(&[0]));
        }
    }

    /// Waits between two connections.
    pub(super) fn wait(&self, pause: Duration) {
        self.wake.wait(pause);
    }

    /// A new bell for one connection; the old one rings no more.
    pub(super) fn bell(&self) -> std::io::Result<UnixStream> {
        let (bell, ringer) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ringer.set_nonblocking(true)?;
        *lock(&self.ringer) = Some(ringer);
        Ok(bell)
    }

    /// What rings the bell.
    pub(super) fn ringer(&self) -> std::io::Result<UnixStream> {
        match lock(&self.ringer).as_ref() {
            Some(ringer) => ringer.try_clone(),
            None => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_poke_rings_the_bell_of_the_connection_there_is() {
        let shared = Shared::new(Config::default());
        shared.poke();
        let mut old = shared.bell().unwrap();
        let mut bell = shared.bell().unwrap();
        (0..100_000).for_each(|_| shared.poke());
        let mut byte = [9];
        assert_eq!(bell.read(&mut byte).unwrap(), 1);
        assert_eq!(old.read(&mut byte).unwrap(), 0, "closed");
    }

    #[test]
    fn the_socket_is_an_absolute_path() {
        assert!(Config::default().validate().is_ok());
        let relative = Config { socket: "ubus.sock".into(), ..Config::default() };
        assert_eq!(relative.validate().unwrap_err().0, "socket");
    }
}
