//! Days rolled, late, broken, moved, expired: readers see the same rows all along.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentmon_core::Timestamp;
use agentmon_core::time::SystemClock;
use agentmon_router::counters::Counters;
use duckdb::Connection;
use proptest::prelude::*;

use super::keep::{self, Desk as _};
use super::plan::Retention;
use super::{PARTS_MAX, roll};
use crate::control::Reply;
use crate::store::query::{self, Query};
use crate::store::writer::Writer;
use crate::store::{Limits, open_read};

const DAY: i64 = 86_400;
/// 2026-11-01T00:00:00Z.
const FIRST: i64 = 1_793_491_200;
/// Twenty days later, at noon.
const NOW: Timestamp = Timestamp::from_secs(FIRST + 20 * DAY + DAY / 2);

pub(super) fn limits() -> Limits {
    Limits { memory_mib: 256, threads: 1, log_mib: 64 }
}

pub(super) fn open(dir: &Path) -> Writer {
    Writer::open(dir, &limits(), Counters::default(), Arc::new(SystemClock)).unwrap()
}

pub(super) fn sql(writer: &mut Writer, text: &str) {
    writer
        .change(|c| c.execute_batch(text).map_err(crate::store::StoreError::from))
        .unwrap_or_else(|e| panic!("{text}: {e}"));
}

pub(super) fn one(writer: &Writer, text: &str) -> i64 {
    let reader = writer.readers().get().unwrap();
    reader.query_row(text, [], |row| row.get(0)).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Rows of all three tables, `n` of each, from `from` (seconds after [`FIRST`]) every `step`
/// seconds, with IPv6, NULLs, quotes and lists among them.
pub(super) fn fill(writer: &mut Writer, from: i64, step: i64, n: i64) {
    let time = format!("make_timestamp(({FIRST} + {from} + n * {step}) * 1000000)");
    let peer = "1 + n % 3";
    sql(
        writer,
        &format!(
            "INSERT INTO peers SELECT * FROM (VALUES (1::UINTEGER, '203.0.113.1', 'a.example'),
                 (2, '2001:db8::2', NULL), (3, '203.0.113.3', 'it''s.example')) v(id, dst, name)
                 WHERE v.id NOT IN (SELECT id FROM peers);
             INSERT INTO dns_hot (time, sensor, client, mac, name, domain, qtype, status, answers,
                 ttl, source)
                 SELECT {time}, 1, CASE WHEN n % 5 = 0 THEN '2001:db8::' || n ELSE '192.0.2.' || n % 7 END,
                 CASE WHEN n % 3 = 0 THEN '00:00:5e:00:53:01' END, 'n' || n || '.example', 'example', 1, 'ok',
                 CASE WHEN n % 2 = 0 THEN ['203.0.113.' || n % 9, 'x''y'] END, n, 'test'
                 FROM range({n}) r(n);
             INSERT INTO flows_done (time, sensor, proto, src, sport, peer, dport, nat_src, start,
                 bytes_out, replied, offloaded, name_age_ms)
                 SELECT {time}, 1, 6, '192.0.2.' || n % 7, 1024 + n % 60000, {peer}, 443,
                 CASE WHEN n % 2 = 0 THEN '198.51.100.1' END, ({time} - INTERVAL 1 SECOND)::TIMESTAMP_MS,
                 n, true, false, n % 11 FROM range({n}) r(n);
             INSERT INTO firewall_hot (time, sensor, verdict, prefix, proto, src, sport, dst, dport, bytes)
                 SELECT {time}, 1, 'drop', 'p', 17, '192.0.2.' || n % 7, 5, '203.0.113.9', 53, n
                 FROM range({n}) r(n)"
        ),
    );
}

pub(super) fn round(writer: &mut Writer, rules: &Retention, now: Timestamp) -> Vec<keep::Done> {
    let dir = writer.data_dir().to_owned();
    keep::round(writer, &dir, rules, now, false).unwrap()
}

/// Keeps a copy of everything readers see.
pub(super) fn remember(writer: &mut Writer) {
    for table in ["dns", "flows", "firewall"] {
        sql(writer, &format!("CREATE OR REPLACE TABLE was_{table} AS FROM {table}"));
    }
}

