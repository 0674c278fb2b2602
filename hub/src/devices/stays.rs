//! Who had which address from when to when.
//!
//! In: sightings (MAC, address, time), in any order. Out: the stays, and whose an address was
//! at a time: for two devices that have it one after the other, each time the right one, also
//! for records that come late. Pure.
//!
//! A stay goes on as long as sightings come within [`KEPT`] of each other and nobody else was
//! seen there meanwhile; a short visit of somebody else ([`FLAP`]: two machines that fight
//! for an address) makes no new one, so that nobody can fill the file by it.
//!
//! Invariants: at most [`STAYS_MAX`] stays that are not over, and [`OWNERS_MAX`] owners
//! for an address; when full, stays not seen for [`OLD`] make room, then new ones are refused.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::Mac;

use super::REWRITE_AFTER;

/// Most (MAC, address) pairs remembered: 80 devices with 20 addresses each are 1,600;
/// beyond the maximum somebody is making addresses up.
pub(super) const STAYS_MAX: usize = 65_536;
/// Most owners of one address remembered, the newest: who asks for older ones asks the file.
const OWNERS_MAX: usize = 16;
/// How long an address stands for the device it was last seen at (the usual DHCP lease).
const KEPT: Duration = Duration::from_secs(86_400);
/// Whoever comes back within this time has never been away.
const FLAP: Duration = Duration::from_secs(600);
/// A privacy address (RFC 8981) is used for a day, and its like for a week.
const OLD: Duration = Duration::from_secs(8 * 86_400);
/// A device's first packet may be seen just before the kernel knows whose address it is.
const SLACK: Duration = Duration::from_secs(2);

/// One stay of a device at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    /// Its number: the microsecond of the sighting that began it.
    pub(super) number: i64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    written: Timestamp,
}

