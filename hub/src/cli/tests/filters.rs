//! Filter words against real rows: what they find, not what SQL they become.

use super::*;

/// `key` of every row, in order.
#[track_caller]
fn check(command: &str, key: &str, expected: &[&str]) {
    let (name, words) = command.split_once(' ').unwrap_or((command, ""));
    let ran = run(format!("{name} --json {words}").trim_end());
    assert_eq!(ran.exit, "Fine");
    let mut got: Vec<String> = Vec::new();
    for line in ran.out.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        got.push(row[key].as_str().map_or_else(|| row[key].to_string(), str::to_owned));
    }
    assert_eq!(got, expected, "{command}");
}

#[test]
fn addresses_networks_and_devices() {
    check("flows src:192.168.77.12", "dst", &["198.51.100.66"]);
    check("flows src:192.168.77.0/29 --since 7d", "dst", &[]);
    check("flows src:192.168.77.12/31", "dst", &["198.51.100.66"]);
    check("flows src:198.51.100.0/24", "dst", &["192.168.77.10"]);
    check("flows src:2001:db8:77::/48", "dst", &["2001:db8::53"]);
    check("flows src:2001:db8:76::/48", "dst", &[]);
    check("flows dst:2001:db8::53", "dst", &["2001:db8::53"]);
    check("flows dst:2001:db8::50/124", "dst", &["2001:db8::53"]);
    check("flows dst:2001:db8::40/124", "dst", &[]);
    check("flows dst:::/0", "dst", &["2001:db8::53"]);
    check("flows dst:0.0.0.0/0 port:443", "dst", &["203.0.113.77", "203.0.113.5"]);
    check("flows dst:example.net", "dst", &["203.0.113.77"]);
    check("flows src:camera", "dst", &["198.51.100.66"]);
    check("flows src:00:00:5e:00:53:02 port:4444", "dst", &["198.51.100.66"]);
    check("firewall client:CAM*", "dst", &["198.51.100.66"]);
    check("firewall -client:camera", "dst", &["2001:db8:77::10"]);
    // A device stands for all of its addresses; the MAC of a record counts first.
    check(
        "dns device:2001:db8:77::10 -domain:www.example.com",
        "name",
        &["mail.example.com", "ads.example.org"],
    );
}

#[test]
fn two_devices_that_had_an_address_are_two() {
    // 192.168.77.11 was the camera's until 14:00 and the phone's from then on; the records say
    // no MAC.
    check("dns device:phone", "name", &["push.phone.example"]);
    check("dns device:02:00:5e:00:53:03", "name", &["push.phone.example"]);
    check("dns device:192.168.77.11", "name", &["push.phone.example"]);
    let camera = ["zzkqwvbnmxp.example", "qxkvjzwpfhg.example", "cloud.camera.example"];
    check("dns device:camera", "name", &camera);
    check("dns device:192.168.77.12", "name", &camera);
    check("flows device:phone", "dst", &[]);
    check("flows device:camera", "dst", &["198.51.100.66", "203.0.113.20"]);
    // The other end of a connection is a device too.
    check("flows device:laptop port:22", "dst", &["192.168.77.10"]);
    // Nobody is known there.
    check("dns device:192.168.77.99", "client", &["192.168.77.99"]);
    check("timeline device:phone kind:dns", "kind", &["dns"]);
    check("devices device:camera", "name", &["camera"]);
}

#[test]
fn names_ports_and_words() {
    check("dns domain:example.com", "type", &["HTTPS", "AAAA", "A"]);
    check("dns type:AAAA,TYPE65400", "client", &["192.168.77.99", "192.168.77.10"]);
    check("dns domain:xample.com", "type", &[]);
    check("dns domain:*kq*", "name", &["zzkqwvbnmxp.example"]);
    check("dns domain:a?s.example.org", "name", &[]);
    check("dns status:blocked,timeout", "name", &["mail.example.com", "ads.example.org"]);
    check("dns status:blocked status:timeout -client:192.168.77.10", "name", &["mail.example.com"]);
    check("flows port:22,53", "dport", &["53", "22"]);
    check("flows port:>1000 -proto:icmp", "dport", &["4444"]);
    check("flows proto:icmp,udp", "proto", &["udp", "icmp"]);
    check("flows proto:tcp -port:443 -port:22", "dport", &["4444"]);
    check("flows domain:example.com -domain:www.example.com", "dst", &[]);
    check("firewall rule:agentmon-*", "dport", &["23"]);
    check("alerts severity:>=high", "id", &["4", "1"]);
    check("alerts severity:<high", "id", &["2"]);
    check("alerts status:acked", "id", &["3"]);
    check("alerts rule:dga,direct-ip client:camera", "id", &["2", "1"]);
    check("devices name:*p*", "name", &["laptop", "phone"]);
    check("sensors name:r*", "name", &["router"]);
}

#[test]
fn a_null_never_matches_and_passes_every_negation() {
    check(
        "flows domain:* --since 7d",
        "name",
        &["backup.example.net", "www.example.com", "cloud.camera.example"],
    );
    check(
        "flows -domain:example.com -domain:example.net -port:53",
        "name",
        &["null", "null", "cloud.camera.example"],
    );
    check("dns proc:curl", "name", &[]);
    check("firewall -proc:curl", "dport", &["32768", "23"]);
}

#[test]
fn names_next_to_addresses_are_those_of_the_time() {
    // 192.168.77.11 was the camera until 14:00 and the phone from then on.
    check("dns client:192.168.77.11", "client_name", &["phone", "camera"]);
}

#[test]
fn time_ranges_include_their_ends() {
    check(
        "dns --since 14:22:00 --until 14:22:01",
        "name",
        &["zzkqwvbnmxp.example", "qxkvjzwpfhg.example"],
    );
    check("dns --since 2026-11-23T14:22:02Z --until 14:22:30", "type", &["HTTPS"]);
    check("dns --until 13:30 --since 24h", "name", &["cloud.camera.example"]);
}

#[test]
fn classes_of_the_other_end() {
    check("flows class:local", "dst", &["192.168.77.10"]);
    check("flows -class:reserved", "dst", &["192.168.77.10"]);
    check("flows class:reserved,vpn port:443", "dst", &["203.0.113.77", "203.0.113.5"]);
    check("flows class:tor", "dst", &[]);
    check("flows class:telegram --limit 3", "dst", &[]);
    check("timeline class:local", "client", &["198.51.100.200"]);
    let wrong = run("flows class:vnp");
    assert!(wrong.exit.contains("`vnp` is no class (local, "), "{}", wrong.exit);
    let nothing = run("dns class:vpn");
    assert!(nothing.exit.contains("means nothing here"), "{}", nothing.exit);
}
