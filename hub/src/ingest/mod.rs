//! From a request's body to events the writer can store.
//!
//! In: hostile bytes of an authenticated sensor. Out: an [`Incoming`] batch: events
//! decoded, on the hub's clock, aligned to their sequence numbers. Runs off the writer
//! thread (a blocking task of the server), so that decoding and storing use two cores.
//!
//! Invariants: bounded by the wire's maxima; one bad event costs itself, by a counted
//! reason, never the batch; nothing panics.

pub mod clock;

use agentmon_core::event::{Body, FlowPhase};
use agentmon_core::wire::{self, Batch, Health, WireError};
use agentmon_core::{Event, Timestamp};

/// A decoded batch on its way to the writer.
#[derive(Debug)]
pub struct Incoming {
    /// The sensor's number.
    pub sensor: i32,
    /// Which life of the sender's ring.
    pub epoch: u64,
    /// Sequence number of the first event.
    pub first_seq: u64,
    /// Item `i` has the sequence number `first_seq + i`.
    pub events: Vec<Item>,
    /// The sender's state.
    pub health: Health,
    /// The sender's clock on sending.
    pub sent: Timestamp,
    /// The hub's clock on arrival.
    pub received: Timestamp,
    /// Where it came from, for the list of sensors.
    pub address: Option<String>,
}

/// One place in the sequence.
pub type Item = Result<Stamped, &'static str>;

/// An event on the hub's clock.
#[derive(Debug)]
pub struct Stamped {
    /// What was seen, with corrected times.
    pub event: Event,
    /// What the sensor's clock had said, where it was corrected.
    pub sensor_time: Option<Timestamp>,
}

impl Incoming {
    /// Decodes a body.
    ///
    /// # Errors
    /// [`WireError`] where the batch as a whole cannot be read.
    pub fn decode(
        body: &[u8],
        sensor: i32,
        received: Timestamp,
        address: Option<String>,
    ) -> Result<Self, WireError> {
        Ok(Self::from_batch(&wire::decode_batch(body)?, sensor, received, address))
    }

    /// Decodes the events of a batch.
    #[must_use]
    pub fn from_batch(
        batch: &Batch,
        sensor: i32,
        received: Timestamp,
        address: Option<String>,
    ) -> Self {
        let decode = |bytes: &Vec<u8>| match wire::decode_event(bytes) {
            Ok(event) => accept(event, batch.sent, received),
            Err(error) => Err(reason(&error)),
        };
        Self {
            sensor,
            epoch: batch.epoch,
            first_seq: batch.first_seq,
            events: batch.events.iter().map(decode).collect(),
            health: batch.health.clone(),
            sent: batch.sent,
            received,
            address,
        }
    }

    /// Sequence number of the last event; `None` for a batch of health only.
    #[must_use]
    pub fn last_seq(&self) -> Option<u64> {
        let n = u64::try_from(self.events.len()).ok()?;
        n.checked_sub(1).map(|n| self.first_seq.saturating_add(n))
    }
}

/// The end of the counter's name for an event that cannot be kept: few and fixed, since
/// a sensor must not be able to make up counters.
const fn reason(error: &WireError) -> &'static str {
    match error {
        WireError::Protobuf(_) | WireError::Zstd(_) => "malformed",
        WireError::TooLarge { .. } => "too_large",
        WireError::NewerVersion(_) | WireError::UnknownKind => "unknown_kind",
        WireError::Field(_) => "bad_field",
    }
}

fn accept(mut event: Event, sent: Timestamp, received: Timestamp) -> Item {
    if let Body::Flow(flow) = &event.body
        && flow.phase == FlowPhase::Start
    {
        return Err("flow_start");
    }
    let said = event.time;
    let fixed = clock::corrected(said, sent, received);
    event.time = fixed.unwrap_or(said);
    shift(&mut event, said);
    Ok(Stamped { event, sensor_time: fixed.map(|_| said) })
}

/// Moves the other times of the event along with its own, and drops what then makes no
/// sense: nothing starts after it was seen.
fn shift(event: &mut Event, said: Timestamp) {
    let time = event.time;
    // By its distance to the event's own time, which the same clock had measured.
    let moved = |t: Timestamp| if t <= said { time.minus(said.since(t)) } else { time };
    match &mut event.body {
        Body::Flow(flow) => flow.start = flow.start.map(moved).filter(|t| t.is_plausible()),
        Body::Gap(gap) => gap.from = moved(gap.from),
        Body::Process(process) => process.start = process.start.map(moved),
        Body::Connection(c) => c.start = c.start.map(moved).filter(|t| t.is_plausible()),
        Body::Dns(_) | Body::Firewall(_) | Body::Device(_) | Body::Finding(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use agentmon_core::event::Gap;
    use agentmon_core::sample;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_444_327);

    fn dns(time: Timestamp) -> Event {
        Event { time, body: Body::Dns(sample::dns("192.0.2.9", "www.example.com", &[])) }
    }

    fn batch(events: Vec<Vec<u8>>, sent: Timestamp) -> Batch {
        Batch { epoch: 1, first_seq: 10, events, health: Health::default(), sent }
    }

    #[test]
    fn a_bad_event_keeps_its_place_and_costs_only_itself() {
        let good = wire::encode_event(&dns(NOW));
        // Field 15, an empty message: a kind of the future. 0xff: no protobuf.
        let events = vec![good.clone(), vec![0x7a, 0], vec![0xff], good];
        let incoming = Incoming::from_batch(&batch(events, NOW), 1, NOW, None);
        let reasons: Vec<_> = incoming.events.iter().map(|e| e.as_ref().err().copied()).collect();
        assert_eq!(reasons, [None, Some("unknown_kind"), Some("malformed"), None]);
        assert_eq!(incoming.last_seq(), Some(13));
    }

    #[test]
    fn times_of_1970_are_kept_and_flagged() {
        let boot = Timestamp::from_secs(100);
        let gap = Gap {
            collector: "c".into(),
            from: Timestamp::from_secs(90),
            reason: "restart".into(),
            lost: None,
        };
        let events = [dns(boot), Event { time: boot, body: Body::Gap(gap) }];
        let events = events.iter().map(wire::encode_event).collect();
        let sent = Timestamp::from_secs(160);
        let incoming = Incoming::from_batch(&batch(events, sent), 1, NOW, None);
        let expected = Timestamp::from_secs(NOW.secs() - 60);
        for item in &incoming.events {
            let item = item.as_ref().unwrap();
            assert_eq!((item.event.time, item.sensor_time), (expected, Some(boot)));
            if let Body::Gap(gap) = &item.event.body {
                assert_eq!(gap.from, Timestamp::from_secs(NOW.secs() - 70));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_body_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            drop(Incoming::decode(&bytes, 1, NOW, None));
        }
        #[test]
        fn any_events_never_panic(
            events in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..64), 0..8),
            sent in proptest::num::i64::ANY,
        ) {
            let n = events.len();
            let incoming = Incoming::from_batch(&batch(events, Timestamp::from_nanos(sent)), 1, NOW, None);
            proptest::prop_assert_eq!(incoming.events.len(), n);
        }
    }
}
