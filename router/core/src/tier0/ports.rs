//! What ports are for: those met on ordinary home networks.
//!
//! Numbers: IANA's registry of service names and ports, and what makers of games, chat and
//! VPN programs state in their own support pages (November 2026). Pure.

use crate::service::{Service, proto};

/// What a connection to a port is likely to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Web, mail, time, files and the like.
    Common,
    /// Held open on purpose: notifications, message queues of devices.
    Push,
    /// A tunnel of the user's own.
    Vpn,
    /// Games, voice and video, file sharing.
    Play,
}

impl Use {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Common => "common",
            Self::Push => "notifications",
            Self::Vpn => "vpn",
            Self::Play => "games, calls or file sharing",
        }
    }
}

/// First and last port, protocol (0: TCP and UDP), use.
type Row = (u16, u16, u8, Use);

const BOTH: u8 = 0;

static ROWS: &[Row] = &[
    (20, 22, proto::TCP, Use::Common),       // FTP, SSH
    (25, 25, proto::TCP, Use::Common),       // SMTP
    (43, 43, proto::TCP, Use::Common),       // whois
    (53, 53, BOTH, Use::Common),             // DNS: see rule dns-bypass
    (67, 68, proto::UDP, Use::Common),       // DHCP
    (80, 80, BOTH, Use::Common),             // HTTP
    (88, 88, BOTH, Use::Common),             // Kerberos
    (110, 110, proto::TCP, Use::Common),     // POP3
    (123, 123, proto::UDP, Use::Common),     // NTP
    (143, 143, proto::TCP, Use::Common),     // IMAP
    (389, 389, BOTH, Use::Common),           // LDAP
    (443, 443, BOTH, Use::Common),           // HTTPS, QUIC
    (465, 465, proto::TCP, Use::Common),     // SMTP over TLS
    (500, 500, proto::UDP, Use::Vpn),        // IKE
    (587, 587, proto::TCP, Use::Common),     // mail submission
    (636, 636, proto::TCP, Use::Common),     // LDAP over TLS
    (784, 784, proto::UDP, Use::Common),     // DNS over QUIC, early
    (853, 853, BOTH, Use::Common),           // DNS over TLS, QUIC: see rule dns-bypass
    (989, 990, proto::TCP, Use::Common),     // FTP over TLS
    (993, 993, proto::TCP, Use::Common),     // IMAP over TLS
    (995, 995, proto::TCP, Use::Common),     // POP3 over TLS
    (1194, 1194, BOTH, Use::Vpn),            // OpenVPN
    (1701, 1701, proto::UDP, Use::Vpn),      // L2TP
    (1723, 1723, proto::TCP, Use::Vpn),      // PPTP
    (1883, 1883, proto::TCP, Use::Push),     // MQTT
    (1935, 1935, proto::TCP, Use::Common),   // RTMP
    (3074, 3076, BOTH, Use::Play),           // Xbox, Call of Duty
    (3478, 3481, BOTH, Use::Play),           // STUN, TURN, PlayStation
    (3544, 3544, proto::UDP, Use::Play),     // Teredo
    (3724, 3724, BOTH, Use::Play),           // Blizzard
    (4070, 4070, proto::TCP, Use::Common),   // Spotify
    (4244, 4244, BOTH, Use::Play),           // Viber
    (4460, 4460, proto::TCP, Use::Common),   // NTS
    (4500, 4500, proto::UDP, Use::Vpn),      // IPsec through NAT
    (5060, 5062, BOTH, Use::Play),           // SIP
    (5222, 5223, proto::TCP, Use::Push),     // XMPP, Apple push
    (5228, 5230, proto::TCP, Use::Push),     // Google push
    (5242, 5243, BOTH, Use::Play),           // Viber
    (5349, 5350, BOTH, Use::Play),           // TURN over TLS
    (6112, 6119, BOTH, Use::Play),           // Blizzard, Guild Wars
    (6667, 6667, proto::TCP, Use::Common),   // IRC
    (6697, 6697, proto::TCP, Use::Common),   // IRC over TLS
    (6881, 6999, BOTH, Use::Play),           // BitTorrent
    (8080, 8080, proto::TCP, Use::Common),   // HTTP
    (8443, 8443, proto::TCP, Use::Common),   // HTTPS
    (8801, 8810, BOTH, Use::Play),           // Zoom
    (8853, 8853, proto::UDP, Use::Common),   // DNS over QUIC, draft
    (8883, 8883, proto::TCP, Use::Push),     // MQTT over TLS
    (9418, 9418, proto::TCP, Use::Common),   // git
    (11371, 11371, proto::TCP, Use::Common), // keyservers
    (19302, 19309, proto::UDP, Use::Play),   // Google STUN
    (25565, 25565, BOTH, Use::Play),         // Minecraft
    (27000, 27100, BOTH, Use::Play),         // Steam
    (41641, 41641, proto::UDP, Use::Vpn),    // Tailscale
    (50000, 50059, proto::UDP, Use::Play),   // Teams, Discord
    (51413, 51413, BOTH, Use::Play),         // Transmission
    (51820, 51821, proto::UDP, Use::Vpn),    // WireGuard
];

/// What a port is for, where that is well known.
#[must_use]
pub fn known(service: Service) -> Option<Use> {
    match service.proto {
        proto::TCP | proto::UDP => {}
        // GRE, ESP, AH: tunnels.
        47 | 50 | 51 => return Some(Use::Vpn),
        _ => return None,
    }
    // Rows are sorted by their first port and do not overlap but for the protocol.
    let from = ROWS.partition_point(|row| row.1 < service.port);
    let mut rows = ROWS.get(from..)?.iter().take_while(|row| row.0 <= service.port);
    rows.find(|row| row.2 == BOTH || row.2 == service.proto).map(|row| row.3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(service: &str, expected: Option<Use>) {
        assert_eq!(known(service.parse().unwrap()), expected, "{service}");
    }

    #[test]
    fn sorted_and_apart() {
        assert!(ROWS.windows(2).all(|w| w[0].0 <= w[0].1 && w[0].1 < w[1].0));
    }

    #[test]
    fn uses() {
        check("443/tcp", Some(Use::Common));
        check("443/udp", Some(Use::Common));
        check("22/tcp", Some(Use::Common));
        check("22/udp", None);
        check("51820/udp", Some(Use::Vpn));
        check("esp", Some(Use::Vpn));
        check("8883/tcp", Some(Use::Push));
        check("6900/udp", Some(Use::Play));
        check("23/tcp", None);
        check("4444/tcp", None);
        check("65535/tcp", None);
        check("icmp", None);
    }
}
