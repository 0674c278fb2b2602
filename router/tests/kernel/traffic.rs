//! Traffic with known numbers of bytes, made by threads of the lab's hosts.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::lab::{Host, Lab, eventually};

/// The wan host's addresses.
pub(crate) const WAN: [&str; 2] = ["203.0.113.2", "2001:db8:99::2"];
const TIMEOUT: Duration = Duration::from_secs(10);

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port)
}

/// One connection from `from` to `ip:port`, where `server` listens (behind NAT possibly
/// under another address): `up` bytes there, `down` bytes back, both sides closed.
pub(crate) fn tcp(
    lab: &Lab,
    (server, listen): (Host, SocketAddr),
    (from, to): (Host, SocketAddr),
    up: usize,
    down: usize,
) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = lab.on(server, move || {
        let listener = TcpListener::bind(listen).expect("the port is free");
        ready.send(()).expect("the test waits");
        let (mut stream, _) = listener.accept().expect("a client comes");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a time-out");
        let mut got = vec![0; up];
        stream.read_exact(&mut got).expect("all of it");
        stream.write_all(&vec![b'd'; down]).expect("it is read");
    });
    is_ready.recv().expect("the server listens");
    let client = lab.on(from, move || {
        let mut stream = TcpStream::connect_timeout(&to, TIMEOUT).expect("the server answers");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a time-out");
        stream.write_all(&vec![b'u'; up]).expect("it is read");
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("all of it");
        assert_eq!(got.len(), down);
    });
    client.join().expect("client");
    server.join().expect("server");
}

/// The same within the usual roles: a server on the wan, the lan asks.
pub(crate) fn tcp_out(lab: &Lab, ip: &str, port: u16, up: usize, down: usize) {
    let place = address(ip, port);
    tcp(lab, (Host::Wan, place), (Host::Lan, place), up, down);
}

/// Datagrams from the lan to a silent port on the wan, each from a port of its own, some
/// at a time; returns how many were sent.
pub(crate) fn udp_burst(lab: &Lab, ip: &str, count: u16) -> usize {
    let ip: IpAddr = ip.parse().expect("an address");
    let sent = lab.on(Host::Lan, move || {
        let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).expect("a socket");
        // One source, many destination ports: each is a flow of its own. A refusal of an
        // earlier one may come back as an error; it is a new flow all the same.
        (0..count).for_each(|n| drop(socket.send_to(b"burst", (ip, 10_000 + n))));
        usize::from(count)
    });
    sent.join().expect("burst")
}

/// Answers every datagram on `ip:port` of the wan with what `reply` makes of it, until
/// the lab goes; `None`: silence.
pub(crate) fn udp_server(
    lab: &Lab,
    ip: &str,
    port: u16,
    reply: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) {
    let place = address(ip, port);
    let (ready, is_ready) = std::sync::mpsc::channel();
    drop(lab.on(Host::Wan, move || {
        let socket = UdpSocket::bind(place).expect("the port is free");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        ready.send(()).expect("the test waits");
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = reply(&buffer[..length]) {
                drop(socket.send_to(&answer, from));
            }
        }
    }));
    is_ready.recv().expect("the server listens");
}

/// Sends from the lan and waits for the answer, if one is expected.
pub(crate) fn udp_ask(lab: &Lab, ip: &str, port: u16, question: Vec<u8>, wait: bool) {
    let place = address(ip, port);
    let asked = lab.on(Host::Lan, move || {
        let any = if place.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).expect("a socket");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a time-out");
        socket.send_to(&question, place).expect("sent");
        if wait {
            socket.recv_from(&mut [0; 2_048]).expect("an answer");
        }
    });
    asked.join().expect("asked");
}

/// One echo request from the lan, and its answer (RFC 792, RFC 4443).
pub(crate) fn ping(lab: &Lab, ip: &str) {
    let to = address(ip, 0);
    let pinged = lab.on(Host::Lan, move || {
        // SOCK_RAW: the kernel writes the IP header, and for IPv6 the checksum.
        let raw = Type::from(3);
        let (socket, mut request) = if to.is_ipv4() {
            let socket = Socket::new(Domain::IPV4, raw, Some(Protocol::ICMPV4));
            (socket, [8, 0, 0, 0, 0x12, 0x34, 0, 1])
        } else {
            let socket = Socket::new(Domain::IPV6, raw, Some(Protocol::ICMPV6));
            (socket, [128, 0, 0, 0, 0x12, 0x34, 0, 1])
        };
        let socket = socket.expect("root may");
        if to.is_ipv4() {
            let sum: u32 = request.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(p[1])).sum();
            let sum = !u16::try_from(sum).expect("no carry in these words");
            request[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        socket.set_read_timeout(Some(TIMEOUT)).expect("a time-out");
        socket.send_to(&request, &SockAddr::from(to)).expect("sent");
        // Neighbour discovery comes by on the same socket.
        let echoed = |got: &[u8]| got.ends_with(&[0x12, 0x34, 0, 1]);
        let mut buffer = [0; 256];
        while !(&socket).read(&mut buffer).map(|n| echoed(&buffer[..n])).expect("an answer") {}
    });
    pinged.join().expect("pinged");
}

/// Until connection tracking holds no entry any more; dumping makes the kernel notice.
pub(crate) fn wait_all_ended(lab: &Lab) {
    eventually("all flows end", || {
        let left = lab.exec(Host::Router, "conntrack -C");
        if left.trim() == "0" { Ok(()) } else { Err(format!("{left} left")) }
    });
}
