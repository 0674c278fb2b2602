//! What the fuzz targets begin with: `fuzz/seeds/TARGET/NAME`, one input each.
//!
//! The inputs are made here, by our own encoders and by hand, so that they stay valid when a
//! format grows; the test fails when a file is not what it should be, and writes all of them
//! with `AGENTMON_BLESS=1`. A fuzzer that starts with them is past the magic numbers,
//! lengths and checksums that it would hardly guess. What they decode to is checked too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agentmon_core::tier0::blocklist::{Blocklist, Config, FOOTER_BYTES, ListConfig, compile};
use agentmon_core::wire::{Batch, Health, encode_batch, encode_event};
use agentmon_core::{Event, Timestamp, dns_wire};

/// By target and name.
type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

/// One event of every kind, with everything it can have.
const EVENTS: [(&str, &str); 9] = [
    (
        "dns",
        r#"{"time_ns":1795444327000000001,"kind":"dns","client":"192.0.2.9","mac":"00:00:5e:00:53:01","name":"www.example.com","qtype":1,"status":"forwarded","rcode":0,"answers":[{"cname":"cdn.example.net"},{"address":"203.0.113.9"},{"other":"HTTPS 1 ."}],"ttl":300,"upstream":"198.51.100.53","latency_us":3210,"source":"passive-dns"}"#,
    ),
    (
        "dns-blocked",
        r#"{"time_ns":1795444327100000000,"kind":"dns","client":"2001:db8::9","name":"a.example","qtype":28,"status":"blocked","blocked_by":"gravity","answers":[{"address":"::"}],"source":"dnsmasq-log"}"#,
    ),
    (
        "dns-missing",
        r#"{"time_ns":1795444327200000000,"kind":"dns","client":"192.0.2.9","name":"qxkvjzwpfhgtrb.example","qtype":1,"status":"forwarded","rcode":3,"source":"dnsmasq-log"}"#,
    ),
    (
        "flow-start",
        r#"{"time_ns":1795444328000000000,"kind":"flow","id":7,"phase":"start","proto":6,"src":{"ip":"192.168.77.2","port":43164},"dst":{"ip":"203.0.113.9","port":443},"start":1795444328000000000,"tcp_state":"SYN_SENT"}"#,
    ),
    (
        "flow-end",
        r#"{"time_ns":1795444330000000000,"kind":"flow","id":7,"phase":"end","proto":6,"src":{"ip":"192.168.77.2","port":43164},"dst":{"ip":"203.0.113.9","port":443},"nat_src":{"ip":"203.0.113.1","port":43164},"nat_dst":{"ip":"203.0.113.10","port":443},"start":1795444328000000000,"duration_ms":2000,"volume":{"bytes_out":1476,"bytes_in":50424,"packets_out":9,"packets_in":8},"tcp_state":"TIME_WAIT","replied":true,"offloaded":true,"iface":"br-lan","mac":"00:00:5e:00:53:01","resolved":{"name":"www.example.com","age_ms":12}}"#,
    ),
    (
        "firewall",
        r#"{"time_ns":1795444331000000000,"kind":"firewall","verdict":"reject","prefix":"agentmon-reject ","proto":17,"src":{"ip":"192.168.77.2","port":1000},"dst":{"ip":"2001:db8::1","port":53},"in_iface":"br-lan","out_iface":"wan","mac":"00:00:5e:00:53:02","bytes":60}"#,
    ),
    (
        "device",
        r#"{"time_ns":1795444332000000000,"kind":"device","mac":"02:00:00:00:00:01","ip":"192.168.77.2","hostname":"laptop","iface":"br-lan","source":"lease"}"#,
    ),
    (
        "finding",
        r#"{"time_ns":1795444333000000000,"kind":"finding","rule":"blocklist","subject":"a.example","client":"192.168.77.2","mac":"00:00:5e:00:53:02","score":0.8,"why":"asked for a.example: on list test","evidence":[["list","test"]]}"#,
    ),
    (
        "gap",
        r#"{"time_ns":1795444334000000000,"kind":"gap","collector":"conntrack","from":1795444333000000000,"reason":"enobufs","lost":3}"#,
    ),
];

