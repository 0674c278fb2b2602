//! `agentmon baseline reset`: what is forgotten, and what is refused. What `baseline` and `new`
//! print is among the snapshots of [`super::output`].

use std::path::Path;

use super::super::backend::Hub;
use super::*;

/// A store with two devices that have learnt something, and no hub.
fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let connection = store::open_write(dir.path(), &Limits::default()).unwrap();
    let sql = "INSERT INTO devices BY NAME
             SELECT '00:00:5e:00:53:0' || n AS mac, 'box' || n AS hostname,
                 '2026-11-01'::TIMESTAMP AS first_seen, '2026-11-23'::TIMESTAMP AS last_seen
             FROM range(1, 4) t(n);
         UPDATE devices SET hostname = 'laptop' WHERE mac = '00:00:5e:00:53:01';
         INSERT INTO habits BY NAME
             SELECT who, kind, what, '2026-11-01'::TIMESTAMP AS first_seen, 20780 AS day,
                 255::UBIGINT AS bits
             FROM (VALUES ('*', 'day', ''), ('*', 'domain', 'a.example'),
                 ('00:00:5e:00:53:01', 'day', ''), ('00:00:5e:00:53:01', 'domain', 'a.example'),
                 ('00:00:5e:00:53:02', 'day', '')) v(who, kind, what)";
    connection.execute_batch(sql).unwrap();
    dir
}

fn one(dir: &Path, sql: &str) -> String {
    let connection = store::open_read(dir, &Limits::default()).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

const LEFT: &str =
    "SELECT coalesce(string_agg(who || ' ' || kind, ', ' ORDER BY who, kind), '') FROM habits";

#[test]
fn a_device_is_forgotten_and_the_others_are_not() {
    let dir = store();
    let ran = run_by(&mut Hub::new(dir.path()), "baseline reset laptop", plain());
    assert_eq!(ran.exit, "Fine", "{}", ran.err);
    assert!(ran.err.contains("2 things forgotten; learning anew from now on"), "{}", ran.err);
    assert_eq!(one(dir.path(), LEFT), "* day, * domain, 00:00:5e:00:53:02 day");
    let since = "SELECT string_agg(who, ', ') FROM baseline_resets";
    assert_eq!(one(dir.path(), since), "00:00:5e:00:53:01");
    // Again is no error; there is nothing left.
    let ran = run_by(&mut Hub::new(dir.path()), "baseline reset 00:00:5e:00:53:01", plain());
    assert!(ran.err.contains("0 things forgotten"), "{}", ran.err);
}

#[test]
fn everything_is_forgotten_at_once() {
    let dir = store();
    let ran = run_by(&mut Hub::new(dir.path()), "baseline reset all", plain());
    assert!(ran.err.contains("5 things forgotten"), "{}", ran.err);
    assert_eq!(one(dir.path(), LEFT), "");
}

#[test]
fn what_cannot_be_forgotten_is_refused_and_nothing_changes() {
    let dir = store();
    for (device, complaint) in [
        ("network", "the network learns from its devices"),
        ("nobody", "no device `nobody` was seen"),
    ] {
        let ran = run_by(&mut Hub::new(dir.path()), &format!("baseline reset {device}"), plain());
        assert!(ran.exit.starts_with("failed") && ran.exit.contains(complaint), "{}", ran.exit);
    }
    assert_eq!(one(dir.path(), "SELECT count(*)::VARCHAR FROM habits"), "5");
}

#[test]
fn a_name_of_two_devices_is_no_device() {
    let dir = store();
    let sql = "UPDATE devices SET hostname = 'twin' WHERE mac <> '00:00:5e:00:53:01'";
    store::open_write(dir.path(), &Limits::default()).unwrap().execute_batch(sql).unwrap();
    let ran = run_by(&mut Hub::new(dir.path()), "baseline reset twin", plain());
    assert!(ran.exit.contains("`twin` is 2 devices"), "{}", ran.exit);
}