impl Stay {
    pub(super) const fn new(number: i64, first: Timestamp, last: Timestamp) -> Self {
        Self { number, first, last, written: last }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Stays {
    current: HashMap<(Mac, IpAddr), Stay>,
    /// By address: (since, MAC, last seen), oldest first.
    owners: HashMap<IpAddr, Vec<(Timestamp, Mac, Timestamp)>>,
    changed: BTreeSet<(Mac, IpAddr)>,
    /// Stays that ended by a new one of the same pair before they were written.
    over: Vec<(Mac, IpAddr, Stay)>,
}

impl Stays {
    /// Takes in a sighting; false when there is no room for it.
    pub(super) fn see(&mut self, mac: Mac, ip: IpAddr, time: Timestamp) -> bool {
        let key = (mac, ip);
        if !self.current.contains_key(&key) && !self.room(time) {
            return false;
        }
        let others = self.owners.get(&ip).map(Vec::as_slice).unwrap_or_default();
        let fresh = Stay::new(time.micros(), time, time);
        match self.current.get_mut(&key) {
            Some(stay) if time < stay.first => {
                // Late, and from before: only where nobody else was there in between.
                let between =
                    |o: &(Timestamp, Mac, Timestamp)| o.1 != mac && o.2 > time && o.0 < stay.first;
                if stay.first.since(time) <= KEPT && !others.iter().any(between) {
                    stay.first = time;
                    self.changed.insert(key);
                }
            }
            Some(stay) => {
                let away = time.since(stay.last);
                let other =
                    |o: &(Timestamp, Mac, Timestamp)| o.1 != mac && o.2 > stay.last && o.0 <= time;
                if away > KEPT || (away > FLAP && others.iter().any(other)) {
                    if self.changed.remove(&key) || stay.last > stay.written {
                        self.over.push((mac, ip, *stay));
                    }
                    *stay = fresh;
                    self.changed.insert(key);
                } else {
                    stay.last = stay.last.max(time);
                    if stay.last.since(stay.written) >= REWRITE_AFTER {
                        self.changed.insert(key);
                    }
                }
            }
            None => {
                self.current.insert(key, fresh);
                self.changed.insert(key);
            }
        }
        self.own(mac, ip);
        true
    }

    /// Brings the owners of an address in line with the device's stay there.
    fn own(&mut self, mac: Mac, ip: IpAddr) {
        let Some(stay) = self.current.get(&(mac, ip)).copied() else { return };
        let owners = self.owners.entry(ip).or_default();
        let same = |o: &&mut (Timestamp, Mac, Timestamp)| o.1 == mac && o.2 >= stay.first;
        match owners.iter_mut().rev().find(same) {
            Some(owner) => (owner.0, owner.2) = (stay.first, owner.2.max(stay.last)),
            None => owners.push((stay.first, mac, stay.last)),
        }
        owners.sort_by_key(|(since, mac, _)| (*since, *mac));
        if owners.len() > OWNERS_MAX {
            owners.remove(0);
        }
    }

    fn room(&mut self, now: Timestamp) -> bool {
        if self.current.len() < STAYS_MAX {
            return true;
        }
        let changed = &self.changed;
        self.current.retain(|key, stay| now.since(stay.last) < OLD || changed.contains(key));
        let current = &self.current;
        self.owners.retain(|ip, owners| owners.iter().any(|o| current.contains_key(&(o.1, *ip))));
        self.current.len() < STAYS_MAX
    }

    /// The device that had the address at about that time, and since when.
    pub(super) fn owner(&self, ip: IpAddr, time: Timestamp) -> Option<(Mac, Timestamp)> {
        let owners = self.owners.get(&ip)?;
        let begun = owners.iter().rev().find(|(since, ..)| *since <= time.plus(SLACK));
        // Before the first sighting of all there was nobody else that we know of.
        let (since, mac, last) = *begun.or_else(|| owners.first())?;
        let away = if time < since { since.since(time) } else { time.since(last) };
        (away <= KEPT).then_some((mac, since))
    }

    /// The device seen there last.
    pub(super) fn newest(&self, ip: IpAddr) -> Option<Mac> {
        self.owners.get(&ip)?.iter().max_by_key(|(_, _, last)| *last).map(|(_, mac, _)| *mac)
    }

    /// What is to be written; counts as written.
    pub(super) fn take_changed(&mut self) -> Vec<(Mac, IpAddr, Stay)> {
        let mut out = std::mem::take(&mut self.over);
        for key in std::mem::take(&mut self.changed) {
            if let Some(stay) = self.current.get_mut(&key) {
                stay.written = stay.last;
                out.push((key.0, key.1, *stay));
            }
        }
        out
    }

    /// Puts back what was stored; oldest first.
    pub(super) fn restore(&mut self, mac: Mac, ip: IpAddr, stay: Stay) {
        self.current.insert((mac, ip), stay);
        self.own(mac, ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_secs(1_795_000_000 + s)
    }
    fn mac(n: u8) -> Mac {
        Mac([0, 0, 0x5e, 0, 0x53, n])
    }
    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    fn seen(sightings: &[(i64, u8)]) -> Stays {
        let mut stays = Stays::default();
        sightings.iter().for_each(|(s, n)| assert!(stays.see(mac(*n), IP, at(*s))));
        stays
    }

    /// Who had the address at times.
    #[track_caller]
    fn check(sightings: &[(i64, u8)], asked: &[(i64, u8)]) {
        let stays = seen(sightings);
        for (s, n) in asked {
            let owner = stays.owner(IP, at(*s)).map_or(0, |(mac, _)| mac.0[5]);
            assert_eq!(owner, *n, "at {s}");
        }
    }

    #[test]
    fn each_time_the_right_one() {
        check(&[(0, 1)], &[(-HOUR, 1), (0, 1), (HOUR, 1), (23 * HOUR, 1), (25 * HOUR, 0)]);
        // One after the other, and the first again.
        let story = [(0, 1), (HOUR, 1), (2 * HOUR, 2), (4 * HOUR, 2), (6 * HOUR, 1)];
        let asked = [
            (60, 1),
            (HOUR + 60, 1),
            (2 * HOUR - 1, 2),
            (2 * HOUR, 2),
            (5 * HOUR, 2),
            (6 * HOUR, 1),
            (7 * HOUR, 1),
        ];
        check(&story, &asked);
        // However late the sightings come.
        check(
            &[(2 * HOUR, 2), (0, 1), (4 * HOUR, 2), (HOUR, 1)],
            &[(60, 1), (3 * HOUR, 2), (5 * HOUR, 2)],
        );
    }

    /// Stays as `n from to`, by their numbers.
    #[track_caller]
    fn written(sightings: &[(i64, u8)], expected: &[(u8, i64, i64)]) {
        let mut rows = HashMap::new();
        let mut stays = Stays::default();
        for (s, n) in sightings {
            stays.see(mac(*n), IP, at(*s));
            for (mac, _, stay) in stays.take_changed() {
                rows.insert((mac.0[5], stay.number), stay);
            }
        }
        let mut got: Vec<_> = rows
            .into_iter()
            .map(|((n, _), stay)| {
                (n, stay.first.secs() - at(0).secs(), stay.last.secs() - at(0).secs())
            })
            .collect();
        got.sort_by_key(|(n, from, _)| (*from, *n));
        assert_eq!(got, expected);
    }

    #[test]
    fn a_stay_each_time() {
        written(&[(0, 1), (HOUR, 1)], &[(1, 0, HOUR)]);
        written(
            &[(0, 1), (HOUR, 2), (2 * HOUR, 1)],
            &[(1, 0, 0), (2, HOUR, HOUR), (1, 2 * HOUR, 2 * HOUR)],
        );
        written(&[(0, 1), (30 * HOUR, 1)], &[(1, 0, 0), (1, 30 * HOUR, 30 * HOUR)]);
        // Two that fight for it make two rows, not hundreds.
        let fight: Vec<_> = (0..500).map(|n| (n * 60, (n % 2) as u8 + 1)).collect();
        written(&fight, &[(1, 0, 498 * 60), (2, 60, 499 * 60)]);
        // Between two writes.
        let mut stays = seen(&[(0, 1), (30, 1), (30 + 25 * HOUR, 1)]);
        assert_eq!(stays.take_changed().len(), 2);
    }

    #[test]
    fn what_was_stored_is_what_is_known() {
        let mut stays = Stays::default();
        stays.restore(mac(1), IP, Stay::new(7, at(0), at(HOUR)));
        stays.restore(mac(2), IP, Stay::new(8, at(2 * HOUR), at(3 * HOUR)));
        assert_eq!(stays.owner(IP, at(60)), Some((mac(1), at(0))));
        assert_eq!(stays.owner(IP, at(4 * HOUR)), Some((mac(2), at(2 * HOUR))));
        assert_eq!(stays.newest(IP), Some(mac(2)));
        assert!(stays.take_changed().is_empty());
        stays.see(mac(2), IP, at(3 * HOUR + 61));
        assert_eq!(stays.take_changed()[0].2.number, 8, "the same stay goes on");
    }

    #[test]
    fn bounded_and_the_old_make_room() {
        let mut stays = Stays::default();
        let ip = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        let max = u32::try_from(STAYS_MAX).unwrap();
        for n in 0..max {
            assert!(stays.see(mac(1), ip(n), at(i64::from(n % 2) * 9 * 86_400)));
        }
        stays.take_changed();
        assert!(!stays.see(mac(2), ip(max), at(7 * 86_400)));
        assert!(stays.see(mac(1), ip(1), at(7 * 86_400)), "who is known goes on");
        assert!(stays.see(mac(2), ip(max), at(9 * 86_400)));
        assert!(
            stays.current.len() <= STAYS_MAX / 2 + 1 && stays.owners.len() <= STAYS_MAX / 2 + 1
        );
        for n in 0..100 {
            stays.see(mac(n), IP, at(20 * 86_400 + i64::from(n) * HOUR));
        }
        assert_eq!(stays.owners[&IP].len(), OWNERS_MAX);
    }

    proptest::proptest! {
        /// The owner at the time of a sighting, when they come in order, is who was seen.
        #[test]
        fn whoever_is_seen_has_it(steps in proptest::collection::vec((601i64..200_000, 0u8..4), 1..60)) {
            let (mut stays, mut now) = (Stays::default(), 0);
            for (step, n) in steps {
                now += step;
                stays.see(mac(n), IP, at(now));
                proptest::prop_assert_eq!(stays.owner(IP, at(now)).map(|o| o.0), Some(mac(n)));
                proptest::prop_assert_eq!(stays.newest(IP), Some(mac(n)));
            }
        }
    }
}
