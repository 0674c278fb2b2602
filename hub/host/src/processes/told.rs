//! Processes as the kernel's part tells of them, in the order of what happened: nothing has to
//! be asked for while it is still there.
//!
//! In: execs, forks and the processes that connections are told with. Out: the same [`Known`]
//! as by looking. A child that never becomes another program is made of its parent; of a program
//! whose file's name was given from another place, `/proc` is asked while it runs.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{ANCESTORS_MAX, ProcessPhase};
use agentmon_core::time::Mono;

use super::{Known, NS_A_TICK, Processes, above};
use crate::files::file_id;
use crate::linux::ebpf::Exec;
use crate::linux::procfs::ProcFs;
use crate::platform::{Facts as _, FileId, Raw};

/// Names of files remembered.
const NAMES_MAX: usize = 4_096;

impl Processes<ProcFs> {
    /// It became another program, of which the kernel told everything.
    pub fn became(&mut self, exec: &Exec, now: Timestamp) {
        let ticks = exec.start_ns / NS_A_TICK;
        let before = self.known.remove(&exec.pid).filter(|k| k.start_ticks == ticks);
        // A child that became a program before it was ever looked at was its parent.
        let before = before.or_else(|| self.inherited(exec.pid, exec.start_ns, now));
        let (exe, file, deleted) = self.named(exec);
        let argv = match exec.cut {
            true => self.proc.argv(exec.pid),
            false => Vec::new(),
        };
        let raw = Raw {
            ppid: exec.parent,
            start_ticks: ticks,
            comm: exec.name.clone(),
            exe,
            deleted,
            file,
            argv: if argv.is_empty() { exec.argv.clone() } else { argv },
            uid: exec.uid,
            netns: Some(exec.netns.into()),
            ..Raw::default()
        };
        let age = Duration::from_nanos(exec.at_ns.saturating_sub(exec.start_ns));
        let forked = self.forks.get(&exec.pid).is_some_and(|(_, start)| *start == exec.start_ns);
        let (phase, ancestors) = match before {
            // A fork that goes on as something else is one step, not two.
            Some(was) if forked => (ProcessPhase::Start, was.process.ancestors.clone()),
            Some(was) => (ProcessPhase::Exec, above(&was.process)),
            None => (ProcessPhase::Start, self.ancestors(exec.pid, &raw, now)),
        };
        self.forks.remove(&exec.pid);
        self.keep_from(exec.pid, raw, phase, ancestors, Some(now.minus(age)));
    }

    /// It ended. One between two others is what the lower one's chain is made of.
    pub fn left(&mut self, pid: u32, now: Timestamp, mono: Mono) {
        let start = self.forks.get(&pid).map(|(_, start)| *start);
        if let Some(start) = start.filter(|_| self.forks.values().any(|(p, _)| *p == pid)) {
            let between = self.inherited(pid, start, now);
            self.known.extend(between.map(|known| (pid, known)));
        }
        self.exited(pid, mono);
    }

    /// The whole name of a program's file, the file where it still is the same, and whether
    /// the name is gone.
    fn named(&mut self, exec: &Exec) -> (Option<Vec<u8>>, Option<FileId>, bool) {
        let key = (exec.path.clone(), exec.dev, exec.inode);
        let is = |file: &FileId| (file.dev, file.ino) == (exec.dev, exec.inode);
        let at = |name: &[u8]| {
            let path = Path::new(OsStr::from_bytes(name));
            std::fs::metadata(path).ok().map(|m| file_id(&m)).filter(is)
        };
        if let Some(name) = self.names.get(&key) {
            if let Some(file) = at(name) {
                return (Some(name.clone()), Some(file), false);
            }
            self.names.remove(&key);
        }
        let absolute = exec.path.starts_with(b"/");
        let whole = absolute.then(|| std::fs::canonicalize(OsStr::from_bytes(&exec.path)).ok());
        let whole = whole.flatten().map(|p| p.into_os_string().into_vec());
        if let Some((name, file)) = whole.and_then(|name| at(&name).map(|file| (name, file))) {
            if self.names.len() >= NAMES_MAX {
                self.names.clear();
            }
            self.names.insert(key, name.clone());
            return (Some(name), Some(file), false);
        }
        // Relative, of another root, or deleted: as long as it runs, /proc knows.
        let (name, file, deleted) = self.proc.exe(exec.pid);
        if name.is_some() && file.is_none_or(|f| f.ino == exec.inode) {
            return (name, file, deleted);
        }
        (absolute.then(|| exec.path.clone()), None, false)
    }