/// Readers see what they saw.
#[track_caller]
pub(super) fn same(writer: &Writer) {
    for table in ["dns", "flows", "firewall"] {
        let (now, was) = (table, format!("was_{table}"));
        for (a, b) in [(now, was.as_str()), (was.as_str(), now)] {
            let lost = one(writer, &format!("SELECT count(*) FROM (FROM {a} EXCEPT ALL FROM {b})"));
            assert_eq!(lost, 0, "rows of {a} that are not in {b}");
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.join(super::DIR)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut folders } else { &mut found }.push(path);
        }
    }
    found.sort();
    found
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn rolled_days_read_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    // From the first second of a day to the last of the third.
    fill(&mut writer, 0, 3_600, 73);
    fill(&mut writer, DAY - 1, 1, 2);
    remember(&mut writer);
    let described = |writer: &Writer| -> Vec<String> {
        let reader = writer.readers().get().unwrap();
        let mut rows = reader.prepare("DESCRIBE flows").unwrap();
        let rows = rows.query_map([], |r| {
            Ok(format!("{} {}", r.get::<_, String>(0)?, r.get::<_, String>(1)?))
        });
        rows.unwrap().map(Result::unwrap).collect()
    };
    let columns = described(&writer);
    let done = round(&mut writer, &Retention::default(), NOW);
    assert_eq!(done.len(), 12, "four days of three tables: {done:?}");
    same(&writer);
    assert_eq!(described(&writer), columns);
    assert_eq!(one(&writer, "SELECT count(*) FROM flows_hot"), 0);
    assert_eq!(one(&writer, "SELECT sum(rows)::BIGINT FROM parts WHERE tab = 'flows'"), 75);
    let found = files(dir.path());
    assert_eq!(found.len(), 12);
    for file in &found {
        assert_eq!(mode(file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().unwrap()), 0o700);
    }
    assert!(found[0].ends_with("days/dns/day=2026-11-01/part-000001.parquet"), "{found:?}");
    assert_eq!(round(&mut writer, &Retention::default(), NOW), []);
    // And after a restart.
    writer.close().unwrap();
    same(&open(dir.path()));
}

#[test]
fn late_rows_become_further_files_and_many_are_made_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    // So that there is a later day than the rolled one.
    fill(&mut writer, 20 * DAY, 1, 1);
    let late = PARTS_MAX as i64 + 1;
    for n in 0..late {
        fill(&mut writer, 100 + n, 60, 20);
        remember(&mut writer);
        round(&mut writer, &Retention::default(), NOW);
        same(&writer);
    }
    let listed = "SELECT count(*) FROM parts WHERE tab = 'dns' AND gone IS NULL";
    assert_eq!(one(&writer, listed), 1, "made one");
    assert_eq!(
        one(&writer, "SELECT rows::BIGINT FROM parts WHERE tab = 'dns' AND gone IS NULL"),
        20 * late
    );
    assert_eq!(files(dir.path()).len(), 3 * (PARTS_MAX + 1), "kept for queries that began before");
    let later = Timestamp::from_secs(NOW.secs() + 2 * super::GONE_SECONDS);
    round(&mut writer, &Retention::default(), later);
    assert_eq!(files(dir.path()).len(), 3);
    same(&writer);
}

#[test]
fn what_comes_while_a_day_is_written_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    fill(&mut writer, 0, 60, 50);
    let table = &super::TABLES[1];
    let day = super::Day::of(Timestamp::from_secs(FIRST));
    let home = writer.data_dir().to_owned();
    for change in [
        "INSERT INTO flows_done BY NAME SELECT * FROM flows_done LIMIT 1",
        "UPDATE flows_done SET peer = 2, name_age_ms = 3 WHERE peer = 1 AND bytes_out = 3",
    ] {
        let written =
            writer.read(|c| roll::write(c, &home, table, day, &mut |_| ())).unwrap().unwrap();
        sql(&mut writer, change);
        remember(&mut writer);
        assert!(!writer.change(|c| roll::commit(c, &home, &written, NOW)).unwrap(), "{change}");
        same(&writer);
    }
    round(&mut writer, &Retention::default(), NOW.plus(std::time::Duration::from_secs(86_400)));
    same(&writer);
}

/// Runs a query as a person's: what it says and what it warns of.
fn ask(connection: &Connection, text: &str) -> (i64, Vec<String>) {
    let query = Query { sql: text, params: &[], timeout_ms: 60_000, untrusted: true };
    let (mut value, mut warnings) = (None, Vec::new());
    query::run(connection, query, &mut |reply| {
        match reply {
            Reply::Row { values } => value = values[0].as_i64(),
            Reply::Warning { text } => warnings.push(text),
            _ => {}
        }
        Ok(())
    })
    .unwrap();
    (value.unwrap(), warnings)
}

