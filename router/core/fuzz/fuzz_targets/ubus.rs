//! Any bytes as what ubusd sends, in pieces: framing, attributes, named values; and what was
//! read, written again, reads the same.
#![no_main]

use agentmon_router::ubus::blob::{Writer, attributes, read_table, split_name};
use agentmon_router::ubus::message::{Frame, HEAD_BYTES, Inbox};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const LIMIT: usize = 2_048;

fuzz_target!(|bytes: &[u8]| {
    let Some((size, stream)) = bytes.split_first() else { return };
    let size = usize::from(*size).max(1);
    let mut inbox = Inbox::new(LIMIT);
    for piece in stream.chunks(size) {
        inbox.push(piece);
        loop {
            match inbox.next_frame() {
                Ok(Some(Frame::Message(message))) => {
                    if let Ok(parsed) = message.parse() {
                        values(parsed.data.unwrap_or_default());
                        values(parsed.signature.unwrap_or_default());
                    }
                }
                Ok(Some(Frame::TooLong(_))) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(inbox.held() <= HEAD_BYTES + LIMIT + size);
    }
    // Framing hides most inputs from what is below it.
    values(stream);
});

fn values(bytes: &[u8]) {
    assert!(attributes(bytes).count() <= bytes.len() / 4 + 1);
    for attribute in attributes(bytes).map_while(Result::ok) {
        if let Ok((name, data)) = split_name(attribute) {
            assert!(name.len() + data.len() <= attribute.payload.len());
        }
    }
    let Ok(table) = read_table(bytes) else { return };
    let written = Writer::default().named("v", &Value::Object(table));
    let read = read_table(written.bytes()).expect("what is written can be read");
    let again = read.iter().fold(Writer::default(), |all, (name, value)| all.named(name, value));
    assert_eq!(written.bytes(), again.bytes());
}
