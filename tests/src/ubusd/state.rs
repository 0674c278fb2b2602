//! The rules of the bus: who is called, who is told.
//!
//! In: clients that come and go, and their messages. Out: frames, each for one client. Pure.
//! Follows the real daemon (ubusd_proto.c, ubusd_event.c), also in its oddities: a refused
//! or double object is an "invalid argument", an answer of somebody who does not own the
//! object is dropped silently, an object without a signature is not listed.

use std::collections::{BTreeMap, BTreeSet};

use agentmon_router::ubus::blob::{Writer, attributes, read_table, split_name};
use agentmon_router::ubus::message::{Header, Message, Parsed, Status, attr, frame, kind};
use serde_json::{Value, json};

use super::acl::{Acl, Action, matches};

/// The object that receives `register` and `send`.
pub const EVENTS: u32 = 1;
/// Numbers below belong to the daemon itself.
const FIRST_OBJECT: u32 = 0x4000_0001;
const FIRST_CLIENT: u32 = 0x1000_0001;

/// One frame for one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// The client's number.
    pub to: u32,
    /// What to write.
    pub bytes: Vec<u8>,
}

/// Everything the daemon knows.
#[derive(Debug, Default)]
pub struct State {
    /// Who may do what.
    pub acl: Acl,
    users: BTreeMap<u32, String>,
    objects: BTreeMap<u32, Object>,
    /// Object and pattern of those who listen to events.
    listeners: Vec<(u32, String)>,
    made: u32,
}

#[derive(Debug)]
struct Object {
    owner: u32,
    path: Option<String>,
    signature: Option<Vec<u8>>,
    subscribers: BTreeSet<u32>,
    seq: u16,
}

type Answer = Result<Option<Status>, Status>;

impl State {
    /// Nobody is connected.
    #[must_use]
    pub fn new(acl: Acl) -> Self {
        Self { acl, ..Self::default() }
    }

