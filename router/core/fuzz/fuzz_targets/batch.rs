//! Any bytes as a batch: as they come, and as the content of a valid zstd frame, where a
//! fuzzer would hardly get by itself.
#![no_main]

use agentmon_core::Timestamp;
use agentmon_core::wire::{Batch, Health, decode_batch, decode_event, encode_batch};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(batch) = decode_batch(bytes) {
        batch.events.iter().for_each(|event| drop(decode_event(event)));
    }
    let batch = Batch {
        epoch: 1,
        first_seq: 1,
        events: bytes.chunks(64).map(<[u8]>::to_vec).collect(),
        health: Health::default(),
        sent: Timestamp::EPOCH,
    };
    let body = encode_batch(&batch).expect("within all maxima");
    assert_eq!(decode_batch(&body).expect("just encoded"), batch);
});
