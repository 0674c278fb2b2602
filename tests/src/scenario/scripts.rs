//! The scripts behind `tests/scenarios/*/events.ndjson`. `cargo run -p agentmon-tests --bin
//! make-scenarios` writes the files; a test compares them.
//!
//! Clients: .21 a camera, .22 a television, .23 a laptop, .24 a phone, .25 a printer.

use super::script::Script;
use super::wire;

pub(super) const CAMERA: &str = "192.168.77.21";
pub(super) const TELEVISION: &str = "192.168.77.22";
pub(super) const LAPTOP: &str = "192.168.77.23";
pub(super) const PHONE: &str = "192.168.77.24";
pub(super) const PRINTER: &str = "192.168.77.25";

/// Writes a scenario's events.
pub type Write = fn(&mut Script);

/// Name, seed and script of each scenario.
pub const ALL: [(&str, u64, Write); 30] = [
    ("blocklist-address", 901, blocklist_address),
    ("blocklist-address-near", 902, blocklist_address_near),
    ("blocklist-hit", 1, blocklist_hit),
    ("blocklist-lookalike", 2, blocklist_lookalike),
    ("dga-flood", 3, dga_flood),
    ("dga-cdn-hashes", 4, dga_cdn_hashes),
    ("direct-ip-c2", 5, direct_ip_c2),
    ("direct-ip-explained", 6, direct_ip_explained),
    ("firewall-scan", 7, firewall_scan),
    ("firewall-stray", 8, firewall_stray),
    ("new-device", 9, new_device),
    ("new-device-known", 10, new_device_known),
    ("dns-bypass", 11, wire::dns_bypass),
    ("dns-bypass-resolver", 12, wire::dns_bypass_resolver),
    ("dns-rebinding", 13, wire::dns_rebinding),
    ("dns-rebinding-media", 14, wire::dns_rebinding_media),
    ("dns-tunnel", 15, wire::dns_tunnel),
    ("dns-tunnel-reputation", 16, wire::dns_tunnel_reputation),
    ("long-flow", 17, wire::long_flow),
    ("long-flow-film", 18, wire::long_flow_film),
    ("nxdomain-burst", 19, wire::nxdomain_burst),
    ("nxdomain-search-list", 20, wire::nxdomain_search_list),
    ("query-rate-loop", 21, wire::query_rate_loop),
    ("query-rate-steady", 22, wire::query_rate_steady),
    ("scan-inside", 23, wire::scan_inside),
    ("scan-file-transfer", 24, wire::scan_file_transfer),
    ("unusual-port", 25, wire::unusual_port),
    ("unusual-port-usual", 26, wire::unusual_port_usual),
    ("watched", 27, watched),
    ("watched-lookalike", 28, watched_lookalike),
];

/// A command server that is listed by its address, and a network that is listed whole.
fn blocklist_address(s: &mut Script) {
    household(s, 900.0);
    // A name that nobody lists leads to the listed address.
    for n in 0..8 {
        let second = 100.0 + f64::from(n) * 60.0;
        s.asks(second, CAMERA, "update.fresh.example", Some("198.51.100.150"));
        s.connects(second + 0.2, CAMERA, "198.51.100.150", 443, 2.0);
    }
    // Only this port of that address is listed.
    s.asks(300.0, PHONE, "cdn.example.org", Some("198.51.100.151"));
    s.connects(300.5, PHONE, "198.51.100.151", 8_080, 3.0);
    s.asks(400.0, TELEVISION, "tv.example.org", Some("203.0.113.77"));
    s.connects(400.5, TELEVISION, "203.0.113.77", 443, 3.0);
}

/// The same shape beside what is listed: the neighbour's address, another port, an exception.
fn blocklist_address_near(s: &mut Script) {
    household(s, 900.0);
    for n in 0..8 {
        let second = 100.0 + f64::from(n) * 60.0;
        s.asks(second, CAMERA, "update.fresh.example", Some("198.51.100.152"));
        s.connects(second + 0.2, CAMERA, "198.51.100.152", 443, 2.0);
    }
    s.asks(300.0, PHONE, "cdn.example.org", Some("198.51.100.151"));
    s.connects(300.5, PHONE, "198.51.100.151", 443, 3.0);
    s.asks(400.0, TELEVISION, "tv.example.org", Some("203.0.114.77"));
    s.connects(400.5, TELEVISION, "203.0.114.77", 443, 3.0);
}

