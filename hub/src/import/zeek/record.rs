//! What a record says: a connection, a DNS exchange, or a name said in a connection.
//!
//! In: [`Record`]s of one [`Kind`] of log. Out: rows and events. Pure. Missing fields leave
//! what can be left out; a record without time, uid or addresses is [`Bad`].

use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::event::{
    ANSWERS_MAX, Answer, Body, Dns, DnsStatus, Endpoint, Flow, FlowPhase, TEXT_BYTES_MAX, Volume,
};
use agentmon_core::name::{Name, printable};
use agentmon_core::{Event, Timestamp};

use super::mime;
use super::read::{Bad, Record};
use crate::import::epoch;
use crate::store::zeek::{Conn, MIME, SIGN, Said};

/// Longest uid; Zeek's have about 18 characters.
const UID_BYTES_MAX: usize = 64;
/// Longest name with its port.
const HOST_BYTES_MAX: usize = 300;
/// 10000-01-01: nothing was seen after.
const SECONDS_MAX: i64 = 253_402_300_800;

/// The logs that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Names first: they explain the connections that follow.
    Dns,
    /// Connections still open when the log was written.
    OpenConn,
    /// Connections that are over.
    Conn,
    /// TLS.
    Ssl,
    /// HTTP.
    Http,
}

impl Kind {
    /// By Zeek's word for the log.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        Some(match path {
            "dns" => Self::Dns,
            "conn" => Self::Conn,
            "open_conn" => Self::OpenConn,
            "ssl" | "open_ssl" => Self::Ssl,
            "http" | "open_http" => Self::Http,
            _ => return None,
        })
    }
}

/// What a record became.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A connection: its row, and the flow it is to all others.
    Conn(String, Conn, Box<Event>),
    /// A DNS exchange.
    Dns(Box<Event>),
    /// Names said, and what else was, under them.
    Said(Vec<Said>),
    /// Nothing of interest, such as TLS without a name.
    Nothing,
}

/// Reads a record of that kind.
///
/// # Errors
/// Why it is none.
pub fn item(kind: Kind, record: &Record<'_>) -> Result<Item, Bad> {
    match kind {
        Kind::Conn => conn(record, false),
        Kind::OpenConn => conn(record, true),
        Kind::Dns => dns(record),
        Kind::Ssl => {
            let signature = record.text("ja3");
            let name = record.text("server_name");
            Ok(said(uid(record)?, name.as_deref(), "tls", signature.as_deref(), false))
        }
        Kind::Http => {
            let (method, host, agent) =
                (record.text("method"), record.text("host"), record.text("user_agent"));
            let (uid, other) = (uid(record)?, mime::is_other(record));
            let (name, source) = match (method.as_deref(), host.as_deref()) {
                (Some("CONNECT"), host) => (host, "proxy"),
                // A request that does not say whom it is for; a response alone is none.
                (Some(_), None) => (Some(""), "nohost"),
                (_, host) => (host, "http"),
            };
            Ok(said(uid, name, source, agent.as_deref(), other))
        }
    }
}

fn uid(record: &Record<'_>) -> Result<String, Bad> {
    let uid = record.text("uid").ok_or(Bad::Uid)?;
    let plain = uid.len() <= UID_BYTES_MAX && uid.bytes().all(|b| b.is_ascii_graphic());
    plain.then(|| uid.into_owned()).ok_or(Bad::Uid)
}

/// `other`: its answer was of another type than asked for.
fn said(
    uid: String,
    name: Option<&str>,
    source: &str,
    signature: Option<&str>,
    other: bool,
) -> Item {
    let Some(name) = name.filter(|name| name.len() <= HOST_BYTES_MAX) else {
        return Item::Nothing;
    };
    let name = printable(name.as_bytes(), HOST_BYTES_MAX);
    let said = |source: String| Said { uid: uid.clone(), name: name.clone(), source };
    let mut all = vec![said(source.to_owned())];
    all.extend(other.then(|| said(MIME.to_owned())));
    // Only whether two are the same matters.
    all.extend(signature.map(|text| said(format!("{SIGN}{:016x}", epoch(&[text.as_bytes()])))));
    Item::Said(all)
}

