//! Sockets that are open, and what is told of each.
//!
//! In: dumps, ends, owners, time. Out: [`Connection`]s: one when the owner is known (or
//! [`OWNER_PATIENCE`] is over), one now and then while it lasts, one at the end. Pure.
//!
//! Invariants: a socket is told as open before it is told as over, and over once; at most
//! [`SOCKETS_MAX`] are followed, what is beyond is counted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{Connection, Direction, Endpoint, FlowPhase, Volume};
use agentmon_core::service::proto::TCP;
use agentmon_core::time::Mono;
use xxhash_rust::xxh3::xxh3_64;

use crate::platform::Seen;

/// Most sockets followed: a busy server's.
pub const SOCKETS_MAX: usize = 65_536;
/// How long an owner is waited for before a socket is told without.
const OWNER_PATIENCE: Duration = Duration::from_millis(1_500);
/// How often an open one is told again, for its counts.
pub(crate) const UPDATE_EVERY: Duration = Duration::from_secs(300);
/// Cookies of ended sockets remembered, so that a dump that overlapped does not revive them.
const ENDED_MAX: usize = 4_096;
/// Destinations remembered for sockets that nobody was seen with.
const USUAL_MAX: usize = 4_096;
/// For so long.
const USUAL_KEEP: Duration = Duration::from_secs(600);

/// Whose a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// [`agentmon_core::event::Program::id`].
    pub process: u64,
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Inode of its network namespace where that is not ours.
    pub container: Option<String>,
    /// How it was found: `kernel` (it said so), `exec` (looked at after its start), `scan`,
    /// `listener` (who waits for connections there), `likely`.
    pub how: &'static str,
}

#[derive(Clone, Debug)]
struct Live {
    seen: Seen,
    owner: Option<Owner>,
    direction: Direction,
    first: Timestamp,
    since: Mono,
    told: Option<Mono>,
    dump: u64,
    /// Looks for its owner that found nobody.
    looks: u16,
}

/// Who used to go there.
#[derive(Clone, Debug)]
struct Usual {
    owner: Owner,
    last: Mono,
    /// Two programs of one account go there: nobody knows which.
    several: bool,
}

/// All sockets of one network namespace.
#[derive(Debug, Default)]
pub struct Sockets {
    live: HashMap<u64, Live>,
    ended: HashSet<u64>,
    ended_order: VecDeque<u64>,
    /// (proto, port) somebody waits at.
    listening: HashSet<(u8, u16)>,
    usual: HashMap<(u32, u8, Endpoint), Usual>,
    dump: u64,
    /// Whether what goes from this machine to itself is told.
    loopback: bool,
    boot: u64,
    /// Sockets that could not be followed.
    pub full: u64,
}

impl Sockets {
    /// `boot`: the machine's boot id, which makes connections of two boots differ.
    #[must_use]
    pub fn new(boot: &str, loopback: bool) -> Self {
        Self { boot: xxh3_64(boot.as_bytes()), loopback, ..Self::default() }
    }

    /// Sockets that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Inodes whose owner is not known.
    #[must_use]
    pub fn orphans(&self) -> HashSet<u32> {
        // The kernel's own have nobody: they are looked for at the 1st, 2nd, 4th ... turn.
        let due = |l: &Live| (l.looks & l.looks.wrapping_sub(1)) == 0;
        let none = |l: &Live| l.owner.is_none() && l.seen.inode != 0;
        let orphans = self.live.values().filter(|l| none(l) && due(l));
        orphans.map(|l| l.seen.inode).collect()
    }

