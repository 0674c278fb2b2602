//! JSON-RPC over HTTP as uhttpd's ubus plugin speaks it, with a login's rights.
//!
//! In: the body of a POST, one call or a batch. Out: the reply's body. The object is looked
//! up before the rights are, as uhttpd does it. Rights come from the app's own ACL file, so
//! that a right it lacks shows as a page that does not work; what every login may do (LuCI's
//! base package grants it) is added.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::bus::{Bus, Failure};
use super::uci::Uci;

/// JSON-RPC error: no such object on the bus.
const OBJECT_NOT_FOUND: i32 = -32000;
/// JSON-RPC error: the session lacks the right.
const ACCESS_DENIED: i32 = -32002;

/// What somebody may do: groups of the ACL file.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Groups granted for reading.
    pub read: Vec<&'static str>,
    /// Groups granted for writing.
    pub write: Vec<&'static str>,
}

/// Watching, and changing the settings.
pub const GROUPS: [&str; 2] = ["luci-app-agentmon", "luci-app-agentmon-settings"];

impl Rights {
    /// Everything the app knows.
    #[must_use]
    pub fn all() -> Self {
        Self { read: GROUPS.to_vec(), write: GROUPS.to_vec() }
    }

    /// Everything, but nothing may be changed.
    #[must_use]
    pub fn read_only() -> Self {
        Self { read: GROUPS.to_vec(), write: Vec::new() }
    }

    /// Nothing of this app.
    #[must_use]
    pub fn none() -> Self {
        Self { read: Vec::new(), write: Vec::new() }
    }
}

/// Answers calls for one login.
pub struct Rpc {
    bus: Arc<dyn Bus>,
    uci: Arc<Uci>,
    /// `read ubus OBJECT METHOD` and `write uci CONFIG`.
    granted: BTreeSet<String>,
}

impl Rpc {
    /// `acl` is the app's ACL file.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>, uci: Arc<Uci>, acl: &Value, rights: &Rights) -> Self {
        let mut granted = BTreeSet::new();
        for (mode, groups) in [("read", &rights.read), ("write", &rights.write)] {
            for group in groups {
                grant(&mut granted, mode, &acl[group][mode]);
            }
        }
        Self { bus, uci, granted }
    }

    /// The reply to a request's body.
    #[must_use]
    pub fn answer(&self, body: &[u8]) -> Value {
        match serde_json::from_slice::<Value>(body) {
            Ok(Value::Array(batch)) => batch.iter().map(|one| self.one(one)).collect(),
            Ok(one) => self.one(&one),
            Err(_) => {
                json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32700, "message": "Parse error" } })
            }
        }
    }

    fn one(&self, request: &Value) -> Value {
        let id = &request["id"];
        let error = |code: i32, message: &str| json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } });
        if request["method"] == "list" {
            return json!({ "jsonrpc": "2.0", "id": id, "result": {} });
        }
        let [_, object, method, arguments] = std::array::from_fn(|i| request["params"][i].clone());
        let (object, method) =
            (object.as_str().unwrap_or_default(), method.as_str().unwrap_or_default());
        if object == "agentmon" && !self.bus.present() {
            return error(OBJECT_NOT_FOUND, "Object not found");
        }
        if !self.may(object, method, &arguments) {
            return error(ACCESS_DENIED, "Access denied");
        }
        let result = match self.call(object, method, &arguments) {
            Ok(data) => json!([0, data]),
            Err(Failure::NoObject) => return error(OBJECT_NOT_FOUND, "Object not found"),
            Err(Failure::Status(status)) => json!([status]),
        };
        json!({ "jsonrpc": "2.0", "id": id, "result": result })
    }

    fn may(&self, object: &str, method: &str, arguments: &Value) -> bool {
        let granted = |right: String| self.granted.contains(&right);
        match (object, method) {
            ("agentmon", _) => granted(format!("ubus {object} {method}")),
            ("uci", "get") => {
                let config = arguments["config"].as_str().unwrap_or_default();
                config == "luci" || granted(format!("read uci {config}"))
            }
            ("uci", "add" | "set" | "delete") => {
                let config = arguments["config"].as_str().unwrap_or_default();
                granted(format!("write uci {config}"))
            }
            ("uci", "changes") | ("session", "access") => true,
            // What LuCI's own overview page asks.
            ("luci" | "luci-rpc" | "file" | "network" | "network.device", _) => true,
            _ => false,
        }
    }

    fn call(&self, object: &str, method: &str, arguments: &Value) -> Result<Value, Failure> {
        match (object, method) {
            ("agentmon", _) => self.bus.call(method, arguments),
            ("session", _) => {
                let (scope, of) = (&arguments["scope"], &arguments["object"]);
                let mode = &arguments["function"];
                let right = [mode, scope, of].map(|v| v.as_str().unwrap_or_default()).join(" ");
                Ok(json!({ "access": self.granted.contains(&right) }))
            }
            ("uci", "get") if arguments["config"] == "luci" => Ok(json!({ "values": {} })),
            ("uci", _) => self.uci.call(method, arguments),
            // Of the cards only ours is there.
            ("file", "list") => {
                let cards =
                    arguments["path"].as_str().is_some_and(|p| p.ends_with("/status/include"));
                let card = json!({ "name": "35_agentmon.js", "type": "file" });
                Ok(json!({ "entries": if cards { vec![card] } else { Vec::new() } }))
            }
            _ => Ok(json!({})),
        }
    }
}

