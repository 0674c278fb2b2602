//! Any sequence of events and ticks, as NDJSON lines: bounded, no panic, and every finding
//! fits the wire.
#![no_main]

use std::sync::LazyLock;

use agentmon_core::event::Body;
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::tier0::{Engine, Tier0Config};
use agentmon_core::wire::{decode_event, encode_event};
use agentmon_core::{Event, Timestamp};
use libfuzzer_sys::fuzz_target;

static LISTS: LazyLock<Blocklist> = LazyLock::new(|| {
    let mut builder = Tier0Config::default().blocklist.builder();
    builder.list("fuzz", 0.8, b"a.example\nb.example\n");
    builder.build()
});

fuzz_target!(|bytes: &[u8]| {
    let mut config = Tier0Config::default();
    config.direct_ip.startup_grace_seconds = 0;
    config.names.entries_max = 8;
    let mut engine = Engine::new(&config, LISTS.clone());
    let mut found = Vec::new();
    for line in bytes.split(|b| *b == b'\n') {
        // Encoded events reach deeper than text a fuzzer has to spell.
        let event = decode_event(line).ok().or_else(|| serde_json::from_slice(line).ok());
        match event {
            Some(mut event) => engine.on_event(&mut event, &mut found),
            None => {
                let time = line.first_chunk().map_or(0, |b| i64::from_le_bytes(*b));
                engine.on_tick(Timestamp::from_nanos(time), &mut found);
            }
        }
    }
    assert!(engine.names().len() <= 8);
    for found in found {
        let event = Event { time: found.time, body: Body::Finding(found.finding) };
        assert!(decode_event(&encode_event(&event)).is_ok());
    }
});
