//! Queries end to end over a real file: types, limits, read-only, time-out.

use serde_json::{Value, json};

use super::query::{Query, run};
use super::{Limits, open_read, open_write};
use crate::control::Reply;

fn ask(sql: &str, params: &[Value], timeout_ms: u64) -> anyhow::Result<Vec<Reply>> {
    let dir = tempfile::tempdir()?;
    let connection = open_write(dir.path(), &Limits::default())?;
    let mut replies = Vec::new();
    let query = Query { sql, params, timeout_ms, untrusted: false };
    run(&connection, query, &mut |reply| {
        replies.push(reply);
        Ok(())
    })?;
    Ok(replies)
}

#[track_caller]
fn check(sql: &str, expected: Value) {
    let replies = ask(sql, &[], 10_000).unwrap();
    let Some(Reply::Row { values }) = replies.get(1) else { panic!("{replies:?}") };
    assert_eq!(Value::Array(values.clone()), expected, "{sql}");
}

#[test]
fn values_as_json() {
    check("SELECT 1, -1, 1.5, 'a', true, NULL", json!([1, -1, 1.5, "a", true, null]));
    check("SELECT TIMESTAMP '2026-11-23 14:32:07.000123'", json!(["2026-11-23T14:32:07.000123Z"]));
    check("SELECT DATE '2026-11-23', TIME '14:32:07'", json!(["2026-11-23", "14:32:07"]));
    check(
        "SELECT date_trunc('hour', TIMESTAMP '2026-11-23 14:32:07')",
        json!(["2026-11-23T14:00:00.000000Z"]),
    );
    check("SELECT sum(x) FROM range(4) t(x)", json!([6]));
    check("SELECT 18446744073709551615::UBIGINT, 1.25::DECIMAL(9,2)", json!([u64::MAX, 1.25]));
    check(
        "SELECT ['a', 'b'], {'k': 1}, MAP {'x': 2}",
        json!([["a", "b"], {"k": 1}, [{"key": "x", "value": 2}]]),
    );
    check("SELECT 'nan'::DOUBLE, 'ab'::BLOB", json!(["NaN", "6162"]));
    check(
        "SELECT INTERVAL 90 SECOND, uuid '00000000-0000-0000-0000-000000000001'",
        json!(["1 mins 30.000000000 secs", "00000000-0000-0000-0000-000000000001"]),
    );
    check("SELECT now() IS NOT NULL, 'a'::ENUM ('a', 'b')", json!([true, "a"]));
}

#[test]
fn columns_parameters_and_done() {
    let params = [json!("x"), json!(7), json!(null), json!(2.5), json!(true)];
    let replies = ask("SELECT ? AS a, ? AS b, ? AS c, ? AS d, ? AS e", &params, 10_000).unwrap();
    let Some(Reply::Columns { names, types }) = replies.first() else { panic!("{replies:?}") };
    assert_eq!(names, &["a", "b", "c", "d", "e"]);
    assert_eq!(types.get(1).map(String::as_str), Some("BIGINT"));
    let Some(Reply::Row { values }) = replies.get(1) else { panic!("{replies:?}") };
    assert_eq!(values, &params);
    assert!(matches!(replies.last(), Some(Reply::Done { count: 1, truncated: false })));
}

#[test]
fn rows_are_cut_at_the_maximum() {
    let replies = ask("FROM range(1000001)", &[], 60_000).unwrap();
    assert!(matches!(replies.last(), Some(Reply::Done { count: 1_000_000, truncated: true })));
}

#[test]
fn a_long_query_is_stopped() {
    let sql =
        "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3";
    let error = ask(sql, &[], 200).unwrap_err().to_string();
    assert!(error.contains("200 ms"), "{error}");
}

#[test]
fn a_transaction_of_a_query_cannot_write() {
    for sql in [
        "DELETE FROM dns_hot",
        "CREATE TABLE x (a INTEGER)",
        "INSERT INTO hub_facts VALUES ('a', 'b')",
    ] {
        let error = ask(sql, &[], 10_000).unwrap_err().to_string();
        assert!(
            error.to_lowercase().contains("read-only") || error.contains("read only"),
            "{sql}: {error}"
        );
    }
}

#[test]
fn no_statement_reaches_a_file_or_the_settings() {
    for sql in [
        "FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/agentmon-escape.csv'",
        "ATTACH '/tmp/agentmon-escape.db'",
        "INSTALL inet",
        "LOAD inet",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
        "FROM read_csv('https://example.com/x.csv')",
    ] {
        assert!(ask(sql, &[], 10_000).is_err(), "{sql}");
    }
}

#[test]
fn a_second_process_is_told_who_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let _held = open_write(dir.path(), &Limits::default()).unwrap();
    // Another process: this test's own binary, asked for one ignored test.
    let exe = std::env::current_exe().unwrap();
    let out = std::process::Command::new(exe)
        .args(["--ignored", "--exact", "store::query_tests::open_in_child", "--nocapture"])
        .env("AGENTMON_TEST_DIR", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
}

#[test]
#[ignore = "run by a_second_process_is_told_who_has_the_file in a process of its own"]
fn open_in_child() {
    let dir = std::env::var("AGENTMON_TEST_DIR").unwrap();
    let error = open_read(dir.as_ref(), &Limits::default()).err();
    #[allow(clippy::print_stdout, reason = "the parent reads it")]
    {
        println!("{}", error.map(|e| e.to_string()).unwrap_or_default());
    }
}
