//! A bus that hangs: on a clock of the test's own, against servers that fall silent at each
//! point of a connection.

use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use agentmon_core::time::{SimClock, Timestamp};

use super::*;
use crate::status::api::tests::Sample;
use crate::ubus::blob::Writer;
use crate::ubus::message::{Header, attr, frame, kind};

struct Bus {
    parts: Arc<Parts>,
    clock: Arc<SimClock>,
    source: Arc<Sample>,
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Bus {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("ubus.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let clock = Arc::new(SimClock::at(Timestamp::from_secs(1_795_000_000)));
        let source = Arc::new(Sample::new());
        let parts = Arc::new(Parts {
            source: source.clone(),
            shared: Arc::new(Shared::new(Config { enabled: true, socket })),
            stop: Stop::default(),
            clock: clock.clone(),
            counters: Counters::default(),
        });
        let running = Arc::clone(&parts);
        let thread = Some(std::thread::spawn(move || run(&running)));
        Self { parts, clock, source, listener, thread, _dir: dir }
    }

    /// The next connection, and what is said on it.
    fn accept(&self, says: &[Vec<u8>]) -> UnixStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        says.iter().for_each(|says| stream.write_all(says).unwrap());
        stream
    }

    /// Waits for the state line; real time only bounds a failure.
    #[track_caller]
    fn state(&self, holds: &str) {
        for _ in 0..3_000 {
            if self.parts.shared.state.get().contains(holds) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{holds:?} is not in {:?}", self.parts.shared.state.get());
    }

    /// Time goes by, in these steps, until the state line says so. More than once: the thread
    /// may not have looked at the clock yet when the connection is here already.
    #[track_caller]
    fn pass(&self, time: Duration, until: &str) {
        for _ in 0..3_000 {
            self.clock.advance(time);
            self.parts.shared.poke();
            std::thread::sleep(Duration::from_millis(10));
            if self.parts.shared.state.get().contains(until) {
                return;
            }
        }
        panic!("{until:?} is not in {:?}", self.parts.shared.state.get());
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.parts.stop.stop();
        self.parts.shared.poke();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn said(kind: u8, seq: u16, body: &Writer) -> Vec<u8> {
    frame(Header { kind, seq, peer: 1 }, body).unwrap()
}

fn hello() -> Vec<u8> {
    said(kind::HELLO, 0, &Writer::default())
}

/// All a server says until the object is published as number 7.
fn publishing() -> Vec<Vec<u8>> {
    let object = said(kind::DATA, 1, &Writer::default().u32(attr::OBJID, 7));
    let ok = said(kind::STATUS, 1, &Writer::default().u32(attr::STATUS, 0));
    vec![hello(), object, ok]
}

const MOMENT: Duration = Duration::from_millis(1);

#[test]
fn one_that_never_greets_or_never_publishes_is_given_up() {
    for says in [vec![], vec![hello()]] {
        let bus = Bus::new();
        let _silent = bus.accept(&says);
        bus.pass(PUBLISH_PATIENCE + MOMENT, "ubusd does not answer; next attempt in");
    }
}

#[test]
fn one_that_has_nothing_to_say_is_left_in_peace() {
    let bus = Bus::new();
    let mut quiet = bus.accept(&publishing());
    bus.state("ok: object agentmon");
    // The two alerts that were waiting are taken.
    for seq in [2, 3] {
        quiet.write_all(&said(kind::STATUS, seq, &Writer::default().u32(attr::STATUS, 0))).unwrap();
    }
    let alerts = bus.parts.counters.counter("ubus.alerts");
    let method = Writer::default().u32(attr::OBJID, 7).text(attr::METHOD, "devices");
    for seq in 0..5 {
        bus.clock.advance(STALLED * 10);
        // It answers after each long silence.
        quiet.write_all(&said(kind::INVOKE, seq, &method)).unwrap();
        let calls = bus.parts.counters.counter("ubus.calls");
        while calls.get() <= seq.into() {
            std::thread::sleep(MOMENT);
        }
    }
    assert_eq!(alerts.get(), 2);
    bus.state("ok: object agentmon");
}

#[test]
fn one_that_answers_no_event_is_given_up() {
    let bus = Bus::new();
    let _silent = bus.accept(&publishing());
    // Two alerts were waiting already.
    bus.state("ok: object agentmon");
    bus.source.find("third.example", 0.9);
    bus.pass(STALLED + MOMENT, "ubusd does not answer; next attempt in");
}

#[test]
fn one_that_takes_no_answers_is_given_up_and_not_buffered_for() {
    let bus = Bus::new();
    let mut deaf = bus.accept(&publishing());
    deaf.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let method = Writer::default().u32(attr::OBJID, 7).text(attr::METHOD, "alerts");
    let call = said(kind::INVOKE, 9, &method);
    // More calls than both sides' buffers hold: it stops reading, and this side cannot write.
    let stuck = (0..200_000).any(|_| deaf.write_all(&call).is_err());
    assert!(stuck, "all of 200,000 calls were taken though no answer was");
    bus.pass(STALLED + MOMENT, "ubusd takes nothing; next attempt in");
}

#[test]
fn a_refusal_says_how_to_mend_it() {
    let root = refusal(Status::InvalidArgument, 0);
    assert!(root.contains("another agentmon-router") && !root.contains("acl"), "{root}");
    let user = refusal(Status::InvalidArgument, 5731);
    assert!(user.contains("/usr/share/acl.d/agentmon.json"), "{user}");
    assert!(user.contains("invalid argument") && !user.contains('\n'), "{user}");
}
