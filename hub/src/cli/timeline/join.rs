//! What the store knows beside the connections of a timeline: the questions they followed and
//! the programs that made them.
//!
//! In: the records read. Out: for each connection what belongs to it ([`super::weave`]), and
//! which other records are told by it. Two queries, narrowed to the names, addresses and ports
//! of the connections, so that a filter which leaves questions out still finds them.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use serde_json::Value;

use super::super::context::Context;
use super::super::directory::Directory;
use super::super::sheet::{Record, Row, Sheet};
use super::super::{dns, list, when};
use super::Found;
use super::sources;
use super::tell::Beside;
use super::weave::{self, Woven};

/// Most questions and programs looked at.
const ROWS_MAX: u64 = 200_000;
/// Questions come before, agents may find a connection after its begin.
const MARGIN: Duration = Duration::from_secs(120);

/// What belongs together.
pub(super) struct Joined {
    dns_sheet: Sheet,
    dns: Vec<Record>,
    owner_sheet: Sheet,
    owners: Vec<Record>,
    woven: Woven,
    /// Whose connections agents tell of.
    watched: HashSet<String>,
    flows: Vec<String>,
    /// Questions and host's connections that a sentence tells already.
    told: HashSet<String>,
}

/// Reads what belongs to the connections.
pub(super) fn join(
    found: &[Found],
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Joined> {
    let none = (&sources::FLOW, (sources::FLOW.sheet)(), Vec::new());
    let (_, sheet, records) =
        found.iter().find(|(source, ..)| source.kind == "flow").unwrap_or(&none);
    let flows: Vec<Row<'_>> = records.iter().map(|record| sheet.row(record)).collect();
    let (dns_sheet, owner_sheet) = (dns::sheet(), sources::connection_sheet());
    let dns = questions(&flows, &dns_sheet, names, context)?;
    let owners = owners(&flows, &owner_sheet, names, context)?;
    let dns_rows: Vec<_> = dns.iter().map(|record| dns_sheet.row(record)).collect();
    let owner_rows: Vec<_> = owners.iter().map(|record| owner_sheet.row(record)).collect();
    let woven = weave::weave(&flows, &dns_rows, &owner_rows);
    let watched = owner_rows.iter().map(|row| row.text("src").to_owned()).collect();
    let asked = woven.asked.values().filter_map(|nth| dns_rows.get(*nth));
    let owned = woven.owner.values().filter_map(|nth| owner_rows.get(*nth));
    let told = asked.map(question_key).chain(owned.map(owner_key)).collect();
    let flows = flows.iter().map(|row| row.text("src").to_owned()).collect();
    Ok(Joined { woven, watched, told, flows, dns_sheet, dns, owner_sheet, owners })
}

impl Joined {
    /// What belongs to the `nth` connection; `None` for records of other kinds.
    pub(super) fn beside(&self, kind: &str, nth: usize) -> Option<Beside<'_>> {
        if kind != "flow" {
            return None;
        }
        let asked = self.woven.asked.get(&nth).and_then(|nth| self.dns.get(*nth));
        let owner = self.woven.owner.get(&nth).and_then(|nth| self.owners.get(*nth));
        Some(Beside {
            asked: asked.map(|record| self.dns_sheet.row(record)),
            owner: owner.map(|record| self.owner_sheet.row(record)),
            watched: self.flows.get(nth).is_some_and(|src| self.watched.contains(src)),
        })
    }

    /// Whether a connection's sentence tells this record too.
    pub(super) fn is_told(&self, kind: &str, row: &Row<'_>) -> bool {
        match kind {
            "dns" => self.told.contains(&question_key(row)),
            "host" => self.told.contains(&owner_key(row)),
            _ => false,
        }
    }
}

fn question_key(row: &Row<'_>) -> String {
    ["time", "client", "name", "type", "sensor"].map(|key| row.text(key)).join("|")
}

/// A connection is told by one of its rows.
fn owner_key(row: &Row<'_>) -> String {
    row.text("id").to_owned()
}

/// A list as one parameter.
fn set<T: serde::Serialize + Ord>(items: impl Iterator<Item = T>) -> Value {
    let items: BTreeSet<T> = items.collect();
    serde_json::to_string(&items).unwrap_or_default().into()
}

/// When the connections began, with a margin, as parameters.
fn span(flows: &[Row<'_>]) -> Option<[Value; 2]> {
    let began = || flows.iter().map(weave::began);
    let (from, to) = (began().min()?.minus(MARGIN), began().max()?.plus(MARGIN));
    Some([when::sql(from).into(), when::sql(to).into()])
}

fn questions(
    flows: &[Row<'_>],
    sheet: &Sheet,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Vec<Record>> {
    let named = || flows.iter().map(|row| row.text("name")).filter(|name| !name.is_empty());
    let Some([from, to]) = span(flows).filter(|_| named().next().is_some()) else {
        return Ok(Vec::new());
    };
    let sql = format!(
        "{} WHERE time BETWEEN CAST(? AS TIMESTAMP) AND CAST(? AS TIMESTAMP) \
         AND answers IS NOT NULL AND name IN (SELECT unnest(from_json(?, '[\"VARCHAR\"]'))) \
         ORDER BY time DESC LIMIT ?",
        dns::SELECT
    );
    let params = vec![from, to, set(named()), ROWS_MAX.into()];
    list::collect(context, names, sheet, &sql, params)
}

fn owners(
    flows: &[Row<'_>],
    sheet: &Sheet,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Vec<Record>> {
    let Some([from, to]) = span(flows) else { return Ok(Vec::new()) };
    let sql = format!(
        "{} WHERE time >= CAST(? AS TIMESTAMP) AND coalesce(start, time) <= CAST(? AS TIMESTAMP) \
         AND src IN (SELECT unnest(from_json(?, '[\"VARCHAR\"]'))) ORDER BY time DESC LIMIT ?",
        sources::CONNECTION_SELECT
    );
    let sources = set(flows.iter().map(|row| row.text("src")));
    list::collect(context, names, sheet, &sql, vec![from, to, sources, ROWS_MAX.into()])
}
