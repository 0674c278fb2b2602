//! The AI agents and services everybody may name in a policy.
//!
//! In: `catalogue.toml` and `services.toml`, shipped, and the user's `agents.toml` over them.
//! Out: definitions for the core (`claude-code`), classes of destinations (`ai:anthropic`,
//! `ai:any`, and `telemetry:shared`: counters that thousands of programs use), and for each
//! agent what its destinations are to it. "Needed" is not "allowed": a policy decides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use agentmon_core::authority::{self, Authority, Matcher, Pattern, Policy, ProcessDef};
use anyhow::Context as _;
use serde::Deserialize;

/// Shipped.
const SHIPPED: &str = include_str!("catalogue.toml");
/// Shipped, the services.
const SERVICES: &str = include_str!("services.toml");
/// The user's, in the data directory.
pub(crate) const OWN: &str = "agents.toml";

/// One agent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agent {
    pub(crate) id: String,
    pub(crate) title: String,
    /// The class of its destinations: `ai:PROVIDER`.
    pub(crate) provider: String,
    pub(crate) any: Vec<Matcher>,
    #[serde(default)]
    pub(crate) except_children: Vec<String>,
    pub(crate) needs: Vec<String>,
    #[serde(default)]
    pub(crate) optional: Vec<String>,
    #[serde(default)]
    pub(crate) telemetry: Vec<String>,
    #[serde(default)]
    pub(crate) shared: Vec<String>,
    /// Where this is from, and when it was looked at.
    pub(crate) source: String,
    pub(crate) date: String,
}

/// A service, whoever uses it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) provider: String,
    pub(crate) title: String,
    pub(crate) places: Vec<String>,
    /// As an agent's.
    pub(crate) source: String,
    pub(crate) date: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    agent: Vec<Agent>,
    #[serde(default)]
    service: Vec<Service>,
}

/// All agents, by id, and all services, by provider.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agents {
    agents: BTreeMap<String, Agent>,
    services: BTreeMap<String, Service>,
}

impl Agents {
    /// The shipped ones, with the user's over them.
    ///
    /// # Errors
    /// What is wrong with the user's file.
    pub(crate) fn of_dir(data_dir: &Path) -> anyhow::Result<Self> {
        let mut all = Self::shipped();
        let path = data_dir.join(OWN);
        if let Some(text) = super::read_text(&path)? {
            let own: File = toml::from_str(&text).with_context(|| path.display().to_string())?;
            all.take(own);
            let problems = all.problems();
            anyhow::ensure!(problems.is_empty(), "{}: {}", path.display(), problems.join("; "));
        }
        Ok(all)
    }

    /// The shipped ones.
    pub(crate) fn shipped() -> Self {
        let mut all = Self::default();
        for text in [SHIPPED, SERVICES] {
            all.take(toml::from_str(text).expect("the shipped catalogue is tested"));
        }
        all
    }

