//! The router on the bus: a whole router in this process against the test ubusd, with all
//! that can go wrong between them.
//!
//! Events come from files through the replay collector; nothing here needs the kernel.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_router::config::Config;
use agentmon_router::supervisor::{self, RouterHandle};
use agentmon_router::ubus::blob::Writer;
use agentmon_router::ubus::message::{Header, MESSAGE_BYTES_MAX, Status, attr, frame, kind};
use agentmon_tests::lab::wait::{eventually, patience, want};
use agentmon_tests::ubusd::{Acl, Client, Ubusd};
use serde_json::{Map, Value, json};

/// 2026-11-18 in nanoseconds.
const T: u64 = 1_795_000_000_000_000_000;

/// A folder with a bus socket, a file of events, and a router's state.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("ubus.sock")
    }

    fn ubusd(&self) -> Ubusd {
        Ubusd::start(&self.socket(), Acl::default()).unwrap()
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    /// Only `replay` and the bus.
    fn config(&self, name: &str, more: &str) -> Config {
        let dir = self.dir.path();
        let events = dir.join(format!("{name}.ndjson"));
        let socket = self.socket();
        let mut text = format!("state_dir = \"{}\"\n", dir.join(name).display());
        for off in ["conntrack", "firewall", "passive_dns", "dnsmasq_log", "leases", "neighbours"] {
            text += &format!("[collect.{off}]\nenabled = false\n");
        }
        text += &format!("[collect.replay]\nenabled = true\npath = \"{}\"\n", events.display());
        text += &format!("[ubus]\nsocket = \"{}\"\n{more}\n", socket.display());
        Config::parse(&text).unwrap()
    }

    fn router(&self, events: &[Value]) -> RouterHandle {
        self.write(events);
        supervisor::start(self.config("router", "")).unwrap()
    }

    fn write(&self, events: &[Value]) {
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        std::fs::write(self.dir.path().join("router.ndjson"), lines).unwrap();
    }

    fn published(&self, router: &RouterHandle) {
        state(router, "ok: object agentmon");
    }
}

/// Waits for the bus's state line.
#[track_caller]
fn state(router: &RouterHandle, begins: &str) {
    eventually(20.0, "the state of the bus", || {
        let state = router.status().ubus;
        want(state.starts_with(begins), || format!("{state}; want {begins}"))
    });
}

fn finding(n: u64, subject: &str, score: f64) -> Value {
    json!({
        "time_ns": T + n * 1_000_000, "kind": "finding", "rule": "blocklist",
        "subject": subject, "client": "192.168.1.7", "score": score,
        "why": format!("asked for {subject}"), "evidence": [["list", "malware"]],
    })
}

fn home() -> Vec<Value> {
    let end = |ip: &str, port: u16| json!({ "ip": ip, "port": port });
    vec![
        json!({
            "time_ns": T, "kind": "device", "mac": "00:00:5e:00:53:07", "ip": "192.168.1.7",
            "hostname": "laptop", "source": "lease",
        }),
        json!({
            "time_ns": T + 1, "kind": "dns", "client": "192.168.1.7", "name": "www.example.com",
            "qtype": 1, "status": "forwarded", "source": "dnsmasq-log",
            "answers": [{ "address": "203.0.113.1" }],
        }),
        json!({
            "time_ns": T + 2, "kind": "flow", "id": 7, "proto": 6, "phase": "end",
            "src": end("192.168.1.7", 40_000), "dst": end("203.0.113.1", 443),
            "volume": { "bytes_out": 100, "bytes_in": 900, "packets_out": 1, "packets_in": 1 },
        }),
        finding(3, "evil.example", 0.8),
    ]
}

#[track_caller]
fn call(client: &mut Client, method: &str, arguments: Value) -> Map<String, Value> {
    let answer = client.call("agentmon", method, &arguments).unwrap();
    answer.unwrap_or_else(|status| panic!("{method}: {status:?}"))
}

