//! Any bytes as lines of a resolver's log: every event fits the wire, and a reader that was
//! stopped and resumed between two lines says the same. The same bytes as a stream of syslog
//! (pieces make no difference), as entries of AdGuard Home's query log, and as packets in a
//! kernel's log.
#![no_main]

use agentmon_core::event::Body;
use agentmon_core::{Event, Timestamp};
use agentmon_core::wire::{decode_event, encode_event};
use agentmon_router::collect::adguard::decode::decode;
use agentmon_router::collect::dnsmasq_log::Reader;
use agentmon_router::collect::syslog::frame::{Frame, Frames};
use agentmon_router::collect::syslog::kernel;
use agentmon_router::localtime::Zone;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let now = Timestamp::from_secs(1_795_000_000);
    let mut reader = Reader::new(Zone::utc());
    let mut resumed = Reader::new(Zone::utc());
    let (mut events, mut again) = (Vec::new(), Vec::new());
    for line in bytes.split(|b| *b == b'\n') {
        reader.line(line, now, &mut events);
        resumed = Reader::resume(Zone::utc(), resumed.state());
        resumed.line(line, now, &mut again);
    }
    reader.finish(&mut events);
    resumed.finish(&mut again);
    assert_eq!(events, again);
    assert_eq!(frames(bytes, bytes.len()), frames(bytes, 3));
    let entries = bytes.split(|b| *b == b'\n').filter_map(|line| decode(line, now).ok());
    events.extend(entries.map(|entry| entry.event));
    let packets = bytes.split(|b| *b == b'\n').filter_map(kernel::packet);
    events.extend(packets.map(|packet| Event { time: now, body: Body::Firewall(packet) }));
    for event in events {
        assert_eq!(decode_event(&encode_event(&event)).expect("fits the wire"), event);
    }
});

/// The messages of a stream that comes in pieces, and whether it can be read to its end.
fn frames(bytes: &[u8], piece: usize) -> (Vec<Option<Vec<u8>>>, bool) {
    let (mut frames, mut found) = (Frames::default(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        let read = frames.feed(piece, |frame| {
            found.push(match frame {
                Frame::Message(message) => Some(message.to_vec()),
                Frame::TooLong => None,
            });
        });
        if read.is_err() {
            return (found, false);
        }
    }
    (found, true)
}