fn blocklist_hit(s: &mut Script) {
    household(s, 600.0);
    // The camera reports to its maker's tracker, again and again.
    for n in 0..20 {
        s.asks(60.0 + f64::from(n) * 20.0, CAMERA, "stats.listed.example", Some("198.51.100.66"));
    }
    // The television's own name for it is an alias.
    s.asks_alias(130.0, TELEVISION, "metrics.shop.example", "eu.listed.example", "198.51.100.66");
}

fn blocklist_lookalike(s: &mut Script) {
    household(s, 600.0);
    for (n, name) in [
        "notlisted.example",
        "listed.example.com",
        "listed-example.com",
        "www.listed.example.net",
        "xn--listed-9za.example",
        "exempt.shop.example",
    ]
    .into_iter()
    .enumerate()
    {
        for round in 0..4 {
            s.asks(50.0 * round as f64 + n as f64, CAMERA, name, Some("198.51.100.20"));
        }
    }
}

fn dga_flood(s: &mut Script) {
    household(s, 900.0);
    // A family that makes names of 12 to 20 letters from the date and tries them until one
    // is registered: all but one do not exist.
    let mut second = 200.0;
    for n in 0..120 {
        let length = 12 + s.below(9);
        let label = s.word("abcdefghijklmnopqrstuvwxyz", length);
        let domain = ["example", "test", "invalid"][n % 3];
        let answer = (n == 90).then_some("198.51.100.66");
        s.asks(second, LAPTOP, &format!("{label}.{domain}"), answer);
        second += 0.5 + s.below(1_500) as f64 / 1_000.0;
    }
}

fn dga_cdn_hashes(s: &mut Script) {
    household(s, 900.0);
    let mut second = 200.0;
    for n in 0..120 {
        // Content networks name objects by hash: random labels, but they exist and lie below
        // a few domains.
        let hash = s.word("0123456789abcdef", 24);
        let domain = ["cdn.example.com", "objects.example.net", "edge.example.org"][n % 3];
        s.asks(second, LAPTOP, &format!("{hash}.{domain}"), Some("198.51.100.70"));
        second += 0.5 + s.below(1_500) as f64 / 1_000.0;
        // Browsers try a few random single-label names at their start to detect resolvers
        // that never say no.
        if n < 3 {
            let label = s.word("abcdefghijklmnopqrstuvwxyz", 10);
            s.asks(second, PHONE, &label, None);
        }
        // A mistyped name or two is life.
        if n % 40 == 7 {
            s.asks(second, LAPTOP, "wwww.example.com", None);
        }
    }
}

fn direct_ip_c2(s: &mut Script) {
    household(s, 1_200.0);
    // The camera keeps a line to an address it never asked for.
    for n in 0..12 {
        let jitter = s.below(10_000) as f64 / 1_000.0;
        s.connects(100.0 + f64::from(n) * 60.0 + jitter, CAMERA, "198.51.100.200", 4_444, 2.0);
    }
}

fn direct_ip_explained(s: &mut Script) {
    household(s, 1_200.0);
    for n in 0..12 {
        let second = 100.0 + f64::from(n) * 60.0;
        // The log of the resolver comes a second after the connection.
        let host = format!("198.51.100.{}", 100 + n);
        s.connects(second, LAPTOP, &host, 443, 5.0);
        s.asks(second + 1.2, LAPTOP, &format!("host-{n}.example.com"), Some(&host));
        // An address kept in use long after its answer.
        s.connects(second + 3.0, PHONE, "198.51.100.30", 5_228, 1.0);
        // Not the internet at all.
        s.connects(second + 4.0, LAPTOP, "192.168.77.25", 631, 1.0);
    }
    s.asks(20.0, PHONE, "push.example.org", Some("198.51.100.30"));
}

fn firewall_scan(s: &mut Script) {
    household(s, 600.0);
    for n in 0..60 {
        let port = 20 + n * 7;
        s.is_stopped(200.0 + f64::from(n) * 0.4, CAMERA, "198.51.100.99", port);
    }
    for n in 1..60 {
        let host = format!("198.51.100.{n}");
        s.is_stopped(400.0 + f64::from(n) * 0.3, TELEVISION, &host, 23);
    }
}