/// Microseconds since 1970 of `1706736752.422947` or of an ISO 8601 date.
#[must_use]
pub fn time(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let Ok(seconds) = seconds.parse::<i64>() else {
        let micros = text.parse::<jiff::Timestamp>().ok()?.as_microsecond();
        return (0..SECONDS_MAX * 1_000_000).contains(&micros).then_some(micros);
    };
    if !(0..SECONDS_MAX).contains(&seconds) || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = digits.fold(0, |n, d| n * 10 + i64::from(d - b'0'));
    Some(seconds * 1_000_000 + micros)
}

struct Ends {
    time_us: i64,
    src: Endpoint,
    dst: Endpoint,
}

fn ends(record: &Record<'_>) -> Result<Ends, Bad> {
    let time_us = record.text("ts").and_then(|t| time(&t)).ok_or(Bad::Time)?;
    let address = |key: &str| {
        let ip = record.text(key).and_then(|ip| ip.parse::<IpAddr>().ok()).ok_or(Bad::Address)?;
        Ok(ip.to_canonical())
    };
    let port = |key: &str| record.count(key).and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
    let end = |ip: &str, p: &str| Ok(Endpoint::new(address(ip)?, port(p)));
    let (src, dst) = (end("id.orig_h", "id.orig_p")?, end("id.resp_h", "id.resp_p")?);
    Ok(Ends { time_us, src, dst })
}

fn conn(record: &Record<'_>, open: bool) -> Result<Item, Bad> {
    let Ends { time_us, src, dst } = ends(record)?;
    let uid = uid(record)?;
    let proto = match record.text("proto").as_deref() {
        Some("tcp") => 6,
        Some("udp") => 17,
        Some("icmp") if src.ip.is_ipv6() => 58,
        Some("icmp") => 1,
        _ => 0,
    };
    // IP bytes; where this Zeek does not count them, what is inside.
    let bytes = |ip: &str, inner: &str| record.count(ip).or_else(|| record.count(inner));
    let conn = Conn {
        time_us,
        proto,
        src: src.ip,
        sport: src.port,
        dst: dst.ip,
        dport: dst.port,
        service: record.text("service").map(|s| printable(s.as_bytes(), TEXT_BYTES_MAX)),
        duration: record.seconds("duration").unwrap_or(0.0),
        bytes_out: bytes("orig_ip_bytes", "orig_bytes").unwrap_or(0),
        bytes_in: bytes("resp_ip_bytes", "resp_bytes").unwrap_or(0),
        open,
    };
    let packets = |key: &str| record.count(key).unwrap_or(0);
    let volume = Volume {
        bytes_out: conn.bytes_out,
        bytes_in: conn.bytes_in,
        packets_out: packets("orig_pkts"),
        packets_in: packets("resp_pkts"),
    };
    let flow = Box::new(flow(&uid, &conn, volume));
    Ok(Item::Conn(uid, conn, flow))
}

fn flow(uid: &str, conn: &Conn, volume: Volume) -> Event {
    let start = Timestamp::from_micros(conn.time_us);
    // What Zeek has as ports of ICMP are type and code.
    let port = |port: u16| if matches!(conn.proto, 1 | 58) { 0 } else { port };
    let lasted = Duration::try_from_secs_f64(conn.duration).unwrap_or_default();
    let lasted = lasted.min(Duration::from_secs(366 * 86_400));
    let flow = Flow {
        id: epoch(&[b"zeek-flow", uid.as_bytes()]),
        phase: if conn.open { FlowPhase::Update } else { FlowPhase::End },
        proto: conn.proto,
        src: Endpoint::new(conn.src, port(conn.sport)),
        dst: Endpoint::new(conn.dst, port(conn.dport)),
        nat_src: None,
        nat_dst: None,
        start: Some(start),
        duration_ms: u64::try_from(lasted.as_millis()).ok(),
        volume: Some(volume),
        tcp_state: None,
        replied: volume.packets_in > 0 || volume.bytes_in > 0,
        offloaded: false,
        iface: None,
        mac: None,
        resolved: None,
    };
    Event { time: start.plus(lasted), body: Body::Flow(flow) }
}

