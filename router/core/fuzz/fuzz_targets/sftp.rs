//! Any bytes as a packet of another machine's sftp: nothing is read that is not there.
#![no_main]

use agentmon_router::ssh::any_packet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| {
    assert!(any_packet(packet) <= packet.len());
});
