//! What this network knows of domains that look generated: who asks, since when.
//!
//! A generator's name is asked for by the one machine that runs it, and is new. One that
//! several devices ask for belongs to software they share; one that was asked for days ago
//! and still is belongs to the network's life. In: domain, device, time. Out: how many
//! devices, how long known.
//!
//! Only domains that look generated are remembered: a few of a home's thousands. Constant
//! memory ([`PLACES`] of 32 bytes, taken with the first such domain): each domain has
//! [`WAYS`] places; when these are taken, the one that nobody asked for longest goes, and
//! is counted. Devices are counted in a map of 64 bits: exact enough for "several".

use std::time::Duration;

use crate::time::Mono;

/// Domains remembered; a power of two.
const PLACES: usize = 4_096;
/// Places a domain may stand in.
const WAYS: usize = 8;

/// What is known of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Devices that asked for it, at least; one of them is asking now.
    pub(super) devices: u32,
    /// Since when it is asked for.
    pub(super) age: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Hash of the domain; 0 where nothing stands.
    domain: u64,
    /// One bit for each device, by hash.
    devices: u64,
    first: Mono,
    last: Mono,
}

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Known {
    places: Vec<Place>,
    evicted: u64,
}

impl Known {
    /// Notes that a device asks for a domain.
    pub(super) fn ask(&mut self, domain: u64, device: u64, now: Mono) -> Standing {
        if self.places.is_empty() {
            self.places = vec![Place::default(); PLACES];
        }
        let domain = domain.max(1);
        let start = domain as usize % (PLACES / WAYS) * WAYS;
        let Some(ways) = self.places.get_mut(start..start + WAYS) else {
            return Standing { devices: 1, age: Duration::ZERO };
        };
        // A free place was never asked for, so it is the quietest.
        let at = ways.iter().position(|place| place.domain == domain).unwrap_or_else(|| {
            let quietest = ways.iter().enumerate().min_by_key(|(_, p)| (p.domain != 0, p.last));
            quietest.map_or(0, |(i, _)| i)
        });
        let Some(place) = ways.get_mut(at) else {
            return Standing { devices: 1, age: Duration::ZERO };
        };
        if place.domain != domain {
            self.evicted += u64::from(place.domain != 0);
            *place = Place { domain, devices: 0, first: now, last: now };
        }
        place.devices |= 1 << (device % 64);
        place.last = now;
        Standing { devices: place.devices.count_ones(), age: now.since(place.first) }
    }

    /// Domains forgotten because there were too many.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn devices_and_age_add_up() {
        let mut known = Known::default();
        let standing = |devices, age| Standing { devices, age: Duration::from_secs(age) };
        assert_eq!(known.ask(7, 1, at(10)), standing(1, 0));
        assert_eq!(known.ask(7, 1, at(20)), standing(1, 10));
        assert_eq!(known.ask(7, 2, at(30)), standing(2, 20));
        assert_eq!(known.ask(8, 2, at(30)), standing(1, 0));
        assert_eq!(known.ask(7, 66, at(40)), standing(2, 30), "falls together with device 2");
    }

    #[test]
    fn a_flood_forgets_the_quietest_and_counts() {
        let mut known = Known::default();
        let sets = (PLACES / WAYS) as u64;
        // All of these want the same places.
        for i in 0..20 {
            known.ask(1 + i * sets, 1, at(i));
            known.ask(1, 1, at(i));
        }
        assert_eq!(known.evicted(), 20 - WAYS as u64);
        assert_eq!(known.ask(1, 1, at(30)).age, Duration::from_secs(30), "was asked for all along");
        assert_eq!(known.ask(1 + sets, 1, at(30)).age, Duration::ZERO, "was forgotten");
        assert_eq!(known.places.len(), PLACES);
    }
}
