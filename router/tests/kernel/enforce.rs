//! Held packets: stopped when listed, answered, and never held up, whatever becomes of the
//! program. The rules are those of `setup`: by nftables where this kernel has its `queue`,
//! by iptables where not.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agentmon_core::dns_wire;
use agentmon_core::event::{DnsStatus, Verdict};
use agentmon_core::finding::Finding;
use agentmon_core::tier0::Tier0Config;
use agentmon_core::tier0::blocklist::{self, ListConfig};
use agentmon_core::time::{Clock as _, SystemClock};
use agentmon_router::enforce::{Block, Config, Exception, Gate, PULSE, REFUSE, Source};
use agentmon_router::kernel::hold::{self, By, Hold};
use agentmon_router::kernel::{rules, setup};
use agentmon_router::sys;
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Host, Lab, Running, eventually};
use crate::nflog::{answer, question};
use crate::traffic::{self, WAN};
use crate::watch::Watch;

const QUEUE: u16 = 17;
/// Packets held at most, in these tests.
const LENGTH: u32 = 4;
/// Long enough for an answer on a very busy machine; waited for in vain only where there is
/// to be silence.
const PATIENCE: Duration = Duration::from_secs(10);
/// The router's own addresses towards the lan, where its resolver listens.
const ROUTER: [&str; 2] = ["192.168.77.1", "2001:db8:77::1"];
/// An address of the wan that is listed, of each family.
const BAD: [&str; 2] = ["203.0.113.66", "2001:db8:99::66"];

/// A lab whose router hands packets to the queue, with resolvers that answer: one in the
/// wan, one on the router itself.
fn lab() -> Option<Lab> {
    let lab = Lab::new(&[])?;
    install(&lab).expect("this kernel can hand packets to a queue");
    for ip in WAN {
        traffic::udp_server(&lab, ip, 53, answer);
    }
    for ip in ROUTER {
        resolver(&lab, ip);
    }
    for ip in BAD {
        let bits = if ip.contains(':') { "64 nodad" } else { "24" };
        let (ip, bits, options) = match bits.split_once(' ') {
            Some((bits, options)) => (ip, bits, options),
            None => (ip, bits, ""),
        };
        lab.exec(Host::Wan, &format!("ip addr add {ip}/{bits} dev w0 {options}"));
    }
    Some(lab)
}

fn install(lab: &Lab) -> anyhow::Result<By> {
    let hold = Hold { queue: QUEUE, interfaces: Vec::new(), addresses: true };
    lab.on(Host::Router, move || hold::install(&hold)).join().expect("a thread")
}

/// A resolver on the router.
fn resolver(lab: &Lab, ip: &'static str) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    drop(lab.on(Host::Router, move || {
        let socket = UdpSocket::bind((ip, 53)).expect("the port is free");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        ready.send(()).expect("the test waits");
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length]) {
                drop(socket.send_to(&answer, from));
            }
        }
    }));
    is_ready.recv().expect("the resolver listens");
}

fn gate() -> Gate {
    let mut builder = blocklist::Config::default().builder();
    let mut list = |name: &str, score, block, text: &str| {
        let list = ListConfig { name: name.into(), score, block, ..ListConfig::default() };
        let report = builder.list_of(&list, text.as_bytes());
        assert!(report.is_clean(), "{report}");
    };
    list("bad", 0.8, true, &format!("bad.example\n{}\n", BAD.join("\n")));
    list("nuisance", 0.9, false, "ads.example\nwww.bad.example\n");
    let local = vec!["2001:db8:77::/64".parse().expect("a network")];
    let gate = Gate::default();
    gate.set(builder.build(), &Tier0Config { local, ..Tier0Config::default() });
    gate
}

fn config() -> Config {
    Config { enabled: true, dry_run: false, length: LENGTH, ..Config::default() }
}

/// Asks `server` for these names, all at once: the response code of each, `None` for silence.
fn ask(lab: &Lab, server: &'static str, names: &[&str], more: &'static [u8]) -> Vec<Option<u16>> {
    let questions: Vec<Vec<u8>> = names
        .iter()
        .map(|name| {
            let mut bytes = question(name);
            bytes[11] = u8::from(!more.is_empty());
            bytes.extend(more);
            bytes
        })
        .collect();
    let asked = lab.on(Host::Lan, move || {
        let to = SocketAddr::new(server.parse::<IpAddr>().expect("an address"), 53);
        let sockets: Vec<UdpSocket> = questions.iter().map(|bytes| send(bytes, to)).collect();
        sockets.iter().map(code).collect::<Vec<_>>()
    });
    asked.join().expect("the asking thread")
}

