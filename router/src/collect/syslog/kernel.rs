//! A line of the kernel's firewall log -> a stopped packet.
//!
//! In: a message of `kernel`, as OpenWrt's firewall (`option log 1`), banIP or any rule with
//! `log prefix` writes it and a syslog sends it on. Out: a [`Firewall`] record, or none: the
//! kernel has much else to say. Pure; below 1 us a line; no memory of its own.
//!
//! ```text
//! [311423.870453] reject wan in: IN=eth1 OUT= MAC=... SRC=203.0.113.66 DST=198.51.100.7
//!     LEN=44 TOS=0x00 ... PROTO=TCP SPT=44321 DPT=23 ... SYN URGP=0
//! ```
//!
//! The prefix is free text of the rule's author and may hold anything, also `IN=`: the pairs
//! begin at the last word that begins so. What stands in brackets behind `PROTO=ICMP` is the
//! packet that an error is about: its addresses are not those of the line.
//!
//! Form: `net/netfilter/nf_log_syslog.c` of Linux. Invariants: any bytes give a record or
//! none; the first pair of a name counts (`LEN` comes twice); unknown pairs are left out.

use std::net::IpAddr;

use agentmon_core::event::{Endpoint, Firewall, Mac, TEXT_BYTES_MAX, unmap};
use agentmon_core::name::printable;
use memchr::memmem;

use crate::collect::firewall::verdict;

/// Reads one message; `None` when it is no packet.
#[must_use]
pub fn packet(message: &[u8]) -> Option<Firewall> {
    let begin = memmem::rfind_iter(message, b"IN=").find(|at| {
        let before = at.checked_sub(1).and_then(|at| message.get(at));
        before.is_none_or(|byte| *byte == b' ')
    })?;
    let (prefix, pairs) = message.split_at(begin);
    let prefix = without_uptime(prefix).trim_ascii();
    let pairs = Pairs::of(pairs);
    let ip = |value: Option<&[u8]>| Some(unmap(text(value?)?.parse::<IpAddr>().ok()?));
    let port = |value: Option<&[u8]>| value.and_then(number::<u16>).unwrap_or(0);
    let iface = |value: Option<&[u8]>| {
        value.filter(|name| !name.is_empty()).map(|name| printable(name, TEXT_BYTES_MAX))
    };
    let prefix_text = prefix.strip_suffix(b":").unwrap_or(prefix);
    Some(Firewall {
        verdict: verdict(prefix),
        prefix: printable(prefix_text, TEXT_BYTES_MAX),
        proto: protocol(pairs.proto?)?,
        src: Endpoint::new(ip(pairs.src)?, port(pairs.spt)),
        dst: Endpoint::new(ip(pairs.dst)?, port(pairs.dpt)),
        in_iface: iface(pairs.in_iface),
        out_iface: iface(pairs.out_iface),
        mac: pairs.mac.and_then(sender),
        bytes: pairs.len.and_then(number::<u32>).unwrap_or(0),
    })
}

/// The pairs that matter, as they stand there.
#[derive(Default)]
struct Pairs<'a> {
    in_iface: Option<&'a [u8]>,
    out_iface: Option<&'a [u8]>,
    mac: Option<&'a [u8]>,
    src: Option<&'a [u8]>,
    dst: Option<&'a [u8]>,
    len: Option<&'a [u8]>,
    proto: Option<&'a [u8]>,
    spt: Option<&'a [u8]>,
    dpt: Option<&'a [u8]>,
}

impl<'a> Pairs<'a> {
    fn of(text: &'a [u8]) -> Self {
        let mut pairs = Self::default();
        let words = text.split(|b| *b == b' ').take_while(|word| word.first() != Some(&b'['));
        for word in words {
            let Some(equals) = memchr::memchr(b'=', word) else { continue };
            let (key, value) = word.split_at(equals);
            let place = match key {
                b"IN" => &mut pairs.in_iface,
                b"OUT" => &mut pairs.out_iface,
                b"MAC" => &mut pairs.mac,
                b"SRC" => &mut pairs.src,
                b"DST" => &mut pairs.dst,
                b"LEN" => &mut pairs.len,
                b"PROTO" => &mut pairs.proto,
                b"SPT" => &mut pairs.spt,
                b"DPT" => &mut pairs.dpt,
                _ => continue,
            };
            if place.is_none() {
                *place = value.get(1..);
            }
        }
        pairs
    }
}