#[test]
fn the_object_answers_what_its_page_asks() {
    let place = Place::new();
    let _ubusd = place.ubusd();
    let router = place.router(&home());
    place.published(&router);
    let mut client = place.client();
    let listed = client.list(Some("agentmon")).unwrap().remove(0);
    assert_eq!(listed.methods["ack"], json!({ "id": 3, "note": 3 }));
    let alerts = eventually(10.0, "the finding is an alert", || {
        let answer = call(&mut client, "alerts", json!({ "limit": 5 }));
        want(answer["total"] == 1, || format!("{answer:?}")).map(|()| answer)
    });
    let alert = &alerts["alerts"][0];
    assert_eq!((&alert["device"], &alert["severity"]), (&json!("laptop"), &json!("high")));
    assert_eq!(alert["evidence"], json!(["list: malware"]));
    assert_eq!((&alert["why"], &alert["acked"]), (&json!("asked for evil.example"), &json!(false)));
    let acked = call(&mut client, "ack", json!({ "id": alert["id"], "note": "known" }));
    assert_eq!(Value::Object(acked), json!({ "acked": true }));
    assert_eq!(call(&mut client, "alerts", json!({ "open": true }))["total"], 0);
    let devices = call(&mut client, "devices", json!({}));
    let laptop = &devices["devices"][0];
    assert_eq!((&laptop["queries"], &laptop["bytes"]), (&json!(1), &json!(1_000)));
    assert_eq!(laptop["mac"], "00:00:5e:00:53:07");
    let flows = call(&mut client, "flows", json!({ "device": "laptop" }));
    assert_eq!(
        (&flows["flows"][0]["name"], &flows["flows"][0]["state"]),
        (&json!("www.example.com"), &json!("closed"))
    );
    let status = call(&mut client, "status", json!({}));
    assert_eq!(status["top_talkers"][0]["bytes"], 1_000);
    assert_eq!(
        (&status["hub"]["state"], &status["ubus"]["state"]),
        (&json!("not_joined"), &json!("ok"))
    );
    assert_eq!(status["events_per_s"].as_array().unwrap().len(), 60);
    assert!(status["resources"]["rss_bytes"].as_i64().unwrap() > 1_000_000);
    let collectors = call(&mut client, "sensors", json!({}));
    let replay = &collectors["collectors"][0];
    assert_eq!(
        (&replay["name"], &replay["state"], &replay["events"]),
        (&json!("replay"), &json!("done"), &json!(4))
    );
    assert_eq!(collectors["collectors"][1], json!({ "name": "conntrack", "state": "off" }));
    let score = call(&mut client, "score", json!({ "name": "xjwqkzvbtrpfhgd.example" }));
    assert_eq!(score["findings"][0]["rule"], "dga");
    let refused = client.call("agentmon", "reload", &json!({})).unwrap();
    assert_eq!(refused, Err(Status::NotSupported), "this process reads no configuration");
    assert_eq!(client.call("agentmon", "x", &json!({})).unwrap(), Err(Status::MethodNotFound));
}

#[test]
fn a_reload_is_asked_for_where_somebody_does_it() {
    let place = Place::new();
    let _ubusd = place.ubusd();
    let router = place.router(&[]);
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let hook = std::sync::Arc::clone(&asked);
    router.on_reload(move || hook.store(true, std::sync::atomic::Ordering::SeqCst));
    place.published(&router);
    let mut client = place.client();
    assert_eq!(call(&mut client, "reload", json!({}))["reloading"], true);
    assert!(asked.load(std::sync::atomic::Ordering::SeqCst));
    router.refused(&anyhow::anyhow!("router.toml:3: `ring.bytes`: no"));
    let status = call(&mut client, "status", json!({}));
    assert_eq!(status["config"]["error"], "router.toml:3: `ring.bytes`: no");
}

#[test]
fn an_alert_is_told_to_who_listens() {
    let place = Place::new();
    let _ubusd = place.ubusd();
    let mut ear = place.client();
    assert_eq!(ear.listen("agentmon.*").unwrap(), Status::Ok);
    let _router = place.router(&home());
    let heard = ear.hear(patience(20.0)).unwrap().expect("an event");
    assert_eq!(heard.name, "agentmon.alert");
    assert_eq!(
        (&heard.data["subject"], &heard.data["severity"], &heard.data["device"]),
        (&json!("evil.example"), &json!("high"), &json!("laptop"))
    );
    assert_eq!(heard.data["title"], "Name on a block list: evil.example");
}

