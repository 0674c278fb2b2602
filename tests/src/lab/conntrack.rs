//! The oracle for flows: Debian's `conntrack`, listening in the router beside agentmon.
//!
//! Reads lines of `conntrack -E -e DESTROY -o id` (conntrack-tools 1.4.7):
//! `[DESTROY] udp 17 src=.. dst=.. sport=.. dport=.. packets=.. bytes=.. src=.. ... id=..`:
//! original direction first, reply direction second.

use std::net::SocketAddr;
use std::path::Path;

use super::proc::{Proc, output};
use super::wait::eventually;
use super::{World, need};

/// One finished flow, as `conntrack` tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// IP protocol number.
    pub proto: u8,
    /// Original tuple.
    pub src: SocketAddr,
    /// Original tuple.
    pub dst: SocketAddr,
    /// Reply tuple's destination: the originator as the responder sees it.
    pub seen_as: SocketAddr,
    /// Reply tuple's source: the real responder.
    pub answered_by: SocketAddr,
    /// Packets and IP bytes, original direction.
    pub out: (u64, u64),
    /// Packets and IP bytes, reply direction.
    pub back: (u64, u64),
}

/// The tool at work.
#[derive(Debug)]
pub struct Oracle(Proc);

impl Oracle {
    /// Starts listening for the ends of flows in `rtr`.
    #[must_use]
    pub fn start(world: &World) -> Self {
        let args = ["-E", "-e", "DESTROY", "-o", "id", "-b", "8388608"];
        let proc = Proc::start("rtr", &world.file("oracle.log"), &tool(), &args);
        // It says nothing when it is ready: look for its netlink socket (protocol 12).
        let pid = proc.pid().as_raw_nonzero().to_string();
        eventually(5.0, "conntrack -E listens", || {
            let sockets = output("rtr", Path::new("cat"), &["/proc/net/netlink"]);
            let mut rows = sockets.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
            let mine = |row: Vec<&str>| row.get(1) == Some(&"12") && row.get(2) == Some(&&*pid);
            rows.any(mine).then_some(()).ok_or(sockets)
        });
        Self(proc)
    }

    /// Every flow that has ended so far.
    #[must_use]
    pub fn ended(&self) -> Vec<Line> {
        self.0.log_text().lines().filter_map(parse).collect()
    }

    /// Waits for the end of the flow from `src`. Makes the kernel notice expired entries by
    /// a dump.
    ///
    /// # Panics
    /// When the flow has not ended within 20 s (stretched).
    #[track_caller]
    #[must_use]
    pub fn end_of(&self, proto: u8, src: SocketAddr) -> Line {
        eventually(20.0, &format!("conntrack reports the end of {proto} {src}"), || {
            expire();
            let found = self.ended().into_iter().find(|l| l.proto == proto && l.src == src);
            found.ok_or_else(|| self.0.log_text())
        })
    }
}

/// A dump: the kernel reports entries whose time is over only when somebody looks.
pub fn expire() {
    drop(list());
}

/// `conntrack -L`: what is alive.
#[must_use]
pub fn list() -> Vec<Line> {
    output("rtr", &tool(), &["-L", "-o", "id"]).lines().filter_map(parse).collect()
}

/// Ends all flows of `proto` ("tcp", "udp") at once.
pub fn end_all(proto: &str) {
    // It fails when there is nothing to end.
    let args = ["-D", "-p", proto];
    drop(super::proc::command("rtr", &tool(), &args).output());
}

fn tool() -> std::path::PathBuf {
    need::find("conntrack").expect("checked before")
}

fn parse(line: &str) -> Option<Line> {
    let mut proto = None;
    let mut values = std::collections::HashMap::<&str, Vec<&str>>::new();
    for word in line.split_whitespace() {
        match word.split_once('=') {
            Some((key, value)) => values.entry(key).or_default().push(value),
            None => proto = proto.or_else(|| proto_number(word)),
        }
    }
    let text = |key: &str, n: usize| values.get(key).and_then(|v| v.get(n)).copied();
    let end = |ip: &str, port: &str, n: usize| {
        let port = text(port, n).map_or(Some(0), |p| p.parse().ok());
        Some(SocketAddr::new(text(ip, n)?.parse().ok()?, port?))
    };
    let sum = |n: usize| Some((text("packets", n)?.parse().ok()?, text("bytes", n)?.parse().ok()?));
    Some(Line {
        proto: proto?,
        src: end("src", "sport", 0)?,
        dst: end("dst", "dport", 0)?,
        seen_as: end("dst", "dport", 1)?,
        answered_by: end("src", "sport", 1)?,
        out: sum(0)?,
        back: sum(1)?,
    })
}

fn proto_number(word: &str) -> Option<u8> {
    match word {
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmp" => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_tool_prints() {
        // conntrack -E -e DESTROY -o id, conntrack-tools 1.4.7, addresses replaced.
        let line = "[DESTROY] tcp      6 src=192.0.2.2 dst=203.0.113.2 sport=43164 dport=8080 \
                    packets=9 bytes=1476 src=203.0.113.2 dst=203.0.113.1 sport=8080 dport=43164 \
                    packets=8 bytes=50424 [ASSURED] id=2715498373";
        let end = |text: &str| text.parse().expect("an address");
        let expected = Line {
            proto: 6,
            src: end("192.0.2.2:43164"),
            dst: end("203.0.113.2:8080"),
            seen_as: end("203.0.113.1:43164"),
            answered_by: end("203.0.113.2:8080"),
            out: (9, 1476),
            back: (8, 50424),
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("conntrack v1.4.7 (conntrack-tools): 3 flow events"), None);
    }
}
