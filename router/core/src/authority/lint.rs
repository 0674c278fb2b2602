//! What in a policy is wrong, and what does nothing.
//!
//! In: a policy, the catalogue, today. Out: all [`Problem`]s: errors first as
//! [`Authority::compile`](super::Authority::compile) has them, then warnings. Patterns are
//! compared within one subject only: quadratic in the patterns of a subject, which the first
//! [`COMPARED_MAX`] bound.

use std::collections::BTreeMap;

use super::compile::{Build, Catalogue, GROUP, Problem};
use super::pattern::Pattern;
use super::policy::{Grant, Policy, Some1};
use crate::time::Timestamp;

/// Patterns of one subject compared with each other.
const COMPARED_MAX: usize = 2_000;

/// One pattern, opened, with where it stands.
struct Written<'a> {
    place: String,
    text: &'a str,
    patterns: Vec<Pattern>,
    grant: Option<&'a Grant>,
    denies: bool,
}

/// Everything there is to say about a policy.
#[must_use]
pub fn lint(policy: &Policy, catalogue: &Catalogue, now: Timestamp) -> Vec<Problem> {
    let mut build = Build::new(policy, catalogue);
    build.definitions();
    build.groups();
    build.grants();
    build.exceptions();
    let mut problems = std::mem::take(&mut build.problems);
    problems.extend(undefined(policy, catalogue));
    problems.extend(nobody_in(policy));
    problems.extend(unused(policy));
    problems.extend(same_look(policy));
    problems.extend(two_words(policy));
    problems.extend(expired(policy, now));
    problems.extend(empty(policy));
    for written in by_subject(&build, now).values() {
        problems.extend(compare(written));
    }
    problems.sort_by_key(|p| !p.error);
    problems
}

/// Named by a grant, defined by nobody.
fn undefined(policy: &Policy, catalogue: &Catalogue) -> Vec<Problem> {
    let known =
        |id: &String| policy.process.iter().chain(&catalogue.process).any(|def| def.id == *id);
    let grants = policy.authority.iter().enumerate();
    let grants = grants.map(|(n, g)| (format!("authority[{n}].process"), &g.process));
    let exceptions = policy.exception.iter().enumerate();
    let exceptions = exceptions.map(|(n, e)| (format!("exception[{n}].process"), &e.process));
    let named =
        grants.chain(exceptions).flat_map(|(p, ids)| ids.iter().map(move |id| (p.clone(), id)));
    let tell = |(place, id): (String, &String)| {
        let text = format!(
            "`{id}` is not defined, so it is known by its name alone, which any program can take; \
             add a [[process]] with its path, hash or signature"
        );
        Problem::warning(place, text)
    };
    named.filter(|(_, id)| !known(id)).map(tell).collect()
}

/// Defined, and named by no grant.
fn unused(policy: &Policy) -> Vec<Problem> {
    let lists = policy.authority.iter().map(|g| &g.process);
    let lists = lists.chain(policy.exception.iter().map(|e| &e.process));
    let ancestors = policy.process.iter().flat_map(|d| d.any.iter().map(|m| &m.ancestor));
    let named: Vec<&String> = lists.chain(ancestors).flat_map(|ids: &Some1| ids.iter()).collect();
    let defs = policy.process.iter().enumerate();
    let defs = defs.filter(|(_, def)| !named.contains(&&def.id));
    defs.map(|(n, def)| {
        let text = format!("`{}` has no grant: `[defaults]` decides about it", def.id);
        Problem::warning(format!("process[{n}]"), text)
    })
    .chain(policy.process.iter().enumerate().filter(|(_, def)| def.any.is_empty()).map(|(n, _)| {
        Problem::warning(format!("process[{n}].any"), "empty: no process will ever be this one")
    }))
    .collect()
}

/// Groups that grants name and nobody defines.
fn nobody_in(policy: &Policy) -> Vec<Problem> {
    let grants = policy.authority.iter().enumerate();
    let grants = grants.map(|(n, g)| (format!("authority[{n}].hosts"), &g.hosts));
    let exceptions = policy.exception.iter().enumerate();
    let exceptions = exceptions.map(|(n, e)| (format!("exception[{n}].hosts"), &e.hosts));
    let groups = policy.group.iter().map(|(name, hosts)| (format!("group.{name}"), hosts));
    let all = grants.chain(exceptions).chain(groups);
    let named = all.flat_map(|(p, hosts)| hosts.iter().map(move |host| (p.clone(), host)));
    let named = named.filter_map(|(p, host)| Some((p, host.strip_prefix(GROUP)?)));
    let missing = named.filter(|(_, name)| !policy.group.contains_key(*name));
    missing
        .map(|(place, name)| {
            let text =
                format!("no host is in group `{name}`: add `{name} = [\"HOST\"]` under [group]");
            Problem::warning(place, text)
        })
        .collect()
}

/// A definition that looks like an earlier one in all its forms is never anybody.
fn same_look(policy: &Policy) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, def) in policy.process.iter().enumerate().filter(|(_, def)| !def.any.is_empty()) {
        let earlier = policy.process.iter().take(n).find(|other| {
            other.tree == def.tree && def.any.iter().all(|form| other.any.contains(form))
        });
        if let Some(other) = earlier {
            let text =
                format!("`{}` is dead: `{}` looks the same and comes first", def.id, other.id);
            problems.push(Problem::warning(format!("process[{n}]"), text));
        }
    }
    problems
}