#[test]
fn a_broken_file_is_named_and_the_rest_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    fill(&mut writer, 0, 8_640, 31);
    remember(&mut writer);
    round(&mut writer, &Retention { hot_days: 1, ..Retention::default() }, NOW);
    writer.close().unwrap();
    let file = dir.path().join("days/dns/day=2026-11-02/part-000001.parquet");
    let whole = std::fs::read(&file).unwrap();
    let mut middle = whole.clone();
    middle[20..40].fill(0xff);
    let broken: [(&str, Option<&[u8]>); 4] = [
        ("missing", None),
        ("bytes instead of", Some(&whole[..whole.len() / 2])),
        ("bytes instead of 0", Some(b"")),
        ("content has changed", Some(&middle)),
    ];
    let count = "SELECT count(*) FROM dns";
    for (says, content) in broken {
        let says = says.trim_end_matches(" 0");
        match content {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        // Without a hub, with one that finds it at its start, and with one that did not.
        let check = |connection: &Connection| {
            let (rows, warnings) = ask(connection, count);
            assert_eq!((rows, warnings.len()), (21, 1), "{warnings:?}");
            assert!(warnings[0].contains("dns/day=2026-11-02/part-000001.parquet"), "{warnings:?}");
            assert!(warnings[0].contains(says) && warnings[0].contains("10 rows"), "{warnings:?}");
            assert_eq!(ask(connection, "SELECT count(*) FROM flows").0, 31);
        };
        check(&open_read(dir.path(), &limits()).unwrap());
        let mut writer = open(dir.path());
        check(&writer.readers().get().unwrap());
        assert_eq!(one(&writer, count), 21, "also for readers that ask for no warnings");
        std::fs::write(&file, &whole).unwrap();
        let whole_again = ask(&writer.readers().get().unwrap(), count);
        assert_eq!(whole_again, (31, vec![]), "{says}");
        round(&mut writer, &Retention::default(), NOW);
        same(&writer);
        if let Some(bytes) = content {
            std::fs::write(&file, bytes).unwrap();
            check(&writer.readers().get().unwrap());
            std::fs::write(&file, &whole).unwrap();
        }
        writer.close().unwrap();
    }
}

/// The same size and time, other bytes: the daily look finds it.
#[test]
fn wear_is_found_by_reading_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    fill(&mut writer, 0, 60, 50);
    fill(&mut writer, 20 * DAY, 60, 1);
    round(&mut writer, &Retention::default(), NOW);
    let file = dir.path().join("days/flows/day=2026-11-01/part-000001.parquet");
    let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[50] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    let home = writer.data_dir().to_owned();
    keep::look(&mut writer, &home, false).unwrap();
    assert_eq!(one(&writer, "SELECT count(*) FROM parts WHERE broken IS NOT NULL"), 0);
    keep::look(&mut writer, &home, true).unwrap();
    assert_eq!(one(&writer, "SELECT count(*) FROM parts WHERE broken IS NOT NULL"), 1);
    assert_eq!(one(&writer, "SELECT count(*) FROM flows"), 1);
}

#[test]
fn a_folder_may_be_moved_and_have_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("a"), dir.path().join("it's [x]* b"));
    let mut writer = open(&old);
    fill(&mut writer, 0, 3_600, 60);
    remember(&mut writer);
    round(&mut writer, &Retention { hot_days: 1, ..Retention::default() }, NOW);
    writer.close().unwrap();
    std::fs::rename(&old, &new).unwrap();
    let reader = open_read(&new, &limits()).unwrap();
    assert_eq!(ask(&reader, "SELECT count(*) FROM flows"), (60, vec![]));
    drop(reader);
    let mut writer = open(&new);
    same(&writer);
    fill(&mut writer, 0, 3_600, 10);
    remember(&mut writer);
    round(&mut writer, &Retention { hot_days: 1, ..Retention::default() }, NOW);
    same(&writer);
}

/// Only the files of older days can be reached, and by no statement of a person.
#[test]
fn the_files_are_all_that_can_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    fill(&mut writer, 0, 60, 5);
    fill(&mut writer, 20 * DAY, 60, 1);
    round(&mut writer, &Retention::default(), NOW);
    let reader = writer.readers().get().unwrap();
    let file = dir.path().canonicalize().unwrap();
    let file = file.join("days/dns/day=2026-11-01/part-000001.parquet");
    let file = file.to_str().unwrap();
    let secret = dir.path().canonicalize().unwrap().join("days/../secret");
    std::fs::write(&secret, "x").unwrap();
    for path in [secret.to_str().unwrap(), "/etc/passwd"] {
        let text = format!("SELECT count(*) FROM read_text('{path}')");
        assert!(reader.query_row(&text, [], |r| r.get::<_, i64>(0)).is_err(), "{path}");
        let text = format!("COPY (SELECT 1) TO '{path}' (FORMAT csv)");
        assert!(reader.execute_batch(&text).is_err(), "{path}");
    }
    for text in [format!("FROM read_parquet('{file}')"), format!("FROM '{file}'")] {
        let query = Query { sql: &text, params: &[], timeout_ms: 60_000, untrusted: true };
        let error = query::run(&reader, query, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("refused"), "{error}");
    }
}

