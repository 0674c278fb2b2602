//! One connection to ubusd as a state machine: what is said, and what is answered.
//!
//! In: messages, and events to send. Out: bytes for the socket, in [`Session::out`]. Pure but
//! for the [`Source`] that answers calls.
//!
//! Greeting -> object added -> published. Each call is answered at once with its own `seq`
//! and `peer`: DATA, then STATUS; nothing at all where NO_REPLY is set. What is not
//! understood is counted and passed over: it came from some client through ubusd, and is
//! no reason to leave the bus.

use agentmon_core::name::printable;
use serde_json::{Map, Value};

use super::blob::{Writer, read_table};
use super::message::{Header, Message, Parsed, Status, attr, frame, kind};
use super::object;
use crate::counters::{Counter, Counters};
use crate::status::api::{self, ARGUMENTS_BYTES_MAX, Refusal, Source};

/// The object of ubusd itself that passes events on.
const EVENTS: u32 = 1;

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// ubusd has not greeted yet.
    Greeting,
    /// Asked for the object, with this number.
    Adding { seq: u16, object: Option<u32> },
    /// It can be called.
    Published { object: u32 },
}

/// ubusd does not take the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) Status);

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    phase: Phase,
    seq: u16,
    /// Events that ubusd has not answered yet.
    under_way: usize,
    /// Bytes to be written.
    pub(super) out: Vec<u8>,
    count: Counts,
}

#[derive(Debug)]
struct Counts {
    calls: Counter,
    alerts: Counter,
    alerts_refused: Counter,
    not_understood: Counter,
}

impl Session {
    pub(super) fn new(counters: &Counters) -> Self {
        let counter = |name| counters.counter(name);
        let count = Counts {
            calls: counter("ubus.calls"),
            alerts: counter("ubus.alerts"),
            alerts_refused: counter("ubus.alerts_refused"),
            not_understood: counter("ubus.not_understood"),
        };
        Self { phase: Phase::Greeting, seq: 0, under_way: 0, out: Vec::new(), count }
    }

    pub(super) fn is_published(&self) -> bool {
        matches!(self.phase, Phase::Published { .. })
    }

    /// Events that ubusd has not answered yet.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// ubusd said something.
    ///
    /// # Errors
    /// [`Refused`]: it does not take our object.
    pub(super) fn message(
        &mut self,
        message: &Message,
        source: &dyn Source,
    ) -> Result<(), Refused> {
        let header = message.header;
        let Ok(parsed) = message.parse() else {
            self.count.not_understood.inc();
            return Ok(());
        };
        match (header.kind, self.phase) {
            (kind::HELLO, Phase::Greeting) => self.add_object(),
            (kind::DATA, Phase::Adding { seq, .. }) if header.seq == seq => {
                self.phase = Phase::Adding { seq, object: parsed.object };
            }
            (kind::STATUS, Phase::Adding { seq, object }) if header.seq == seq => {
                let status = Status::from_wire(parsed.status.unwrap_or(u32::MAX));
                match (status, object) {
                    (Status::Ok, Some(object)) => self.phase = Phase::Published { object },
                    (Status::Ok, None) => return Err(Refused(Status::NoData)),
                    (status, _) => return Err(Refused(status)),
                }
            }
            (kind::STATUS, Phase::Published { .. }) => self.event_status(header, parsed),
            (kind::INVOKE, Phase::Published { object }) => {
                self.invoke(header, parsed, object, source);
            }
            // Somebody subscribed or left; there is nothing to notify of beside events.
            (kind::NOTIFY | kind::UNSUBSCRIBE, _) => {}
            _ => self.count.not_understood.inc(),
        }
        Ok(())
    }

    /// A message came that was longer than any call of ours can be.
    pub(super) fn too_long(&mut self, header: Header) {
        self.count.not_understood.inc();
        if let (kind::INVOKE, Phase::Published { object }) = (header.kind, self.phase) {
            self.status(header, object, Status::InvalidArgument);
        }
    }