/// Two grants of one subject for the same hosts and users that say different things of what
/// neither names.
fn two_words(policy: &Policy) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, grant) in policy.authority.iter().enumerate().take(COMPARED_MAX) {
        let Some(word) = grant.otherwise else { continue };
        let same = |other: &&Grant| {
            other.process == grant.process
                && other.hosts == grant.hosts
                && other.users == grant.users
                && other.otherwise.is_some_and(|o| o != word)
        };
        if let Some(other) = policy.authority.iter().take(n).find(same) {
            let strictest = other.otherwise.map_or(word, |o| o.max(word));
            let text = format!(
                "another grant of the same process says something else; the strictest holds: {}",
                strictest.as_str()
            );
            problems.push(Problem::warning(format!("authority[{n}].otherwise"), text));
        }
    }
    problems
}

fn expired(policy: &Policy, now: Timestamp) -> Vec<Problem> {
    let all = policy.exception.iter().enumerate();
    all.filter(|(_, e)| e.until.0 <= now)
        .map(|(n, e)| {
            let text = format!("is over since {}; remove it", e.until.0);
            Problem::warning(format!("exception[{n}].until"), text)
        })
        .collect()
}

/// A grant that says nothing but has an effect: all is outside it.
fn empty(policy: &Policy) -> Vec<Problem> {
    let all = policy.authority.iter().enumerate();
    let silent =
        all.filter(|(_, g)| g.allowed.is_empty() && g.denied.is_empty() && g.otherwise.is_none());
    let limits = |g: &Grant| {
        g.max_upload.is_some() || g.max_download.is_some() || g.max_connections.is_some()
    };
    silent
        .filter(|(_, g)| !limits(g))
        .map(|(n, _)| {
            let text = "allows nothing and denies nothing: every connection is outside it; say `otherwise` if that is meant";
            Problem::warning(format!("authority[{n}]"), text)
        })
        .collect()
}

fn by_subject<'a>(build: &Build<'a>, now: Timestamp) -> BTreeMap<String, Vec<Written<'a>>> {
    let policy = build.policy;
    let mut all: BTreeMap<String, Vec<Written<'a>>> = BTreeMap::new();
    let mut add = |process: &Some1,
                   place: String,
                   text: &'a str,
                   grant: Option<&'a Grant>,
                   denies| {
        let Ok(patterns) = build.open(text) else { return };
        let subjects = if process.is_empty() { vec![String::new()] } else { process.to_vec() };
        for subject in subjects {
            let written =
                Written { place: place.clone(), text, patterns: patterns.clone(), grant, denies };
            let list = all.entry(subject).or_default();
            if list.len() < COMPARED_MAX {
                list.push(written);
            }
        }
    };
    for (n, grant) in policy.authority.iter().enumerate() {
        for (key, list, denies) in
            [("denied", &grant.denied, true), ("allowed", &grant.allowed, false)]
        {
            for (i, text) in list.iter().enumerate() {
                add(
                    &grant.process,
                    format!("authority[{n}].{key}[{i}]"),
                    text,
                    Some(grant),
                    denies,
                );
            }
        }
    }
    for (n, exception) in policy.exception.iter().enumerate().filter(|(_, e)| e.until.0 > now) {
        for (i, text) in exception.allowed.iter().enumerate() {
            add(&exception.process, format!("exception[{n}].allowed[{i}]"), text, None, false);
        }
    }
    all
}

/// Whether the one grant holds wherever the other does.
fn holds_wherever(wide: Option<&Grant>, narrow: Option<&Grant>) -> bool {
    let (Some(wide), Some(narrow)) = (wide, narrow) else { return false };
    let covers = |wide: &Some1, narrow: &Some1| wide.is_empty() || wide == narrow;
    covers(&wide.hosts, &narrow.hosts)
        && covers(&wide.users, &narrow.users)
        && wide.require <= narrow.require
}

fn compare(all: &[Written<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, this) in all.iter().enumerate() {
        let within = |other: &Written<'_>| {
            let covered = |p: &Pattern| other.patterns.iter().any(|o| denied(p, o, other.denies));
            !this.patterns.is_empty() && this.patterns.iter().all(covered)
        };
        let denial = all.iter().find(|other| {
            other.denies
                && !this.denies
                && within(other)
                && (this.grant.is_none() || holds_wherever(other.grant, this.grant))
        });
        match (denial, this.grant) {
            (Some(by), None) => problems.push(Problem::warning(
                &this.place,
                format!("lets `{}` through, which `{}` ({}) denies", this.text, by.text, by.place),
            )),
            (Some(by), Some(_)) => problems.push(Problem::warning(
                &this.place,
                format!("`{}` is dead: `{}` ({}) denies all of it", this.text, by.text, by.place),
            )),
            (None, _) => {}
        }
        let same = all.iter().enumerate().find(|(m, other)| {
            *m != n && other.denies == this.denies && this.grant.is_some() && within(other)
                && holds_wherever(other.grant, this.grant)
                // Of two that are equal, the later one is told.
                && (*m < n || !other.patterns.iter().all(|o| this.patterns.iter().any(|p| o.is_within(p))))
        });
        if let Some((_, by)) = same.filter(|_| denial.is_none()) {
            let text =
                format!("`{}` is shadowed: `{}` ({}) covers it", this.text, by.text, by.place);
            problems.push(Problem::warning(&this.place, text));
        }
    }
    problems
}

/// A denied name is denied with all below it.
fn denied(inner: &Pattern, outer: &Pattern, denies: bool) -> bool {
    use super::pattern::Place;
    match &outer.place {
        Place::Exact(name) if denies => {
            let wide = Pattern { place: Place::AtOrBelow(name.clone()), ..outer.clone() };
            inner.is_within(&wide)
        }
        _ => inner.is_within(outer),
    }
}
