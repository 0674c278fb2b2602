//! The running hub over real TLS and its real control socket.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::Body;
use agentmon_core::finding::Finding;
use agentmon_core::sample;
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::wire::{self, Batch, Health};
use agentmon_core::{Event, Timestamp};
use agentmon_router::forward::client::{HubClient, Refusal, Timeouts};
use agentmon_router::join::Join;
use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::client;
use crate::config::{Config, Place};
use crate::control::{Reply, Request};
use crate::serve::Hub;

fn config() -> Config {
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    config
}

fn start(dir: &Path, config: Config) -> Hub {
    let place = Place { data_dir: dir.to_owned(), config_file: None };
    Hub::start(config, place, Arc::new(SystemClock), None).unwrap()
}

fn now() -> Timestamp {
    SystemClock.wall()
}

fn dns(name: &str) -> Event {
    Event { time: now(), body: Body::Dns(sample::dns("192.0.2.9", name, &[])) }
}

fn batch(epoch: u64, first_seq: u64, events: &[Event]) -> Vec<u8> {
    let events = events.iter().map(wire::encode_event).collect();
    let batch = Batch { epoch, first_seq, events, health: Health::default(), sent: now() };
    wire::encode_batch(&batch).unwrap()
}

fn join(hub: &Hub, name: &str) -> Join {
    Join::decode(&hub.enroll(name, None).unwrap()).unwrap()
}

fn sensor(join: &Join) -> HubClient {
    HubClient::new(join, Timeouts::default()).unwrap()
}

/// All rows a request is answered with.
fn ask(dir: &Path, request: &Request) -> anyhow::Result<Vec<Vec<Value>>> {
    let mut rows = Vec::new();
    client::ask(dir, request, &mut |reply| {
        if let Reply::Row { values } = reply {
            rows.push(values);
        }
        Ok(())
    })?;
    Ok(rows)
}

fn query(dir: &Path, sql: &str) -> Value {
    let request =
        Request::Query { sql: sql.into(), params: vec![], timeout_ms: 10_000, untrusted: true };
    ask(dir, &request).unwrap()[0][0].clone()
}

/// A POST by hand: status, `Retry-After`, the reason.
fn post(join: &Join, token: &str, kind: &str, body: &[u8]) -> (u16, Option<String>, String) {
    let certificate = Certificate::from_pem(join.ca_pem.as_bytes()).unwrap();
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[certificate])).build();
    let agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .new_agent();
    let request = agent.post(format!("{}/v1/ingest", join.url)).header("content-type", kind);
    let request = if token.is_empty() {
        request
    } else {
        request.header("authorization", format!("Bearer {token}"))
    };
    let mut response = request.send(body).unwrap();
    let after = response.headers().get("retry-after").map(|h| h.to_str().unwrap().to_owned());
    let text = response.body_mut().read_to_string().unwrap();
    let reason: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let reason = reason.get("error").and_then(Value::as_str).unwrap_or(&text).to_owned();
    (response.status().as_u16(), after, reason)
}

#[test]
fn a_sensor_enrols_sends_and_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), config());
    let client = sensor(&join(&hub, "attic"));
    assert_eq!(client.hello().unwrap().sensor, "attic");
    let body = batch(7, 5, &[dns("a.example"), dns("b.example")]);
    let ack = client.ingest(&body).unwrap();
    assert_eq!((ack.epoch, ack.acked), (7, 6));
    assert_eq!(client.ingest(&body).unwrap().acked, 6, "the answer was lost, it asks again");
    assert_eq!(query(dir.path(), "SELECT count(*) FROM dns"), 2);
    assert_eq!(query(dir.path(), "SELECT name || ' ' || address FROM sensors"), "attic 127.0.0.1");
    // Health alone.
    assert_eq!(client.ingest(&batch(7, 7, &[])).unwrap().acked, 6);
    hub.stop().unwrap();
    // The same questions without a hub.
    assert_eq!(query(dir.path(), "SELECT count(*) FROM dns"), 2);
    assert!(!dir.path().join("control.sock").exists());
}

