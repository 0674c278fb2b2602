//! Scripts of scenarios about behaviour on the wire: tunnels, floods of questions, foreign
//! resolvers, rebinding, ports, scans and long connections, each with its benign twin.

use super::script::Script;
use super::scripts::{CAMERA, LAPTOP, PHONE, PRINTER, TELEVISION, household};

const TXT: u16 = 16;
const HEX: &str = "0123456789abcdef";
const BASE32: &str = "abcdefghijklmnopqrstuvwxyz234567";

/// The laptop sends a file through names, one every two seconds.
pub(super) fn dns_tunnel(s: &mut Script) {
    household(s, 600.0);
    for n in 0..90 {
        let (one, two, three) = (s.word(BASE32, 57), s.word(BASE32, 57), s.word(BASE32, 40));
        let name = format!("{one}.{two}.{three}.{n}.up.tunnel.example");
        let answer = s.word(BASE32, 30);
        s.asks_type(200.0 + f64::from(n) * 2.0, LAPTOP, &name, TXT, &answer);
    }
}

/// A virus scanner goes through the laptop's disk, mail is checked, pages count visitors.
pub(super) fn dns_tunnel_reputation(s: &mut Script) {
    household(s, 1_200.0);
    for n in 0..300 {
        let second = 100.0 + f64::from(n) * 3.0;
        let file = s.word(HEX, 32);
        s.asks(second, LAPTOP, &format!("{file}.files.scanner.example"), Some("127.0.0.4"));
        let sender: Vec<String> = (0..4).map(|_| s.below(256).to_string()).collect();
        s.asks(second + 1.0, PRINTER, &format!("{}.list.example", sender.join(".")), None);
        if n % 10 == 0 {
            let visit = [8, 4, 4, 4, 12].map(|length| s.word(HEX, length)).join("-");
            s.asks(second, PHONE, &format!("{visit}.pixel.example"), Some("198.51.100.70"));
            let host = format!("cam00481913-{n:06}.telemetry.example");
            s.asks(second, CAMERA, &host, Some("198.51.100.71"));
        }
    }
}

/// A program tries two hosts each of domains made of words, none of which anybody registered.
pub(super) fn nxdomain_burst(s: &mut Script) {
    household(s, 600.0);
    for n in 0..72u32 {
        let name = format!("host{}.{}.example", n % 2, words(n / 2));
        s.asks(200.0 + f64::from(n), LAPTOP, &name, None);
    }
}

/// A laptop that puts its search list behind every name, and a person who mistypes.
pub(super) fn nxdomain_search_list(s: &mut Script) {
    household(s, 600.0);
    for n in 0..150u32 {
        let second = 100.0 + f64::from(n) * 2.0;
        s.asks(second, LAPTOP, &format!("www.{}.com.house.example", words(n)), None);
        s.asks(second + 0.1, LAPTOP, &format!("www.{}.com", words(n)), Some("198.51.100.72"));
        s.asks(second, LAPTOP, &words(n), None);
        if n % 30 == 0 {
            s.asks(second, PHONE, &format!("wwww{n}.example.com"), None);
        }
    }
}

/// Different for each number below 343.
fn words(n: u32) -> String {
    const WORDS: [&str; 7] = ["red", "blue", "lamp", "chair", "house", "river", "stone"];
    let word = |n: u32| WORDS.get(n as usize % 7).copied().unwrap_or_default();
    [word(n), word(n / 7), word(n / 49)].concat()
}

/// The television has lost its server and asks for it four times a second.
pub(super) fn query_rate_loop(s: &mut Script) {
    household(s, 600.0);
    for n in 0..1_000 {
        s.asks(200.0 + f64::from(n) * 0.25, TELEVISION, "api.screen.example", None);
    }
}

/// A phone that asks for its mail server every four seconds: 21,000 times a day.
pub(super) fn query_rate_steady(s: &mut Script) {
    household(s, 1_200.0);
    for n in 0..300 {
        s.asks(f64::from(n) * 4.0, PHONE, "mail.example.com", Some("198.51.100.11"));
    }
}

/// The television asks a resolver of its own, the phone one over TLS, the laptop's browser
/// one over HTTPS.
pub(super) fn dns_bypass(s: &mut Script) {
    household(s, 600.0);
    for n in 0..10 {
        let second = 100.0 + f64::from(n) * 30.0;
        s.sends(second, TELEVISION, "198.51.100.53", 53);
        s.connects(second + 1.0, PHONE, "198.51.100.54", 853, 20.0);
        s.asks(second + 2.0, LAPTOP, "use-application-dns.net", Some("198.51.100.55"));
        s.asks(second + 2.0, LAPTOP, "mozilla.cloudflare-dns.com", Some("198.51.100.56"));
        s.connects(second + 2.1, LAPTOP, "198.51.100.56", 443, 20.0);
    }
}

/// The house's resolver, a machine behind the router that all others ask, asks the world.
pub(super) fn dns_bypass_resolver(s: &mut Script) {
    household(s, 600.0);
    for n in 0..40 {
        let second = 20.0 + f64::from(n) * 12.0;
        s.sends(second, PHONE, "192.168.88.53", 53);
        s.sends(second + 2.0, "192.168.88.53", "198.51.100.53", 53);
        s.connects(second + 2.5, "192.168.88.53", "198.51.100.54", 853, 5.0);
        s.asks(second, LAPTOP, "dns.example.com", Some("198.51.100.57"));
    }
}

