//! A device is its MAC, with the name it gave when it asked for an address; whatever address
//! it has today.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::dhcp::{self, Client};
use agentmon_tests::lab::wait::{eventually, want};
use agentmon_tests::lab::{dns, in_world, traffic};
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
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        let told: Vec<_> = rows.iter().map(|r| (&r["name"], &r["mac"], &r["addresses"])).collect();
        let expected = (&json!(name), &json!(mac), &json!(sorted));
        want(told == [expected], || format!("{told:?}"))
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

#[test]
fn a_device_keeps_its_name_when_its_address_changes() {
    in_world(|world| {
        let chain = Chain::start(world);
        world.plug_in("phone");
        let phone = Client::start(world, "phone", "annes-phone");
        let mac = phone.mac();
        let first = phone.address_other_than("");
        check_device(&chain, "annes-phone", &mac, &[&first]);
        check_traffic(&chain, "annes-phone", &mac, &first, "one.example.com");

        // Its lease is moved: the server refuses the renewal, the client asks anew.
        dhcp::fix(world, &chain.resolver, &mac, "192.168.77.140");
        phone.renew();
        let second = phone.address_other_than(&first);
        assert_eq!(second, "192.168.77.140");
        check_device(&chain, "annes-phone", &mac, &[&first, &second]);
        check_traffic(&chain, "annes-phone", &mac, &second, "two.example.com");

        // Another device at the old address is another device.
        world.plug_in("tablet");
        dhcp::fix(world, &chain.resolver, "aa:bb:cc:00:00:01", "192.168.77.149");
        let tablet = Client::start(world, "tablet", "tablet");
        let third = tablet.address_other_than("");
        check_device(&chain, "tablet", &tablet.mac(), &[&third]);
        check_device(&chain, "annes-phone", &mac, &[&first, &second]);
    });
}
