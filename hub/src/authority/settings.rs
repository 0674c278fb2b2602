//! What an agent was told it may reach, in its own settings.
//!
//! In: the text of a settings file of Claude Code (`settings.json`; also the sandbox runtime's),
//! Codex (`config.toml`) or Cursor (`sandbox.json`). Out: [`Given`], in the patterns of a
//! policy, with notes on what the file does not hold the agent to. Pure; anything may stand in
//! the file.
//!
//! Sources, read November 2026: Claude Code's settings and sandbox schema (a domain allowed to
//! WebFetch is allowed to the sandbox as well), developers.openai.com/docs/permissions (domains
//! are enforced only with `features.network_proxy`; `**.x` is x and what is below), and
//! cursor.com/docs/reference/sandbox (`deny` wins, `default` decides the rest). Gemini CLI,
//! Copilot, Windsurf and Kiro have no list of destinations in their settings.
//!
//! Invariant: at most [`ENTRIES_MAX`] entries; what is no destination is named, not dropped.

use agentmon_core::authority::Pattern;
use agentmon_core::name::printable;
use anyhow::Context as _;
use serde_json::Value;

/// Most entries of one file.
const ENTRIES_MAX: usize = 10_000;

/// Whose settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Claude,
    Codex,
    Cursor,
}

impl Kind {
    /// As in the catalogue.
    pub(crate) const fn agent(self) -> &'static str {
        match self {
            Self::Claude => "claude-code",
            Self::Codex => "codex",
            Self::Cursor => "cursor",
        }
    }
}

/// What was given.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Given {
    pub(crate) allowed: Vec<String>,
    pub(crate) denied: Vec<String>,
    /// What a person should know beside the lists.
    pub(crate) notes: Vec<String>,
}

impl Given {
    fn add(&mut self, deny: bool, entry: &str) {
        let list = if deny { &mut self.denied } else { &mut self.allowed };
        if list.len() >= ENTRIES_MAX {
            return;
        }
        match pattern(entry) {
            Some(pattern) if !list.contains(&pattern) => list.push(pattern),
            Some(_) => {}
            None => self.note(&format!(
                "`{}` is no destination; it was left out",
                printable(entry.as_bytes(), 100)
            )),
        }
    }

    fn all(&mut self, deny: bool, list: Option<&Value>) {
        for entry in list.and_then(Value::as_array).into_iter().flatten().take(ENTRIES_MAX) {
            self.add(deny, entry.as_str().unwrap_or("?"));
        }
    }

    fn note(&mut self, text: &str) {
        if self.notes.len() < 100 && !self.notes.iter().any(|n| n == text) {
            self.notes.push(text.to_owned());
        }
    }
}

/// An entry in the words of a policy.
fn pattern(entry: &str) -> Option<String> {
    let entry = entry.trim();
    let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let entry = entry.trim_end_matches('/');
    let text = match entry {
        "localhost" => "loopback".to_owned(),
        "**" => "*".to_owned(),
        _ => match entry.strip_prefix("**.") {
            Some(rest) => format!(".{rest}"),
            None => entry.to_owned(),
        },
    };
    let parsed: Pattern = text.parse().ok()?;
    let class = matches!(parsed.place, agentmon_core::authority::pattern::Place::Class(_));
    (!class).then_some(text)
}

/// Reads a file's text; what several files give is added up by the caller.
///
/// # Errors
/// A text that is not of the file's form.
pub(crate) fn read(kind: Kind, text: &str) -> anyhow::Result<Given> {
    let mut given = Given::default();
    match kind {
        Kind::Claude => claude(&json(text)?, &mut given),
        Kind::Cursor => cursor(&json(text)?, &mut given),
        Kind::Codex => {
            codex(&serde_json::to_value(toml::from_str::<toml::Table>(text)?)?, &mut given)
        }
    }
    Ok(given)
}

fn json(text: &str) -> anyhow::Result<Value> {
    let value: Value = serde_json::from_str(text)?;
    value.is_object().then_some(value).context("no object of settings")
}

