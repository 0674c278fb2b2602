//! `retro-hunt`: what lists say since today, and somebody here did before.
//!
//! In: entries that have come onto lists of bad things since the last search, the whole
//! history. Out: one finding for each entry and device: how often, since when and until when.
//! A router judges what happens while an entry is listed; feeds learn of a server days after
//! it was first used. What a router told of by its own lists is not told again.
//!
//! How far each list was searched is kept with the list, in the transaction that stores the
//! findings. Budget: 10 s for 10,000 new entries in 100 million rows: names are found by
//! their registrable domain, addresses by joining on them, networks by the distinct addresses.

use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::Mac;
use agentmon_core::finding::Finding;
use duckdb::{Connection, Row, params};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Learnt, Windowed};
use crate::store::StoreError;
use crate::store::days::quoted;
use crate::store::found::FINDINGS_MAX;

/// As in findings.
const RULE: &str = "retro-hunt";
const EVERY: Duration = Duration::from_secs(60);
/// A page of a host that does other things too.
const PAGE_COUNTS: f64 = 0.5;
/// The resolver stopped every question of it.
const BLOCKED_COUNTS: f64 = 0.6;
/// Addresses within listed networks that are looked at in one run.
const INSIDE_MAX: usize = 2_000;

/// Settings of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it runs.
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// The detector.
#[derive(Debug, Default)]
pub(super) struct Retro {
    /// Lists, and how far each has now been searched.
    searched: Vec<(String, i64)>,
}

impl Windowed for Retro {
    fn name(&self) -> &'static str {
        RULE
    }

    fn every(&self) -> Duration {
        EVERY
    }

    /// Lists change whether anything happens or not.
    fn by_clock(&self) -> bool {
        true
    }

    fn run(&mut self, db: &Connection, _: Timestamp) -> Result<Vec<Finding>, StoreError> {
        self.searched = pending(db)?;
        if self.searched.is_empty() {
            return Ok(Vec::new());
        }
        let inside = inside(db)?;
        let mut hits = found(db, NAMES)?;
        hits.extend(found(db, &addresses(&inside))?);
        hits.sort_by(|a, b| b.score().total_cmp(&a.score()));
        Ok(hits.iter().map(finding).collect())
    }

    fn learn(&mut self) -> Option<Learnt> {
        let searched = std::mem::take(&mut self.searched);
        (!searched.is_empty()).then(|| {
            let learnt: Learnt = Box::new(move |c| {
                let sql = "UPDATE indicator_lists SET hunted = make_timestamp(?) WHERE list = ?";
                let mut statement = c.prepare(sql)?;
                for (list, upto) in searched {
                    statement.execute(params![upto, list])?;
                }
                Ok(())
            });
            learnt
        })
    }
}

/// Entries of lists that history was not searched for.
const FRESH: &str = "fresh AS (
        SELECT i.*, l.score FROM indicators i JOIN indicator_lists l USING (list)
        WHERE i.gone IS NULL AND i.added > coalesce(l.hunted, '-infinity'::TIMESTAMP)
            AND coalesce(i.expires, 'infinity'::TIMESTAMP) > i.added)";

fn pending(db: &Connection) -> Result<Vec<(String, i64)>, StoreError> {
    let sql = format!("WITH {FRESH} SELECT list, epoch_us(max(added)) FROM fresh GROUP BY list");
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// An address that was talked to, and the fresh network it is in.
struct Inside {
    address: IpAddr,
    list: String,
    entry: String,
}

fn inside(db: &Connection) -> Result<Vec<Inside>, StoreError> {
    let sql = format!("WITH {FRESH} SELECT list, entry, value FROM fresh WHERE kind = 'network'");
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    let mut nets = Vec::new();
    for row in rows {
        let (list, entry, value) = row?;
        nets.extend(value.parse::<IpNet>().ok().map(|net| (net, list, entry)));
    }
    if nets.is_empty() {
        return Ok(Vec::new());
    }
    nets.sort_by_key(|(net, ..)| (net.network(), net.prefix_len()));
    let mut statement = db.prepare("SELECT DISTINCT dst FROM flows")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let Ok(address) = row.get::<_, String>(0)?.parse::<IpAddr>() else { continue };
        let upto = nets.partition_point(|(net, ..)| net.network() <= address);
        // Networks of one list do not overlap; of several, few do.
        let around = nets.get(upto.saturating_sub(16)..upto).unwrap_or_default();
        let hits = around.iter().rev().filter(|(net, ..)| net.contains(&address));
        all.extend(hits.map(|(_, list, entry)| Inside {
            address,
            list: list.clone(),
            entry: entry.clone(),
        }));
        if all.len() >= INSIDE_MAX {
            break;
        }
    }
    Ok(all)
}

