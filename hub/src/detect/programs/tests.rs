//! The three rules over a real store, each beside its twin. Time goes by days.

use super::*;
use crate::store::{Limits, open_write};

struct Lab {
    _dir: tempfile::TempDir,
    db: Connection,
    detector: Programs,
    process: u64,
}

/// One use of the network: `exe hash package signer`, `-` for none.
impl Lab {
    fn new(config: &Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = open_write(dir.path(), &Limits::default()).unwrap();
        Self { _dir: dir, db, detector: Programs::new(config), process: 0 }
    }

    /// A host whose agent tells of packages, known since day 0.
    fn lived_in() -> Self {
        let mut lab = Self::new(&Config::default());
        lab.day(0, "/usr/bin/ssh a1 deb:ssh -");
        lab
    }

    fn insert(&mut self, sensor: i32, time: Timestamp, what: &str, to: &str) {
        let mut words = what.split(' ').map(|w| (w != "-").then_some(w));
        let mut next = || words.next().flatten();
        let (exe, hash, package, signer) = (next().unwrap(), next(), next(), next());
        let name = exe.rsplit(['/', '\\']).next().unwrap();
        self.process += 1;
        self.db
            .execute(
                "INSERT INTO processes (time, sensor, phase, process, host, os, pid, name, exe, deleted, sha256, package, signer, ancestors)
                 VALUES (make_timestamp(?), ?, 'start', ?, 'host' || ?, 'linux', 1, ?, ?, false, ?, ?, ?, '[]')",
                params![time.micros(), sensor, self.process, sensor, name, exe, hash, package, signer],
            )
            .unwrap();
        self.db
            .execute(
                "INSERT INTO process_conns (time, sensor, id, open, process, direction, proto, src, sport, dst, dport, how)
                 VALUES (make_timestamp(?), ?, ?, true, ?, 'out', 6, '192.0.2.1', 40000, ?, 443, 'exec')",
                params![time.micros(), sensor, self.process, self.process, to],
            )
            .unwrap();
    }

    /// What a round at that time finds, as `rule score file`; it learns.
    fn round(&mut self, now: Timestamp) -> Vec<String> {
        let found = self.detector.run(&self.db, now).unwrap();
        if let Some(learnt) = self.detector.learn() {
            learnt(&self.db).unwrap();
        }
        for finding in &found {
            assert_eq!(finding.client, Some("192.0.2.1".parse().unwrap()), "{finding:?}");
        }
        let line = |f: &Finding| {
            format!("{} {} {}", f.rule, f.score, f.subject.split(' ').next().unwrap())
        };
        found.iter().map(line).collect()
    }

    /// On host 1, at that day.
    fn day(&mut self, day: u64, what: &str) -> Vec<String> {
        self.on(1, day, what)
    }

    fn on(&mut self, sensor: i32, day: u64, what: &str) -> Vec<String> {
        // A second apart from the one before, as it would be.
        let time = noon(day).plus(Duration::from_secs(self.process));
        self.insert(sensor, time, what, "203.0.113.5");
        self.round(time.plus(Duration::from_secs(60)))
    }
}

fn noon(day: u64) -> Timestamp {
    Timestamp::from_secs(1_795_000_000).plus(Duration::from_secs(day * 86_400))
}

#[test]
fn the_first_use_of_a_program_and_the_next_version_of_it() {
    let mut lab = Lab::lived_in();
    assert_eq!(lab.day(1, "/opt/a-1.2/bin/a a1 deb:a -"), [""; 0], "still learning");
    assert_eq!(lab.day(9, "/usr/bin/nc b1 deb:nc -"), ["new-program 0.25 /usr/bin/nc"]);
    assert_eq!(lab.day(9, "/usr/bin/nc b1 deb:nc -"), [""; 0], "told once");
    assert_eq!(lab.day(9, "/opt/a-1.3/bin/a a2 deb:a -"), [""; 0], "another version");
    assert_eq!(lab.round(noon(9).plus(Duration::from_secs(400))), [""; 0], "the same window again");
    // Another host's first is its own; what a neighbour has is less of a surprise.
    assert_eq!(lab.on(2, 9, "/usr/bin/ssh a1 deb:ssh -"), [""; 0]);
    assert_eq!(lab.on(2, 20, "/usr/bin/nc b1 deb:nc -"), ["new-program 0.1 /usr/bin/nc"]);
}

#[test]
fn a_program_nobody_vouches_for() {
    let mut lab = Lab::lived_in();
    assert_eq!(lab.day(9, "/home/a/bin/tool b1 - -"), ["unknown-program 0.4 /home/a/bin/tool"]);
    assert_eq!(lab.day(9, "/tmp/.x/k b2 - -"), ["unknown-program 0.6 /tmp/.x/k"]);
    assert_eq!(
        lab.day(9, "/home/a/src/app/target/debug/app b3 - -"),
        ["unknown-program 0.25 /home/a/src/app/target/debug/app"]
    );
    // The twins: a package's, a signed one, and a host where nothing is ever vouched for.
    assert_eq!(lab.day(9, "/usr/bin/wget b4 deb:wget -"), ["new-program 0.25 /usr/bin/wget"]);
    assert_eq!(lab.day(9, "/opt/signed b5 - TEAM"), ["new-program 0.25 /opt/signed"]);
    let mut blind = Lab::new(&Config::default());
    assert_eq!(blind.day(0, "/usr/bin/ssh a1 - -"), [""; 0]);
    assert_eq!(blind.day(9, "/home/a/tool b1 - -"), ["new-program 0.25 /home/a/tool"]);
}

