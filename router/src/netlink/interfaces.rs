//! Interface names by index, remembered for a while.
//!
//! In: an interface index from a kernel message. Out: its printable name. One system call
//! per index and [`KEEP`]; interfaces come and go (VPN, Wi-Fi clients), so names expire.
//!
//! Invariant: at most [`INTERFACES_MAX`] names are kept.

use std::collections::HashMap;
use std::time::Duration;

use agentmon_core::time::Mono;

use crate::sys;

/// More than any router has; reaching it empties the memory.
pub const INTERFACES_MAX: usize = 1_024;
/// How long a name is believed.
const KEEP: Duration = Duration::from_secs(60);

/// The memory of one thread.
#[derive(Debug, Default)]
pub struct Interfaces(HashMap<u32, (Option<String>, Mono)>);

impl Interfaces {
    /// The interface's name, if it exists.
    pub fn name(&mut self, index: u32, now: Mono) -> Option<String> {
        self.name_with(index, now, sys::interface_name)
    }

    fn name_with(
        &mut self,
        index: u32,
        now: Mono,
        look_up: impl FnOnce(u32) -> Option<String>,
    ) -> Option<String> {
        if let Some((name, since)) = self.0.get(&index)
            && now.since(*since) < KEEP
        {
            return name.clone();
        }
        if self.0.len() >= INTERFACES_MAX {
            self.0.clear();
        }
        let name = look_up(index);
        self.0.insert(index, (name.clone(), now));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_once_a_minute() {
        let mut interfaces = Interfaces::default();
        let mut at = |seconds: u64, answer: Option<&str>| {
            let now = Mono::from_nanos(seconds * 1_000_000_000);
            interfaces.name_with(7, now, |_| answer.map(str::to_owned))
        };
        assert_eq!(at(1, Some("tun0")).as_deref(), Some("tun0"));
        assert_eq!(at(60, Some("other")).as_deref(), Some("tun0"));
        assert_eq!(at(62, None), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut interfaces = Interfaces::default();
        for index in 0..5_000 {
            interfaces.name_with(index, Mono::default(), |_| None);
        }
        assert!(interfaces.0.len() <= INTERFACES_MAX);
    }
}
