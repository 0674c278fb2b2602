//! Rules about who should not start whom: the shipped ones, and the user's over them.
//!
//! In: `ancestry.toml`, shipped, and a file of that name in the data directory. Out: rules
//! ready for the core. A rule of the user's with an `id` that is shipped changes only the keys
//! it gives (`enabled = false`, `severity = "low"`, a longer `except_child`); with another it is
//! a rule of its own.

use std::path::Path;

use agentmon_core::authority::Ancestry;
use agentmon_core::authority::ancestry::Rule;
use anyhow::Context as _;
use serde::Deserialize;
use toml::Table;

/// Shipped.
const SHIPPED: &str = include_str!("ancestry.toml");
/// The user's, in the data directory.
pub(crate) const OWN: &str = "ancestry.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Table>,
}

/// The shipped rules with the user's over them.
///
/// # Errors
/// What is wrong with the user's file.
pub(crate) fn of_dir(data_dir: &Path) -> anyhow::Result<Ancestry> {
    let path = data_dir.join(OWN);
    let own = super::read_text(&path)?.unwrap_or_default();
    let rules = merged(SHIPPED, &own).with_context(|| path.display().to_string())?;
    Ancestry::compile(&rules)
        .map_err(|problems| super::joined(&problems).context(path.display().to_string()))
}

fn merged(shipped: &str, own: &str) -> anyhow::Result<Vec<Rule>> {
    let mut all = toml::from_str::<File>(shipped)?.rule;
    let id = |rule: &Table| rule.get("id").and_then(|id| id.as_str()).map(str::to_owned);
    for rule in toml::from_str::<File>(own)?.rule {
        let name = id(&rule).context("a rule has no id")?;
        match all.iter_mut().find(|r| id(r).as_deref() == Some(name.as_str())) {
            Some(known) => known.extend(rule),
            None => all.push(rule),
        }
    }
    let read = |rule: Table| {
        let name = id(&rule).unwrap_or_default();
        rule.try_into::<Rule>().with_context(|| format!("rule `{name}`"))
    };
    all.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_rules_are_whole_and_have_their_source() {
        let rules = merged(SHIPPED, "").unwrap();
        assert!(rules.len() >= 17);
        for rule in &rules {
            assert!(!rule.source.is_empty() && !rule.title.is_empty(), "{}", rule.id);
            let date = agentmon_core::authority::policy::Until::parse(&rule.date);
            assert!(date.is_some(), "{}", rule.id);
        }
        assert_eq!(
            Ancestry::compile(&rules).unwrap().rules(),
            rules.iter().filter(|r| r.enabled).count()
        );
    }

    #[test]
    fn the_users_keys_win_and_a_wrong_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let shipped = of_dir(dir.path()).unwrap().rules();
        let check = |own: &str, expected: Result<usize, &str>| {
            std::fs::write(dir.path().join(OWN), own).unwrap();
            match (of_dir(dir.path()), expected) {
                (Ok(rules), Ok(expected)) => assert_eq!(rules.rules(), expected, "{own}"),
                (Err(error), Err(part)) => {
                    assert!(format!("{error:#}").contains(part), "{error:#}");
                }
                (found, _) => panic!("{own}: {found:?}"),
            }
        };
        check("[[rule]]\nid = \"web-server-tool\"\nenabled = false", Ok(shipped - 1));
        check("[[rule]]\nid = \"web-server-tool\"\nseverity = \"low\"", Ok(shipped));
        check(
            "[[rule]]\nid = \"mine\"\ntitle = \"t\"\nseverity = \"low\"\nchild = \"x\"\nsource = \"me\"\ndate = \"2026-11-24\"",
            Ok(shipped + 1),
        );
        check("[[rule]]\nid = \"mine\"", Err("rule `mine`"));
        check("[[rule]]\nid = \"web-server-tool\"\nchilds = \"x\"", Err("childs"));
        check("[[rule]]\nid = \"web-server-tool\"\nto = [\"ai:any\"]", Err("no classes"));
        check("rule = 1", Err("ancestry.toml"));
    }
}