#[test]
fn another_content_under_the_same_path() {
    let mut lab = Lab::lived_in();
    assert_eq!(lab.day(1, "/opt/tool/tool a1 - -"), [""; 0]);
    assert_eq!(lab.day(2, "/opt/tool/tool a2 - -"), ["program-replaced 0.6 /opt/tool/tool"]);
    assert_eq!(lab.day(2, "/opt/tool/tool a2 - -"), [""; 0], "told once");
    assert_eq!(lab.day(3, "/opt/tool/tool a1 - -"), [""; 0], "the old one still runs somewhere");
    // A package's file, changed without anything that installs; and with it.
    assert_eq!(lab.day(3, "/usr/bin/ssh a2 deb:ssh -"), ["program-replaced 0.3 /usr/bin/ssh"]);
    assert_eq!(lab.day(4, "/usr/bin/git c1 deb:git -").len(), 0);
    assert_eq!(lab.day(5, "/usr/lib/apt/methods/https d1 deb:apt -").len(), 0);
    assert_eq!(lab.day(6, "/usr/bin/git c2 deb:git -"), [""; 0], "an upgrade");
    // Another host has the same new content: it came by an upgrade.
    assert_eq!(lab.on(2, 6, "/usr/bin/curl e1 deb:curl -").len(), 0);
    assert_eq!(lab.on(3, 6, "/usr/bin/curl e2 deb:curl -").len(), 0);
    assert_eq!(lab.on(2, 7, "/usr/bin/curl e2 deb:curl -"), [""; 0]);
    // What is built again and again, and what its owner's tools keep.
    assert_eq!(lab.day(6, "/home/a/x f1 - -").len(), 0);
    assert_eq!(lab.day(6, "/home/a/x f2 - -"), ["program-replaced 0.35 /home/a/x"]);
    assert_eq!(lab.day(6, "/home/a/x f3 - -"), [""; 0]);
    assert_eq!(lab.day(6, "/home/a/.cargo/bin/y g1 - -").len(), 0);
    assert_eq!(lab.day(6, "/home/a/.cargo/bin/y g2 - -"), [""; 0]);
}

#[test]
fn a_signature_that_stays_and_one_that_goes() {
    let mut lab = Lab::lived_in();
    for (hash, signer, expected) in [
        ("a1", "TEAM", None),
        ("a2", "TEAM", None),
        ("a3", "OTHER", Some("program-replaced 0.8 /Applications/A.app/A")),
        ("a4", "-", Some("program-replaced 0.8 /Applications/A.app/A")),
    ] {
        let told = lab.day(1, &format!("/Applications/A.app/A {hash} - {signer}"));
        assert_eq!(told, Vec::from_iter(expected.map(str::to_owned)), "{hash}");
    }
}

#[test]
fn late_and_blind_and_local_is_nothing() {
    let mut lab = Lab::lived_in();
    assert_eq!(lab.day(5, "/opt/t new deb:t -").len(), 0);
    // What ran before the new one, told of later.
    assert_eq!(lab.day(4, "/opt/t old deb:t -"), [""; 0]);
    // A hash that comes later than the program.
    assert_eq!(lab.day(6, "/opt/u - deb:u -").len(), 0);
    assert_eq!(lab.day(6, "/opt/u b1 deb:u -"), [""; 0]);
    // Only with itself.
    let time = noon(20);
    lab.insert(1, time, "/tmp/k c1 - -", "127.0.0.1");
    assert_eq!(lab.round(time.plus(Duration::from_secs(60))), [""; 0]);
    // Allowed by name, and below a folder.
    lab.detector.config.allow = vec!["/tmp/tool".into(), "/srv/build/".into()];
    for exe in ["/tmp/tool", "/srv/build/a/b"] {
        assert_eq!(lab.day(20, &format!("{exe} d1 - -")), [""; 0], "{exe}");
    }
    assert_eq!(lab.day(20, "/tmp/tool2 d1 - -").len(), 1);
}

#[test]
fn settings_that_make_no_sense() {
    let with = |allow: &str| Config { allow: vec![allow.into()], ..Config::default() };
    assert_eq!(with("/opt/").validate(), Ok(()));
    assert_eq!(with("C:\\Tools\\").validate(), Ok(()));
    assert_eq!(with("tool").validate().unwrap_err().0, "programs.allow");
}

/// The table begins with what the store knew before there was one.
#[test]
fn one_row_for_each_content_and_the_oldest_time_wins() {
    let mut lab = Lab::lived_in();
    lab.day(9, "/opt/a b deb:a -");
    lab.day(3, "/opt/a b deb:a -");
    let (rows, first, family): (i64, i64, String) = lab
        .db
        .query_row(
            "SELECT count(*), epoch_us(min(first_seen)), any_value(family) FROM programs WHERE exe = '/opt/a'",
            [],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
        )
        .unwrap();
    assert_eq!((rows, first, family.as_str()), (1, noon(3).micros() + 2_000_000, "/opt/a"));
}