/// `[311423.870453] ` and, of a kernel that is young, `[ 203.842973] `.
fn without_uptime(prefix: &[u8]) -> &[u8] {
    after_uptime(prefix).unwrap_or(prefix)
}

fn after_uptime(prefix: &[u8]) -> Option<&[u8]> {
    let inside = prefix.trim_ascii_start().strip_prefix(b"[")?;
    let (number, rest) = inside.split_at(memchr::memchr(b']', inside)?);
    let is_number = number.iter().all(|b| b.is_ascii_digit() || matches!(b, b' ' | b'.'));
    (is_number && number.contains(&b'.')).then_some(rest.get(1..)?)
}

/// By name, or by number where the kernel has no name for it.
fn protocol(word: &[u8]) -> Option<u8> {
    Some(match word {
        b"TCP" => 6,
        b"UDP" => 17,
        b"ICMP" => 1,
        b"ICMPv6" => 58,
        b"UDPLITE" => 136,
        b"SCTP" => 132,
        b"ESP" => 50,
        b"AH" => 51,
        _ => return number(word),
    })
}

/// `DESTINATION:SENDER:ETHERTYPE`, 14 octets; empty on links without MACs.
fn sender(octets: &[u8]) -> Option<Mac> {
    const SENDER_FROM: usize = 6 * 3;
    const MAC_CHARS: usize = 6 * 3 - 1;
    let mac = text(octets.get(SENDER_FROM..SENDER_FROM + MAC_CHARS)?)?;
    mac.parse().ok().filter(|mac: &Mac| !mac.is_group())
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn number<N: std::str::FromStr>(bytes: &[u8]) -> Option<N> {
    text(bytes)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentmon_core::event::Verdict;
    use proptest::prelude::*;

    const MAC: &str = "00:00:5e:00:53:01:00:00:5e:00:53:fe:08:00";

    /// A record in one line.
    fn show(message: &str) -> String {
        let Some(p) = packet(message.as_bytes()) else { return "none".into() };
        let iface = |name: Option<String>| name.unwrap_or_else(|| "-".into());
        let (from, to) = (iface(p.in_iface), iface(p.out_iface));
        let mac = p.mac.map(|mac| format!(" {mac}")).unwrap_or_default();
        let (verdict, prefix) = (p.verdict.as_str(), p.prefix);
        format!(
            "{verdict} `{prefix}` {} {} > {} {from}>{to} {}{mac}",
            p.proto, p.src, p.dst, p.bytes
        )
    }

    #[track_caller]
    fn check(message: &str, expected: &str) {
        assert_eq!(show(&message.replace("$MAC", MAC)), expected);
    }

    #[test]
    fn packets() {
        let from = "203.0.113.66";
        let mac = "00:00:5e:00:53:fe";
        let ends = "SRC=203.0.113.66 DST=198.51.100.7 LEN=44";
        let tcp = "TOS=0x00 PREC=0x00 TTL=243 ID=54321 PROTO=TCP SPT=44321 DPT=23 WINDOW=1024 \
                   RES=0x00 SYN URGP=0 ";
        let to = format!("6 {from}:44321 > 198.51.100.7:23");
        for (prefix, read) in [
            ("[311423.870453] reject wan in: ", "reject `reject wan in`"),
            ("[  203.842973] drop wan invalid ct state: ", "drop `drop wan invalid ct state`"),
            ("banIP/inbound/drop/country.v4: ", "drop `banIP/inbound/drop/country.v4`"),
            ("[1.0] Block-IoT: ", "drop `Block-IoT`"),
            ("[1.0] rule IN=x of mine: ", "logged `rule IN=x of mine`"),
            ("[12] odd: ", "logged `[12] odd`"),
            ("", "logged ``"),
            ("[9.5] ", "logged ``"),
        ] {
            check(
                &format!("{prefix}IN=eth1 OUT= MAC=$MAC {ends} {tcp}"),
                &format!("{read} {to} eth1>- 44 {mac}"),
            );
        }
        check(
            &format!(
                "drop a: IN=br0 OUT=br0 PHYSIN=eth2 PHYSOUT=eth3 MAC=$MAC {ends} {tcp}MARK=0x1"
            ),
            &format!("drop `drop a` {to} br0>br0 44 {mac}"),
        );
        check(
            &format!("x: IN=pppoe-wan OUT= MAC= {ends} {tcp}"),
            &format!("logged `x` {to} pppoe-wan>- 44"),
        );
        check(
            &format!("x: IN= OUT=eth1 {ends} {tcp}UID=1000 GID=1000"),
            &format!("logged `x` {to} ->eth1 44"),
        );
    }

    /// Every shape, as it stands in a log: what is read of it.
    #[test]
    fn all_shapes() {
        let lines = include_str!("kernel.tsv").lines().filter_map(|line| line.split_once('\t'));
        let mut checked = 0;
        for (expected, line) in lines {
            let (_, message) = line.split_once("kernel: ").expect("the kernel's");
            check(message, expected);
            checked += 1;
        }
        assert_eq!(checked, 21);
    }

    #[test]
    fn protocols() {
        let with =
            |rest: &str| format!("d: IN=a OUT= SRC=203.0.113.9 DST=198.51.100.7 LEN=84 {rest}");
        check(
            &with("PROTO=UDP SPT=123 DPT=47001 LEN=56 "),
            "logged `d` 17 203.0.113.9:123 > 198.51.100.7:47001 a>- 84",
        );
        check(
            &with("ID=11 PROTO=ICMP TYPE=8 CODE=0 ID=77 SEQ=1 "),
            "logged `d` 1 203.0.113.9:0 > 198.51.100.7:0 a>- 84",
        );
        check(
            &with(
                "PROTO=ICMP TYPE=3 CODE=3 [SRC=198.51.100.7 DST=203.0.113.70 LEN=60 PROTO=UDP SPT=40000 DPT=33434 LEN=40 ] ",
            ),
            "logged `d` 1 203.0.113.9:0 > 198.51.100.7:0 a>- 84",
        );
        check(
            &with("MF FRAG:185 PROTO=UDP "),
            "logged `d` 17 203.0.113.9:0 > 198.51.100.7:0 a>- 84",
        );
        check(&with("PROTO=2 "), "logged `d` 2 203.0.113.9:0 > 198.51.100.7:0 a>- 84");
        check(
            "d: IN=a OUT= MAC=33:33:00:00:00:01:00:00:5e:00:53:fe:86:dd SRC=fe80:0000:0000:0000:0200:5eff:fe00:53fe DST=ff02:0000:0000:0000:0000:0000:0000:0001 LEN=72 TC=0 HOPLIMIT=255 FLOWLBL=0 PROTO=ICMPv6 TYPE=134 CODE=0 ",
            "logged `d` 58 [fe80::200:5eff:fe00:53fe]:0 > [ff02::1]:0 a>- 72 00:00:5e:00:53:fe",
        );
    }

    #[test]
    fn what_is_no_packet() {
        check("[1.0] usb 1-1: new high-speed USB device number 2", "none");
        check(
            "[1.0] drop wan in: IN=eth1 OUT= MAC=ff:ff:ff:ff:ff:ff:00:00:5e:00:53:fe:88:e1 ",
            "none",
        );
        check("x: IN=a OUT= SRC=here DST=198.51.100.7 PROTO=UDP", "none");
        check("x: IN=a OUT= SRC=203.0.113.9 DST=198.51.100.7 PROTO=300", "none");
        check("", "none");
        check("IN=", "none");
        let record = packet(
            b"\x1b[2Jdeny: IN=a\x07 OUT= SRC=203.0.113.9 DST=198.51.100.7 PROTO=TCP SPT=99999",
        );
        let record = record.unwrap();
        assert_eq!((record.prefix.as_str(), record.verdict), ("\\x1b[2Jdeny", Verdict::Drop));
        assert_eq!((record.in_iface.as_deref(), record.src.port), (Some("a\\x07"), 0));
    }

    proptest! {
        #[test]
        fn any_bytes(
            message in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "(\\[[ 0-9.]{0,5}\\] )?[a-z:= ]{0,9}IN=([A-Z]{1,5}(=[0-9a-f:.]{0,20})? |\\[){0,9}"
                    .prop_map(String::into_bytes),
            ],
        ) {
            if let Some(record) = packet(&message) {
                prop_assert!(record.prefix.len() <= TEXT_BYTES_MAX);
            }
        }
    }
}
