//! Which of its own addresses this machine sends from.
//!
//! In: where to. Out: the address that a socket without one of its own has in its packets,
//! which is what a router sees. A datagram socket is connected and asked; nothing is sent.
//! [`ROUTES_MAX`] answers are kept, each for [`KEEP`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use agentmon_core::event::Endpoint;
use agentmon_core::service::proto::UDP;
use agentmon_core::time::Mono;

use super::ebpf::Flow;

/// Answers kept.
const ROUTES_MAX: usize = 4_096;
/// For so long: addresses change with the network.
const KEEP: Duration = Duration::from_secs(30);

/// Nothing is sent there: discard.
const PORT: u16 = 9;

/// Answers.
#[derive(Debug, Default)]
pub struct Routes(HashMap<IpAddr, (Option<IpAddr>, Mono)>);

impl Routes {
    /// The address for packets to there; `None` where there is no way.
    pub fn source(&mut self, to: Endpoint, mono: Mono) -> Option<IpAddr> {
        if let Some((ip, _)) = self.0.get(&to.ip).filter(|(_, at)| mono.since(*at) < KEEP) {
            return *ip;
        }
        if self.0.len() >= ROUTES_MAX {
            self.0.clear();
        }
        let ip = ask(to.ip).filter(|ip| !ip.is_unspecified());
        self.0.insert(to.ip, (ip, mono));
        ip
    }

    /// Whether a connection is nothing but such a question.
    #[must_use]
    pub fn is_a_question(flow: &Flow, me: u32) -> bool {
        (flow.pid, flow.proto, flow.remote.port) == (me, UDP, PORT)
    }
}

fn ask(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_reached_from_itself() {
        let (mut routes, now) = (Routes::default(), Mono::default());
        for ip in ["127.0.0.1", "127.9.9.9"] {
            let to = Endpoint::new(ip.parse().unwrap(), 53);
            assert_eq!(routes.source(to, now), Some("127.0.0.1".parse().unwrap()));
        }
    }
}
