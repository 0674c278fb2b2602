//! Any bytes as a datagram from the kernel: messages, attributes, conntrack records.
#![no_main]

use agentmon_router::collect::conntrack::decode::decode;
use agentmon_router::netlink::messages;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for message in messages(bytes) {
        let Ok(message) = message else { return };
        assert!(message.outcome().is_none_or(|number| number >= 0));
        std::hint::black_box(decode(&message).is_ok());
        let Some((_, attributes)) = message.netfilter() else { continue };
        for attribute in attributes.map_while(Result::ok) {
            assert_eq!(attribute.be16().is_some(), attribute.value.len() == 2);
            assert_eq!(attribute.be32().is_some(), attribute.value.len() == 4);
            assert!(attribute.nested().count() <= attribute.value.len());
        }
    }
});