    /// A child that goes on as its parent's program, made of that.
    fn inherited(&mut self, pid: u32, start_ns: u64, now: Timestamp) -> Option<Known> {
        let mut line = vec![(pid, start_ns)];
        let mut top = self.forks.get(&pid).filter(|(_, start)| *start == start_ns)?.0;
        while !self.known.contains_key(&top) && line.len() < ANCESTORS_MAX {
            let (parent, start) = *self.forks.get(&top)?;
            line.push((top, start));
            top = parent;
        }
        // From the top down. A parent that began after its child is another one of that pid.
        let mut was = self.known.get(&top).cloned()?;
        for (pid, start_ns) in line.into_iter().rev() {
            let ticks = start_ns / NS_A_TICK;
            if was.start_ticks > ticks {
                return None;
            }
            let mut process = (*was.process).clone();
            process.ancestors = above(&was.process);
            process.phase = ProcessPhase::Start;
            process.program.pid = pid;
            process.program.id = self.id(pid, ticks);
            process.start = self.proc.started(ticks, now);
            let process = Arc::new(process);
            let (told, hash_told, ended) = (false, false, None);
            was = Known { process, start_ticks: ticks, told, hash_told, ended, ..was };
        }
        Some(was)
    }

    /// Who the kernel says it was: known, a child of somebody known, still there, or a ghost.
    pub fn told(&mut self, pid: u32, name: &[u8], start_ns: u64, now: Timestamp) -> Option<&Known> {
        if !self.known.get(&pid).is_some_and(|k| k.began_at(start_ns)) {
            let child = self.inherited(pid, start_ns, now);
            self.forks.remove(&pid);
            if let Some(child) = child {
                self.known.insert(pid, child);
            } else if !self.see(pid, ProcessPhase::Start, now).is_some_and(|k| k.began_at(start_ns))
            {
                self.ghosts += 1;
                return Some(self.ghost(pid, name, start_ns, now));
            }
        }
        self.known.get(&pid)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, chain, make, processes};
    use super::*;
    use crate::redact;

    fn exec(pid: u32, parent: u32, start: u64, path: &str, argv: &[&str]) -> Exec {
        Exec {
            at_ns: (start + 1) * NS_A_TICK,
            pid,
            parent,
            start_ns: start * NS_A_TICK,
            inode: 0,
            size: 0,
            dev: 0,
            netns: 1,
            uid: 0,
            name: path.rsplit('/').next().unwrap().into(),
            path: path.into(),
            argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
            cut: false,
        }
    }

    #[test]
    fn what_the_kernel_tells_needs_no_proc() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        make(root, 10, 0, 100, "claude", "/opt/claude", &["claude"]);
        let mut all = processes(root);
        let fork = |all: &mut Processes<ProcFs>, parent, child, start| {
            all.forked(parent, child, start * NS_A_TICK, NOW);
        };
        // Forks of forks: two between are gone before anybody could ask for them.
        fork(&mut all, 10, 11, 200);
        all.became(&exec(11, 10, 200, "/nonexistent/sh", &["sh", "-c", "x"]), NOW);
        fork(&mut all, 11, 12, 300);
        fork(&mut all, 12, 13, 301);
        all.left(12, NOW, Mono::default());
        all.left(11, NOW, Mono::default());
        all.became(&exec(13, 1, 301, "/nonexistent/env", &["env", "curl", "--token", "abc"]), NOW);
        let env = all.get(13).unwrap().process.clone();
        assert_eq!(
            (chain(&env).as_str(), env.phase),
            ("env < sh < sh < claude", ProcessPhase::Start)
        );
        assert_eq!(env.ancestors.iter().map(|p| p.pid).collect::<Vec<_>>(), [12, 11, 10]);
        // A chain of execs, in the same process.
        all.became(&exec(13, 1, 301, "/nonexistent/curl", &["curl", "--token", "abc"]), NOW);
        let curl = all.get(13).unwrap().process.clone();
        assert_eq!(
            (chain(&curl).as_str(), curl.phase),
            ("curl < env < sh < sh < claude", ProcessPhase::Exec)
        );
        assert_eq!((curl.program.id, curl.start), (env.program.id, env.start));
        assert_eq!(curl.program.argv, ["curl", "--token", redact::REDACTED]);
        assert_eq!(curl.program.exe.as_deref(), Some("/nonexistent/curl"));
        // A child that connects without ever becoming another program.
        fork(&mut all, 13, 14, 400);
        let child = all.told(14, b"curl", 400 * NS_A_TICK, NOW).unwrap().process.clone();
        assert_eq!(chain(&child), "curl < curl < env < sh < sh < claude");
        assert_eq!((child.program.pid, all.ghosts), (14, 0));
        // Its pid used again is another one, and what is not known at all is a ghost.
        let other = all.told(14, b"other", 900 * NS_A_TICK, NOW).unwrap().process.clone();
        assert_eq!((chain(&other).as_str(), all.ghosts), ("other", 1));
        // A parent's pid used again is not the parent.
        fork(&mut all, 10, 13, 1_000);
        fork(&mut all, 14, 15, 1_001);
        assert_eq!(
            all.told(15, b"x", 1_001 * NS_A_TICK, NOW).unwrap().process.program.name,
            "other"
        );
    }
}
