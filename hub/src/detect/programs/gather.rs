//! What the judgement of a program needs: rows of the store, gathered.
//!
//! In: processes and connections of a window, the table `programs`. Out: [`Seen`], and the two
//! statements that keep the table.

use agentmon_core::Timestamp;
use duckdb::{Connection, params};
use serde_json::{Value, json};

use super::PROGRAMS_MAX;
use crate::store::StoreError;

/// A file without the numbers that change with its version, as in the table's migration.
pub(super) const FAMILY: &str = "regexp_replace(exe, '[0-9]+([._-][0-9]+)*', '#', 'g')";

/// Who installs programs: between two contents of a file it says that this was an upgrade.
const INSTALLERS: &str = "(exe LIKE '/usr/lib/apt/methods/%' OR name IN ('apt', 'apt-get', \
    'aptitude', 'unattended-upgr', 'packagekitd', 'dnf', 'dnf5', 'yum', 'zypper', 'pacman', \
    'apk', 'snapd', 'flatpak', 'brew', 'softwareupdated', 'msiexec.exe', 'TiWorker.exe', \
    'TrustedInstaller.exe', 'winget.exe', 'choco.exe'))";

/// A program that used the network in the window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) sensor: i32,
    pub(super) exe: String,
    pub(super) sha256: String,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) host: String,
    pub(super) name: String,
    pub(super) user: Option<String>,
    pub(super) package: Option<String>,
    pub(super) signer: Option<String>,
    pub(super) deleted: bool,
    /// The host's address and where it went first.
    pub(super) address: String,
    pub(super) place: String,
    /// The file, or another version of it, was there before.
    pub(super) known: bool,
    /// This content was there before under this path.
    pub(super) same: bool,
    /// Other contents that were there before under this path.
    pub(super) others: u64,
    /// The newest of them, who signed it, when it was seen last.
    pub(super) before: Option<String>,
    pub(super) before_signer: Option<String>,
    pub(super) before_seen: Option<i64>,
    /// Another host has it.
    pub(super) elsewhere: bool,
    /// Something that installs ran between the two.
    pub(super) upgrade: bool,
    /// Since when the host is known, and whether it tells of packages or of signatures.
    pub(super) since: Option<i64>,
    pub(super) packs: bool,
    pub(super) signs: bool,
}

impl Seen {
    /// For the table.
    pub(super) fn row(&self) -> Value {
        json!({
            "sensor": self.sensor, "exe": self.exe, "sha256": self.sha256, "package": self.package,
            "signer": self.signer, "first": self.first, "last": self.last,
        })
    }
}

const ROWS: &str = "(SELECT unnest(from_json($1, '[{\"sensor\": \"INTEGER\", \"exe\": \"VARCHAR\", \
     \"sha256\": \"VARCHAR\", \"package\": \"VARCHAR\", \"signer\": \"VARCHAR\", \
     \"first\": \"BIGINT\", \"last\": \"BIGINT\"}]'), recursive := true))";

/// What is known already was seen again.
pub(super) fn known() -> String {
    format!(
        "UPDATE programs AS p SET first_seen = least(first_seen, make_timestamp(s.first)),
             last_seen = greatest(last_seen, make_timestamp(s.last)),
             package = coalesce(s.package, p.package), signer = coalesce(s.signer, p.signer)
         FROM {ROWS} s WHERE p.sensor = s.sensor AND p.exe = s.exe AND p.sha256 = s.sha256"
    )
}

