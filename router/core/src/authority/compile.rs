//! A policy made ready to decide by.
//!
//! In: a [`Policy`] and the [`Catalogue`] of known agents. Out: an [`Authority`], or all that
//! is wrong, each with its place in the file. Invariants: the maxima below; a class or an
//! `ancestor` that leads back to itself is refused; no two definitions share an id.

use std::collections::{BTreeMap, HashMap};

use super::glob::Glob;
use super::identity::{Compiled, Strength};
use super::index::{Effect, Index};
use super::pattern::{Pattern, Place};
use super::policy::{Defaults, Grant, Mode, Policy, ProcessDef, Some1};
use super::quantity::Limit;
use crate::name::printable;
use crate::time::Timestamp;

/// Most definitions of processes, the catalogue's included.
pub const DEFINITIONS_MAX: usize = 4_096;
/// Most grants and exceptions.
pub const GRANTS_MAX: usize = 16_384;
/// Most patterns after classes are opened.
pub const PATTERNS_MAX: usize = 262_144;
/// Most hosts of one grant after groups are opened.
const HOSTS_MAX: usize = 4_096;
/// Groups within groups.
const GROUPS_DEEP: usize = 16;
/// What a group is written as among hosts.
pub(super) const GROUP: &str = "group:";
/// Longest `id`.
const ID_BYTES_MAX: usize = 64;
/// The only version there is.
const VERSION: u32 = 1;

/// Agents and services everybody may name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// Who is who.
    pub process: Vec<ProcessDef>,
    /// Sets of destinations.
    pub class: BTreeMap<String, Vec<String>>,
}

/// Something in a policy that is wrong, or does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the policy cannot be used.
    pub error: bool,
    /// Where: `authority[2].allowed[0]`.
    pub place: String,
    /// What, and how to mend it.
    pub text: String,
}

impl Problem {
    pub(super) fn error(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { error: true, place: place.into(), text: text.into() }
    }
    pub(super) fn warning(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { error: false, place: place.into(), text: text.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.error { "error" } else { "warning" };
        write!(f, "{kind}: {}: {}", self.place, self.text)
    }
}

/// A policy ready to decide by.
#[derive(Clone, Debug, Default)]
pub struct Authority {
    pub(super) defs: Vec<Def>,
    pub(super) by_id: HashMap<String, u32>,
    /// As many as definitions.
    pub(super) subjects: Vec<Subject>,
    /// What holds for every process.
    pub(super) everyone: Subject,
    pub(super) owners: Vec<Owner>,
    pub(super) rules: Vec<Rule>,
    pub(super) defaults: Defaults,
}

/// A definition.
#[derive(Clone, Debug)]
pub(super) struct Def {
    pub(super) id: String,
    pub(super) any: Vec<Compiled>,
    pub(super) tree: bool,
    pub(super) except_children: Vec<Glob>,
}

/// What grants say of one definition.
#[derive(Clone, Debug, Default)]
pub(super) struct Subject {
    pub(super) index: Index,
    /// Numbers of its grants; exceptions are none.
    pub(super) grants: Vec<u32>,
}

/// A grant or an exception, without its patterns.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) hosts: Vec<Glob>,
    pub(super) groups: Vec<String>,
    pub(super) users: Vec<Glob>,
    pub(super) require: Option<Strength>,
    pub(super) until: Option<Timestamp>,
    pub(super) otherwise: Mode,
    pub(super) max_upload: Option<Limit>,
    pub(super) max_download: Option<Limit>,
    pub(super) max_connections: Option<Limit>,
    pub(super) place: String,
    pub(super) comment: String,
}

/// A pattern as it was written.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) text: String,
    pub(super) place: String,
}

impl Authority {
    /// Makes a policy ready.
    ///
    /// # Errors
    /// All that is wrong with it; nothing is used then. [`super::lint`] also tells what does
    /// nothing.
    pub fn compile(policy: &Policy, catalogue: &Catalogue) -> Result<Self, Vec<Problem>> {
        let mut build = Build::new(policy, catalogue);
        build.definitions();
        build.groups();
        build.grants();
        build.exceptions();
        if build.problems.iter().any(|p| p.error) { Err(build.problems) } else { Ok(build.done) }
    }

