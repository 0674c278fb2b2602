//! A made-up day of a 40-device home, with attacks planted in it: what `agentmon up --demo`
//! shows, and what tests measure detectors by.
//!
//! In: a seed, the end of the day, the zone's offset. Out: events in time order, the truth
//! about what was planted, and the block list that goes with it. Pure and deterministic:
//! the same arguments give the same day. About 100,000 events in well under a second.
//!
//! Nothing in it exists: names end in `.example` (RFC 2606) or `.lan`, addresses are
//! private or for documentation (RFC 1918, 4193, 5737, 3849), MACs are for documentation
//! (RFC 7042) or locally administered. What is shaped after the real world is who asks how
//! often, and how much they move.
//!
//! The parts: [`home`] (who lives there), [`world`] (events of a home's network),
//! [`routine`] (what they do all day), [`attacks`] (what should be noticed, and its benign
//! twins, which should not).
//!
//! | planted | by | noticed by |
//! |---|---|---|
//! | generated names (DGA) in a burst | garage-camera | tier-0 `dga` |
//! | a listed name | kids-laptop | tier-0 `blocklist` |
//! | a connection to an address nobody had resolved | agent-box | tier-0 `direct-ip` |
//! | telnet to many addresses, stopped by the firewall | old-dvr | tier-0 `firewall` |
//! | a beacon every 300 s | plug-heater | windowed detectors |
//! | a tunnel in TXT queries | kids-tablet | windowed detectors |
//! | small uploads over hours | agent-box | windowed detectors |
//! | one upload of gigabytes | guest-laptop | windowed detectors |

mod attacks;
mod home;
mod routine;
mod world;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use agentmon_core::{Event, Timestamp};

/// Used where nobody asks for another.
pub const SEED: u64 = 42;
/// What findings call the list of [`Day::blocklist`].
pub const LIST_NAME: &str = "demo-threats";
/// The length of the day in seconds.
pub const DAY_SECONDS: u64 = 86_400;

/// The day and the truth about it.
#[derive(Clone, Debug)]
pub struct Day {
    /// Oldest first.
    pub events: Vec<Event>,
    /// What was planted.
    pub planted: Vec<Planted>,
    /// What looks alike and is fine.
    pub twins: Vec<Twin>,
    /// A list of names in hosts-file syntax.
    pub blocklist: String,
}

/// One planted attack.
#[derive(Clone, Debug, PartialEq)]
pub struct Planted {
    /// A short name: `dga-burst`.
    pub name: &'static str,
    /// One sentence.
    pub what: &'static str,
    /// Who does it.
    pub client: IpAddr,
    /// The tier-0 rule that must notice it; `None`: a matter of windowed detectors.
    pub tier0: Option<&'static str>,
    /// Text that stands in the subject of a right finding, where it is one thing.
    pub subject: Option<String>,
    /// When it begins.
    pub from: Timestamp,
    /// When it is over.
    pub to: Timestamp,
}

/// Something of an attack's shape that is fine: no finding of medium severity or more may
/// name it.
#[derive(Clone, Debug, PartialEq)]
pub struct Twin {
    /// A short name: `cdn-hashes`.
    pub name: &'static str,
    /// Whose twin it is.
    pub of: &'static str,
    /// Text no such finding's subject may hold.
    pub subject: String,
}

/// Makes the day that ends at `end`; `offset_seconds` is the local zone's distance from
/// UTC, so that people sleep at night.
#[must_use]
pub fn day(seed: u64, end: Timestamp, offset_seconds: i64) -> Day {
    let home = home::Home::new();
    let mut world = world::World::new(seed, end, offset_seconds);
    routine::play(&home, &mut world);
    let (planted, twins) = attacks::plant(&home, &mut world);
    Day { events: world.finish(), planted, twins, blocklist: attacks::blocklist() }
}

/// A day without anything planted, of a home (or office) of that many devices, in which
/// polls come `pace` times as rarely as on the demo's day, so that weeks are quickly made.
/// People also read what nobody there has read before.
pub(crate) fn quiet_day(seed: u64, end: Timestamp, devices: usize, pace: f64) -> Vec<Event> {
    let home = home::Home::of(devices);
    let mut world = world::World::new(seed, end, 0);
    (world.pace, world.wide) = (pace, true);
    routine::play(&home, &mut world);
    world.finish()
}
