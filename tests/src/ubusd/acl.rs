//! Who may do what on the bus: the files below `/usr/share/acl.d`.
//!
//! In: the JSON of such files. Out: yes or no. Pure. As in the real ubusd: root may do
//! everything; a name that ends in `*` stands for all that begin so; an action that no file
//! allows is refused.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// What a user may want to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Call this method of an object.
    Access(&'a str),
    /// Publish an object of a name.
    Publish,
    /// Subscribe to an object's notifications.
    Subscribe,
    /// Send events of a name.
    Send,
    /// Listen to events of a name.
    Listen,
}

/// The rules of all files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Acl {
    files: Vec<Value>,
}

impl Acl {
    /// Adds the rules of one file.
    ///
    /// # Errors
    /// When it cannot be read or is no JSON object with a `user`.
    pub fn with_file(mut self, path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let rules: Value =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        anyhow::ensure!(rules["user"].is_string(), "{}: no `user`", path.display());
        self.files.push(rules);
        Ok(self)
    }

    /// Whether a user may do that to the object or event `name`.
    #[must_use]
    pub fn allows(&self, user: &str, action: Action<'_>, name: &str) -> bool {
        user == "root"
            || self.files.iter().filter(|f| f["user"] == user).any(|f| allows(f, action, name))
    }
}

fn allows(file: &Value, action: Action<'_>, name: &str) -> bool {
    let listed = |key: &str| {
        let list = file[key].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).any(|pattern| matches(pattern, name))
    };
    match action {
        Action::Publish => listed("publish"),
        Action::Subscribe => listed("subscribe"),
        Action::Send => listed("send"),
        Action::Listen => listed("listen"),
        Action::Access(method) => {
            let mut objects = file["access"].as_object().into_iter().flatten();
            objects.any(|(pattern, rule)| {
                let methods = rule["methods"].as_array().into_iter().flatten();
                matches(pattern, name)
                    && methods.filter_map(Value::as_str).any(|m| m == "*" || m == method)
            })
        }
    }
}

/// `agentmon.*` stands for all names that begin with `agentmon.`.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(user: &str, action: Action<'_>, name: &str, expected: bool) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        let rules = r#"{"user":"agentmon","publish":["agentmon"],"send":["agentmon.*"],
                        "access":{"dhcp":{"methods":["ipv4leases"]},"sys*":{"methods":["*"]}}}"#;
        std::fs::write(&file, rules).unwrap();
        let acl = Acl::default().with_file(&file).unwrap();
        assert_eq!(acl.allows(user, action, name), expected);
    }

    #[test]
    fn only_what_a_file_allows() {
        check("root", Action::Publish, "anything", true);
        check("agentmon", Action::Publish, "agentmon", true);
        check("agentmon", Action::Publish, "agentmon2", false);
        check("nobody", Action::Publish, "agentmon", false);
        check("agentmon", Action::Send, "agentmon.alert", true);
        check("agentmon", Action::Send, "agentmon", false);
        check("agentmon", Action::Listen, "agentmon.alert", false);
        check("agentmon", Action::Access("ipv4leases"), "dhcp", true);
        check("agentmon", Action::Access("add_lease"), "dhcp", false);
        check("agentmon", Action::Access("board"), "system", true);
        check("agentmon", Action::Subscribe, "dhcp", false);
    }
}