#[test]
fn it_comes_back_when_ubusd_was_restarted() {
    let place = Place::new();
    let router = place.router(&home());
    state(&router, "off: no ubusd answers at ");
    for _ in 0..3 {
        let mut ubusd = place.ubusd();
        place.published(&router);
        let mut client = place.client();
        eventually(10.0, "it answers as before", || {
            let devices = call(&mut client, "devices", json!({}));
            want(devices["devices"][0]["name"] == "laptop", || format!("{devices:?}"))
        });
        ubusd.stop();
        state(&router, "off: no ubusd answers at ");
    }
    assert_eq!(router.counters().snapshot()["ubus.connections"], 3);
    assert!(!router.is_broken());
}

#[test]
fn the_object_goes_when_it_is_switched_off_and_with_the_router() {
    let place = Place::new();
    let ubusd = place.ubusd();
    let router = place.router(&[]);
    place.published(&router);
    router.reload(place.config("router", "enabled = false")).unwrap();
    state(&router, "off: switched off");
    eventually(10.0, "the object is gone", || {
        want(ubusd.objects().is_empty(), || format!("{:?}", ubusd.objects()))
    });
    router.reload(place.config("router", "")).unwrap();
    place.published(&router);
    router.stop();
    eventually(10.0, "nobody is connected", || {
        want(ubusd.clients() == 0, || format!("{} clients", ubusd.clients()))
    });
    assert!(ubusd.objects().is_empty());
}

#[test]
fn the_packages_rules_are_enough_and_needed() {
    let place = Place::new();
    let ubusd = place.ubusd();
    ubusd.connect_as("agentmon");
    let router = place.router(&[]);
    state(&router, "ubusd refuses the object agentmon (invalid argument)");
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../openwrt-feed/agentmon/files/usr/share/acl.d/agentmon.json");
    ubusd.reload(Acl::default().with_file(&file).unwrap());
    place.published(&router);
    ubusd.connect_as("root");
    let mut ear = place.client();
    assert_eq!(ear.listen("agentmon.alert").unwrap(), Status::Ok);
    place.write(&[finding(1, "evil.example", 0.8)]);
    let mut config = place.config("router", "");
    // Other settings, so that the collector starts again and reads the new file.
    config.collect.replay.pace = 1_000.0;
    router.reload(config).unwrap();
    assert!(ear.hear(patience(20.0)).unwrap().is_some(), "the event is allowed too");
    assert_eq!(router.counters().snapshot()["ubus.alerts_refused"], 0);
}

#[test]
fn a_second_router_is_told_that_the_name_is_taken() {
    let place = Place::new();
    let _ubusd = place.ubusd();
    let router = place.router(&[]);
    place.published(&router);
    std::fs::write(place.dir.path().join("second.ndjson"), "").unwrap();
    let second = supervisor::start(place.config("second", "")).unwrap();
    state(&second, "ubusd refuses the object agentmon");
    router.stop();
    place.published(&second);
}

#[test]
fn pieces_of_one_byte_and_calls_without_reply() {
    let place = Place::new();
    let ubusd = place.ubusd();
    ubusd.write_in_pieces(1);
    let router = place.router(&home());
    place.published(&router);
    let mut client = place.client();
    let object = client.list(Some("agentmon")).unwrap().remove(0).id;
    let silent = client.call_without_reply(object, "status").unwrap();
    call(&mut client, "devices", json!({}));
    // The answers come in order: had there been one to the first call, it would be here.
    let late = client.receive(Duration::from_millis(200)).unwrap();
    assert!(late.is_none_or(|m| m.header.seq != silent), "an answer nobody wanted");
    assert_eq!(router.counters().snapshot()["ubus.calls"], 2);
}

#[test]
fn a_ubusd_that_does_not_read_stops_nothing_else() {
    let place = Place::new();
    let ubusd = place.ubusd();
    let many: Vec<_> = (0..6_000).map(|n| finding(n, &format!("n{n}.example"), 0.5)).collect();
    let router = place.router(&[]);
    place.published(&router);
    ubusd.stall(true);
    place.write(&many);
    let mut config = place.config("router", "");
    config.collect.replay.pace = 0.0;
    config.collect.replay.enabled = false;
    router.reload(config.clone()).unwrap();
    config.collect.replay.enabled = true;
    router.reload(config).unwrap();
    eventually(30.0, "every event is in the ring", || {
        let accepted = router.status().ring.accepted;
        want(accepted >= 6_000, || format!("{accepted} events"))
    });
    eventually(10.0, "what finds no room is counted", || {
        let dropped = router.counters().snapshot()["ubus.alerts_dropped"];
        want(dropped > 5_000, || format!("{dropped} dropped"))
    });
    ubusd.stall(false);
    let mut client = place.client();
    assert_eq!(call(&mut client, "alerts", json!({}))["total"], 256);
}