    /// Everything that is open now. With `ends_are_told` what is missing is not over yet: its
    /// end will be told with its counts.
    pub fn dumped(
        &mut self,
        all: &[Seen],
        ends_are_told: bool,
        now: Timestamp,
        mono: Mono,
    ) -> Vec<Connection> {
        self.dump += 1;
        self.listening =
            all.iter().filter(|s| s.listens).map(|s| (s.proto, s.local.port)).collect();
        for seen in all {
            if !self.wanted(seen) {
                continue;
            }
            let direction = self.direction(seen);
            let full = self.live.len() >= SOCKETS_MAX;
            let dump = self.dump;
            match self.live.get_mut(&seen.cookie) {
                Some(live) => {
                    // An end in between has no inode; an open one never loses it.
                    let inode = if seen.inode == 0 { live.seen.inode } else { seen.inode };
                    live.seen = Seen { inode, ..seen.clone() };
                    live.dump = dump;
                }
                None if self.ended.contains(&seen.cookie) => {}
                None if full => self.full += 1,
                None => {
                    let (seen, owner, told) = (seen.clone(), None, None);
                    let (first, since, looks) = (now, mono, 0);
                    let live = Live { seen, owner, direction, first, since, told, dump, looks };
                    self.live.insert(live.seen.cookie, live);
                }
            }
        }
        let over = |l: &Live| l.dump != self.dump && (!ends_are_told || l.dump + 20 < self.dump);
        let gone: Vec<u64> = self.live.iter().filter(|(_, l)| over(l)).map(|(c, _)| *c).collect();
        let gone: Vec<Live> = gone.iter().filter_map(|cookie| self.live.remove(cookie)).collect();
        gone.into_iter().map(|live| self.last_words(live, now, mono)).collect()
    }

    fn wanted(&self, seen: &Seen) -> bool {
        let internal = seen.local.ip.is_loopback()
            && (seen.remote.ip.is_loopback() || seen.remote.ip.is_unspecified());
        self.loopback || !internal
    }

    fn direction(&self, seen: &Seen) -> Direction {
        if seen.listens {
            Direction::Listen
        } else if self.listening.contains(&(seen.proto, seen.local.port)) {
            Direction::In
        } else {
            Direction::Out
        }
    }

    /// A process ended: it goes nowhere any more, and nothing is to be put down to it.
    pub fn ended(&mut self, pid: u32) {
        self.usual.retain(|_, usual| usual.owner.pid != pid);
    }

    /// Says whose sockets are: by inode.
    pub fn owned(&mut self, inode: u32, owner: &Owner, mono: Mono) {
        let same = self.live.values_mut().filter(|l| l.seen.inode == inode && l.owner.is_none());
        for live in same {
            live.owner = Some(owner.clone());
            if live.direction == Direction::Out && live.seen.remote.port != 0 {
                let key = (live.seen.uid, live.seen.proto, live.seen.remote);
                let room = self.usual.len() < USUAL_MAX;
                let usual = self.usual.get_mut(&key);
                match usual {
                    Some(usual) => {
                        usual.several |= usual.owner.process != owner.process;
                        usual.last = mono;
                    }
                    None if room => {
                        let usual = Usual { owner: owner.clone(), last: mono, several: false };
                        self.usual.insert(key, usual);
                    }
                    None => {}
                }
            }
        }
    }

    /// One is over.
    pub fn over(&mut self, seen: &Seen, now: Timestamp, mono: Mono) -> Option<Connection> {
        if !self.wanted(seen) || self.ended.contains(&seen.cookie) {
            return None;
        }
        self.ended.insert(seen.cookie);
        self.ended_order.push_back(seen.cookie);
        if self.ended_order.len() > ENDED_MAX {
            self.ended_order.pop_front().map(|old| self.ended.remove(&old));
        }
        let live = match self.live.remove(&seen.cookie) {
            Some(mut live) => {
                // The end of a UDP socket may have forgotten where it went.
                live.seen.volume = seen.volume.or(live.seen.volume);
                live
            }
            // Nobody ever got through, or it never went anywhere.
            None if seen.remote.port == 0 => return None,
            None => Live {
                direction: self.direction(seen),
                seen: seen.clone(),
                owner: None,
                first: now,
                since: mono,
                told: None,
                dump: self.dump,
                looks: 0,
            },
        };
        Some(self.last_words(live, now, mono))
    }

    fn last_words(&mut self, mut live: Live, now: Timestamp, mono: Mono) -> Connection {
        if live.owner.is_none() {
            live.owner = self.likely(&live, mono);
        }
        self.tell(&live, FlowPhase::End, now, mono)
    }

    /// The kernel's part says that one is over that is older than itself: it has no cookie.
    pub fn over_by_ends(
        &mut self,
        (local, remote): (Endpoint, Endpoint),
        volume: Volume,
        now: Timestamp,
        mono: Mono,
    ) -> Option<Connection> {
        let is = |s: &Seen| s.proto == TCP && s.local == local && s.remote == remote;
        let seen = self.live.values().find(|l| is(&l.seen)).map(|l| l.seen.clone())?;
        self.over(&Seen { volume: Some(volume), ..seen }, now, mono)
    }

