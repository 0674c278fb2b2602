//! The kernel's part on the real kernel: UDP, IPv6, who accepts, network namespaces, and
//! programs that try to hide.
//!
//! Traffic stays on loopbacks. Left out loudly where eBPF is not allowed.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use agentmon_core::event::{Body, Connection, Direction, FlowPhase, Process};
use agentmon_core::time::{Clock as _, SystemClock};
use agentmon_core::wire;
use seen::{Seen, curl_is_here, leave_out};

mod seen;

const SECRET: &str = "Hunter2-Hunter2-Hunter2";

/// A watch by the kernel's part, for which `UDP` may be missing, or nothing.
fn kernel(udp: bool) -> Option<Seen> {
    let mut seen = Seen::new(true, true);
    let lines = seen.watch.coverage().lines.clone();
    let line = lines.into_iter().find(|(name, _)| name == "kernel").map(|(_, line)| line);
    if seen.watch.coverage().method != "kernel" || (udp && line.as_deref() != Some("ok")) {
        leave_out(&format!("eBPF: {line:?}"), false);
        return None;
    }
    seen.until("the first look", |_| Some(()));
    Some(seen)
}

fn me(c: &Connection) -> bool {
    c.pid == std::process::id() && c.how == "kernel"
}

/// curl in the background, to a server of this test.
fn curl(to: SocketAddr) -> Child {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-m", "100", &format!("http://{to}/")]);
    curl.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("curl starts")
}

/// The next one; never waits for one that does not come.
fn accept(server: &TcpListener) -> (TcpStream, SocketAddr) {
    server.set_nonblocking(true).unwrap();
    let clock = SystemClock;
    let end = clock.mono().plus(seen::patience());
    loop {
        if let Ok((stream, from)) = server.accept() {
            stream.set_nonblocking(false).unwrap();
            return (stream, from);
        }
        assert!(clock.mono() < end, "nobody connects");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn answer(mut stream: TcpStream) {
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn datagrams_have_their_owner_connected_or_not() {
    let Some(mut seen) = kernel(true) else { return };
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let (asks, serves) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
        let (from, to) = (asks.local_addr().unwrap(), serves.local_addr().unwrap());
        asks.send_to(b"?", to).unwrap();
        let is =
            |c: &Connection| (c.local.port, c.remote.port, c.proto) == (from.port(), to.port(), 17);
        let open = seen.until("a datagram", |s| s.find(|c| is(c) && me(c)));
        assert_eq!((open.local.ip, open.remote.ip), (from.ip(), to.ip()));
        drop(asks);
        seen.until("its socket's end", |s| {
            s.find(|c| c.id == open.id && c.phase == FlowPhase::End)
        });

        // Connected, and over before anybody could look: its end says all.
        let asks =
            UdpSocket::bind(any.replace("::1", "::").replace("127.0.0.1", "0.0.0.0")).unwrap();
        asks.connect(to).unwrap();
        let from = asks.local_addr().unwrap();
        asks.send(b"?").unwrap();
        drop(asks);
        let is = |c: &Connection| {
            c.local.port == from.port() && c.remote.port == to.port() && c.phase == FlowPhase::End
        };
        let over = seen.until("a connected one", |s| s.find(|c| is(c) && me(c)));
        assert_eq!((over.local.ip, over.remote.ip), (from.ip(), to.ip()));
    }
}

#[test]
fn what_is_sent_without_an_address_of_ones_own_has_the_routes() {
    let Some(mut seen) = kernel(true) else { return };
    let asks = UdpSocket::bind("0.0.0.0:0").unwrap();
    let serves = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (from, to) = (asks.local_addr().unwrap(), serves.local_addr().unwrap());
    asks.send_to(b"?", to).unwrap();
    let is = |c: &Connection| c.local.port == from.port() && c.remote.port == to.port();
    let open = seen.until("a datagram", |s| s.find(|c| is(c) && me(c)));
    assert_eq!(open.local.ip, to.ip(), "as it is in the packet");
}

#[test]
fn who_listens_has_what_is_accepted() {
    if !curl_is_here() {
        return;
    }
    let before = TcpListener::bind("[::1]:0").unwrap();
    let Some(mut seen) = kernel(false) else { return };
    let after = TcpListener::bind("[::1]:0").unwrap();
    for (server, how) in [(before, "listener"), (after, "kernel")] {
        let to = server.local_addr().unwrap();
        let mut client = curl(to);
        let (stream, from) = accept(&server);
        let is = |c: &Connection| {
            (c.local.port, c.remote.port) == (to.port(), from.port())
                && c.direction == Direction::In
        };
        let open = seen.until("the accepted side", |s| s.find(|c| is(c) && c.pid != 0));
        assert_eq!((open.pid, open.how.as_str()), (std::process::id(), how));
        let out =
            seen.until("curl's side", |s| s.connection(to, Direction::Out, FlowPhase::Update));
        assert_eq!((out.name.as_deref(), out.local.port), (Some("curl"), from.port()));
        answer(stream);
        client.wait().unwrap();
        let over = seen.until("its end", |s| s.find(|c| is(c) && c.phase == FlowPhase::End));
        assert_eq!((over.id, over.pid), (open.id, std::process::id()));
        // The kernel counts what ends a connection as a byte.
        assert!(over.volume.is_some_and(|v| (24..=26).contains(&v.bytes_out)), "{over:?}");
    }
}

#[test]
fn what_is_refused_has_its_owner_too() {
    let Some(mut seen) = kernel(false) else { return };
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    TcpStream::connect(nobody).unwrap_err();
    let is = |c: &Connection| c.remote.port == nobody.port() && c.direction == Direction::Out;
    let over = seen.until("the refusal", |s| s.find(|c| is(c) && me(c)));
    assert_eq!((over.phase, over.volume.map_or(0, |v| v.bytes_out)), (FlowPhase::End, 0));
}

/// A network namespace, gone with this.
struct Namespace(String);

impl Namespace {
    fn new() -> Option<Self> {
        let name = format!("am-host-{}", std::process::id());
        let ip = |args: &[&str]| {
            Command::new("ip").args(args).output().is_ok_and(|o| o.status.success())
        };
        if !ip(&["netns", "add", &name]) {
            leave_out("ip netns (apt-get install iproute2; root)", false);
            return None;
        }
        let all = Self(name);
        assert!(ip(&["-n", &all.0, "link", "set", "lo", "up"]));
        Some(all)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.0]).status());
    }
}

