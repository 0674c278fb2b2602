//! Connections of hosts, judged as they arrive.
//!
//! In: processes and connections of the host agents, in event time. Out: findings of rule
//! [`RULE`], one for each connection that a policy does not allow and each limit that is
//! passed. Runs on the writer's thread. Without `authority.toml` it does nothing.
//!
//! Budget: a look-up and a decision (below 2 us). Invariants: at most [`PROCESSES_MAX`]
//! processes and [`JUDGED_MAX`] connections are remembered; a policy that cannot be read
//! leaves the one before in force.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use agentmon_core::Timestamp;
use agentmon_core::authority::meter::{Meter, Usage};
use agentmon_core::authority::{Authority, Decision, Destination, Identity, Mode, Scope, Verdict};
use agentmon_core::event::{Connection, Direction, FlowPhase, Process};
use agentmon_core::finding::Finding;
use agentmon_core::service::proto_name;

use super::catalogue::Agents;

/// The rule's name.
pub(crate) const RULE: &str = "authority";
/// Processes remembered, over all hosts: 500 hosts with 100 each that talk.
const PROCESSES_MAX: usize = 50_000;
/// Connections remembered as judged.
const JUDGED_MAX: usize = 65_536;
/// Score of what is denied, outside a grant, flagged.
const SCORES: [f64; 3] = [0.8, 0.7, 0.3];

/// A process, as far as it matters for later connections.
#[derive(Clone, Debug)]
struct Known {
    identity: Option<Identity>,
    host: String,
    user: Option<String>,
    chain: String,
}

/// The policy in force and what it has to know of the past.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    data_dir: PathBuf,
    /// When the files in force were written.
    written: Option<(Option<SystemTime>, Option<SystemTime>)>,
    authority: Option<Authority>,
    known: HashMap<(i32, u64), Known>,
    order: VecDeque<(i32, u64)>,
    judged: HashSet<(i32, u64)>,
    judged_order: VecDeque<(i32, u64)>,
    meter: Meter,
}

impl Judge {
    /// Of that directory's policy.
    pub(crate) fn of(data_dir: &Path) -> Self {
        let mut judge = Self { data_dir: data_dir.to_owned(), ..Self::default() };
        judge.look();
        judge
    }

    /// Reads the policy again where it has changed.
    pub(crate) fn look(&mut self) {
        let time = |name: &str| {
            std::fs::metadata(self.data_dir.join(name)).and_then(|m| m.modified()).ok()
        };
        let written = (time(super::POLICY), time("agents.toml"));
        if self.written == Some(written) {
            return;
        }
        self.written = Some(written);
        match self.read() {
            Ok(authority) => {
                if let Some(authority) = &authority {
                    tracing::info!("authority: {} rules in force", authority.rules());
                }
                // Numbers of definitions are another policy's.
                (self.authority, self.meter) = (authority, Meter::default());
                self.known.clear();
                self.order.clear();
            }
            Err(error) => tracing::error!("authority: {error:#}; what was in force stays"),
        }
    }