#[test]
fn who_is_not_enrolled_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), config());
    let good = join(&hub, "attic");
    let body = batch(1, 1, &[dns("a.example")]);
    let check = |token: &str, kind: &str, body: &[u8], status: u16, says: &str| {
        let (got, _, reason) = post(&good, token, kind, body);
        assert_eq!(got, status, "{reason}");
        assert!(reason.contains(says), "`{says}` is not in: {reason}");
    };
    check("", wire::CONTENT_TYPE, &body, 401, "enroll");
    check("wrong", wire::CONTENT_TYPE, &body, 401, "unknown token");
    check(&good.token, "text/plain", &body, 415, wire::CONTENT_TYPE);
    check(&good.token, wire::CONTENT_TYPE, b"nonsense", 400, "zstd");
    let empty_version = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x01, 0x00, 0x00];
    check(&good.token, wire::CONTENT_TYPE, &empty_version, 400, "version");
    ask(dir.path(), &Request::Revoke { name: "attic".into() }).unwrap();
    check(&good.token, wire::CONTENT_TYPE, &body, 403, "revoked");
    let renewed = join(&hub, "attic");
    check(&good.token, wire::CONTENT_TYPE, &body, 401, "renewed");
    assert_eq!(sensor(&renewed).ingest(&body).unwrap().acked, 1);
    assert_eq!(query(dir.path(), "SELECT count(*) FROM dns"), 1);
    std::thread::sleep(Duration::from_millis(1_500));
    let counted = "SELECT string_agg(name, ' ' ORDER BY name) FROM hub_counters";
    let expected =
        "refuse.malformed refuse.no_token refuse.revoked refuse.unknown_token refuse.wrong_type";
    assert_eq!(query(dir.path(), counted), expected);
}

#[test]
fn bombs_large_bodies_and_newer_versions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), config());
    let join = join(&hub, "attic");
    let check = |body: &[u8], status: u16, says: &str| {
        let (got, _, reason) = post(&join, &join.token, wire::CONTENT_TYPE, body);
        assert_eq!(got, status, "{reason}");
        assert!(reason.contains(says), "`{says}` is not in: {reason}");
    };
    // 512 MiB of zeros by hand: one frame of RLE blocks (RFC 8878 section 3.1.1.2).
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    for _ in 0..4_096 {
        bomb.extend([0x02, 0x00, 0x10, 0x00]);
    }
    check(&bomb, 413, "batch bytes");
    // Version 2 of the future: field 1 = 2, as a raw block.
    check(
        &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x11, 0x00, 0x00, 0x08, 0x02],
        426,
        "update the hub",
    );
    assert_eq!(query(dir.path(), "SELECT count(*) FROM ingest_cursor"), 0);
    // Larger than any batch: refused by its length, before it is read.
    assert!(
        raw_status(&join, &format!("content-length: {}", wire::BODY_BYTES_MAX + 1))
            .starts_with("HTTP/1.1 413")
    );
}

/// Sends a request head without a body and returns the status line.
fn raw_status(join: &Join, header: &str) -> String {
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(join.ca_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = join.url.strip_prefix("https://").unwrap();
    let tcp = std::net::TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(tls, tcp);
    write!(
        stream,
        "POST /v1/ingest HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {}\r\ncontent-type: {}\r\n{header}\r\n\r\n",
        join.token,
        wire::CONTENT_TYPE
    )
    .unwrap();
    let mut answer = vec![0; 64];
    let n = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..n]).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.server.request_seconds = 1;
    let hub = start(dir.path(), config);
    assert!(raw_status(&join(&hub, "attic"), "content-length: 100").starts_with("HTTP/1.1 408"));
}

#[test]
fn a_client_with_another_ca_does_not_talk_to_the_hub() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = start(dir.path(), config());
    let stranger = start(other.path(), config());
    let mut join = join(&hub, "attic");
    join.ca_pem = self::join(&stranger, "attic").ca_pem;
    match sensor(&join).hello() {
        Err(Refusal::Unreachable(why)) => assert!(why.contains("CA"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_ca_survives_a_restart_and_a_name_given_to_enroll_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), config());
    let joined = join(&hub, "attic");
    hub.stop().unwrap();
    let mut config = config();
    config.server.listen = joined.url.strip_prefix("https://").unwrap().parse().unwrap();
    let hub = start(dir.path(), config);
    assert_eq!(sensor(&joined).hello().unwrap().sensor, "attic");
    // Every address of 127/8 is this machine; 127.0.0.9 is in no certificate until named.
    let port = hub.address().port();
    let mut by_other = joined.clone();
    by_other.url = format!("https://127.0.0.9:{port}");
    assert!(sensor(&by_other).hello().is_err());
    drop(hub);
    let mut config = self::config();
    config.server.listen = format!("0.0.0.0:{port}").parse().unwrap();
    let hub = start(dir.path(), config);
    assert!(sensor(&by_other).hello().is_err(), "not in the certificate");
    let line = hub.enroll("cellar", Some("127.0.0.9")).unwrap();
    let cellar = Join::decode(&line).unwrap();
    assert_eq!(cellar.url, by_other.url);
    assert_eq!(sensor(&cellar).hello().unwrap().sensor, "cellar");
}

#[test]
fn connections_are_bounded_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.server.connections_max = 3;
    config.server.connections_per_address_max = 2;
    let hub = start(dir.path(), config);
    let join = join(&hub, "attic");
    let address = hub.address();
    let idle = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
    // Accepted by the kernel, closed by the hub.
    let refused = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        matches!(sensor(&join).hello(), Err(Refusal::Unreachable(_)))
    });
    assert!(refused);
    drop(idle);
    let served = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        sensor(&join).hello().is_ok()
    });
    assert!(served);
}

