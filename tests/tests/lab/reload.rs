//! SIGHUP: a new configuration comes into force as a whole, or not at all.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::wait::{eventually, want};
use agentmon_tests::lab::world::{TV, World};
use agentmon_tests::lab::{dns, in_world};
use rustix::process::Signal;

/// A setting that names a list of one domain.
fn list(world: &World, domain: &str) -> String {
    let file = world.file(&format!("{domain}.txt"));
    std::fs::write(&file, format!("{domain}\n")).expect("test folder is writable");
    let path = file.display();
    format!("tier0.blocklist.lists = [{{ name = \"lab\", path = \"{path}\" }}]\n")
}

/// `domain` is asked for and told.
#[track_caller]
fn is_listed(chain: &Chain, domain: &str, host: &str) {
    dns::ask("tv", TV, &format!("{host}.{domain}"), dns::A);
    let query = format!("SELECT count(*) FROM alerts WHERE subject = '{domain}'");
    chain.hub.reaches(10.0, &query, 1);
}

#[test]
fn the_router_takes_over_a_good_configuration_and_refuses_a_bad_one() {
    in_world(|world| {
        let chain = Chain::start_with(world, &list(world, "listed.example"), "");
        // Half good: the list would change, but a key is wrong.
        let bad = list(world, "example.net") + "ring.bytes_maximum = 5\n";
        chain.sensor.configure(world, &bad);
        chain.sensor.proc().signal(Signal::HUP);
        chain.sensor.proc().says(10.0, "ring.bytes_maximum");
        is_listed(&chain, "listed.example", "old");
        dns::ask("tv", TV, "api.example.net", dns::A);

        chain.sensor.configure(world, &list(world, "example.org"));
        chain.sensor.proc().signal(Signal::HUP);
        chain.sensor.proc().says(10.0, "configuration reloaded");
        is_listed(&chain, "example.org", "new");
        // Of the refused file nothing ever came into force.
        let none = "SELECT count(*) FROM alerts WHERE subject = 'example.net'";
        assert_eq!(chain.hub.number(none), 0);
    });
}

#[test]
fn the_hub_refuses_a_bad_configuration_and_serves_on() {
    in_world(|world| {
        let chain = Chain::start(world);
        std::fs::write(world.file("hub.toml"), "server.listem = 5\n").expect("writable");
        chain.hub.proc().signal(Signal::HUP);
        chain.hub.proc().says(10.0, "listem");
        chain.is_alive("after", 10.0);
        let said = eventually(10.0, "the old configuration stays", || {
            let log = chain.hub.proc().log_text();
            want(log.contains("refused"), || log.clone()).map(|()| log)
        });
        assert!(said.contains("hub.toml:1"), "file and line are named: {said}");
    });
}