/// A name is asked for; a question a router told of is not told again.
const NAMES: &str = "
    SELECT f.list, f.value, f.score, f.page IS NOT NULL, f.threat, f.reference, max(d.mac),
        max(d.client), count(*), epoch_us(min(d.time)), epoch_us(max(d.time)),
        min(d.name), bool_and(d.status = 'blocked'), NULL, NULL
    FROM fresh f JOIN dns d ON d.domain = f.domain
        AND (d.name = f.value OR ends_with(d.name, '.' || f.value))
    WHERE f.kind = 'name' AND NOT EXISTS (FROM findings t
        WHERE t.rule = 'blocklist' AND t.subject IN (d.name, f.value)
            AND coalesce(t.mac, t.client) = coalesce(d.mac, d.client))
    GROUP BY f.list, f.value, f.score, f.page, f.threat, f.reference, coalesce(d.mac, d.client)";

/// An address is connected to: one listed by itself, or one within a listed network.
fn addresses(inside: &[Inside]) -> String {
    let rows: Vec<String> = inside
        .iter()
        .map(|i| format!("({}, {}, '{}')", quoted(&i.list), quoted(&i.entry), i.address))
        .collect();
    let within = match rows.is_empty() {
        true => String::new(),
        false => format!(
            "UNION ALL SELECT f.list, f.entry, f.score, f.page, f.threat, f.reference, n.address, f.port
             FROM fresh f JOIN (VALUES {}) n(list, entry, address) ON f.list = n.list AND f.entry = n.entry",
            rows.join(", ")
        ),
    };
    format!(
        "SELECT f.list, f.entry, f.score, f.page IS NOT NULL, f.threat, f.reference, max(w.mac),
             max(w.src), count(*), epoch_us(min(w.time)), epoch_us(max(w.time)), min(w.dst),
             NOT bool_or(w.replied), sum(w.bytes_out)::BIGINT, sum(w.bytes_in)::BIGINT
         FROM (SELECT list, entry, score, page, threat, reference, value AS address, port
               FROM fresh WHERE kind = 'address' {within}) f
         JOIN flows w ON w.dst = f.address AND (f.port IS NULL OR f.port = w.dport)
         WHERE NOT EXISTS (FROM findings t
             WHERE t.rule = 'blocklist' AND starts_with(t.subject, w.dst)
                 AND coalesce(t.mac, t.client) = coalesce(w.mac, w.src))
         GROUP BY f.list, f.entry, f.score, f.page, f.threat, f.reference, coalesce(w.mac, w.src)"
    )
}

/// One entry and one device.
#[derive(Clone, Debug, PartialEq)]
struct Hit {
    list: String,
    entry: String,
    listed: f64,
    page: bool,
    threat: Option<String>,
    reference: Option<String>,
    mac: Option<String>,
    client: Option<String>,
    times: u64,
    first: Timestamp,
    last: Timestamp,
    /// The name asked for, or the address connected to.
    what: String,
    /// Every question was blocked, or no connection was answered.
    stopped: bool,
    /// Of connections: bytes out and in.
    bytes: Option<(i64, i64)>,
}

