//! Any bytes as the body of an answer of a Pi-hole's REST interface, whichever it is of: every
//! event fits the wire.
#![no_main]

use agentmon_core::wire::{decode_event, encode_event};
use agentmon_router::collect::pihole::any_answer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for event in any_answer(body) {
        assert_eq!(decode_event(&encode_event(&event)).expect("fits the wire"), event);
    }
});
