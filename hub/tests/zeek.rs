//! Zeek's logs through the real program: imported, imported again, scored.
//!
//! Made-up logs always; RITA's own test data where `AGENTMON_TEST_DATA` names a folder with
//! `rita/proxy` and `rita/open_sni` (from RITA's repository; not part of this one). Without it
//! that test is left out with a line that says so; a folder without them is a failure.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Runs the program; it must succeed.
#[track_caller]
fn agentmon(data: &Path, args: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentmon"));
    let output = command.args(args).env("AGENTMON_DATA", data).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{args:?}\n{out}\n{err}");
    (out, err)
}

#[track_caller]
fn beacons(data: &Path, options: &[&str]) -> Vec<Value> {
    let args = [&["beacons", "--profile", "rita", "--json"], options].concat();
    let (out, _) = agentmon(data, &args);
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn count(data: &Path, table: &str) -> u64 {
    let (out, _) =
        agentmon(data, &["sql", "--json", &format!("SELECT count(*) AS n FROM {table}")]);
    serde_json::from_str::<Value>(&out).unwrap()["n"].as_u64().unwrap()
}

/// `conn.log` in TSV: a connection every ten minutes for a day, its fields in an order of
/// its own and one that nobody knows among them.
fn conn_tsv(close: bool) -> String {
    let mut log = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n\
        #unset_field\t-\n#path\tconn\n#fields\tuid\tts\tid.orig_h\tid.orig_p\tid.resp_h\t\
        id.resp_p\tproto\tnovelty\tduration\torig_ip_bytes\tresp_ip_bytes\n"
        .to_owned();
    for i in 0..144 {
        let time = 1_795_000_000 + i * 600;
        log.push_str(&format!(
            "C{i}\t{time}.25\t192.168.7.2\t50000\t203.0.113.9\t443\ttcp\t-\t0.5\t500\t1500\n"
        ));
    }
    log.push_str("Cbad\tnever\t192.168.7.2\n");
    if close {
        log.push_str("#close\t2026-11-23\n");
    }
    log
}

fn gzip(path: &Path, text: &str) {
    let mut gz =
        flate2::write::GzEncoder::new(File::create(path).unwrap(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    gz.finish().unwrap();
}

/// A folder with one beacon by name, and one connection that stays open for two hours.
fn logs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    gzip(&at("conn.00:00:00-23:59:59.log.gz"), &conn_tsv(true));
    let ssl: String = (0..144)
        .map(|i| format!("{{\"uid\":\"C{i}\",\"server_name\":\"api.example\"}}\n"))
        .collect();
    std::fs::write(at("ssl.log"), ssl).unwrap();
    let dns = "{\"ts\":1795000000.1,\"uid\":\"D1\",\"id.orig_h\":\"192.168.7.2\",\
        \"id.resp_h\":\"192.168.7.1\",\"query\":\"api.example\",\"qtype\":1,\"rcode\":0,\
        \"answers\":[\"203.0.113.9\"],\"TTLs\":[60.0]}\n";
    std::fs::write(at("dns.log"), dns).unwrap();
    for (hour, seconds, bytes) in [(1, 3_600.5, 100), (2, 7_200.5, 300)] {
        let open = format!(
            "{{\"ts\":1795000000.5,\"uid\":\"O1\",\"id.orig_h\":\"192.168.7.3\",\
             \"id.resp_h\":\"198.51.100.7\",\"proto\":\"tcp\",\"duration\":{seconds},\
             \"orig_ip_bytes\":{bytes},\"resp_ip_bytes\":0}}\n"
        );
        std::fs::write(at(&format!("open_conn.0{hour}_00.log")), open).unwrap();
    }
    std::fs::write(at("ABOUT.md"), "# About\nno log\n").unwrap();
    dir
}

#[test]
fn logs_are_stored_once_and_scored() {
    let (logs, data) = (logs(), tempfile::tempdir().unwrap());
    let (folder, data) = (logs.path().to_str().unwrap(), data.path());
    let (_, said) = agentmon(data, &["import", "zeek", folder]);
    assert!(said.contains("144 events and 144 rows were new; 1 line cut short"), "{said}");
    assert!(!said.contains("ABOUT"), "{said}");
    let (_, again) = agentmon(data, &["import", "zeek", folder]);
    assert!(!again.contains("144 events") && again.contains("0 events and 0 rows"), "{again}");
    // The same log under another name, unpacked.
    let other = logs.path().join("conn.log");
    std::fs::write(&other, conn_tsv(false)).unwrap();
    agentmon(data, &["import", "zeek", other.to_str().unwrap()]);
    for (table, rows) in [("zeek_conn", 145), ("zeek_name", 144), ("flows", 145), ("dns", 1)] {
        assert_eq!(count(data, table), rows, "{table}");
    }
    assert_eq!(count(data, "flows WHERE name = 'api.example'"), 144);

    let rows = beacons(data, &[]);
    let told: Vec<_> = rows.iter().map(|r| (r["dst"].as_str().unwrap(), &r["open"])).collect();
    assert_eq!(told, [("api.example", &0.into()), ("198.51.100.7", &1.into())]);
    assert_eq!((&rows[0]["connections"], &rows[0]["bytes"]), (&144.into(), &288_000.into()));
    near(&rows[0], "score", 1.0, 1e-9);
    near(&rows[1], "duration", 7_200.5, 1e-9);
    assert_eq!(rows[1]["bytes"], 300, "the later report replaces the earlier one");
    assert_eq!(beacons(data, &["--internal", "10.0.0.0/8"]), Vec::<Value>::new());
}

/// A month before, another beacon, which has stopped: only the newest day is scored, unless
/// another is asked for.
#[test]
fn the_newest_day_that_counts_is_scored() {
    let data = tempfile::tempdir().unwrap();
    let (logs, data) = (tempfile::tempdir().unwrap(), data.path());
    let line = |uid: String, time: i64, dst: &str| {
        format!(
            "{{\"ts\":{time}.5,\"uid\":\"{uid}\",\"id.orig_h\":\"192.168.7.2\",\
             \"id.resp_h\":\"{dst}\",\"proto\":\"tcp\",\"orig_ip_bytes\":100}}\n"
        )
    };
    let day = |name: &str, from: i64, dst: &str| -> String {
        (0..144).map(|i| line(format!("{name}{i}"), from + i * 600, dst)).collect()
    };
    let (now, month) = (1_795_000_000, 30 * 86_400);
    let mut log = day("A", now - month, "203.0.113.9") + &day("B", now, "198.51.100.7");
    // Newer, but within the house: moves no window.
    log.push_str(&line("C".into(), now + month, "192.168.7.9"));
    std::fs::write(logs.path().join("conn.log"), log).unwrap();
    agentmon(data, &["import", "zeek", logs.path().to_str().unwrap()]);
    let told = |options: &[&str]| -> Vec<(String, u64)> {
        let rows = beacons(data, options);
        let row = |r: &Value| (r["dst"].as_str().unwrap().to_owned(), r["connections"].as_u64());
        rows.iter().map(row).map(|(dst, n)| (dst, n.unwrap())).collect()
    };
    assert_eq!(told(&[]), [("198.51.100.7".to_owned(), 144)]);
    assert_eq!(told(&["--until", "2026-11-10"]), [("203.0.113.9".to_owned(), 144)]);
    assert_eq!(told(&["--sensor", "other"]), []);
}

#[test]
fn what_is_no_log_at_all_is_refused() {
    let (logs, data) = (logs(), tempfile::tempdir().unwrap());
    let about = logs.path().join("ABOUT.md");
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentmon"));
    command.args(["import", "zeek"]).arg(about).env("AGENTMON_DATA", data.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no log of Zeek found"));
}

#[track_caller]
fn near(row: &Value, key: &str, expected: f64, tolerance: f64) {
    let got = row[key].as_f64().unwrap();
    assert!((got - expected).abs() <= tolerance, "{key}: {got}, not {expected}: {row}");
}

fn test_data() -> Option<PathBuf> {
    let Some(data) = std::env::var_os("AGENTMON_TEST_DATA") else {
        let line = "LEFT OUT: AGENTMON_TEST_DATA names no folder with RITA's test data\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    };
    let folder = PathBuf::from(data).join("rita");
    assert!(folder.join("proxy").is_dir(), "no {}/proxy", folder.display());
    Some(folder)
}

/// The values RITA's own tests expect, within the tolerance they allow; counts, bytes and
/// durations exactly.
#[test]
fn rita_says_the_same_of_its_own_data() {
    let Some(folder) = test_data() else { return };
    let scored = |name: &str| {
        let data = tempfile::tempdir().unwrap();
        let logs = folder.join(name);
        agentmon(data.path(), &["import", "zeek", logs.to_str().unwrap()]);
        beacons(data.path(), &["--defaults", "code"])
    };
    let keys = ["score", "ts_score", "ds_score", "dur_score", "hist_score"];
    let expected = [
        ("www.honestimnotevil.com", 357, 963_595, 12.454628, [0.979, 0.921, 0.995, 1.0, 1.0]),
        ("www.google.com", 6, 139_385, 0.725752, [0.586, 0.48, 0.865, 1.0, 0.0]),
    ];
    let rows = scored("proxy");
    assert_eq!(rows.len(), expected.len(), "{rows:?}");
    for (row, (dst, connections, bytes, seconds, scores)) in rows.iter().zip(expected) {
        assert_eq!((&row["src"], &row["dst"]), (&"10.136.0.18".into(), &dst.into()));
        assert_eq!((&row["connections"], &row["bytes"]), (&connections.into(), &bytes.into()));
        near(row, "duration", seconds, 1e-6);
        keys.iter().zip(scores).for_each(|(key, score)| near(row, key, score, 0.05));
    }
    // Recomputed by the formula.
    near(&rows[0], "score", 0.98, 1e-9);
    near(&rows[1], "score", 0.586, 1e-9);
    near(&rows[1], "final_score", 0.2688, 1e-9);

    let expected = [
        ("ce7.stearns.org", 2, 14_737.061_15, 24_106, 0.40468),
        ("ce7.stearns.org:8000", 1, 7_376.718_848, 8_144, 0.26993),
        ("34.222.122.143", 1, 7_200.403_186, 2_715_618, 0.26667),
        ("52.33.59.39", 1, 7_200.169_165, 4_593_763, 0.26667),
    ];
    let rows = scored("open_sni");
    assert_eq!(rows.len(), expected.len(), "{rows:?}");
    for (row, (dst, open, seconds, bytes, score)) in rows.iter().zip(expected) {
        assert_eq!((&row["dst"], &row["open"]), (&dst.into(), &open.into()));
        assert_eq!((&row["connections"], &row["bytes"]), (&0.into(), &bytes.into()));
        near(row, "duration", seconds, 1e-6);
        near(row, "final_score", score, 0.001);
        near(row, "prevalence", 1.0, 1e-9);
    }
}
