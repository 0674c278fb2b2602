//! Whom `device:` words mean: MACs, and whose each address was when, asked for once, before
//! the question itself.
//!
//! In: filter words, a hub to ask. Out: the same words with their [`Known`]s. A question that
//! names MACs, addresses and times as values can skip whatever of the history has none of
//! them; one that looks them up row by row reads everything. Bounds: of a device with more
//! than [`STAYS_MAX`] stays nothing is noted, and [`super::condition`] asks the slow way.

use std::collections::BTreeSet;
use std::net::IpAddr;

use agentmon_core::event::Mac;
use serde_json::Value;

use super::backend::{Backend, query};
use super::condition::glob;
use super::filter::{Key, Word};

/// Most stays of all devices that one word means.
const STAYS_MAX: usize = 256;
/// Most MACs that one word means.
const MACS_MAX: usize = 256;

/// What one or more values of `device:` stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) macs: BTreeSet<String>,
    pub(crate) stays: BTreeSet<Stay>,
    /// Addresses at which nobody was ever known.
    pub(crate) nobodys: BTreeSet<String>,
}

/// An address was a device's from `since` up to `until`, in microseconds since 1970; `None`:
/// always, for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stay {
    pub(crate) address: String,
    pub(crate) since: Option<i64>,
    pub(crate) until: Option<i64>,
}

impl Known {
    /// Both.
    pub(crate) fn join(&mut self, other: &Self) {
        self.macs.extend(other.macs.iter().cloned());
        self.stays.extend(other.stays.iter().cloned());
        self.nobodys.extend(other.nobodys.iter().cloned());
    }

    /// Stays by address, those that follow each other as one.
    pub(crate) fn lasting(&self) -> Vec<Stay> {
        let mut all: Vec<Stay> = Vec::new();
        for stay in &self.stays {
            match all.last_mut() {
                Some(last)
                    if last.address == stay.address
                        && (last.until.is_none() || last.until >= stay.since) =>
                {
                    last.until = last.until.zip(stay.until).map(|(a, b)| a.max(b));
                }
                _ => all.push(stay.clone()),
            }
        }
        all
    }

    /// All addresses, whoever had them when.
    pub(crate) fn addresses(&self) -> BTreeSet<&str> {
        self.stays
            .iter()
            .map(|stay| &stay.address)
            .chain(&self.nobodys)
            .map(String::as_str)
            .collect()
    }
}

/// Looks up the `device:` words that have not been looked up.
///
/// # Errors
/// What the hub says.
pub(crate) fn resolve(hub: &mut dyn Backend, words: &mut [Word]) -> anyhow::Result<()> {
    for word in words.iter_mut().filter(|w| w.key == Key::Device && w.known.is_none()) {
        let mut known = Known::default();
        for value in &word.values {
            look_up(hub, value, &mut known)?;
        }
        let few = known.stays.len() <= STAYS_MAX && known.macs.len() <= MACS_MAX;
        word.known = few.then_some(known);
    }
    Ok(())
}

/// A statement whose rows are MACs, and its parameter: those of a MAC, of the device that was
/// seen last at an address, of the devices of a name.
pub(crate) fn macs(value: &str) -> (&'static str, String) {
    if let Ok(mac) = value.parse::<Mac>() {
        ("SELECT CAST(? AS VARCHAR) AS mac", mac.to_string())
    } else if let Some(address) = address(value) {
        ("SELECT mac FROM address_names WHERE ip = ?", address)
    } else {
        ("SELECT mac FROM devices WHERE lower(hostname) GLOB ?", glob(value))
    }
}

/// An address in the store's spelling.
pub(crate) fn address(value: &str) -> Option<String> {
    value.parse::<IpAddr>().ok().map(|ip| ip.to_canonical().to_string())
}

