//! Things break; nothing is lost silently, doubled, or in the way of the network.
//!
//! The names are the design's: C1 conservation, C2 obligation, C3 exactly once, C4 bounds,
//! C7 liveness, C8 passivity. C2 and C3 are checked from outside: every name a client asked
//! for, and the resolver logged, stands at the hub once.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::proxy::Fault;
use agentmon_tests::lab::wait::{eventually, pause, want};
use agentmon_tests::lab::workload::Surfer;
use agentmon_tests::lab::world::{LAN, say};
use agentmon_tests::lab::{in_world, traffic};
use rand::Rng as _;
use rustix::process::Signal;

#[test]
fn hub_away_for_a_while() {
    in_world(|world| {
        let mut chain = Chain::start(world);
        let surfer = Surfer::start("away", 20);
        pause(500);
        chain.hub.stop();
        pause(6_000);
        chain.hub.resume();
        chain.is_alive("back", 10.0);
        let count = surfer.stop();
        chain.has_exactly_once("away-", count, 15.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
        say(&format!("{count} names"));
    });
}

#[test]
fn hub_killed_while_it_stores() {
    in_world(|world| {
        let mut chain = Chain::start(world);
        let mut rng = world.rng();
        let surfer = Surfer::start("hubkill", 3);
        for _ in 0..6 {
            pause(rng.random_range(200..1_500));
            chain.hub.kill();
            chain.hub.resume();
        }
        let count = surfer.stop();
        chain.has_exactly_once("hubkill-", count, 30.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
        chain.is_alive("healed", 10.0);
        say(&format!("{count} names"));
    });
}

#[test]
fn router_killed_at_twenty_random_instants() {
    in_world(|world| {
        let mut chain = Chain::start(world);
        let mut rng = world.rng();
        let surfer = Surfer::start("rtrkill", 5);
        for _ in 0..20 {
            pause(rng.random_range(20..900));
            chain.sensor.kill();
            chain.sensor.resume();
        }
        let count = surfer.stop();
        chain.has_exactly_once("rtrkill-", count, 30.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
        chain.is_alive("healed", 10.0);
        say(&format!("{count} names"));
    });
}

#[test]
fn reply_lost_after_the_hub_has_stored() {
    in_world(|world| {
        let chain = Chain::start(world);
        let surfer = Surfer::start("lost", 2);
        // More than a handshake, less than handshake and batch.
        chain.line.set(Fault::LoseReply(1_500));
        eventually(30.0, "three replies are lost", || {
            want(chain.line.faults() >= 3, || format!("{} lost", chain.line.faults()))
        });
        chain.line.set(Fault::None);
        let count = surfer.stop();
        chain.has_exactly_once("lost-", count, 30.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
    });
}

#[test]
fn line_cut_within_requests_slow_and_silent() {
    in_world(|world| {
        let chain = Chain::start(world);
        let surfer = Surfer::start("line", 5);
        let mut rng = world.rng();
        for _ in 0..3 {
            let faults = [
                Fault::CutRequest(rng.random_range(1..3_000)),
                Fault::Delay(rng.random_range(10..200)),
                Fault::Refuse,
                Fault::Silence,
            ];
            for fault in faults {
                chain.line.set(fault);
                pause(rng.random_range(100..800));
            }
        }
        assert!(chain.line.faults() > 0, "the faults never happened");
        chain.line.set(Fault::None);
        let count = surfer.stop();
        chain.has_exactly_once("line-", count, 60.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
    });
}

#[test]
fn resolver_log_rotated_while_it_is_written() {
    in_world(|world| {
        let chain = Chain::start(world);
        let log = agentmon_tests::lab::dns::resolver_log(world);
        let surfer = Surfer::start("rotate", 5);
        for n in 0..5 {
            pause(700);
            // As logrotate does: rename, then have dnsmasq open its log again.
            std::fs::rename(&log, log.with_extension(n.to_string())).expect("renamed");
            chain.resolver.signal(Signal::USR2);
            eventually(5.0, "dnsmasq opens a new log", || want(log.exists(), String::new));
        }
        let count = surfer.stop();
        chain.has_exactly_once("rotate-", count, 20.0);
        // copytruncate loses by nature what is written between copy and cut, so nothing is.
        std::fs::copy(&log, log.with_extension("copy")).expect("copied");
        std::fs::File::create(&log).expect("cut to nothing");
        let surfer = Surfer::start("cut", 5);
        pause(700);
        let count = surfer.stop();
        chain.has_exactly_once("cut-", count, 20.0);
        chain.has_exactly_once(
            "rotate-",
            chain.hub.number("SELECT count(DISTINCT name) FROM dns WHERE name LIKE 'rotate-%'"),
            5.0,
        );
    });
}

#[test]
fn router_frozen_while_the_lan_surfs() {
    in_world(|world| {
        let chain = Chain::start(world);
        chain.sensor.proc().signal(Signal::STOP);
        // C8: names and connections work, longer than any queue of ours could hold.
        let surfer = Surfer::start("frozen", 5);
        for _ in 0..100 {
            traffic::tcp("lan", LAN, "198.51.100.10:443", 100, 1_000);
        }
        traffic::udp_burst("lan", 20_000);
        pause(1_000);
        let count = surfer.stop();
        assert!(count > 50, "only {count} names in all that time");
        chain.sensor.proc().signal(Signal::CONT);
        chain.has_exactly_once("frozen-", count, 20.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
        chain.is_alive("thawed", 10.0);
    });
}

#[test]
fn router_dead_while_the_lan_surfs() {
    in_world(|world| {
        let mut chain = Chain::start(world);
        chain.sensor.kill();
        // C8, with our own nftables table still in place and nobody behind its groups.
        let surfer = Surfer::start("dead", 5);
        for _ in 0..50 {
            traffic::tcp("lan", LAN, "198.51.100.10:443", 100, 1_000);
            pause(20);
        }
        let count = surfer.stop();
        assert!(count > 20, "only {count} names in all that time");
        chain.sensor.resume();
        chain.has_exactly_once("dead-", count, 20.0);
        assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped");
    });
}
