//! The configuration of the Python program of the same name, as a hub's.
//!
//! In: its TOML. Out: a `hub.toml` with what has an equal here, the addresses of clients it
//! knew by name, and a line for each key that has none, with what to do instead. Pure. No
//! secret is taken over: where it is to be put is said.

use std::collections::HashMap;
use std::net::IpAddr;

use agentmon_core::name::Name;
use anyhow::Context as _;
use toml::{Table, Value};

/// What its configuration comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapped {
    /// A `hub.toml`.
    pub hub: String,
    /// Addresses by the names it gave to clients.
    pub names: HashMap<String, IpAddr>,
    /// What has no equal, or needs a person.
    pub report: Vec<String>,
}

/// Maps it.
///
/// # Errors
/// What is no TOML, with its line.
pub fn map(text: &str) -> anyhow::Result<Mapped> {
    let mut config: Table = text.parse().context("the Python program's configuration")?;
    let mut m = Mapping::default();
    m.analyzer(section(&mut config, "analyzer"));
    m.feeds(section(&mut config, "threat_feeds"));
    m.anomalies(section(&mut config, "volume_anomaly"), section(&mut config, "device_activity"));
    m.retention(section(&mut config, "retention"));
    m.syslog(section(&mut config, "syslog"));
    m.slack(section(&mut config, "slack"), section(&mut config, "alerting"));
    m.models(
        section(&mut config, "llm"),
        section(&mut config, "anthropic"),
        section(&mut config, "watchdog"),
    );
    m.clients(section(&mut config, "client_resolver"));
    for (name, what) in ELSEWHERE {
        if config.remove(*name).is_some() {
            m.report.push(format!("[{name}]: {what}"));
        }
    }
    for name in config.keys() {
        m.report.push(format!("[{name}]: not known; left out"));
    }
    let mut hub = String::from("# Made of the configuration of the Python agentmon.\n");
    for (section, lines) in &m.sections {
        hub.push_str(&format!("\n[{section}]\n{lines}"));
    }
    Ok(Mapped { hub, names: m.names, report: m.report })
}

/// Sections without an equal in the hub's configuration.
const ELSEWHERE: &[(&str, &str)] = &[
    ("database", "nothing to set; the store is in the data directory (--data)"),
    (
        "pihole",
        "set at the sensor: collect.pihole, collect.pihole_ftl or collect.pihole_ssh in router.toml",
    ),
    ("virustotal", "no equal"),
    ("parental_controls", "no equal"),
    ("dashboard", "no equal; the router's page in LuCI, and this command line"),
];

fn section(config: &mut Table, name: &str) -> Table {
    match config.remove(name) {
        Some(Value::Table(table)) => table,
        _ => Table::new(),
    }
}

