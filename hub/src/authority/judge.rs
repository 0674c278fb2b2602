//! Connections of hosts, judged as they arrive.
//!
//! In: processes and connections of the host agents, in event time. Out: findings of rule
//! [`RULE`], one for each connection that a policy does not allow and each limit that is
//! passed (none without `authority.toml`), and of rule [`ANCESTRY`], one for each program and
//! rule of who should not have started it. Runs on the writer's thread.
//!
//! The answer to a question often comes after the connection that it explains: a resolver's
//! log and the host are different sensors. So a connection nobody has a name for waits
//! ([`WAIT`]) before it is judged by its address.
//!
//! Budget: a look-up and a decision (below 2 us). Invariants: at most [`PROCESSES_MAX`]
//! processes, [`JUDGED_MAX`] connections and [`WAITING_MAX`] that wait are remembered; a policy
//! that cannot be read leaves the one before in force; a restart of the hub and a new policy
//! judge processes that began before as well ([`Judge::warm_up`]).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use agentmon_core::Timestamp;
use agentmon_core::authority::meter::{Meter, Usage};
use agentmon_core::authority::{Ancestry, Authority, Destination, Identity, Policy, Scope};
use agentmon_core::event::{Connection, Direction, Process, Resolved};
use agentmon_core::finding::Finding;
use agentmon_core::time::Mono;

use super::catalogue::Agents;
use super::words;
use crate::store::StoreError;

/// The rule's name.
pub(crate) const RULE: &str = "authority";
/// The name of the rule about who started whom.
pub(crate) const ANCESTRY: &str = "ancestry";
/// Processes remembered, over all hosts: 500 hosts with 100 each that talk.
const PROCESSES_MAX: usize = 50_000;
/// Connections remembered as judged.
const JUDGED_MAX: usize = 65_536;
/// Connections that wait for a name; beyond, the oldest is judged by its address.
const WAITING_MAX: usize = 16_384;
/// So long a connection waits for the answer that explains it: resolvers' logs are sent on
/// every few seconds.
const WAIT: Duration = Duration::from_secs(30);
/// How often it is seen to whether one has come.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How far back processes are read that may still run.
const WARM_DAYS: u32 = 30;

/// A process, as far as it matters for later connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) identity: Option<Identity>,
    pub(super) host: String,
    pub(super) user: Option<String>,
    pub(super) chain: String,
    pub(super) exe: Option<String>,
    pub(super) parent: Option<String>,
    /// Rules about who started it that have not been told.
    suspects: Vec<u16>,
}

impl Known {
    fn tells(program: &Process) -> bool {
        program.program.signer.is_some() || program.ancestors.iter().any(|p| p.signer.is_some())
    }
}

/// A connection that waits for a name.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    pub(crate) time: Timestamp,
    pub(crate) sensor: i32,
    pub(crate) connection: Connection,
    /// When it was first looked at again.
    since: Option<Mono>,
}

/// What is in force.
#[derive(Debug, Default)]
struct Force {
    authority: Authority,
    ancestry: Ancestry,
    /// There is a policy, not the catalogue alone.
    policy: bool,
}

/// What of a connection has been counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    out: u64,
    back: u64,
}

/// The policy in force and what it has to know of the past.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    data_dir: PathBuf,
    /// When the files in force were written.
    written: Option<[Option<SystemTime>; 3]>,
    force: Option<Force>,
    known: HashMap<(i32, u64), Known>,
    order: VecDeque<(i32, u64)>,
    judged: HashMap<(i32, u64), Counted>,
    judged_order: VecDeque<(i32, u64)>,
    /// Sensors that told of a signature once: where none does, nothing is unsigned.
    signs: HashSet<i32>,
    waiting: BTreeMap<(i32, u64), Waits>,
    /// When they were looked at.
    looked: Mono,
    /// Nobody is waited for any more.
    hurry: bool,
    meter: Meter,
}

impl Judge {
    /// Of that directory's policy.
    pub(crate) fn of(data_dir: &Path) -> Self {
        let mut judge = Self { data_dir: data_dir.to_owned(), ..Self::default() };
        judge.look();
        judge
    }

