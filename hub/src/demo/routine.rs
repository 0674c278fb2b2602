//! What the demo home does all day: polls, sessions, leases, the internet's noise.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{DeviceSource, Endpoint, Verdict};
use rand::Rng;

use super::DAY_SECONDS;
use super::home::{Device, Home, Profile};
use super::world::{TCP, Talk, UDP, WAN, World};

/// Something a device does again and again, day and night.
struct Poll {
    name: &'static str,
    every_s: f64,
    jitter_percent: f64,
    out: u64,
    inward: u64,
}

const fn poll(name: &'static str, every_s: f64, out: u64, inward: u64) -> Poll {
    Poll { name, every_s, jitter_percent: 25.0, out, inward }
}

fn polls(profile: Profile) -> &'static [Poll] {
    match profile {
        Profile::Agent => {
            const {
                &[
                    poll("api.models.example", 108.0, 42_000, 9_000),
                    poll("telemetry.agents.example", 540.0, 3_000, 600),
                    poll("registry.packages.example", 1440.0, 2_000, 900_000),
                ]
            }
        }
        Profile::Appliance => {
            const {
                &[
                    poll("mqtt.homeiot.example", 252.0, 900, 700),
                    poll("firmware.homeiot.example", 8640.0, 600, 4_000),
                ]
            }
        }
        Profile::Camera => {
            const {
                &[
                    poll("relay.camcloud.example", 144.0, 60_000, 2_000),
                    poll("time.camcloud.example", 2160.0, 300, 300),
                ]
            }
        }
        Profile::Console => {
            const {
                &[
                    poll("presence.gamenet.example", 180.0, 1_500, 1_200),
                    poll("store.gamenet.example", 4320.0, 4_000, 80_000),
                ]
            }
        }
        Profile::Desktop | Profile::Laptop => {
            const {
                &[
                    poll("push.mailbox.example", 216.0, 2_500, 4_000),
                    poll("updates.oskit.example", 3240.0, 2_000, 30_000),
                    poll("sync.notes.example", 540.0, 6_000, 5_000),
                ]
            }
        }
        Profile::Light => const { &[poll("bridge.lightworks.example", 360.0, 800, 500)] },
        Profile::Nas => {
            const {
                &[
                    poll("status.backupcloud.example", 1080.0, 1_200, 900),
                    poll("packages.nasware.example", 6480.0, 900, 20_000),
                ]
            }
        }
        Profile::Phone | Profile::Tablet => {
            const {
                &[
                    poll("push.phonecloud.example", 252.0, 1_200, 1_500),
                    poll("api.chatter.example", 360.0, 3_000, 9_000),
                    poll("weather.widgets.example", 1080.0, 700, 5_000),
                ]
            }
        }
        Profile::Plug => const { &[poll("broker.plugworld.example", 288.0, 500, 450)] },
        Profile::Printer => const { &[poll("ink.printing.example", 4320.0, 2_000, 1_500)] },
        Profile::Server => {
            const {
                &[
                    poll("api.weather.example", 540.0, 600, 3_000),
                    poll("releases.codehub.example", 2160.0, 900, 12_000),
                    poll("hooks.automation.example", 180.0, 900, 700),
                ]
            }
        }
        Profile::Speaker => {
            const {
                &[
                    poll("voice.speakers.example", 324.0, 2_500, 2_000),
                    poll("config.speakers.example", 2160.0, 900, 6_000),
                ]
            }
        }
        Profile::Tv => {
            const {
                &[
                    poll("home.tvplatform.example", 540.0, 2_000, 8_000),
                    poll("epg.tvplatform.example", 2160.0, 900, 120_000),
                ]
            }
        }
    }
}

/// What people do while awake.
#[derive(Clone, Copy)]
enum Session {
    Browse,
    Stream,
    Call,
    Play,
    Code,
}

/// How many sessions of each kind a day has, and between which local hours.
fn sessions(profile: Profile) -> &'static [(Session, u32, i64, i64)] {
    match profile {
        Profile::Agent => &[(Session::Code, 34, 0, 23)],
        Profile::Desktop => {
            &[(Session::Browse, 34, 8, 23), (Session::Code, 4, 9, 18), (Session::Stream, 1, 19, 23)]
        }
        Profile::Laptop => {
            &[(Session::Browse, 40, 7, 23), (Session::Call, 2, 9, 18), (Session::Stream, 1, 18, 23)]
        }
        Profile::Phone => {
            &[(Session::Browse, 52, 7, 23), (Session::Stream, 3, 12, 23), (Session::Call, 1, 9, 21)]
        }
        Profile::Tablet => &[(Session::Browse, 26, 8, 22), (Session::Stream, 2, 15, 22)],
        Profile::Tv => &[(Session::Stream, 4, 16, 23)],
        Profile::Console => &[(Session::Play, 3, 15, 22)],
        Profile::Speaker => &[(Session::Stream, 2, 7, 22)],
        _ => &[],
    }
}

