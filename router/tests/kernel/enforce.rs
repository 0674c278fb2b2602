//! Holding DNS questions: listed ones are dropped and told, all others pass; and whatever
//! happens to the program, DNS goes on.
//!
//! The questions are handed over by iptables' target NFQUEUE, which kernels have that lack
//! the statement `queue` of nftables; the queue and its reader are the same.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use agentmon_core::event::DnsStatus;
use agentmon_core::tier0::blocklist;
use agentmon_router::collect::neighbours::Neighbours;
use agentmon_router::enforce::{Config, Gate, Source};
use agentmon_router::kernel::{rules, setup};
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Host, Lab, Running, eventually};
use crate::nflog::{answer, question};
use crate::traffic::{self, WAN};
use crate::watch::Watch;

const QUEUE: u16 = 17;
/// Questions held at most, in these tests.
const LENGTH: u32 = 4;
/// Long enough for an answer on a busy machine, short enough to wait for none.
const PATIENCE: Duration = Duration::from_secs(3);

/// A lab whose router hands forwarded questions to the queue, and a server that answers.
fn lab() -> Option<Lab> {
    let lab = Lab::new(&[])?;
    let rule = "iptables -I FORWARD -p udp --dport 53 -j NFQUEUE --queue-num 17 --queue-bypass";
    lab.exec(Host::Router, rule);
    traffic::udp_server(&lab, WAN[0], 53, answer);
    Some(lab)
}

/// How many of these questions, put all at once, are answered within a while.
fn answered(lab: &Lab, names: &[&str]) -> usize {
    let questions: Vec<Vec<u8>> = names.iter().map(|name| question(name)).collect();
    let asked = lab.on(Host::Lan, move || {
        let sockets: Vec<UdpSocket> = questions.iter().map(|question| ask(question)).collect();
        sockets.iter().filter(|socket| socket.recv(&mut [0; 512]).is_ok()).count()
    });
    asked.join().expect("the asking thread")
}

fn ask(question: &[u8]) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    socket.send_to(question, (WAN[0], 53)).expect("sent");
    socket
}

fn gate() -> Gate {
    let mut builder = blocklist::Config::default().builder();
    builder.list("bad", 0.8, b"bad.example\n");
    builder.list("nuisance", 0.3, b"ads.example\n");
    let gate = Gate::default();
    gate.set(builder.build());
    gate
}

#[test]
fn listed_names_are_not_asked_for_and_others_are() {
    let Some(lab) = lab() else { return };
    assert_eq!(answered(&lab, &["www.bad.example"]), 1, "nobody reads the queue");
    let config = Config { enabled: true, length: LENGTH, ..Config::default() };
    let gate = gate();
    let watch = Watch::start(&lab, Source::new(config, gate.clone(), Neighbours::default()));
    assert_eq!(answered(&lab, &["www.bad.example", "bad.example"]), 0);
    assert_eq!(answered(&lab, &["www.good.example", "ads.example", "notbad.example"]), 3);
    let told = eventually("both drops are told", || {
        let told = watch.dns();
        if told.len() >= 2 { Ok(told) } else { Err(format!("{told:?}")) }
    });
    assert!(told.iter().all(|dns| dns.status == DnsStatus::Blocked), "{told:?}");
    assert!(told.iter().all(|dns| dns.client.to_string() == "192.168.77.2"), "{told:?}");
    assert_eq!((watch.count("enforce.stopped"), watch.count("enforce.passed")), (2, 3));
    eventually("the state says so", || {
        let line = watch.state.get();
        if line == "ok: 5 questions held, 2 dropped" { Ok(()) } else { Err(line) }
    });
    // New lists hold from the next question on.
    gate.set(blocklist::Blocklist::default());
    assert_eq!(answered(&lab, &["www.bad.example"]), 1);
    drop(watch);
    assert_eq!(answered(&lab, &["www.bad.example"]), 1, "stopped");
}

/// The real program, so that it can be frozen and killed.
fn program(lab: &Lab, folder: &Path) -> Running {
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(path("list.txt"), "bad.example\n").expect("a list");
    let config = format!(
        "state_dir = \"{}\"\n[status]\nsocket = \"{}\"\n[forward]\nenabled = false\n\
         [enforce]\nenabled = true\nlength = {LENGTH}\n\
         [[tier0.blocklist.lists]]\nname = \"bad\"\npath = \"{}\"\nscore = 0.8\n",
        path("state"),
        path("status.sock"),
        path("list.txt"),
    );
    std::fs::write(path("router.toml"), config).expect("a configuration");
    let program = env!("CARGO_BIN_EXE_agentmon-router");
    let running =
        lab.spawn(Host::Router, &format!("{program} run --config {}", path("router.toml")));
    eventually("the queue is read", || {
        let queues = lab.exec(Host::Router, "cat /proc/net/netfilter/nfnetlink_queue");
        let ours = queues.lines().any(|l| l.split_whitespace().next() == Some("17"));
        if ours { Ok(()) } else { Err(queues) }
    });
    running
}

#[test]
fn dns_goes_on_while_the_program_hangs_and_after_it_is_killed() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let running = program(&lab, folder.path());
    assert_eq!(answered(&lab, &["www.bad.example"]), 0, "it acts");
    let pid = Pid::from_child(&running.0);
    kill_process(pid, Signal::STOP).expect("stopped");
    let many = vec!["www.good.example"; 24];
    let held = usize::try_from(LENGTH).expect("few");
    // The first fill the queue, and find it full no more.
    let passed = answered(&lab, &many);
    assert_eq!(passed, many.len() - held, "a hung program holds {LENGTH} questions, no more");
    assert_eq!(answered(&lab, &many), many.len(), "and no further ones");
    kill_process(pid, Signal::CONT).expect("woken");
    eventually("woken, it goes on", || {
        if answered(&lab, &["www.bad.example"]) == 0 { Ok(()) } else { Err("passed".into()) }
    });
    kill_process(pid, Signal::KILL).expect("killed");
    eventually("killed, it holds nothing", || {
        if answered(&lab, &["www.bad.example"]) == 1 { Ok(()) } else { Err("held".into()) }
    });
}

#[test]
fn a_kernel_without_queue_rules_says_so_and_keeps_its_firewall() {
    let Some(lab) = Lab::new(&[]) else { return };
    let outcome = lab.on(Host::Router, || setup::install_hold(QUEUE)).join().expect("a thread");
    let tables = lab.exec(Host::Router, "nft list tables");
    match outcome {
        // This kernel has them: then the table is there, and goes again.
        Ok(()) => {
            assert!(tables.contains(rules::HOLD_TABLE), "{tables}");
            lab.on(Host::Router, setup::remove).join().expect("a thread").expect("removed");
            assert!(!lab.exec(Host::Router, "nft list tables").contains(rules::HOLD_TABLE));
        }
        Err(error) => {
            assert!(format!("{error:#}").contains("kmod-nft-queue"), "{error:#}");
            assert!(!tables.contains(rules::HOLD_TABLE), "{tables}");
        }
    }
}
