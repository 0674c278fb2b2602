//! Any bytes as one event, in both forms; what was read encodes to what is read again.
#![no_main]

use agentmon_core::Event;
use agentmon_core::wire::{decode_event, encode_event};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = decode_event(bytes) {
        let again = decode_event(&encode_event(&event)).expect("what was read can be read");
        assert_eq!(event, again);
    }
    drop(serde_json::from_slice::<Event>(bytes));
});
