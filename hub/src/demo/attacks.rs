//! What is planted in the demo day, and what only looks like it.
//!
//! Each attack is one function that plays it and returns the truth about it. Times count
//! back from the end of the day, so that a fresh demo always has something recent.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{Answer, Endpoint, Verdict};
use rand::Rng;

use super::home::Home;
use super::world::{A, Reply, TCP, Talk, World};
use super::{Planted, Twin};

/// The names on the demo's list.
const LISTED: [&str; 3] = ["malware-drop.example", "phish-login.example", "coinminer-pool.example"];

/// The list in hosts-file syntax.
pub(super) fn blocklist() -> String {
    LISTED.iter().map(|name| format!("0.0.0.0 {name}\n")).collect()
}

/// Plays all attacks and all twins.
pub(super) fn plant(home: &Home, world: &mut World) -> (Vec<Planted>, Vec<Twin>) {
    let planted = vec![
        dga_burst(home, world),
        listed_name(home, world),
        direct_ip(home, world),
        scan(home, world),
        beacon(home, world),
        tunnel(home, world),
        exfil_drip(home, world),
        exfil_burst(home, world),
    ];
    (planted, twins(home, world))
}

fn before_end(world: &World, seconds: u64) -> Timestamp {
    world.end.minus(Duration::from_secs(seconds))
}

/// An address no service of the home uses.
fn lair(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, n))
}

fn random_text(world: &mut World, alphabet: &[u8], length: usize) -> String {
    let mut pick = || alphabet.get(world.rng.random_range(0..alphabet.len())).copied();
    (0..length).filter_map(|_| pick()).map(char::from).collect()
}

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
const HEX: &[u8] = b"0123456789abcdef";

/// 120 random names in four minutes, none of which exists but the last (ATT&CK T1568.002).
fn dga_burst(home: &Home, world: &mut World) -> Planted {
    let device = home.named("garage-camera");
    let from = before_end(world, 7_200);
    let mut time = from;
    for _ in 0..120 {
        let length = world.rng.random_range(12..20);
        let name = format!("{}.example", random_text(world, LETTERS, length));
        world.missing(time, device, &name);
        time = time.plus(Duration::from_millis(world.rng.random_range(800..3_200)));
    }
    let name = format!("{}.example", random_text(world, LETTERS, 16));
    let answer = vec![Answer::Address(lair(230))];
    world.exchange(time, device, (&name, A), Reply::fresh(answer));
    let later = time.plus(Duration::from_millis(300));
    world.connect(later, device, Endpoint::new(lair(230), 443), Talk::https(4_000, 90_000, 20));
    Planted {
        name: "dga-burst",
        what: "asks for 120 made-up names in four minutes until one exists",
        client: device.ip,
        tier0: Some("dga"),
        subject: None,
        from,
        to: time.plus(Duration::from_secs(30)),
    }
}

/// One visit to a name on the list.
fn listed_name(home: &Home, world: &mut World) -> Planted {
    let device = home.named("kids-laptop");
    let from = before_end(world, 1_500);
    world.visit(from, device, "dl.malware-drop.example", Talk::https(2_000, 3_400_000, 15));
    Planted {
        name: "listed-name",
        what: "downloads from a name on the threat list",
        client: device.ip,
        tier0: Some("blocklist"),
        subject: Some("malware-drop.example".to_owned()),
        from,
        to: from.plus(Duration::from_secs(30)),
    }
}

/// Connections to an address that no answer ever held (ATT&CK T1571).
fn direct_ip(home: &Home, world: &mut World) -> Planted {
    let device = home.named("agent-box");
    let from = before_end(world, 2_400);
    let to = Endpoint::new(lair(233), 8_443);
    let mut talk = Talk::https(18_000, 6_000, 30);
    talk.port = to.port;
    for i in 0..4 {
        world.connect(from.plus(Duration::from_secs(i * 240)), device, to, talk);
    }
    Planted {
        name: "direct-ip",
        what: "the agent's machine talks to an address that no DNS answer explains",
        client: device.ip,
        tier0: Some("direct-ip"),
        subject: Some("203.0.113.233".to_owned()),
        from,
        to: from.plus(Duration::from_secs(800)),
    }
}

/// Telnet to 60 addresses in 50 seconds, all rejected (ATT&CK T1046).
fn scan(home: &Home, world: &mut World) -> Planted {
    let device = home.named("old-dvr");
    let from = before_end(world, 4_500);
    for i in 0..60u8 {
        let source = Endpoint::new(device.ip, 40_000 + u16::from(i));
        let target = Endpoint::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 130 + i)), 23);
        let time = from.plus(Duration::from_millis(u64::from(i) * 830));
        world.stopped(time, (source, Some(device)), target, TCP, Verdict::Reject);
    }
    Planted {
        name: "telnet-scan",
        what: "tries telnet on 60 addresses of the internet; the firewall stops it",
        client: device.ip,
        tier0: Some("firewall"),
        subject: Some("fan-out".to_owned()),
        from,
        to: from.plus(Duration::from_secs(60)),
    }
}

/// Every 300 s, give or take 5 %, a few hundred bytes, all day (ATT&CK T1071.001).
fn beacon(home: &Home, world: &mut World) -> Planted {
    let device = home.named("plug-heater");
    let mut time = world.start.plus(Duration::from_secs(120));
    while time < world.end {
        let (out, inward) = (world.about(420.0, 3.0), world.about(640.0, 3.0));
        let talk = Talk::https(out as u64, inward as u64, 1);
        world.visit(time, device, "cdn-status.quietmetrics.example", talk);
        time = time.plus(Duration::from_secs_f64(world.about(300.0, 5.0)));
    }
    Planted {
        name: "beacon",
        what: "calls the same place every 300 s with the same few bytes",
        client: device.ip,
        tier0: None,
        subject: Some("quietmetrics.example".to_owned()),
        from: world.start,
        to: world.end,
    }
}

