//! Processes as they were when they began.
//!
//! In: pids as the kernel tells of them, and `/proc`. Out: who runs, with the identity of each
//! ancestor taken at that moment. A parent is asked while it is there: where the kernel tells
//! of forks, the parent at the fork counts, not the one a daemon is handed to afterwards.
//!
//! Invariants: a pid that is used again is another process (its start differs); at most
//! [`PROCESSES_MAX`] are kept, ended ones for [`ENDED_KEEP`]; nothing unprintable, no secret.

#[cfg(target_os = "linux")]
mod told;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{
    ANCESTORS_MAX, PATH_BYTES_MAX, Process, ProcessPhase, Program, TEXT_BYTES_MAX,
};
use agentmon_core::name::{cut, printable};
use agentmon_core::time::Mono;
use xxhash_rust::xxh3::xxh3_64;

use crate::files::Files;
use crate::packages::Packages;
use crate::platform::{Facts, FileId, Raw};
use crate::redact;

/// Most processes kept: twice the usual `pid_max`.
pub const PROCESSES_MAX: usize = 65_536;
/// Ticks a second in Linux's `/proc` (`USER_HZ`), on every architecture there is.
pub const TICKS: u64 = 100;
/// Nanoseconds of each.
const NS_A_TICK: u64 = 1_000_000_000 / TICKS;
/// How long one that ended is kept, for connections told after it.
pub const ENDED_KEEP: Duration = Duration::from_secs(60);
/// The same, of one that never had a connection: a build starts hundreds in a second.
const SILENT_KEEP: Duration = Duration::from_secs(10);
/// Arguments of ancestors that are told: enough to know an interpreter's script by.
const ANCESTOR_ARGUMENTS_MAX: usize = 4;
/// Accounts remembered.
const USERS_MAX: usize = 4_096;

/// A process that is known.
#[derive(Clone, Debug)]
pub struct Known {
    /// What is told of it.
    pub process: Arc<Process>,
    start_ticks: u64,
    file: Option<FileId>,
    /// It was told, with or without its hash.
    told: bool,
    hash_told: bool,
    ended: Option<Mono>,
}

impl Known {
    /// Whether it is the one that began so many nanoseconds after boot: `/proc` knows that in
    /// ticks.
    #[must_use]
    pub fn began_at(&self, start_ns: u64) -> bool {
        (start_ns / NS_A_TICK).abs_diff(self.start_ticks) <= 1
    }
}

/// All processes of this machine.
#[derive(Debug)]
pub struct Processes<P> {
    proc: P,
    files: Files,
    packages: Packages,
    host: String,
    boot: String,
    netns: Option<u64>,
    known: HashMap<u32, Known>,
    /// Parent at the fork, until the child is looked at; its start, where that is known.
    forks: HashMap<u32, (u32, u64)>,
    /// Whole names of files, by the name given, disk and inode.
    #[cfg(target_os = "linux")]
    names: HashMap<(Vec<u8>, u64, u64), Vec<u8>>,
    users: HashMap<u32, String>,
    /// Processes gone before they could be looked at.
    pub missed: u64,
    /// Of those, such that had a connection.
    pub ghosts: u64,
}

impl<P: Facts> Processes<P> {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(proc: P, files: Files, packages: Packages) -> Self {
        Self {
            netns: proc.own_netns(),
            host: printable(proc.host().as_bytes(), 63),
            boot: proc.boot(),
            proc,
            files,
            packages,
            known: HashMap::new(),
            forks: HashMap::new(),
            #[cfg(target_os = "linux")]
            names: HashMap::new(),
            users: HashMap::new(),
            missed: 0,
            ghosts: 0,
        }
    }

    /// The boot this is about.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// What it asks.
    #[must_use]
    pub fn proc(&self) -> &P {
        &self.proc
    }