    /// Who waits for connections at a port.
    #[must_use]
    pub fn listener(&self, proto: u8, port: u16) -> Option<Owner> {
        let waits =
            |l: &&Live| l.seen.listens && l.seen.proto == proto && l.seen.local.port == port;
        self.live.values().find(waits).and_then(|l| l.owner.clone())
    }

    /// Inodes nobody was found for, so that they are not looked for at each turn.
    pub fn unclaimed(&mut self) {
        for live in self.live.values_mut().filter(|l| l.owner.is_none()) {
            live.looks = live.looks.saturating_add(1);
        }
    }

    /// Somebody of that account alone went to the very same place a short while ago.
    fn likely(&self, live: &Live, mono: Mono) -> Option<Owner> {
        let key = (live.seen.uid, live.seen.proto, live.seen.remote);
        let usual =
            self.usual.get(&key).filter(|u| live.direction == Direction::Out && !u.several)?;
        let fresh = mono.since(usual.last) <= USUAL_KEEP;
        fresh.then(|| Owner { how: "likely", ..usual.owner.clone() })
    }

    /// What is due: newly owned, waited for long enough, or not told for a while.
    pub fn due(&mut self, now: Timestamp, mono: Mono) -> Vec<Connection> {
        self.usual.retain(|_, u| mono.since(u.last) <= USUAL_KEEP);
        let due = |l: &Live| match l.told {
            None => l.owner.is_some() || mono.since(l.since) >= OWNER_PATIENCE,
            Some(told) => l.direction != Direction::Listen && mono.since(told) >= UPDATE_EVERY,
        };
        let cookies: Vec<u64> = self.live.iter().filter(|(_, l)| due(l)).map(|(c, _)| *c).collect();
        let mut out = Vec::with_capacity(cookies.len());
        for cookie in cookies {
            let Some(live) = self.live.get_mut(&cookie) else { continue };
            live.told = Some(mono);
            let live = live.clone();
            out.push(self.tell(&live, FlowPhase::Update, now, mono));
        }
        out
    }

    /// Everything open as it stands, whether told or not.
    #[must_use]
    pub fn all(&self, now: Timestamp, mono: Mono) -> Vec<Connection> {
        let mut all: Vec<_> =
            self.live.values().map(|l| self.tell(l, FlowPhase::Update, now, mono)).collect();
        all.sort_by_key(|c| (c.pid, c.proto, c.local.port, c.id));
        all
    }

