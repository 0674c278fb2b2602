//! `score`: what the lists and detectors say about names, addresses and pages, and why,
//! without a running router.
//!
//! A name is put through tier-0 as the DNS query it would be, an address as the connection:
//! same code, same verdict. The rest is what led to it: the list, its licence and origin, the
//! entry and the line it stands in where the list is a file here, what exempts it, the names
//! above it that were looked at, and the value of the model for generated names.

use std::net::{IpAddr, SocketAddr};

use agentmon_core::Name;
use agentmon_core::finding::Finding;
use agentmon_core::name::printable;
use agentmon_core::tier0::blocklist::{Blocklist, Hit, Judged};
use agentmon_core::tier0::{Engine, dga};
use anyhow::Context as _;
use serde_json::{Value, json};

use super::args::Args;
use super::{Io, Outcome, Result, config};
use crate::config::Config;
use crate::lists;

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    let config = config(&mut args)?.resolved();
    let json = args.flag("--json");
    let words = args.words()?;
    anyhow::ensure!(!words.is_empty(), "which name? For example: score www.example.com 192.0.2.1");
    let lists = lists::borrow(&config.tier0, &config.state_dir)?;
    let hub = config.hub_lists.enabled.then(|| lists::hub::kept(&config.state_dir)).flatten();
    let engine = Engine::new(&config.tier0, lists.and(hub.unwrap_or_default()));
    let mut outcome = Outcome::Fine;
    for text in words {
        let asked = Asked::parse(&text).with_context(|| format!("`{}`", super::shown(&text)))?;
        let account = asked.judge(&engine, &config);
        if !account.findings.is_empty() {
            outcome = Outcome::Found;
        }
        if json {
            writeln!(io.out, "{}", account.json())?;
        } else {
            account.write(io)?;
        }
    }
    Ok(outcome)
}

/// What is asked about.
#[derive(Debug, PartialEq)]
enum Asked {
    Name(Name),
    Address(IpAddr, Option<u16>),
}

impl Asked {
    /// A name, an address, an address with a port, or the address of a page.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let port = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(ip.to_canonical(), port));
        }
        if let Ok(at) = host.parse::<SocketAddr>() {
            return Ok(Self::Address(at.ip().to_canonical(), Some(at.port())));
        }
        let numeric = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let name = host.split_once(':').filter(|(_, p)| numeric(p)).map_or(host, |(name, _)| name);
        Ok(Self::Name(Name::parse(name.as_bytes())?))
    }

    fn judge(&self, engine: &Engine, config: &Config) -> Account {
        match self {
            Self::Name(name) => {
                let judged = engine.blocklist().judge(name);
                Account {
                    key: "name",
                    asked: name.to_string(),
                    findings: engine.verdict(name),
                    listed: listed(engine.blocklist(), config, &judged),
                    chain: name.suffixes().map(str::to_owned).collect(),
                    generated: Some(dga::score(name).value),
                }
            }
            Self::Address(ip, port) => {
                let judged = engine.blocklist().judge_address(*ip, *port);
                let asked =
                    port.map_or_else(|| ip.to_string(), |p| SocketAddr::new(*ip, p).to_string());
                Account {
                    key: "address",
                    asked,
                    findings: engine.verdict_of_address(*ip, *port),
                    listed: listed(engine.blocklist(), config, &judged),
                    chain: Vec::new(),
                    generated: None,
                }
            }
        }
    }
}