#[test]
fn another_network_namespace_is_seen_and_named() {
    if !curl_is_here() {
        return;
    }
    let Some(mut seen) = kernel(false) else { return };
    let Some(inside) = Namespace::new() else { return };
    // A thread goes inside and serves there; its process stays where it is.
    let at = std::fs::File::open(format!("/run/netns/{}", inside.0)).unwrap();
    let serve = std::thread::spawn(move || {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&at), kind).unwrap();
        TcpListener::bind("127.0.0.1:0").unwrap()
    });
    let server = serve.join().unwrap();
    let to = server.local_addr().unwrap();
    let mut client = Command::new("ip");
    client.args(["netns", "exec", &inside.0, "curl", "-s", &format!("http://{to}/")]);
    let mut client = client.stdout(Stdio::null()).spawn().unwrap();
    let (stream, from) = accept(&server);
    answer(stream);
    client.wait().unwrap();
    let is = |c: &Connection, way: Direction| {
        let end = if way == Direction::Out { c.local } else { c.remote };
        end.port == from.port() && c.direction == way && c.phase == FlowPhase::End
    };
    let named = format!("netns:{}", inside.0);
    let out = seen.until("curl's side", |s| s.find(|c| is(c, Direction::Out)));
    assert_eq!((out.name.as_deref(), out.container.as_deref()), (Some("curl"), Some(&*named)));
    let bytes = out.volume.map_or(0, |v| v.bytes_in);
    assert!((24..=26).contains(&bytes), "by the kernel's record alone: {out:?}");
    let inward = seen.until("the server's side", |s| s.find(|c| is(c, Direction::In)));
    assert_eq!((inward.pid, inward.container.as_deref()), (std::process::id(), Some(&*named)));
}