fn claude(settings: &Value, given: &mut Given) {
    // The sandbox runtime's own file has `network` at its top.
    let sandbox = settings.get("sandbox").unwrap_or(settings);
    let network = &sandbox["network"];
    given.all(false, network.get("allowedDomains"));
    given.all(true, network.get("deniedDomains"));
    if network["allowLocalBinding"] == true {
        given.add(false, "localhost");
    }
    for (deny, key) in [(false, "allow"), (true, "deny")] {
        for rule in settings["permissions"][key].as_array().into_iter().flatten() {
            let rule = rule.as_str().unwrap_or_default().trim();
            let domain = rule.strip_prefix("WebFetch(domain:").and_then(|r| r.strip_suffix(')'));
            match (domain, rule) {
                (Some(domain), _) => given.add(deny, domain),
                (None, "WebFetch") => given.add(deny, "*"),
                _ => {}
            }
        }
    }
    if settings.get("permissions").is_some() && sandbox["enabled"] != true {
        given.note(
            "the sandbox is not switched on: commands may reach anything whatever the list says",
        );
    }
    if sandbox["allowUnsandboxedCommands"] != false && sandbox["enabled"] == true {
        given.note(
            "commands may leave the sandbox when asked (allowUnsandboxedCommands is not false)",
        );
    }
    let excluded = sandbox["excludedCommands"].as_array().into_iter().flatten();
    let excluded: Vec<&str> = excluded.filter_map(Value::as_str).take(20).collect();
    if !excluded.is_empty() {
        given.note(&format!("outside the sandbox: {}", excluded.join(", ")));
    }
    if settings["permissions"]["defaultMode"] == "bypassPermissions" {
        given.note("defaultMode is bypassPermissions: nobody is asked");
    }
}

fn cursor(settings: &Value, given: &mut Given) {
    let network = &settings["networkPolicy"];
    given.all(false, network.get("allow"));
    given.all(true, network.get("deny"));
    if network["default"] == "allow" {
        given.add(false, "*");
        given.note("networkPolicy.default is allow: the list of allowed places holds nobody to it");
    }
    if settings["type"] == "insecure_none" {
        given.note("type is insecure_none: there is no sandbox");
    }
}

fn codex(settings: &Value, given: &mut Given) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mode = text(&settings["sandbox_mode"]);
    let profile = text(&settings["default_permissions"]);
    // The older settings win where both are there.
    if !mode.is_empty() {
        if !profile.is_empty() {
            given.note("sandbox_mode is set: default_permissions is not looked at");
        }
        let open = settings["sandbox_workspace_write"]["network_access"] == true;
        if mode == "danger-full-access" || (mode == "workspace-write" && open) {
            given.add(false, "*");
            given.note(&format!("sandbox_mode {mode} lets commands reach anything"));
        }
    } else if profile == ":danger-full-access" {
        given.add(false, "*");
        given.note("the profile :danger-full-access lets commands reach anything");
    } else if !profile.starts_with(':') && !profile.is_empty() {
        codex_profile(settings, &settings["permissions"][&profile]["network"], given);
    }
}