fn dns(record: &Record<'_>) -> Result<Item, Bad> {
    let Ends { time_us, src, dst } = ends(record)?;
    let Some(query) = record.text("query") else { return Ok(Item::Nothing) };
    let name = Name::parse(query.as_bytes()).map_err(|_| Bad::Name)?;
    let small = |key: &str| record.count(key).and_then(|n| u16::try_from(n).ok());
    let rcode = small("rcode");
    let ttls = record.list("TTLs").into_iter().filter_map(|t| t.parse::<f64>().ok());
    let ttl = ttls.filter(|t| (0.0..4_294_967_296.0).contains(t)).reduce(f64::min);
    let latency = record.seconds("rtt").map(|s| (s * 1e6).min(f64::from(u32::MAX)) as u32);
    let dns = Dns {
        client: src.ip,
        mac: None,
        name,
        qtype: small("qtype").unwrap_or(0),
        status: if rcode.is_some() { DnsStatus::Forwarded } else { DnsStatus::Unknown },
        rcode,
        answers: record.list("answers").iter().take(ANSWERS_MAX).map(|a| answer(a)).collect(),
        ttl: ttl.map(|t| t as u32),
        upstream: Some(dst.ip.to_string()),
        latency_us: latency,
        blocked_by: None,
        source: "zeek".to_owned(),
    };
    let event = Event { time: Timestamp::from_micros(time_us), body: Body::Dns(dns) };
    Ok(Item::Dns(Box::new(event)))
}

