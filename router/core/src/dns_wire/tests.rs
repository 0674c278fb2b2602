//! Bytes in, message out. Responses marked "captured" were sent by dnsmasq 2.90 with
//! records made for the purpose; the others are put together by [`Bytes`].

use super::*;

/// `aa.bb.example, A=192.0.2.1` style text of the answers: short to write and to compare.
fn show(message: &Message) -> String {
    let mut out = String::new();
    for record in &message.answers {
        let data = match &record.data {
            Answer::Address(ip) => ip.to_string(),
            Answer::Cname(name) => format!("-> {name}"),
            Answer::Other(text) => text.clone(),
        };
        if !out.is_empty() {
            out.push_str("; ");
        }
        out.push_str(&format!("{} {data}", record.name));
    }
    out
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().filter_map(|b| char::from(b).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Puts a message together.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl Bytes {
    /// A response with one question and the given number of answers and additionals.
    fn response(name: &[u8], qtype: u16, answers: u16, additional: u16) -> Self {
        let mut bytes = Self(vec![0x12, 0x34, 0x81, 0x80]);
        for n in [1, answers, 0, additional] {
            bytes = bytes.u16(n);
        }
        bytes.raw(name).u16(qtype).u16(1)
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn u16(self, n: u16) -> Self {
        self.raw(&n.to_be_bytes())
    }
    /// A record; its owner is usually `POINTER_TO_QUESTION`.
    fn record(self, owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) -> Self {
        let length = u16::try_from(data.len()).unwrap();
        self.raw(owner).u16(rtype).u16(1).raw(&ttl.to_be_bytes()).u16(length).raw(data)
    }
    #[track_caller]
    fn decode(&self) -> Message {
        decode(&self.0).unwrap()
    }
}

const NAME: &[u8] = b"\x01a\x07example\x00";
const POINTER_TO_QUESTION: &[u8] = &[0xc0, 12];

#[track_caller]
fn captured(hex: &str, question: &str, qtype: &str, answers: &str) {
    let message = decode(&unhex(hex)).unwrap();
    let asked = message.question.as_ref().unwrap();
    assert_eq!((asked.name.as_str(), &*type_name(asked.qtype)), (question, qtype));
    assert_eq!(show(&message), answers);
    assert!(message.response && !message.truncated && !message.incomplete);
    assert_eq!(message.id, 0x1234);
}

#[test]
fn captured_responses() {
    captured(
        "12348580000100020000000003777777076578616d706c6503636f6d0000010001c00c0005000100000000001204686f7374076578616d706c6503636f6d00c02d00010001000000000004c0000207",
        "www.example.com",
        "A",
        "www.example.com -> host.example.com; host.example.com 192.0.2.7",
    );
    captured(
        "12348580000100010000000104686f7374076578616d706c6503636f6d00001c0001c00c001c000100000000001020010db800000000000000000000000700002904d0000000000000",
        "host.example.com",
        "AAAA",
        "host.example.com 2001:db8::7",
    );
    captured(
        "123485800001000100000000076578616d706c6503636f6d0000100001c00c001000010000000000130b763d73706631202d616c6c067365636f6e64",
        "example.com",
        "TXT",
        "example.com TXT \"v=spf1 -all\" \"second\"",
    );
    captured(
        "123485800001000100000000076578616d706c6503636f6d00000f0001c00c000f0001000000000014000a046d61696c076578616d706c6503636f6d00",
        "example.com",
        "MX",
        "example.com MX 10 mail.example.com",
    );
    captured(
        "123485800001000100000000055f696d6170045f746370076578616d706c6503636f6d0000210001c00c0021000100000000001800050001008f046d61696c076578616d706c6503636f6d00",
        "_imap._tcp.example.com",
        "SRV",
        "_imap._tcp.example.com SRV 5 1 143 mail.example.com",
    );
    captured(
        "1234858000010001000000000131013201300331393207696e2d61646472046172706100000c0001c00c000c000100000000001204686f7374076578616d706c6503636f6d00",
        "1.2.0.192.in-addr.arpa",
        "PTR",
        "1.2.0.192.in-addr.arpa PTR host.example.com",
    );
    captured(
        "12348580000100010000000103776562076578616d706c6503636f6d0000410001c00c004100010000000000120001000001000302683200040004c000020700002904d0000000000000",
        "web.example.com",
        "HTTPS",
        "web.example.com HTTPS 1 . alpn=h2 ipv4hint=192.0.2.7",
    );
}

#[test]
fn a_captured_nxdomain() {
    let message = decode(&unhex(
        "123481830001000000000001076e6f7468696e67076578616d706c6503636f6d000001000100002904d0000000000000",
    ))
    .unwrap();
    assert_eq!((rcode_name(message.rcode).as_ref(), message.answers.len()), ("NXDOMAIN", 0));
    assert!(!message.incomplete);
}

#[test]
fn the_extended_code_comes_from_edns() {
    // BADVERS = 16: 1 in the OPT record's upper bits, 0 in the header.
    let opt = Bytes::response(NAME, 1, 0, 1).record(&[0], TYPE_OPT, 0x0100_0000, &[]);
    assert_eq!(opt.decode().rcode, 16);
}

#[test]
fn extended_errors() {
    #[track_caller]
    fn check(options: &[u8], expected: Option<&str>, kept_back: bool) {
        let message = Bytes::response(NAME, 1, 0, 1).record(&[0], TYPE_OPT, 0, options).decode();
        let expected = expected.map(|text| Answer::Other(text.to_owned()));
        assert_eq!((message.ede_answer(), message.is_kept_back()), (expected, kept_back));
        assert!(!message.incomplete);
    }
    check(b"", None, false);
    check(b"\0\x0f\0\x02\0\x06", Some("EDE: DNSSEC bogus"), false);
    check(b"\0\x0f\0\x06\0\x0fads!", Some("EDE: blocked: ads!"), true);
    // Behind a cookie; a text that is not meant for a terminal.
    check(b"\0\x0a\0\x02xx\0\x0f\0\x04\0\x11\x1b[", Some("EDE: filtered: \\x1b["), true);
    check(b"\0\x0f\0\x02\x01\0", Some("EDE: code 256"), false);
    check(b"\0\x0f\0\x01\0", None, false);
    check(b"\0\x0f\0\x09\0\x06", None, false);
    check(
        &[b"\0\x0f\0\xc8\0\x00".as_slice(), &[b'x'; 198]].concat(),
        Some(&format!("EDE: other: {}...", "x".repeat(128))),
        false,
    );
}

#[test]
fn a_query_has_no_code() {
    let mut bytes = Bytes::response(NAME, 1, 0, 0);
    bytes.0[2] = 0x01;
    bytes.0[3] = 0x0f;
    let message = bytes.decode();
    assert_eq!((message.response, message.rcode), (false, 0));
}

#[test]
fn time_to_live_of_addresses() {
    let bytes = Bytes::response(NAME, 1, 3, 0)
        .record(POINTER_TO_QUESTION, 16, 5, b"\x01x")
        .record(POINTER_TO_QUESTION, 1, 60, &[192, 0, 2, 1])
        .record(POINTER_TO_QUESTION, 1, 30, &[192, 0, 2, 2]);
    assert_eq!(bytes.decode().address_ttl(), Some(30));
    let huge =
        Bytes::response(NAME, 1, 1, 0).record(POINTER_TO_QUESTION, 1, 1 << 31, &[192, 0, 2, 1]);
    assert_eq!(huge.decode().address_ttl(), Some(0));
}

#[track_caller]
fn says(rtype: u16, data: &[u8], expected: &str) {
    let message =
        Bytes::response(NAME, rtype, 1, 0).record(POINTER_TO_QUESTION, rtype, 1, data).decode();
    assert_eq!(show(&message), format!("a.example {expected}"));
    assert!(!message.incomplete);
}

#[test]
fn record_data_as_text() {
    says(1, &[192, 0, 2, 1], "192.0.2.1");
    says(1, &[192, 0, 2], "A \\# 3 c00002");
    says(28, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1], "192.0.2.1");
    says(5, b"\x01B\xc0\x0e", "-> b.example");
    says(5, b"\x01b\xc0\x0ejunk", "CNAME \\# 8 0162c00e6a756e6b");
    says(2, b"\x02ns\xc0\x0e", "NS ns.example");
    says(39, b"\x01b\x00", "DNAME b");
    says(
        6,
        b"\x02ns\xc0\x0e\x05admin\xc0\x0e\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05",
        "SOA ns.example admin.example 1 2 3 4 5",
    );
    says(16, b"", "TXT");
    says(16, b"\x03a\x1bb", "TXT \"a\\x1bb\"");
    says(16, b"\x05abc", "TXT \\# 4 05616263");
    says(257, b"\x00\x05issueca.example", "CAA 0 issue \"ca.example\"");
    says(43, b"\x01\x02", "DS \\# 2 0102");
    says(4660, b"", "TYPE4660 \\# 0");
    says(65, b"\0\0\x03svc\xc0\x0e", "HTTPS 0 svc.example");
    says(
        64,
        b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x02\0\0\0\x03\0\x02\x20\xfb\0\x05\0\x03abc\0\x09\0\x01x",
        "SVCB 1 . alpn=h2,h3 no-default-alpn port=8443 ech=(3 octets) key9=(1 octets)",
    );
    says(
        65,
        b"\0\x01\0\0\x06\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
        "HTTPS 1 . ipv6hint=2001:db8::1",
    );
    says(65, b"\0\x01\0\0\x04\0\x03abc", "HTTPS \\# 10 00010000040003616263");
}

#[test]
fn long_text_is_cut() {
    let mut data = Vec::new();
    for _ in 0..20 {
        data.push(200);
        data.extend([b'x'; 200]);
    }
    let bytes = Bytes::response(NAME, 16, 1, 0).record(POINTER_TO_QUESTION, 16, 1, &data);
    let Answer::Other(text) = &bytes.decode().answers[0].data else { panic!("not text") };
    assert_eq!(text.len(), crate::event::TEXT_BYTES_MAX);
    assert!(text.ends_with("..."));
}

#[test]
fn a_cut_message_gives_what_was_copied() {
    let whole = Bytes::response(NAME, 1, 2, 0)
        .record(POINTER_TO_QUESTION, 5, 1, b"\x01b\xc0\x0e")
        .record(&[0xc0, 39], 1, 1, &[192, 0, 2, 1]);
    assert_eq!(show(&whole.decode()), "a.example -> b.example; b.example 192.0.2.1");
    for length in 0..whole.0.len() {
        let part = decode(&whole.0[..length]);
        if length < HEADER_OCTETS {
            assert_eq!(part, Err(DnsWireError::Short(length)));
            continue;
        }
        let part = part.unwrap();
        assert!(part.incomplete, "{length}");
        assert_eq!(part.question.is_some(), length >= 12 + NAME.len() + 4, "{length}");
        assert_eq!(part.answers.len(), usize::from(length >= 43), "{length}");
    }
}

#[test]
fn nonsense_behind_the_question_is_left_out() {
    let bytes = Bytes::response(NAME, 1, 2, 0)
        .record(POINTER_TO_QUESTION, 1, 1, &[192, 0, 2, 1])
        .record(&[0x80], 1, 1, &[192, 0, 2, 2]);
    let message = bytes.decode();
    assert_eq!((show(&message).as_str(), message.incomplete), ("a.example 192.0.2.1", true));
}

#[test]
fn hostile_names() {
    let question = |name: &[u8]| decode(&Bytes::response(name, 1, 0, 0).0);
    let bad = |what| Err(DnsWireError::Question(what));
    assert_eq!(question(&[0xc0, 12]), bad("compression pointer leads nowhere"));
    assert_eq!(question(&[1, b'a', 0xc0, 12]), bad("compression pointer leads nowhere"));
    assert_eq!(question(&[0xc0, 20, 0]), bad("compression pointer leads nowhere"));
    assert_eq!(question(&[0x40, 0]), bad("unknown kind of label"));
    let long = [&[63; 64][..]; 4].concat();
    assert_eq!(question(&long), bad("name too long"));
    // Bytes that would steer a terminal, and a dot inside a label.
    let name = question(b"\x04a.\x1b[\x00").unwrap().question.unwrap().name;
    assert_eq!(name.as_str(), "a\\046\\027[");
    assert_eq!(question(&[0]).unwrap().question.unwrap().name.as_str(), ".");
}

/// Pointers to pointers, each one step back: legal, but nobody needs 128 of them.
#[test]
fn a_long_chain_of_pointers_is_given_up() {
    let chain = |links: u16| {
        let mut data = vec![0];
        // The data of the first record begins at 12 + NAME + 4 + 12.
        let start = 12 + NAME.len() as u16 + 4 + 12;
        for i in 0..links {
            let target = if i == 0 { start } else { start + 1 + 2 * (i - 1) };
            data.extend((0xc000 | target).to_be_bytes());
        }
        let last = start + data.len() as u16 - 2;
        Bytes::response(NAME, 1, 2, 0)
            .record(POINTER_TO_QUESTION, 10, 1, &data)
            .record(&(0xc000 | last).to_be_bytes(), 1, 1, &[192, 0, 2, 1])
            .decode()
    };
    let (short, long) = (chain(126), chain(127));
    assert_eq!((short.answers.len(), short.incomplete), (2, false));
    assert_eq!((long.answers.len(), long.incomplete), (1, true));
}

#[test]
fn more_answers_than_are_kept() {
    let mut bytes = Bytes::response(NAME, 1, 40, 1);
    for i in 0..40 {
        bytes = bytes.record(POINTER_TO_QUESTION, 1, 1, &[192, 0, 2, i]);
    }
    let message = bytes.record(&[0], TYPE_OPT, 0x0100_0000, &[]).decode();
    assert_eq!((message.answers.len(), message.incomplete), (ANSWERS_MAX, true));
    assert_eq!(message.rcode, 16, "the records behind are still walked");
}

#[test]
fn not_a_query() {
    let mut notify = Bytes::response(NAME, 6, 0, 0);
    notify.0[2] = 0x20;
    assert_eq!(decode(&notify.0), Err(DnsWireError::Opcode(4)));
    assert_eq!(decode(b""), Err(DnsWireError::Short(0)));
}

#[test]
fn no_question_at_all() {
    let message = decode(&[0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!((message.question, message.incomplete), (None, false));
}

proptest::proptest! {
    /// Whatever comes: no panic, bounded, printable.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        bounded(&bytes);
    }

    /// Random damage to a good message reaches deeper than random bytes.
    #[test]
    fn damaged_messages(at in 0usize..200, byte: u8, length in 0usize..200) {
        let mut bytes = Bytes::response(NAME, 65, 3, 1)
            .record(POINTER_TO_QUESTION, 5, 1, b"\x01b\xc0\x0e")
            .record(&[0xc0, 39], 1, 1, &[192, 0, 2, 1])
            .record(&[0xc0, 39], 65, 1, b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x04\0\x04abcd")
            .record(&[0], TYPE_OPT, 0, &[]).0;
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - length % bytes.len());
        bounded(&bytes);
    }
}

fn bounded(bytes: &[u8]) {
    let Ok(message) = decode(bytes) else { return };
    assert!(message.answers.len() <= ANSWERS_MAX);
    for record in &message.answers {
        if let Answer::Other(text) = &record.data {
            assert!(text.len() <= crate::event::TEXT_BYTES_MAX);
            assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text:?}");
        }
    }
}
