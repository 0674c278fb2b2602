//! Flows: how much passed since their last record, the newest ones as rows, and who talked
//! most in the last minutes.
//!
//! In: flow records. Out: the difference to the flow's last record (records carry totals, so
//! that a lost one costs nothing), and rows. Pure; called under the model's lock.
//!
//! At most [`OPEN_MAX`] open flows are remembered (540 KB). Where there is no room, a flow
//! counts once, when it ends; one of which nothing was heard for [`STALE`] makes room.
//! At most [`ROWS_MAX`] rows (200 KB).

use std::collections::HashMap;
use std::time::Duration;

use agentmon_core::Name;
use agentmon_core::event::{Endpoint, Flow, FlowPhase, Mac, Volume};
use agentmon_core::time::{Mono, Timestamp};

/// Most open flows remembered: a home of 80 devices has 2,000 to 8,000. Just below what a
/// hash table of 8,192 places takes.
pub const OPEN_MAX: usize = 7_168;
/// Most rows kept.
pub const ROWS_MAX: usize = 512;
/// Open flows show themselves in every dump, at least once an hour.
pub const STALE: Duration = Duration::from_secs(2 * 3_600);
/// Between two looks for stale flows.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Minutes that "who talked most" looks back.
pub const WINDOW_MINUTES: usize = 10;

/// What a record adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The flow was not counted before.
    pub new: bool,
    /// To the device.
    pub bytes_in: u64,
    /// From the device.
    pub bytes_out: u64,
}

impl Traffic {
    /// Seen from the responder's side.
    #[must_use]
    pub(super) const fn turned(self) -> Self {
        Self { new: self.new, bytes_in: self.bytes_out, bytes_out: self.bytes_in }
    }
}

/// The last minutes of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The minute that was counted last.
    minute: u64,
    bytes: [u64; WINDOW_MINUTES],
    flows: [u32; WINDOW_MINUTES],
}

impl Window {
    pub(super) fn add(&mut self, now: Mono, traffic: Traffic) {
        self.go_to(now);
        let place = (self.minute % WINDOW_MINUTES as u64) as usize;
        if let (Some(bytes), Some(flows)) = (self.bytes.get_mut(place), self.flows.get_mut(place)) {
            *bytes = bytes.saturating_add(traffic.bytes_in).saturating_add(traffic.bytes_out);
            *flows = flows.saturating_add(u32::from(traffic.new));
        }
    }

    /// Bytes and flows of the window that ends now.
    #[must_use]
    pub fn sums(&self, now: Mono) -> (u64, u64) {
        let mut window = self.clone();
        window.go_to(now);
        let bytes = window.bytes.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
        (bytes, window.flows.iter().map(|n| u64::from(*n)).sum())
    }

    /// Forgets the minutes that went by.
    fn go_to(&mut self, now: Mono) {
        let minute = now.nanos() / 60_000_000_000;
        let passed = minute.saturating_sub(self.minute).min(WINDOW_MINUTES as u64);
        for gone in 0..passed {
            let place = ((minute - gone) % WINDOW_MINUTES as u64) as usize;
            if let (Some(bytes), Some(flows)) =
                (self.bytes.get_mut(place), self.flows.get_mut(place))
            {
                (*bytes, *flows) = (0, 0);
            }
        }
        self.minute = self.minute.max(minute);
    }
}

/// A flow as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The sensor's number of the flow.
    pub id: u64,
    /// Its last record.
    pub time: Timestamp,
    /// Its first packet, where known.
    pub start: Option<Timestamp>,
    /// First to last packet in milliseconds.
    pub duration_ms: Option<u64>,
    /// Originator.
    pub src: Endpoint,
    /// Destination the originator meant.
    pub dst: Endpoint,
    /// IP protocol number.
    pub proto: u8,
    /// The originator's MAC.
    pub mac: Option<Mac>,
    /// The name it had resolved.
    pub name: Option<Name>,
    /// So far.
    pub volume: Option<Volume>,
    /// It is over.
    pub closed: bool,
    order: u64,
}

/// What was last heard of an open flow.
#[derive(Clone, Copy, Debug)]
struct Open {
    bytes_out: u64,
    bytes_in: u64,
    /// Seconds of monotonic time.
    heard: u32,
    /// Where its row is, or was.
    row: u16,
}