/// Sites people visit; each loads names below it and shared ones.
const SITES: [&str; 28] = [
    "news", "recipes", "mailbox", "wiki", "forum", "shop", "cityblog", "sports", "maps", "school",
    "library", "bank", "travel", "music", "photos", "games", "movies", "garden", "health",
    "auctions", "weather", "codehub", "docs", "jobs", "trains", "crafts", "science", "comics",
];
/// What pages load from elsewhere.
const SHARED: [&str; 8] = [
    "fonts.webstatic.example",
    "cdn1.webstatic.example",
    "cdn2.webstatic.example",
    "img.picstore.example",
    "player.videohost.example",
    "api.paygate.example",
    "maps.tileserver.example",
    "login.identity.example",
];
/// What the home's resolver refuses.
const REFUSED: [&str; 8] = [
    "ads.bannerhub.example",
    "track.bannerhub.example",
    "pixel.countme.example",
    "metrics.countme.example",
    "stats.adstream.example",
    "beacon.adstream.example",
    "telemetry.tvplatform.example",
    "sync.profiler.example",
];

/// The whole day of everybody.
pub(super) fn play(home: &Home, world: &mut World) {
    let pace = world.pace;
    for device in &home.devices {
        presence(device, world);
        clock(device, world);
        for poll in polls(device.profile) {
            repeat(device, poll, pace, world);
        }
        for (session, count, from, to) in sessions(device.profile) {
            for _ in 0..*count {
                let time = moment(world, *from, *to);
                spend(device, *session, time, world);
            }
        }
    }
    noise(world);
    let blind = world.end.minus(Duration::from_secs(36_000));
    world.gap(blind, Duration::from_secs(20), "enobufs", 37);
}

/// A random moment of the day between two local hours.
fn moment(world: &mut World, from: i64, to: i64) -> Timestamp {
    loop {
        let seconds = world.rng.random_range(0.0..DAY_SECONDS as f64);
        let time = world.at(seconds);
        if (from..=to).contains(&world.hour(time)) {
            return time;
        }
    }
}

/// A lease at the start and twice a day, the neighbour table every half hour.
fn presence(device: &Device, world: &mut World) {
    for half_hour in 0..48u32 {
        let shift = world.rng.random_range(0.0..60.0);
        let time = world.at(f64::from(half_hour) * 1_800.0 + shift);
        let lease = half_hour % 24 == 0;
        let source = if lease { DeviceSource::Lease } else { DeviceSource::Neighbour };
        world.seen(time, device, source);
    }
}

/// NTP by address every 1024 s, as time daemons do: a beacon's and a direct connection's
/// benign twin.
fn clock(device: &Device, world: &mut World) {
    let IpAddr::V4(_) = device.ip else { return };
    let server = Endpoint::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 123)), 123);
    let talk = Talk { proto: UDP, port: 123, out: 76, inward: 76, lasts: Duration::from_secs(1) };
    let mut seconds = world.rng.random_range(0.0..1_024.0);
    while seconds < DAY_SECONDS as f64 {
        world.connect(world.at(seconds), device, server, talk);
        seconds += world.about(1_024.0, 1.0);
    }
}

fn repeat(device: &Device, poll: &Poll, pace: f64, world: &mut World) {
    let every_s = poll.every_s * pace;
    let mut seconds = world.rng.random_range(0.0..every_s);
    while seconds < DAY_SECONDS as f64 {
        let time = world.at(seconds);
        let talk = Talk::https(world.bytes(poll.out), world.bytes(poll.inward), 2);
        world.visit(time, device, poll.name, talk);
        seconds += world.about(every_s, poll.jitter_percent);
    }
}

fn spend(device: &Device, session: Session, time: Timestamp, world: &mut World) {
    match session {
        Session::Browse => browse(device, time, world),
        Session::Stream => stream(device, time, world),
        Session::Call => {
            // A call moves as much up as down for an hour: large uploads can be fine.
            let minutes = world.rng.random_range(10..70);
            let mut talk = Talk::https(minutes * 11_000_000, minutes * 13_000_000, minutes * 60);
            (talk.proto, talk.port) = (UDP, 3478);
            world.visit(time, device, "media.videocall.example", talk);
        }
        Session::Play => {
            let minutes = world.rng.random_range(30..150);
            let mut talk = Talk::https(minutes * 900_000, minutes * 2_400_000, minutes * 60);
            (talk.proto, talk.port) = (UDP, 27_015);
            world.visit(time, device, "eu-west.matchmaking.example", talk);
        }
        Session::Code => code(device, time, world),
    }
}