    /// Inode of this program's own network namespace.
    #[must_use]
    pub const fn netns(&self) -> Option<u64> {
        self.netns
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What is known of a pid, ended or not.
    #[must_use]
    pub fn get(&self, pid: u32) -> Option<&Known> {
        self.known.get(&pid)
    }

    /// A child began. Its parent is looked at now: it may be gone when the child is.
    /// `start_ns`: 0 where that is not told.
    pub fn forked(&mut self, parent: u32, child: u32, start_ns: u64, now: Timestamp) {
        // What the kernel's part tells needs no look: a child of a child is made of its parents.
        let told = start_ns != 0 && self.forks.contains_key(&parent);
        if !told && !self.known.contains_key(&parent) {
            self.see(parent, ProcessPhase::Start, now);
        }
        if self.forks.len() < PROCESSES_MAX {
            self.forks.insert(child, (parent, start_ns));
        }
        self.known.remove(&child);
    }

    /// It became another program.
    pub fn executed(&mut self, pid: u32, now: Timestamp) {
        let before = self.known.remove(&pid).filter(|k| k.ended.is_none());
        let Some(raw) = self.proc.read(pid) else {
            self.missed += 1;
            return;
        };
        let same = before.filter(|b| b.start_ticks == raw.start_ticks);
        let phase = if same.is_some() { ProcessPhase::Exec } else { ProcessPhase::Start };
        let ancestors = match same {
            // Who it was is the first of its ancestors: a shell that became the agent.
            Some(was) => above(&was.process),
            None => self.ancestors(pid, &raw, now),
        };
        self.keep(pid, raw, phase, ancestors, now);
    }

    /// It ended.
    pub fn exited(&mut self, pid: u32, mono: Mono) {
        self.forks.remove(&pid);
        if let Some(known) = self.known.get_mut(&pid) {
            known.ended.get_or_insert(mono);
        }
    }

    /// Looks at a pid unless it is known; `None` where it is gone.
    pub fn see(&mut self, pid: u32, phase: ProcessPhase, now: Timestamp) -> Option<&Known> {
        let fresh = match self.known.get(&pid) {
            Some(known) => self.proc.start(pid).is_none_or(|start| start == known.start_ticks),
            None => false,
        };
        if !fresh {
            let raw = self.proc.read(pid)?;
            // Ancestors first: what is kept is never without them.
            let ancestors = self.ancestors(pid, &raw, now);
            self.keep(pid, raw, phase, ancestors, now);
        }
        self.known.get(&pid)
    }

    /// One that was gone before it could be looked at: its name and start by the kernel, its
    /// parent by the fork, if that was told.
    pub fn ghost(&mut self, pid: u32, name: &[u8], start_ns: u64, now: Timestamp) -> &Known {
        let ticks = start_ns / NS_A_TICK;
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        let raw = Raw {
            ppid: self.forks.get(&pid).map_or(0, |(parent, _)| *parent),
            start_ticks: ticks,
            comm: name.to_vec(),
            ..Raw::default()
        };
        let ancestors = self.ancestors(pid, &raw, now);
        let mut program = self.program(pid, &raw);
        // Whose it was is not known either.
        program.user = None;
        let process = Process {
            phase: ProcessPhase::Start,
            os: P::OS.into(),
            host: self.host.clone(),
            program,
            start: self.proc.started(ticks, now),
            ancestors,
            container: None,
        };
        let known = Known {
            process: Arc::new(process),
            start_ticks: ticks,
            file: None,
            told: false,
            hash_told: false,
            ended: None,
        };
        self.known.entry(pid).insert_entry(known).into_mut()
    }

    fn ancestors(&mut self, pid: u32, raw: &Raw, now: Timestamp) -> Vec<Program> {
        let parent = self.forks.remove(&pid).map_or(raw.ppid, |(parent, _)| parent);
        // A loop of parents cannot be, but for a pid used again meanwhile: bounded all the same.
        let (mut chain, mut next) = (Vec::new(), parent);
        let mut unknown = Vec::new();
        while next != 0 && next != pid && chain.len() + unknown.len() < ANCESTORS_MAX {
            if let Some(known) = self.known.get(&next) {
                chain.push(ancestor(&known.process.program));
                chain.extend(known.process.ancestors.iter().cloned());
                break;
            }
            let Some(raw) = self.proc.read(next) else { break };
            if unknown.iter().any(|(pid, _)| *pid == next) {
                break;
            }
            let above = self.forks.get(&next).map_or(raw.ppid, |(parent, _)| *parent);
            unknown.push((next, raw));
            next = above;
        }
        // From the top down, so that each is kept with its own ancestors.
        for (pid, raw) in unknown.into_iter().rev() {
            let above = chain.clone();
            let program = self.keep(pid, raw, ProcessPhase::Running, above, now);
            chain.insert(0, ancestor(&program));
        }
        chain.truncate(ANCESTORS_MAX);
        chain
    }

    fn keep(
        &mut self,
        pid: u32,
        raw: Raw,
        phase: ProcessPhase,
        ancestors: Vec<Program>,
        now: Timestamp,
    ) -> Program {
        let start = self.proc.started(raw.start_ticks, now);
        self.keep_from(pid, raw, phase, ancestors, start)
    }

    fn keep_from(
        &mut self,
        pid: u32,
        raw: Raw,
        phase: ProcessPhase,
        ancestors: Vec<Program>,
        start: Option<Timestamp>,
    ) -> Program {
        if self.known.len() >= PROCESSES_MAX {
            self.known.retain(|_, k| k.ended.is_none());
        }
        let program = self.program(pid, &raw);
        let elsewhere = raw.netns.filter(|ns| self.netns.is_some_and(|own| own != *ns));
        let process = Process {
            phase,
            os: P::OS.into(),
            host: self.host.clone(),
            program: program.clone(),
            start,
            ancestors,
            container: elsewhere.map(|ns| self.proc.container(pid, ns)),
        };
        if self.known.len() < PROCESSES_MAX {
            let known = Known {
                process: Arc::new(process),
                start_ticks: raw.start_ticks,
                file: raw.file,
                told: false,
                hash_told: false,
                ended: None,
            };
            self.known.insert(pid, known);
        }
        program
    }

    /// Names a process among all of this host.
    fn id(&self, pid: u32, ticks: u64) -> u64 {
        xxh3_64(&[self.boot.as_bytes(), &pid.to_ne_bytes(), &ticks.to_ne_bytes()].concat())
    }

    fn program(&mut self, pid: u32, raw: &Raw) -> Program {
        let exe = raw.exe.as_ref().map(|e| cut(printable(e, PATH_BYTES_MAX), PATH_BYTES_MAX));
        Program {
            id: self.id(pid, raw.start_ticks),
            pid,
            name: cut(printable(&raw.comm, TEXT_BYTES_MAX), TEXT_BYTES_MAX),
            deleted: raw.deleted,
            sha256: raw.file.as_ref().and_then(|f| self.files.get(f)),
            argv: redact::arguments(&raw.argv),
            user: Some(self.user(raw.uid)),
            signer: raw.signer.clone().or_else(|| self.files.signer(raw.file.as_ref()?)),
            package: raw.service.as_ref().map(|name| format!("service:{name}")).or_else(|| {
                exe.as_deref().filter(|_| !raw.deleted).and_then(|e| self.packages.owner(e))
            }),
            exe,
        }
    }

    /// The account's name; its number where it has none.
    pub fn user(&mut self, uid: u32) -> String {
        if let Some(name) = self.users.get(&uid) {
            return name.clone();
        }
        let name = self.proc.user(uid).unwrap_or_else(|| uid.to_string());
        if self.users.len() < USERS_MAX {
            self.users.insert(uid, name.clone());
        }
        name
    }

    /// What is to be told of a process that has a connection: all of it the first time, and
    /// once more when its hash is known.
    pub fn tell(&mut self, pid: u32) -> Option<Process> {
        let known = self.known.get_mut(&pid)?;
        let hash = known.file.as_ref().and_then(|f| self.files.get(f));
        if let Some(file) = known.file.filter(|_| hash.is_none()) {
            // One that has ended is read by its name; whether it is the same file is checked.
            let exe = known.process.program.exe.clone().unwrap_or_default();
            let proc = &self.proc;
            self.files
                .ask(file, &exe, || proc.open_exe(pid).or_else(|_| std::fs::File::open(&exe)));
        }
        if known.told && (known.hash_told || hash.is_none()) {
            return None;
        }
        let mut process = (*known.process).clone();
        process.program.sha256 = hash;
        let signer = known.file.as_ref().and_then(|f| self.files.signer(f));
        process.program.signer = process.program.signer.take().or(signer);
        if known.told {
            process.phase = ProcessPhase::Running;
        }
        known.told = true;
        known.hash_told = process.program.sha256.is_some();
        known.process = Arc::new(process.clone());
        Some(process)
    }

    /// Processes that were told before their hash was known, and now it is.
    pub fn late_hashes(&mut self) -> Vec<Process> {
        let files = &self.files;
        let late = self.known.iter().filter(|(_, k)| k.told && !k.hash_told);
        let late = late.filter(|(_, k)| k.file.as_ref().is_some_and(|f| files.get(f).is_some()));
        let pids: Vec<u32> = late.map(|(pid, _)| *pid).collect();
        pids.into_iter().filter_map(|pid| self.tell(pid)).collect()
    }

    /// Without word from the kernel: what is new and what is gone, by looking.
    pub fn scan(&mut self, now: Timestamp, mono: Mono) {
        let pids = self.proc.pids();
        for pid in &pids {
            if !self.known.contains_key(pid) {
                self.see(*pid, ProcessPhase::Start, now);
            }
        }
        let here: std::collections::HashSet<u32> = pids.into_iter().collect();
        for (_, known) in self.known.iter_mut().filter(|(pid, _)| !here.contains(pid)) {
            known.ended.get_or_insert(mono);
        }
    }

    /// Forgets what ended a while ago.
    pub fn forget(&mut self, mono: Mono) {
        let keep = |k: &Known| if k.told { ENDED_KEEP } else { SILENT_KEEP };
        self.known.retain(|_, k| k.ended.is_none_or(|ended| mono.since(ended) < keep(k)));
        let known = &self.known;
        self.forks.retain(|_, (parent, _)| known.contains_key(parent));
    }
}

/// A process and all above it, as what is above another.
fn above(process: &Process) -> Vec<Program> {
    let rest = process.ancestors.iter().cloned();
    std::iter::once(ancestor(&process.program)).chain(rest).take(ANCESTORS_MAX).collect()
}

/// What is told of a process above another.
fn ancestor(program: &Program) -> Program {
    let argv = program.argv.iter().take(ANCESTOR_ARGUMENTS_MAX).cloned().map(|a| cut(a, 256));
    Program { argv: argv.collect(), ..program.clone() }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::linux::procfs::ProcFs;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    /// A process in a made-up `/proc`.
    pub(super) fn make(
        root: &Path,
        pid: u32,
        ppid: u32,
        start: u64,
        comm: &str,
        exe: &str,
        argv: &[&str],
    ) {
        let dir = root.join(pid.to_string());
        drop(fs::remove_dir_all(&dir));
        fs::create_dir_all(&dir).unwrap();
        let stat =
            format!("{pid} ({comm}) S {ppid} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0");
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("cmdline"), argv.join("\0")).unwrap();
        symlink(exe, dir.join("exe")).unwrap();
    }