fn events() -> Vec<Event> {
    EVENTS.iter().map(|(name, line)| serde_json::from_str(line).expect(name)).collect()
}

fn event_seeds(seeds: &mut Seeds) {
    for (event, (name, line)) in events().iter().zip(EVENTS) {
        seeds.insert(("event", format!("{name}.bin")), encode_event(event));
        seeds.insert(("event", format!("{name}.json")), line.into());
    }
    let lines: Vec<&str> = EVENTS.iter().map(|(_, line)| *line).collect();
    seeds.insert(("tier0", "a-day.ndjson".into()), lines.join("\n").into());
    let mut burst = String::new();
    for i in 0..12u64 {
        let missing = EVENTS[2].1.replace("qxkvjzwpfhgtrb", &format!("qx{i}kvjzw{i}pfhgtrb"));
        burst += &missing.replace("7200000000", &format!("{}", 7_200_000_000 + i));
        burst.push('\n');
    }
    seeds.insert(("tier0", "burst.ndjson".into()), burst.into());
}

fn batch_seeds(seeds: &mut Seeds) {
    let mut batch = Batch {
        epoch: 7,
        first_seq: 41,
        events: events().iter().map(encode_event).collect(),
        health: Health {
            version: "0.1.0".into(),
            counters: vec![("accepted".into(), 9), ("drop.ring.evicted".into(), 1)],
            pending: 9,
            ring_bytes: 4_096,
            collectors: vec![("conntrack".into(), "ok".into())],
        },
        sent: Timestamp::from_secs(1_795_444_335),
    };
    let mut add = |name: &str, batch: &Batch| {
        let body = encode_batch(batch).expect("within all maxima");
        seeds.insert(("batch", name.to_owned()), body);
    };
    add("events", &batch);
    batch.events.clear();
    add("health", &batch);
}

/// A label sequence; `""` is the root.
fn dns_name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> =
        labels.flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat()).collect();
    wire.push(0);
    wire
}

/// A message with one question at offset 12 (`\xc0\x0c` points to it) and these records.
fn dns_message(flags: u16, name: &str, qtype: u16, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
    let mut wire = vec![0x12, 0x34];
    wire.extend(flags.to_be_bytes());
    for count in [1, records.len() as u16, 0, 0] {
        wire.extend(count.to_be_bytes());
    }
    wire.extend(dns_name(name));
    wire.extend([qtype.to_be_bytes(), [0, 1]].concat());
    for (owner, rtype, data) in records {
        wire.extend_from_slice(owner);
        wire.extend([rtype.to_be_bytes(), [0, 1]].concat());
        wire.extend(300u32.to_be_bytes());
        wire.extend((data.len() as u16).to_be_bytes());
        wire.extend_from_slice(data);
    }
    wire
}