#[derive(Default)]
struct Mapping {
    sections: Vec<(&'static str, String)>,
    names: HashMap<String, IpAddr>,
    report: Vec<String>,
}

fn texts(value: Option<Value>) -> Vec<String> {
    match value {
        Some(Value::Array(items)) => {
            items.into_iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

fn number(value: Option<Value>) -> Option<f64> {
    value.and_then(|v| v.as_float().or_else(|| v.as_integer().map(|n| n as f64)))
}

fn is_on(section: &Table) -> bool {
    section.get("enabled").and_then(Value::as_bool).unwrap_or(false)
}

impl Mapping {
    /// `key = value` in a section of hub.toml.
    fn set(&mut self, section: &'static str, key: &str, value: impl Into<Value>) {
        let line = format!("{key} = {}\n", value.into());
        match self.sections.iter_mut().find(|(name, _)| *name == section) {
            Some((_, lines)) => lines.push_str(&line),
            None => self.sections.push((section, line)),
        }
    }

    fn none(&mut self, section: &str, key: &str, why: &str) {
        self.report.push(format!("{section}.{key}: {why}"));
    }

    /// Of `*.example.com` and `example.com`: the names; what is none is reported.
    fn names_of(&mut self, key: &str, texts: Vec<String>) -> Vec<Value> {
        let mut names = Vec::new();
        for text in texts {
            let bare = text.strip_prefix("*.").unwrap_or(&text);
            match Name::parse(bare.as_bytes()) {
                Ok(name) if name.as_str().contains('.') => names.push(name.as_str().into()),
                _ => {
                    let text = agentmon_core::name::printable(text.as_bytes(), 80);
                    self.none("analyzer", key, &format!("`{text}` is no domain; left out"));
                }
            }
        }
        names
    }

    fn analyzer(&mut self, mut analyzer: Table) {
        let allow = texts(analyzer.remove("allowlist"));
        let allow = self.names_of("allowlist", allow);
        let watched = texts(analyzer.remove("watched_domains"));
        let watched = self.names_of("watched_domains", watched);
        let patterns = texts(analyzer.remove("known_bad_patterns"));
        let patterns: Vec<Value> = patterns.into_iter().map(Value::from).collect();
        for (key, list) in [("allow", allow), ("watched", watched), ("patterns", patterns)] {
            if !list.is_empty() {
                self.set("lists", key, list);
            }
        }
        if analyzer.remove("learning_mode").and_then(|v| v.as_bool()) == Some(true) {
            self.set("detect", "learning", true);
        }
        for key in analyzer.keys() {
            self.report.push(format!("analyzer.{key}: {}", analyzer_why(key)));
        }
    }

    fn feeds(&mut self, feeds: Table) {
        if is_on(&feeds) {
            let feed =
                |name: &str| Value::from(Table::from_iter([("feed".to_owned(), name.into())]));
            self.set("lists", "sources", vec![feed("urlhaus"), feed("cert-pl")]);
        }
    }

    fn anomalies(&mut self, mut volume: Table, mut activity: Table) {
        if let Some(days) = number(volume.remove("learning_days")) {
            self.set("detect.baseline", "learning_days", days as i64);
        }
        if let Some(sigma) = number(volume.remove("sensitivity_sigma")) {
            self.report.push(format!(
                "volume_anomaly.sensitivity_sigma = {sigma}: detect.baseline.volume_z is robust and on a \
                 log scale; the default is kept"
            ));
        }
        if let Some(days) = number(activity.remove("learning_days")) {
            self.set("detect.leaks", "learning_days", days as i64);
        }
        for (section, table) in [("volume_anomaly", volume), ("device_activity", activity)] {
            for key in table.keys().filter(|key| *key != "enabled") {
                self.none(section, key, "no equal: what is usual is learnt for each device");
            }
        }
    }

    fn retention(&mut self, mut retention: Table) {
        if !retention.is_empty() && !is_on(&retention) {
            self.report
                .push("retention.enabled = false: days are kept here as hub.toml says".into());
        }
        let keys = [("dns_events_days", "dns_days"), ("alerts_days", "findings_days")];
        for (theirs, ours) in keys {
            if let Some(days) = number(retention.remove(theirs)) {
                self.set("retention", ours, days as i64);
            }
        }
        if retention.contains_key("cleanup_interval_hours") {
            self.none(
                "retention",
                "cleanup_interval_hours",
                "not needed: it is seen to all the time",
            );
        }
    }

    fn syslog(&mut self, mut syslog: Table) {
        if syslog.is_empty() {
            return;
        }
        let port = number(syslog.remove("port")).unwrap_or(1514.0) as i64;
        let bind = syslog.remove("bind_address").and_then(|v| v.as_str().map(str::to_owned));
        let at = Value::from(vec![format!("{}:{port}", bind.as_deref().unwrap_or("0.0.0.0"))]);
        let protocol = syslog.remove("protocol").and_then(|v| v.as_str().map(str::to_owned));
        self.set("syslog", "enabled", true);
        let none = || Value::from(Vec::<Value>::new());
        let both = protocol.as_deref() == Some("both");
        let tcp = both || protocol.as_deref() != Some("udp");
        self.set("syslog", "udp", if both || !tcp { at.clone() } else { none() });
        self.set("syslog", "tcp", if tcp { at } else { none() });
        let allowed: Vec<Value> = texts(syslog.remove("allowed_ips"))
            .into_iter()
            .filter_map(|ip| ip.parse::<IpAddr>().ok())
            .map(|ip| ipnet::IpNet::from(ip).to_string().into())
            .collect();
        if allowed.is_empty() {
            self.none(
                "syslog",
                "allowed_ips",
                "empty let everybody in; say in syslog.allow who may send",
            );
        } else {
            self.set("syslog", "allow", allowed);
        }
        let keys = [
            ("lag_threshold_seconds", "lag_seconds"),
            ("rate_limit_per_second", "messages_per_second"),
        ];
        for (theirs, ours) in keys {
            if let Some(n) = number(syslog.remove(theirs)).filter(|n| *n >= 1.0) {
                self.set("syslog", ours, n as i64);
            }
        }
    }

    fn slack(&mut self, mut slack: Table, mut alerting: Table) {
        if !is_on(&slack) {
            return;
        }
        let severity = slack.remove("min_severity").or_else(|| alerting.remove("min_severity"));
        let severity = severity.as_ref().and_then(Value::as_str).unwrap_or("medium").to_owned();
        let target = [
            ("name", "slack".to_owned()),
            ("kind", "slack".to_owned()),
            ("url_file", "/etc/agentmon/slack.url".to_owned()),
            ("min_severity", severity),
        ];
        let target = Table::from_iter(target.map(|(key, value)| (key.to_owned(), value.into())));
        self.set("deliver", "targets", vec![Value::from(target)]);
        self.report.push(
            "slack.webhook_url: put the address into /etc/agentmon/slack.url, readable by the hub only".into(),
        );
    }

    fn models(&mut self, mut llm: Table, anthropic: Table, mut watchdog: Table) {
        if is_on(&llm) {
            let model = llm.remove("triage_model");
            let model = model.as_ref().and_then(Value::as_str).unwrap_or("phi3:3.8b").to_owned();
            self.set("llm.tier1", "enabled", true);
            self.set("llm.tier1", "url", "http://127.0.0.1:11434");
            self.set("llm.tier1", "model", model);
        }
        for (key, why) in [
            ("escalation_model", "tier 2 is a service or a second endpoint: [llm.tier2]"),
            ("downgrade_enabled", "no equal: an opinion never makes an alert smaller"),
        ] {
            if llm.contains_key(key) {
                self.none("llm", key, why);
            }
        }
        if anthropic.contains_key("api_key") {
            self.report.push(
                "anthropic.api_key: put it into a file and name that in llm.tier2.secret_file"
                    .into(),
            );
        }
        if is_on(&watchdog) {
            let model = watchdog.remove("model").and_then(|v| v.as_str().map(str::to_owned));
            let model = model.unwrap_or_default();
            self.report.push(format!(
                "watchdog: no equal; {model} can be asked about single alerts by [llm.tier2]"
            ));
        }
    }

    fn clients(&mut self, mut resolver: Table) {
        let Some(Value::Array(mappings)) = resolver.remove("mappings") else { return };
        for mapping in mappings {
            let text = |key| mapping.get(key).and_then(Value::as_str);
            let (Some(ip), Some(name)) = (text("ip"), text("name")) else { continue };
            if let Ok(ip) = ip.parse::<IpAddr>() {
                self.names.insert(name.to_owned(), ip);
                let name = agentmon_core::name::printable(name.as_bytes(), 64);
                self.report
                    .push(format!("client_resolver.mappings: agentmon devices name {ip} {name}"));
            }
        }
    }
}

fn analyzer_why(key: &str) -> &'static str {
    match key {
        "entropy_threshold" | "entropy_min_length" => "no equal: a trained model judges names",
        "ignore_suffixes" => "not needed: local names are not judged",
        "trusted_infrastructure" | "dga_min_queries_suppress" | "dga_min_clients_suppress" => {
            "not needed: how known a name is here is part of the score"
        }
        "alert_dedup_window" | "alert_dedup_cache_size" => "not needed: findings fold into alerts",
        _ => "no equal: rates are judged at the sensor (tier0.* in router.toml)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = r#"
        [database]
        path = "/var/lib/agentmon/events.db"
        [analyzer]
        entropy_threshold = 3.5
        learning_mode = true
        allowlist = ["*.icloud.com", "localhost", "ctldl.windowsupdate.com"]
        watched_domains = ["api.openai.com"]
        known_bad_patterns = ["c2-", "beacon"]
        [syslog]
        port = 1514
        protocol = "both"
        allowed_ips = ["192.0.2.2"]
        lag_threshold_seconds = 120
        [slack]
        enabled = true
        webhook_url = "https://hooks.slack.com/services/T0/B0/secret"
        min_severity = "high"
        [retention]
        enabled = true
        dns_events_days = 30
        [volume_anomaly]
        enabled = true
        learning_days = 14
        [llm]
        enabled = true
        triage_model = "qwen3:8b"
        downgrade_enabled = true
        [threat_feeds]
        enabled = true
        [[client_resolver.mappings]]
        ip = "192.0.2.100"
        name = "nas"
        [parental_controls]
        enabled = false
        [surprise]
        a = 1
    "#;

    #[test]
    fn what_has_an_equal_is_a_hubs_configuration() {
        let mapped = map(THEIRS).unwrap();
        let config =
            crate::config::Config::parse(&mapped.hub, std::path::Path::new("hub.toml")).unwrap();
        assert_eq!(config.lists.allow, ["icloud.com", "ctldl.windowsupdate.com"]);
        assert_eq!(config.lists.watched, ["api.openai.com"]);
        assert_eq!(config.lists.patterns, ["c2-", "beacon"]);
        assert_eq!(config.lists.sources.len(), 2);
        assert!(config.detect.learning && config.llm.tier1.enabled);
        assert_eq!(config.detect.baseline.learning_days, 14);
        assert_eq!(config.retention.dns_days, 30);
        assert_eq!(config.llm.tier1.model, "qwen3:8b");
        assert_eq!(mapped.names.get("nas"), Some(&"192.0.2.100".parse().unwrap()));
        assert!(mapped.hub.contains("[\"0.0.0.0:1514\"]") && mapped.hub.contains("192.0.2.2/32"));
    }

    #[test]
    fn what_has_none_is_said_and_no_secret_is_taken() {
        let mapped = map(THEIRS).unwrap();
        let all = mapped.report.join("\n");
        for part in [
            "analyzer.entropy_threshold: no equal",
            "`localhost` is no domain",
            "[parental_controls]: no equal",
            "[surprise]: not known",
            "slack.webhook_url: put the address into",
            "agentmon devices name 192.0.2.100 nas",
            "llm.downgrade_enabled: no equal",
        ] {
            assert!(all.contains(part), "`{part}` is not in:\n{all}");
        }
        assert!(!all.contains("secret\n") && !mapped.hub.contains("hooks.slack.com"));
    }

    #[test]
    fn nothing_makes_nothing_and_nonsense_is_an_error() {
        let mapped = map("").unwrap();
        assert_eq!(mapped.report, Vec::<String>::new());
        assert!(crate::config::Config::parse(&mapped.hub, std::path::Path::new("h")).is_ok());
        assert!(map("[analyzer").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_in_it_stays_a_value(text in ".{0,60}") {
            let theirs = Table::from_iter([(
                "analyzer".to_owned(),
                Value::from(Table::from_iter([(
                    "known_bad_patterns".to_owned(),
                    Value::from(vec![text.clone()]),
                )])),
            )]);
            let mapped = map(&theirs.to_string()).unwrap();
            let hub: Table = mapped.hub.parse().unwrap();
            let patterns = hub.get("lists").and_then(|l| l.get("patterns")).cloned();
            proptest::prop_assert_eq!(patterns, Some(Value::from(vec![text])));
        }
    }
}
