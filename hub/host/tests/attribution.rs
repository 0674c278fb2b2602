//! Real processes on the real kernel: a stand-in for an agent starts curl, and the connection
//! is curl's, below the agent, judged by the agent's authority; without its secrets.
//!
//! Traffic stays on the loopback. Needs curl; where the program is root in the machine's own
//! network namespace the kernel tells of processes, elsewhere it is found by looking. Nothing
//! here depends on how fast that is: the server keeps the connection open until it was seen.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use agentmon_core::authority::{Authority, Catalogue, Destination, Policy, Scope};
use agentmon_core::event::{Direction, FlowPhase, Process};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::wire;
use seen::{Seen, curl_is_here};

mod seen;

const SECRET: &str = "Hunter2-Hunter2-Hunter2";

/// A script of that name: what it starts is its child, since more than one command follows.
fn script(dir: &Path, name: &str, body: &str) -> Child {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n:\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    Command::new(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn names(process: &Process) -> Vec<String> {
    std::iter::once(&process.program).chain(&process.ancestors).map(|p| p.name.clone()).collect()
}

fn a_child_of_an_agent(events: bool, ebpf: bool) {
    if !curl_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let mut seen = Seen::new(events, ebpf);
    if ebpf && seen.watch.coverage().method != "kernel" {
        let lines = &seen.watch.coverage().lines;
        writeln!(std::io::stderr(), "\nHOST TEST WITHOUT EBPF: this kernel says {lines:?}\n")
            .expect("standard error can be written");
    }
    seen.until("the first look", |_| Some(()));
    let curl = format!(
        "curl -s -H 'Authorization: Bearer {SECRET}' 'http://user:{SECRET}@{to}/?k={SECRET}'"
    );
    let mut agent = script(dir.path(), "claude-code", &curl);
    let (mut stream, _) = server.accept().unwrap();
    let open =
        seen.until("curl's connection", |s| s.connection(to, Direction::Out, FlowPhase::Update));
    let process =
        seen.process(open.process.unwrap()).expect("a process is told before its connection");
    assert_eq!(process.program.name, "curl");
    assert!(
        process.program.exe.as_deref().is_some_and(|exe| exe.ends_with("/curl")),
        "{process:?}"
    );
    let above = process.ancestors.first().expect("the agent");
    assert_eq!(
        (above.pid, above.argv.get(1).map(|a| a.ends_with("/claude-code"))),
        (agent.id(), Some(true))
    );
    assert!(names(&process).len() > 2, "{:?}", names(&process));

    // Judged by the agent's authority, although curl is nobody to it.
    let policy: Policy = toml::from_str(
        r#"
        process = [{id = "claude-code", any = [{argv = "*/claude-code"}]}]
        authority = [{process = "claude-code", allowed = ["api.anthropic.com"]}]
        "#,
    )
    .unwrap();
    let authority = Authority::compile(&policy, &Catalogue::default()).unwrap();
    let name = ["elsewhere.example".parse().unwrap()];
    let destination =
        Destination { names: &name, ip: "203.0.113.5".parse().unwrap(), port: 443, proto: 6 };
    let identity = authority.identify(&process);
    let decision = authority.decide(identity, &Scope::default(), &destination, SystemClock.wall());
    assert_eq!((decision.verdict.as_str(), decision.subject), ("outside", Some("claude-code")));
    assert_eq!(identity.map(|i| i.above), Some(1));

    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    drop(stream);
    let over = seen.until("its end", |s| s.connection(to, Direction::Out, FlowPhase::End));
    assert_eq!((over.id, over.process), (open.id, open.process));
    agent.wait().unwrap();
    let hashed =
        seen.until("its hash", |s| s.process(open.process?).filter(|p| p.program.sha256.is_some()));
    assert_eq!(hashed.program.sha256.map(|h| h.len()), Some(64));
    for event in &seen.events {
        let bytes = wire::encode_event(event);
        assert!(!bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()), "{event:?}");
        assert_eq!(&wire::decode_event(&bytes).unwrap(), event, "as the hub reads it");
    }
}

#[test]
fn a_child_of_an_agent_found_by_looking() {
    a_child_of_an_agent(false, false);
}

#[test]
fn a_child_of_an_agent_as_the_kernel_tells_of_it() {
    a_child_of_an_agent(true, false);
}

#[test]
fn a_child_of_an_agent_by_the_program_in_the_kernel() {
    a_child_of_an_agent(true, true);
}

#[test]
fn what_is_accepted_has_its_server() {
    let server = TcpListener::bind("[::1]:0").unwrap();
    let to = server.local_addr().unwrap();
    let client = std::net::TcpStream::connect(to).unwrap();
    let accepted = server.accept().unwrap();
    let mut seen = Seen::new(false, false);
    let inward =
        seen.until("the accepted side", |s| s.connection(to, Direction::In, FlowPhase::Update));
    assert_eq!((inward.pid, inward.local.port), (std::process::id(), to.port()));
    assert_eq!(inward.remote.port, client.local_addr().unwrap().port());
    drop((client, accepted));
}

#[test]
fn a_socket_of_udp_has_its_owner() {
    let (a, b) = (
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap(),
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap(),
    );
    a.connect(b.local_addr().unwrap()).unwrap();
    let mut seen = Seen::new(false, false);
    let to = b.local_addr().unwrap();
    let found = seen.until("the socket", |s| s.connection(to, Direction::Out, FlowPhase::Update));
    assert_eq!((found.pid, found.proto), (std::process::id(), 17));
}