    fn tell(&self, live: &Live, phase: FlowPhase, _now: Timestamp, mono: Mono) -> Connection {
        let (seen, owner) = (&live.seen, live.owner.as_ref());
        let id = xxh3_64(&[self.boot.to_ne_bytes(), seen.cookie.to_ne_bytes()].concat());
        Connection {
            id,
            phase,
            process: owner.map(|o| o.process),
            pid: owner.map_or(0, |o| o.pid),
            name: owner.map(|o| o.name.clone()),
            proto: seen.proto,
            local: seen.local,
            remote: seen.remote,
            direction: live.direction,
            start: Some(live.first),
            duration_ms: Some(
                u64::try_from(mono.since(live.since).as_millis()).unwrap_or(u64::MAX),
            ),
            volume: seen.volume.filter(|_| live.direction != Direction::Listen),
            user: Some(seen.uid.to_string()),
            container: owner.and_then(|o| o.container.clone()),
            how: owner.map_or("none", |o| o.how).to_owned(),
            resolved: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(cookie: u64, inode: u32, local: &str, remote: &str) -> Seen {
        let end = |text: &str| {
            let a: std::net::SocketAddr = text.parse().unwrap();
            Endpoint::new(a.ip(), a.port())
        };
        Seen {
            cookie,
            inode,
            proto: 6,
            local: end(local),
            remote: end(remote),
            listens: remote == "0.0.0.0:0",
            uid: 1_000,
            volume: None,
        }
    }
    fn owner(pid: u32) -> Owner {
        Owner { process: u64::from(pid), pid, name: "curl".into(), container: None, how: "scan" }
    }
    fn at(ms: u64) -> (Timestamp, Mono) {
        (Timestamp::EPOCH.plus(Duration::from_millis(ms)), Mono::from_nanos(ms * 1_000_000))
    }
    fn words(list: &[Connection]) -> Vec<String> {
        list.iter()
            .map(|c| format!("{:?} {} {} {}", c.phase, c.pid, c.direction.as_str(), c.how))
            .collect()
    }

    #[test]
    fn told_with_its_owner_and_once_at_the_end() {
        let mut sockets = Sockets::new("b", false);
        let one = seen(1, 11, "192.0.2.1:40000", "203.0.113.5:443");
        let (t, m) = at(0);
        assert!(sockets.dumped(std::slice::from_ref(&one), true, t, m).is_empty());
        assert!(sockets.due(t, m).is_empty());
        assert_eq!(sockets.orphans(), HashSet::from([11]));
        sockets.owned(11, &owner(5), m);
        assert_eq!(words(&sockets.due(t, m)), ["Update 5 out scan"]);
        assert!(sockets.due(t, m).is_empty());
        let (t, m) = at(50);
        let over = sockets.over(&Seen { inode: 0, ..one.clone() }, t, m).unwrap();
        assert_eq!((over.phase, over.pid, over.duration_ms), (FlowPhase::End, 5, Some(50)));
        assert_eq!(sockets.over(&one, t, m), None);
        // A dump that began before the end does not bring it back.
        sockets.dumped(&[one], true, t, m);
        assert!(sockets.is_empty());
    }

    #[test]
    fn without_an_owner_it_is_told_after_a_while_and_never_blamed_on_two() {
        let mut sockets = Sockets::new("b", false);
        let (t, m) = at(0);
        sockets.dumped(&[seen(1, 11, "192.0.2.1:40000", "203.0.113.5:443")], true, t, m);
        let (t, m) = at(1_500);
        assert_eq!(words(&sockets.due(t, m)), ["Update 0 out none"]);
        // Somebody else of the same account was seen going to the same place.
        sockets.dumped(&[seen(2, 12, "192.0.2.1:40001", "203.0.113.6:443")], true, t, m);
        sockets.owned(12, &owner(6), m);
        let short =
            |cookie, port: u16| seen(cookie, 0, &format!("192.0.2.1:{port}"), "203.0.113.6:443");
        assert_eq!(words(&[sockets.over(&short(3, 41_000), t, m).unwrap()]), ["End 6 out likely"]);
        sockets.ended(6);
        assert_eq!(words(&[sockets.over(&short(9, 41_009), t, m).unwrap()]), ["End 0 out none"]);
        sockets.dumped(
            &[
                seen(2, 12, "192.0.2.1:40001", "203.0.113.6:443"),
                seen(8, 18, "192.0.2.1:40008", "203.0.113.6:443"),
            ],
            true,
            t,
            m,
        );
        sockets.owned(18, &owner(8), m);
        sockets.dumped(&[seen(4, 14, "192.0.2.1:40002", "203.0.113.6:443")], true, t, m);
        sockets.owned(14, &owner(7), m);
        assert_eq!(words(&[sockets.over(&short(5, 41_001), t, m).unwrap()]), ["End 0 out none"]);
    }

    #[test]
    fn what_was_accepted_comes_from_outside() {
        let mut sockets = Sockets::new("b", false);
        let (t, m) = at(0);
        let all = [
            seen(1, 11, "0.0.0.0:22", "0.0.0.0:0"),
            seen(2, 12, "192.0.2.1:22", "192.0.2.9:50000"),
        ];
        sockets.dumped(&all, false, t, m);
        sockets.owned(11, &owner(1), m);
        sockets.owned(12, &owner(2), m);
        let mut told = words(&sockets.due(t, m));
        told.sort();
        assert_eq!(told, ["Update 1 listen scan", "Update 2 in scan"]);
        // Without ends, what is missing is over.
        assert_eq!(words(&sockets.dumped(&all[..1], false, t, m)), ["End 2 in scan"]);
    }

    #[test]
    fn what_stays_on_the_machine_is_not_told_unless_asked_for() {
        let inside = seen(1, 11, "127.0.0.1:40000", "127.0.0.1:80");
        for (loopback, expected) in [(false, 0), (true, 1)] {
            let mut sockets = Sockets::new("b", loopback);
            let (t, m) = at(0);
            sockets.dumped(std::slice::from_ref(&inside), true, t, m);
            assert_eq!(sockets.len(), expected);
        }
    }
}