fn codex_profile(settings: &Value, network: &Value, given: &mut Given) {
    if network["enabled"] != true {
        return;
    }
    for (domain, word) in network["domains"].as_object().into_iter().flatten().take(ENTRIES_MAX) {
        given.add(word == "deny", domain);
    }
    given.all(false, network.get("allowed_domains"));
    given.all(true, network.get("denied_domains"));
    if network["allow_local_binding"] == true {
        given.add(false, "localhost");
    }
    let proxy = &settings["features"]["network_proxy"];
    if proxy != &Value::Bool(true) && proxy["enabled"] != true {
        given.note("features.network_proxy is not on: the list of domains holds nobody to it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `allowed | denied | notes`, the notes by their first word.
    #[track_caller]
    fn check(kind: Kind, text: &str, expected: &str) {
        let given = read(kind, text).unwrap();
        let first = |n: &String| n.split(' ').next().unwrap_or_default().to_owned();
        let notes: Vec<String> = given.notes.iter().map(first).collect();
        let got = format!(
            "{} | {} | {}",
            given.allowed.join(" "),
            given.denied.join(" "),
            notes.join(" ")
        );
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn claude_code() {
        let check = |text: &str, expected: &str| check(Kind::Claude, text, expected);
        check(
            r#"{"sandbox": {"enabled": true, "allowUnsandboxedCommands": false, "network": {
                "allowedDomains": ["github.com", "*.npmjs.example", "github.com"],
                "deniedDomains": ["paste.example"], "allowLocalBinding": true}},
              "permissions": {"allow": ["WebFetch(domain:docs.example.com)", "Bash(ls:*)"],
                "deny": ["WebFetch(domain:evil.example)"]}}"#,
            "github.com *.npmjs.example loopback docs.example.com | paste.example evil.example | ",
        );
        check(r#"{"permissions": {"allow": ["WebFetch"]}}"#, "* |  | the");
        check(
            r#"{"permissions": {"defaultMode": "bypassPermissions"}, "sandbox": {"enabled": true, "excludedCommands": ["docker"]}}"#,
            " |  | commands outside defaultMode",
        );
        // The sandbox runtime's own.
        check(
            r#"{"network": {"allowedDomains": ["example.com"], "deniedDomains": []}}"#,
            "example.com |  | ",
        );
        check(
            r#"{"sandbox": {"enabled": true, "allowUnsandboxedCommands": false, "network": {"allowedDomains": ["a b", 7, "ai:any"]}}}"#,
            " |  | `a `?` `ai:any`",
        );
        check("{}", " |  | ");
    }

    #[test]
    fn codex() {
        let check = |text: &str, expected: &str| check(Kind::Codex, text, expected);
        check("", " |  | ");
        check("sandbox_mode = \"workspace-write\"", " |  | ");
        check(
            "sandbox_mode = \"workspace-write\"\n[sandbox_workspace_write]\nnetwork_access = true",
            "* |  | sandbox_mode",
        );
        check("default_permissions = \":workspace\"", " |  | ");
        check("default_permissions = \":danger-full-access\"", "* |  | the");
        let profile = "default_permissions = \"mine\"\n[permissions.mine.network]\nenabled = true\n[permissions.mine.network.domains]\n\"api.example.com\" = \"allow\"\n\"**.example.net\" = \"allow\"\n\"paste.example\" = \"deny\"\n[permissions.other.network]\nenabled = true\n[permissions.other.network.domains]\n\"x.example\" = \"allow\"\n";
        let listed = ".example.net api.example.com | paste.example |";
        check(profile, &format!("{listed} features.network_proxy"));
        check(&format!("{profile}[features]\nnetwork_proxy = true"), &format!("{listed} "));
        check(&format!("sandbox_mode = \"read-only\"\n{profile}"), " |  | sandbox_mode");
        check(&profile.replace("enabled = true", "enabled = false"), " |  | ");
    }

    #[test]
    fn cursor() {
        let check = |text: &str, expected: &str| check(Kind::Cursor, text, expected);
        check(
            r#"{"networkPolicy": {"default": "deny", "allow": ["registry.example", "10.0.0.0/8"], "deny": ["*.bad.example"]}}"#,
            "registry.example 10.0.0.0/8 | *.bad.example | ",
        );
        check(
            r#"{"type": "insecure_none", "networkPolicy": {"default": "allow"}}"#,
            "* |  | networkPolicy.default type",
        );
        check("{}", " |  | ");
    }

    #[test]
    fn what_is_no_file_of_settings_is_told() {
        for (kind, text) in [(Kind::Claude, "[]"), (Kind::Cursor, "{"), (Kind::Codex, "a = ")] {
            assert!(read(kind, text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}", entry in "\\PC{0,40}") {
            for kind in [Kind::Claude, Kind::Codex, Kind::Cursor] {
                drop(read(kind, &text));
            }
            let settings = serde_json::json!({"network": {"allowedDomains": [entry]}}).to_string();
            for allowed in read(Kind::Claude, &settings).unwrap().allowed {
                proptest::prop_assert!(allowed.parse::<Pattern>().is_ok());
            }
        }
    }
}
