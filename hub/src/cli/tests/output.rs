//! Snapshots of every command's output, and the ends a command can come to.

use super::*;

macro_rules! snapshots {
    ($($name:ident: $command:literal;)+) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), run($command).text(), $command);
        }
    )+};
}

snapshots! {
    alerts_table: "alerts";
    alerts_all: "alerts --all -rule:dga";
    alerts_folded: "alerts status:folded";
    alerts_learning: "alerts status:learning";
    alerts_json: "alerts --json severity:>=high";
    alerts_csv: "alerts --csv --all";
    alert_one: "alert 1";
    alert_acked: "alert 3 --around 30s";
    alert_folded: "alert 5 --around 1s";
    alert_json: "alert 2 --json --around 1m";
    alert_note: "alert 6 --around 1s";
    rita_rolling_intel: "beacons --profile rita --rolling --intel --json";
    rita_plain: "beacons --profile rita --json";
    baseline_table: "baseline";
    baseline_json: "baseline --json device:laptop";
    baseline_show: "baseline show laptop";
    baseline_show_network: "baseline show network kind:domain";
    baseline_show_by_address: "baseline show 192.168.77.99 --csv";
    new_table: "new";
    new_json: "new --json kind:domain device:laptop";
    new_since: "new --since 9d kind:place,port";
    allow_list: "allow --list";
    allow_list_all: "allow --list --all --csv";
    incident_table: "incident";
    incident_all_json: "incident --all --json rule:dga";
    incident_one: "incident 1";
    incident_one_json: "incident 1 --json";
    dns_table: "dns -sensor:attic";
    dns_json: "dns --json client:laptop";
    dns_csv: "dns --csv --since 13:00 --until 14:15";
    flows_table: "flows";
    flows_bytes: "flows --sort bytes --limit 2";
    flows_json: "flows --json status:open";
    flows_csv: "flows --csv port:<1024 --sort duration";
    long_table: "long";
    long_json: "long --json status:open --sort total";
    exfil_table: "exfil";
    exfil_csv: "exfil --csv --sort ratio class:reserved";
    exfil_dns: "exfil --dns";
    firewall_table: "firewall";
    firewall_json: "firewall --json port:23";
    device_page: "device laptop";
    device_json: "device 192.168.77.12 --json";
    device_csv: "device 00:00:5e:00:53:04 --csv";
    timeline_process: "timeline --process claude-code";
    timeline_pid: "timeline --process 413 --json";
    timeline_domain: "timeline --domain example.com";
    timeline_ip: "timeline --ip 198.51.100.66 --at 14:25 --around 2m";
    timeline_at: "timeline --device laptop --at 14:20:01 --around 1m";
    flows_of_a_program: "flows proc:claude*";
    timeline_table: "timeline -sensor:attic";
    timeline_device: "timeline device:camera --since 14:24";
    timeline_json: "timeline --json kind:gap,finding --limit 3";
    devices_table: "devices";
    devices_json: "devices --json name:phone";
    devices_show: "devices show camera";
    devices_show_json: "devices 192.168.77.12 --json";
    stats_table: "stats";
    stats_csv: "stats --csv domain:example.com";
    sensors_table: "sensors";
    sensors_json: "sensors --json sensor:router";
    sensors_show: "sensors show router";
    sql_table: "sql SELECT_status,_count(*)_AS_n_FROM_dns_GROUP_BY_1_ORDER_BY_2_DESC,_1";
    sql_json: "sql --json SELECT_time,_answers,_ttl_FROM_dns_ORDER_BY_time_LIMIT_2";
    sql_csv_without_rows: "sql --csv SELECT_1_AS_a,_2_AS_b_WHERE_false";
}

#[test]
fn how_commands_end() {
    #[track_caller]
    fn check(command: &str, exit: &str, err: &str) {
        let ran = run(command);
        assert!(ran.exit.contains(exit), "{}", ran.exit);
        assert!(ran.err.contains(err), "{}", ran.err);
    }
    check("alerts --exit-code", "Found", "");
    check("alerts --exit-code rule:none", "Fine", "nothing found");
    check("alerts", "Fine", "");
    check("alert 99", "failed: there is no alert 99; see `agentmon alerts --all`", "");
    check("incident 99", "failed: there is no incident 99; see `agentmon incident --all`", "");
    check("allow --domain x.example --for ever", "failed: --for ever: want an age", "");
    check("allow --domain x.example --until 2020-01-01", "failed: --until 2020-01-01 is past", "");
    check("fp 1 --undo", "failed: alert 1 is not called a false positive", "");
    check("alert 1 --around soon", "failed: --around soon: want an age", "");
    check("dns --limit 2", "Fine", "only the first 2 rows; there are more");
    check("dns --limit 2 --json", "Fine", "only the first 2 rows");
    check("dns --since 1m", "Fine", "nothing found since 2026-11-23 14:31:07 UTC");
    check("dns --since tomorrow", "failed: --since: `tomorrow` is no point in time", "");
    check("dns --since 1h --until 2h", "failed: --since", "");
    check("dns port:53", "failed: `port:` means nothing here; this command knows client:", "");
    check("dns example.com", "for a name write domain:example.com", "");
    check("dns proc:curl", "Fine", "nothing found");
    check("timeline --at noon", "failed: --at: `noon` is no point in time", "");
    check("timeline --at 14:00 --around far", "failed: --around far: want an age", "");
    check("device nobody", "failed: no device `nobody` was seen", "");
    check("device 192.168.77.99", "Fine", "");
    check("timeline kind:dns,fog", "failed: kind: `fog` is none of dns, flow", "");
    check("sensors show nobody", "failed: there is no sensor `nobody`", "");
    check("sql DROP_TABLE_dns", "failed: refused", "");
    check("sql SELECT_1 --timeout long", "failed: --timeout long", "");
    check("sql SELECT_*_FROM_dns --limit 1", "Fine", "only the first 1 row;");
}

#[test]
fn a_table_fits_the_terminal() {
    for width in [60, 80, 120] {
        for command in ["alerts --all", "dns", "flows", "timeline", "stats", "devices", "sensors"] {
            let ran = run_with(command, Look { width: Some(width), ..plain() });
            let widest = ran.out.lines().map(|l| l.chars().count()).max().unwrap();
            assert!(widest <= usize::from(width), "{command} at {width}: {widest}\n{}", ran.out);
        }
    }
}

#[test]
fn colours_only_when_asked_and_only_ours() {
    let coloured = run_with("alerts", Look { color: true, ..plain() });
    assert!(coloured.out.contains("\x1b["));
    assert!(!run("alerts").out.contains('\x1b'));
    for format in ["--json", "--csv"] {
        let ran = run_with(&format!("alerts {format}"), Look { color: true, ..plain() });
        assert!(!ran.out.contains('\x1b'));
    }
}
