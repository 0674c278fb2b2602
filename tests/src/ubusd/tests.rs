//! The test bus against its own client: the rules agentmon's own tests build on.

use agentmon_router::ubus::blob::{Writer, read_table};
use agentmon_router::ubus::message::{Header, Status, attr, frame, kind};
use serde_json::{Value, json};

use super::*;

struct Bus {
    ubusd: Ubusd,
    _dir: tempfile::TempDir,
}

impl Bus {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ubusd = Ubusd::start(&dir.path().join("ubus.sock"), Acl::default()).unwrap();
        Self { ubusd, _dir: dir }
    }

    fn client(&self) -> Client {
        Client::connect(self.ubusd.socket()).unwrap()
    }

    /// An object `echo` on a thread of its own that answers each call with its arguments.
    fn echo(&self) -> JoinHandle<()> {
        let mut stream = UnixStream::connect(self.ubusd.socket()).unwrap();
        let signature = Writer::default().named("say", &json!({}));
        let body =
            Writer::default().text(attr::OBJPATH, "echo").raw(attr::SIGNATURE, signature.bytes());
        let add = Header { kind: kind::ADD_OBJECT, seq: 1, peer: 0 };
        stream.write_all(&frame(add, &body).unwrap()).unwrap();
        let thread = std::thread::spawn(move || echo(stream));
        while self.ubusd.objects().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        thread
    }
}

fn echo(mut stream: UnixStream) {
    let mut inbox = Inbox::new(MESSAGE_BYTES_MAX);
    let mut piece = [0; 65_536];
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        inbox.push(&piece[..n]);
        while let Some(Frame::Message(message)) = inbox.next_frame().unwrap() {
            if message.header.kind != kind::INVOKE {
                continue;
            }
            let parsed = message.parse().unwrap();
            let object = Writer::default().u32(attr::OBJID, parsed.object.unwrap());
            let data = object.clone().raw(attr::DATA, parsed.data.unwrap_or_default());
            let status = object.u32(attr::STATUS, 0);
            for (kind, body) in [(kind::DATA, data), (kind::STATUS, status)] {
                let header = Header { kind, ..message.header };
                stream.write_all(&frame(header, &body).unwrap()).unwrap();
            }
        }
    }
}

#[test]
fn a_call_goes_to_the_object_and_its_answer_back() {
    let bus = Bus::new();
    let echo = bus.echo();
    let mut client = bus.client();
    let listed = client.list(Some("echo")).unwrap();
    assert_eq!(listed[0].methods, *json!({ "say": {} }).as_object().unwrap());
    let arguments = json!({ "word": "hello", "n": -3, "list": [true, 0.5] });
    let answer = client.call("echo", "say", &arguments).unwrap().unwrap();
    assert_eq!(Value::Object(answer), arguments);
    assert_eq!(client.call("nobody", "say", &json!({})).unwrap(), Err(Status::NotFound));
    drop(bus);
    echo.join().unwrap();
}

#[test]
fn pieces_and_large_messages_arrive_whole() {
    let bus = Bus::new();
    let echo = bus.echo();
    bus.ubusd.write_in_pieces(7);
    let mut client = bus.client();
    let arguments = json!({ "word": "x".repeat(9_000) });
    assert_eq!(client.call("echo", "say", &arguments).unwrap().map(Value::Object), Ok(arguments));
    bus.ubusd.write_in_pieces(0);
    let large = json!({ "word": "x".repeat(MESSAGE_BYTES_MAX - 200) });
    assert_eq!(client.call("echo", "say", &large).unwrap().map(Value::Object), Ok(large));
    drop(bus);
    echo.join().unwrap();
}

#[test]
fn events_reach_those_who_listen() {
    let bus = Bus::new();
    let (mut ear, mut mouth) = (bus.client(), bus.client());
    assert_eq!(ear.listen("agentmon.*").unwrap(), Status::Ok);
    assert_eq!(mouth.send_event("other.alert", &json!({})).unwrap(), Status::Ok);
    assert_eq!(mouth.send_event("ubus.object.add", &json!({})).unwrap(), Status::PermissionDenied);
    let data = json!({ "severity": "high" });
    assert_eq!(mouth.send_event("agentmon.alert", &data).unwrap(), Status::Ok);
    let heard = ear.hear(PATIENCE).unwrap().unwrap();
    assert_eq!((heard.name.as_str(), heard.data), ("agentmon.alert", data));
}

