//! One device gone wild: the others' packets pass, and the others are still seen.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::proc::output;
use agentmon_tests::lab::wait::{eventually, now, pause, want};
use agentmon_tests::lab::workload::Surfer;
use agentmon_tests::lab::world::{HUB, LAN, TV, WAN, World, say};
use agentmon_tests::lab::{dns, in_world, need, traffic};

#[test]
fn ten_thousand_questions_a_second() {
    in_world(|world| others_are_seen(world, (10_000, 8)));
}

#[test]
fn more_questions_than_can_be_read() {
    // As fast as one thread can send: the kernel's buffer overflows.
    in_world(|world| others_are_seen(world, (150_000, 4)));
}

fn start(world: &World) -> Chain {
    let list = world.file("list.txt");
    std::fs::write(&list, "listed.example\n").expect("test folder is writable");
    let path = list.display();
    let lists = format!("tier0.blocklist.lists = [{{ name = \"lab\", path = \"{path}\" }}]\n");
    Chain::start_with(world, &lists, "")
}

/// Of what is asked past the log at least so much must be seen, in per cent. On a machine
/// that has time it is all; how much goes before shares are in force is luck.
const SEEN_LEAST: u64 = 50;

/// A flood of (questions a second, seconds).
fn others_are_seen(world: &World, flood: (u64, u64)) {
    let chain = start(world);
    let arrived = Arrived::count(world);
    let pings = traffic::ping("lan", WAN, 40);
    let surfer = Surfer::start("calm", 20);
    // To where no name server is, so that the flood is agentmon's alone to bear.
    let flooding = traffic::dns_flood("tv", TV, "198.51.100.50", flood);
    // Others that ask elsewhere are seen only as their packets pass, among the flood's.
    let (mut asked, begin) = (0, now());
    while !flooding.is_finished() {
        let name = format!("quiet-{asked}.example.net");
        eventually(5.0, "the internet's name server answers", || {
            dns::ask_from("hub", Some(HUB), WAN, &name, dns::A).map(drop)
        });
        asked += 1;
        if asked == 20 {
            listed_name_is_told(&chain);
        }
        pause(50);
    }
    let (sent, took) = (flooding.join().expect("the flood ends"), now().since(begin));
    let (count, back) = (surfer.stop(), pings.join().expect("pings end"));
    assert_eq!(back, 40, "C8: pings that came back");
    assert!(sent > flood.0, "the flood was none: {sent}");

    // A client that waits too long asks again, so not more than once is not asked for here.
    let calm = "SELECT count(DISTINCT name) FROM dns WHERE name LIKE 'calm-%'";
    chain.hub.reaches(60.0, calm, count);
    let seen = eventually(30.0, "those who ask elsewhere are seen", || {
        let seen = chain.hub.number(&format!(
            "SELECT count(DISTINCT name) FROM dns WHERE client = '{HUB}' AND name LIKE 'quiet-%'"
        ));
        want(seen * 100 >= asked * SEEN_LEAST, || format!("{seen} of {asked}")).map(|()| seen)
    });
    let account = eventually(60.0, "C1: the flood is stored or counted", || {
        // What the kernel had to throw away shows with the next packet.
        dns::ask("lan", LAN, "after.example.com", dns::A);
        let stored = chain.hub.number("SELECT count(*) FROM dns WHERE name LIKE 'wild-%'");
        let status = chain.sensor.status()?;
        let count = |name: &str| status["counters"][name].as_u64().unwrap_or(0);
        let (lost, left) = (count("drop.passive_dns.enobufs"), count("drop.passive_dns.flood"));
        let account = format!("{stored} stored, {left} left out, {lost} lost by the kernel");
        let arrived = arrived.packets();
        want(stored + left + lost >= arrived, || format!("{account}, {arrived} arrived"))?;
        Ok(account)
    });
    say(&format!("{sent} sent in {took:.1?}: {account}; of the others {seen} of {asked} seen"));
    assert_eq!(chain.conserved(), 0, "C1: nothing had to be dropped from the ring");
    chain.is_alive("calm-again", 20.0);
}

/// What is found of others is told at once, flood or not.
fn listed_name_is_told(chain: &Chain) {
    let begin = now();
    dns::ask("lan", LAN, "stats.listed.example", dns::A);
    let alert =
        format!("SELECT count(*) FROM alerts WHERE rule = 'blocklist' AND client = '{LAN}'");
    chain.hub.reaches(10.0, &alert, 1);
    say(&format!("alert after {:.1?}", now().since(begin)));
}

/// The kernel's own count of the flood's packets at the router: some are lost before.
struct Arrived(std::path::PathBuf);

impl Arrived {
    fn count(world: &World) -> Self {
        let (file, nft) = (world.file("count.nft"), need::find("nft").expect("checked before"));
        let table = "table inet count {\n chain forward {\n type filter hook forward priority \
                     -10; policy accept;\n ip daddr 198.51.100.50 udp dport 53 counter\n }\n}\n";
        std::fs::write(&file, table).expect("test folder is writable");
        drop(output("rtr", &nft, &["-f", &file.to_string_lossy()]));
        Self(nft)
    }

    fn packets(&self) -> u64 {
        let told = output("rtr", &self.0, &["list", "table", "inet", "count"]);
        let mut words = told.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|n| n.parse().ok()).expect("a counter")
    }
}