/// What was not.
pub(super) fn new() -> String {
    format!(
        "INSERT INTO programs (sensor, exe, family, sha256, package, signer, first_seen, last_seen)
         SELECT sensor, exe, {FAMILY}, sha256, package, signer, make_timestamp(\"first\"),
             make_timestamp(\"last\")
         FROM {ROWS} s WHERE NOT EXISTS (FROM programs p
             WHERE p.sensor = s.sensor AND p.exe = s.exe AND p.sha256 = s.sha256)"
    )
}

/// Programs that reached something beyond their own machine between the two.
pub(super) fn seen(
    db: &Connection,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<Seen>, StoreError> {
    let sql = format!(
        "WITH talk AS (
            SELECT sensor, process,
                arg_min(CASE direction WHEN 'in' THEN dst ELSE src END, time) AS address,
                arg_min(coalesce(domain, CASE direction WHEN 'in' THEN src ELSE dst END)
                    || ':' || CASE direction WHEN 'in' THEN sport ELSE dport END, time) AS place
            FROM process_conns
            WHERE time BETWEEN make_timestamp($1) AND make_timestamp($2) AND process IS NOT NULL
                AND direction <> 'listen' AND dst NOT LIKE '127.%' AND dst <> '::1'
            GROUP BY ALL),
        seen AS (
            SELECT p.sensor, p.exe, coalesce(p.sha256, '') AS sha256, {FAMILY} AS family,
                min(p.time) AS first, max(p.time) AS last, any_value(p.host) AS host,
                any_value(p.name) AS name, any_value(p.user_name) AS user_name,
                any_value(p.package) AS package, any_value(p.signer) AS signer,
                bool_or(p.deleted) AS deleted, arg_min(t.address, p.time) AS address,
                arg_min(t.place, p.time) AS place
            FROM processes p JOIN talk t ON t.sensor = p.sensor AND t.process = p.process
            WHERE p.time BETWEEN make_timestamp($1) AND make_timestamp($2) AND p.exe IS NOT NULL
            GROUP BY p.sensor, p.exe, coalesce(p.sha256, '')
            ORDER BY first LIMIT {PROGRAMS_MAX}),
        hosts AS (
            SELECT sensor, min(first_seen) AS since, count(package) > 0 AS packs,
                count(signer) > 0 AS signs
            FROM programs GROUP BY ALL),
        before AS (
            SELECT s.sensor, s.exe, s.sha256, count(*) AS others,
                arg_max(p.sha256, p.last_seen) AS sha, arg_max(p.signer, p.last_seen) AS signer,
                max(p.last_seen) AS at
            FROM seen s JOIN programs p ON p.sensor = s.sensor AND p.exe = s.exe
                AND p.sha256 <> '' AND p.sha256 <> s.sha256 AND p.first_seen < s.first
            WHERE s.sha256 <> '' GROUP BY ALL)
        SELECT s.sensor, s.exe, s.sha256, epoch_us(s.first), epoch_us(s.last), s.host, s.name,
            s.user_name, s.package, s.signer, s.deleted, s.address, s.place,
            EXISTS (FROM programs p WHERE p.sensor = s.sensor AND p.family = s.family),
            EXISTS (FROM programs p WHERE p.sensor = s.sensor AND p.exe = s.exe
                AND p.sha256 = s.sha256),
            coalesce(b.others, 0)::UBIGINT, b.sha, b.signer, epoch_us(b.at),
            s.sha256 <> '' AND EXISTS (FROM programs p
                WHERE p.sensor <> s.sensor AND p.sha256 = s.sha256),
            b.at IS NOT NULL AND EXISTS (FROM processes i
                WHERE i.sensor = s.sensor AND i.time BETWEEN b.at AND s.first AND {INSTALLERS}),
            epoch_us(h.since), coalesce(h.packs, false), coalesce(h.signs, false)
        FROM seen s LEFT JOIN hosts h ON h.sensor = s.sensor
            LEFT JOIN before b ON b.sensor = s.sensor AND b.exe = s.exe AND b.sha256 = s.sha256
        ORDER BY s.first"
    );
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map(params![from.micros(), until.micros()], |row| {
        Ok(Seen {
            sensor: row.get(0)?,
            exe: row.get(1)?,
            sha256: row.get(2)?,
            first: row.get(3)?,
            last: row.get(4)?,
            host: row.get(5)?,
            name: row.get(6)?,
            user: row.get(7)?,
            package: row.get(8)?,
            signer: row.get(9)?,
            deleted: row.get(10)?,
            address: row.get(11)?,
            place: row.get(12)?,
            known: row.get(13)?,
            same: row.get(14)?,
            others: row.get(15)?,
            before: row.get(16)?,
            before_signer: row.get(17)?,
            before_seen: row.get(18)?,
            elsewhere: row.get(19)?,
            upgrade: row.get(20)?,
            since: row.get(21)?,
            packs: row.get(22)?,
            signs: row.get(23)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
