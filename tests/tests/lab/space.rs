//! Room runs out: in the ring, on the router's disk, on the hub's, in the kernel's buffer.
//! The oldest goes and is counted, detection goes on, and afterwards all is well.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::dns::resolver_log;
use agentmon_tests::lab::proxy::Fault;
use agentmon_tests::lab::wait::{eventually, pause, want};
use agentmon_tests::lab::workload::{Surfer, write_log};
use agentmon_tests::lab::world::say;
use agentmon_tests::lab::{in_world, traffic};
use rustix::process::Signal;

/// A counter of the sensor's own status; 0 where it has none.
fn counter(chain: &Chain, name: &str) -> u64 {
    let status = chain.sensor.status().expect("the router answers");
    status["counters"][name].as_u64().unwrap_or(0)
}

/// Different names with that prefix at the hub.
fn names(chain: &Chain, prefix: &str) -> u64 {
    chain.hub.number(&format!("SELECT count(DISTINCT name) FROM dns WHERE name LIKE '{prefix}%'"))
}

/// Somebody else's file, until the disk is full.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("ballast");
    let mut file = File::create(&path).expect("a file");
    // In ever smaller pieces, to the last byte.
    for size in [65_536, 4_096, 512, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[test]
fn ring_full_while_the_hub_is_away() {
    in_world(|world| {
        const LOGGED: u64 = 30_000;
        let chain = Chain::start_with(world, "ring.bytes_max = 2_097_152\n", "");
        chain.line.set(Fault::Refuse);
        write_log(&resolver_log(world), "full", LOGGED);
        // C4: the file stays within its bound while everything passes through it.
        let ring = world.file("router-state/ring.db");
        eventually(40.0, "the ring evicts", || {
            let status = chain.sensor.status()?;
            let evicted = status["counters"]["drop.ring.evicted"].as_u64().unwrap_or(0);
            want(evicted > 0, || status.to_string())
        });
        pause(2_000);
        let wal = ring.with_extension("db-wal");
        let size: u64 =
            [&ring, &wal].iter().filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum();
        assert!(size <= 2_097_152, "C4: {size} bytes of ring");
        chain.line.set(Fault::None);
        chain.is_alive("healed", 40.0);
        // C1: what is not at the hub was counted. Each name is one event; others (flows of
        // the lab itself) may be among the evicted.
        let (stored, dropped) = (names(&chain, "full-"), chain.conserved());
        say(&format!("{LOGGED} logged, {stored} stored, {dropped} dropped"));
        assert!(stored > 1_000, "nearly everything is gone: {stored}");
        assert!(stored + dropped >= LOGGED, "C1: {stored} + {dropped} of {LOGGED}");
        // The newest survive, the oldest go.
        let last =
            format!("SELECT count(*) FROM dns WHERE name = 'full-{}.example.com'", LOGGED - 1);
        assert_eq!(chain.hub.number(&last), 1);
        let first = "SELECT count(*) FROM dns WHERE name = 'full-0.example.com'";
        assert_eq!(chain.hub.number(first), 0);
    });
}

#[test]
fn routers_disk_full() {
    in_world(|world| {
        let disk = world.small_disk("ring-disk", 4_096);
        let ring =
            format!("ring.path = \"{}/ring.db\"\nring.bytes_max = 2_097_152\n", disk.display());
        let chain = Chain::start_with(world, &ring, "");
        chain.line.set(Fault::Refuse);
        let ballast = fill(&disk);
        let surfer = Surfer::start("diskfull", 2);
        eventually(40.0, "events are counted as dropped for want of room", || {
            let status = chain.sensor.status()?;
            let dropped = status["counters"]["drop.ring.disk_full"].as_u64().unwrap_or(0);
            want(dropped > 0, || status.to_string())
        });
        std::fs::remove_file(&ballast).expect("ballast goes");
        chain.line.set(Fault::None);
        chain.is_alive("room", 40.0);
        let count = surfer.stop();
        let logged = eventually(20.0, "C1: what is missing was counted", || {
            let (stored, dropped) = (names(&chain, "diskfull-"), chain.conserved());
            want(stored + dropped >= count, || format!("{stored} + {dropped} of {count}"))
                .map(|()| format!("{count} asked, {stored} stored, {dropped} dropped"))
        });
        say(&logged);
        assert_eq!(counter(&chain, "ring.damaged_files"), 0);
    });
}

#[test]
fn hubs_disk_full() {
    in_world(|world| {
        let disk = world.small_disk("hub-disk", 96 * 1_024);
        let mut chain = Chain::start_on(world, &disk);
        let ballast = fill(&disk);
        let surfer = Surfer::start("hubfull", 2);
        // Refused, and not lost: events wait in the ring until there is room.
        eventually(30.0, "events wait", || {
            let status = chain.sensor.status()?;
            let pending = status["ring"]["pending"].as_u64().unwrap_or(0);
            want(pending > 500, || status.to_string())
        });
        std::fs::remove_file(&ballast).expect("ballast goes");
        // Whether it lived through or has to be started again: nothing is lost or doubled.
        if !chain.hub.is_running() {
            say("the hub had ended");
            chain.hub.resume();
        }
        chain.is_alive("room", 60.0);
        let count = surfer.stop();
        chain.has_exactly_once("hubfull-", count, 60.0);
    });
}

#[test]
fn kernel_buffer_overflows() {
    in_world(|world| {
        let chain = Chain::start(world);
        // Asleep, so that the buffer must overflow: 4 MiB hold about 11,000 events.
        chain.sensor.proc().signal(Signal::STOP);
        traffic::udp_burst("lan", 60_000);
        chain.sensor.proc().signal(Signal::CONT);
        eventually(20.0, "ENOBUFS is counted", || {
            let status = chain.sensor.status()?;
            let count = status["counters"]["conntrack.enobufs"].as_u64().unwrap_or(0);
            want(count > 0, || status.to_string())
        });
        eventually(20.0, "the gap is told", || {
            let gaps = "SELECT count(*) FROM gaps WHERE collector = 'conntrack'";
            want(chain.hub.number(gaps) > 0, || "no gap".to_owned())
        });
        // Afterwards flows are seen again, by their real figures; none is made up.
        traffic::serve_udp("wan", "198.51.100.7:9000");
        let client = traffic::udp("tv", "192.168.77.3", "198.51.100.7:9000", 5, 100);
        chain.hub.reaches(
            30.0,
            &format!(
                "SELECT count(*) FROM flows WHERE src = '192.168.77.3' AND sport = {} \
                 AND bytes_out = 640 AND bytes_in = 640",
                client.port()
            ),
            1,
        );
        let phantoms = chain.hub.number(
            "SELECT count(*) FROM flows_done WHERE src NOT LIKE '192.168.77.%' \
             AND src NOT LIKE '203.0.113.%' AND src NOT LIKE '127.%' AND src NOT LIKE '%:%'",
        );
        assert_eq!(phantoms, 0, "flows nobody made");
    });
}
