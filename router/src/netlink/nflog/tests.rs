//! Captured bytes -> fields, the same bytes through an independent decoder, sequence gaps,
//! hostile bytes.

use netlink_packet_core::{NetlinkBuffer, ParseableParametrized};
use netlink_packet_netfilter::nflog::{PacketNla, ULogMessage};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use proptest::prelude::*;

use super::super::captured::{self, bytes};
use super::*;

fn with<R>(hex: &str, look: impl FnOnce(&Logged<'_>) -> R) -> R {
    let bytes = bytes(hex);
    let message = messages(&bytes).next().unwrap().unwrap();
    look(&decode(&message).unwrap())
}

#[test]
fn a_packet_comes_with_its_circumstances() {
    with(captured::REJECTED_TCP, |logged| {
        assert_eq!(logged.prefix, b"agentmon-reject ");
        assert!(logged.in_index.is_some() && logged.out_index.is_some() && logged.mac.is_some());
        assert_eq!(logged.payload.len(), 60);
    });
    with(captured::DROPPED_UDP6, |logged| {
        assert_eq!(logged.prefix, b"agentmon-drop ");
        assert_eq!(logged.payload.len(), 96, "snaplen");
    });
}

#[test]
fn an_independent_decoder_reads_the_same() {
    for hex in [captured::REJECTED_TCP, captured::DROPPED_UDP6, captured::QUERY, captured::ANSWER6]
    {
        let raw = bytes(hex);
        let buffer = NetlinkBuffer::new_checked(&raw[..]).unwrap();
        let message =
            NetfilterMessage::parse_with_param(buffer.payload(), buffer.message_type()).unwrap();
        let NetfilterMessageInner::ULog(ULogMessage::Packet(list)) = message.inner else {
            panic!("no packet");
        };
        with(hex, |ours| {
            for attribute in list {
                match attribute {
                    PacketNla::Prefix(p) => assert_eq!(ours.prefix, p.as_bytes()),
                    PacketNla::IfIndexInDev(i) => assert_eq!(ours.in_index, Some(i)),
                    PacketNla::IfIndexOutDev(i) => assert_eq!(ours.out_index, Some(i)),
                    PacketNla::Payload(p) => assert_eq!(ours.payload, p),
                    PacketNla::HwAddr(a) => {
                        let shown = format!("{a:?}");
                        let octets = ours.mac.unwrap().0.map(|o| o.to_string()).join(", ");
                        assert!(shown.contains(&format!("[{octets}, 0, 0]")), "{shown}");
                    }
                    _ => {}
                }
            }
        });
    }
}

#[test]
fn missing_numbers_are_counted() {
    let mut expected = None;
    let mut check = |sequence: Option<u32>, lost: u64| {
        assert_eq!(gap(&mut expected, sequence), lost, "{sequence:?}");
    };
    check(Some(41), 0);
    check(Some(42), 0);
    check(Some(45), 2);
    check(None, 0);
    check(Some(46), 0);
    // The group was bound anew.
    check(Some(0), 0);
    check(Some(1), 0);
    // All numbers were used up.
    let mut expected = Some(u32::MAX);
    assert_eq!(gap(&mut expected, Some(u32::MAX)), 0);
    assert_eq!(gap(&mut expected, Some(1)), 1);
}

#[test]
fn a_datagram_is_taken_apart_and_rubbish_counted() {
    let done = Request::new(super::super::message::NLMSG_DONE, 0).body(&[0; 4]).finish(0);
    let other = Request::new(0x100, 0).body(&[0; 4]).finish(0);
    let datagram =
        [bytes(captured::QUERY), bytes(captured::ANSWER), other, done, vec![1, 2, 3]].concat();
    let (mut turn, mut seen) = (Turn::default(), 0);
    take(&datagram, &mut None, &mut turn, &mut |_| seen += 1);
    assert_eq!((turn, seen), (Turn { packets: 2, lost: 0, unreadable: 2 }, 2));
}

#[test]
fn a_stamp_is_believed_near_the_time_of_reading() {
    let logged = Logged { time: Some(Timestamp::from_secs(1_000)), ..Logged::default() };
    let check = |read: f64, believed| {
        let read = Timestamp::EPOCH.plus(Duration::from_secs_f64(read));
        assert_eq!(logged.time_near(read).is_some(), believed, "{read}");
    };
    check(1_000.02, true);
    // It passed after the turn had begun.
    check(999.99, true);
    // The clock was set since.
    check(998.0, false);
    check(1_061.0, false);
}

#[test]
fn the_kernels_list_says_which_groups_are_read() {
    // /proc/net/netfilter/nfnetlink_log while two programs read groups 5 and 6.
    let list = "    5   4242     0 2    96     10  1\n    6   4243     0 2   512     10  1\n";
    assert!(is_listed(list, 6));
    assert!(!is_listed(list, 4_242) && !is_listed("rubbish\n\n", 7));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let read = decode(&Message { kind: PACKET, flags: 0, sequence: 0, body: &body });
        if let Ok(logged) = read {
            prop_assert!(logged.payload.len() <= body.len());
        }
    }

    #[test]
    fn damaged_messages_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut damaged = bytes(captured::ANSWER);
        for (place, value) in changes {
            let place = place.index(damaged.len());
            damaged[place] = value;
        }
        let mut turn = Turn::default();
        take(&damaged, &mut None, &mut turn, &mut |_| {});
        prop_assert!(turn.packets + turn.unreadable <= damaged.len() as u64 / 16 + 1);
    }
}

/// Losses are told when the kernel reports them, and counted once when the numbers show.
#[test]
fn a_loss_is_counted_once() {
    let mut owed = 2;
    assert_eq!((settle(&mut owed, 0), owed), (0, 2));
    assert_eq!((settle(&mut owed, 7), owed), (5, 0));
    assert_eq!((settle(&mut owed, 3), owed), (3, 0));
    owed = 4;
    assert_eq!((settle(&mut owed, 1), owed), (0, 0));
}