/// Connected: only what comes from where the question went is an answer.
fn send(question: &[u8], to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    socket.connect(to).expect("connected");
    socket.send(question).expect("sent");
    socket
}

fn code(socket: &UdpSocket) -> Option<u16> {
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).ok()?;
    let message = dns_wire::decode(&buffer[..length]).expect("a DNS message");
    assert!(message.response && message.id == 7, "{message:?}");
    Some(message.rcode)
}

const NXDOMAIN: Option<u16> = Some(3);
const FOUND: Option<u16> = Some(0);

/// An OPT record, as resolvers' clients send it.
const OPT: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];

#[track_caller]
fn evidence<'a>(finding: &'a Finding, key: &str) -> &'a str {
    let found = finding.evidence.iter().find(|(k, _)| k == key);
    found.map_or_else(|| panic!("no {key}: {finding:?}"), |(_, value)| value)
}

/// What was told of each verdict: its word and subject, sorted.
fn verdicts(watch: &Watch) -> Vec<String> {
    let mut all: Vec<_> = watch
        .findings()
        .iter()
        .map(|f| format!("{} {}", evidence(f, "verdict"), f.subject))
        .collect();
    all.sort_unstable();
    all
}

/// Until the kernel has seen a pulse: from then on the rules match.
fn until_in_force(lab: &Lab) {
    eventually("the rules are in force", || {
        if ask(lab, WAN[0], &["probe.bad.example"], &[]) == [FOUND] {
            Err("not yet".into())
        } else {
            Ok(())
        }
    });
}

#[test]
fn listed_names_are_answered_for_with_no_such_name() {
    let Some(lab) = lab() else { return };
    assert_eq!(ask(&lab, WAN[0], &["www.bad.example"], &[]), [FOUND], "nobody reads the queue");
    let gate = gate();
    let watch = Watch::start(&lab, Source::new(config(), gate.clone()));
    until_in_force(&lab);
    // Through the router and to the router, by IPv4 and IPv6, with EDNS and without.
    for server in WAN.into_iter().chain(ROUTER) {
        let names = ["www.bad.example", "www.good.example", "ads.example", "notbad.example"];
        assert_eq!(ask(&lab, server, &names, &[]), [NXDOMAIN, FOUND, FOUND, FOUND], "{server}");
        assert_eq!(ask(&lab, server, &["bad.example"], OPT), [NXDOMAIN], "{server}");
    }
    let told = eventually("it is told", || {
        let told = watch.dns();
        if told.len() >= 5 { Ok(told) } else { Err(format!("{told:?}")) }
    });
    let mac = lab.exec(Host::Lan, "cat /sys/class/net/l0/address");
    for dns in &told {
        assert_eq!((dns.status, dns.rcode), (DnsStatus::Blocked, Some(3)), "{dns:?}");
        assert_eq!(dns.mac.map(|m| m.to_string()).as_deref(), Some(mac.trim()));
    }
    assert!(verdicts(&watch).contains(&"nxdomain www.bad.example".to_owned()));
    assert_eq!(watch.count("enforce.unanswered"), 0);
    assert!(watch.count("enforce.stopped.nxdomain") >= 9);
    // The answers are no connections of their own.
    let tracked = lab.exec(Host::Router, "conntrack -L -p udp --sport 53");
    assert!(tracked.trim().is_empty(), "{tracked}");
    // New lists hold from the next question on.
    gate.set(blocklist::Blocklist::default(), &Tier0Config::default());
    assert_eq!(ask(&lab, WAN[0], &["www.bad.example"], &[]), [FOUND]);
    drop(watch);
    eventually("stopped, it holds nothing", || {
        let codes = ask(&lab, WAN[0], &["www.bad.example"], &[]);
        if codes == [FOUND] { Ok(()) } else { Err(format!("{codes:?}")) }
    });
}

#[test]
fn where_a_list_says_drop_there_is_silence() {
    let Some(lab) = lab() else { return };
    let lists = [("bad".to_owned(), Block::Drop)].into();
    let watch = Watch::start(&lab, Source::new(Config { lists, ..config() }, gate()));
    until_in_force(&lab);
    assert_eq!(ask(&lab, WAN[0], &["www.bad.example", "good.example"], &[]), [None, FOUND]);
    assert!(watch.count("enforce.stopped.drop") >= 2);
    assert_eq!(watch.count("enforce.stopped.nxdomain"), 0);
}