    fn read(&self) -> anyhow::Result<Option<Authority>> {
        let Some(policy) = super::read_policy(&super::policy_path(&self.data_dir))? else {
            return Ok(None);
        };
        let catalogue = Agents::of_dir(&self.data_dir)?.catalogue();
        let compiled = Authority::compile(&policy, &catalogue);
        compiled.map(Some).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", lines.join("; "))
        })
    }

    /// A process began, or was told of again.
    pub(crate) fn process(&mut self, sensor: i32, process: &Process) {
        let Some(authority) = &self.authority else { return };
        let key = (sensor, process.program.id);
        let known = Known {
            identity: authority.identify(process),
            host: process.host.clone(),
            user: process.program.user.clone(),
            chain: chain(process),
        };
        if self.known.insert(key, known).is_none() {
            self.order.push_back(key);
            if self.order.len() > PROCESSES_MAX {
                self.order.pop_front().map(|old| self.known.remove(&old));
            }
        }
    }

    /// A connection was told of: what there is to say about it.
    pub(crate) fn connection(
        &mut self,
        time: Timestamp,
        sensor: i32,
        c: &Connection,
    ) -> Vec<Finding> {
        let Some(authority) = &self.authority else { return Vec::new() };
        if c.direction != Direction::Out || c.remote.port == 0 {
            return Vec::new();
        }
        let known = c.process.and_then(|process| self.known.get(&(sensor, process)));
        let identity = known.and_then(|k| k.identity);
        let scope = Scope {
            host: known.map_or("", |k| &k.host),
            groups: &[],
            user: known.and_then(|k| k.user.as_deref()).or(c.user.as_deref()),
        };
        let names: Vec<_> = c.resolved.iter().map(|r| r.name.clone()).collect();
        let (ip, port, proto) = (c.remote.ip, c.remote.port, c.proto);
        let to = Destination { names: &names, ip, port, proto };
        let mut findings = Vec::new();
        let first = self.judged.insert((sensor, c.id));
        if first {
            self.judged_order.push_back((sensor, c.id));
            if self.judged_order.len() > JUDGED_MAX {
                self.judged_order.pop_front().map(|old| self.judged.remove(&old));
            }
            let decision = match c.process {
                Some(_) => authority.decide(identity, &scope, &to, time),
                None => authority.decide_unknown(&scope, &to, time),
            };
            findings.extend(finding(&decision, c, known));
        }
        // What passed is known for good at the end only.
        let over = c.phase == FlowPhase::End;
        let volume = c.volume.filter(|_| over).unwrap_or_default();
        let usage = Usage {
            upload: volume.bytes_out,
            download: volume.bytes_in,
            connections: u64::from(first),
        };
        let passed = authority.charge(&mut self.meter, identity, &scope, usage, time);
        let subject = identity.and_then(|i| authority.id_of(i)).unwrap_or("every process");
        findings.extend(passed.into_iter().map(|e| {
            Finding {
                rule: RULE.into(),
                subject: format!("{subject}: {}", e.kind.as_str()),
                client: Some(c.local.ip),
                mac: None,
                score: SCORES[1],
                why: format!(
                    "{subject} on {} used {}, more than {} allows ({})",
                    scope.host,
                    e.used,
                    e.kind.as_str(),
                    e.limit
                ),
                evidence: Vec::new(),
            }
            .with("limit", e.limit)
            .with("used", e.used)
            .with("grant", e.place)
        }));
        findings
    }
}

/// `curl < bash < claude`.
fn chain(process: &Process) -> String {
    let all = std::iter::once(&process.program).chain(process.ancestors.iter().take(6));
    all.map(|p| p.name.as_str()).collect::<Vec<_>>().join(" < ")
}

/// What a decision is worth telling.
fn finding(decision: &Decision<'_>, c: &Connection, known: Option<&Known>) -> Option<Finding> {
    let score = match (decision.mode, decision.verdict) {
        (Mode::Allow | Mode::Learn, _) => return None,
        (Mode::Flag, _) => SCORES[2],
        (Mode::Alert, Verdict::Denied | Verdict::PrivateAnswer) => SCORES[0],
        (Mode::Alert, _) => SCORES[1],
    };
    let name = c.resolved.as_ref().map_or_else(|| c.remote.ip.to_string(), |r| r.name.to_string());
    let program = c.name.as_deref().unwrap_or("a program nobody knows");
    let who = decision.subject.unwrap_or(program);
    let says = match decision.verdict {
        Verdict::Denied => "which its grant denies",
        Verdict::PrivateAnswer => "a public name that stands for a private address",
        Verdict::Outside if decision.weak => "which it may only when it is better known",
        Verdict::Outside => "which no grant of it allows",
        Verdict::UnknownProcess => "and nobody knows whose connection it is",
        _ => "for which it has no grant",
    };
    let started = match decision.subject {
        Some(subject) if known.is_some_and(|k| k.identity.is_some_and(|i| i.above > 0)) => {
            format!("{program}, started by {subject},")
        }
        _ => who.to_owned(),
    };
    let place = format!("{name}:{}/{}", c.remote.port, proto_name(c.proto));
    let host = known.map(|k| k.host.as_str()).filter(|h| !h.is_empty());
    let on = host.map(|h| format!(" on {h}")).unwrap_or_default();
    let mut finding = Finding {
        rule: RULE.into(),
        subject: format!("{who} -> {place}"),
        client: Some(c.local.ip),
        mac: None,
        score,
        why: format!("{started}{on} connected to {place}, {says}"),
        evidence: Vec::new(),
    }
    .with("verdict", decision.verdict.as_str())
    .with("program", program)
    .with("pid", c.pid)
    .with("address", c.remote);
    if let Some(known) = known {
        finding = finding.with("chain", &known.chain);
    }
    for (key, value) in [
        ("agent", decision.subject),
        ("known_by", decision.strength.map(|s| s.as_str())),
        ("rule", decision.rule),
        ("grant", decision.place),
        ("comment", decision.comment),
        ("user", c.user.as_deref()),
        ("host", host),
    ] {
        if let Some(value) = value {
            finding = finding.with(key, value);
        }
    }
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentmon_core::event::{Endpoint, Program, Resolved, Volume};

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

    #[test]
    fn what_an_agents_child_does_outside_its_grant_is_told_once() {
        let (_dir, mut judge) = judge(POLICY);
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
        assert!(judge.authority.is_none());
    }
}