/// RFC 1035; HTTPS is RFC 9460. The loop is the one thing that does not decode whole.
fn dns_seeds(seeds: &mut Seeds) {
    const QUESTION: u16 = 0x0100;
    const ANSWER: u16 = 0x8180;
    let here: &[u8] = &[0xc0, 0x0c];
    let (host, text) = (dns_name("host.example.net"), b"\x05hello\x00\x03a\\b");
    let https =
        [&[0, 1][..], &dns_name(""), b"\0\x01\0\x03\x02h2\0\x04\0\x04\xcb\0\x71\x09"].concat();
    let soa = [&dns_name("ns.example")[..], &host, &[0; 20]].concat();
    let v6 = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09";
    let messages = [
        ("question", dns_message(QUESTION, "www.example.com", 1, &[])),
        ("a", dns_message(ANSWER, "www.example.com", 1, &[(here, 1, &[203, 0, 113, 9])])),
        ("aaaa", dns_message(ANSWER, "www.example.com", 28, &[(here, 28, v6)])),
        (
            "alias",
            dns_message(
                ANSWER,
                "www.example.com",
                1,
                &[(here, 5, &host), (&host, 1, &[203, 0, 113, 9])],
            ),
        ),
        ("txt", dns_message(ANSWER, "t.example", 16, &[(here, 16, text)])),
        ("https", dns_message(ANSWER, "h.example", 65, &[(here, 65, &https)])),
        ("nxdomain", dns_message(ANSWER | 3, "none.example", 1, &[(here, 6, &soa)])),
        ("loop", dns_message(ANSWER, "l.example", 5, &[(here, 5, b"\xc0\x27")])),
    ];
    for (name, wire) in messages {
        let decoded = dns_wire::decode(&wire).expect(name);
        assert!(decoded.question.is_some(), "{name}");
        assert!(name == "loop" || !decoded.incomplete, "{name}: {decoded:?}");
        seeds.insert(("dns_message", name.to_owned()), wire);
    }
}

const LISTS: [(&str, &str); 9] = [
    (
        "hosts",
        "# hosts\r\n127.0.0.1 localhost\r\n0.0.0.0 a.example b.example # two\r\n::1 c.example\n",
    ),
    ("plain", "a.example\n*.b.example\n.c.example\nd.example.\nB\u{dc}CHER.example\n"),
    (
        "adblock",
        "[Adblock Plus 2.0]\n! title\n||a.example^\n@@||b.a.example^\n||c.example^$important\n",
    ),
    ("dnsmasq", "address=/a.example/#\nserver=/b.example/\nlocal=/c.example/d.example/\n"),
    (
        "unbound",
        "server:\n local-zone: \"a.example.\" always_null\nlocal-zone: \"b.example\" transparent\n",
    ),
    (
        "rpz",
        "$ORIGIN rpz.example.\n$TTL 300\n@ SOA ns. root. (\n 1 2 3 )\na.example CNAME .\n\
         *.b.example.rpz.example. cname *.\n24.0.2.0.192.rpz-ip CNAME rpz-passthru.\n",
    ),
    (
        "addresses",
        "192.0.2.1\n192.0.2.0/24 ; SBL1\n192.0.2.9:80\n192.0.2.3\t7\n2001:db8::/32\n\
         [2001:db8::1]:443\n192.0.2.8-192.0.2.9\n",
    ),
    ("pages", "https://a.example/x?y\nb.example/z\nhttp://192.0.2.1:81/bin\n/path\n^re[0-9]$\n"),
    ("bad", "com\nco.uk\n192.0.2.1\nhttp://a.example/x\n?!\na..b\n\0\n"),
];

fn list_seeds(seeds: &mut Seeds) {
    let text =
        |list: &ListConfig| LISTS.iter().find(|(name, _)| *name == list.name).expect("one").1;
    let lists = LISTS.map(|(name, _)| ListConfig { name: name.into(), ..ListConfig::default() });
    for (name, text) in LISTS {
        seeds.insert(("blocklist_text", name.into()), text.into());
    }
    // What the target puts in for the index: all names in the bucket of this one.
    let bucket = xxhash_rust::xxh3::xxh3_64(b"a.example") >> 48;
    for (name, lists) in [
        ("three", &lists[..3]),
        ("one", &lists[5..6]),
        ("addresses", &lists[6..8]),
        ("none", &lists[..0]),
    ] {
        let patterns = vec!["evil-".to_owned()];
        let config = Config { lists: lists.to_vec(), patterns, ..Config::default() };
        let mut form = Vec::new();
        let mut read = |list: &ListConfig, each: &mut dyn FnMut(&[u8])| -> std::io::Result<()> {
            each(text(list).as_bytes());
            Ok(())
        };
        compile(&config, bucket, &mut read, &mut form).expect("into memory");
        Blocklist::open(std::sync::Arc::new(form.clone())).expect("just compiled");
        // 262 KB of index, nearly all the same: the target puts it back.
        seeds.insert(("blocklist_form", name.into()), without_index(&form));
    }
}

