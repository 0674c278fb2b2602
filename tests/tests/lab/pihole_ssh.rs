//! A Pi-hole whose log the router reads by SSH: who asked is told once, over a rotated log and
//! a connection that is cut; the Pi-hole's own questions for its clients are not told.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::proc::Proc;
use agentmon_tests::lab::sshd::{self, Sshd};
use agentmon_tests::lab::wait::{eventually, want};
use agentmon_tests::lab::world::{LAN, World};
use agentmon_tests::lab::{dns, in_world, need};
use rustix::process::Signal;

const PIHOLE: &str = "192.168.77.53";

/// The Pi-hole's resolver is asked; it may take a moment.
fn ask(name: &str) {
    eventually(5.0, &format!("an answer to {name}"), || {
        dns::ask_from("lan", Some(LAN), PIHOLE, name, dns::A).map(drop)
    });
}

/// `names` are told once each, of who asked and by SSH. While the connection is cut, packets of
/// the Pi-hole's own questions may be told of it: nobody says then for whom it asks.
#[track_caller]
fn told(chain: &Chain, like: &str, names: u64) {
    let rows = format!("FROM dns WHERE name LIKE '{like}.example.com' AND client = '{LAN}'");
    let right = format!("{rows} AND source = 'pihole-ssh'");
    chain.hub.reaches(60.0, &format!("SELECT count(DISTINCT name) {right}"), names);
    assert_eq!(chain.hub.number(&format!("SELECT count(*) {rows}")), names, "{like}");
}

/// What the sensor says of its collector holds `text`.
#[track_caller]
fn says(chain: &Chain, text: &str) {
    eventually(30.0, &format!("the status says {text:?}"), || {
        let status = chain.sensor.status()?;
        let all = status["collectors"].as_array().cloned().unwrap_or_default();
        let ours = all.iter().find(|c| c["name"] == "pihole-ssh");
        let said = ours.map_or_else(String::new, ToString::to_string);
        want(said.contains(text), || said.clone())
    });
}

#[test]
fn its_log_is_told_once_over_rotation_and_a_cut_connection() {
    in_world(|world| {
        let missing = sshd::missing();
        if !missing.is_empty() {
            return need::leave_out("LAB", "pihole_ssh", &missing);
        }
        let log = dns::pihole_log(world);
        drop(std::fs::File::create(&log).expect("test folder is writable"));
        let chain = Chain::start_with(world, &sshd::settings(world, PIHOLE, &log), "");
        // Nobody is there yet.
        says(&chain, "by ssh");
        let pihole = dns::pihole(world, "pihole", PIHOLE);
        let mut sshd = Sshd::start(world, "pihole", PIHOLE);
        says(&chain, "questions waiting");

        (0..20).for_each(|n| ask(&format!("first-{n}.example.com")));
        told(&chain, "first-%", 20);

        rotate(world, &pihole, 1);
        (0..20).for_each(|n| ask(&format!("rotated-{n}.example.com")));
        told(&chain, "rotated-%", 20);
        // By now it is known for whom the Pi-hole asks.
        let all = "SELECT count(*) FROM dns WHERE name LIKE 'rotated-%.example.com'";
        assert_eq!(chain.hub.number(all), 20, "its own questions are its client's");

        sshd.cut();
        (0..20).for_each(|n| ask(&format!("cut-{n}.example.com")));
        rotate(world, &pihole, 2);
        (0..20).for_each(|n| ask(&format!("away-{n}.example.com")));
        says(&chain, "refused");
        sshd.resume(world);
        told(&chain, "cut-%", 20);
        told(&chain, "away-%", 20);
        says(&chain, "questions waiting");
        told(&chain, "first-%", 20);
        told(&chain, "rotated-%", 20);
        let _dropped = chain.conserved();
    });
}

/// As logrotate does it, `so_many` times by now: the new file is there before the resolver
/// opens it.
fn rotate(world: &World, pihole: &Proc, so_many: u32) {
    let log = dns::pihole_log(world);
    let numbered = |n: u32| log.with_extension(format!("txt.{n}"));
    for n in (1..so_many).rev() {
        std::fs::rename(numbered(n), numbered(n + 1)).expect("it is there");
    }
    std::fs::rename(&log, numbered(1)).expect("the log is there");
    drop(std::fs::File::create(&log).expect("test folder is writable"));
    pihole.signal(Signal::USR2);
}