#[test]
fn an_object_goes_with_its_owner_and_its_subscribers_are_told() {
    let bus = Bus::new();
    let echo = bus.echo();
    let mut client = bus.client();
    assert_eq!(client.subscribe("echo").unwrap(), Status::Ok);
    bus.ubusd.inject(b"this is no ubus message");
    // The echo panics or ends; either way its connection closes.
    drop(echo.join());
    let mut other = bus.client();
    while !other.list(None).unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(client.receive(PATIENCE).is_err(), "it was sent nonsense too");
}

#[test]
fn rules_hold_for_who_connects_after_them() {
    let bus = Bus::new();
    bus.ubusd.connect_as("agentmon");
    let mut client = bus.client();
    assert_eq!(client.listen("x").unwrap(), Status::PermissionDenied);
    assert_eq!(client.send_event("agentmon.alert", &json!({})).unwrap(), Status::PermissionDenied);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.json");
    std::fs::write(&file, r#"{"user":"agentmon","send":["agentmon.*"]}"#).unwrap();
    bus.ubusd.reload(Acl::default().with_file(&file).unwrap());
    assert_eq!(client.send_event("agentmon.alert", &json!({})).unwrap(), Status::Ok);
}

#[test]
fn a_client_that_sends_an_impossible_length_is_cut_off() {
    let bus = Bus::new();
    let mut stream = UnixStream::connect(bus.ubusd.socket()).unwrap();
    stream.write_all(b"\0\x05\0\x01\0\0\0\0\x00\xff\xff\xff").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 12, "only the greeting");
}

#[test]
fn a_subscription_tells_the_owner() {
    let mut state = State::new(Acl::default());
    let ((owner, _), (watcher, _)) = (state.connect("root"), state.connect("root"));
    let mut say = |client, kind, body: Writer| {
        let bytes = frame(Header { kind, seq: 9, peer: 0 }, &body).unwrap();
        let mut inbox = Inbox::new(MESSAGE_BYTES_MAX);
        inbox.push(&bytes);
        let Ok(Some(Frame::Message(message))) = inbox.next_frame() else { panic!("a message") };
        state.message(client, &message)
    };
    let target_body = Writer::default().text(attr::OBJPATH, "o").raw(attr::SIGNATURE, b"");
    let added = say(owner, kind::ADD_OBJECT, target_body);
    assert_eq!(added.iter().map(|s| s.to).collect::<Vec<_>>(), [owner, owner]);
    let ear = say(watcher, kind::ADD_OBJECT, Writer::default());
    let number = |sends: &[Send]| {
        let mut inbox = Inbox::new(100);
        inbox.push(&sends[0].bytes);
        let Ok(Some(Frame::Message(message))) = inbox.next_frame() else { panic!("a message") };
        message.parse().unwrap().object.unwrap()
    };
    let (target, ear) = (number(&added), number(&ear));
    let body = Writer::default().u32(attr::OBJID, ear).u32(attr::TARGET, target);
    let told = say(watcher, kind::SUBSCRIBE, body.clone());
    assert_eq!(
        told.iter().map(|s| (s.to, s.bytes[1])).collect::<Vec<_>>(),
        [(owner, kind::NOTIFY), (watcher, kind::STATUS)]
    );
    let data = Writer::default().named("n", &json!(1));
    let note = Writer::default()
        .u32(attr::OBJID, target)
        .text(attr::METHOD, "changed")
        .raw(attr::DATA, data.bytes());
    let told = say(owner, kind::NOTIFY, note);
    assert_eq!(
        told.iter().map(|s| (s.to, s.bytes[1])).collect::<Vec<_>>(),
        [(owner, kind::STATUS), (watcher, kind::INVOKE)]
    );
    assert!(read_table(data.bytes()).is_ok());
    let told = say(watcher, kind::UNSUBSCRIBE, body);
    assert_eq!(told[0].bytes[1], kind::NOTIFY, "nobody listens any more");
}