    /// Names of all objects that have one.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.objects.values().filter_map(|o| o.path.clone()).collect()
    }

    /// A client came: its number, and the greeting.
    pub fn connect(&mut self, user: &str) -> (u32, Send) {
        self.made += 1;
        let client = FIRST_CLIENT + self.made;
        self.users.insert(client, user.to_owned());
        let hello = Header { kind: kind::HELLO, seq: 0, peer: client };
        (client, to(client, hello, &Writer::default()))
    }

    /// A client went: its objects go with it.
    pub fn disconnect(&mut self, client: u32) -> Vec<Send> {
        let mut out = Vec::new();
        self.users.remove(&client);
        let owned = |o: &&u32| self.objects.get(o).is_some_and(|o| o.owner == client);
        let gone: Vec<u32> = self.objects.keys().filter(owned).copied().collect();
        for object in gone {
            self.remove(object, &mut out);
        }
        out
    }

    /// A client said something.
    pub fn message(&mut self, client: u32, message: &Message) -> Vec<Send> {
        let mut out = Vec::new();
        let header = message.header;
        let answer = match message.parse() {
            Ok(parsed) => self.handle(client, message, parsed, &mut out),
            // The real one leaves out what it cannot read, and then misses it.
            Err(_) => Err(Status::InvalidArgument),
        };
        let status = match answer {
            Ok(None) => return out,
            Ok(Some(status)) | Err(status) => status,
        };
        let header = Header { kind: kind::STATUS, ..header };
        out.push(to(client, header, &Writer::default().u32(attr::STATUS, status as u32)));
        out
    }

    fn handle(
        &mut self,
        client: u32,
        message: &Message,
        parsed: Parsed<'_>,
        out: &mut Vec<Send>,
    ) -> Answer {
        let header = message.header;
        match header.kind {
            kind::PING => {
                let body = whole(&message.body);
                out.push(to(client, Header { kind: kind::DATA, ..header }, &body));
                Ok(Some(Status::Ok))
            }
            kind::LOOKUP => self.lookup(client, header, parsed, out),
            kind::INVOKE => self.invoke(client, header, parsed, out),
            kind::ADD_OBJECT => self.add(client, header, parsed, out),
            kind::REMOVE_OBJECT => {
                let object = self.own(client, parsed)?;
                let body = Writer::default().u32(attr::OBJID, object);
                out.push(to(client, Header { kind: kind::DATA, ..header }, &body));
                self.remove(object, out);
                Ok(Some(Status::Ok))
            }
            kind::SUBSCRIBE | kind::UNSUBSCRIBE => self.watch(client, header, parsed, out),
            kind::NOTIFY => self.notify(client, header, parsed, out),
            kind::STATUS | kind::DATA => {
                self.respond(client, message, parsed, out);
                Ok(None)
            }
            _ => Err(Status::InvalidCommand),
        }
    }

    fn user(&self, client: u32) -> &str {
        self.users.get(&client).map_or("nobody", String::as_str)
    }

    fn may(&self, client: u32, action: Action<'_>, name: Option<&str>) -> bool {
        name.is_none_or(|name| self.acl.allows(self.user(client), action, name))
    }

    /// The object named in the message, if the client owns it.
    fn own(&self, client: u32, parsed: Parsed<'_>) -> Result<u32, Status> {
        let id = parsed.object.ok_or(Status::InvalidArgument)?;
        let object = self.objects.get(&id).ok_or(Status::NotFound)?;
        if object.owner == client { Ok(id) } else { Err(Status::PermissionDenied) }
    }

    fn lookup(
        &self,
        client: u32,
        header: Header,
        parsed: Parsed<'_>,
        out: &mut Vec<Send>,
    ) -> Answer {
        let pattern = parsed.path.map(String::from_utf8_lossy);
        let wanted = |path: &str| pattern.as_ref().is_none_or(|pattern| matches(pattern, path));
        let mut found = false;
        for (id, object) in &self.objects {
            let Some(path) = object.path.as_deref().filter(|path| wanted(path)) else { continue };
            found = true;
            let Some(signature) = &object.signature else { continue };
            let (visible, hidden) = self.visible(client, path, signature);
            if visible.bytes().is_empty() && hidden {
                continue;
            }
            let body = Writer::default()
                .text(attr::OBJPATH, path)
                .u32(attr::OBJID, *id)
                .u32(attr::OBJTYPE, id ^ 0x0f00_0000)
                .raw(attr::SIGNATURE, visible.bytes());
            out.push(to(client, Header { kind: kind::DATA, ..header }, &body));
        }
        if found || pattern.is_none() { Ok(Some(Status::Ok)) } else { Err(Status::NotFound) }
    }

    /// The methods a client may call, and whether there are others.
    fn visible(&self, client: u32, path: &str, signature: &[u8]) -> (Writer, bool) {
        let (mut visible, mut hidden) = (Writer::default(), false);
        for attribute in attributes(signature).map_while(Result::ok) {
            let Ok((name, data)) = split_name(attribute) else { continue };
            let name = String::from_utf8_lossy(name);
            if self.may(client, Action::Access(&name), Some(path)) {
                visible = visible.named_table(&name, &whole(data));
            } else {
                hidden = true;
            }
        }
        (visible, hidden)
    }

    fn invoke(
        &mut self,
        client: u32,
        header: Header,
        parsed: Parsed<'_>,
        out: &mut Vec<Send>,
    ) -> Answer {
        let (Some(id), Some(method)) = (parsed.object, parsed.method) else {
            return Err(Status::InvalidArgument);
        };
        let method = String::from_utf8_lossy(method);
        if id == EVENTS {
            return self.event_object(client, header, &method, parsed, out);
        }
        let object = self.objects.get(&id).ok_or(Status::NotFound)?;
        if !self.may(client, Action::Access(&method), object.path.as_deref()) {
            return Err(Status::PermissionDenied);
        }
        let body = self.call(client, id, &method, parsed.data, parsed.no_reply);
        let header = Header { kind: kind::INVOKE, seq: header.seq, peer: client };
        out.push(to(object.owner, header, &body));
        Ok(None)
    }

    fn call(
        &self,
        client: u32,
        object: u32,
        method: &str,
        data: Option<&[u8]>,
        no_reply: bool,
    ) -> Writer {
        let mut body = Writer::default();
        if no_reply {
            body = body.u8(attr::NO_REPLY, 1);
        }
        let user = self.user(client);
        body = body.u32(attr::OBJID, object).text(attr::METHOD, method);
        body = body.text(attr::USER, user).text(attr::GROUP, user);
        match data {
            Some(data) => body.raw(attr::DATA, data),
            None => body,
        }
    }

    /// `register` and `send` of the daemon's own object.
    fn event_object(
        &mut self,
        client: u32,
        header: Header,
        method: &str,
        parsed: Parsed<'_>,
        out: &mut Vec<Send>,
    ) -> Answer {
        let arguments = read_table(parsed.data.unwrap_or_default());
        let arguments = arguments.map_err(|_| Status::InvalidArgument)?;
        let text = |key: &str| arguments.get(key).and_then(Value::as_str);
        match method {
            "register" => {
                let object = arguments.get("object").and_then(Value::as_u64);
                let object = object.and_then(|o| u32::try_from(o).ok());
                let object = object.ok_or(Status::InvalidArgument)?;
                let owner = self.objects.get(&object).map(|o| o.owner);
                if owner.ok_or(Status::NotFound)? != client {
                    return Err(Status::PermissionDenied);
                }
                let pattern = text("pattern").unwrap_or("*").to_owned();
                if !self.may(client, Action::Listen, Some(&pattern)) {
                    return Err(Status::PermissionDenied);
                }
                self.listeners.push((object, pattern));
                Ok(Some(Status::Ok))
            }
            "send" => {
                let id = text("id").ok_or(Status::InvalidArgument)?;
                let data = arguments.get("data").and_then(Value::as_object);
                let data = data.ok_or(Status::InvalidArgument)?.clone();
                // Names below "ubus." are the daemon's own.
                if id.starts_with("ubus.") || !self.may(client, Action::Send, Some(id)) {
                    return Err(Status::PermissionDenied);
                }
                self.event(id, &Value::Object(data), header.seq, out);
                Ok(Some(Status::Ok))
            }
            _ => Err(Status::InvalidCommand),
        }
    }

    /// Tells all who listen, each object once.
    fn event(&self, id: &str, data: &Value, seq: u16, out: &mut Vec<Send>) {
        let listening = |(_, pattern): &&(u32, String)| matches(pattern, id);
        let told: BTreeSet<u32> =
            self.listeners.iter().filter(listening).map(|(object, _)| *object).collect();
        for object in told {
            let Some(owner) = self.objects.get(&object).map(|o| o.owner) else { continue };
            let body = Writer::default()
                .u32(attr::OBJID, object)
                .text(attr::METHOD, id)
                .u8(attr::NO_REPLY, 1);
            let body = match data {
                Value::Object(data) => body.table(attr::DATA, data),
                _ => body,
            };
            out.push(to(owner, Header { kind: kind::INVOKE, seq, peer: EVENTS }, &body));
        }
    }

    fn add(
        &mut self,
        client: u32,
        header: Header,
        parsed: Parsed<'_>,
        out: &mut Vec<Send>,
    ) -> Answer {
        let path = parsed.path.map(|path| String::from_utf8_lossy(path).into_owned());
        let taken = path.is_some() && self.objects.values().any(|o| o.path == path);
        if taken || !self.may(client, Action::Publish, path.as_deref()) {
            return Err(Status::InvalidArgument);
        }
        self.made += 1;
        let id = FIRST_OBJECT + self.made;
        let object = Object {
            owner: client,
            path: path.clone(),
            signature: parsed.signature.map(<[u8]>::to_vec),
            subscribers: BTreeSet::new(),
            seq: 0,
        };
        self.objects.insert(id, object);
        let mut body = Writer::default().u32(attr::OBJID, id);
        if parsed.signature.is_some() {
            body = body.u32(attr::OBJTYPE, id ^ 0x0f00_0000);
        }
        out.push(to(client, Header { kind: kind::DATA, ..header }, &body));
        if let Some(path) = path {
            self.event("ubus.object.add", &json!({ "id": id, "path": path }), 0, out);
        }
        Ok(Some(Status::Ok))
    }

    fn remove(&mut self, id: u32, out: &mut Vec<Send>) {
        let Some(gone) = self.objects.remove(&id) else { return };
        self.listeners.retain(|(object, _)| *object != id);
        for subscriber in gone.subscribers {
            let Some(object) = self.objects.get_mut(&subscriber) else { continue };
            object.seq = object.seq.wrapping_add(1);
            let header = Header { kind: kind::UNSUBSCRIBE, seq: object.seq, peer: 0 };
            let body = Writer::default().u32(attr::OBJID, subscriber).u32(attr::TARGET, id);
            out.push(to(object.owner, header, &body));
        }
        let watched: Vec<u32> = self.objects.keys().copied().collect();
        for target in watched {
            self.unsubscribe(id, target, out);
        }
        if let Some(path) = gone.path {
            self.event("ubus.object.remove", &json!({ "id": id, "path": path }), 0, out);
        }
    }

    fn watch(
        &mut self,
        client: u32,
        header: Header,
        parsed: Parsed<'_>,
        out: &mut Vec<Send>,
    ) -> Answer {
        let subscriber = self.own(client, parsed)?;
        let id = parsed.target.ok_or(Status::InvalidArgument)?;
        let target = self.objects.get(&id).ok_or(Status::NotFound)?;
        if target.owner == client {
            return Err(Status::InvalidArgument);
        }
        if header.kind == kind::UNSUBSCRIBE {
            let there = self.unsubscribe(subscriber, id, out);
            return if there { Ok(Some(Status::Ok)) } else { Err(Status::NotFound) };
        }
        if !self.may(client, Action::Subscribe, target.path.as_deref()) {
            return Err(Status::NotFound);
        }
        let Some(target) = self.objects.get_mut(&id) else { return Err(Status::NotFound) };
        let first = target.subscribers.is_empty();
        target.subscribers.insert(subscriber);
        if first {
            target.tell_active(id, true, out);
        }
        Ok(Some(Status::Ok))
    }

    fn unsubscribe(&mut self, subscriber: u32, target: u32, out: &mut Vec<Send>) -> bool {
        let Some(object) = self.objects.get_mut(&target) else { return false };
        let there = object.subscribers.remove(&subscriber);
        if there && object.subscribers.is_empty() {
            object.tell_active(target, false, out);
        }
        there
    }

    fn notify(
        &self,
        client: u32,
        header: Header,
        parsed: Parsed<'_>,
        out: &mut Vec<Send>,
    ) -> Answer {
        let id = self.own(client, parsed)?;
        let method = String::from_utf8_lossy(parsed.method.ok_or(Status::InvalidArgument)?);
        let Some(object) = self.objects.get(&id) else { return Err(Status::NotFound) };
        if !parsed.no_reply {
            let list = object.subscribers.iter();
            let list = list.fold(Writer::default(), |list, subscriber| list.u32(0, *subscriber));
            let body = Writer::default()
                .u32(attr::OBJID, id)
                .raw(attr::SUBSCRIBERS, list.bytes())
                .u32(attr::STATUS, 0);
            out.push(to(client, Header { kind: kind::STATUS, ..header }, &body));
        }
        for subscriber in &object.subscribers {
            let Some(owner) = self.objects.get(subscriber).map(|o| o.owner) else { continue };
            let body = self.call(client, *subscriber, &method, parsed.data, parsed.no_reply);
            let header = Header { kind: kind::INVOKE, seq: header.seq, peer: client };
            out.push(to(owner, header, &body));
        }
        Ok(None)
    }

    /// An answer goes to whom it names, if the object is the answerer's.
    fn respond(&self, client: u32, message: &Message, parsed: Parsed<'_>, out: &mut Vec<Send>) {
        let header = message.header;
        let complete = match header.kind {
            kind::STATUS => parsed.status.is_some(),
            _ => parsed.data.is_some(),
        };
        let Some(object) = parsed.object.filter(|_| complete) else { return };
        let owns = self.objects.get(&object).is_some_and(|o| o.owner == client);
        if owns && self.users.contains_key(&header.peer) {
            let answer = Header { peer: object, ..header };
            out.push(to(header.peer, answer, &whole(&message.body)));
        }
    }
}

impl Object {
    fn tell_active(&mut self, id: u32, active: bool, out: &mut Vec<Send>) {
        self.seq = self.seq.wrapping_add(1);
        let header = Header { kind: kind::NOTIFY, seq: self.seq, peer: 0 };
        let body = Writer::default().u32(attr::OBJID, id).u8(attr::ACTIVE, u8::from(active));
        out.push(to(self.owner, header, &body));
    }
}

fn to(client: u32, header: Header, body: &Writer) -> Send {
    // Larger than it may be only where the request already was.
    Send { to: client, bytes: frame(header, body).unwrap_or_default() }
}

/// A body as it came.
fn whole(bytes: &[u8]) -> Writer {
    Writer::from_bytes(bytes)
}