/// A handful of pages, each with its own names, shared ones, and refused ones.
fn browse(device: &Device, start: Timestamp, world: &mut World) {
    let mut time = start;
    for _ in 0..world.rng.random_range(2..8) {
        let site = SITES.get(world.rng.random_range(0..SITES.len())).copied().unwrap_or("news");
        // People also read what nobody here has read before.
        let rare = world.wide && world.rng.random_bool(0.3);
        let rare = rare.then(|| format!("site{}", world.rng.random_range(0..20_000)));
        let site = rare.as_deref().unwrap_or(site);
        for sub in ["www", "static", "api"] {
            let (out, inward) = (world.bytes(3_000), world.bytes(180_000));
            world.visit(
                time,
                device,
                &format!("{sub}.{site}.example"),
                Talk::https(out, inward, 8),
            );
            time = time.plus(Duration::from_millis(world.rng.random_range(20..300)));
        }
        for _ in 0..world.rng.random_range(1..5) {
            let name = SHARED.get(world.rng.random_range(0..SHARED.len())).copied();
            let (out, inward) = (world.bytes(1_500), world.bytes(60_000));
            world.visit(time, device, name.unwrap_or_default(), Talk::https(out, inward, 5));
        }
        for _ in 0..world.rng.random_range(0..4) {
            let name = REFUSED.get(world.rng.random_range(0..REFUSED.len())).copied();
            world.refused(time, device, name.unwrap_or_default());
        }
        if world.rng.random_bool(0.01) {
            // A typing error.
            world.missing(time, device, &format!("wwww.{site}.example"));
        }
        time = time.plus(Duration::from_secs(world.rng.random_range(10..120)));
    }
}

/// Video or music: a few long downloads from a content network.
fn stream(device: &Device, start: Timestamp, world: &mut World) {
    let small = device.profile == Profile::Speaker;
    let mut time = start;
    for part in 0..world.rng.random_range(2..7) {
        let minutes = world.rng.random_range(4..25);
        let rate = if small { 1_200_000 } else { 35_000_000 };
        let inward = world.bytes(minutes * rate);
        let talk = Talk::https(inward / 60, inward, minutes * 60);
        world.visit(time, device, &format!("cdn{}.videohost.example", part % 4 + 1), talk);
        if world.rng.random_bool(0.3) {
            world.refused(time, device, "telemetry.tvplatform.example");
        }
        time = time.plus(Duration::from_secs(minutes * 60));
    }
}

/// Somebody, or some agent, writes code: models, packages, repositories, documentation.
fn code(device: &Device, start: Timestamp, world: &mut World) {
    let mut time = start;
    for _ in 0..world.rng.random_range(4..14) {
        let (name, out, inward) = match world.rng.random_range(0..6) {
            0 | 1 => ("api.models.example", 160_000, 24_000),
            2 => ("registry.packages.example", 3_000, 4_000_000),
            3 => ("git.codehub.example", 40_000, 900_000),
            4 => ("www.docs.example", 4_000, 150_000),
            _ => ("search.websearch.example", 2_000, 60_000),
        };
        let talk = Talk::https(world.bytes(out), world.bytes(inward), 12);
        world.visit(time, device, name, talk);
        time = time.plus(Duration::from_secs(world.rng.random_range(5..90)));
    }
}

/// What the internet knocks at all day; nobody needs an alert for it.
fn noise(world: &mut World) {
    const PORTS: [u16; 8] = [22, 23, 80, 443, 445, 3389, 5060, 8080];
    let mut seconds = 0.0;
    while seconds < DAY_SECONDS as f64 {
        let host = world.rng.random_range(216..=254);
        let from = Endpoint::new(
            IpAddr::V4(Ipv4Addr::new(198, 51, 100, host)),
            world.rng.random_range(1_024..65_000),
        );
        let port = PORTS.get(world.rng.random_range(0..PORTS.len())).copied().unwrap_or(22);
        world.stopped(
            world.at(seconds),
            (from, None),
            Endpoint::new(WAN, port),
            TCP,
            Verdict::Drop,
        );
        seconds += world.about(45.0, 90.0);
    }
}
