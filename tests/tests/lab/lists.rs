//! Lists of the hub at a running router: changed there, in force here; what is no list, or far
//! too short, changes nothing; and they outlast the hub and the router's restart.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::proc::command;
use agentmon_tests::lab::wait::{eventually, want};
use agentmon_tests::lab::world::{LAN, World};
use agentmon_tests::lab::{dns, in_world};

/// The list at the hub becomes this, at once.
fn publish(world: &World, text: &str) {
    let (list, new) = (world.file("home.txt"), world.file("home.new"));
    std::fs::write(&new, text).expect("test folder is writable");
    std::fs::rename(&new, &list).expect("test folder is writable");
}

/// So many names of no interest, and these.
fn names(fillers: u32, more: &str) -> String {
    (0..fillers).map(|n| format!("filler{n}.example\n")).collect::<String>() + more
}

/// What the router says of the lists of the hub begins so.
#[track_caller]
fn router_says(chain: &Chain, text: &str) {
    eventually(45.0, &format!("the router's lists are {text:?}"), || {
        let status = chain.sensor.status()?;
        let said = status["hub_lists"]["state"].as_str().unwrap_or_default().to_owned();
        want(said.starts_with(text), || said.clone())
    });
}

/// `agentmon feeds` says so of the list.
#[track_caller]
fn hub_says(chain: &Chain, text: &str) {
    eventually(30.0, &format!("the hub says {text:?}"), || {
        let said = chain.hub.cli(&["feeds", "--json"])?;
        want(said.contains(text), || said.clone())
    });
}

/// One question, one finding more of that list.
#[track_caller]
fn is_told(chain: &Chain, name: &str, domain: &str) {
    let sql = format!(
        "SELECT count(*) FROM findings WHERE rule = 'blocklist' AND subject = '{domain}' \
         AND CAST(evidence AS VARCHAR) LIKE '%home%'"
    );
    let before = chain.hub.number(&sql);
    dns::ask("lan", LAN, name, dns::A);
    chain.hub.reaches(15.0, &sql, before + 1);
}

#[test]
fn a_list_changed_at_the_hub_judges_the_next_question_at_the_router() {
    in_world(|world| {
        publish(world, &names(300, "listed.example\n"));
        let path = world.file("home.txt");
        let hub =
            format!("lists.sources = [{{ name = \"home\", path = \"{}\" }}]\n", path.display());
        let router = "hub_lists.seconds = 10\ntier0.blocklist.repeat_seconds = 1\n";
        let mut chain = Chain::start_with(world, router, &hub);
        router_says(&chain, "ok: 301 entries of 1 lists");
        is_told(&chain, "a.listed.example", "listed.example");
        dns::ask("lan", LAN, "too-early.example.net", dns::A);

        publish(world, &names(300, "listed.example\nexample.net\n"));
        router_says(&chain, "ok: 302 entries of 1 lists");
        is_told(&chain, "at-once.example.net", "example.net");
        is_told(&chain, "b.listed.example", "listed.example");
        let all =
            "SELECT count(*) FROM findings WHERE rule = 'blocklist' AND subject = 'example.net'";
        assert_eq!(chain.hub.number(all), 1, "only what was asked for since");

        // Neither a web page nor a fragment takes its place.
        publish(world, "<!DOCTYPE html><title>502 Bad Gateway</title>");
        hub_says(&chain, "web page");
        publish(world, &names(9, "listed.example\n"));
        hub_says(&chain, "it shrank from 302 to 10 entries");
        router_says(&chain, "ok: 302 entries of 1 lists");
        is_told(&chain, "c.listed.example", "listed.example");

        // The hub is away, and the router begins anew.
        chain.hub.stop();
        chain.sensor.stop();
        chain.sensor.resume();
        router_says(&chain, "cannot be fetched");
        let config = world.file("router.toml").display().to_string();
        let args = ["score", "d.example.net", "--config", &config];
        let scored = command("rtr", &world.binary("agentmon-router"), &args).output();
        let scored = scored.expect("the program starts");
        let text = String::from_utf8_lossy(&scored.stdout).into_owned();
        assert!(scored.status.code() == Some(1) && text.contains("home"), "{text}");
        dns::ask("lan", LAN, "e.example.net", dns::A);
        chain.hub.resume();
        chain.hub.reaches(60.0, all, 2);
    });
}
