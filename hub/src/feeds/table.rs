//! What the lists say, in the store: where a hit is from, and what to look for in history.
//!
//! In: a kept list. Out: the rows of `indicators` that are news, and those that are over.
//! Runs on the thread of the lists; the whole list is read by a reader of the store and
//! compared there, so that the writer, for whom every sensor waits, gets the difference only.
//!
//! Budget: 20 s and 600 MB for 3 million entries (the comparison is within the store's own
//! memory and spills). Killed at any point: the list's `content` is written with its rows, so
//! the next start compares again.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use agentmon_core::Timestamp;
use agentmon_core::name::printable;
use agentmon_core::tier0::blocklist::{ListKind, Listed, Named, entries};
use anyhow::Context as _;
use duckdb::{Connection, params};

use super::facts::Facts;
use super::keep::Feed;
use super::{Config, Source};
use crate::store::StoreError;
use crate::store::days::quoted;
use crate::store::handle::Handle;

/// What a list no longer says is still known for so long: alerts of that time are asked about.
const GONE_KEPT_DAYS: u32 = 90;
/// Longest path of a page told.
const PAGE_BYTES: usize = 200;

/// Files of one comparison; they go with it.
struct Files {
    all: PathBuf,
    added: PathBuf,
    gone: PathBuf,
}

impl Files {
    fn of(folder: &Path, name: &str) -> Self {
        let file = |end: &str| folder.join(format!("{name}.{end}"));
        Self { all: file("entries"), added: file("added"), gone: file("gone") }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.all, &self.added, &self.gone] {
            // One that stays is written over next time.
            drop(fs::remove_file(file));
        }
    }
}

/// Brings the store's rows of this list up to what is kept of it; how many are new.
///
/// # Errors
/// The files, or what DuckDB says; the rows stay as they were.
pub(super) fn sync(
    store: &Handle,
    folder: &Path,
    source: &Source,
    feed: &Feed,
    now: Timestamp,
) -> anyhow::Result<usize> {
    let reader = store.readers().get()?;
    let known: Option<u64> = reader
        .prepare("SELECT content FROM indicator_lists WHERE list = ?")?
        .query_map([&source.name], |row| row.get(0))?
        .next()
        .transpose()?;
    if source.kind != ListKind::Bad || feed.changed == 0 || known == Some(feed.list) {
        return Ok(0);
    }
    let files = Files::of(folder, &source.name);
    write_entries(source, &folder.join(format!("{}.txt", source.name)), &files.all)?;
    compare(&reader, &source.name, &files)?;
    drop(reader);
    let (name, origin, licence) = (source.name.clone(), source.origin(), source.licence.clone());
    let (score, content) = (source.score, feed.list);
    let (added, gone) = (path(&files.added), path(&files.gone));
    let stored = store.run(move |writer| {
        writer.change(|c| -> Result<usize, StoreError> {
            let list = List { name: &name, origin: &origin, licence: &licence, score, content };
            take(c, &list, &added, &gone, now)
        })
    });
    Ok(stored??)
}