#[test]
fn a_dry_run_tells_and_stops_nothing() {
    let Some(lab) = lab() else { return };
    let watch = Watch::start(&lab, Source::new(Config { dry_run: true, ..config() }, gate()));
    eventually("the rules are in force", || {
        ask(&lab, WAN[0], &["probe.bad.example"], &[]);
        if watch.count("enforce.dry_run") > 0 { Ok(()) } else { Err("not yet".into()) }
    });
    assert_eq!(ask(&lab, WAN[0], &["www.bad.example"], &[]), [FOUND]);
    serve(&lab, BAD[0]);
    assert!(connects(&lab, BAD[0]));
    eventually("both are told", || {
        let told = verdicts(&watch);
        let all = ["dry-run 203.0.113.66:443/tcp", "dry-run www.bad.example"];
        let both = all.iter().all(|one| told.iter().any(|t| t == one));
        if both { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert_eq!((watch.dns().len(), watch.firewall().len()), (0, 0));
    assert!(watch.state.get().starts_with("dry run: "), "{}", watch.state.get());
}

/// A server of TCP port 443 in the wan, until the lab goes.
fn serve(lab: &Lab, ip: &'static str) {
    let listening = lab.on(Host::Wan, move || {
        let listener = TcpListener::bind((ip, 443)).expect("the port is free");
        std::thread::spawn(move || while listener.accept().is_ok() {});
    });
    listening.join().expect("it listens");
}

fn connects(lab: &Lab, ip: &'static str) -> bool {
    outcome(lab, ip).is_ok()
}

fn outcome(lab: &Lab, ip: &'static str) -> std::io::Result<()> {
    let to = SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), 443);
    let connected = lab.on(Host::Lan, move || TcpStream::connect_timeout(&to, PATIENCE).map(drop));
    connected.join().expect("connecting")
}

#[test]
fn connections_to_listed_addresses_are_refused_and_others_are_made() {
    let Some(lab) = lab() else { return };
    for ip in WAN.into_iter().chain(BAD) {
        serve(&lab, ip);
        assert!(connects(&lab, ip), "before: {ip}");
    }
    let watch = Watch::start(&lab, Source::new(config(), gate()));
    until_in_force(&lab);
    for (bad, good) in BAD.into_iter().zip(WAN) {
        let refused = outcome(&lab, bad).expect_err("it is listed").kind();
        assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{bad}: at once, by a reset");
        assert!(connects(&lab, good), "{good}");
    }
    let told = eventually("both are told", || {
        let told = watch.firewall();
        if told.len() >= 2 { Ok(told) } else { Err(format!("{told:?}")) }
    });
    assert!(told.iter().all(|packet| packet.verdict == Verdict::Reject), "{told:?}");
    assert_eq!(told[0].dst.to_string(), "203.0.113.66:443");
    assert!(watch.count("enforce.stopped.reject") >= 2);
    // A datagram is refused too.
    let refused = lab.on(Host::Lan, || {
        let socket = send(b"hello", "203.0.113.66:4433".parse().expect("an address"));
        socket.recv(&mut [0; 9]).expect_err("refused").raw_os_error()
    });
    // EHOSTUNREACH, as "prohibited by an administrator" is told.
    assert_eq!(refused.join().expect("sent"), Some(113));
}

#[test]
fn exceptions_hold_for_their_device_and_time() {
    let Some(lab) = lab() else { return };
    let mac = lab.exec(Host::Lan, "cat /sys/class/net/l0/address").trim().to_owned();
    let exception = |what: &str, device: &str| Exception {
        what: what.into(),
        device: device.into(),
        ..Exception::default()
    };
    let exceptions = vec![
        exception("mine.bad.example", &mac),
        exception("others.bad.example", "00:00:5e:00:53:77"),
    ];
    let gate = gate();
    let watch = Watch::start(&lab, Source::new(Config { exceptions, ..config() }, gate.clone()));
    until_in_force(&lab);
    let names = ["www.mine.bad.example", "others.bad.example", "now.bad.example"];
    assert_eq!(ask(&lab, WAN[0], &names, &[]), [FOUND, NXDOMAIN, NXDOMAIN]);
    let now = SystemClock.wall();
    gate.allow(&exception("now.bad.example", "192.168.77.2"), now).expect("added");
    assert_eq!(ask(&lab, WAN[0], &names, &[]), [FOUND, NXDOMAIN, FOUND]);
    assert_eq!(gate.forbid("now.bad.example").expect("removed"), 1);
    assert_eq!(ask(&lab, WAN[0], &names, &[]), [FOUND, NXDOMAIN, NXDOMAIN]);
    let told = eventually("it is told by which exception", || {
        let told = watch.findings();
        let one = told.into_iter().find(|f| f.subject == "www.mine.bad.example");
        one.ok_or_else(|| format!("{:?}", verdicts(&watch)))
    });
    assert_eq!(evidence(&told, "verdict"), "allowed");
    assert_eq!(evidence(&told, "exception"), format!("mine.bad.example for {mac}"));
}

#[test]
fn ways_around_are_told() {
    let Some(lab) = lab() else { return };
    let watch = Watch::start(&lab, Source::new(config(), gate()));
    until_in_force(&lab);
    let to: SocketAddr = "203.0.113.2:853".parse().expect("an address");
    lab.on(Host::Lan, move || drop(TcpStream::connect_timeout(&to, PATIENCE)))
        .join()
        .expect("tried");
    let over_tcp: SocketAddr = "192.168.77.1:53".parse().expect("an address");
    let tried = move || drop(TcpStream::connect_timeout(&over_tcp, PATIENCE));
    lab.on(Host::Lan, tried).join().expect("tried");
    eventually("both are told", || {
        let told = verdicts(&watch);
        let all = ["dns_encrypted 203.0.113.2:853/tcp", "dns_over_tcp 192.168.77.1:53/tcp"];
        let both = all.iter().all(|one| told.iter().any(|t| t == one));
        if both { Ok(()) } else { Err(format!("{told:?}")) }
    });
    // The internet gets no answer from us, whatever it asks for.
    let strange = lab.on(Host::Wan, || {
        let to: SocketAddr = "203.0.113.1:53".parse().expect("an address");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time-out");
        socket.send_to(&question("www.bad.example"), to).expect("sent");
        socket.recv(&mut [0; 512]).is_ok()
    });
    assert!(!strange.join().expect("asked"));
    assert!(watch.count("enforce.unjudged.strangers") >= 1);
}

/// The real program, so that it can be frozen and killed, with room for so many packets.
fn program(lab: &Lab, folder: &Path, length: u32) -> Running {
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(path("list.txt"), "bad.example\n").expect("a list");
    let config = format!(
        "state_dir = \"{}\"\n[status]\nsocket = \"{}\"\n[forward]\nenabled = false\n\
         [enforce]\nenabled = true\ndry_run = false\nlength = {length}\n\
         [[tier0.blocklist.lists]]\nname = \"bad\"\npath = \"{}\"\nblock = true\n",
        path("state"),
        path("status.sock"),
        path("list.txt"),
    );
    std::fs::write(path("router.toml"), config).expect("a configuration");
    let program = env!("CARGO_BIN_EXE_agentmon-router");
    let running =
        lab.spawn(Host::Router, &format!("{program} run --config {}", path("router.toml")));
    eventually("it acts", || {
        let codes = ask(lab, WAN[0], &["www.bad.example"], &[]);
        if codes == [NXDOMAIN] { Ok(()) } else { Err(format!("{codes:?}")) }
    });
    running
}

/// An exception by the command line: at once, and still there after a restart.
#[test]
fn a_person_lets_something_through() {
    let Some(lab) = lab() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("router.toml").display().to_string();
    let router = env!("CARGO_BIN_EXE_agentmon-router");
    let allow = |lab: &Lab, words: &str| {
        lab.exec(Host::Router, &format!("{router} allow {words} --config {config}"))
    };
    let names = ["www.bad.example", "else.bad.example"];
    let running = program(&lab, folder.path(), LENGTH);
    let said = allow(&lab, "www.bad.example --for 1h --why presents");
    assert!(said.contains("www.bad.example  for everybody  until 2"), "{said}");
    assert_eq!(ask(&lab, WAN[0], &names, &[]), [FOUND, NXDOMAIN]);
    drop(running);
    eventually("the first is gone", || {
        let queues = lab.exec(Host::Router, "cat /proc/net/netfilter/nfnetlink_queue");
        if queues.trim().is_empty() { Ok(()) } else { Err(queues) }
    });
    let command = format!("{router} run --config {config}");
    let _again = lab.spawn(Host::Router, &command);
    eventually("it acts again, but for the exception", || {
        let codes = ask(&lab, WAN[0], &names, &[]);
        if codes == [FOUND, NXDOMAIN] { Ok(()) } else { Err(format!("{codes:?}")) }
    });
    assert!(allow(&lab, "--list").contains("presents"));
    allow(&lab, "--remove www.bad.example");
    assert_eq!(ask(&lab, WAN[0], &names, &[]), [NXDOMAIN, NXDOMAIN]);
}

/// Packets in the queue now, and handed over so far.
fn queued(lab: &Lab) -> (u32, u64) {
    let queues = lab.exec(Host::Router, "cat /proc/net/netfilter/nfnetlink_queue");
    let rows = queues.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    let ours = rows.into_iter().find(|row| row.first() == Some(&"17")).unwrap_or_default();
    let column = |n: usize| ours.get(n).and_then(|c| c.parse::<u64>().ok()).unwrap_or(0);
    (u32::try_from(column(2)).expect("few"), column(7))
}

fn waiting(lab: &Lab) -> u32 {
    queued(lab).0
}

#[test]
fn the_network_goes_on_while_the_program_hangs_and_after_it_is_killed() {
    let Some(lab) = lab() else { return };
    serve(&lab, WAN[0]);
    let folder = tempfile::tempdir().expect("a folder");
    // Room for more than is asked: a full queue, which lets the rest pass, is another test.
    let running = program(&lab, folder.path(), 64);
    let pid = Pid::from_child(&running.0);
    kill_process(pid, Signal::STOP).expect("stopped");
    // Frozen, it beats no more: within a second the rules match nothing. Questions put
    // before are held, as many as the queue takes.
    eventually("the rules are out of force", || {
        // One at a time: were the rules still in force, every single one would be held.
        let codes = ask(&lab, WAN[0], &["www.bad.example"], &[]);
        if codes == [FOUND] { Ok(()) } else { Err(format!("{codes:?}")) }
    });
    let before = waiting(&lab);
    let many = vec!["www.good.example"; 64];
    assert_eq!(ask(&lab, WAN[0], &many, &[]), vec![FOUND; many.len()], "every one of many");
    assert!(connects(&lab, WAN[0]), "and connections");
    assert_eq!(waiting(&lab), before, "none is handed to it any more");
    kill_process(pid, Signal::CONT).expect("woken");
    eventually("woken, it goes on", || {
        let codes = ask(&lab, WAN[0], &["www.bad.example"], &[]);
        if codes == [NXDOMAIN] { Ok(()) } else { Err(format!("{codes:?}")) }
    });
    kill_process(pid, Signal::KILL).expect("killed");
    eventually("killed, it holds nothing", || {
        let codes = ask(&lab, WAN[0], &["www.bad.example"], &[]);
        if codes == [FOUND] { Ok(()) } else { Err(format!("{codes:?}")) }
    });
    assert_eq!(ask(&lab, WAN[0], &many, &[]), vec![FOUND; many.len()]);
}

/// Far more questions than can be judged: those of others are answered all the same.
#[test]
fn an_overload_of_questions_holds_nobody_up() {
    let Some(lab) = lab() else { return };
    serve(&lab, WAN[0]);
    let folder = tempfile::tempdir().expect("a folder");
    let _running = program(&lab, folder.path(), LENGTH);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flood = |_| {
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        lab.on(Host::Lan, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            let bytes = question("flood.bad.example");
            // Should the test fail, the flood ends by itself.
            while !stop.load(Ordering::Relaxed) && sent.load(Ordering::Relaxed) < 5_000_000 {
                drop(socket.send_to(&bytes, (WAN[0], 53)));
                sent.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let floods: Vec<_> = (0..2).map(flood).collect();
    eventually("thousands pass by a full queue", || {
        let (judged, sent) = (queued(&lab).1, sent.load(Ordering::Relaxed));
        if sent > judged + 5_000 { Ok(()) } else { Err(format!("{judged} of {sent} judged")) }
    });
    eventually("questions of others are answered during the flood", || {
        let codes = ask(&lab, ROUTER[0], &["www.good.example"; 8], &[]);
        let answered = codes.iter().filter(|code| **code == FOUND).count();
        if answered == codes.len() { Ok(()) } else { Err(format!("{answered} of 8")) }
    });
    eventually("and connections are made", || {
        if connects(&lab, WAN[0]) { Ok(()) } else { Err("none".into()) }
    });
    // Two processors may both find the last place free.
    let held = waiting(&lab);
    assert!(held <= 2 * LENGTH, "{held} packets are held");
    stop.store(true, Ordering::Relaxed);
    floods.into_iter().for_each(|flood| flood.join().expect("a flood"));
    eventually("and then it judges again", || {
        let codes = ask(&lab, WAN[0], &["www.bad.example"], &[]);
        if codes == [NXDOMAIN] { Ok(()) } else { Err(format!("{codes:?}")) }
    });
}

#[test]
fn rules_come_by_nftables_or_iptables_and_go_without_a_trace() {
    let Some(lab) = Lab::new(&[]) else { return };
    let by = install(&lab).expect("one of them");
    let ruleset = || lab.exec(Host::Router, "nft list ruleset");
    // As iptables tells it: its older form shows nothing of its rules to nft.
    let chains = || -> String {
        ["iptables -t mangle", "iptables -t filter", "ip6tables -t mangle", "ip6tables -t filter"]
            .map(|table| lab.exec(Host::Router, &format!("{table} -S")))
            .concat()
    };
    // Twice is once.
    assert_eq!(install(&lab).expect("again"), by);
    match by {
        By::Nft => assert_eq!(ruleset().matches("queue flags bypass to 17").count(), 4),
        By::Iptables => {
            assert!(!ruleset().contains(rules::HOLD_TABLE));
            let all = chains();
            // Three for questions and one for addresses, for both families; one jump each.
            let queue = "-j NFQUEUE --queue-num 17 --queue-bypass";
            assert_eq!(all.matches(queue).count(), 8, "{all}");
            assert_eq!(all.matches("-j AGENTMON_HOLD_DNS").count(), 2, "{all}");
        }
    }
    lab.on(Host::Router, setup::remove).join().expect("a thread").expect("removed");
    let left = if by == By::Iptables { ruleset() + &chains() } else { ruleset() };
    assert!(!left.contains("AGENTMON") && !left.contains("agentmon"), "{left}");
}

/// The nftables text on this very kernel; where that has no `queue`, with `drop` in its
/// place: what would be handed over is seen by its absence.
#[test]
fn the_table_is_in_force_only_while_there_is_a_pulse() {
    let Some(lab) = Lab::new(&[]) else { return };
    let hold = Hold { queue: QUEUE, interfaces: vec!["rl".into()], addresses: true };
    let queue = "queue flags bypass to 17";
    lab.nft(&hold::table(&hold).replace(queue, "drop"));
    for ip in WAN {
        traffic::udp_server(&lab, ip, 53, answer);
        serve(&lab, ip);
    }
    let both = |lab: &Lab| WAN.map(|ip| ask(lab, ip, &["www.example.com"], &[]) == [FOUND]);
    assert_eq!(both(&lab), [true, true], "no pulse, no rule");
    assert!(connects(&lab, WAN[0]));
    // One family's pulse is enough; other marks, and other ways, are none.
    let (stop, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (end, ended) = (Arc::clone(&stop), Arc::clone(&stopped));
    let beating = lab.on(Host::Router, move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        sys::set_mark(socket.as_fd(), PULSE).expect("root may");
        while !end.load(Ordering::Relaxed) {
            drop(socket.send_to(&[0], "127.0.0.1:9"));
            std::thread::sleep(Duration::from_millis(100));
        }
        ended.store(true, Ordering::Relaxed);
    });
    eventually("the rules are in force for questions of both families", || {
        let answered = both(&lab);
        if answered == [false, false] { Ok(()) } else { Err(format!("{answered:?}")) }
    });
    assert!(!connects(&lab, WAN[0]), "and for connections");
    stop.store(true, Ordering::Relaxed);
    beating.join().expect("the pulse");
    eventually("without a pulse they are not", || {
        let answered = both(&lab);
        if answered == [true, true] { Ok(()) } else { Err(format!("{answered:?}")) }
    });
    assert!(connects(&lab, WAN[0]));
    // What bears the mark is refused by the first rules of the chain.
    lab.nft(&format!(
        "table inet marks {{\n  chain forward {{\n    type filter hook forward priority -20; policy accept;\n    \
         tcp dport 443 meta mark set {REFUSE:#x}\n  }}\n}}\n"
    ));
    for ip in WAN {
        let refused = outcome(&lab, ip).expect_err("it is marked").kind();
        assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{ip}");
    }
}