    /// Reads the policy again where it has changed; true then: who is who has to be read
    /// again ([`Self::warm_up`]).
    pub(crate) fn look(&mut self) -> bool {
        let time = |name: &str| {
            std::fs::metadata(self.data_dir.join(name)).and_then(|m| m.modified()).ok()
        };
        let written = [super::POLICY, super::catalogue::OWN, super::ancestry::OWN].map(time);
        if self.written == Some(written) {
            return false;
        }
        self.written = Some(written);
        match self.read() {
            Ok(force) => {
                tracing::info!(
                    "authority: {} rules in force, {} about who starts whom",
                    force.authority.rules(),
                    force.ancestry.rules()
                );
                // Numbers of definitions are another policy's.
                (self.force, self.meter) = (Some(force), Meter::default());
                self.known.clear();
                self.order.clear();
                true
            }
            Err(error) => {
                tracing::error!("authority: {error:#}; what was in force stays");
                false
            }
        }
    }

    fn read(&self) -> anyhow::Result<Force> {
        let policy = super::read_policy(&super::policy_path(&self.data_dir))?;
        let catalogue = Agents::of_dir(&self.data_dir)?.catalogue();
        let ancestry = super::ancestry::of_dir(&self.data_dir)?;
        let compiled =
            Authority::compile(policy.as_ref().unwrap_or(&Policy::default()), &catalogue);
        let authority = compiled.map_err(|problems| super::joined(&problems))?;
        Ok(Force { authority, ancestry, policy: policy.is_some() })
    }

    /// Reads processes that were told of before and may still run.
    ///
    /// # Errors
    /// What DuckDB says.
    pub(crate) fn warm_up(&mut self, connection: &duckdb::Connection) -> Result<(), StoreError> {
        let mut statement =
            connection.prepare(&super::replay::running(WARM_DAYS, PROCESSES_MAX))?;
        let mut rows = statement.query([])?;
        let mut read: Vec<(i32, Process)> = Vec::new();
        while let Some(row) = rows.next()? {
            read.push((row.get(0)?, super::replay::process(row)?));
        }
        // The newest are forgotten last.
        read.iter().rev().for_each(|(sensor, process)| self.process(*sensor, process));
        Ok(())
    }

    /// A transaction failed: what it judged comes again.
    pub(crate) fn forget(&mut self) {
        self.judged.clear();
        self.judged_order.clear();
    }

    /// The hub stops: what waits is judged as it is.
    pub(crate) fn hurry(&mut self) {
        self.hurry = true;
    }

    /// A process began, or was told of again.
    pub(crate) fn process(&mut self, sensor: i32, process: &Process) {
        let Some(force) = &self.force else { return };
        let key = (sensor, process.program.id);
        if Known::tells(process) {
            self.signs.insert(sensor);
        }
        let identity = force.authority.identify(process);
        let subject = identity.and_then(|i| force.authority.id_of(i));
        let known = Known {
            identity,
            host: process.host.clone(),
            user: process.program.user.clone(),
            chain: words::chain(process),
            exe: process.program.exe.clone(),
            parent: process.ancestors.first().map(|p| p.name.clone()),
            suspects: force.ancestry.suspects(process, subject),
        };
        match self.known.insert(key, known) {
            None => self.order.push_back(key),
            // Told again with its hash: what was said of it stays said.
            Some(before) if before.exe == process.program.exe => {
                let now = self.known.get_mut(&key).map(|known| &mut known.suspects);
                now.into_iter().for_each(|s| s.retain(|n| before.suspects.contains(n)));
            }
            Some(_) => {}
        }
        if self.order.len() > PROCESSES_MAX {
            self.order.pop_front().map(|old| self.known.remove(&old));
        }
    }

    /// A connection was told of: what there is to say about it now.
    pub(crate) fn connection(
        &mut self,
        time: Timestamp,
        sensor: i32,
        c: &Connection,
    ) -> Vec<Finding> {
        if self.force.is_none() || c.direction != Direction::Out || c.remote.port == 0 {
            return Vec::new();
        }
        let key = (sensor, c.id);
        let first = self.first(key);
        let waited = self.waiting.contains_key(&key);
        let mut findings = Vec::new();
        if first && c.resolved.is_none() && !self.hurry {
            let waits = Waits { time, sensor, connection: c.clone(), since: None };
            self.waiting.insert(key, waits);
            if self.waiting.len() > WAITING_MAX
                && let Some((_, oldest)) = self.waiting.pop_first()
            {
                findings.extend(self.decide(oldest.time, oldest.sensor, &oldest.connection));
            }
        } else if first || (waited && c.resolved.is_some()) {
            self.waiting.remove(&key);
            findings.extend(self.decide(time, sensor, c));
        }
        findings.extend(self.charge(time, sensor, c, first));
        findings
    }

