//! An attack in the LAN is an alert at the hub within seconds; its benign twin is none.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::wait::{now, pause, want};
use agentmon_tests::lab::world::{World, say};
use agentmon_tests::lab::{dns, eventually, in_world, traffic};
use rand::Rng as _;

/// From the deed to the alert in the hub's store.
const SECONDS_MAX: f64 = 5.0;

/// Attackers are addresses of `lan`, innocents of `tv`: another device.
const LISTED: &str = "192.168.77.21";
const GENERATED: &str = "192.168.77.22";
const DIRECT: &str = "192.168.77.23";
const SCANNER: &str = "192.168.77.24";
const INNOCENTS: [&str; 4] = ["192.168.77.31", "192.168.77.32", "192.168.77.33", "192.168.77.34"];

fn start(world: &World) -> Chain {
    let list = world.file("list.txt");
    std::fs::write(&list, "0.0.0.0 listed.example\n").expect("test folder is writable");
    // Some minutes after its start a sensor reports what it sees; tests do not wait for that.
    let settings = format!(
        "tier0.blocklist.lists = [{{ name = \"lab\", path = \"{}\" }}]\n\
         tier0.direct_ip.startup_grace_seconds = 0\n",
        list.display()
    );
    Chain::start_with(world, &settings, "")
}

/// The alert of that rule, client and subject is there in time, once.
#[track_caller]
fn check(chain: &Chain, rule: &str, client: &str, subject: &str) {
    let begin = now();
    let query = format!(
        "SELECT count(*) FROM alerts WHERE rule = '{rule}' AND client = '{client}' \
         AND subject = '{subject}' AND severity IN ('medium', 'high', 'critical')"
    );
    let told = "SELECT rule, client, subject, severity FROM alerts";
    eventually(SECONDS_MAX, &format!("{rule} alert {subject} about {client}"), || {
        want(chain.hub.number(&query) == 1, || format!("{:?}", chain.hub.try_sql(told)))
    });
    say(&format!("{rule}: alert after {:.1?}", now().since(begin)));
}

#[test]
fn attacks_become_alerts_and_twins_do_not() {
    in_world(|world| {
        let chain = start(world);
        benign(world);

        dns::ask("lan", LISTED, "stats.listed.example", dns::A);
        check(&chain, "blocklist", LISTED, "listed.example");

        let mut rng = world.rng();
        for _ in 0..120 {
            dns::ask("lan", GENERATED, &generated(&mut rng), dns::A);
        }
        check(&chain, "dga", GENERATED, "burst");

        traffic::tcp("lan", DIRECT, "198.51.100.200:443", 100, 100);
        check(&chain, "direct-ip", DIRECT, "198.51.100.200:443/tcp");

        for last in 1..40 {
            let door = format!("198.51.100.{last}:6666");
            traffic::connect("lan", SCANNER, &door).expect_err("rejected");
        }
        check(&chain, "firewall", SCANNER, "fan-out");

        let list = INNOCENTS.map(|ip| format!("'{ip}'")).join(", ");
        let told = chain.hub.sql(&format!(
            "SELECT rule, client, subject, severity, why FROM alerts \
             WHERE client IN ({list}) AND severity IN ('medium', 'high', 'critical')"
        ));
        assert!(told.is_empty(), "benign twins are told: {told:?}");
        // They were seen at all: else their silence means nothing.
        let seen = format!("SELECT count(DISTINCT client) FROM dns WHERE client IN ({list})");
        assert_eq!(chain.hub.number(&seen), 3);
        let stopped = format!("SELECT count(*) FROM firewall WHERE src = '{}'", INNOCENTS[3]);
        assert!(chain.hub.number(&stopped) > 0);
    });
}

/// The same shapes, honest.
fn benign(world: &World) {
    let [lookalike, hashes, explained, stray] = INNOCENTS;
    for name in ["notlisted.example.com", "listed.example.com", "listed.example.net"] {
        dns::ask("tv", lookalike, name, dns::A);
    }
    let mut rng = world.rng();
    // A page with many pictures; three times as many names within seconds, and nothing fetched,
    // are what a tool that hides data in names does.
    for n in 0..40 {
        let hash: u64 = rng.random();
        dns::ask("tv", hashes, &format!("{hash:016x}.cdn.example"), dns::A);
        // Who asks for a picture fetches it; a tunnel does not.
        if n % 12 == 0 {
            traffic::tcp("tv", hashes, "198.51.100.70:443", 100, 100);
        }
    }
    dns::ask("tv", explained, "www.example.org", dns::A);
    for _ in 0..5 {
        traffic::tcp("tv", explained, "198.51.100.30:443", 100, 100);
    }
    for _ in 0..3 {
        traffic::connect("tv", stray, "198.51.100.98:6666").expect_err("rejected");
        pause(50);
    }
}

/// A label of 12 to 20 random letters under a domain that does not exist.
fn generated(rng: &mut impl rand::Rng) -> String {
    let length = rng.random_range(12..=20);
    let letters: String = (0..length).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
    format!("{letters}.invalid")
}