/// All flows.
#[derive(Debug, Default)]
pub(super) struct Flows {
    open: HashMap<u64, Open>,
    rows: Vec<Row>,
    /// Where the next new row goes.
    next: usize,
    order: u64,
    looked: Option<Mono>,
    untracked: u64,
}

impl Flows {
    /// Newest record first.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.order));
        rows
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Flows that began while there was no room to remember them.
    pub(super) fn untracked(&self) -> u64 {
        self.untracked
    }

    /// One record: what it adds to what is known.
    pub(super) fn record(&mut self, flow: &Flow, time: Timestamp, now: Mono) -> Traffic {
        let total = flow.volume.unwrap_or_default();
        let known = self.open.get(&flow.id).copied();
        if flow.phase == FlowPhase::End {
            self.open.remove(&flow.id);
        } else if known.is_none() && !self.has_room(now) {
            self.untracked += u64::from(flow.phase == FlowPhase::Start);
            return Traffic::default();
        }
        let row = self.show(flow, time, known.map(|open| open.row));
        let before = known.map_or((0, 0), |open| (open.bytes_out, open.bytes_in));
        if flow.phase != FlowPhase::End {
            let heard = u32::try_from(now.nanos() / 1_000_000_000).unwrap_or(u32::MAX);
            // A record without counters must not set them back.
            let (bytes_out, bytes_in) =
                (total.bytes_out.max(before.0), total.bytes_in.max(before.1));
            self.open.insert(flow.id, Open { bytes_out, bytes_in, heard, row });
        }
        Traffic {
            new: known.is_none(),
            bytes_in: total.bytes_in.saturating_sub(before.1),
            bytes_out: total.bytes_out.saturating_sub(before.0),
        }
    }

    pub(super) fn clock_set(&mut self, from: Timestamp, to: Timestamp) {
        for row in &mut self.rows {
            row.time = super::moved(row.time, from, to);
            row.start = row.start.map(|start| super::moved(start, from, to));
        }
    }

    fn has_room(&mut self, now: Mono) -> bool {
        if self.open.len() < OPEN_MAX {
            return true;
        }
        if self.looked.is_some_and(|looked| now.since(looked) < LOOK_EVERY) {
            return false;
        }
        self.looked = Some(now);
        let now = u32::try_from(now.nanos() / 1_000_000_000).unwrap_or(u32::MAX);
        self.open.retain(|_, open| u64::from(now.saturating_sub(open.heard)) < STALE.as_secs());
        self.open.len() < OPEN_MAX
    }