/// The form as the target `blocklist_form` takes it: words, then everything behind the index.
fn without_index(form: &[u8]) -> Vec<u8> {
    let footer = form.len() - FOOTER_BYTES;
    let words = u64::from_le_bytes(form[footer + 16..footer + 24].try_into().expect("eight"));
    let index = words as usize * 8;
    [&form[..index], &form[index + 4 * 65_537..]].concat()
}

fn text_seeds(seeds: &mut Seeds) {
    let names = [
        "www.example.com",
        "WwW.ExAmPlE.CoM.",
        ".",
        "a\\.b.example",
        "\\000\\255.example",
        "xn--bcher-kva.example",
        "9.2.0.192.in-addr.arpa",
        "_service._tcp.local",
        "qxkvjzwpfhgtrb.co.uk",
        "d111111abcdef8.cloudfront.net",
    ];
    for (i, name) in names.into_iter().enumerate() {
        seeds.insert(("name", format!("{i:02}")), name.into());
    }
    let at = "Nov 23 14:32:07";
    let plain = format!(
        "{at} dnsmasq[7]: query[A] www.example.com from 192.168.77.2\n\
         {at} dnsmasq[7]: forwarded www.example.com to 198.51.100.53\n\
         {at} dnsmasq[7]: reply www.example.com is <CNAME>\n\
         {at} dnsmasq[7]: reply cdn.example.net is 203.0.113.9\n\
         {at} dnsmasq[7]: query[AAAA] a.example from 2001:db8::9\n\
         {at} dnsmasq[7]: gravity blocked a.example is ::\n\
         {at} dnsmasq[7]: query[A] none.example from 192.168.77.2\n\
         {at} dnsmasq[7]: reply none.example is NXDOMAIN\n"
    );
    let extra = format!(
        "{at} dnsmasq[7]: 1 192.168.77.2/40000 query[A] www.example.com from 192.168.77.2\n\
         {at} dnsmasq[7]: 1 192.168.77.2/40000 cached www.example.com is 203.0.113.9\n\
         {at} dnsmasq[7]: 2 192.168.77.2/40001 query[A] a.example from 192.168.77.2\n\
         {at} dnsmasq[7]: 2 192.168.77.2/40001 reply error is SERVFAIL\n"
    );
    seeds.insert(("log_lines", "plain".into()), plain.into());
    seeds.insert(("log_lines", "extra".into()), extra.into());
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

#[test]
fn the_files_are_what_is_made_here() {
    let mut seeds = Seeds::new();
    for make in [event_seeds, batch_seeds, dns_seeds, list_seeds, text_seeds] {
        make(&mut seeds);
    }
    assert!(seeds.values().all(|seed| (1..8_192).contains(&seed.len())), "seeds are small");
    if std::env::var_os("AGENTMON_BLESS").is_some() {
        for ((target, name), seed) in &seeds {
            let folder = folder().join(target);
            std::fs::create_dir_all(&folder).expect("a folder in the repository");
            std::fs::write(folder.join(name), seed).expect("a file in the repository");
        }
    }
    for ((target, name), seed) in &seeds {
        let file = folder().join(target).join(name);
        let found = std::fs::read(&file).unwrap_or_default();
        let how = "AGENTMON_BLESS=1 cargo test -p agentmon-core --test fuzz_seeds writes it";
        assert!(found == *seed, "{} is not what it should be; {how}", file.display());
    }
    for target in seeds.keys().map(|(target, _)| target) {
        let made = seeds.keys().filter(|(of, _)| of == target).count();
        let there = std::fs::read_dir(folder().join(target)).expect("a folder").count();
        assert_eq!(there, made, "{target} has files that nothing makes");
        let source = folder().join(format!("../fuzz_targets/{target}.rs"));
        assert!(source.is_file(), "there is no target {target}");
    }
}