/// A page's own name first leads to its server, then to the router.
pub(super) fn dns_rebinding(s: &mut Script) {
    household(s, 600.0);
    s.asks(200.0, LAPTOP, "x71.attack.example", Some("198.51.100.66"));
    s.connects(200.1, LAPTOP, "198.51.100.66", 80, 2.0);
    s.asks(203.0, LAPTOP, "x71.attack.example", Some("192.168.77.1"));
    s.connects(203.1, LAPTOP, "192.168.77.1", 80, 2.0);
}

/// Media servers and the house's own names lead inside; a blocklist answers 127.0.0.2.
pub(super) fn dns_rebinding_media(s: &mut Script) {
    household(s, 600.0);
    for n in 0..8 {
        let second = 60.0 + f64::from(n) * 40.0;
        let media = "192-168-77-30.0f1e2d3c4b5a.plex.direct";
        s.asks(second, TELEVISION, media, Some("192.168.77.30"));
        s.connects(second + 0.1, TELEVISION, "192.168.77.30", 32_400, 30.0);
        s.asks(second + 1.0, PHONE, "nas.fritz.box", Some("192.168.77.30"));
        s.asks(second + 2.0, PRINTER, "9.113.0.203.list.example", Some("127.0.0.2"));
        s.asks(second + 3.0, LAPTOP, "ads.example.net", Some("0.0.0.0"));
    }
}

/// The camera, known for ten minutes here, connects to a port nobody uses.
pub(super) fn unusual_port(s: &mut Script) {
    household(s, 1_200.0);
    for n in 0..20 {
        let second = 5.0 + f64::from(n) * 60.0;
        s.asks(second, CAMERA, "cloud.camera.example", Some("198.51.100.73"));
        s.connects(second + 0.1, CAMERA, "198.51.100.73", 7_070, 5.0);
    }
    s.asks(900.0, CAMERA, "relay.other.example", Some("198.51.100.74"));
    s.connects(900.1, CAMERA, "198.51.100.74", 4_444, 30.0);
}

/// The camera's own port, a game, a VPN and mail.
pub(super) fn unusual_port_usual(s: &mut Script) {
    household(s, 1_200.0);
    for n in 0..20 {
        let second = 5.0 + f64::from(n) * 60.0;
        s.asks(second, CAMERA, "cloud.camera.example", Some("198.51.100.73"));
        s.connects(second + 0.1, CAMERA, "198.51.100.73", 7_070, 5.0);
        if n > 12 {
            s.asks(second, LAPTOP, "play.example.org", Some("198.51.100.75"));
            s.connects(second + 1.0, LAPTOP, "198.51.100.75", 27_015, 5.0);
            s.connects(second + 2.0, LAPTOP, "198.51.100.75", 993, 5.0);
            s.sends(second + 3.0, LAPTOP, "198.51.100.75", 51_820);
            s.sends(second + 4.0, LAPTOP, "198.51.100.75", 40_123);
        }
    }
}

/// The camera looks for doors inside: ports of one machine, then telnet of many.
pub(super) fn scan_inside(s: &mut Script) {
    household(s, 600.0);
    for n in 0..40 {
        s.tries(200.0 + f64::from(n) * 0.5, CAMERA, "192.168.88.9", 20 + n * 7);
    }
    for n in 1..80 {
        let host = format!("192.168.88.{n}");
        s.tries(300.0 + f64::from(n) * 0.5, CAMERA, &host, 23);
    }
}

/// Files from a server that opens a port for each, and pages with many parts.
pub(super) fn scan_file_transfer(s: &mut Script) {
    household(s, 600.0);
    s.asks(100.0, LAPTOP, "files.example.org", Some("198.51.100.76"));
    for n in 0..60u16 {
        let second = 100.0 + f64::from(n) * 3.0;
        s.connects(second, LAPTOP, "198.51.100.76", 50_000 + n * 11, 2.0);
        let (host, address) = (format!("part{n}.example.net"), format!("198.51.100.{}", 100 + n));
        s.asks(second, PHONE, &host, Some(&address));
        s.connects(second + 0.1, PHONE, &address, 443, 2.0);
    }
}

/// The camera keeps a line open for five hours.
pub(super) fn long_flow(s: &mut Script) {
    household(s, 300.0);
    s.asks(20.0, CAMERA, "relay.other.example", Some("198.51.100.74"));
    s.stays(20.1, CAMERA, "198.51.100.74", 8_081, 18_000.0);
}

/// A film of three hours, a session inside for six, and a phone's notifications all day.
pub(super) fn long_flow_film(s: &mut Script) {
    household(s, 300.0);
    s.asks(20.0, TELEVISION, "video.example.org", Some("198.51.100.31"));
    s.stays(20.1, TELEVISION, "198.51.100.31", 443, 10_800.0);
    s.stays(30.0, LAPTOP, "192.168.88.30", 445, 21_600.0);
    s.asks(25.0, PHONE, "push.example.org", Some("198.51.100.77"));
    s.stays(25.1, PHONE, "198.51.100.77", 5_228, 21_600.0);
}
