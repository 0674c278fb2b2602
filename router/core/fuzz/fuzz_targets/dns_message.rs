//! Any bytes as a DNS message: bounded, printable, and the same with a shorter copy.
#![no_main]

use agentmon_core::dns_wire::decode;
use agentmon_core::event::{ANSWERS_MAX, Answer, TEXT_BYTES_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = decode(bytes) else { return };
    assert!(message.answers.len() <= ANSWERS_MAX);
    for record in &message.answers {
        match &record.data {
            Answer::Other(text) => {
                assert!(text.len() <= TEXT_BYTES_MAX);
                assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)));
            }
            Answer::Cname(name) => assert!(name.as_str().bytes().all(|b| b.is_ascii_graphic())),
            Answer::Address(_) => {}
        }
    }
    // What the kernel cut off can only be missing, never be something else.
    if let Ok(part) = decode(&bytes[..bytes.len() / 2]) {
        assert!(part.question.is_none() || part.question == message.question);
        assert!(message.answers.starts_with(&part.answers));
    }
});
