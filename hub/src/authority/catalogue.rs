//! The AI agents and services everybody may name in a policy.
//!
//! In: `catalogue.toml`, shipped, and the user's `agents.toml` over it. Out: definitions for
//! the core (`claude-code`), classes of destinations (`ai:anthropic`, `ai:any`), and for
//! each agent what its destinations are to it. "Needed" is not "allowed": a policy decides.

use std::collections::BTreeMap;
use std::path::Path;

use agentmon_core::authority::{self, Authority, Matcher, Pattern, Policy, ProcessDef};
use anyhow::Context as _;
use serde::Deserialize;

/// Shipped.
const SHIPPED: &str = include_str!("catalogue.toml");
/// The user's, in the data directory.
const OWN: &str = "agents.toml";

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
    pub(crate) shared: Vec<String>,
    /// Where this is from, and when it was looked at.
    pub(crate) source: String,
    pub(crate) date: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    agent: Vec<Agent>,
}

/// All agents, by id.
#[derive(Clone, Debug)]
pub(crate) struct Agents(BTreeMap<String, Agent>);

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
            all.0.extend(own.agent.into_iter().map(|agent| (agent.id.clone(), agent)));
            let problems = all.problems();
            anyhow::ensure!(problems.is_empty(), "{}: {}", path.display(), problems.join("; "));
        }
        Ok(all)
    }

    /// The shipped ones.
    pub(crate) fn shipped() -> Self {
        let file: File = toml::from_str(SHIPPED).expect("the shipped catalogue is tested");
        Self(file.agent.into_iter().map(|agent| (agent.id.clone(), agent)).collect())
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Agent> {
        self.0.get(id)
    }

    /// For the core.
    pub(crate) fn catalogue(&self) -> authority::Catalogue {
        let mut class: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for agent in self.0.values() {
            let own = agent.needs.iter().chain(&agent.optional).filter(|p| !p.starts_with("ai:"));
            let own = own.filter(|p| !p.starts_with("lan") && !p.starts_with("loopback"));
            class.entry(format!("ai:{}", agent.provider)).or_default().extend(own.cloned());
        }
        let any = class.keys().cloned().collect();
        class.insert("ai:any".into(), any);
        authority::Catalogue { process: self.0.values().map(definition).collect(), class }
    }

    fn problems(&self) -> Vec<String> {
        let all = self.0.values().flat_map(|a| a.needs.iter().chain(&a.optional).chain(&a.shared));
        let bad = all.filter_map(|text| text.parse::<Pattern>().err());
        let compiled = Authority::compile(&Policy::default(), &self.catalogue());
        let refused = compiled.err().unwrap_or_default();
        bad.map(|e| e.to_string()).chain(refused.iter().map(ToString::to_string)).collect()
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

/// A policy by which what each agent needs, may use and shares is told apart: `part` is one of
/// the three lists.
pub(crate) fn parts(agents: &Agents, part: fn(&Agent) -> &Vec<String>) -> Authority {
    let grants = agents.0.values().map(|agent| authority::Grant {
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
        assert!(agents.0.len() >= 13);
        for agent in agents.0.values() {
            assert!(!agent.needs.is_empty() && !agent.source.is_empty(), "{}", agent.id);
            assert!(authority::policy::Until::parse(&agent.date).is_some(), "{}", agent.id);
        }
        assert!(parts(&agents, |a| &a.needs).rules() > parts(&agents, |a| &a.shared).rules());
        assert!(parts(&agents, |a| &a.optional).rules() > 0);
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
