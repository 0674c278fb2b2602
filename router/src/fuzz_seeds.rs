//! What the fuzz targets `netlink`, `sftp` and `ubus` begin with: `core/fuzz/seeds/TARGET/NAME`.
//!
//! Messages as kernels sent them (see `netlink::captured`, `conntrack::captured`), and what
//! our own encoder makes of a bus's messages. As with the core's seeds, `AGENTMON_BLESS=1`
//! writes the files, and the test fails when they differ.

use std::path::Path;

use serde_json::json;

use crate::collect::conntrack::captured as conntrack;
use crate::netlink::captured::{self as logged, bytes};
use crate::ubus::blob::Writer;
use crate::ubus::message::{Header, attr, frame, kind};

fn netlink() -> Vec<(String, Vec<u8>)> {
    let packets = [
        ("rejected-tcp", logged::REJECTED_TCP),
        ("dropped-udp6", logged::DROPPED_UDP6),
        ("dns-question", logged::QUERY),
        ("dns-answer", logged::ANSWER),
        ("dns-question6", logged::QUERY6),
        ("dns-answer6", logged::ANSWER6),
        ("dns-over-tcp", logged::OVER_TCP[3]),
    ];
    let packets = packets.into_iter().map(|(name, hex)| (name.to_owned(), bytes(hex)));
    let flows = conntrack::ALL.iter().enumerate();
    let flows = flows.map(|(i, hex)| (format!("flow-{i:02}"), bytes(hex)));
    // Several in one datagram, as dumps come.
    let dump = conntrack::ALL.iter().take(4).flat_map(|hex| bytes(hex)).collect();
    packets.chain(flows).chain([("dump".to_owned(), dump)]).collect()
}

/// What ubusd says to an object: hello, a call, the status of one of ours, in one stream.
/// The target's first byte is the size of the pieces.
fn ubus() -> Vec<(String, Vec<u8>)> {
    let call = json!({ "limit": 5, "since": -1, "rule": "dga", "all": true, "of": [1, "x"] });
    let call = call.as_object().expect("an object").clone();
    let messages = [
        ("hello", kind::HELLO, Writer::default()),
        (
            "call",
            kind::INVOKE,
            Writer::default()
                .u32(attr::OBJID, 0x11)
                .text(attr::METHOD, "alerts")
                .table(attr::DATA, &call),
        ),
        ("status", kind::STATUS, Writer::default().u32(attr::STATUS, 0).u32(attr::OBJID, 0x11)),
    ];
    let frames = messages.map(|(name, kind, body)| {
        let header = Header { kind, seq: 7, peer: 0x0102_0304 };
        (name, frame(header, &body).expect("a small message"))
    });
    let of_size = |size: u8, stream: &[u8]| [&[size], stream].concat();
    let stream = frames.iter().flat_map(|(_, frame)| frame.clone()).collect::<Vec<_>>();
    let mut seeds: Vec<_> =
        frames.iter().map(|(name, frame)| ((*name).to_owned(), of_size(255, frame))).collect();
    seeds.push(("stream".into(), of_size(5, &stream)));
    seeds.push(("values".into(), of_size(255, Writer::default().table(0, &call).bytes())));
    seeds
}

#[track_caller]
fn check(target: &str, seeds: &[(String, Vec<u8>)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("core/fuzz/seeds").join(target);
    if std::env::var_os("AGENTMON_BLESS").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        seeds.iter().for_each(|(name, seed)| std::fs::write(folder.join(name), seed).unwrap());
    }
    let how = "AGENTMON_BLESS=1 cargo test -p agentmon-router --lib fuzz_seeds writes it";
    for (name, seed) in seeds {
        let file = folder.join(name);
        let found = std::fs::read(&file).unwrap_or_default();
        assert!(found == *seed, "{} is not what it should be; {how}", file.display());
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), seeds.len(), "{target}");
}

#[test]
fn netlink_seeds_are_what_kernels_sent() {
    check("netlink", &netlink());
}

#[test]
fn ubus_seeds_are_what_our_encoder_writes() {
    check("ubus", &ubus());
}

#[test]
fn sftp_seeds_are_an_answer_of_each_kind() {
    check("sftp", &crate::ssh::examples().map(|(name, bytes)| (name.to_owned(), bytes)));
}