    fn take(&mut self, file: File) {
        self.agents.extend(file.agent.into_iter().map(|agent| (agent.id.clone(), agent)));
        self.services.extend(file.service.into_iter().map(|s| (s.provider.clone(), s)));
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Agent> {
        self.agents.get(id)
    }

    /// For the core.
    pub(crate) fn catalogue(&self) -> authority::Catalogue {
        let mut class: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for service in self.services.values() {
            class.insert(format!("ai:{}", service.provider), service.places.clone());
        }
        // What an agent may use as well (code hosts, log-ins) is no service of its maker's.
        for agent in self.agents.values() {
            let own = agent.needs.iter().chain(&agent.telemetry).filter(|p| !p.starts_with("ai:"));
            let own = own.filter(|p| !p.starts_with("lan") && !p.starts_with("loopback"));
            let places = class.entry(format!("ai:{}", agent.provider)).or_default();
            let own: Vec<String> = own.filter(|p| !places.contains(p)).cloned().collect();
            places.extend(own);
        }
        let any = class.keys().cloned().collect();
        class.insert("ai:any".into(), any);
        let shared: BTreeSet<&String> = self.agents.values().flat_map(|a| &a.shared).collect();
        class.insert("telemetry:shared".into(), shared.into_iter().cloned().collect());
        authority::Catalogue { process: self.agents.values().map(definition).collect(), class }
    }

    fn problems(&self) -> Vec<String> {
        let of = |a: &Agent| {
            [&a.needs, &a.optional, &a.telemetry, &a.shared].map(Vec::clone).into_iter().flatten()
        };
        let all = self.agents.values().flat_map(of);
        let all = all.chain(self.services.values().flat_map(|s| s.places.clone()));
        let bad = all.filter_map(|text| text.parse::<Pattern>().err());
        let from = self.agents.values().map(|a| (&a.id, &a.title, &a.source, &a.date));
        let services = self.services.values();
        let from = from.chain(services.map(|s| (&s.provider, &s.title, &s.source, &s.date)));
        let said = |title: &str, source: &str, date: &str| {
            let date = authority::policy::Until::parse(date).is_some();
            date && !title.is_empty() && !source.is_empty()
        };
        let unsaid = from.filter(|(_, title, source, date)| !said(title, source, date));
        let unsaid: Vec<String> = unsaid
            .map(|(name, ..)| {
                format!("`{name}` wants a title, a source and the date it was looked at")
            })
            .collect();
        let compiled = Authority::compile(&Policy::default(), &self.catalogue());
        let refused = compiled.err().unwrap_or_default();
        let bad = bad.map(|e| e.to_string()).chain(unsaid);
        bad.chain(refused.iter().map(ToString::to_string)).collect()
    }
}

fn definition(agent: &Agent) -> ProcessDef {
    ProcessDef {
        id: agent.id.clone(),
        any: agent.any.clone(),
        tree: true,
        except_children: agent.except_children.clone(),
        comment: agent.title.clone(),
    }
}

/// A policy by which what each agent needs, may use, counts by and shares is told apart: `part`
/// is one of the four lists.
pub(crate) fn parts(agents: &Agents, part: fn(&Agent) -> &Vec<String>) -> Authority {
    let grants = agents.agents.values().map(|agent| authority::Grant {
        process: authority::policy::Some1(vec![agent.id.clone()]),
        allowed: authority::policy::Some1(part(agent).clone()),
        otherwise: Some(authority::Mode::Learn),
        ..authority::Grant::default()
    });
    let policy = Policy { authority: grants.collect(), ..Policy::default() };
    Authority::compile(&policy, &agents.catalogue()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_catalogue_is_whole() {
        let agents = Agents::shipped();
        assert_eq!(agents.problems(), Vec::<String>::new());
        assert!(agents.agents.len() >= 37 && agents.services.len() >= 100);
        assert!(agents.agents.values().all(|agent| !agent.needs.is_empty()));
        assert!(agents.services.values().all(|service| !service.places.is_empty()));
        assert!(parts(&agents, |a| &a.needs).rules() > parts(&agents, |a| &a.shared).rules());
        assert!(parts(&agents, |a| &a.optional).rules() > 0);
    }

    /// Who is who on each system, as its installers lay it out.
    #[test]
    fn agents_are_known_where_they_are_installed() {
        use agentmon_core::event::{Process, Program};
        let agents = Agents::shipped();
        let who = Authority::compile(&Policy::default(), &agents.catalogue()).unwrap();
        let check = |line: &str, expected: &str| {
            let (exe, argv) = line.split_once(" | ").unwrap_or((line, ""));
            let name = exe.rsplit(['/', '\\']).next().unwrap_or(exe);
            let argv = argv.split(' ').map(str::to_owned).collect();
            let program =
                Program { name: name.into(), exe: Some(exe.into()), argv, ..Program::default() };
            let process = Process { program, ..Process::default() };
            let found = who.identify(&process).map_or("nobody".to_owned(), |i| {
                format!("{} {}", who.id_of(i).unwrap_or_default(), i.strength.as_str())
            });
            assert_eq!(found, expected, "{line}");
        };
        let node = |path: &str| format!("/usr/bin/node | node /usr/lib/node_modules/{path}");
        check("/home/alice/.local/share/claude/versions/2.1.3", "claude-code path");
        check(r"C:\Users\Alice\AppData\Local\AnthropicClaude\app-1\claude.exe", "claude-code path");
        check(&node("@anthropic-ai/claude-code/cli.js"), "claude-code argv");
        check("/usr/lib/node_modules/@openai/codex/vendor/x/codex", "codex path");
        check("/Applications/Cursor.app/Contents/MacOS/Cursor", "cursor path");
        check("/usr/share/windsurf/windsurf", "windsurf path");
        check(r"C:\Users\a\AppData\Local\Programs\Kiro\Kiro.exe", "kiro path");
        check(&node("@google/gemini-cli/dist/index.js"), "gemini-cli argv");
        check(&node("@github/copilot/index.js"), "copilot argv");
        check("/usr/bin/python3.11 | python3 /home/a/.local/bin/aider -m x", "aider argv");
        check("/home/a/.opencode/bin/opencode", "opencode path");
        check("/usr/local/bin/ollama | ollama serve", "ollama path");
        check("/opt/other/claude", "claude-code name");
        for nobody in ["firefox", "curl", "git", "node", "python3", "code"] {
            check(&format!("/usr/bin/{nobody} | x /srv/app/index.js"), "nobody");
        }
    }

    /// Classes are for policies: a code host or a cloud's log-in in one would be a way out.
    #[test]
    fn classes_hold_what_is_the_makers_own() {
        let class = Agents::shipped().catalogue().class;
        let ai = class.iter().filter(|(k, _)| k.starts_with("ai:"));
        let open: Vec<&String> = ai.flat_map(|(_, places)| places).collect();
        for other in [
            "github.com",
            "api.github.com",
            "oauth2.googleapis.com",
            ".googleapis.com",
            "*.googleapis.com",
            ".awsapps.com",
            ".sentry.io",
            "*",
        ] {
            assert!(!open.iter().any(|p| *p == other), "{other}");
        }
        assert!(class["telemetry:shared"].iter().any(|p| p == ".sentry.io"));
        assert!(class["ai:anthropic"].iter().any(|p| p == "api.anthropic.com"));
        assert!(class["ai:any"].len() > 90);
    }

    /// Every provider of the list the services are made after is in a class.
    #[test]
    fn no_provider_of_the_source_is_missing() {
        let Some(data) = std::env::var_os("AGENTMON_TEST_DATA") else {
            eprintln!("SKIPPED: AGENTMON_TEST_DATA is not set: no list to compare with");
            return;
        };
        let places: Vec<String> =
            Agents::shipped().catalogue().class.into_values().flatten().collect();
        let (mut files, mut missing) = (0, Vec::new());
        for entry in std::fs::read_dir(Path::new(&data).join("agents/ai-proxy-rules")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "yaml") {
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let core = text.split("name: Core").nth(1).unwrap_or(&text);
            let core = core.split("- name:").next().unwrap_or(core);
            let domains = core.split("domainSuffix:").nth(1).unwrap_or(core);
            let mut all = domains.lines().filter_map(|l| l.trim().strip_prefix("- "));
            if !all.any(|domain| places.iter().any(|p| p.trim_start_matches('.') == domain)) {
                missing.push(path.display().to_string());
            }
        }
        assert!(files > 90 && missing.is_empty(), "{files} files, missing {missing:#?}");
    }

    #[test]
    fn the_users_file_wins_by_id_and_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let own = |needs: &str| {
            format!(
                "[[agent]]\nid = \"codex\"\ntitle = \"mine\"\nprovider = \"mine\"\nany = [{{exe = \"/opt/codex\"}}]\nneeds = [\"{needs}\"]\nsource = \"me\"\ndate = \"2026-11-01\"\n"
            )
        };
        std::fs::write(dir.path().join(OWN), own("api.example.com")).unwrap();
        let agents = Agents::of_dir(dir.path()).unwrap();
        assert_eq!(agents.get("codex").unwrap().title, "mine");
        assert!(agents.get("claude-code").is_some());
        std::fs::write(dir.path().join(OWN), own("a b")).unwrap();
        assert!(Agents::of_dir(dir.path()).unwrap_err().to_string().contains("a b"));
    }
}
