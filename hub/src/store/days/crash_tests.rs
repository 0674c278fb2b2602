//! Killed while days are rolled: at each step on purpose, and at any instant. Nothing is
//! lost, nothing is there twice, and the next round does what was left.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::keep::Desk as _;
use super::plan::Retention;
use super::roll::{self, Step};
use super::tests::{fill, one, open, remember, round, same, sql};
use super::{Day, TABLES};
use agentmon_core::Timestamp;

const DIR: &str = "AGENTMON_TEST_ROLL_DIR";
const STEP: &str = "AGENTMON_TEST_ROLL_STEP";
/// 2026-12-20T00:00:00Z: long after the rows of [`fill`].
const NOW: Timestamp = Timestamp::from_secs(1_797_724_800);

fn child(dir: &Path, step: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--ignored",
            "--exact",
            "store::days::crash_tests::roll_until_killed",
            "--nocapture",
        ])
        .env(DIR, dir)
        .env(STEP, step)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Rolls all days of all tables; dies at the step named, or rolls to the end.
#[test]
#[ignore = "run by the other tests in a process of its own"]
fn roll_until_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let step = std::env::var(STEP).unwrap();
    let mut writer = open(dir.as_ref());
    let home = writer.data_dir().to_owned();
    let mut at = |now: Step| {
        if format!("{now:?}") == step {
            std::process::abort();
        }
    };
    for hot in writer.read(|c| roll::hot(c, Day::of(NOW))).unwrap() {
        let written = writer.read(|c| roll::write(c, &home, hot.table, hot.day, &mut at)).unwrap();
        let Some(written) = written else { continue };
        let done = writer.change(|c| {
            let done = roll::commit(c, &home, &written, NOW)?;
            at(Step::Staged);
            Ok::<_, crate::store::StoreError>(done)
        });
        assert!(done.unwrap());
        at(Step::Committed);
    }
}

fn prepare(dir: &Path, rows: i64) {
    let mut writer = open(dir);
    fill(&mut writer, 0, 86_400 * 3 / rows, rows);
    remember(&mut writer);
    writer.close().unwrap();
}

#[test]
fn killed_at_each_step() {
    for step in [Step::Made, Step::Copied, Step::Named, Step::Staged, Step::Committed] {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), 90);
        // Once at the first day of the first table, and again where that left it.
        for _ in 0..2 {
            let status = child(dir.path(), &format!("{step:?}")).status().unwrap();
            assert!(!status.success(), "it should have died at {step:?}");
            same(&open(dir.path()));
        }
        let mut writer = open(dir.path());
        sql(&mut writer, "CHECKPOINT");
        round(&mut writer, &Retention::default(), NOW);
        same(&writer);
        let hot = TABLES.iter().map(|t| {
            one(&writer, &format!("SELECT count(*) FROM {} WHERE time < '2026-11-01'", t.base))
        });
        assert_eq!(hot.sum::<i64>(), 0, "{step:?}");
        let left = super::tests::unfinished(dir.path());
        assert_eq!(left, 0, "{step:?}: files left behind");
    }
}

#[test]
fn killed_at_any_instant() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), 30_000);
    // The instants are whatever the machine's load makes them; each run has others.
    for n in 0..8u64 {
        let mut process = child(dir.path(), "none").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(60 + n * 45));
        process.kill().unwrap();
        process.wait().unwrap();
        same(&open(dir.path()));
    }
    assert!(child(dir.path(), "none").status().unwrap().success());
    same(&open(dir.path()));
}