fn found(db: &Connection, sql: &str) -> Result<Vec<Hit>, StoreError> {
    // The gravest, and one more than is taken: what is beyond is counted where it is stored.
    let sql = format!(
        "WITH {FRESH} {sql} ORDER BY f.score DESC, count(*) DESC LIMIT {}",
        FINDINGS_MAX + 1
    );
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map([], hit)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn hit(row: &Row<'_>) -> duckdb::Result<Hit> {
    Ok(Hit {
        list: row.get(0)?,
        entry: row.get(1)?,
        listed: row.get(2)?,
        page: row.get(3)?,
        threat: row.get(4)?,
        reference: row.get(5)?,
        mac: row.get(6)?,
        client: row.get(7)?,
        times: row.get(8)?,
        first: Timestamp::from_micros(row.get(9)?),
        last: Timestamp::from_micros(row.get(10)?),
        what: row.get(11)?,
        stopped: row.get(12)?,
        bytes: row.get::<_, Option<i64>>(13)?.zip(row.get(14)?),
    })
}

impl Hit {
    fn score(&self) -> f64 {
        let page = if self.page { PAGE_COUNTS } else { 1.0 };
        let stopped = if self.stopped { BLOCKED_COUNTS } else { 1.0 };
        self.listed * page * stopped
    }
}

/// What there is to say.
fn finding(hit: &Hit) -> Finding {
    let times = if hit.times == 1 { "once".to_owned() } else { format!("{} times", hit.times) };
    let did = match (&hit.bytes, hit.stopped) {
        (Some(_), false) => "connected",
        (Some(_), true) => "tried to connect",
        (None, false) => "asked",
        (None, true) => "asked, and was refused,",
    };
    let to = if hit.bytes.is_some() { "to" } else { "for" };
    let threat = hit.threat.as_ref().map(|threat| format!(" ({threat})")).unwrap_or_default();
    let page = if hit.page { ", for one of its pages" } else { "" };
    let finding = Finding {
        rule: RULE.into(),
        subject: hit.entry.clone(),
        client: hit.client.as_deref().and_then(|ip| ip.parse().ok()),
        mac: hit.mac.as_deref().and_then(|mac| mac.parse::<Mac>().ok()),
        score: hit.score(),
        why: format!(
            "{did} {times} {to} {}, {}: now on list {}{threat}{page}",
            hit.what,
            span(hit.first, hit.last),
            hit.list
        ),
        evidence: Vec::new(),
    };
    let finding = finding
        .with("list", &hit.list)
        .with("entry", &hit.entry)
        .with("times", hit.times)
        .with("first", hit.first)
        .with("last", hit.last);
    let finding = match &hit.reference {
        Some(reference) => finding.with("reference", reference),
        None => finding,
    };
    match hit.bytes {
        Some((out, into)) => finding.with("bytes_out", out).with("bytes_in", into),
        None => finding,
    }
}

fn span(first: Timestamp, last: Timestamp) -> String {
    let minute = |time: Timestamp| {
        let text = time.to_string();
        text.get(..16).unwrap_or(&text).replace('T', " ")
    };
    match (minute(first), minute(last)) {
        (first, last) if first == last => format!("at {first} UTC"),
        (first, last) => format!("from {first} to {last} UTC"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, open_write};

    const NOW: Timestamp = Timestamp::from_secs(1_795_446_000);

    /// A store with questions and connections of two devices of the day before, and lists.
    fn store(lists: &str) -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let db = open_write(dir.path(), &Limits::default()).unwrap();
        db.execute_batch(&format!(
            "INSERT INTO dns_hot (time, sensor, client, mac, name, domain, qtype, status, source) VALUES
                ('2026-11-22 10:00:00', 1, '192.0.2.10', '00:00:5e:00:53:01', 'cdn.evil.example', 'evil.example', 1, 'ok', 'x'),
                ('2026-11-22 11:00:00', 1, '192.0.2.11', '00:00:5e:00:53:01', 'evil.example', 'evil.example', 1, 'ok', 'x'),
                ('2026-11-22 12:00:00', 1, '192.0.2.20', NULL, 'notevil.example', 'notevil.example', 1, 'ok', 'x'),
                ('2026-11-22 12:00:00', 1, '192.0.2.20', NULL, 'stopped.example', 'stopped.example', 1, 'blocked', 'x');
             INSERT INTO peers VALUES (1, '203.0.113.5', NULL), (2, '198.51.100.77', NULL);
             INSERT INTO flows_done (time, sensor, proto, src, sport, peer, dport, start, bytes_out, bytes_in, replied, offloaded) VALUES
                ('2026-11-22 10:00:00', 1, 6, '192.0.2.10', 40000, 1, 443, '2026-11-22 10:00:00', 100, 5000, true, false),
                ('2026-11-22 10:05:00', 1, 6, '192.0.2.10', 40001, 1, 80, '2026-11-22 10:05:00', 7, 7, true, false),
                ('2026-11-22 10:06:00', 1, 6, '192.0.2.20', 40002, 2, 22, '2026-11-22 10:06:00', 60, 0, false, false);
             INSERT INTO indicator_lists VALUES ('feed', 'https://feed.example/', 'CC0', 0.8, 1, NULL);
             INSERT INTO indicators (list, entry, kind, value, port, domain, threat, added) VALUES {lists}"
        ))
        .unwrap();
        (dir, db)
    }

    fn whys(db: &Connection) -> Vec<String> {
        let mut retro = Retro::default();
        let found = retro.run(db, NOW).unwrap();
        if let Some(learnt) = retro.learn() {
            learnt(db).unwrap();
        }
        found.iter().map(|f| format!("{} {:.2} {}", f.subject, f.score, f.why)).collect()
    }

    const ADDED: &str = "'2026-11-23 00:00:00'";

    #[test]
    fn names_and_all_below_them_once() {
        let (_dir, db) = store(&format!(
            "('feed', 'evil.example', 'name', 'evil.example', NULL, 'evil.example', 'Mozi', {ADDED}),
             ('feed', 'stopped.example', 'name', 'stopped.example', NULL, 'stopped.example', NULL, {ADDED})"
        ));
        assert_eq!(
            whys(&db),
            [
                "evil.example 0.80 asked 2 times for cdn.evil.example, from 2026-11-22 10:00 to \
                 2026-11-22 11:00 UTC: now on list feed (Mozi)",
                "stopped.example 0.48 asked, and was refused, once for stopped.example, at \
                 2026-11-22 12:00 UTC: now on list feed",
            ]
        );
        assert_eq!(whys(&db), Vec::<String>::new(), "searched once");
        db.execute_batch(
            "INSERT INTO indicators (list, entry, kind, value, domain, added) VALUES
                ('feed', 'notevil.example', 'name', 'notevil.example', 'notevil.example', '2026-11-23 01:00:00')",
        )
        .unwrap();
        assert_eq!(whys(&db).len(), 1, "what has come since");
    }

    #[test]
    fn addresses_ports_and_networks() {
        let (_dir, db) = store(&format!(
            "('feed', '203.0.113.5:443', 'address', '203.0.113.5', 443, NULL, 'Emotet', {ADDED}),
             ('feed', '198.51.100.0/24', 'network', '198.51.100.0/24', NULL, NULL, NULL, {ADDED}),
             ('feed', '192.0.2.99', 'address', '192.0.2.99', NULL, NULL, NULL, {ADDED})"
        ));
        assert_eq!(
            whys(&db),
            [
                "203.0.113.5:443 0.80 connected once to 203.0.113.5, at \
                 2026-11-22 10:00 UTC: now on list feed (Emotet)",
                "198.51.100.0/24 0.48 tried to connect once to 198.51.100.77, at \
                 2026-11-22 10:06 UTC: now on list feed",
            ]
        );
    }

    #[test]
    fn what_a_router_told_is_not_told_again() {
        let (_dir, db) = store(&format!(
            "('feed', 'evil.example', 'name', 'evil.example', NULL, 'evil.example', NULL, {ADDED})"
        ));
        db.execute_batch(
            "INSERT INTO findings (id, time, sensor, rule, subject, mac, score, severity, why, evidence, alert)
             SELECT n, '2026-11-22 10:00:00', 1, 'blocklist', s, '00:00:5e:00:53:01', 0.8, 'high', 'w', '{}', 1
             FROM (VALUES (1, 'cdn.evil.example'), (2, 'evil.example')) v(n, s)",
        )
        .unwrap();
        assert_eq!(whys(&db), Vec::<String>::new());
    }

    #[test]
    fn what_is_gone_or_over_is_not_looked_for() {
        let (_dir, db) = store(&format!(
            "('feed', 'evil.example', 'name', 'evil.example', NULL, 'evil.example', NULL, {ADDED}),
             ('feed', '203.0.113.5', 'address', '203.0.113.5', NULL, NULL, NULL, {ADDED})"
        ));
        db.execute_batch(
            "UPDATE indicators SET gone = '2026-11-23 00:30:00' WHERE kind = 'name';
             UPDATE indicators SET expires = '2026-11-22 00:00:00' WHERE kind = 'address'",
        )
        .unwrap();
        assert_eq!(whys(&db), Vec::<String>::new());
    }
}