#[test]
fn commands_work_with_and_without_a_hub() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let commands = |running: bool| {
        let line = ask(path, &Request::Enroll { name: "attic".into(), address: None }).unwrap();
        let join = Join::decode(line[0][0].as_str().unwrap()).unwrap();
        assert_eq!(join.name, "attic");
        let finding = Finding {
            rule: "dga".into(),
            subject: "bad.example".into(),
            client: None,
            mac: None,
            score: 0.5,
            why: "test".into(),
            evidence: vec![],
        };
        let epoch = u64::from(running);
        let events = [dns("a.example"), Event { time: now(), body: Body::Finding(finding) }];
        let body = batch(epoch, 1, &events);
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(body);
        let import = Request::Import { name: "old-log".into(), batch: body };
        let count = |request: &Request| {
            let mut count = None;
            client::ask(path, request, &mut |reply| {
                if let Reply::Done { count: n, .. } = reply {
                    count = Some(n);
                }
                Ok(())
            })
            .unwrap();
            count
        };
        assert_eq!(count(&import), Some(2));
        assert_eq!(count(&import), Some(0), "imported before");
        let ack = |id, undo| count(&Request::Ack { id, note: Some("known".into()), undo });
        assert_eq!(ack(1, false), Some(1));
        assert_eq!(query(path, "SELECT status || ' ' || ack_note FROM alerts"), "acked known");
        assert_eq!(ack(1, true), Some(1));
        assert_eq!(query(path, "SELECT status FROM alerts"), "open");
        assert_eq!(ack(99, false), Some(0));
        let clash = Request::Import { name: "attic".into(), batch: String::new() };
        assert!(ask(path, &clash).is_err());
        assert!(
            ask(path, &Request::Revoke { name: "nobody".into() })
                .unwrap_err()
                .to_string()
                .contains("nobody")
        );
        assert_eq!(ask(path, &Request::Status).unwrap()[0][0], Value::Bool(running));
        let error = ask(path, &Request::Reload).unwrap_err().to_string();
        assert!(error.contains("nothing to re"), "{error}");
        let untrusted = Request::Query {
            sql: "DROP TABLE dns".into(),
            params: vec![],
            timeout_ms: 1,
            untrusted: true,
        };
        assert!(ask(path, &untrusted).unwrap_err().to_string().contains("refused"));
    };
    drop(start(path, config()));
    commands(false);
    let hub = start(path, config());
    commands(true);
    assert_eq!(query(path, "SELECT count(*) FROM dns"), 2);
    hub.stop().unwrap();
}

#[test]
fn a_bad_new_configuration_is_refused_and_the_old_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hub.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("[server]\nlisten = '127.0.0.1:2'\n");
    let place = Place { data_dir: dir.path().join("data"), config_file: Some(file.clone()) };
    // As with --listen: another port than the file says.
    let mut config = Config::load(&file).unwrap();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    let hub = Hub::start(config, place.clone(), Arc::new(SystemClock), None).unwrap();
    let joined = join(&hub, "attic");
    let reload = || ask(&place.data_dir, &Request::Reload).map(drop).map_err(|e| e.to_string());
    write("[server]\nlisten = '127.0.0.1:2'\nnames = ['a b']\n");
    assert!(reload().unwrap_err().contains("hub.toml:3"));
    write("[server]\nlisten = '127.0.0.1:1'\n");
    assert!(reload().unwrap_err().contains("server.listen"));
    assert_eq!(join(&hub, "attic2").url, joined.url, "nothing has changed");
    write("[server]\nlisten = '127.0.0.1:2'\nnames = ['hub.example']\n");
    reload().unwrap();
    let port = hub.address().port();
    assert_eq!(join(&hub, "attic3").url, format!("https://hub.example:{port}"));
    assert_eq!(sensor(&joined).hello().unwrap().sensor, "attic", "the old address still works");
}

#[test]
fn a_second_hub_and_a_taken_port_fail_with_the_cause() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = start(dir.path(), config());
    let mut config = config();
    config.server.listen = hub.address();
    let place = Place { data_dir: other.path().to_owned(), config_file: None };
    let error = Hub::start(config.clone(), place.clone(), Arc::new(SystemClock), None).unwrap_err();
    assert!(format!("{error:#}").contains("server.listen"), "{error:#}");
    config.server.ingests_max = 0;
    let error = Hub::start(config, place, Arc::new(SystemClock), None).unwrap_err();
    assert!(error.to_string().contains("server.ingests_max"), "{error}");
}