fn grant(granted: &mut BTreeSet<String>, mode: &str, rights: &Value) {
    for (object, methods) in rights["ubus"].as_object().into_iter().flatten() {
        for method in methods.as_array().into_iter().flatten().filter_map(Value::as_str) {
            granted.insert(format!("ubus {object} {method}"));
        }
    }
    for config in rights["uci"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        granted.insert(format!("{mode} uci {config}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::luci::bus::Fixture;

    fn rpc(rights: &Rights, trouble: Option<Failure>) -> Rpc {
        let acl = std::fs::read_to_string(
            crate::luci::app().join("root/usr/share/rpcd/acl.d/luci-app-agentmon.json"),
        );
        let acl = serde_json::from_str(&acl.expect("the ACL file")).expect("JSON");
        let fixture = Fixture::default();
        fixture.fail(trouble);
        Rpc::new(Arc::new(fixture), Arc::new(Uci::parse("")), &acl, rights)
    }

    #[track_caller]
    fn check(rpc: &Rpc, object: &str, method: &str, arguments: Value, code: i64) {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "call", "params": ["", object, method, arguments] });
        let reply = rpc.answer(call.to_string().as_bytes());
        let got = reply["error"]["code"].as_i64().or(reply["result"][0].as_i64());
        assert_eq!(got, Some(code), "{reply}");
    }

    #[test]
    fn rights_are_those_of_the_file() {
        let all = rpc(&Rights::all(), None);
        check(&all, "agentmon", "status", json!({}), 0);
        check(&all, "agentmon", "ack", json!({ "id": "a1", "note": "" }), 0);
        check(&all, "agentmon", "ack", json!({ "id": "none", "note": "" }), i64::from(NOT_THERE));
        check(&all, "uci", "get", json!({ "config": "agentmon" }), 0);
        check(&all, "agentmon", "reload", json!({}), -32002);
        check(&all, "uci", "get", json!({ "config": "wireless" }), -32002);
        let reader = rpc(&Rights::read_only(), None);
        check(&reader, "agentmon", "alerts", json!({}), 0);
        check(&reader, "agentmon", "ack", json!({ "id": "a1", "note": "" }), -32002);
        check(&reader, "uci", "set", json!({ "config": "agentmon" }), -32002);
        let nobody = rpc(&Rights::none(), None);
        check(&nobody, "agentmon", "status", json!({}), -32002);
        check(&nobody, "uci", "get", json!({ "config": "agentmon" }), -32002);
    }

    #[test]
    fn a_missing_object_is_told_before_a_missing_right() {
        let nobody = rpc(&Rights::none(), Some(Failure::NoObject));
        check(&nobody, "agentmon", "status", json!({}), -32000);
    }

    const NOT_THERE: u8 = crate::luci::bus::NOT_FOUND;
}
