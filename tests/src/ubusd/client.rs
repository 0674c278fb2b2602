//! What `ubus call`, `ubus list` and `ubus listen` do, for tests and for the test page's
//! bridge. Blocking, on the caller's thread; no wait is longer than [`PATIENCE`] unless the
//! caller says so. Works against the real ubusd too.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use agentmon_router::ubus::blob::{Writer, read_table};
use agentmon_router::ubus::message::{
    Frame, Header, Inbox, MESSAGE_BYTES_MAX, Message, Parsed, Status, attr, frame, kind,
};
use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::state::EVENTS;

/// Longest wait for an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a ubusd.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    inbox: Inbox,
    seq: u16,
    /// Number of the object that receives events, once there is one.
    ear: Option<u32>,
    heard: VecDeque<Heard>,
}

/// An event or a notification.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Its name.
    pub name: String,
    /// What it carries.
    pub data: Value,
}

/// An object somebody published.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its name.
    pub path: String,
    /// Its number.
    pub id: u32,
    /// Methods and, for each argument, the number of its type.
    pub methods: Map<String, Value>,
}

/// What the bus answered to a call.
pub type Called = Result<Map<String, Value>, Status>;

impl Client {
    /// Connects and waits for the greeting.
    ///
    /// # Errors
    /// When nobody listens there, or no ubusd.
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("ubus: {}", socket.display()))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let inbox = Inbox::new(MESSAGE_BYTES_MAX);
        let mut client = Self { stream, inbox, seq: 0, ear: None, heard: VecDeque::new() };
        let hello = client.receive(PATIENCE)?.context("no greeting")?;
        anyhow::ensure!(hello.header.kind == kind::HELLO, "no greeting but {:?}", hello.header);
        Ok(client)
    }

    /// The objects whose names match: all for `None`.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn list(&mut self, pattern: Option<&str>) -> anyhow::Result<Vec<Listed>> {
        let body =
            pattern.map_or_else(Writer::default, |p| Writer::default().text(attr::OBJPATH, p));
        let mut listed = Vec::new();
        self.ask(kind::LOOKUP, 0, &body, |parsed| {
            listed.push(Listed {
                path: String::from_utf8_lossy(parsed.path.unwrap_or_default()).into_owned(),
                id: parsed.object.unwrap_or(0),
                methods: read_table(parsed.signature.unwrap_or_default())?,
            });
            Ok(())
        })?;
        Ok(listed)
    }

    /// Calls a method of a named object.
    ///
    /// # Errors
    /// When the connection fails; what the bus or the object refuses is in the result.
    pub fn call(
        &mut self,
        object: &str,
        method: &str,
        arguments: &Value,
    ) -> anyhow::Result<Called> {
        let Some(object) = self.list(Some(object))?.into_iter().next() else {
            return Ok(Err(Status::NotFound));
        };
        let Value::Object(arguments) = arguments else { bail!("arguments are no JSON object") };
        let body = Writer::default()
            .u32(attr::OBJID, object.id)
            .text(attr::METHOD, method)
            .table(attr::DATA, arguments);
        let mut answer = Map::new();
        let status = self.ask(kind::INVOKE, object.id, &body, |parsed| {
            answer.extend(read_table(parsed.data.unwrap_or_default())?);
            Ok(())
        })?;
        Ok(if status == Status::Ok { Ok(answer) } else { Err(status) })
    }

    /// Calls without waiting for an answer, and without wanting one.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn call_without_reply(&mut self, object: u32, method: &str) -> anyhow::Result<u16> {
        let body = Writer::default()
            .u32(attr::OBJID, object)
            .text(attr::METHOD, method)
            .u8(attr::NO_REPLY, 1);
        self.send(kind::INVOKE, object, &body)
    }

    /// Sends an event.
    ///
    /// # Errors
    /// When the connection fails; a refusal is in the result.
    pub fn send_event(&mut self, id: &str, data: &Value) -> anyhow::Result<Status> {
        self.tell_daemon("send", &json!({ "id": id, "data": data }))
    }

    /// From now on events whose names match are heard.
    ///
    /// # Errors
    /// When the connection fails; a refusal is in the result.
    pub fn listen(&mut self, pattern: &str) -> anyhow::Result<Status> {
        let ear = self.ear()?;
        self.tell_daemon("register", &json!({ "object": ear, "pattern": pattern }))
    }

    /// From now on notifications of an object are heard.
    ///
    /// # Errors
    /// When the connection fails; a refusal is in the result.
    pub fn subscribe(&mut self, object: &str) -> anyhow::Result<Status> {
        let ear = self.ear()?;
        let Some(target) = self.list(Some(object))?.into_iter().next() else {
            return Ok(Status::NotFound);
        };
        let body = Writer::default().u32(attr::OBJID, ear).u32(attr::TARGET, target.id);
        self.ask(kind::SUBSCRIBE, 0, &body, |_| Ok(()))
    }

    /// The next event or notification, or `None` when there is none in time.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn hear(&mut self, patience: Duration) -> anyhow::Result<Option<Heard>> {
        while self.heard.is_empty() {
            let Some(message) = self.receive(patience)? else { return Ok(None) };
            self.note(&message)?;
        }
        Ok(self.heard.pop_front())
    }

    /// The next message, whatever it is, or `None` when there is none in time.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn receive(&mut self, patience: Duration) -> anyhow::Result<Option<Message>> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut piece = [0; 4096];
        loop {
            match self.inbox.next_frame().context("no ubus")? {
                Some(Frame::Message(message)) => return Ok(Some(message)),
                Some(Frame::TooLong(header)) => bail!("a message too long: {header:?}"),
                None => {}
            }
            match self.stream.read(&mut piece) {
                Ok(0) => bail!("ubusd closed the connection"),
                Ok(n) => self.inbox.push(piece.get(..n).unwrap_or_default()),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// An object without a name, to be told things.
    fn ear(&mut self) -> anyhow::Result<u32> {
        if let Some(ear) = self.ear {
            return Ok(ear);
        }
        let mut number = None;
        self.ask(kind::ADD_OBJECT, 0, &Writer::default(), |parsed| {
            number = parsed.object;
            Ok(())
        })?;
        self.ear = number;
        number.context("ubusd gives no number for an object")
    }

    fn tell_daemon(&mut self, method: &str, arguments: &Value) -> anyhow::Result<Status> {
        let Value::Object(arguments) = arguments else { bail!("arguments are no JSON object") };
        let mut data = Writer::default();
        for (name, value) in arguments {
            // The real daemon insists on 32 bits for an object's number.
            data = match value.as_u64().and_then(|n| u32::try_from(n).ok()) {
                Some(number) => data.named_u32(name, number),
                None => data.named(name, value),
            };
        }
        let body = Writer::default()
            .u32(attr::OBJID, EVENTS)
            .text(attr::METHOD, method)
            .raw(attr::DATA, data.bytes());
        self.ask(kind::INVOKE, EVENTS, &body, |_| Ok(()))
    }

    fn send(&mut self, kind: u8, peer: u32, body: &Writer) -> anyhow::Result<u16> {
        self.seq = self.seq.wrapping_add(1);
        let bytes = frame(Header { kind, seq: self.seq, peer }, body).context("too long")?;
        self.stream.write_all(&bytes)?;
        Ok(self.seq)
    }

    /// Sends and waits for the status; what comes before it is handed to `data`.
    fn ask(
        &mut self,
        kind: u8,
        peer: u32,
        body: &Writer,
        mut data: impl FnMut(Parsed<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Status> {
        let seq = self.send(kind, peer, body)?;
        loop {
            let message = self.receive(PATIENCE)?.context("no answer in time")?;
            let header = message.header;
            match header.kind {
                kind::DATA if header.seq == seq => data(message.parse()?)?,
                kind::STATUS if header.seq == seq => {
                    let status = message.parse()?.status.context("a status without status")?;
                    return Ok(Status::from_wire(status));
                }
                _ => self.note(&message)?,
            }
        }
    }

    /// Keeps what was said to our ear; answers where an answer is wanted.
    fn note(&mut self, message: &Message) -> anyhow::Result<()> {
        let parsed = message.parse()?;
        let (kind::INVOKE, Some(method)) = (message.header.kind, parsed.method) else {
            return Ok(());
        };
        let name = String::from_utf8_lossy(method).into_owned();
        let data = Value::Object(read_table(parsed.data.unwrap_or_default())?);
        if let (false, Some(object)) = (parsed.no_reply, parsed.object) {
            let body = Writer::default().u32(attr::STATUS, 0).u32(attr::OBJID, object);
            let header = Header { kind: kind::STATUS, ..message.header };
            self.stream.write_all(&frame(header, &body).context("too long")?)?;
        }
        self.heard.push_back(Heard { name, data });
        Ok(())
    }
}
