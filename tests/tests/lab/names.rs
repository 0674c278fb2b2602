//! A flow carries the name by which its own client had resolved the address.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::wait::pause;
use agentmon_tests::lab::world::{HUB, LAN, TV, WAN};
use agentmon_tests::lab::{dns, eventually, in_world, traffic};

#[test]
fn names_belong_to_the_client_that_asked() {
    in_world(|world| {
        let chain = Chain::start(world);
        traffic::serve_tcp("wan", 80);
        // One address, two clients, two names: shared hosting.
        dns::ask("lan", LAN, "news.example.com", dns::A);
        dns::ask("tv", TV, "shop.example.com", dns::A);
        let lan = traffic::tcp("lan", LAN, "198.51.100.10:443", 10, 10);
        let tv = traffic::tcp("tv", TV, "198.51.100.10:443", 10, 10);
        // Same client, same address, another name later: in another second, since the
        // resolver's log has no finer times.
        pause(1_100);
        dns::ask("lan", LAN, "mail.example.com", dns::A);
        let later = traffic::tcp("lan", LAN, "198.51.100.10:80", 10, 10);
        // The same device by another address: its names are the device's.
        let device = traffic::tcp("tv", "192.168.77.39", "198.51.100.10:443", 10, 10);
        // A device that never asked.
        let stranger = traffic::tcp("hub", HUB, "198.51.100.10:443", 10, 10);
        for (src, name) in [
            (lan, Some("news.example.com")),
            (tv, Some("shop.example.com")),
            (later, Some("mail.example.com")),
            (device, Some("shop.example.com")),
            (stranger, None),
        ] {
            let query = format!(
                "SELECT name FROM flows WHERE src = '{}' AND sport = {} AND proto = 6",
                src.ip(),
                src.port()
            );
            let row = eventually(30.0, &format!("{query} is {name:?}"), || {
                let row = chain.hub.try_sql(&query)?.into_iter().next().ok_or("no flow yet")?;
                // A name may be attached with the answer's arrival, after the flow's.
                let right = row["name"].as_str() == name;
                if right { Ok(row) } else { Err(row.to_string()) }
            });
            assert_eq!(row["name"].as_str(), name);
        }
    });
}

#[test]
fn a_foreign_resolver_is_seen_as_its_answers_pass_by() {
    in_world(|world| {
        let chain = Chain::start(world);
        // Past the router's own resolver: in no log.
        let reply = eventually(5.0, "the internet's name server answers", || {
            dns::ask_from("tv", Some(TV), WAN, "hidden.example.net", dns::A)
        });
        assert_eq!(reply.addresses.len(), 1);
        let flow = traffic::tcp("tv", TV, "198.51.100.20:443", 10, 10);
        chain.hub.reaches(
            20.0,
            &format!(
                "SELECT count(*) FROM dns WHERE source = 'passive-dns' AND client = '{TV}' \
                 AND name = 'hidden.example.net' AND list_contains(answers, '198.51.100.20')"
            ),
            1,
        );
        chain.hub.reaches(
            30.0,
            &format!(
                "SELECT count(*) FROM flows WHERE src = '{TV}' AND sport = {} AND proto = 6 \
                 AND name = 'hidden.example.net'",
                flow.port()
            ),
            1,
        );
        // It reads along and decides nothing: C8 for the table alone.
        let log = std::fs::read_to_string(dns::resolver_log(world)).expect("the log is there");
        assert!(!log.contains("hidden.example.net"), "the resolver was asked after all");
    });
}