#[test]
fn what_is_too_old_or_too_much_goes_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    fill(&mut writer, 0, DAY, 21);
    sql(
        &mut writer,
        &format!(
            "INSERT INTO gaps SELECT make_timestamp(({FIRST} + n * {DAY}) * 1000000), 1, 'c', now()::TIMESTAMP, 'r', 1 FROM range(21) r(n)"
        ),
    );
    let rules = Retention { dns_days: 10, gaps_days: 5, ..Retention::default() };
    remember(&mut writer);
    let home = writer.data_dir().to_owned();
    let planned = writer.read(|c| keep::preview(c, &rules, NOW)).unwrap();
    same(&writer);
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new(), "only said");
    let done = round(&mut writer, &rules, NOW);
    let names = |done: &[keep::Done]| -> BTreeSet<String> {
        done.iter().map(|d| format!("{} {} {} {}", d.what, d.table, d.day, d.rows)).collect()
    };
    assert_eq!(names(&done), names(&planned));
    assert_eq!(one(&writer, "SELECT count(*) FROM dns"), 11);
    assert_eq!(one(&writer, "SELECT count(*) FROM flows"), 21);
    assert_eq!(one(&writer, "SELECT count(*) FROM gaps"), 6);
    assert_eq!(writer.counters().counter("store.expired_rows").get(), 10);
    // The database itself takes more than that: all files go, and days that are still hot.
    sql(&mut writer, "CREATE TABLE filler AS SELECT hash(n) FROM range(400000) r(n)");
    let tight = Retention { disk_mib: 1, ..rules };
    round(&mut writer, &tight, NOW);
    assert_eq!(one(&writer, "SELECT count(*) FROM parts WHERE gone IS NULL"), 0);
    assert_eq!(one(&writer, "SELECT count(*) FROM flows"), 2, "today and yesterday stay");
    assert!(writer.counters().counter("store.evicted_rows").get() >= 17 + 7);
    let later = Timestamp::from_secs(NOW.secs() + 2 * super::GONE_SECONDS);
    keep::round(&mut writer, &home, &tight, later, true).unwrap();
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

/// A clock that is years ahead, or back in 1970, deletes nothing and rolls nothing wrongly.
#[test]
fn a_wrong_clock_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    fill(&mut writer, 0, 3_600, 24 * 21);
    remember(&mut writer);
    for now in [Timestamp::from_secs(NOW.secs() + 40_000 * DAY), Timestamp::EPOCH, NOW] {
        let done = round(&mut writer, &Retention { dns_days: 30, ..Retention::default() }, now);
        assert!(done.iter().all(|d| d.what == "roll"), "{done:?}");
        same(&writer);
    }
}

/// Numbers of peers that only rolled flows had are given up; new flows get their own.
#[test]
fn peers_of_rolled_days_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    fill(&mut writer, 0, 60, 30);
    sql(
        &mut writer,
        &format!(
            "INSERT INTO peers VALUES (9, '203.0.113.99', 'new.example');
             INSERT INTO flows_done BY NAME SELECT * REPLACE (9 AS peer, make_timestamp({}) AS time) FROM flows_done LIMIT 1",
            NOW.micros()
        ),
    );
    remember(&mut writer);
    round(&mut writer, &Retention::default(), NOW);
    same(&writer);
    assert_eq!(one(&writer, "SELECT count(*) FROM peers"), 1);
    assert_eq!(one(&writer, "SELECT max(id)::BIGINT FROM peers"), 9);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    /// Whatever comes when, and whenever days are rolled: readers see the same as of one
    /// table with everything in it.
    #[test]
    fn hot_and_rolled_are_the_same_as_all_hot(
        steps in prop::collection::vec((0i64..20, 1i64..40_000, 1i64..40, any::<bool>(), 1u32..6), 1..6)
    ) {
        let (dir, all) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut writer, mut hot) = (open(dir.path()), open(all.path()));
        for (day, step, n, rolls, hot_days) in steps {
            for store in [&mut writer, &mut hot] {
                fill(store, day * DAY + step % 7, step, n);
            }
            if rolls {
                round(&mut writer, &Retention { hot_days, ..Retention::default() }, NOW);
            }
        }
        for table in ["dns", "flows", "firewall"] {
            let sum = format!("SELECT (count(*) + sum(hash(COLUMNS(*))::HUGEINT % 1000003))::BIGINT FROM {table}");
            let sum = sum.replace("sum(hash(COLUMNS(*))", &format!("sum(hash({table})"));
            prop_assert_eq!(one(&writer, &sum), one(&hot, &sum));
        }
    }
}

/// Files that were begun and not finished.
pub(super) fn unfinished(dir: &Path) -> usize {
    files(dir).iter().filter(|f| f.extension().is_some_and(|e| e == "tmp")).count()
}
