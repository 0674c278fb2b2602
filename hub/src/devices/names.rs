//! What a device is called, by whom: the newest name of each source, the best of them shown.
//!
//! Pure. At most one name a source, so that a device that changes its name every second
//! takes no more room than one that does not. Names are made safe on their way in.

use agentmon_core::Timestamp;
use agentmon_core::event::{DeviceSource, host_name};

/// A name given at the hub comes before all others.
pub(super) const HUB: &str = "hub";

/// A name of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) source: &'static str,
    pub(super) name: String,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) written: Timestamp,
}

/// The source a stored word stands for.
pub(super) fn source(word: &str) -> Option<&'static str> {
    if word == HUB {
        return Some(HUB);
    }
    DeviceSource::from_word(word).map(DeviceSource::as_str)
}

fn rank(source: &str) -> u8 {
    match DeviceSource::from_word(source) {
        Some(source) => source.rank(),
        None => u8::MAX,
    }
}

/// The names of one device.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Vec<Called>);

impl Names {
    /// Takes in a name; true when there is something new to write.
    pub(super) fn call(&mut self, source: &'static str, name: &str, time: Timestamp) -> bool {
        let Some(name) = host_name(name.as_bytes()) else { return false };
        match self.0.iter_mut().find(|called| called.source == source) {
            Some(known) if known.name == name => {
                known.last = known.last.max(time);
                known.last.since(known.written) >= super::REWRITE_AFTER
            }
            // An old name that comes late says nothing.
            Some(known) if time < known.last => false,
            Some(known) => {
                let (first, last) = (time, time);
                *known = Called { source, name, first, last, written: time };
                true
            }
            None => {
                let (first, last) = (time, time);
                self.0.push(Called { source, name, first, last, written: time });
                true
            }
        }
    }

    /// Puts back what was stored.
    pub(super) fn restore(&mut self, called: Called) {
        self.0.push(called);
    }

    /// Forgets a source's name; whether there was one.
    pub(super) fn forget(&mut self, source: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|called| called.source != source);
        self.0.len() < before
    }

    pub(super) fn best(&self) -> Option<&Called> {
        self.0.iter().max_by_key(|called| rank(called.source))
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Called> {
        self.0.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(told: &[(&str, &str, i64)], expected: &str) {
        let mut names = Names::default();
        for (word, name, time) in told {
            names.call(source(word).unwrap(), name, Timestamp::from_secs(*time));
        }
        let best = names.best().map(|called| format!("{} {}", called.source, called.name));
        assert_eq!(best.unwrap_or_default(), expected);
    }

    #[test]
    fn the_best_source_counts_and_of_one_the_newest() {
        check(&[], "");
        check(&[("ptr", "a.lan", 1), ("lease", "a", 2)], "lease a");
        check(&[("lease", "a", 2), ("lease", "b", 1)], "lease a");
        check(&[("lease", "a", 1), ("lease", "b", 2)], "lease b");
        check(&[("hub", "mine", 1), ("static", "list", 2), ("pihole", "p", 3)], "hub mine");
        check(&[("lease", "a", 1), ("lease", "localhost", 2), ("lease", "*", 3)], "lease a");
        check(&[("lease", "a\x1b[2Jb", 1)], "lease a\\x1b[2Jb");
        assert_eq!(source("nonsense"), None);
    }
}
