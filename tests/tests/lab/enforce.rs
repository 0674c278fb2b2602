//! Enforcement, switched on: a listed name is answered "no such name", a listed address is
//! refused, and each verdict is a row at the hub with its reason. Its benign twin goes on.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::wait::want;
use agentmon_tests::lab::world::World;
use agentmon_tests::lab::{dns, eventually, in_world, traffic};

/// Who asks for what is listed, and who for what is not.
const BAD: &str = "192.168.77.21";
const GOOD: &str = "192.168.77.31";
/// A listed address of the wan, and its neighbour.
const LISTED_ADDRESS: &str = "198.51.100.66";
const OTHER_ADDRESS: &str = "198.51.100.10";
/// A response code (RFC 1035 section 4.1.1).
const NXDOMAIN: u16 = 3;
const SECONDS_MAX: f64 = 20.0;

fn start(world: &World) -> Chain {
    let list = world.file("list.txt");
    let text = format!("listed.example\n{LISTED_ADDRESS}\n");
    std::fs::write(&list, text).expect("test folder is writable");
    let settings = format!(
        "tier0.blocklist.lists = [{{ name = \"lab\", path = \"{}\", block = true }}]\n\
         enforce.enabled = true\nenforce.dry_run = false\n",
        list.display()
    );
    Chain::start_with(world, &settings, "")
}

#[test]
fn what_is_listed_is_stopped_and_the_hub_knows_why() {
    in_world(|world| {
        let chain = start(world);
        // Nothing is held before the first pulse.
        eventually(SECONDS_MAX, "a listed name is answered \"no such name\"", || {
            let reply = dns::ask("lan", BAD, "stats.listed.example", dns::A);
            want(reply.rcode == NXDOMAIN && reply.addresses.is_empty(), || format!("{reply:?}"))
        });
        let refused = format!("{LISTED_ADDRESS}:443");
        traffic::connect("lan", BAD, &refused).expect_err("refused: the address is listed");
        let reply = dns::ask("tv", GOOD, "notlisted.example.com", dns::A);
        assert_eq!((reply.rcode, reply.addresses.len()), (0, 1), "{reply:?}");
        traffic::connect("tv", GOOD, &format!("{OTHER_ADDRESS}:443")).expect("is not listed");

        let rows = |what: &str, sql: &str| {
            eventually(SECONDS_MAX, what, || {
                want(chain.hub.number(sql) > 0, || format!("{:?}", chain.hub.try_sql(ENFORCED)))
            });
        };
        rows(
            "the verdict about the name",
            &format!(
                "SELECT count(*) FROM findings WHERE rule = 'enforced' AND client = '{BAD}' \
                 AND subject = 'stats.listed.example' AND why LIKE '%lab has listed.example%'"
            ),
        );
        rows(
            "the verdict about the address",
            &format!(
                "SELECT count(*) FROM findings WHERE rule = 'enforced' AND client = '{BAD}' \
                 AND subject LIKE '{LISTED_ADDRESS}%' AND why LIKE '%refused%'"
            ),
        );
        rows(
            "the stopped question",
            &format!(
                "SELECT count(*) FROM dns WHERE client = '{BAD}' AND status = 'blocked' \
                 AND name = 'stats.listed.example'"
            ),
        );
        let about_the_other = format!("{ENFORCED} WHERE rule = 'enforced' AND client = '{GOOD}'");
        let told = chain.hub.sql(&about_the_other);
        assert!(told.is_empty(), "the benign twin is stopped: {told:?}");
    });
}

const ENFORCED: &str = "SELECT rule, client, subject, why FROM findings";