/// Zeek writes addresses and names of a chain as they are, others with their type before.
fn answer(text: &str) -> Answer {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Answer::Address(ip.to_canonical());
    }
    match Name::parse(text.as_bytes()) {
        Ok(name) if !text.contains(' ') => Answer::Cname(name),
        _ => Answer::Other(printable(text.as_bytes(), TEXT_BYTES_MAX / 4)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::{Header, record};
    use super::*;

    #[track_caller]
    fn read(kind: Kind, json: &str) -> Result<Item, Bad> {
        let mut header = Header::default();
        let record = record(&mut header, json.as_bytes()).unwrap().unwrap();
        item(kind, &record)
    }

    const CONN: &str = r#"{"ts":1706736752.422947,"uid":"C1","id.orig_h":"192.168.7.2","id.orig_p":50000,"id.resp_h":"203.0.113.9","id.resp_p":443,"proto":"tcp","service":"ssl","duration":1.5,"orig_bytes":10,"resp_bytes":20,"orig_pkts":1,"orig_ip_bytes":50,"resp_pkts":1,"resp_ip_bytes":60}"#;

    #[test]
    fn times() {
        for (text, expected) in [
            ("1706736752.422947", Some(1_706_736_752_422_947)),
            ("22.3", Some(22_300_000)),
            ("7", Some(7_000_000)),
            ("2024-01-31T21:32:32.422947Z", Some(1_706_736_752_422_947)),
            ("-1.0", None),
            ("1.5e300", None),
            ("999999999999999", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
    }

    #[test]
    fn a_connection_is_a_row_and_a_flow() {
        let Item::Conn(uid, conn, event) = read(Kind::Conn, CONN).unwrap() else { panic!() };
        assert_eq!((uid.as_str(), conn.bytes_out, conn.bytes_in, conn.open), ("C1", 50, 60, false));
        let Body::Flow(flow) = &event.body else { panic!() };
        assert_eq!(
            (flow.phase, flow.duration_ms, flow.dst.port),
            (FlowPhase::End, Some(1_500), 443)
        );
        assert_eq!(event.time, Timestamp::from_micros(1_706_736_753_922_947));
        let Item::Conn(_, conn, event) = read(Kind::OpenConn, CONN).unwrap() else { panic!() };
        let Body::Flow(update) = &event.body else { panic!() };
        assert_eq!((conn.open, update.phase, update.id), (true, FlowPhase::Update, flow.id));
    }

    #[test]
    fn missing_fields_are_left_out_or_make_it_bad() {
        let bare = r#"{"ts":7,"uid":"C1","id.orig_h":"192.168.7.2","id.resp_h":"203.0.113.9","orig_bytes":10}"#;
        let Item::Conn(_, conn, _) = read(Kind::Conn, bare).unwrap() else { panic!() };
        assert_eq!((conn.bytes_out, conn.duration, conn.dport, conn.service), (10, 0.0, 0, None));
        for (from, to, why) in [
            (r#""ts":7"#, r#""t":7"#, Bad::Time),
            (r#""uid":"C1""#, r#""uid":"a b""#, Bad::Uid),
            ("192.168.7.2", "192.168.7", Bad::Address),
        ] {
            assert_eq!(read(Kind::Conn, &bare.replace(from, to)), Err(why));
        }
    }

    #[test]
    fn names_said() {
        let said = |kind, json: &str| match read(kind, json).unwrap() {
            Item::Said(all) => all.into_iter().next().map(|said| (said.name, said.source)),
            Item::Nothing => None,
            other => panic!("{other:?}"),
        };
        let expect = |name: &str, source: &str| Some((name.to_owned(), source.to_owned()));
        let tls = r#"{"uid":"C1","server_name":"api.example"}"#;
        assert_eq!(said(Kind::Ssl, tls), expect("api.example", "tls"));
        assert_eq!(said(Kind::Ssl, r#"{"uid":"C1"}"#), None);
        let http = r#"{"uid":"C1","method":"GET","host":"api.example:8000","uri":"/"}"#;
        assert_eq!(said(Kind::Http, http), expect("api.example:8000", "http"));
        let proxy =
            r#"{"uid":"C1","method":"CONNECT","host":"api.example","uri":"api.example:443"}"#;
        assert_eq!(said(Kind::Http, proxy), expect("api.example", "proxy"));
        assert_eq!(said(Kind::Http, r#"{"uid":"C1","method":"GET"}"#), expect("", "nohost"));
        assert_eq!(said(Kind::Http, r#"{"uid":"C1","status_code":200}"#), None);
        let hostile = "{\"uid\":\"C1\",\"server_name\":\"a\\u001b[2J\"}";
        assert_eq!(said(Kind::Ssl, hostile), expect("a\\x1b[2J", "tls"));
    }

    #[test]
    fn what_else_was_said_under_a_name() {
        let sources = |json: &str| match read(Kind::Http, json).unwrap() {
            Item::Said(all) => all.into_iter().map(|said| said.source).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let request = r#"{"uid":"C1","method":"GET","host":"a.example","uri":"/a.js","user_agent":"curl","resp_mime_types":["text/html"]}"#;
        let told = sources(request);
        assert_eq!(told.get(..2), Some(&["http".to_owned(), MIME.to_owned()][..]));
        assert!(told[2].starts_with(SIGN), "{told:?}");
        assert_eq!(sources(&request.replace("a.js", "a.html").replace("curl", "")), ["http"]);
    }

    #[test]
    fn an_exchange_has_its_answers() {
        let json = r#"{"ts":7.5,"uid":"C1","id.orig_h":"192.168.7.2","id.resp_h":"192.168.7.1","query":"WWW.example","qtype":1,"rcode":0,"rtt":0.007,"answers":["cdn.example.net","203.0.113.9","TXT 5 a b"],"TTLs":[60.0,5.0,9.0]}"#;
        let Item::Dns(event) = read(Kind::Dns, json).unwrap() else { panic!() };
        let Body::Dns(dns) = event.body else { panic!() };
        assert_eq!(
            (dns.name.as_str(), dns.ttl, dns.latency_us),
            ("www.example", Some(5), Some(7_000))
        );
        assert_eq!(dns.addresses().count(), 1);
        assert!(matches!(dns.answers.as_slice(), [Answer::Cname(_), _, Answer::Other(_)]));
    }

    proptest::proptest! {
        /// Whatever stands in the fields: an item of bounded size, or why not.
        #[test]
        fn any_values_are_read_or_refused(values in proptest::collection::vec(".{0,400}", 6)) {
            let keys = ["host", "server_name", "query", "service", "duration", "method"];
            let mut map = serde_json::Map::new();
            for (key, value) in keys.iter().zip(&values) {
                map.insert((*key).to_owned(), value.as_str().into());
            }
            for (key, value) in
                [("ts", "7.5"), ("uid", "C1"), ("id.orig_h", "192.0.2.1"), ("id.resp_h", "::1")]
            {
                map.insert(key.to_owned(), value.into());
            }
            let record = Record::Json(map);
            for kind in [Kind::Conn, Kind::OpenConn, Kind::Dns, Kind::Ssl, Kind::Http] {
                let Ok(Item::Said(all)) = item(kind, &record) else { continue };
                for said in all {
                    proptest::prop_assert!(said.name.len() <= HOST_BYTES_MAX * 4);
                    proptest::prop_assert!(said.name.bytes().all(|b| (b' '..=b'~').contains(&b)));
                }
            }
        }
    }
}
