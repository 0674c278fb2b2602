//! A device is its MAC, with the name it gave when it asked for an address; whatever address
//! it has today.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::dhcp::{self, Client};
use agentmon_tests::lab::wait::{eventually, want};
use agentmon_tests::lab::{dns, in_world, need, six, traffic};
use serde_json::{Value, json};

/// What a listing of the hub's command says, one object per line.
fn listed(chain: &Chain, args: &[&str]) -> Result<Vec<Value>, String> {
    let text = chain.hub.cli(args)?;
    text.lines()
        .map(|line| serde_json::from_str(line).map_err(|e| format!("{e}: {line}")))
        .collect()
}

/// `agentmon devices` has exactly one device of that name: this MAC, these addresses.
#[track_caller]
fn check_device(chain: &Chain, name: &str, mac: &str, addresses: &[&str]) {
    eventually(20.0, &format!("{name} is listed with {addresses:?}"), || {
        let rows = listed(chain, &["devices", "--json", &format!("name:{name}")])?;
        let same = |row: &Value| {
            let had = row["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
            row["name"] == name
                && row["mac"] == mac
                && had.len() == addresses.len()
                && addresses.iter().all(|address| had.contains(&json!(address)))
        };
        want(rows.len() == 1 && rows.iter().all(same), || format!("{rows:?}"))
    });
}

/// Its look-up and its connection, made from `address`, are found by the device's name.
#[track_caller]
fn check_traffic(chain: &Chain, device: &str, mac: &str, address: &str, name: &str) {
    assert_eq!(dns::ask("phone", address, name, dns::A).rcode, 0);
    let client = traffic::tcp("phone", address, "198.51.100.10:443", 100, 1_000);
    let (filter, words) = (format!("device:{device}"), format!("domain:{name}"));
    eventually(20.0, &format!("{name} is told of {device}"), || {
        let rows = listed(chain, &["dns", "--json", &filter, &words])?;
        let told: Vec<_> = rows.iter().map(|r| (&r["client"], &r["mac"])).collect();
        want(told == [(&json!(address), &json!(mac))], || format!("dns: {rows:?}"))
    });
    eventually(30.0, &format!("the connection is told of {device}"), || {
        let rows = listed(chain, &["flows", "--json", &filter, &words])?;
        let row = rows.iter().find(|r| r["sport"] == client.port());
        let told = row.map(|r| (&r["src"], &r["mac"], &r["name"]));
        let expected = (&json!(address), &json!(mac), &json!(name));
        want(told == Some(expected), || format!("flows: {rows:?}"))
    });
}

/// The device asks for a listed name: so many findings are one alert of this device.
#[track_caller]
fn check_alert(chain: &Chain, host: &str, mac: &str, address: &str, findings: u64) {
    let sql = format!(
        "SELECT coalesce(max(findings), 0) FROM alerts WHERE rule = 'blocklist' AND mac = '{mac}' \
         AND subject = 'listed.example'"
    );
    eventually(
        30.0,
        &format!("{findings} findings about {host} at {address} are one alert"),
        || {
            // Told again only when a second has passed.
            if chain.hub.number(&sql) < findings {
                dns::ask(host, address, "stats.listed.example", dns::A);
            }
            want(chain.hub.number(&sql) >= findings, || {
                format!("{:?}", chain.hub.try_sql("FROM alerts"))
            })
        },
    );
    let alerts = format!("SELECT count(*) FROM alerts WHERE rule = 'blocklist' AND mac = '{mac}'");
    assert_eq!(chain.hub.number(&alerts), 1, "{:?}", chain.hub.try_sql("FROM alerts"));
}

#[test]
fn a_device_keeps_its_name_and_its_alert_when_its_address_changes() {
    in_world(|world| {
        let list = world.file("list.txt");
        std::fs::write(&list, "listed.example\n").expect("test folder is writable");
        let settings = format!(
            "tier0.blocklist.repeat_seconds = 1\n\
             tier0.blocklist.lists = [{{ name = \"lab\", path = \"{}\" }}]\n",
            list.display()
        );
        let chain = Chain::start_with(world, &settings, "");
        world.plug_in("phone");
        let phone = Client::start(world, "phone", "annes-phone");
        let mac = phone.mac();
        let first = phone.address_other_than("");
        check_device(&chain, "annes-phone", &mac, &[&first]);
        check_traffic(&chain, "annes-phone", &mac, &first, "one.example.com");
        check_alert(&chain, "phone", &mac, &first, 1);

        // Its lease is moved: the server refuses the renewal, the client asks anew.
        dhcp::fix(world, &chain.resolver, &mac, "192.168.77.140");
        phone.renew();
        let second = phone.address_other_than(&first);
        assert_eq!(second, "192.168.77.140");
        check_device(&chain, "annes-phone", &mac, &[&first, &second]);
        check_traffic(&chain, "annes-phone", &mac, &second, "two.example.com");
        let before = "SELECT coalesce(max(findings), 0) FROM alerts WHERE rule = 'blocklist'";
        let before = chain.hub.number(before);
        check_alert(&chain, "phone", &mac, &second, before + 1);

        // Another device at the old address is another device.
        world.plug_in("tablet");
        dhcp::fix(world, &chain.resolver, "aa:bb:cc:00:00:01", "192.168.77.149");
        let tablet = Client::start(world, "tablet", "tablet");
        let third = tablet.address_other_than("");
        check_device(&chain, "tablet", &tablet.mac(), &[&third]);
        check_device(&chain, "annes-phone", &mac, &[&first, &second]);

        // Even at the very address the first one had: its own alert, and its own look-ups.
        dhcp::fix(world, &chain.resolver, &tablet.mac(), &first);
        tablet.renew();
        assert_eq!(tablet.address_other_than(&third), first);
        check_device(&chain, "tablet", &tablet.mac(), &[&first, &third]);
        check_alert(&chain, "tablet", &tablet.mac(), &first, 1);
        eventually(20.0, "each has its own look-ups", || {
            let rows = listed(&chain, &["dns", "--json", "device:tablet", "domain:example.com"])?;
            want(rows.is_empty(), || format!("{rows:?}"))
        });
        let rows = listed(&chain, &["devices", "show", &mac, "--json"]).expect("a listing");
        let had: Vec<_> = rows.iter().filter(|r| r["what"] == "address").collect();
        assert_eq!(had.len(), 2, "from when to when: {rows:?}");
    });
}

/// A phone with a made-up MAC and temporary IPv6 addresses (the kernel's own) is one device, over
/// two of them; with one alert, and news only once.
#[test]
fn a_device_is_the_same_one_at_its_next_temporary_address() {
    in_world(|world| {
        let missing = six::missing();
        if !missing.is_empty() {
            return need::leave_out("LAB", "temporary addresses", &missing);
        }
        let list = world.file("list.txt");
        std::fs::write(&list, "listed.example\n").expect("test folder is writable");
        let settings = format!(
            "tier0.blocklist.repeat_seconds = 1\n\
             tier0.new_device.learn_seconds = 0\n\
             collect.neighbours.dump_seconds = 2\n\
             tier0.blocklist.lists = [{{ name = \"lab\", path = \"{}\" }}]\n\
             collect.dnsmasq_log.paths = [\"{}\", \"{}\"]\n",
            list.display(),
            dns::resolver_log(world).display(),
            six::log(world).display()
        );
        drop(std::fs::File::create(six::log(world)).expect("test folder is writable"));
        let chain = Chain::start_with(world, &settings, "");
        let _announced = six::announce(world);
        world.plug_in("phone");
        six::be_private("phone");
        six::come_anew("phone");
        let asks = |from: &str, name: &str| {
            eventually(5.0, &format!("an answer to {name}"), || {
                dns::ask_from("phone", Some(from), six::RTR_LAN6, name, dns::A).map(drop)
            });
        };
        // A listed name, until there is one finding more.
        let blocklist = "SELECT coalesce(sum(findings), 0)::UBIGINT FROM alerts \
             WHERE rule = 'blocklist'";
        let is_told = |from: &str| {
            let before = chain.hub.number(blocklist);
            eventually(30.0, &format!("a finding about {from}"), || {
                asks(from, "stats.listed.example");
                want(chain.hub.number(blocklist) > before, || "not yet".to_owned())
            });
        };

        let first = six::temporary_other_than("phone", "");
        asks(&first, "first.example.com");
        is_told(&first);
        six::come_anew("phone");
        let second = six::temporary_other_than("phone", &first);
        asks(&second, "second.example.com");
        is_told(&second);

        let both = format!(
            "SELECT mac FROM device_addresses JOIN devices USING (mac) \
             WHERE ip IN ('{first}', '{second}') AND mac_kind = 'random' \
             GROUP BY mac HAVING count(DISTINCT ip) = 2"
        );
        let mac = eventually(30.0, "one device at both addresses", || {
            let rows = chain.hub.try_sql(&both)?;
            let mac = rows.first().and_then(|row| row["mac"].as_str());
            mac.map(str::to_owned).ok_or_else(|| format!("{rows:?}"))
        });
        // Whose a look-up was is known also when the kernel tells of the address after it.
        for (name, client) in [("first", &first), ("second", &second)] {
            let sql = format!(
                "SELECT count(*) FROM dns WHERE name = '{name}.example.com' \
                 AND client = '{client}' AND mac = '{mac}'"
            );
            chain.hub.reaches(30.0, &sql, 1);
        }
        let alerts =
            format!("SELECT count(*) FROM alerts WHERE rule = 'blocklist' AND mac = '{mac}'");
        chain.hub.reaches(10.0, &alerts, 1);
        let all = "SELECT count(*) FROM alerts WHERE rule = 'blocklist'";
        assert_eq!(chain.hub.number(all), 1, "{:?}", chain.hub.sql("FROM alerts"));
        let news =
            format!("SELECT count(*) FROM findings WHERE rule = 'new-device' AND mac = '{mac}'");
        chain.hub.reaches(20.0, &news, 1);
    });
}
