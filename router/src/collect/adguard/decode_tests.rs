//! Entries of every kind, good and broken; then any bytes.

use super::*;
use crate::collect::dnsmasq_log::reader::tests::show;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_secs(1_795_442_400);
/// `www.example.com A 203.0.113.80`, TTL 60.
const WWW: &str = "EjSBgAABAAEAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQABwAwAAQABAAAAPAAEywBxUA==";
/// `ads.example.net A 0.0.0.0`.
const ADS: &str = "EjSBgAABAAEAAAAAA2FkcwdleGFtcGxlA25ldAAAAQABwAwAAQABAAAAPAAEAAAAAA==";

fn entry(rest: &str) -> String {
    format!(
        r#"{{"IP":"192.0.2.31","T":"2026-03-23T13:16:49.123456789+01:00","QH":"www.example.com","QT":"A","QC":"IN","CP":"",{rest}}}"#
    )
}

#[track_caller]
fn check(rest: &str, expected: &str) {
    let entry = decode(entry(rest).as_bytes(), NOW).unwrap();
    assert_eq!(show(&entry.event), format!("31 1 www.example.com {expected}"));
    assert!(!entry.imperfect);
}

#[test]
fn verdicts() {
    check(
        &format!(r#""Answer":"{WWW}","Result":{{}},"Upstream":"https://u/","Elapsed":18374290"#),
        "forwarded 0 =203.0.113.80 @https://u/ 18374us",
    );
    check(
        &format!(r#""Answer":"{WWW}","Result":{{}},"Elapsed":83742,"Cached":true,"AD":true"#),
        "cached 0 =203.0.113.80 83us",
    );
    let blocked = r#""Result":{"IsFiltered":true,"Reason":3,"#;
    check(
        &format!(r#""Answer":"{ADS}",{blocked}"Rules":[{{"FilterListID":1,"Text":"||ads^"}}]}}"#),
        "blocked 0 =0.0.0.0 by:||ads^",
    );
    check(
        &format!(r#"{blocked}"Rule":"||ads^","FilterID":1}},"Elapsed":83742"#),
        "blocked by:||ads^ 83us",
    );
    let orig = format!(r#""Answer":"{ADS}","OrigAnswer":"{WWW}","Upstream":"192.0.2.1:53","#);
    check(
        &format!(r#"{orig}{blocked}"Rules":[{{"Text":"203.0.113.90"}}]}}"#),
        "blocked 0 =0.0.0.0 @192.0.2.1:53 by:203.0.113.90",
    );
    let service = r#""Result":{"IsFiltered":true,"Reason":8,"ServiceName":"video"}"#;
    check(service, "blocked by:video");
    check(r#""Result":{"IsFiltered":true,"Reason":4}"#, "blocked by:safe browsing");
    check(r#""Result":{"IsFiltered":true,"Reason":99}"#, "blocked by:filter");
    check(r#""Result":{"IsFiltered":true}"#, "blocked by:filter");
    check(r#""Result":{"Reason":1},"Upstream":"u""#, "forwarded @u");
    check(r#""Result":{}"#, "unknown");
    check(
        r#""Result":{"Reason":9,"IPList":["192.0.2.5"],"CanonName":"www.example.com"}"#,
        "local 0 =192.0.2.5",
    );
    check(
        r#""Result":{"Reason":11,"DNSRewriteResult":{"RCode":0,"Response":{"1":["192.0.2.5"],"5":["a.example."]}}}"#,
        "local 0 >a.example =192.0.2.5",
    );
    check(r#""Result":{"Reason":11,"DNSRewriteResult":{"RCode":3}}"#, "local 3");
}

#[test]
fn the_time_is_the_questions_and_the_ttl_the_answers() {
    let line = entry(&format!(r#""Answer":"{WWW}","Elapsed":123456789"#));
    let event = decode(line.as_bytes(), NOW).unwrap().event;
    assert_eq!(event.time.to_string(), "2026-03-23T12:16:49.000000Z");
    let Body::Dns(dns) = event.body else { panic!("a DNS event") };
    assert_eq!((dns.ttl, dns.source.as_str()), (Some(60), "adguard"));
}

#[test]
fn clients_and_types() {
    #[track_caller]
    fn check(ip: &str, qtype: &str, expected: &str) {
        let line = format!(r#"{{"QT":"{qtype}","QH":"X.example","IP":"{ip}"}}"#);
        assert_eq!(show(&decode(line.as_bytes(), NOW).unwrap().event), expected);
    }
    check("2001:db8::25", "HTTPS", "2001:db8::25 65 x.example unknown");
    check("::ffff:192.0.2.7", "TYPE65280", "7 65280 x.example unknown");
    check("192.0.2.7", "NEWTYPE", "7 0 x.example unknown");
}

/// What is wrong costs its own field; an entry without client or name is none.
#[test]
fn broken_entries() {
    #[track_caller]
    fn kept(line: &str) {
        let entry = decode(line.as_bytes(), NOW).unwrap();
        assert!(show(&entry.event).starts_with("31 1 www.example.com"), "{entry:?}");
    }
    #[track_caller]
    fn refused(line: &str, expected: EntryError) {
        assert_eq!(decode(line.as_bytes(), NOW), Err(expected));
    }
    let good = entry(r#""Result":{}"#);
    let bad_time = good.replace("2026-03-23T13:16:49.123456789+01:00", "12/09/1998T15:00:00+05:00");
    let dated = decode(bad_time.as_bytes(), NOW).unwrap();
    assert!(dated.imperfect && dated.event.time == NOW);
    kept(&entry(r#""Elapsed":-1"#));
    kept(&entry(r#""Elapsed":1e300"#));
    kept(&entry(r#""Result":{"Rules":[{"FilterListID":1.5}]}"#));
    kept(&entry(r#""Result":7,"Cached":"yes","Upstream":[]"#));
    for answer in ["\"!!\"", "\"AAAA\"", "7", "\"\""] {
        let line = entry(&format!(r#""Answer":{answer}"#));
        kept(&line);
        assert!(decode(line.as_bytes(), NOW).unwrap().imperfect);
    }
    refused(&good.replace(r#""192.0.2.31""#, "192002031"), EntryError::Client);
    refused(&good.replace("192.0.2.31", "somebody"), EntryError::Client);
    refused(&good.replace("www.example.com", ""), EntryError::Name);
    refused(&good.replace(r#"{"IP""#, r#"{"Reason":trooe,"IP""#), EntryError::Json);
    refused(&good.replace("}}", ""), EntryError::Json);
    refused("", EntryError::Json);
    refused("[]", EntryError::Json);
    refused(&"[".repeat(100_000), EntryError::Json);
    refused("<html>", EntryError::Json);
}

/// Every shape: what is read of it, or why it is none.
#[test]
fn all_shapes() {
    let lines = include_str!("shapes.tsv").lines().filter_map(|line| line.split_once('\t'));
    let mut checked = 0;
    for (expected, line) in lines {
        let read = match decode(line.as_bytes(), NOW) {
            Ok(entry) if entry.imperfect => format!("{} imperfect", show(&entry.event)),
            Ok(entry) => show(&entry.event),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(read, expected, "{line}");
        checked += 1;
    }
    assert_eq!(checked, 14);
}

proptest! {
    #[test]
    fn any_entry_gives_an_answer(
        keys in proptest::collection::vec((
            "IP|T|QH|QT|Answer|Elapsed|Result|Cached|Upstream|Reason",
            prop_oneof![
                "\"[ -!#-\\[\\]-~]{0,40}\"", "-?[0-9]{1,20}", "true|null",
                "\\[\"[a-z0-9.]{0,9}\"\\]", "\\{\"Reason\":[0-9]{1,2}\\}",
            ]), 0..9),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        drop(decode(&bytes, NOW));
        let keys: Vec<String> = keys.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        drop(decode(format!("{{{}}}", keys.join(",")).as_bytes(), NOW));
        let line = entry(&format!("\"Answer\":\"{}\"", STANDARD.encode(&bytes)));
        let entry = decode(line.as_bytes(), NOW).unwrap();
        let Body::Dns(dns) = entry.event.body else { panic!("a DNS event") };
        prop_assert!(dns.answers.len() <= ANSWERS_MAX);
    }
}