    /// Whether it is the first word on a connection.
    fn first(&mut self, key: (i32, u64)) -> bool {
        if self.judged.contains_key(&key) {
            return false;
        }
        self.judged.insert(key, Counted::default());
        self.judged_order.push_back(key);
        if self.judged_order.len() > JUDGED_MAX {
            self.judged_order.pop_front().map(|old| self.judged.remove(&old));
        }
        true
    }

    /// Those whose answer has come, and those that have waited long enough.
    pub(crate) fn due(
        &mut self,
        now: Mono,
        resolve: impl Fn(&Waits) -> Option<Resolved>,
    ) -> Vec<Waits> {
        let mut due = Vec::new();
        if self.waiting.is_empty() || (now.since(self.looked) < LOOK_EVERY && !self.hurry) {
            return due;
        }
        self.looked = now;
        self.waiting.retain(|_, waits| {
            waits.connection.resolved = resolve(waits);
            let since = *waits.since.get_or_insert(now);
            let over =
                self.hurry || waits.connection.resolved.is_some() || now.since(since) >= WAIT;
            if over {
                due.push(waits.clone());
            }
            !over
        });
        due
    }

    /// They wait on: what was to be said of them could not be stored.
    pub(crate) fn put_back(&mut self, due: Vec<Waits>) {
        self.waiting.extend(due.into_iter().map(|w| ((w.sensor, w.connection.id), w)));
    }

    /// What there is to say about a connection, with the name it has.
    pub(crate) fn decide(&mut self, time: Timestamp, sensor: i32, c: &Connection) -> Vec<Finding> {
        let Some(force) = &self.force else { return Vec::new() };
        let known = c.process.and_then(|process| self.known.get_mut(&(sensor, process)));
        let names: Vec<_> = c.resolved.iter().map(|r| r.name.clone()).collect();
        let (ip, port, proto) = (c.remote.ip, c.remote.port, c.proto);
        let to = Destination { names: &names, ip, port, proto };
        let mut findings = Vec::new();
        if let Some(known) = known {
            let mut told = HashSet::new();
            for number in &known.suspects {
                let rule = force.ancestry.fits(*number, &to);
                let Some(rule) = rule.filter(|r| !r.unsigned || self.signs.contains(&sensor))
                else {
                    continue;
                };
                findings.push(words::ancestry(rule, c, known));
                told.insert(*number);
            }
            known.suspects.retain(|number| !told.contains(number));
        }
        let known = c.process.and_then(|process| self.known.get(&(sensor, process)));
        if force.policy {
            let (authority, scope) = (&force.authority, scope(known, c));
            let decision = match c.process {
                Some(_) => authority.decide(known.and_then(|k| k.identity), &scope, &to, time),
                None => authority.decide_unknown(&scope, &to, time),
            };
            findings.extend(words::authority(&decision, c, known));
        }
        findings
    }

    /// What it carried since it was last told of, counted against the limits.
    fn charge(
        &mut self,
        time: Timestamp,
        sensor: i32,
        c: &Connection,
        first: bool,
    ) -> Vec<Finding> {
        let Some(force) = self.force.as_ref().filter(|f| f.policy) else { return Vec::new() };
        let known = c.process.and_then(|process| self.known.get(&(sensor, process)));
        let identity = known.and_then(|k| k.identity);
        let volume = c.volume.unwrap_or_default();
        let counted = self.judged.entry((sensor, c.id)).or_default();
        let usage = Usage {
            upload: volume.bytes_out.saturating_sub(counted.out),
            download: volume.bytes_in.saturating_sub(counted.back),
            connections: u64::from(first),
        };
        counted.out = counted.out.max(volume.bytes_out);
        counted.back = counted.back.max(volume.bytes_in);
        let scope = scope(known, c);
        let passed = force.authority.charge(&mut self.meter, identity, &scope, usage, time);
        let subject = identity.and_then(|i| force.authority.id_of(i)).unwrap_or("every process");
        passed.iter().map(|e| words::limit(e, subject, scope.host, c)).collect()
    }
}