fn look_up(hub: &mut dyn Backend, value: &str, known: &mut Known) -> anyhow::Result<()> {
    let (sql, key) = macs(value);
    // One more row than may be noted says that there are too many.
    let most = STAYS_MAX + MACS_MAX + 1;
    let sql = format!(
        "SELECT m.mac, o.address, \
           CASE WHEN isfinite(o.owned_since) THEN epoch_us(o.owned_since) END, \
           CASE WHEN isfinite(o.owned_until) THEN epoch_us(o.owned_until) END \
         FROM (SELECT DISTINCT mac FROM ({sql})) m LEFT JOIN address_owners o ON o.device = m.mac \
         WHERE m.mac IS NOT NULL ORDER BY ALL LIMIT {most}"
    );
    query(hub, &sql, vec![key.into()], &mut |row| {
        if let [Value::String(mac), address, since, until] = row.as_slice() {
            known.macs.insert(mac.clone());
            if let Value::String(address) = address {
                let (since, until) = (since.as_i64(), until.as_i64());
                known.stays.insert(Stay { address: address.clone(), since, until });
            }
        }
        Ok(())
    })?;
    let Some(address) = address(value) else { return Ok(()) };
    let sql = "SELECT 1 FROM device_addresses WHERE ip = ? LIMIT 1";
    let mut anybody = false;
    query(hub, sql, vec![address.clone().into()], &mut |_| {
        anybody = true;
        Ok(())
    })?;
    if !anybody {
        known.nobodys.insert(address);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use duckdb::Connection;
    use proptest::prelude::*;

    use super::*;
    use crate::cli::condition::{self, Term, Terms};
    use crate::cli::filter;
    use crate::control::Request;
    use crate::store::query::{self, Query};
    use crate::store::{Limits, open_write};

    struct Held(Connection);
    impl Backend for Held {
        fn ask(
            &mut self,
            request: &Request,
            on: super::super::backend::OnReply<'_>,
        ) -> anyhow::Result<()> {
            let Request::Query { sql, params, timeout_ms, untrusted } = request else {
                anyhow::bail!("only queries")
            };
            let (timeout_ms, untrusted) = (*timeout_ms, *untrusted);
            query::run(&self.0, Query { sql, params, timeout_ms, untrusted }, on)
        }
    }

    const TERMS: &Terms = &[(Key::Device, Term::Device("mac", &["src", "dst"], "time"))];

    /// Four devices that take turns at four addresses, and records with and without a MAC.
    fn store() -> (Held, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let db = open_write(dir.path(), &Limits::default()).unwrap();
        db.execute_batch(
            "INSERT INTO devices (mac, hostname, first_seen, last_seen)
             SELECT 'm' || d, ['tv', 'desk', 'tv', NULL][1 + d], now()::TIMESTAMP, now()::TIMESTAMP FROM range(4) r(d);
             INSERT INTO device_addresses (mac, ip, first_seen, last_seen, stay)
             SELECT 'm' || (hash(n, 1) % 5), '192.0.2.' || (hash(n, 2) % 4), '2026-11-20'::TIMESTAMP + to_hours((hash(n, 3) % 6)::INTEGER),
                 '2026-11-20'::TIMESTAMP + to_hours((hash(n, 4) % 24)::INTEGER), n FROM range(14) r(n);
             CREATE TABLE seen AS SELECT n::INTEGER AS id, '2026-11-19 22:00:00'::TIMESTAMP + to_minutes(n * 3) AS time,
                 CASE WHEN hash(n, 5) % 2 = 0 THEN 'm' || (hash(n, 6) % 5) END AS mac,
                 CASE WHEN hash(n, 7) % 9 > 0 THEN '192.0.2.' || (hash(n, 8) % 6) END AS src,
                 CASE WHEN hash(n, 9) % 9 > 0 THEN '192.0.2.' || (hash(n, 10) % 6) END AS dst FROM range(240) r(n)",
        )
        .unwrap();
        (Held(db), dir)
    }

    fn rows(hub: &mut Held, words: &[Word], split: bool) -> Vec<Value> {
        let mut condition = condition::build(words, TERMS).unwrap();
        let table = if split { condition.from("seen") } else { "seen".to_owned() };
        let sql = format!("SELECT id FROM {table} WHERE {} ORDER BY id", condition.sql);
        let mut found = Vec::new();
        query(hub, &sql, condition.params, &mut |row| {
            found.extend(row);
            Ok(())
        })
        .unwrap();
        found
    }

    /// What was looked up finds what looking up row by row finds, once each, whatever is asked.
    #[test]
    fn devices_looked_up_first_are_the_same_devices() {
        let (mut hub, _dir) = store();
        let mut config = proptest::test_runner::Config::with_cases(48);
        config.failure_persistence = None;
        let value = prop::sample::select(vec![
            "tv",
            "desk",
            "t*",
            "nobody",
            "192.0.2.0",
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "192.0.2.4",
            "192.0.2.5",
            "192.0.2.77",
            "*",
        ]);
        let word = (prop::bool::weighted(0.3), prop::collection::vec(value, 1..3));
        let words = prop::collection::vec(word, 1..3);
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let told = std::cell::Cell::new(0);
        let hub = std::cell::RefCell::new(&mut hub);
        runner
            .run(&words, |words| {
                let texts: Vec<String> = words
                    .iter()
                    .map(|(negated, values)| {
                        format!("{}device:{}", if *negated { "-" } else { "" }, values.join(","))
                    })
                    .collect();
                let slow = filter::parse(&texts).unwrap();
                let mut fast = slow.clone();
                let hub = &mut **hub.borrow_mut();
                resolve(hub, &mut fast).unwrap();
                prop_assert!(fast.iter().all(|word| word.known.is_some()));
                let expected = rows(hub, &slow, false);
                prop_assert_eq!(&rows(hub, &fast, false), &expected, "{:?}", texts);
                prop_assert_eq!(&rows(hub, &fast, true), &expected, "{:?} in parts", texts);
                told.set(told.get() + expected.len());
                Ok(())
            })
            .unwrap();
        assert!(told.get() > 1_000, "the rows tell {} things only", told.get());
    }

    /// Of too many stays nothing is noted, and the answer is the same.
    #[test]
    fn a_device_of_very_many_stays_is_asked_for_the_slow_way() {
        let (mut hub, _dir) = store();
        hub.0
            .execute_batch(&format!(
                "INSERT INTO device_addresses (mac, ip, first_seen, last_seen, stay)
                 SELECT 'm1', '2001:db8::' || n, now()::TIMESTAMP, now()::TIMESTAMP, n FROM range({STAYS_MAX} + 1) r(n)"
            ))
            .unwrap();
        let words = filter::parse(&["device:desk".to_owned()]).unwrap();
        let mut fast = words.clone();
        resolve(&mut hub, &mut fast).unwrap();
        assert_eq!(fast[0].known, None);
        let expected = rows(&mut hub, &words, false);
        assert!(!expected.is_empty());
        assert_eq!(rows(&mut hub, &fast, true), expected);
    }
}
