//! Captured bytes -> fields, the same bytes through an independent decoder, and hostile
//! bytes.

use netlink_packet_core::{NetlinkBuffer, Nla, ParseableParametrized};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple as OracleTuple,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use proptest::prelude::*;

use super::super::captured::{self, bytes};
use super::*;
use crate::netlink::messages;

fn read(hex: &str) -> Raw {
    let bytes = bytes(hex);
    let message = messages(&bytes).next().unwrap().unwrap();
    decode(&message).unwrap()
}

/// `src:port > dst:port proto`, as short as a line of `conntrack -L`.
fn shown(t: &Tuple) -> String {
    format!("{}:{} > {}:{} {}", t.src, t.src_port, t.dst, t.dst_port, t.proto)
}

#[track_caller]
fn tuples(hex: &str, kind: Kind, id: u32, orig: &str, reply: &str) {
    let raw = read(hex);
    assert_eq!((raw.kind, raw.id, raw.zone), (kind, id, 0));
    assert_eq!(shown(&raw.orig), orig);
    assert_eq!(raw.reply.as_ref().map(shown).as_deref(), Some(reply));
}

#[test]
fn tuples_are_what_conntrack_prints() {
    tuples(
        captured::NEW_TCP,
        Kind::New,
        1_198_762_356,
        "192.168.77.2:40002 > 203.0.113.2:8080 6",
        "203.0.113.2:8080 > 203.0.113.1:40002 6",
    );
    tuples(
        captured::DESTROY_TCP6,
        Kind::Destroy,
        1_280_367_075,
        "2001:db8:77::2:48358 > 2001:db8:99::2:8080 6",
        "2001:db8:99::2:8080 > 2001:db8:77::2:48358 6",
    );
    tuples(
        captured::NEW_DNAT,
        Kind::New,
        2_600_246_388,
        "203.0.113.2:34616 > 203.0.113.1:8081 6",
        "192.168.77.2:8080 > 203.0.113.2:34616 6",
    );
    tuples(
        captured::NEW_ICMP,
        Kind::New,
        3_151_897_446,
        "192.168.77.2:4660 > 203.0.113.2:2048 1",
        "203.0.113.2:4660 > 203.0.113.1:0 1",
    );
    tuples(
        captured::NEW_ICMP6,
        Kind::New,
        504_302_036,
        "2001:db8:77::2:4660 > 2001:db8:99::2:32768 58",
        "2001:db8:99::2:4660 > 2001:db8:77::2:33024 58",
    );
}

#[test]
fn counters_times_and_states() {
    let new = read(captured::NEW_TCP);
    assert_eq!((new.out, new.start_ns, new.stop_ns), (None, None, None));
    assert_eq!((new.timeout, new.tcp_state), (Some(120), Some(1)));
    assert!(new.event_ns.is_some());

    let end = read(captured::DESTROY_TCP6);
    assert_eq!(end.out, Some(Count { packets: 6, bytes: 525 }));
    assert_eq!(end.back, Some(Count { packets: 6, bytes: 1_287 }));
    assert_eq!((end.timeout, end.tcp_state), (None, Some(7)));
    assert_ne!(end.status & STATUS_ASSURED, 0);
    let life = end.stop_ns.unwrap() - end.start_ns.unwrap();
    assert_eq!(life / 1_000_000_000, 1, "delta-time");

    let entry = read(captured::DUMP_DNAT);
    assert_eq!(entry.kind, Kind::Update);
    assert!(entry.start_ns.is_some() && entry.stop_ns.is_none() && entry.out.is_some());
}

