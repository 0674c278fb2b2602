//! What the hub stores of a connection equals what the kernel's own tool reports.

use agentmon_tests::lab::chain::Chain;
use agentmon_tests::lab::conntrack::{Line, Oracle};
use agentmon_tests::lab::wait::want;
use agentmon_tests::lab::world::{LAN, TV, World};
use agentmon_tests::lab::{eventually, in_world, netns, traffic};
use serde_json::Value;

#[test]
fn flows_equal_conntrack_with_kernel_timestamps() {
    in_world(|world| flows_equal_conntrack(world, "1"));
}

#[test]
fn flows_equal_conntrack_without_kernel_timestamps_as_on_openwrt() {
    in_world(|world| flows_equal_conntrack(world, "0"));
}

fn flows_equal_conntrack(world: &World, timestamps: &str) {
    netns::sysctl("rtr", "net.netfilter.nf_conntrack_timestamp", timestamps);
    let oracle = Oracle::start(world);
    let chain = Chain::start(world);
    traffic::serve_udp("wan", "198.51.100.7:9000");
    traffic::serve_tcp("tv", 443);

    let flows = [
        (6, traffic::tcp("lan", LAN, "198.51.100.10:443", 0, 0)),
        (6, traffic::tcp("lan", "192.168.77.21", "198.51.100.10:443", 1_000, 50_000)),
        (6, traffic::tcp("tv", TV, "203.0.113.2:443", 2_000_000, 3)),
        (17, traffic::udp("tv", TV, "198.51.100.7:9000", 1, 0)),
        (17, traffic::udp("lan", LAN, "198.51.100.7:9000", 40, 1_000)),
        // From outside to a forwarded port: destination NAT.
        (6, traffic::tcp("wan", "203.0.113.2", "203.0.113.1:8443", 77, 777)),
    ];
    for (proto, src) in flows {
        let line = oracle.end_of(proto, src);
        check(&chain, &line);
    }
}

/// The row of that flow at the hub, compared field by field.
#[track_caller]
fn check(chain: &Chain, line: &Line) {
    let query = format!(
        "SELECT src, sport, dst, dport, proto, nat_src, nat_sport, nat_dst, nat_dport, \
         bytes_out, bytes_in, packets_out, packets_in, replied, duration_ms, mac, iface \
         FROM flows WHERE NOT open AND src = '{}' AND sport = {} AND proto = {}",
        line.src.ip(),
        line.src.port(),
        line.proto,
    );
    let rows = eventually(20.0, &query, || {
        let rows = chain.hub.try_sql(&query)?;
        want(!rows.is_empty(), || "no such flow".to_owned()).map(|()| rows)
    });
    assert_eq!(rows.len(), 1, "one flow, one row: {rows:?}");
    let row = &rows[0];
    // NAT is stored only where it changed something.
    let source_nat = (line.seen_as != line.src).then_some(line.seen_as);
    let target_nat = (line.answered_by != line.dst).then_some(line.answered_by);
    let text =
        |ip: Option<std::net::SocketAddr>| ip.map_or(Value::Null, |a| a.ip().to_string().into());
    let port = |ip: Option<std::net::SocketAddr>| ip.map_or(Value::Null, |a| a.port().into());
    let expected = serde_json::json!({
        "dst": line.dst.ip().to_string(), "dport": line.dst.port(),
        "nat_src": text(source_nat), "nat_sport": port(source_nat),
        "nat_dst": text(target_nat), "nat_dport": port(target_nat),
        "packets_out": line.out.0, "bytes_out": line.out.1,
        "packets_in": line.back.0, "bytes_in": line.back.1,
        "replied": true,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&row[key], value, "{key} of {row} against {line:?}");
    }
    // C6: a duration is never negative (it is unsigned) nor longer than the test.
    let duration = row["duration_ms"].as_u64().unwrap_or_else(|| panic!("no duration: {row}"));
    assert!(duration < 120_000, "{row}");
}