/// Lists that the configuration no longer has say nothing any more.
///
/// # Errors
/// What DuckDB says.
pub(super) fn forget_others(store: &Handle, config: &Config, now: Timestamp) -> anyhow::Result<()> {
    let sources = config.sources.iter().filter(|source| source.kind == ListKind::Bad);
    let names: Vec<String> = sources.map(|source| quoted(&source.name)).collect();
    let others = match names.is_empty() {
        true => "true".to_owned(),
        false => format!("list NOT IN ({})", names.join(", ")),
    };
    let reader = store.readers().get()?;
    let sql = format!("SELECT count(*) FROM indicator_lists WHERE {others}");
    let any: i64 = reader.query_row(&sql, [], |row| row.get(0))?;
    drop(reader);
    if any == 0 {
        return Ok(());
    }
    let forgotten = store.run(move |writer| {
        writer.change(|c| -> Result<(), StoreError> {
            let sql = format!(
                "UPDATE indicators SET gone = make_timestamp(?) WHERE gone IS NULL AND {others}"
            );
            c.execute(&sql, [now.micros()])?;
            c.execute(&format!("DELETE FROM indicator_lists WHERE {others}"), [])?;
            Ok(())
        })
    });
    Ok(forgotten??)
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Every entry as a line of columns divided by tabs.
fn write_entries(source: &Source, list: &Path, to: &Path) -> anyhow::Result<()> {
    let text = fs::read(list).with_context(|| list.display().to_string())?;
    let file = File::create(to).with_context(|| to.display().to_string())?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut failed = None;
    entries(&source.list(), &text, &mut |listed| {
        if !listed.allow && failed.is_none() {
            failed = line(&listed, &mut out).err();
        }
    });
    match failed {
        Some(error) => Err(error),
        None => out.flush(),
    }
    .with_context(|| to.display().to_string())
}

fn line(listed: &Listed<'_>, out: &mut impl Write) -> std::io::Result<()> {
    let facts = match listed.comment {
        [] => Facts::default(),
        comment => Facts::read(comment),
    };
    match &listed.named {
        Named::Name(name) => {
            let domain = name.domain();
            write!(out, "{name}\tname\t{name}\t\t{domain}", name = name.as_str())?;
        }
        Named::Net(net) => {
            let network = net.network();
            let port = net.port().map(|port| port.to_string()).unwrap_or_default();
            if network.prefix_len() == network.max_prefix_len() {
                write!(out, "{net}\taddress\t{}\t{port}\t", network.addr())?;
            } else {
                write!(out, "{net}\tnetwork\t{network}\t{port}\t")?;
            }
        }
    }
    let page = listed.page.map(|page| printable(page, PAGE_BYTES)).unwrap_or_default();
    let micros = |time: Option<Timestamp>| time.map(|t| t.micros().to_string()).unwrap_or_default();
    let (first, expires) = (micros(facts.first_seen), micros(facts.expires));
    writeln!(out, "\t{page}\t{}\t{}\t{first}\t{expires}", facts.threat, facts.reference)
}

/// Writes what is new and what is over into files.
fn compare(reader: &Connection, name: &str, files: &Files) -> Result<(), StoreError> {
    let (all, name) = (path(&files.all), quoted(name));
    let fresh = format!(
        "read_csv({all}, delim = '\t', header = false, quote = '', escape = '', nullstr = '',
            auto_detect = false, columns = {{'entry': 'VARCHAR', 'kind': 'VARCHAR',
            'value': 'VARCHAR', 'port': 'USMALLINT', 'domain': 'VARCHAR', 'page': 'VARCHAR',
            'threat': 'VARCHAR', 'reference': 'VARCHAR', 'first_seen': 'BIGINT', 'expires': 'BIGINT'}})"
    );
    let known = format!("(SELECT entry FROM indicators WHERE list = {name} AND gone IS NULL)");
    // The same entry may stand there for several pages.
    reader.execute_batch(&format!(
        "COPY (SELECT entry, first(kind), first(value), first(port), first(domain), first(page),
                   first(threat), first(reference), make_timestamp(min(first_seen)), make_timestamp(max(expires))
               FROM {fresh} WHERE entry NOT IN {known} GROUP BY entry)
            TO {added} (FORMAT parquet);
         COPY (SELECT entry FROM {known} WHERE entry NOT IN (SELECT entry FROM {fresh}))
            TO {gone} (FORMAT parquet)",
        added = path(&files.added),
        gone = path(&files.gone)
    ))?;
    Ok(())
}

struct List<'a> {
    name: &'a str,
    origin: &'a str,
    licence: &'a str,
    score: f64,
    content: u64,
}

/// The difference, in the caller's transaction; how many are new.
fn take(
    c: &Connection,
    list: &List<'_>,
    added: &str,
    gone: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let now = now.micros();
    c.execute(
        &format!(
            "UPDATE indicators SET gone = make_timestamp(?1) WHERE list = ?2 AND gone IS NULL
                AND entry IN (SELECT entry FROM read_parquet({gone}))"
        ),
        params![now, list.name],
    )?;
    c.execute(
        &format!(
            "DELETE FROM indicators WHERE list = ?2 AND gone IS NOT NULL
                AND (gone < make_timestamp(?1) - INTERVAL {GONE_KEPT_DAYS} DAY
                     OR entry IN (SELECT entry FROM read_parquet({added})))"
        ),
        params![now, list.name],
    )?;
    let new = c.execute(
        &format!("INSERT INTO indicators SELECT ?2, *, make_timestamp(?1), NULL FROM read_parquet({added})"),
        params![now, list.name],
    )?;
    let known = c.execute(
        "UPDATE indicator_lists SET origin = ?, licence = ?, score = ?, content = ? WHERE list = ?",
        params![list.origin, list.licence, list.score, list.content, list.name],
    )?;
    if known == 0 {
        c.execute(
            "INSERT INTO indicator_lists VALUES (?, ?, ?, ?, ?, NULL)",
            params![list.name, list.origin, list.licence, list.score, list.content],
        )?;
    }
    Ok(new)
}