fn scope<'a>(known: Option<&'a Known>, c: &'a Connection) -> Scope<'a> {
    Scope {
        host: known.map_or("", |k| &k.host),
        groups: &[],
        user: known.and_then(|k| k.user.as_deref()).or(c.user.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentmon_core::event::{Endpoint, FlowPhase, Program, Volume};

    const NOW: Timestamp = Timestamp::from_secs(1_795_444_327);

    fn process(id: u64, chain: &[&str]) -> Process {
        let program = |name: &&str| Program { id, name: (*name).into(), ..Program::default() };
        Process {
            host: "laptop".into(),
            program: program(&chain[0]),
            ancestors: chain[1..].iter().map(program).collect(),
            ..Process::default()
        }
    }

    fn connection(id: u64, process: Option<u64>, name: &str, phase: FlowPhase) -> Connection {
        Connection {
            id,
            phase,
            process,
            pid: 7,
            name: process.map(|_| "curl".into()),
            proto: 6,
            local: Endpoint::new("192.0.2.1".parse().unwrap(), 40_000),
            remote: Endpoint::new("203.0.113.5".parse().unwrap(), 443),
            direction: Direction::Out,
            start: None,
            duration_ms: None,
            volume: Some(Volume { bytes_out: 600, ..Volume::default() }),
            user: None,
            container: None,
            how: "exec".into(),
            resolved: Some(Resolved { name: name.parse().unwrap(), age_ms: 1 }),
        }
    }

    fn judge(policy: &str) -> (tempfile::TempDir, Judge) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(super::super::POLICY), policy).unwrap();
        let judge = Judge::of(dir.path());
        (dir, judge)
    }

    const POLICY: &str = r#"authority = [{process = "claude-code", allowed = ["api.anthropic.com"], max_upload = "1kB/day"}]"#;

    /// The same without a limit.
    const PLAIN: &str =
        r#"authority = [{process = "claude-code", allowed = ["api.anthropic.com"]}]"#;

    #[test]
    fn what_an_agents_child_does_outside_its_grant_is_told_once() {
        let (_dir, mut judge) = judge(PLAIN);
        judge.process(1, &process(5, &["curl", "bash", "claude"]));
        let api = connection(1, Some(5), "api.anthropic.com", FlowPhase::Update);
        assert!(judge.connection(NOW, 1, &api).is_empty());
        let other = connection(2, Some(5), "paste.example", FlowPhase::Update);
        let found = judge.connection(NOW, 1, &other);
        assert_eq!(found.len(), 1);
        let found = &found[0];
        assert_eq!((found.rule.as_str(), found.severity().as_str()), (RULE, "high"));
        assert_eq!(found.subject, "claude-code -> paste.example:443/tcp");
        assert_eq!(
            found.why,
            "curl, started by claude-code, on laptop connected to paste.example:443/tcp, which no grant of it allows"
        );
        assert!(found.evidence.contains(&("chain".into(), "curl < bash < claude".into())));
        assert!(judge.connection(NOW, 1, &other).is_empty(), "an update of it is no news");
        // Another program, without an agent above it, is nobody's business here.
        judge.process(1, &process(6, &["curl", "bash"]));
        assert!(
            judge
                .connection(NOW, 1, &connection(3, Some(6), "paste.example", FlowPhase::Update))
                .is_empty()
        );
    }

    #[test]
    fn limits_and_unknown_processes() {
        let (_dir, mut judge) = judge(POLICY);
        judge.process(1, &process(5, &["claude"]));
        let end = |id| connection(id, Some(5), "api.anthropic.com", FlowPhase::End);
        assert!(judge.connection(NOW, 1, &end(1)).is_empty());
        let found = judge.connection(NOW, 1, &end(2));
        assert_eq!(
            found.iter().map(|f| f.subject.as_str()).collect::<Vec<_>>(),
            ["claude-code: max_upload"]
        );
        let nobody =
            judge.connection(NOW, 1, &connection(9, None, "paste.example", FlowPhase::End));
        assert_eq!((nobody.len(), nobody[0].severity().as_str()), (1, "low"));
    }

    #[test]
    fn a_policy_is_taken_over_when_it_is_written_and_a_broken_one_is_not() {
        let (dir, mut judge) = judge("");
        assert!(
            judge.connection(NOW, 1, &connection(1, None, "x.example", FlowPhase::End)).len() == 1
        );
        let file = dir.path().join(super::super::POLICY);
        let write = |text: &str, at: u64| {
            std::fs::write(&file, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at);
            std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        };
        write("defaults = {unknown_process = \"allow\"}", 10);
        judge.look();
        assert!(
            judge.connection(NOW, 1, &connection(2, None, "x.example", FlowPhase::End)).is_empty()
        );
        write("nonsense", 20);
        judge.look();
        assert!(
            judge.connection(NOW, 1, &connection(3, None, "x.example", FlowPhase::End)).is_empty()
        );
        std::fs::remove_file(&file).unwrap();
        judge.look();
        assert!(!judge.force.as_ref().unwrap().policy);
    }

    /// A connection without a name.
    fn nameless(id: u64, process: Option<u64>) -> Connection {
        Connection { resolved: None, ..connection(id, process, "x.example", FlowPhase::Update) }
    }

    fn at(seconds: u64) -> Mono {
        Mono::default().plus(Duration::from_secs(seconds))
    }

    fn api() -> Resolved {
        Resolved { name: "api.anthropic.com".parse().unwrap(), age_ms: 1 }
    }

    #[test]
    fn the_answer_that_comes_after_the_connection_is_waited_for() {
        let (_dir, mut judge) = judge(PLAIN);
        judge.process(1, &process(5, &["claude"]));
        assert!(judge.connection(NOW, 1, &nameless(1, Some(5))).is_empty());
        assert!(judge.due(at(1), |_| None).is_empty());
        let due = judge.due(at(3), |_| Some(api()));
        assert_eq!(due.len(), 1);
        assert!(judge.decide(NOW, 1, &due[0].connection).is_empty(), "it was its own interface");
        // The twin: no answer comes, and it is judged by its address.
        assert!(judge.connection(NOW, 1, &nameless(2, Some(5))).is_empty());
        assert!(judge.due(at(10), |_| None).is_empty());
        let due = judge.due(at(41), |_| None);
        let found = judge.decide(NOW, 1, &due[0].connection);
        assert_eq!(found[0].subject, "claude-code -> 203.0.113.5:443/tcp");
        assert!(judge.due(at(99), |_| None).is_empty(), "once");
        // A later word on it that has the name ends the wait.
        assert!(judge.connection(NOW, 1, &nameless(3, Some(5))).is_empty());
        let named = connection(3, Some(5), "paste.example", FlowPhase::End);
        assert_eq!(judge.connection(NOW, 1, &named).len(), 1);
        assert!(judge.due(at(200), |_| None).is_empty());
        // What could not be stored waits on; a hub that stops waits for nobody.
        assert!(judge.connection(NOW, 1, &nameless(4, Some(5))).is_empty());
        let due = judge.due(at(300), |_| Some(api()));
        judge.put_back(due);
        judge.hurry();
        assert_eq!(judge.due(at(300), |_| None).len(), 1);
    }

    #[test]
    fn waiting_has_an_end_in_number_too() {
        let (_dir, mut judge) = judge(PLAIN);
        judge.process(1, &process(5, &["claude"]));
        let all = WAITING_MAX as u64 + 2;
        let told: usize =
            (0..all).map(|id| judge.connection(NOW, 1, &nameless(id, Some(5))).len()).sum();
        assert_eq!((told, judge.waiting.len()), (2, WAITING_MAX));
    }

    #[test]
    fn bytes_are_counted_while_a_connection_lasts_and_once() {
        let (_dir, mut judge) = judge(POLICY);
        judge.process(1, &process(5, &["claude"]));
        let mut told = |phase, bytes_out| {
            let mut c = connection(1, Some(5), "api.anthropic.com", phase);
            c.volume = Some(Volume { bytes_out, ..Volume::default() });
            judge.connection(NOW, 1, &c).len()
        };
        assert_eq!(told(FlowPhase::Start, 0), 0);
        assert_eq!(told(FlowPhase::Update, 900), 0);
        assert_eq!(told(FlowPhase::Update, 1_000), 0, "1,000 in all, not 1,900");
        assert_eq!(told(FlowPhase::Update, 1_001), 1);
        assert_eq!(told(FlowPhase::End, 5_000), 0, "once in its span");
    }

    /// Processes are told once: a hub that restarts, and one that gets another policy, has to
    /// know them from its store.
    #[test]
    fn who_began_before_the_hub_or_the_policy_is_judged_too() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::open_write(dir.path(), &crate::store::Limits::default()).unwrap();
        store
            .execute_batch(
                r#"INSERT INTO processes (time, sensor, phase, process, host, os, pid, name, deleted, argv, user_name, ancestors)
                VALUES ('2026-11-20', 1, 'start', 5, 'laptop', 'linux', 7, 'curl', false, ['curl'], 'alice', '[{"id":4,"pid":4,"name":"claude"}]'),
                    ('2026-11-20', 1, 'start', 6, 'laptop', 'linux', 8, 'claude', false, NULL, NULL, '[]'),
                    ('2026-11-21', 1, 'exit', 6, 'laptop', 'linux', 8, 'claude', false, NULL, NULL, '[]')"#,
            )
            .unwrap();
        std::fs::write(dir.path().join(super::super::POLICY), POLICY).unwrap();
        let mut judge = Judge::of(dir.path());
        judge.warm_up(&store).unwrap();
        let other = |id, process| connection(id, Some(process), "paste.example", FlowPhase::Update);
        let found = judge.connection(NOW, 1, &other(1, 5));
        assert_eq!(found[0].subject, "claude-code -> paste.example:443/tcp");
        assert!(found[0].why.starts_with("curl, started by claude-code, on laptop"));
        assert!(judge.connection(NOW, 1, &other(2, 6)).is_empty(), "it has ended");
        let file = dir.path().join(super::super::POLICY);
        std::fs::write(&file, POLICY.replace("api.anthropic", "paste")).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(9);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        assert!(judge.look());
        judge.warm_up(&store).unwrap();
        let api = connection(3, Some(5), "api.anthropic.com", FlowPhase::Update);
        assert_eq!(
            judge.connection(NOW, 1, &api).len(),
            1,
            "the new policy denies what the old allowed"
        );
        assert!(!judge.look());
    }

    /// What was rolled back comes again and is told then.
    #[test]
    fn after_a_failed_transaction_it_is_told_again() {
        let (_dir, mut judge) = judge(PLAIN);
        judge.process(1, &process(5, &["claude"]));
        let other = connection(1, Some(5), "paste.example", FlowPhase::Update);
        assert_eq!(judge.connection(NOW, 1, &other).len(), 1);
        judge.forget();
        assert_eq!(judge.connection(NOW, 1, &other).len(), 1);
    }

    /// The shipped rules, each beside what is like it and innocent.
    #[track_caller]
    fn started(os: &str, chain: &[&str], place: &str, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let mut judge = Judge::of(dir.path());
        let program = |text: &&str| {
            let mut words = text.split('|').map(str::to_owned);
            let exe = words.next().unwrap();
            let name = exe.rsplit(['/', '\\']).next().unwrap_or(&exe).to_owned();
            let signer = exe.starts_with("/Applications/Signed").then(|| "TEAM".to_owned());
            let exe = exe.contains(['/', '\\']).then_some(exe);
            Program { id: 5, name, exe, signer, argv: words.collect(), ..Program::default() }
        };
        // A program whose signature is known: so there are unsigned ones.
        judge.process(
            1,
            &Process {
                program: Program { id: 9, ..program(&"/Applications/Signed.app/x") },
                ..Process::default()
            },
        );
        judge.process(
            1,
            &Process {
                os: os.into(),
                host: "desk".into(),
                program: program(&chain[0]),
                ancestors: chain[1..].iter().map(program).collect(),
                ..Process::default()
            },
        );
        let (name, address) = place.split_once('=').unwrap_or(("", place));
        let at: std::net::SocketAddr = address.parse().unwrap();
        let mut c = connection(1, Some(5), "x.example", FlowPhase::Update);
        c.remote = Endpoint::new(at.ip(), at.port());
        c.resolved = name.parse().ok().map(|name| Resolved { name, age_ms: 1 });
        let mut found = judge.decide(NOW, 1, &c);
        assert!(found.iter().all(|f| f.rule == ANCESTRY), "{found:?}");
        let rules: Vec<String> = found
            .iter()
            .map(|f| f.evidence.iter().find(|(k, _)| k == "ancestry_rule").unwrap().1.clone())
            .collect();
        assert_eq!(rules.join(" "), expected, "{chain:?} -> {place}");
        found.clear();
        assert!(judge.decide(NOW, 1, &c).is_empty(), "once for each program");
    }

    #[test]
    fn shipped_rules_and_their_twins() {
        let web = "www.example.com=203.0.113.5:443";
        let linux =
            |chain: &[&str], place: &str, expected: &str| started("linux", chain, place, expected);
        linux(&["/usr/bin/curl", "/bin/sh", "/usr/sbin/nginx", "systemd"], web, "web-server-tool");
        linux(&["/usr/bin/curl", "/bin/bash", "/usr/sbin/sshd", "systemd"], web, "");
        linux(&["/usr/sbin/nginx", "systemd"], web, "");
        linux(&["/usr/bin/wget", "java", "systemd"], web, "java-tool");
        linux(&["/usr/bin/git", "java", "gnome-shell"], web, "");
        linux(&["java"], "198.51.100.9:1389", "java-directory");
        linux(&["java"], "192.168.1.9:389", "");
        linux(&["/usr/bin/python3", "firefox", "gnome-shell"], web, "browser-tool");
        linux(&["/usr/bin/python3|/usr/lib/native-messaging/host", "firefox"], web, "");
        linux(&["/bin/bash", "sshd"], "203.0.113.5:4443", "shell-connects");
        linux(&["/bin/bash", "sshd"], "192.168.1.5:4443", "");
        linux(&["/tmp/x"], web, "odd-place-unix");
        linux(&["/tmp/.mount_EditorAbc/editor"], web, "");
        linux(&["/dev/shm/k"], "203.0.113.5:4444", "odd-place-unix callback-port");
        linux(&["/usr/bin/ssh"], "203.0.113.5:2222", "");
        linux(&["/usr/bin/python3"], "api.telegram.org=203.0.113.5:443", "chat-bot-orders");
        linux(&["/usr/bin/telegram-desktop"], "api.telegram.org=203.0.113.5:443", "");
        // A program on node that fetches, and an agent on node, whose business that is.
        linux(
            &["/usr/bin/curl", "/bin/sh", "/usr/bin/node|node|install.js"],
            web,
            "package-script",
        );
        let agent = "/usr/bin/node|node|/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js";
        linux(&["/usr/bin/curl", "/bin/bash", agent], web, "");
        linux(
            &["/home/a/.local/share/claude/versions/2.1|claude|--dangerously-skip-permissions"],
            web,
            "agent-without-guard-rails",
        );
        linux(&["/home/a/.local/share/claude/versions/2.1|claude"], web, "");
        let windows = |chain: &[&str], place: &str, expected: &str| {
            started("windows", chain, place, expected)
        };
        windows(
            &["C:\\Windows\\System32\\mshta.exe", "C:\\Office\\WINWORD.EXE", "explorer.exe"],
            web,
            "office-tool-windows",
        );
        windows(&["C:\\Office\\WINWORD.EXE", "explorer.exe"], web, "");
        windows(&["powershell.exe", "wscript.exe"], web, "script-powershell");
        windows(&["svchost.exe", "evil.exe"], web, "false-svchost");
        windows(&["svchost.exe", "services.exe", "wininit.exe"], web, "");
        windows(&["services.exe", "explorer.exe"], web, "false-services");
        windows(&["C:\\Users\\Public\\a.exe", "explorer.exe"], web, "odd-place-windows");
        let macos =
            |chain: &[&str], place: &str, expected: &str| started("macos", chain, place, expected);
        macos(&["/usr/bin/curl", "/bin/sh", "Microsoft Word"], web, "office-tool-macos");
        macos(
            &["/usr/bin/curl", "/Applications/Tool.app/Contents/MacOS/Tool"],
            "203.0.113.5:80",
            "application-bare-address",
        );
        macos(&["/usr/bin/curl", "/Applications/Tool.app/Contents/MacOS/Tool"], web, "");
        macos(&["/opt/implant"], "203.0.113.5:4433", "unsigned-bare-address");
        macos(&["/Applications/Signed.app/x"], "203.0.113.5:4433", "");
    }
}
