//! A made-up system, and what is told of it.

use super::*;
use std::collections::HashMap;
use std::fs::File;
use std::sync::Mutex;

use agentmon_core::event::Endpoint;
use agentmon_core::time::SimClock;

use crate::files::Signer;
use crate::platform::{Facts, Raw};

/// Its processes and sockets.
type State = (HashMap<u32, Raw>, Vec<Seen>);

#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

impl Facts for World {
    const OS: &'static str = "windows";
    fn host(&self) -> String {
        "pc\u{1b}[2J".into()
    }
    fn boot(&self) -> String {
        "b".into()
    }
    fn pids(&self) -> Vec<u32> {
        self.0.lock().unwrap().0.keys().copied().collect()
    }
    fn start(&self, pid: u32) -> Option<u64> {
        Some(self.read(pid)?.start_ticks)
    }
    fn read(&self, pid: u32) -> Option<Raw> {
        self.0.lock().unwrap().0.get(&pid).cloned()
    }
    fn started(&self, start: u64, _now: Timestamp) -> Option<Timestamp> {
        Some(Timestamp::from_secs(i64::try_from(start).ok()?))
    }
    fn user(&self, uid: u32) -> Option<String> {
        (uid == 5).then(|| "PC\\alice".into())
    }
    fn open_exe(&self, _pid: u32) -> io::Result<File> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Polled for World {
    const SIGNER: Signer = |_, _| None;
    const MISSED: &'static [&'static str] = &["all that is short"];
    fn sockets(&self, found: &mut Vec<Seen>) -> anyhow::Result<()> {
        found.clone_from(&self.0.lock().unwrap().1);
        Ok(())
    }
    fn coverage(&self) -> Coverage {
        Coverage { lines: Vec::new(), method: "scan" }
    }
}

fn raw(ppid: u32, start: u64, name: &str, argv: &[&str]) -> Raw {
    Raw {
        ppid,
        start_ticks: start,
        comm: name.into(),
        argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
        uid: 5,
        service: (name == "svchost.exe").then(|| "Dnscache".into()),
        ..Raw::default()
    }
}

fn seen(pid: u32, port: u16) -> Seen {
    Seen {
        cookie: u64::from(pid) << 16 | u64::from(port),
        inode: pid,
        proto: 6,
        local: Endpoint::new("192.0.2.7".parse().unwrap(), port),
        remote: Endpoint::new("203.0.113.5".parse().unwrap(), 443),
        listens: false,
        uid: 0,
        volume: None,
    }
}

fn words(events: &[Event]) -> Vec<String> {
    let word = |event: &Event| match &event.body {
        Body::Process(p) => {
            let chain = p.ancestors.iter().map(|a| format!(" < {}", a.name)).collect::<String>();
            let user = p.program.user.clone().unwrap_or_default();
            format!("{}{chain} {user} {}", p.program.name, p.program.argv.join(" "))
        }
        Body::Connection(c) => {
            let user = c.user.clone().unwrap_or_default();
            format!("{:?} {} {} {user} {}", c.phase, c.pid, c.local.port, c.how)
        }
        other => other.kind().into(),
    };
    events.iter().map(word).collect()
}

fn poll(world: &World, clock: &Arc<SimClock>) -> Poll<World> {
    Poll::open(&Collect::default(), Arc::clone(clock) as Arc<dyn Clock>, world.clone()).unwrap()
}

fn step(poll: &mut Poll<World>, clock: &SimClock) -> Vec<String> {
    clock.advance(Duration::from_secs(1));
    let mut out = Vec::new();
    poll.step(&mut out).unwrap();
    words(&out)
}

#[test]
fn a_connection_with_its_process_from_begin_to_end() {
    let (world, clock) =
        (World::default(), Arc::new(SimClock::at(Timestamp::from_secs(1_795_444_327))));
    {
        let (processes, sockets) = &mut *world.0.lock().unwrap();
        processes.insert(4, raw(0, 1, "explorer.exe", &[]));
        processes.insert(8, raw(4, 2, "claude.exe", &["claude.exe", "--token", "abc"]));
        sockets.push(seen(8, 50_000));
    }
    let mut poll = poll(&world, &clock);
    assert_eq!(
        step(&mut poll, &clock),
        [
            "claude.exe < explorer.exe PC\\alice claude.exe --token [redacted]",
            "Update 8 50000 PC\\alice scan"
        ]
    );
    assert!(step(&mut poll, &clock).is_empty());
    // The process ends with its socket; a new one with the same pid is another.
    {
        let (processes, sockets) = &mut *world.0.lock().unwrap();
        processes.insert(8, raw(4, 9, "svchost.exe", &[]));
        *sockets = vec![Seen { cookie: 1, ..seen(8, 50_001) }];
    }
    let mut told = step(&mut poll, &clock);
    told.sort();
    assert_eq!(
        told,
        [
            "End 8 50000  scan",
            "Update 8 50001 PC\\alice scan",
            "svchost.exe < explorer.exe PC\\alice "
        ]
    );
    let known = poll.processes.get(8).unwrap();
    assert_eq!(known.process.program.package.as_deref(), Some("service:Dnscache"));
    assert_eq!(
        (known.process.os.as_str(), known.process.host.contains('\u{1b}')),
        ("windows", false)
    );
    assert_eq!(known.process.start, Some(Timestamp::from_secs(9)));
}

#[test]
fn a_socket_that_nobody_owns_is_told_without() {
    let (world, clock) =
        (World::default(), Arc::new(SimClock::at(Timestamp::from_secs(1_795_444_327))));
    world.0.lock().unwrap().1 = vec![seen(0, 1), seen(77, 2)];
    let mut poll = poll(&world, &clock);
    assert!(step(&mut poll, &clock).is_empty(), "an owner is waited for");
    step(&mut poll, &clock);
    world.0.lock().unwrap().1.clear();
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(step(&mut poll, &clock));
    }
    assert!(told.iter().all(|t| t.contains("none")), "{told:?}");
    assert_eq!(poll.lost()["host.without_owner"], 2);
}

#[test]
fn the_pace_follows_what_comes_and_goes() {
    let ms = Duration::from_millis;
    let mut pace = Pace::new(ms(1_000));
    let pauses: Vec<_> = [1, 1, 1, 1, 1, 0, 0].map(|n| pace.after(n, ms(0)).as_millis()).into();
    assert_eq!(pauses, [500, 250, 125, 100, 100, 125, 156]);
    // Never more than a fiftieth of the time, whatever comes.
    assert_eq!(pace.after(9, ms(40)), ms(1_960));
    assert_eq!(Pace::new(ms(50)).after(9, ms(0)), ms(50));
    let mut quiet = Pace::new(ms(1_000));
    assert_eq!((0..50).map(|_| quiet.after(0, ms(1))).max(), Some(ms(1_000)));
}