    /// The subject's `id`.
    #[must_use]
    pub fn id_of(&self, identity: super::Identity) -> Option<&str> {
        self.defs.get(identity.subject as usize).map(|def| def.id.as_str())
    }

    /// Patterns as written, in all grants and exceptions.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules.len()
    }
}

/// Work in progress; also what [`super::lint`] is made of.
pub(super) struct Build<'a> {
    pub(super) policy: &'a Policy,
    catalogue: &'a Catalogue,
    pub(super) done: Authority,
    pub(super) problems: Vec<Problem>,
    /// Patterns after classes are opened.
    opened: usize,
}

impl<'a> Build<'a> {
    pub(super) fn new(policy: &'a Policy, catalogue: &'a Catalogue) -> Self {
        let done = Authority { defaults: policy.defaults.clone(), ..Authority::default() };
        let mut build = Self { policy, catalogue, done, problems: Vec::new(), opened: 0 };
        if policy.version.is_some_and(|version| version != VERSION) {
            build.error("version", format!("this program reads version {VERSION}"));
        }
        build
    }

    fn error(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.problems.push(Problem::error(place, text));
    }

    /// The policy's own first, then what the catalogue has beside them, then a definition by
    /// name for everybody else who is named.
    pub(super) fn definitions(&mut self) {
        let own = self.policy.process.iter().enumerate();
        let own = own.map(|(n, def)| (format!("process[{n}]"), def));
        let known = self.catalogue.process.iter().enumerate();
        let known = known.filter(|(_, def)| !self.policy.process.iter().any(|p| p.id == def.id));
        let known = known.map(|(n, def)| (format!("catalogue[{n}]"), def));
        let mut all: Vec<(String, ProcessDef)> =
            own.chain(known).map(|(place, def)| (place, def.clone())).collect();
        for (place, name) in self.named() {
            if !all.iter().any(|(_, def)| def.id == name) {
                all.push((place, by_name(name)));
            }
        }
        if all.len() > DEFINITIONS_MAX {
            self.error("process", format!("more than {DEFINITIONS_MAX} definitions"));
            return;
        }
        for (number, (place, def)) in (0u32..).zip(&all) {
            let good = !def.id.is_empty()
                && def.id.len() <= ID_BYTES_MAX
                && def.id.bytes().all(|b| b.is_ascii_graphic());
            if !good {
                self.error(format!("{place}.id"), "an id is a word of printable ASCII");
            }
            if self.done.by_id.insert(def.id.clone(), number).is_some() {
                let text = format!("`{}` is defined twice; join them", def.id);
                self.error(format!("{place}.id"), text);
            }
        }
        self.refuse_circles(&all);
        for (place, def) in &all {
            let def = self.definition(place, def);
            self.done.defs.push(def);
        }
        self.done.subjects.resize_with(all.len(), Subject::default);
    }

    /// Processes that grants and exceptions name.
    fn named(&self) -> Vec<(String, String)> {
        let grants = self.policy.authority.iter().enumerate();
        let grants = grants.map(|(n, g)| (format!("authority[{n}].process"), &g.process));
        let exceptions = self.policy.exception.iter().enumerate();
        let exceptions = exceptions.map(|(n, e)| (format!("exception[{n}].process"), &e.process));
        let all = grants.chain(exceptions);
        all.flat_map(|(p, ids)| ids.iter().map(move |id| (p.clone(), id.clone()))).collect()
    }

