//! Traffic with known amounts of payload.
//!
//! TCP: the client's first eight bytes say how much it will send and how much it wants; the
//! server reads the one, writes the other and closes. UDP: every datagram comes back as it
//! is. IP bytes depend on how TCP cuts segments, so tests compare them with what the kernel's
//! own tool reports, and payload with a lower bound.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::{netns, wait};

/// Longest a read or connect may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Serves `port` (TCP) on all addresses of `host` until the test ends.
///
/// # Panics
/// When the port cannot be bound.
pub fn serve_tcp(host: &str, port: u16) {
    let listener = netns::run(host, move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let listener = listener.unwrap_or_else(|e| panic!("{host}:{port}/tcp: {e}"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away early is the client's matter.
            std::thread::spawn(move || drop(serve_one(stream)));
        }
    });
}

fn serve_one(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let (mut up, mut down) = ([0; 4], [0; 4]);
    stream.read_exact(&mut up)?;
    stream.read_exact(&mut down)?;
    let up = u64::from(u32::from_be_bytes(up));
    std::io::copy(&mut (&stream).take(up), &mut std::io::sink())?;
    let down = u64::from(u32::from_be_bytes(down));
    std::io::copy(&mut std::io::repeat(0x64).take(down), &mut stream)?;
    stream.shutdown(Shutdown::Write)
}

/// One connection from `from` (an address of `host`): sends 8 + `up` bytes, receives `down`.
/// Returns the client's own end.
///
/// # Panics
/// When the server is not reached or sends anything but `down` bytes.
#[track_caller]
pub fn tcp(host: &str, from: &str, to: &str, up: u32, down: u32) -> SocketAddr {
    let (mut stream, local) = connect(host, from, to).expect("the server is reached");
    stream.write_all(&up.to_be_bytes()).expect("sent");
    stream.write_all(&down.to_be_bytes()).expect("sent");
    std::io::copy(&mut std::io::repeat(0x75).take(u64::from(up)), &mut stream).expect("sent");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("received");
    assert_eq!(received.len(), usize::try_from(down).expect("fits"), "from {to}");
    local
}

/// Opens a connection from an address of `host` and leaves it open.
///
/// # Errors
/// Refused, reset, or silent for too long.
///
/// # Panics
/// When an address is none.
pub fn connect(host: &str, from: &str, to: &str) -> std::io::Result<(TcpStream, SocketAddr)> {
    let from = SocketAddr::new(from.parse().expect("an address"), 0);
    let to: SocketAddr = to.parse().expect("address:port");
    netns::run(host, move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), Duration::from_secs(3))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(TIMEOUT))?;
        let local = stream.local_addr()?;
        Ok((stream, local))
    })
}

/// Serves the UDP socket `at` of `host` until the test ends. (A wildcard socket would answer
/// from the host's first address.)
///
/// # Panics
/// When it cannot be bound.
pub fn serve_udp(host: &str, at: &str) {
    let at: SocketAddr = at.parse().expect("address:port");
    let socket = netns::run(host, move || UdpSocket::bind(at));
    let socket = socket.unwrap_or_else(|e| panic!("{host} {at}/udp: {e}"));
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((used, peer)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(buffer.get(..used).unwrap_or_default(), peer));
        }
    });
}

/// `count` datagrams of `size` bytes from one socket of `host`, each waited for. Returns the
/// client's own end. IP bytes are exact: `count * (size + 28)` each way.
///
/// # Panics
/// When a datagram does not come back.
#[track_caller]
pub fn udp(host: &str, from: &str, to: &str, count: u32, size: usize) -> SocketAddr {
    let from: IpAddr = from.parse().expect("an address");
    let to: SocketAddr = to.parse().expect("address:port");
    let done = netns::run(host, move || -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.connect(to)?;
        let mut buffer = vec![0; size + 1];
        for _ in 0..count {
            socket.send(&vec![0x75; size])?;
            socket.recv(&mut buffer)?;
        }
        socket.local_addr()
    });
    done.expect("every datagram comes back")
}

/// `flows` datagrams of 8 bytes, each a flow of its own (unique destination address and
/// port in 198.51.100.0/24), as fast as one thread can.
///
/// # Panics
/// When the socket cannot be made.
pub fn udp_burst(host: &str, flows: u32) {
    netns::run(host, move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        for n in 0..flows {
            let last = u8::try_from(n % 250).expect("below 250") + 1;
            let port = 10_000 + u16::try_from(n / 250).unwrap_or(u16::MAX - 10_000);
            // A full device queue is part of the burst.
            drop(socket.send_to(b"agentmon", (Ipv4Addr::new(198, 51, 100, last), port)));
        }
    });
}

/// A device gone wild: from one socket of `host`, questions for names that occur once
/// (`PREFIX-0.flood.example` and so on) to the name server `to`, `rate` a second, for
/// `seconds`. Answers are not read. Returns how many went out.
#[must_use]
pub fn dns_flood(
    host: &str,
    from: &str,
    to: &str,
    (rate, seconds): (u64, u64),
) -> std::thread::JoinHandle<u64> {
    /// Packets sent between two looks at the clock.
    const PIECE: u64 = 50;
    let (from, to): (IpAddr, IpAddr) =
        (from.parse().expect("an address"), to.parse().expect("an address"));
    netns::spawn(host, move || {
        let socket = UdpSocket::bind((from, 0)).expect("a socket");
        let begin = wait::now();
        let mut sent = 0;
        for n in 0..rate * seconds {
            let id = u16::try_from(n % 65_536).expect("below 65,536");
            let query = super::dns::query(id, &format!("wild-{n}.flood.example"), super::dns::A);
            // A full device queue is part of the flood.
            sent += u64::from(socket.send_to(&query, (to, 53)).is_ok());
            if n % PIECE == 0 {
                let due = Duration::from_micros(n * 1_000_000 / rate);
                std::thread::sleep(due.saturating_sub(wait::now().since(begin)));
            }
        }
        sent
    })
}

/// Pings `to` from `host`, about ten a second, `count` in all; how many came back.
///
/// # Panics
/// When no echo can be sent.
#[must_use]
pub fn ping(host: &str, to: &str, count: u32) -> std::thread::JoinHandle<u32> {
    /// SOCK_RAW of socket(2), which socket2 names under a feature only.
    const RAW: i32 = 3;
    let to: IpAddr = to.parse().expect("an address");
    netns::spawn(host, move || {
        let socket =
            Socket::new(Domain::IPV4, Type::from(RAW), Some(Protocol::ICMPV4)).expect("root");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
        socket.connect(&SocketAddr::new(to, 0).into()).expect("a route");
        (0..count).map(|n| u32::from(echo(&socket, n))).sum()
    })
}

/// One echo (RFC 792), and whether it came back within a second.
fn echo(mut socket: &Socket, n: u32) -> bool {
    const ID: [u8; 2] = *b"am";
    let [_, _, sequence @ ..] = n.to_be_bytes();
    let mut packet = [8, 0, 0, 0, ID[0], ID[1], sequence[0], sequence[1]];
    let words = packet.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("few words: no second carry");
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    wait::pause(100);
    if socket.write(&packet).is_err() {
        return false;
    }
    // The raw socket gets every ICMP packet of the host, with its IP header.
    let mut buffer = [0; 1_500];
    for _ in 0..100 {
        let Ok(used) = socket.read(&mut buffer) else { return false };
        let answer = buffer.get(20..used).unwrap_or_default();
        let its = answer.first() == Some(&0) && answer.get(4..8) == packet.get(4..8);
        if its {
            return true;
        }
    }
    false
}
