//! JSON to what it says, and anything at all to something bounded.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn admits(body: &str, expected: Result<(bool, Option<&str>, bool), &str>) {
    match (session(body.as_bytes()), expected) {
        (Ok(got), Ok(want)) => assert_eq!((got.valid, got.sid.as_deref(), got.totp), want),
        (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
        (got, _) => panic!("{got:?}"),
    }
}

#[test]
fn sessions() {
    admits(
        r#"{"session":{"valid":true,"totp":false,"sid":"vFA+EP4MQ5JJvJg+3Q2Jnw=","csrf":"Ux87YTIiMOf/GKCefVIOMw=","validity":300,"message":"app-password correct"},"took":0.03}"#,
        Ok((true, Some("vFA+EP4MQ5JJvJg+3Q2Jnw="), false)),
    );
    admits(
        r#"{"session":{"valid":true,"totp":false,"sid":null,"validity":-1}}"#,
        Ok((true, None, false)),
    );
    admits(r#"{"session":{"valid":false,"totp":true,"sid":null}}"#, Ok((false, None, true)));
    admits(r#"{"session":{}}"#, Ok((false, None, false)));
    admits(r#"{"session":{"valid":true,"sid":7}}"#, Ok((true, None, false)));
    admits(r#"{"session":{"valid":true,"sid":"a\r\nHost: b"}}"#, Err("session id"));
    admits(r#"{"error":{"key":"unauthorized"}}"#, Err("not the JSON expected"));
    admits(" \n<!DOCTYPE html><html>", Err("web page"));
    admits("", Err("not the JSON expected"));
}

#[track_caller]
fn logs(body: &str, next_id: u64, pid: Option<u64>, bad: usize, messages: &[&str]) {
    let page = log_page(body.as_bytes()).unwrap();
    let got: Vec<_> = page.lines.iter().map(|line| line.message.as_str()).collect();
    assert_eq!((page.next_id, page.pid, page.bad, got.as_slice()), (next_id, pid, bad, messages));
}

#[test]
fn log_pages() {
    logs(
        r#"{"log":[{"timestamp":1711199809.25,"message":"query[A] www.example.com from 192.0.2.31","prio":null},
            {"timestamp":1711199809.26,"message":"reply www.example.com is <CNAME>","prio":null}],
            "nextID":229,"pid":2258,"file":"/var/log/pihole/pihole.log","took":0.0001}"#,
        229,
        Some(2258),
        0,
        &["query[A] www.example.com from 192.0.2.31", "reply www.example.com is <CNAME>"],
    );
    logs(r#"{"log":[],"nextID":0}"#, 0, None, 0, &[]);
    // An element that cannot be read keeps its number.
    logs(
        r#"{"log":[{"timestamp":"x","message":"a"},17,{"timestamp":1.5},{"message":"b"}],"nextID":4,"pid":"?"}"#,
        4,
        None,
        2,
        &["a", "", "", "b"],
    );
    assert!(log_page(br#"{"log":[],"nextID":-1}"#).is_err());
    assert!(log_page(br#"{"log":{},"nextID":1}"#).is_err());
    assert!(log_page(br#"{"log":[]}"#).is_err());
}

#[test]
fn lists_are_bounded() {
    let many = vec![r#"{"message":"x"}"#; LINES_MAX + 3].join(",");
    let page = log_page(format!(r#"{{"log":[{many}],"nextID":9999}}"#).as_bytes()).unwrap();
    assert_eq!((page.lines.len(), page.bad), (LINES_MAX, 3));
}

#[test]
fn times() {
    assert_eq!(time_of(1_711_199_809.25).unwrap().micros(), 1_711_199_809_250_000);
    for none in [f64::NAN, f64::INFINITY, -1.0, 1e10] {
        assert_eq!(time_of(none), None);
    }
}

fn row(changed: &[(&str, serde_json::Value)]) -> serde_json::Value {
    let mut row = serde_json::json!({
        "id": 112_421_354u64, "time": 1_581_907_991.539_157, "type": "A",
        "domain": "community.example.io", "cname": null, "status": "FORWARDED",
        "client": {"ip": "192.0.2.14", "name": "desktop.lan"}, "dnssec": "INSECURE",
        "reply": {"type": "IP", "time": 0.019}, "list_id": null, "upstream": "192.0.2.53#5353",
        "ede": {"code": 0, "text": null}
    });
    for (key, value) in changed {
        row[key] = value.clone();
    }
    row
}

fn read_row(changed: &[(&str, serde_json::Value)]) -> Option<Record> {
    let body = serde_json::json!({ "queries": [row(changed)], "cursor": 175_881 }).to_string();
    query_page(body.as_bytes(), "pihole").unwrap().records.pop()
}

#[test]
fn a_row_is_an_exchange() {
    let Record { time, dns } = read_row(&[]).unwrap();
    assert_eq!(time.micros(), 1_581_907_991_539_157);
    assert_eq!(dns.client.to_string(), "192.0.2.14");
    assert_eq!((dns.name.as_str(), dns.qtype, dns.rcode), ("community.example.io", 1, None));
    assert_eq!((dns.status.as_str(), dns.blocked_by.as_deref()), ("forwarded", None));
    assert_eq!((dns.upstream.as_deref(), dns.latency_us), (Some("192.0.2.53#5353"), Some(19_000)));
    assert_eq!(dns.source, "pihole");
}

#[test]
fn rows_of_other_kinds() {
    let blocked = read_row(&[
        ("status", "GRAVITY_CNAME".into()),
        ("cname", "track.example.net".into()),
        ("upstream", serde_json::Value::Null),
    ])
    .unwrap()
    .dns;
    assert_eq!(blocked.blocked_by.as_deref(), Some("gravity (CNAME) track.example.net"));
    assert_eq!((blocked.rcode, blocked.upstream), (None, None));
    let odd = read_row(&[("type", "TYPE65400".into()), ("reply", 5.into()), ("ede", "x".into())]);
    let odd = odd.unwrap().dns;
    assert_eq!((odd.qtype, odd.rcode, odd.latency_us), (65_400, None, None));
    let unknown = read_row(&[("status", "NEW_IN_2030".into())]).unwrap().dns;
    assert_eq!(unknown.status.as_str(), "unknown");
    let mapped = read_row(&[("client", serde_json::json!({"ip": "::ffff:192.0.2.9"}))]).unwrap();
    assert_eq!(mapped.dns.client.to_string(), "192.0.2.9");
    for wild in [-3.0, 1e9, 0.0] {
        let reply = serde_json::json!({"type": "NXDOMAIN", "time": wild});
        let dns = read_row(&[("reply", reply)]).unwrap().dns;
        assert_eq!((dns.rcode, dns.latency_us), (Some(3), None));
    }
    // Not readable: passed over, and the page tells so.
    assert_eq!(read_row(&[("time", "now".into())]), None);
    assert_eq!(read_row(&[("client", serde_json::json!({"ip": "pi.hole"}))]), None);
}

#[test]
fn a_page_knows_where_the_next_begins() {
    let rows: Vec<_> = [9, 5, 7].map(|id| row(&[("id", id.into())])).into();
    let body = serde_json::json!({ "queries": rows }).to_string();
    let page = query_page(body.as_bytes(), "x").unwrap();
    assert_eq!((page.seen, page.records.len(), page.oldest_id), (3, 3, Some(5)));
    let empty = query_page(br#"{"queries":[],"cursor":null}"#, "x").unwrap();
    assert_eq!(empty, QueryPage::default());
}

#[test]
fn errors_have_words() {
    let body = br#"{"error":{"key":"api_seats_exceeded","message":"API seats exceeded","hint":"increase webserver.api.max_sessions"},"took":0.1}"#;
    let (key, words) = error_words(body).unwrap();
    assert_eq!(key, "api_seats_exceeded");
    assert_eq!(words, "API seats exceeded (increase webserver.api.max_sessions)");
    assert_eq!(error_words(b"<html>"), None);
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop((session(&bytes), log_page(&bytes), query_page(&bytes, "x"), error_words(&bytes)));
        drop(devices(&bytes));
    }

    /// A good answer with one byte changed.
    #[test]
    fn nearly_good_answers_never_panic(at in 0usize..400, byte: u8) {
        let log = r#"{"log":[{"timestamp":1711199809.25,"message":"query[A] a.example from 192.0.2.1"}],"nextID":7,"pid":3}"#;
        let rows = serde_json::json!({ "queries": [row(&[])] }).to_string();
        let network = r#"{"devices":[{"hwaddr":"00:00:5e:00:53:01","interface":"eth0","ips":[{"ip":"192.0.2.7","name":"tv","lastSeen":1711199809}]}]}"#;
        for good in [log, rows.as_str(), network] {
            let mut body = good.as_bytes().to_vec();
            let at = at % body.len();
            body[at] = byte;
            if let Ok(page) = log_page(&body) {
                prop_assert!(page.lines.len() <= 1);
            }
            if let Ok(page) = query_page(&body, "x") {
                prop_assert!(page.records.len() <= page.seen);
            }
            drop((session(&body), error_words(&body), devices(&body)));
        }
    }
}