    fn definition(&mut self, place: &str, def: &ProcessDef) -> Def {
        let mut any = Vec::new();
        for (n, matcher) in def.any.iter().enumerate() {
            let place = format!("{place}.any[{n}]");
            if *matcher == super::Matcher::default() {
                self.error(&place, "says nothing, and would match every process");
            }
            for hash in matcher.sha256.iter() {
                if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
                    self.error(format!("{place}.sha256"), "a SHA-256 has 64 hexadecimal digits");
                }
            }
            let mut above = Vec::new();
            for id in matcher.ancestor.iter() {
                match self.done.by_id.get(id) {
                    Some(number) => above.push(*number),
                    None => self.error(format!("{place}.ancestor"), unknown(id)),
                }
            }
            any.push(Compiled::new(matcher, above));
        }
        let except_children = def.except_children.iter().map(|t| Glob::text(t)).collect();
        Def { id: def.id.clone(), any, tree: def.tree, except_children }
    }

    /// A definition that stands only below itself matches nothing.
    fn refuse_circles(&mut self, all: &[(String, ProcessDef)]) {
        let wants = |def: &ProcessDef| -> Vec<String> {
            def.any.iter().flat_map(|m| m.ancestor.iter().cloned()).collect()
        };
        let edges: HashMap<&str, Vec<String>> =
            all.iter().map(|(_, def)| (def.id.as_str(), wants(def))).collect();
        for (place, def) in all {
            let (mut next, mut seen) = (wants(def), Vec::new());
            while let Some(id) = next.pop() {
                if id == def.id {
                    let text = format!("`{id}` would have to run below itself");
                    self.error(format!("{place}.any.ancestor"), text);
                    break;
                }
                if !seen.contains(&id) {
                    next.extend(edges.get(id.as_str()).cloned().unwrap_or_default());
                    seen.push(id);
                }
            }
        }
    }

    /// A group that is in itself is nobody's mistake but the file's.
    pub(super) fn groups(&mut self) {
        for (name, members) in &self.policy.group {
            let place = format!("group.{name}");
            if members.is_empty() {
                self.error(&place, "is empty: a grant for it would hold nowhere");
            }
            let mut inside = vec![name.as_str()];
            if self.members(members, &mut inside, &mut Vec::new(), &mut Vec::new()).is_err() {
                self.error(place, format!("group `{name}` contains itself"));
            }
        }
    }

    /// Opens groups down to hosts; `rest` are those the policy does not define: whoever asks
    /// may know who is in them.
    fn members(
        &self,
        hosts: &'a [String],
        inside: &mut Vec<&'a str>,
        out: &mut Vec<&'a str>,
        rest: &mut Vec<String>,
    ) -> Result<(), ()> {
        let policy = self.policy;
        for host in hosts {
            let Some(name) = host.strip_prefix(GROUP) else {
                out.push(host);
                continue;
            };
            let Some(members) = policy.group.get(name) else {
                rest.push(name.to_owned());
                continue;
            };
            // A set in a set in a set: nobody writes more, and each opens all below it.
            if inside.contains(&name) || inside.len() > GROUPS_DEEP || out.len() > HOSTS_MAX {
                return Err(());
            }
            inside.push(name);
            self.members(members, inside, out, rest)?;
            inside.pop();
        }
        Ok(())
    }

    pub(super) fn grants(&mut self) {
        let policy = self.policy;
        if policy.authority.len() + policy.exception.len() > GRANTS_MAX {
            self.error("authority", format!("more than {GRANTS_MAX} grants and exceptions"));
            return;
        }
        for (n, grant) in policy.authority.iter().enumerate() {
            let place = format!("authority[{n}]");
            let owner = self.owner(&place, &grant.hosts, grant);
            self.done.owners.push(owner);
            let number = self.last_owner();
            self.patterns(&grant.process, &place, "allowed", &grant.allowed, Effect::Allow, number);
            self.patterns(&grant.process, &place, "denied", &grant.denied, Effect::Deny, number);
            for subject in self.subjects_of(&grant.process) {
                self.subject(subject).grants.push(number);
            }
        }
    }

    pub(super) fn exceptions(&mut self) {
        let policy = self.policy;
        for (n, exception) in policy.exception.iter().enumerate() {
            let place = format!("exception[{n}]");
            if exception.reason.trim().is_empty() {
                self.error(format!("{place}.reason"), "say why it is let through");
            }
            let grant = Grant {
                users: exception.users.clone(),
                comment: exception.reason.clone(),
                ..Grant::default()
            };
            let mut owner = self.owner(&place, &exception.hosts, &grant);
            owner.until = Some(exception.until.0);
            self.done.owners.push(owner);
            let (process, list) = (&exception.process, &exception.allowed);
            self.patterns(process, &place, "allowed", list, Effect::Except, self.last_owner());
        }
    }

    fn last_owner(&self) -> u32 {
        u32::try_from(self.done.owners.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    fn owner(&mut self, place: &str, hosts: &'a [String], grant: &Grant) -> Owner {
        let (mut open, mut groups) = (Vec::new(), Vec::new());
        if self.members(hosts, &mut Vec::new(), &mut open, &mut groups).is_err() {
            // Told where the group stands.
            open.clear();
        }
        if open.len() > HOSTS_MAX {
            self.error(format!("{place}.hosts"), format!("more than {HOSTS_MAX} hosts"));
        }
        Owner {
            hosts: open.into_iter().map(Glob::text).collect(),
            groups,
            users: grant.users.iter().map(|u| Glob::text(u)).collect(),
            require: grant.require,
            until: None,
            otherwise: grant.otherwise.unwrap_or(Mode::Alert),
            max_upload: grant.max_upload.clone(),
            max_download: grant.max_download.clone(),
            max_connections: grant.max_connections.clone(),
            place: place.to_owned(),
            comment: printable(grant.comment.as_bytes(), 200),
        }
    }

    /// Numbers of the definitions a grant names; `None` stands for every process.
    fn subjects_of(&self, process: &Some1) -> Vec<Option<u32>> {
        if process.is_empty() {
            return vec![None];
        }
        let mut numbers: Vec<Option<u32>> =
            process.iter().filter_map(|id| self.done.by_id.get(id)).map(|n| Some(*n)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn subject(&mut self, number: Option<u32>) -> &mut Subject {
        match number.and_then(|n| self.done.subjects.get_mut(n as usize)) {
            Some(subject) => subject,
            None => &mut self.done.everyone,
        }
    }

    fn patterns(
        &mut self,
        process: &Some1,
        place: &str,
        key: &str,
        list: &[String],
        effect: Effect,
        owner: u32,
    ) {
        for (n, text) in list.iter().enumerate() {
            let place = format!("{place}.{key}[{n}]");
            let patterns = match self.open(text) {
                Ok(patterns) => patterns,
                Err(why) => {
                    self.error(place, why);
                    continue;
                }
            };
            let rule = u32::try_from(self.done.rules.len()).unwrap_or(u32::MAX);
            self.done
                .rules
                .push(Rule { text: printable(text.as_bytes(), 300), place: place.clone() });
            for subject in self.subjects_of(process) {
                self.opened += patterns.len();
                if self.opened > PATTERNS_MAX {
                    self.error(place, format!("more than {PATTERNS_MAX} destinations"));
                    return;
                }
                let index = &mut self.subject(subject).index;
                patterns.iter().for_each(|p| index.add(p, effect, owner, rule));
            }
        }
    }

    /// A pattern, with classes opened down to places.
    pub(super) fn open(&self, text: &str) -> Result<Vec<Pattern>, String> {
        let mut out = Vec::new();
        self.open_into(text, &mut Vec::new(), &mut out)?;
        Ok(out)
    }

    fn open_into(
        &self,
        text: &str,
        inside: &mut Vec<String>,
        out: &mut Vec<Pattern>,
    ) -> Result<(), String> {
        let pattern: Pattern = text.parse().map_err(|e| format!("{e}"))?;
        let Place::Class(name) = &pattern.place else {
            if out.len() >= PATTERNS_MAX {
                return Err(format!("more than {PATTERNS_MAX} destinations"));
            }
            out.push(pattern);
            return Ok(());
        };
        if inside.contains(name) {
            return Err(format!("class `{name}` contains itself"));
        }
        let members = self.policy.class.get(name).or_else(|| self.catalogue.class.get(name));
        let members = members.ok_or_else(|| {
            format!("no class `{name}`; a port is a number or one of a few names")
        })?;
        inside.push(name.clone());
        let from = out.len();
        for member in members {
            self.open_into(member, inside, out)?;
        }
        inside.pop();
        for opened in out.iter_mut().skip(from) {
            opened.ports = pattern.ports.or(opened.ports);
            opened.proto = pattern.proto.or(opened.proto);
        }
        Ok(())
    }
}

fn unknown(id: &str) -> String {
    format!("no process `{}` is defined", printable(id.as_bytes(), ID_BYTES_MAX))
}

/// For a grant that names a program nobody has defined.
fn by_name(id: String) -> ProcessDef {
    let name = super::Matcher { exe_name: Some1(vec![id.clone()]), ..super::Matcher::default() };
    let comment = String::new();
    ProcessDef { id, any: vec![name], tree: true, except_children: Vec::new(), comment }
}