/// 900 TXT queries whose labels carry the data (ATT&CK T1071.004).
fn tunnel(home: &Home, world: &mut World) -> Planted {
    let device = home.named("kids-tablet");
    let from = before_end(world, 21_600);
    let mut time = from;
    for _ in 0..900 {
        let (head, tail) = (random_text(world, BASE32, 44), random_text(world, BASE32, 30));
        let answer = random_text(world, BASE32, 120);
        world.text(time, device, &format!("{head}.{tail}.t.fastrelay.example"), &answer);
        time = time.plus(Duration::from_millis(world.rng.random_range(400..1_800)));
    }
    Planted {
        name: "dns-tunnel",
        what: "carries data in the labels of 900 TXT queries",
        client: device.ip,
        tier0: Some("dns-tunnel"),
        subject: Some("fastrelay.example".to_owned()),
        from,
        to: time,
    }
}

/// 1.5 MB every ten minutes for five hours (ATT&CK T1048).
fn exfil_drip(home: &Home, world: &mut World) -> Planted {
    let device = home.named("agent-box");
    let from = before_end(world, 32_400);
    for i in 0..30 {
        let time = from.plus(Duration::from_secs(i * 600));
        let out = world.about(1_500_000.0, 4.0) as u64;
        world.visit(time, device, "paste.quickshare.example", Talk::https(out, 4_000, 6));
    }
    Planted {
        name: "exfil-drip",
        what: "uploads 1.5 MB every ten minutes for five hours to a paste site",
        client: device.ip,
        tier0: None,
        subject: Some("quickshare.example".to_owned()),
        from,
        to: from.plus(Duration::from_secs(18_000)),
    }
}

/// 4.2 GB in twelve minutes to a place never visited before.
fn exfil_burst(home: &Home, world: &mut World) -> Planted {
    let device = home.named("guest-laptop");
    let from = before_end(world, 10_800);
    let talk = Talk::https(4_200_000_000, 40_000_000, 720);
    world.visit(from, device, "drop.bigupload.example", talk);
    Planted {
        name: "exfil-burst",
        what: "uploads 4.2 GB in twelve minutes to a place nobody visited before",
        client: device.ip,
        tier0: None,
        subject: Some("bigupload.example".to_owned()),
        from,
        to: from.plus(Duration::from_secs(720)),
    }
}

/// The twins: hash names of a content network (DGA), virus-scanner look-ups and mail keys
/// (tunnel), the nightly backup (exfil), a name that merely ends like a listed one, an
/// address resolved hours ago (direct-ip). NTP and the internet's noise are in `routine`.
fn twins(home: &Home, world: &mut World) -> Vec<Twin> {
    for device in home.devices.iter().filter(|d| d.name.starts_with("phone")) {
        for _ in 0..40 {
            let seconds = world.rng.random_range(0.0..86_000.0);
            let hash = random_text(world, HEX, 12);
            let talk = Talk::https(900, 40_000, 3);
            let name = format!("d{hash}.edge.cloudcdn.example");
            world.visit(world.at(seconds), device, &name, talk);
        }
    }
    let desk = home.named("desk-anna");
    for _ in 0..60 {
        let seconds = world.rng.random_range(0.0..86_000.0);
        let hash = random_text(world, HEX, 32);
        let time = world.at(seconds);
        world.text(time, desk, &format!("{hash}.lookup.virusguard.example"), "clean");
        world.text(time, desk, "s1._domainkey.mailbox.example", "v=DKIM1; k=rsa");
    }
    let nas = home.named("nas");
    let night = before_end(world, 43_200);
    world.visit(
        night,
        nas,
        "upload.backupcloud.example",
        Talk::https(21_000_000_000, 9_000_000, 9_000),
    );
    let time = before_end(world, 1_800);
    world.visit(time, desk, "www.not-malware-drop.example", Talk::https(1_000, 50_000, 3));
    resolved_hours_ago(home, world);
    let twin = |name, of, subject: &str| Twin { name, of, subject: subject.to_owned() };
    vec![
        twin("cdn-hashes", "dga-burst", "cloudcdn.example"),
        twin("virus-scanner", "dns-tunnel", "virusguard.example"),
        twin("mail-keys", "dns-tunnel", "_domainkey"),
        twin("nightly-backup", "exfil-burst", "backupcloud.example"),
        twin("ends-like-a-listed-name", "listed-name", "not-malware-drop.example"),
        twin("resolved-hours-ago", "direct-ip", "198.51.100.12:"),
        twin("ntp", "beacon", "192.0.2.123"),
    ]
}

/// Keeps an address for six hours and connects again without asking: phones do.
fn resolved_hours_ago(home: &Home, world: &mut World) {
    let device = home.named("tablet-anna");
    let asked = before_end(world, 25_000);
    let address = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 12));
    let answer = vec![Answer::Address(address)];
    world.exchange(asked, device, ("keep.longlived.example", A), Reply::fresh(answer));
    let talk = Talk::https(800, 2_000, 2);
    for seconds in [24_990, 12_000, 3_400] {
        world.connect(before_end(world, seconds), device, Endpoint::new(address, 443), talk);
    }
}