/// What a router gets of lists: by its token, by entity tag, whole.
#[test]
fn routers_fetch_lists_by_tag() {
    use agentmon_core::tier0::blocklist::{Blocklist, Footer};
    use agentmon_router::forward::client::Fetched;
    let (dir, texts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = texts.path().join("ads.txt");
    std::fs::write(&path, "0.0.0.0 ads.example\n203.0.113.0/24\n").unwrap();
    let mut config = config();
    let source = crate::feeds::Source { name: "ads".into(), path, ..Default::default() };
    config.lists.sources.push(source);
    let hub = start(dir.path(), config);
    let good = join(&hub, "attic");
    let client = sensor(&good);
    let mut form = Vec::new();
    for _ in 0..600 {
        form.clear();
        match client.lists(&[], 1 << 20, &mut form).unwrap() {
            Fetched::Whole => break,
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    let checksum = Footer::parse(&form).unwrap().checksum();
    let lists = Blocklist::open(Arc::new(form)).unwrap();
    assert!(lists.lookup(&"x.ads.example".parse().unwrap()).is_some());
    assert!(lists.lookup_address("203.0.113.9".parse().unwrap(), None).is_some());
    let mut none = Vec::new();
    let fetch = |known: &[u64], most, out: &mut Vec<u8>| client.lists(known, most, out);
    assert_eq!(fetch(&[checksum], 1 << 20, &mut none), Ok(Fetched::Unchanged));
    assert_eq!(fetch(&[7, checksum], 1 << 20, &mut none), Ok(Fetched::Unchanged));
    assert_eq!(fetch(&[7], 1 << 20, &mut none), Ok(Fetched::Whole));
    assert_eq!(fetch(&[], 1_000, &mut none), Err(Refusal::TooLarge));
    let stranger = Join { token: "wrong".into(), ..good };
    let refused = sensor(&stranger).lists(&[], 1 << 20, &mut Vec::new());
    assert!(matches!(refused, Err(Refusal::Token(_))), "{refused:?}");
    // The account of it, with and without a hub.
    let feeds = || ask_all(dir.path(), &Request::Feeds);
    assert_eq!((feeds()[0][0].as_str(), feeds()[0][3].as_u64()), (Some("ads"), Some(2)));
    hub.stop().unwrap();
    assert_eq!(feeds()[0][0], "ads");
    assert!(ask(dir.path(), &Request::AcceptFeed { name: "nobody".into() }).is_err());
}

fn ask_all(dir: &Path, request: &Request) -> Vec<Vec<Value>> {
    ask(dir, request).unwrap()
}

/// Patiently, until it is so; it stays so.
#[track_caller]
fn wait_until(so: impl Fn() -> bool) {
    for _ in 0..600 {
        if so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("it never became so");
}

/// Of the object `detect` in the hub's status.
fn detect(dir: &Path, pointer: &str) -> Value {
    let mut columns = Vec::new();
    let mut found = Value::Null;
    client::ask(dir, &Request::Status, &mut |reply| {
        match reply {
            Reply::Columns { names, .. } => columns = names,
            Reply::Row { values } => {
                let at = columns.iter().position(|name| name == "detect").unwrap();
                found = values[at].pointer(pointer).cloned().unwrap_or(Value::Null);
            }
            _ => {}
        }
        Ok(())
    })
    .unwrap();
    found
}

#[test]
fn the_hubs_detectors_judge_what_sensors_send_and_status_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.detect.round_seconds = 1;
    // One question an hour is a beacon too.
    config.detect.beacon.enabled = false;
    let hub = start(dir.path(), config);
    let client = sensor(&join(&hub, "attic"));
    // Nine days of one device, up to an hour ago.
    let known = |hours: u64| {
        let time = now().minus(Duration::from_secs(hours * 3_600));
        Event { time, ..dns("www.known.example") }
    };
    let events: Vec<_> = (1..=216).rev().map(known).collect();
    client.ingest(&batch(7, 1, &events)).unwrap();
    wait_until(|| query(dir.path(), "SELECT count(*) > 0 FROM habits") == true);
    client.ingest(&batch(7, 217, &[dns("cdn.known.example"), dns("www.fresh.example")])).unwrap();
    let told = "SELECT coalesce(max(concat_ws(' ', rule, subject, client)), '') FROM alerts";
    wait_until(|| query(dir.path(), told) == "new-domain fresh.example 192.0.2.9");
    assert_eq!(query(dir.path(), "SELECT count(*) FROM alerts"), 1);
    // The board is written after the commit that the query saw.
    wait_until(|| detect(dir.path(), "/detectors/baseline/findings") == 1);
    assert_eq!(detect(dir.path(), "/detectors/baseline/errors"), 0);
    wait_until(|| detect(dir.path(), "/rounds").as_u64() > Some(2));
    hub.stop().unwrap();
}