    pub(super) fn processes(root: &Path) -> Processes<ProcFs> {
        fs::create_dir_all(root.join("sys/kernel/random")).unwrap();
        fs::write(root.join("sys/kernel/hostname"), "laptop\n").unwrap();
        fs::write(root.join("sys/kernel/random/boot_id"), "b\n").unwrap();
        fs::write(root.join("uptime"), "1000.0 1.0\n").unwrap();
        let nothing = root.join("none");
        Processes::new(ProcFs::at(root), Files::start().unwrap(), Packages::start(&nothing))
    }

    pub(super) const NOW: Timestamp = Timestamp::from_secs(1_795_444_327);

    pub(super) fn chain(process: &Process) -> String {
        let all = std::iter::once(&process.program).chain(&process.ancestors);
        all.map(|p| p.name.clone()).collect::<Vec<_>>().join(" < ")
    }

    #[test]
    fn ancestors_as_they_were_at_the_fork() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        make(root, 1, 0, 1, "init", "/sbin/init", &["init"]);
        make(root, 10, 1, 100, "claude", "/opt/claude", &["claude"]);
        make(root, 11, 10, 200, "bash", "/bin/bash", &["bash"]);
        let mut all = processes(root);
        // A double fork: the child is handed to init before anybody looks.
        all.forked(10, 11, 0, NOW);
        all.forked(11, 12, 0, NOW);
        fs::remove_dir_all(root.join("11")).unwrap();
        make(root, 12, 1, 300, "curl", "/usr/bin/curl", &["curl", "--token", "abc"]);
        all.executed(12, NOW);
        let curl = all.get(12).unwrap().process.clone();
        assert_eq!(chain(&curl), "curl < bash < claude < init");
        assert_eq!(curl.program.argv, ["curl", "--token", redact::REDACTED]);
        assert_eq!(curl.start, Some(NOW.minus(Duration::from_secs(997))));
        assert_eq!(curl.program.user.as_deref(), Some(all.user(0).as_str()));
    }

    #[test]
    fn a_pid_used_again_is_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        make(root, 7, 0, 100, "one", "/bin/one", &["one"]);
        let mut all = processes(root);
        let first = all.see(7, ProcessPhase::Start, NOW).unwrap().process.program.id;
        assert_eq!(all.see(7, ProcessPhase::Start, NOW).unwrap().process.program.id, first);
        make(root, 7, 0, 900, "two", "/bin/two (deleted)", &["two"]);
        let second = all.see(7, ProcessPhase::Start, NOW).unwrap().process.clone();
        assert_ne!(second.program.id, first);
        assert_eq!(
            (second.program.exe.as_deref(), second.program.deleted),
            (Some("/bin/two"), true)
        );
        fs::remove_dir_all(root.join("7")).unwrap();
        all.exited(7, Mono::from_nanos(1));
        assert!(all.get(7).is_some(), "kept for what is told after its end");
        all.forget(Mono::from_nanos(61_000_000_001));
        assert!(all.is_empty());
    }

    #[test]
    fn who_became_another_is_remembered_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        make(root, 7, 0, 100, "claude", "/opt/claude", &["claude"]);
        let mut all = processes(root);
        all.see(7, ProcessPhase::Start, NOW).unwrap();
        make(root, 7, 0, 100, "node", "/usr/bin/node", &["node", "x.js"]);
        all.executed(7, NOW);
        let node = all.get(7).unwrap().process.clone();
        assert_eq!((chain(&node).as_str(), node.phase), ("node < claude", ProcessPhase::Exec));
        // Told once; a second time only for its hash.
        assert!(all.tell(7).is_some());
        assert!(all.tell(7).is_none());
        // One that was gone before it could be looked at is counted, and told by what the kernel
        // says of it, below its parent.
        all.forked(7, 99, 0, NOW);
        all.executed(99, NOW);
        assert_eq!(all.missed, 1);
        let ghost = all.ghost(99, b"curl\0x", 5_000_000_000, NOW);
        assert_eq!(chain(&ghost.process), "curl < node < claude");
        assert!(ghost.began_at(5_000_000_000) && !ghost.began_at(6_000_000_000));
    }

    #[test]
    fn parents_that_go_round_in_circles_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        make(root, 7, 8, 100, "a", "/bin/a", &["a"]);
        make(root, 8, 7, 100, "b", "/bin/b\x1b[2J", &["b\x07"]);
        let mut all = processes(root);
        let a = all.see(7, ProcessPhase::Start, NOW).unwrap().process.clone();
        assert_eq!(chain(&a), "a < b");
        assert_eq!(a.ancestors[0].exe.as_deref(), Some("/bin/b\\x1b[2J"));
    }
}