    /// Tells all who listen. Only once published.
    pub(super) fn event(&mut self, name: &str, data: &Value) {
        let mut arguments = Map::new();
        arguments.insert("id".to_owned(), name.into());
        arguments.insert("data".to_owned(), data.clone());
        let body = Writer::default()
            .u32(attr::OBJID, EVENTS)
            .text(attr::METHOD, "send")
            .table(attr::DATA, &arguments);
        self.count.alerts.inc();
        self.under_way += 1;
        self.ask(kind::INVOKE, EVENTS, &body);
    }

    fn add_object(&mut self) {
        let body = Writer::default()
            .text(attr::OBJPATH, object::NAME)
            .raw(attr::SIGNATURE, object::signature().bytes());
        let seq = self.ask(kind::ADD_OBJECT, 0, &body);
        self.phase = Phase::Adding { seq, object: None };
    }

    fn ask(&mut self, kind: u8, peer: u32, body: &Writer) -> u16 {
        self.seq = self.seq.wrapping_add(1);
        self.send(Header { kind, seq: self.seq, peer }, body);
        self.seq
    }

    fn send(&mut self, header: Header, body: &Writer) -> bool {
        let bytes = frame(header, body);
        self.out.extend(bytes.as_deref().unwrap_or_default());
        bytes.is_some()
    }

    fn event_status(&mut self, header: Header, parsed: Parsed<'_>) {
        if header.peer == EVENTS {
            self.under_way = self.under_way.saturating_sub(1);
            let refused = parsed.status != Some(Status::Ok as u32);
            self.count.alerts_refused.add(u64::from(refused));
        }
    }

    fn invoke(&mut self, header: Header, parsed: Parsed<'_>, own: u32, source: &dyn Source) {
        if parsed.object != Some(own) {
            self.count.not_understood.inc();
            return;
        }
        self.count.calls.inc();
        let answer = answer(parsed, source);
        if parsed.no_reply {
            return;
        }
        let status = match answer {
            Ok(table) => {
                let body = Writer::default().u32(attr::OBJID, own).table(attr::DATA, &table);
                let sent = self.send(Header { kind: kind::DATA, ..header }, &body);
                if sent { Status::Ok } else { Status::UnknownError }
            }
            Err(status) => status,
        };
        self.status(header, own, status);
    }

    fn status(&mut self, header: Header, own: u32, status: Status) {
        let body = Writer::default().u32(attr::STATUS, status as u32).u32(attr::OBJID, own);
        self.send(Header { kind: kind::STATUS, ..header }, &body);
    }
}