/// What another implementation reads from the same bytes, as far as it decodes it.
fn oracle(bytes: &[u8]) -> (String, String, u32, Option<u32>) {
    let buffer = NetlinkBuffer::new_checked(bytes).unwrap();
    let message =
        NetfilterMessage::parse_with_param(buffer.payload(), buffer.message_type()).unwrap();
    let NetfilterMessageInner::Conntrack(
        ConntrackMessage::New(list) | ConntrackMessage::Delete(list),
    ) = message.inner
    else {
        panic!("no conntrack message");
    };
    let (mut orig, mut reply, mut status, mut id) = Default::default();
    for attribute in list {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => orig = oracle_tuple(&parts),
            ConntrackAttribute::CtaTupleReply(parts) => reply = oracle_tuple(&parts),
            ConntrackAttribute::CtaStatus(bits) => status = bits.bits(),
            ConntrackAttribute::Other(raw) if raw.kind() == 12 => {
                let mut value = vec![0; raw.value_len()];
                raw.emit_value(&mut value);
                id = value.try_into().ok().map(u32::from_be_bytes);
            }
            _ => {}
        }
    }
    (orig, reply, status, id)
}

fn oracle_tuple(parts: &[OracleTuple]) -> String {
    let (mut src, mut dst) = (None, None);
    let (mut proto, mut src_port, mut dst_port) = (0, 0, 0);
    for part in parts {
        match part {
            OracleTuple::Ip(list) => {
                for ip in list {
                    match ip {
                        IPTuple::SourceAddress(a) => src = Some(*a),
                        IPTuple::DestinationAddress(a) => dst = Some(*a),
                        _ => {}
                    }
                }
            }
            OracleTuple::Proto(list) => {
                for field in list {
                    match field {
                        ProtoTuple::Protocol(p) => proto = u8::from(*p),
                        ProtoTuple::SourcePort(p) => src_port = *p,
                        ProtoTuple::DestinationPort(p) => dst_port = *p,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    format!("{}:{src_port} > {}:{dst_port} {proto}", src.unwrap(), dst.unwrap())
}

#[test]
fn an_independent_decoder_reads_the_same() {
    for hex in captured::ALL {
        let raw = read(hex);
        if matches!(raw.orig.proto, 1 | 58) {
            continue; // The other one leaves ICMP's fields undecoded.
        }
        let ours = (shown(&raw.orig), shown(&raw.reply.unwrap()), raw.status, Some(raw.id));
        assert_eq!(ours, oracle(&bytes(hex)));
    }
}

#[test]
fn what_is_no_flow_is_an_error() {
    let good = bytes(captured::NEW_TCP);
    let check = |change: &dyn Fn(&mut Vec<u8>), expected| {
        let mut bad = good.clone();
        change(&mut bad);
        let message = messages(&bad).next().unwrap().unwrap();
        assert_eq!(decode(&message), Err(expected));
    };
    check(&|b| b[5] = 4, DecodeError::Kind);
    check(&|b| b[4] = 7, DecodeError::Kind);
    check(&|b| b[0] = 18, DecodeError::Short);
    // The first attribute, CTA_TUPLE_ORIG, becomes one nobody knows.
    check(&|b| b[22] = 99, DecodeError::Tuple);
    // Its length reaches beyond the message.
    check(&|b| b[21] = 0x40, DecodeError::Malformed(Malformed));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(kind in prop_oneof![Just(CT_NEW), Just(CT_DELETE)], body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let read = decode(&Message { kind, flags: 0x600, sequence: 0, body: &body });
        prop_assert!(read.is_err() || !body.is_empty());
    }

    /// Real messages with some bytes changed reach far deeper than noise.
    #[test]
    fn damaged_messages_never_panic(
        which in 0..captured::ALL.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut damaged = bytes(captured::ALL[which]);
        for (place, value) in changes {
            let place = place.index(damaged.len());
            damaged[place] = value;
        }
        for part in [&damaged[..], &damaged[..cut.index(damaged.len())]] {
            for message in messages(part).flatten() {
                if let Ok(raw) = decode(&message) {
                    prop_assert_eq!(raw.orig.src.is_ipv4() || raw.orig.src.is_ipv6(), true);
                }
            }
        }
    }
}