fn script(path: &Path, body: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Names from the process itself upwards.
fn chain(process: &Process) -> Vec<&str> {
    let all = std::iter::once(&process.program).chain(&process.ancestors);
    all.map(|p| p.name.as_str()).collect()
}

/// Its connection and process, of what curl (under whatever name) did to `to`.
fn who(seen: &mut Seen, to: SocketAddr) -> (Connection, Process) {
    // One that is over at once is told once.
    let is = |c: &Connection| c.direction == Direction::Out && c.remote.port == to.port();
    let open = seen.until("the connection", |s| s.find(|c| is(c) && c.process.is_some()));
    let process = seen.process(open.process.unwrap()).expect("told before its connection");
    (open, process)
}

#[test]
fn programs_that_try_to_hide() {
    if !curl_is_here() {
        return;
    }
    let Some(mut seen) = kernel(false) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();

    // A name that would clear a terminal; the file is gone before anybody can look at it; its
    // parent forks twice and goes; it runs through a shell that becomes it; a megabyte of
    // arguments, with a secret before and behind.
    let hidden = dir.path().join("c\x1b[2Jrl");
    let real = ["/usr/bin/curl", "/bin/curl"].into_iter().find(|p| Path::new(p).exists());
    let Some(real) = real else { return leave_out("curl in /usr/bin", true) };
    std::fs::copy(real, &hidden).unwrap();
    script(&dir.path().join("double"), "(setsid ./chain & ) ; exit 0");
    script(
        &dir.path().join("chain"),
        "long=$(head -c 100000 /dev/zero | tr '\\0' x)\n\
         exec ./c*rl -s --oauth2-bearer \"$S\" -A \"$long\" -A \"$long\" -A \"$long\" -A \"$long\" -A \"$long\" \
         -A \"$long\" -A \"$long\" -A \"$long\" -A \"$long\" -A \"$long\" \
         -H \"Authorization: Bearer $S\" \"http://user:$S@$TO/\"",
    );
    let status = Command::new("./double")
        .envs([("S", SECRET), ("TO", &to.to_string())])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let (stream, _) = accept(&server);
    std::fs::remove_file(&hidden).unwrap();
    let (_, process) = who(&mut seen, to);
    assert_eq!(process.program.name, "c\\x1b[2Jrl");
    let chain = chain(&process);
    assert!(chain.contains(&"chain") && chain.contains(&"double"), "{chain:?}");
    assert!(process.program.argv.iter().map(String::len).sum::<usize>() < 64 * 1024);
    answer(stream);
    for event in &seen.events {
        let bytes = wire::encode_event(event);
        assert!(!bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()), "{event:?}");
        if let Body::Process(p) = &event.body {
            let text = format!("{:?}", p.program.exe);
            assert!(!text.contains('\x1b'), "{text}");
        }
    }
}

#[test]
fn a_program_of_milliseconds_is_known_whole() {
    if !curl_is_here() {
        return;
    }
    let Some(mut seen) = kernel(false) else { return };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    // Over before anybody looks: nothing is asked of the watch until then.
    let mut client = curl(to);
    answer(accept(&server).0);
    client.wait().unwrap();
    let (open, process) = who(&mut seen, to);
    assert_eq!((open.pid, open.how.as_str()), (client.id(), "kernel"));
    let url = format!("http://{to}/");
    assert_eq!(process.program.argv, ["curl", "-s", "-m", "100", &url]);
    assert!(process.program.exe.as_deref().is_some_and(|e| e.ends_with("/curl")), "{process:?}");
    assert_eq!(process.ancestors.first().map(|p| p.pid), Some(std::process::id()));
    let hashed =
        seen.until("its hash", |s| s.process(open.process?).filter(|p| p.program.sha256.is_some()));
    assert_eq!(hashed.program.sha256.map(|h| h.len()), Some(64));
}
