//! Any bytes as a datagram from the kernel: messages, attributes, conntrack records,
//! logged packets and their headers, neighbours.
#![no_main]

use agentmon_router::collect::conntrack::decode::decode;
use agentmon_router::collect::{firewall, neighbours};
use agentmon_router::netlink::{messages, nflog};
use agentmon_router::packet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(packet) = packet::parse(bytes)
        && let packet::Transport::Udp { data } | packet::Transport::Tcp { data, .. } =
            packet.transport
    {
        assert!(data.len() < bytes.len());
    }
    for message in messages(bytes) {
        let Ok(message) = message else { return };
        assert!(message.outcome().is_none_or(|number| number >= 0));
        std::hint::black_box(decode(&message).is_ok());
        std::hint::black_box(neighbours::decode::decode(&message));
        if let Ok(logged) = nflog::decode(&message) {
            let record = firewall::normalise(&logged, &mut |_| None);
            assert!(record.is_none_or(|r| r.prefix.is_ascii()));
        }
        let Some((_, attributes)) = message.netfilter() else { continue };
        for attribute in attributes.map_while(Result::ok) {
            assert_eq!(attribute.be16().is_some(), attribute.value.len() == 2);
            assert_eq!(attribute.be32().is_some(), attribute.value.len() == 4);
            assert!(attribute.nested().count() <= attribute.value.len());
        }
    }
});