/// What led to a verdict.
#[derive(Debug)]
struct Account {
    key: &'static str,
    asked: String,
    findings: Vec<Finding>,
    listed: Vec<(&'static str, Value)>,
    /// The names looked for, longest first.
    chain: Vec<String>,
    /// What the model of generated names says, 0 to 1.
    generated: Option<f64>,
}

/// The lists' part, as keys and values.
fn listed<E: std::fmt::Display + Copy>(
    lists: &Blocklist,
    config: &Config,
    judged: &Judged<'_, E>,
) -> Vec<(&'static str, Value)> {
    let mut facts = Vec::new();
    for (what, hit) in [
        ("listed", &judged.bad),
        ("would_be_listed", &judged.pardoned),
        ("watched", &judged.watched),
    ] {
        if let Some(hit) = hit {
            facts.push((what, of(lists, config, hit)));
        }
    }
    if let Some((by, entry)) = &judged.allowed {
        facts.push(("allowed_by", json!({ "list": by, "entry": entry.to_string() })));
    }
    facts
}

fn of<E: std::fmt::Display>(lists: &Blocklist, config: &Config, hit: &Hit<'_, E>) -> Value {
    let mut fact = json!({
        "list": hit.list, "entry": hit.entry.to_string(), "score": hit.score, "block": hit.block,
    });
    let mut put = |key: &str, value: Value| {
        if let Some(fact) = fact.as_object_mut().filter(|_| !value.is_null() && value != "") {
            fact.insert(key.to_owned(), value);
        }
    };
    put("pattern", hit.pattern.into());
    put("page", hit.page.into());
    if let Some(list) = lists.lists().find(|list| list.name == hit.list) {
        put("licence", list.licence.clone().into());
        put("origin", list.about.origin.clone().into());
    }
    if let Some(list) = config.tier0.blocklist.lists.iter().find(|list| list.name == hit.list) {
        put("file", printable(list.path.as_os_str().as_encoded_bytes(), 255).into());
        put("line", lists::line_of(list, &hit.entry.to_string()).into());
    }
    fact
}

impl Account {
    fn json(&self) -> Value {
        let mut value = json!({ self.key: self.asked, "findings": self.findings });
        if let Some(fields) = value.as_object_mut() {
            fields.extend(self.listed.iter().map(|(key, fact)| ((*key).to_owned(), fact.clone())));
            if let Some(generated) = self.generated {
                fields.insert("generated".into(), generated.into());
                fields.insert("chain".into(), self.chain.clone().into());
            }
        }
        value
    }

    fn write(&self, io: &mut Io<'_>) -> std::io::Result<()> {
        let asked = &self.asked;
        if self.findings.is_empty() {
            writeln!(io.out, "{asked}: nothing found")?;
        }
        for f in &self.findings {
            let (severity, rule) = (f.severity().as_str(), &f.rule);
            writeln!(io.out, "{asked}: {severity} {rule} {:.2}: {}", f.score, f.why)?;
            for (key, value) in &f.evidence {
                writeln!(io.out, "  {key:<16} {value}")?;
            }
        }
        for (what, fact) in &self.listed {
            let fields = fact.as_object().into_iter().flatten();
            let text: Vec<String> = fields
                .map(|(key, value)| match value {
                    Value::String(text) => format!("{key} {text}"),
                    other => format!("{key} {other}"),
                })
                .collect();
            writeln!(io.out, "  {:<16} {}", what.replace('_', " "), text.join(", "))?;
        }
        if let Some(generated) = self.generated {
            writeln!(io.out, "  {:<16} {generated:.3}", "looks generated")?;
            writeln!(io.out, "  {:<16} {}", "looked for", self.chain.join(" < "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match Asked::parse(text) {
            Ok(Asked::Name(name)) => name.to_string(),
            Ok(Asked::Address(ip, port)) => format!("{ip} {port:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn names_addresses_and_pages() {
        check("WWW.Example.com.", "www.example.com");
        check("https://user@www.example.com:8443/x?y#z", "www.example.com");
        check("example.com/path", "example.com");
        check("192.0.2.1", "192.0.2.1 None");
        check("192.0.2.1:81", "192.0.2.1 Some(81)");
        check("http://192.0.2.1/x", "192.0.2.1 Some(80)");
        check("[2001:db8::1]:443", "2001:db8::1 Some(443)");
        check("https://[2001:db8::1]/", "2001:db8::1 Some(443)");
        check("::ffff:192.0.2.1", "192.0.2.1 None");
        check("a..b", "empty label");
        check("https://", "empty name");
    }
}