    /// Writes the row, in its old place if it still is its own.
    fn show(&mut self, flow: &Flow, time: Timestamp, place: Option<u16>) -> u16 {
        self.order += 1;
        let row = Row {
            id: flow.id,
            time,
            start: flow.start,
            duration_ms: flow.duration_ms,
            src: flow.src,
            dst: flow.dst,
            proto: flow.proto,
            mac: flow.mac,
            name: flow.resolved.as_ref().map(|resolved| resolved.name.clone()),
            volume: flow.volume,
            closed: flow.phase == FlowPhase::End,
            order: self.order,
        };
        let own =
            place.map(usize::from).filter(|p| self.rows.get(*p).is_some_and(|r| r.id == row.id));
        let place = own.unwrap_or_else(|| {
            let next = self.next;
            self.next = (next + 1) % ROWS_MAX;
            next
        });
        match self.rows.get_mut(place) {
            Some(old) => *old = row,
            None => self.rows.push(row),
        }
        // ROWS_MAX fits.
        place as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn flow(id: u64, phase: FlowPhase, bytes: Option<(u64, u64)>) -> Flow {
        let volume = bytes.map(|(bytes_out, bytes_in)| Volume {
            bytes_out,
            bytes_in,
            packets_out: 1,
            packets_in: 1,
        });
        let end = |ip: &str, port| Endpoint::new(ip.parse().unwrap(), port);
        Flow {
            id,
            phase,
            proto: 6,
            src: end("192.168.1.7", 40_000),
            dst: end("203.0.113.1", 443),
            nat_src: None,
            nat_dst: None,
            start: Some(T),
            duration_ms: None,
            volume,
            tcp_state: None,
            replied: true,
            offloaded: false,
            iface: None,
            mac: None,
            resolved: None,
        }
    }

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    use FlowPhase::{End, Start, Update};

    /// `(phase, bytes)` of one flow; expected: flows, bytes out, bytes in.
    #[track_caller]
    fn check(records: &[(FlowPhase, Option<(u64, u64)>)], expected: (u64, u64, u64)) {
        let mut flows = Flows::default();
        let mut sum = (0, 0, 0);
        for (phase, bytes) in records {
            let traffic = flows.record(&flow(1, *phase, *bytes), T, at(1));
            sum.0 += u64::from(traffic.new);
            sum.1 += traffic.bytes_out;
            sum.2 += traffic.bytes_in;
        }
        assert_eq!(sum, expected);
        assert_eq!(flows.rows().len(), 1);
        let ended = records.last().is_some_and(|(phase, _)| *phase == End);
        assert_eq!((flows.open(), flows.rows()[0].closed), (usize::from(!ended), ended));
    }

    #[test]
    fn totals_become_differences() {
        check(&[(Start, None), (End, Some((10, 20)))], (1, 10, 20));
        check(&[(End, Some((10, 20)))], (1, 10, 20));
        check(
            &[(Update, Some((5, 5))), (Update, Some((7, 9))), (End, Some((10, 20)))],
            (1, 10, 20),
        );
        check(
            &[(Start, None), (Update, Some((5, 5))), (Update, None), (End, Some((6, 6)))],
            (1, 6, 6),
        );
        // Counters that go back (a table read again) are no traffic.
        check(
            &[(Update, Some((9, 9))), (Update, Some((3, 3))), (End, Some((10, 10)))],
            (1, 10, 10),
        );
        check(&[(Start, None), (End, None)], (1, 0, 0));
    }

    #[test]
    fn without_room_a_flow_counts_once_when_it_ends() {
        let mut flows = Flows::default();
        for id in 0..OPEN_MAX as u64 {
            assert!(flows.record(&flow(id, Start, None), T, at(1)).new);
        }
        let late = OPEN_MAX as u64;
        assert_eq!(flows.record(&flow(late, Start, None), T, at(2)), Traffic::default());
        assert_eq!(flows.record(&flow(late, Update, Some((5, 5))), T, at(3)), Traffic::default());
        let end = flows.record(&flow(late, End, Some((6, 7))), T, at(4));
        assert_eq!(end, Traffic { new: true, bytes_out: 6, bytes_in: 7 });
        assert_eq!((flows.open(), flows.untracked()), (OPEN_MAX, 1));
        assert_eq!(flows.rows().len(), ROWS_MAX);
        // Those of which nothing was heard for hours make room.
        let after = 2 + STALE.as_secs() + LOOK_EVERY.as_secs();
        assert!(flows.record(&flow(late + 1, Start, None), T, at(after)).new);
        assert_eq!(flows.open(), 1);
        assert!(flows.open.capacity() <= 7_168 * 2, "{}", flows.open.capacity());
    }

    #[test]
    fn rows_are_the_newest_and_keep_their_place() {
        let mut flows = Flows::default();
        for id in 0..ROWS_MAX as u64 + 10 {
            flows.record(&flow(id, Start, None), T, at(1));
        }
        flows.record(&flow(20, Update, Some((1, 1))), T, at(1));
        flows.record(&flow(0, Update, Some((1, 1))), T, at(1));
        let ids: Vec<u64> = flows.rows().iter().map(|row| row.id).collect();
        assert_eq!((ids.len(), &ids[..3]), (ROWS_MAX, &[0, 20, ROWS_MAX as u64 + 9][..]));
        assert_eq!(ids.iter().filter(|id| **id == 20).count(), 1);
    }

    #[test]
    fn the_window_moves_on() {
        let mut window = Window::default();
        let add = |window: &mut Window, s, bytes| {
            window.add(at(s), Traffic { new: true, bytes_in: bytes, bytes_out: 0 });
        };
        add(&mut window, 10, 5);
        add(&mut window, 70, 7);
        assert_eq!(window.sums(at(75)), (12, 2));
        assert_eq!(window.sums(at(599)), (12, 2));
        assert_eq!(window.sums(at(600)), (7, 1));
        assert_eq!(window.sums(at(660)), (0, 0));
        add(&mut window, 100_000, 1);
        assert_eq!(window.sums(at(100_001)), (1, 1));
    }
}
