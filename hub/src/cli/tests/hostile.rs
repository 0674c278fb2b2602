//! What a damaged or malicious store holds never reaches the terminal raw.

use super::*;

/// The only control characters a command may print: line ends.
#[track_caller]
fn check(command: &str) {
    let ran = run(command);
    for text in [&ran.out, &ran.err, &ran.exit] {
        let raw = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\r'));
        assert_eq!(raw, None, "{command}: {text:?}");
        assert!(!text.contains('\u{202e}'), "{command}: {text:?}");
    }
    assert!(ran.out.contains("evil") || ran.out.contains("red"), "{command} saw it: {}", ran.out);
}

#[test]
fn in_every_format_of_every_command() {
    for format in ["", " --json", " --csv"] {
        check(&format!("dns sensor:attic{format}"));
        check(&format!("alerts client:192.168.77.99{format}"));
        check(&format!("timeline client:192.168.77.99{format}"));
        check(&format!("sql{format} SELECT_*_FROM_dns_WHERE_sensor=2"));
    }
    check("alert 4");
    check("alert 4 --json");
}

#[test]
fn a_hostile_record_stays_one_line() {
    for (command, lines) in [
        ("alerts client:192.168.77.99 --json", 1),
        ("alerts client:192.168.77.99 --csv", 2),
        ("alerts client:192.168.77.99", 2),
    ] {
        assert_eq!(run(command).out.lines().count(), lines, "{command}");
    }
}

#[test]
fn json_gives_back_what_is_stored() {
    let out = run("dns --json sensor:attic").out;
    let row: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(row["name"], "\x1b[31mred\x07\u{9b}.example,\"x\"");
    assert_eq!(row["type"], "TYPE65400");
    assert_eq!(row["rcode"], "RCODE17");
}

#[test]
fn what_a_person_typed_is_not_echoed_raw() {
    let ran = run("dns \x1b[31mfoo");
    assert!(ran.exit.starts_with("failed") && !ran.exit.contains('\x1b'), "{:?}", ran.exit);
}

/// Every text column of every table replaced by the worst there is, as a store may be that
/// somebody else has written to.
#[test]
fn a_store_that_is_hostile_throughout() {
    let dir = tempfile::tempdir().unwrap();
    let connection = store::open_write(dir.path(), &Limits::default()).unwrap();
    connection.execute_batch(include_str!("fixture.sql")).unwrap();
    let evil = "chr(27) || ']0;owned' || chr(7) || chr(155) || '2J' || chr(8238) || chr(10)";
    let columns = connection
        .prepare(
            "SELECT c.table_name, c.column_name FROM duckdb_columns() c \
             JOIN duckdb_tables() t USING (table_oid) WHERE NOT t.internal \
             AND c.data_type = 'VARCHAR' AND c.column_name NOT IN \
             ('mac', 'ip', 'client', 'status', 'dedup_key', 'evidence') \
             AND t.table_name NOT IN ('schema_version', 'facts')",
        )
        .unwrap()
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .unwrap()
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    assert!(columns.len() > 25, "{columns:?}");
    for (table, column) in &columns {
        // Where names must differ, the row's number does it.
        let sql = format!("UPDATE {table} SET {column} = {evil} || rowid");
        connection.execute_batch(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    let mut seen = 0;
    for command in [
        "alerts --all",
        "dns",
        "flows",
        "firewall",
        "timeline",
        "devices",
        "stats",
        "sensors",
        "sql FROM_findings",
        "sql FROM_gaps",
    ] {
        for format in ["", " --json", " --csv"] {
            let mut hub = Held(connection.try_clone().unwrap());
            let ran = run_by(&mut hub, &format!("{command}{format}"), plain());
            assert_eq!(ran.exit, "Fine", "{command}");
            for text in [&ran.out, &ran.err] {
                let raw = |c: &char| c.is_control() && !matches!(c, '\n' | '\r');
                assert_eq!(text.chars().find(raw), None, "{command}{format}: {text}");
                assert!(!text.contains('\u{202e}'), "{command}{format}: {text}");
            }
            seen += usize::from(ran.out.contains("owned"));
        }
    }
    assert_eq!(seen, 30, "each of them showed some of it");
}