fn firewall_stray(s: &mut Script) {
    household(s, 600.0);
    // The printer wants its maker's discontinued service, three tries an hour.
    for n in 0..3 {
        s.is_stopped(100.0 + f64::from(n) * 150.0, PRINTER, "198.51.100.99", 5_222);
    }
    // A laptop comes from another network and finishes what it had open there.
    for port in [443, 993, 5_228, 587] {
        s.is_stopped(300.0, LAPTOP, "198.51.100.98", port);
    }
}

/// The MACs of the household, in the order of its addresses.
const MACS: [(&str, &str); 5] = [
    ("00:00:5e:00:53:21", CAMERA),
    ("00:00:5e:00:53:22", TELEVISION),
    ("00:00:5e:00:53:23", LAPTOP),
    ("da:a1:19:00:53:24", PHONE),
    ("00:00:5e:00:53:25", PRINTER),
];

/// The household's devices show themselves, as a first look at the neighbour table has them.
fn devices(s: &mut Script) {
    for (n, (mac, address)) in (0..).zip(MACS) {
        s.shows(2.0 + f64::from(n), mac, address, None);
    }
}

fn new_device(s: &mut Script) {
    devices(s);
    household(s, 1_200.0);
    // A small computer is plugged in: it looks for its address, then gets a lease.
    s.shows(900.0, "00:00:5e:00:53:99", "fe80::200:5eff:fe00:5399", None);
    s.shows(902.0, "00:00:5e:00:53:99", "192.168.77.199", Some("raspberrypi"));
    s.shows(960.0, "00:00:5e:00:53:99", "192.168.77.199", None);
    // A guest's phone, with a MAC it made up for this network.
    s.shows(1_000.0, "3e:5c:91:00:53:98", "192.168.77.198", Some("guest"));
}

fn new_device_known(s: &mut Script) {
    devices(s);
    household(s, 1_200.0);
    // The leases have run out, and everybody gets another address; IPv6 privacy addresses
    // come every while (RFC 8981).
    for (n, (mac, _)) in (0..).zip(MACS) {
        let second = 900.0 + 3.0 * f64::from(n);
        s.shows(second, mac, &format!("192.168.77.{}", 121 + n), Some("renamed"));
        for host in 0..4 {
            let address = format!("2001:db8:77::{:x}:{:x}", 0xa000 + host, 0x1234 + n);
            s.shows(second + 60.0 * f64::from(host), mac, &address, None);
        }
    }
    // The provider swaps the box at its end of the line.
    s.shows(1_000.0, "00:00:5e:00:53:01", "203.0.113.1", None);
}

fn watched(s: &mut Script) {
    household(s, 600.0);
    // The phone opens the place again and again; the laptop comes by an alias.
    for n in 0..10 {
        let second = 200.0 + f64::from(n) * 20.0;
        s.asks(second, PHONE, "www.casino.example", Some("198.51.100.60"));
    }
    s.asks_alias(300.0, LAPTOP, "play.shop.example", "eu.casino.example", "198.51.100.61");
}

fn watched_lookalike(s: &mut Script) {
    household(s, 600.0);
    for round in 0..4 {
        let names =
            ["notcasino.example", "casino.example.com", "casino-example.com", "casino.test"];
        for (n, name) in names.into_iter().enumerate() {
            let second = 200.0 + 40.0 * f64::from(round) + n as f64;
            s.asks(second, PHONE, name, Some("198.51.100.60"));
        }
    }
}

/// What always goes on: names that exist, asked for and connected to.
pub(super) fn household(s: &mut Script, seconds: f64) {
    const SITES: [(&str, &str); 6] = [
        ("www.example.com", "198.51.100.10"),
        ("mail.example.com", "198.51.100.11"),
        ("api.example.net", "198.51.100.20"),
        ("news.example.org", "198.51.100.30"),
        ("video.example.org", "198.51.100.31"),
        ("time.example.net", "198.51.100.21"),
    ];
    let clients = [CAMERA, TELEVISION, LAPTOP, PHONE, PRINTER];
    let mut second = 1.0;
    while second < seconds {
        let (name, address) = SITES[s.below(6) as usize];
        let client = clients[s.below(5) as usize];
        s.asks(second, client, name, Some(address));
        let length = 0.5 + s.below(20) as f64;
        s.connects(second + 0.05, client, address, 443, length);
        second += 1.0 + s.below(8_000) as f64 / 1_000.0;
    }
}