fn answer(parsed: Parsed<'_>, source: &dyn Source) -> Result<Map<String, Value>, Status> {
    let method = std::str::from_utf8(parsed.method.unwrap_or_default());
    let method = method.map_err(|_| Status::MethodNotFound)?;
    let data = parsed.data.unwrap_or_default();
    if data.len() > ARGUMENTS_BYTES_MAX {
        return Err(Status::InvalidArgument);
    }
    let arguments = read_table(data).map_err(|_| Status::InvalidArgument)?;
    match api::call(source, method, &arguments) {
        Ok(Value::Object(table)) => Ok(table),
        Ok(_) => Err(Status::UnknownError),
        Err(refusal) => {
            // The name comes from whoever called.
            tracing::debug!("{}: {refusal}", printable(method.as_bytes(), 64));
            Err(match refusal {
                Refusal::Method => Status::MethodNotFound,
                Refusal::Argument(..) => Status::InvalidArgument,
                Refusal::NotFound => Status::NotFound,
                Refusal::NotSupported => Status::NotSupported,
                Refusal::Exception(_) => Status::UnknownError,
                Refusal::Busy => Status::Timeout,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::api::tests::Sample;
    use crate::ubus::message::{Frame, Inbox, MESSAGE_BYTES_MAX};
    use proptest::prelude::*;
    use serde_json::json;

    const OBJECT: u32 = 0x1234_5678;

    fn message(kind: u8, seq: u16, body: Writer) -> Message {
        Message { header: Header { kind, seq, peer: 77 }, body: body.bytes().to_vec() }
    }

    fn said(session: &mut Session) -> Vec<Message> {
        let mut inbox = Inbox::new(MESSAGE_BYTES_MAX);
        inbox.push(&std::mem::take(&mut session.out));
        let next = |frame| match frame {
            Frame::Message(message) => message,
            Frame::TooLong(header) => panic!("{header:?}"),
        };
        std::iter::from_fn(|| inbox.next_frame().unwrap().map(next)).collect()
    }

    fn published(source: &Sample) -> Session {
        let mut session = Session::new(&Counters::default());
        let hear = |m: Message, session: &mut Session| session.message(&m, source).unwrap();
        hear(message(kind::HELLO, 0, Writer::default()), &mut session);
        let add = said(&mut session).remove(0);
        assert_eq!(add.header.kind, kind::ADD_OBJECT);
        assert_eq!(add.parse().unwrap().path, Some(b"agentmon".as_slice()));
        let object = Writer::default().u32(attr::OBJID, OBJECT).u32(attr::OBJTYPE, 5);
        hear(message(kind::DATA, add.header.seq, object), &mut session);
        assert!(!session.is_published());
        let ok = Writer::default().u32(attr::STATUS, 0);
        hear(message(kind::STATUS, add.header.seq, ok), &mut session);
        assert!(session.is_published() && session.out.is_empty());
        session
    }

    fn invoke(method: &str, data: &Writer) -> Writer {
        Writer::default()
            .u32(attr::OBJID, OBJECT)
            .text(attr::METHOD, method)
            .text(attr::USER, "root")
            .text(attr::GROUP, "root")
            .raw(attr::DATA, data.bytes())
    }

    /// Kinds of the answer's messages, and the status.
    #[track_caller]
    fn check(body: Writer, kinds: &[u8], status: Option<Status>) {
        let sample = Sample::new();
        let mut session = published(&sample);
        session.message(&message(kind::INVOKE, 9, body), &sample).unwrap();
        let answer = said(&mut session);
        assert_eq!(answer.iter().map(|m| m.header.kind).collect::<Vec<_>>(), kinds);
        for message in &answer {
            assert_eq!((message.header.seq, message.header.peer), (9, 77));
            assert_eq!(message.parse().unwrap().object, Some(OBJECT));
        }
        let last = answer.last().and_then(|m| m.parse().unwrap().status);
        assert_eq!(last.map(Status::from_wire), status);
    }

    #[test]
    fn a_call_is_answered_with_data_and_status() {
        let both = [kind::DATA, kind::STATUS];
        let none = Writer::default();
        check(invoke("status", &none), &both, Some(Status::Ok));
        check(invoke("alerts", &none.clone().named("limit", &json!(1))), &both, Some(Status::Ok));
        // Also without any arguments attribute.
        let bare = Writer::default().u32(attr::OBJID, OBJECT).text(attr::METHOD, "devices");
        check(bare, &both, Some(Status::Ok));
    }

    #[test]
    fn what_cannot_be_answered_has_a_status() {
        let status = [kind::STATUS];
        let none = Writer::default();
        check(invoke("nothing", &none), &status, Some(Status::MethodNotFound));
        let wrong = none.clone().named("limit", &json!("x"));
        check(invoke("alerts", &wrong), &status, Some(Status::InvalidArgument));
        let unknown = none.clone().named("id", &json!("0"));
        check(invoke("ack", &unknown), &status, Some(Status::NotFound));
        let busy = none.clone().named("name", &json!("busy.example"));
        check(invoke("score", &busy), &status, Some(Status::Timeout));
        let hostile = Writer::from_bytes(b"\x83\xff\xff\xff");
        check(invoke("alerts", &hostile), &status, Some(Status::InvalidArgument));
        let long = none.named("device", &json!("x".repeat(ARGUMENTS_BYTES_MAX)));
        check(invoke("alerts", &long), &status, Some(Status::InvalidArgument));
    }

    #[test]
    fn who_wants_no_answer_gets_none() {
        let call = invoke("status", &Writer::default()).u8(attr::NO_REPLY, 1);
        check(call, &[], None);
        check(invoke("nothing", &Writer::default()).u8(attr::NO_REPLY, 1), &[], None);
        // Another object's call is not ours to answer.
        check(Writer::default().u32(attr::OBJID, 3).text(attr::METHOD, "status"), &[], None);
    }

    #[test]
    fn a_message_too_long_is_answered_too() {
        let sample = Sample::new();
        let mut session = published(&sample);
        session.too_long(Header { kind: kind::INVOKE, seq: 4, peer: 6 });
        session.too_long(Header { kind: kind::DATA, seq: 4, peer: 6 });
        let answer = said(&mut session);
        assert_eq!(answer.len(), 1);
        assert_eq!(answer[0].header, Header { kind: kind::STATUS, seq: 4, peer: 6 });
    }

    #[test]
    fn refusals_are_told_apart() {
        let sample = Sample::new();
        let refused = |status: u32, with_object: bool| {
            let mut session = Session::new(&Counters::default());
            session.message(&message(kind::HELLO, 0, Writer::default()), &sample).unwrap();
            if with_object {
                let object = Writer::default().u32(attr::OBJID, OBJECT);
                session.message(&message(kind::DATA, 1, object), &sample).unwrap();
            }
            let status = Writer::default().u32(attr::STATUS, status);
            session.message(&message(kind::STATUS, 1, status), &sample)
        };
        assert_eq!(refused(6, false), Err(Refused(Status::PermissionDenied)));
        assert_eq!(refused(2, true), Err(Refused(Status::InvalidArgument)));
        assert_eq!(refused(0, false), Err(Refused(Status::NoData)));
        assert_eq!(refused(0, true), Ok(()));
    }

    #[test]
    fn an_event_goes_to_ubusd_and_its_refusal_is_counted() {
        let sample = Sample::new();
        let counters = Counters::default();
        let mut session = Session { count: Session::new(&counters).count, ..published(&sample) };
        session.event("agentmon.alert", &json!({ "score": 0.8 }));
        let event = said(&mut session).remove(0);
        assert_eq!((event.header.kind, event.header.peer), (kind::INVOKE, 1));
        let parsed = event.parse().unwrap();
        assert_eq!((parsed.object, parsed.method), (Some(1), Some(b"send".as_slice())));
        let data = Value::Object(read_table(parsed.data.unwrap()).unwrap());
        assert_eq!(data, json!({ "id": "agentmon.alert", "data": { "score": 0.8 } }));
        for status in [0, 6] {
            let body = Writer::default().u32(attr::STATUS, status);
            let header = Header { kind: kind::STATUS, seq: event.header.seq, peer: 1 };
            let message = Message { header, body: body.bytes().to_vec() };
            session.message(&message, &sample).unwrap();
        }
        let counted = counters.snapshot();
        assert_eq!((counted["ubus.alerts"], counted["ubus.alerts_refused"]), (1, 1));
        assert_eq!(session.under_way(), 0, "an answer too many is no event");
    }

    proptest! {
        #[test]
        fn any_messages_never_panic(
            messages in prop::collection::vec(
                (0u8..14, 0u16..3, prop::collection::vec(any::<u8>(), 0..60)), 0..20),
        ) {
            let sample = Sample::new();
            let mut session = Session::new(&Counters::default());
            for (kind, seq, body) in messages {
                let message = Message { header: Header { kind, seq, peer: 1 }, body };
                if session.message(&message, &sample).is_err() {
                    break;
                }
            }
            drop(said(&mut session));
        }
    }
}
