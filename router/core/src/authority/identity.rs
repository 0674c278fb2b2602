//! Which of the policy's processes a running one is.
//!
//! In: a process with its ancestors, each as it was when the process began. Out: the subject
//! it counts as, how well that is known, and how far above it stands. Done once per process;
//! whoever has many connections keeps the [`Identity`].

use serde::{Deserialize, Serialize};

use super::compile::Authority;
use super::glob::Glob;
use super::policy::Matcher;
use crate::event::{Process, Program};

/// By what a process is known; ordered from weak to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strength {
    /// What it calls itself: anything can.
    Name,
    /// An argument it was started with.
    Argv,
    /// Where its file is, or which package that belongs to: who may write there may lie.
    Path,
    /// What its file contains.
    Hash,
    /// Who signed its file.
    Signed,
}

impl Strength {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Argv => "argv",
            Self::Path => "path",
            Self::Hash => "hash",
            Self::Signed => "signed",
        }
    }
}

/// Whose authority counts for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Number of the definition in its [`Authority`].
    pub(super) subject: u32,
    /// By what the subject is known.
    pub strength: Strength,
    /// How far above the process the subject stands; 0: it is the process itself.
    pub above: usize,
}

/// A [`Matcher`] ready to be used.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    os: Vec<String>,
    signer: Vec<Glob>,
    sha256: Vec<String>,
    exe: Vec<Glob>,
    package: Vec<Glob>,
    argv: Vec<Glob>,
    exe_name: Vec<Glob>,
    user: Vec<Glob>,
    /// Numbers of definitions.
    ancestor: Vec<u32>,
}

impl Compiled {
    pub(super) fn new(matcher: &Matcher, ancestor: Vec<u32>) -> Self {
        let texts = |list: &[String]| list.iter().map(|t| Glob::text(t)).collect();
        Self {
            os: matcher.os.to_vec(),
            signer: texts(&matcher.signer),
            sha256: matcher.sha256.iter().map(|h| h.to_ascii_lowercase()).collect(),
            exe: matcher.exe.iter().map(|t| Glob::path(t)).collect(),
            package: texts(&matcher.package),
            argv: texts(&matcher.argv),
            exe_name: texts(&matcher.exe_name),
            user: texts(&matcher.user),
            ancestor,
        }
    }

    /// The strongest thing it is known by, if all that is asked holds.
    fn matches(&self, program: &Program, os: &str, above: &[u32]) -> Option<Strength> {
        let any = |globs: &[Glob], text: Option<&str>| {
            text.is_some_and(|text| globs.iter().any(|glob| glob.matches(text)))
        };
        let exe = program.exe.as_deref();
        let by_argv = || program.argv.iter().any(|a| self.argv.iter().any(|glob| glob.matches(a)));
        let by_hash = || program.sha256.as_ref().is_some_and(|h| self.sha256.contains(h));
        let context = (self.os.is_empty() || self.os.iter().any(|o| o == os))
            && (self.user.is_empty() || any(&self.user, program.user.as_deref()))
            && (self.ancestor.is_empty() || self.ancestor.iter().any(|a| above.contains(a)));
        let checks: [(bool, Strength, &dyn Fn() -> bool); 6] = [
            (self.exe_name.is_empty(), Strength::Name, &|| {
                any(&self.exe_name, Some(own_name(program)))
            }),
            (self.argv.is_empty(), Strength::Argv, &by_argv),
            (self.exe.is_empty(), Strength::Path, &|| any(&self.exe, exe)),
            (self.package.is_empty(), Strength::Path, &|| {
                any(&self.package, program.package.as_deref())
            }),
            (self.sha256.is_empty(), Strength::Hash, &by_hash),
            (self.signer.is_empty(), Strength::Signed, &|| {
                any(&self.signer, program.signer.as_deref())
            }),
        ];
        let asked = checks.iter().filter(|(empty, _, _)| !empty);
        if !context || !asked.clone().all(|(_, _, holds)| holds()) {
            return None;
        }
        // What is only told apart by its account or its ancestors is known by no more than a name.
        Some(asked.map(|(_, strength, _)| *strength).max().unwrap_or(Strength::Name))
    }
}

/// The file's name; what the process calls itself only where the file is not known.
pub(super) fn own_name(program: &Program) -> &str {
    let file = program.exe.as_deref().and_then(|exe| exe.rsplit(['/', '\\']).next());
    file.filter(|name| !name.is_empty()).unwrap_or(&program.name)
}

impl Authority {
    /// Whose authority counts for a process; `None` where no definition fits.
    #[must_use]
    pub fn identify(&self, process: &Process) -> Option<Identity> {
        let chain = process.ancestors.iter().rev().chain([&process.program]);
        let mut current: Option<Identity> = None;
        let (mut seen, mut above) = (Vec::new(), process.ancestors.len());
        for program in chain {
            let leaves = current.is_some_and(|now| self.leaves(now, program));
            current = if leaves { None } else { current };
            let mut tool = None;
            for (number, strength) in self.matching(program, &process.os, &mut seen) {
                let found = Identity { subject: number, strength, above };
                let best = if self.is_tree(number) { &mut current } else { &mut tool };
                if best.is_none_or(|now: Identity| replaces(found, now)) {
                    *best = Some(found);
                }
            }
            if above == 0 {
                return current.or(tool);
            }
            above -= 1;
        }
        current
    }

    /// Definitions that match one program, in the policy's order; notes them for those below.
    fn matching(&self, program: &Program, os: &str, seen: &mut Vec<u32>) -> Vec<(u32, Strength)> {
        let mut found = Vec::new();
        for (number, def) in (0u32..).zip(&self.defs) {
            let strongest = def.any.iter().filter_map(|m| m.matches(program, os, seen)).max();
            found.extend(strongest.map(|strength| (number, strength)));
        }
        seen.extend(found.iter().map(|(number, _)| *number));
        found
    }

    fn is_tree(&self, number: u32) -> bool {
        self.defs.get(number as usize).is_some_and(|def| def.tree)
    }

    fn leaves(&self, now: Identity, program: &Program) -> bool {
        let def = self.defs.get(now.subject as usize);
        def.is_some_and(|def| def.except_children.iter().any(|g| g.matches(own_name(program))))
    }
}

/// The nearest counts, and of two at the same place the better known, then the first. A bare
/// name takes nothing out of what is known better.
fn replaces(found: Identity, now: Identity) -> bool {
    if found.above == now.above {
        return found.strength > now.strength;
    }
    let weak = found.strength == Strength::Name && now.strength > Strength::Name;
    !weak && (found.subject != now.subject || found.strength >= now.strength)
}