/// A server that says these bytes to whoever connects, and reads until the other side ends.
fn hostile(socket: &Path, says: Vec<u8>) -> std::thread::JoinHandle<()> {
    drop(std::fs::remove_file(socket));
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The other side may leave before all is said.
        drop(stream.write_all(&says));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
    })
}

fn said(kind: u8, seq: u16, body: &Writer) -> Vec<u8> {
    frame(Header { kind, seq, peer: 1 }, body).unwrap()
}

#[test]
fn a_hostile_server_is_left_and_a_good_one_found_again() {
    let hello = || said(kind::HELLO, 0, &Writer::default());
    let ok = |seq| said(kind::STATUS, seq, &Writer::default().u32(attr::STATUS, 0));
    let object = || said(kind::DATA, 1, &Writer::default().u32(attr::OBJID, 7));
    let published = || [hello(), object(), ok(1)].concat();
    let bare = |body: &[u8]| [b"\0\x05\0\x01\0\0\0\x01".as_slice(), body].concat();
    let call = |method: &str, data: &[u8]| {
        let body = Writer::default().u32(attr::OBJID, 7).text(attr::METHOD, method);
        said(kind::INVOKE, 9, &body.raw(attr::DATA, data))
    };
    let huge = Writer::default().raw(attr::DATA, &vec![7; MESSAGE_BYTES_MAX - 8]);
    let nested =
        (0..200).fold(Writer::default(), |inner, _| Writer::default().named_table("t", &inner));
    let servers: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("half a header", hello()[..5].to_vec()),
        ("a length below its header", bare(b"\0\0\0\x01")),
        ("a length of 16 MiB", bare(b"\xff\xff\xff\xff")),
        ("over 1 MiB after publishing", [published(), bare(b"\0\x10\0\x01")].concat()),
        (
            "random bytes",
            (0..60_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
        ),
        ("statuses of nothing", [hello(), ok(9), ok(0), ok(1)].concat()),
        (
            "unknown types",
            [published(), said(99, 1, &Writer::default()), said(200, 2, &huge)].concat(),
        ),
        ("a full megabyte", [published(), said(kind::INVOKE, 3, &huge)].concat()),
        (
            "broken attributes",
            [published(), said(kind::INVOKE, 3, &Writer::from_bytes(b"\x04\xff\xff\xff"))].concat(),
        ),
        (
            "broken arguments",
            [published(), call("alerts", b"\x83\0\0\x0a\xff\xffn\0x\0\0\0")].concat(),
        ),
        ("deep arguments", [published(), call("alerts", nested.bytes())].concat()),
        ("a flood of calls", [published(), call("status", b"").repeat(3_000)].concat()),
    ];
    let place = Place::new();
    let router = place.router(&home());
    for (what, says) in servers {
        let server = hostile(&place.socket(), says);
        // It is found at once, not after the pause that the last one earned.
        router.reload(place.config("router", "enabled = false")).unwrap();
        router.reload(place.config("router", "")).unwrap();
        eventually(30.0, what, || {
            want(server.is_finished(), || format!("still there: {}", router.status().ubus))
        });
        server.join().unwrap_or_else(|_| panic!("{what}"));
        assert!(!router.is_broken(), "{what}");
    }
    assert_eq!(router.counters().snapshot().get("ubus.panics").copied().unwrap_or(0), 0);
    drop(std::fs::remove_file(place.socket()));
    let _ubusd = place.ubusd();
    place.published(&router);
    let mut client = place.client();
    eventually(10.0, "it answers with what it saw meanwhile", || {
        let answer = self::call(&mut client, "alerts", json!({}));
        want(answer["total"] == 1, || format!("{answer:?}"))
    });
}
