//! A Pi-hole beside the router: its log tells who asked, and its own questions for them pass
//! the router. Each look-up is told once, of the client that made it.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::wait::{eventually, pause, want};
use agentmon_tests::lab::world::{LAN, TV, WAN, World};
use agentmon_tests::lab::{dns, in_world, traffic};

const PIHOLE: &str = "192.168.77.53";

fn start(world: &World) -> Chain {
    drop(std::fs::File::create(dns::pihole_log(world)).expect("test folder is writable"));
    let list = world.file("list.txt");
    std::fs::write(&list, "listed.example\n").expect("test folder is writable");
    Chain::start_with(
        world,
        &format!(
            "collect.dnsmasq_log.paths = [\"{}\"]\n\
             tier0.blocklist.lists = [{{ name = \"lab\", path = \"{}\" }}]\n\
             tier0.direct_ip.startup_grace_seconds = 0\n\
             tier0.direct_ip.grace_seconds = 4\n",
            dns::pihole_log(world).display(),
            list.display()
        ),
        "",
    )
}

/// `client` asks `server` and is answered.
#[track_caller]
fn ask(host: &str, client: &str, server: &str, name: &str) {
    eventually(5.0, &format!("an answer to {name}"), || {
        dns::ask_from(host, Some(client), server, name, dns::A).map(drop)
    });
}

/// The clients of whom that look-up is told, one for each time, once there are so many.
#[track_caller]
fn told(chain: &Chain, name: &str, expected: &[&str]) {
    let query = format!("SELECT client FROM dns WHERE name = '{name}' ORDER BY client");
    eventually(30.0, &format!("{name} is told of {expected:?}"), || {
        let rows = chain.hub.try_sql(&query)?;
        let clients: Vec<_> = rows.iter().map(|r| r["client"].as_str().unwrap_or("")).collect();
        want(clients == expected, || format!("{clients:?}"))
    });
}

#[test]
fn its_questions_are_its_clients() {
    in_world(|world| {
        let chain = start(world);
        let _pihole = dns::pihole(world, "pihole", PIHOLE);
        for n in 0..20 {
            ask("lan", LAN, PIHOLE, &format!("site-{n}.example.com"));
            pause(50);
        }
        // From its cache: nothing passes the router.
        ask("lan", LAN, PIHOLE, "site-7.example.com");
        // Its own; somebody who asks past it; and who asks past it for what others ask it.
        ask("pihole", PIHOLE, WAN, "updates.example.org");
        ask("tv", TV, WAN, "past.example.org");
        ask("lan", LAN, PIHOLE, "both.example.org");
        ask("tv", TV, WAN, "both.example.org");
        // Known at once, and not because the Pi-hole had asked.
        ask("lan", LAN, PIHOLE, "www.cdn.example");
        let flow = traffic::tcp("lan", LAN, "198.51.100.70:443", 100, 100);
        ask("tv", "192.168.77.31", PIHOLE, "stats.listed.example");
        // It has asked before, but not for this one.
        traffic::tcp("tv", TV, "198.51.100.201:443", 100, 100);

        for n in (0..20).filter(|n| *n != 7) {
            told(&chain, &format!("site-{n}.example.com"), &[LAN]);
        }
        told(&chain, "site-7.example.com", &[LAN, LAN]);
        told(&chain, "updates.example.org", &[PIHOLE]);
        told(&chain, "past.example.org", &[TV]);
        told(&chain, "both.example.org", &[LAN, TV]);
        chain.hub.reaches(
            30.0,
            &format!(
                "SELECT count(*) FROM flows WHERE src = '{LAN}' AND sport = {} \
                 AND name = 'www.cdn.example'",
                flow.port()
            ),
            1,
        );
        alerts(&chain);
        // Nothing came late; `ready.invalid` is the lab's own look at its resolver.
        told(&chain, "both.example.org", &[LAN, TV]);
        let its = format!(
            "SELECT count(*) FROM dns WHERE client = '{PIHOLE}' AND name <> 'ready.invalid'"
        );
        assert_eq!(chain.hub.number(&its), 1);
    });
}

#[test]
fn what_it_asks_is_left_to_another_sensor() {
    in_world(|world| {
        // No log here: a sensor on the Pi-hole would tell who asked.
        let chain = Chain::start_with(
            world,
            &format!(
                "collect.dnsmasq_log.enabled = false\n\
                 collect.passive_dns.resolvers = [\"{PIHOLE}\"]\n\
                 tier0.direct_ip.startup_grace_seconds = 0\n\
                 tier0.direct_ip.grace_seconds = 1\n"
            ),
            "",
        );
        let _pihole = dns::pihole(world, "pihole", PIHOLE);
        ask("tv", TV, PIHOLE, "www.cdn.example");
        traffic::tcp("tv", TV, "198.51.100.70:443", 100, 100);
        traffic::tcp("tv", TV, "198.51.100.201:443", 100, 100);
        ask("lan", LAN, WAN, "past.example.org");
        told(&chain, "past.example.org", &[LAN]);
        told(&chain, "www.cdn.example", &[]);
        // The one connection that no answer to anybody explains.
        eventually(30.0, "the unexplained connection is told", || {
            let rows = chain.hub.try_sql("SELECT subject FROM alerts WHERE rule = 'direct-ip'")?;
            let told: Vec<_> = rows.iter().map(|r| r["subject"].as_str().unwrap_or("")).collect();
            want(told == ["198.51.100.201:443/tcp"], || format!("{told:?}"))
        });
    });
}

/// Who connected without asking, and who asked for a listed name; nobody else.
#[track_caller]
fn alerts(chain: &Chain) {
    let query = "SELECT rule, client, subject FROM alerts \
                 WHERE rule IN ('direct-ip', 'blocklist') ORDER BY rule";
    let expected = [
        ("blocklist", "192.168.77.31", "listed.example"),
        ("direct-ip", TV, "198.51.100.201:443/tcp"),
    ];
    eventually(30.0, "both are told", || {
        let rows = chain.hub.try_sql(query)?;
        let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or("").to_owned();
        let told: Vec<_> =
            rows.iter().map(|r| ["rule", "client", "subject"].map(|key| text(r, key))).collect();
        want(told == expected.map(|(r, c, s)| [r, c, s]), || format!("{told:?}"))
    });
}
