//! Any bytes as lines of a resolver's log: every event fits the wire, and a reader that was
//! stopped and resumed between two lines says the same.
#![no_main]

use agentmon_core::Timestamp;
use agentmon_core::wire::{decode_event, encode_event};
use agentmon_router::collect::dnsmasq_log::Reader;
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
    for event in events {
        assert_eq!(decode_event(&encode_event(&event)).expect("fits the wire"), event);
    }
});
