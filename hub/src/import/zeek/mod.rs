//! History from Zeek's logs: conn, dns, http, ssl and the open_* ones, TSV or JSON.
//!
//! In: logs, plain or gzip. Out: for all others flows and DNS exchanges as wire batches
//! ([`super`]), and what only Zeek knows (uid, names said, exact times) as [`Chunk`]s for
//! tables of their own. Runs in the command line's process; memory bounded by one batch, one
//! chunk and one line.
//!
//! Exactly once: a log is named after its kind and its first record; how far it has been
//! read is stored with its rows, so that the next import goes on behind it. What was sent
//! but not yet noted as read is known again by its sequence number, the line's number. Rows
//! with a uid replace each other whatever log they come from.

mod mime;
pub mod read;
pub mod record;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use agentmon_core::Timestamp;
use anyhow::Context as _;

use super::{Send, Span, Stream, epoch};
use crate::store::zeek::{CHUNK_ROWS_MAX, Chunk};
use read::{Bad, Header, Line, Record, next_line, record};
use record::{Item, Kind, item};

/// How deep folders are searched: Zeek keeps a folder for each day.
const DEPTH_MAX: usize = 4;
/// Most logs of one import: four years of hourly ones.
const LOGS_MAX: usize = 200_000;

/// Where rows go.
pub struct Sinks<'a> {
    /// Events, to the store.
    pub batch: Send<'a>,
    /// Rows; tells how many were new.
    pub chunk: &'a mut dyn FnMut(Chunk) -> anyhow::Result<u64>,
    /// Events of which times.
    pub span: Span,
    /// Lines of a log that have been read before.
    pub known: &'a mut dyn FnMut(u64) -> anyhow::Result<u64>,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines read, headers included.
    pub lines: u64,
    /// Lines left out, by reason.
    pub bad: BTreeMap<&'static str, u64>,
    /// Lines read by an earlier import.
    pub known: u64,
    /// The last line was still being written: left for the next import.
    pub waiting: u64,
    /// Events outside the wanted times.
    pub passed: u64,
    /// Flows and DNS exchanges the store did not have.
    pub new_events: u64,
    /// Connections and names the store did not have.
    pub new_rows: u64,
}

impl Summary {
    fn bad(&mut self, why: Bad) {
        *self.bad.entry(why.as_str()).or_default() += 1;
    }
}

/// Reads a log to its end. `named`: what its file name says it is. `None`: it is no log, or
/// none that is read.
///
/// # Errors
/// When it cannot be read, or a sink fails; what was sent stays.
pub fn log(
    input: &mut impl BufRead,
    named: Option<Kind>,
    sinks: &mut Sinks<'_>,
) -> anyhow::Result<Option<Summary>> {
    let (mut header, mut line) = (Header::default(), Vec::new());
    let mut summary = Summary::default();
    let mut open: Option<Open> = None;
    loop {
        match next_line(input, &mut line).context("reading the log")? {
            Line::End => break,
            Line::Whole => {}
            // An object that is closed is whole.
            Line::Unended if line.ends_with(b"}") => {}
            Line::Unended => {
                summary.waiting = 1;
                break;
            }
            Line::TooLong => {
                summary.lines += 1;
                summary.bad(Bad::TooLong);
                continue;
            }
        }
        summary.lines += 1;
        let record = match record(&mut header, &line) {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            Err(why) => {
                summary.bad(why);
                continue;
            }
        };
        let log = match &mut open {
            Some(log) => log,
            None => {
                let Some(kind) = kind(&record, named) else { return Ok(None) };
                open.insert(Open::new(kind, &line, sinks)?)
            }
        };
        log.take(&record, sinks, &mut summary)?;
    }
    let Some(mut log) = open else {
        // A header and nothing else is a quiet hour; without one it is no log.
        return Ok((header.path.as_deref().and_then(Kind::of).is_some()).then_some(summary));
    };
    log.flush(sinks, &mut summary)?;
    summary.passed = log.stream.passed;
    Ok(Some(summary))
}

/// What the log itself says it is, else what its file name says.
fn kind(record: &Record<'_>, named: Option<Kind>) -> Option<Kind> {
    match record {
        Record::Tsv(header, _) if header.path.is_some() => Kind::of(header.path.as_deref()?),
        Record::Tsv(..) => named,
        Record::Json(_) => match record.text("_path") {
            Some(path) => Kind::of(&path),
            None => named,
        },
    }
}

/// A log on its way.
struct Open {
    kind: Kind,
    known: u64,
    stream: Stream,
    chunk: Chunk,
}

impl Open {
    fn new(kind: Kind, first: &[u8], sinks: &mut Sinks<'_>) -> anyhow::Result<Self> {
        let log = epoch(&[b"zeek", format!("{kind:?}").as_bytes(), first]);
        // How far it has been read is another thing for other times.
        let read = sinks.span.epoch(log);
        let chunk = Chunk { log: read, ..Chunk::default() };
        Ok(Self { kind, known: (sinks.known)(read)?, stream: Stream::new(log, sinks.span), chunk })
    }

    fn take(
        &mut self,
        record: &Record<'_>,
        sinks: &mut Sinks<'_>,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        let line = summary.lines;
        if line <= self.known {
            summary.known += 1;
            return Ok(());
        }
        let event = match item(self.kind, record) {
            Ok(Item::Conn(uid, conn, event)) => {
                if sinks.span.holds(event.time) {
                    self.chunk.push(uid, conn);
                }
                Some(event)
            }
            Ok(Item::Dns(event)) => Some(event),
            Ok(Item::Said(said)) => {
                let us = record.seconds("ts").map(|s| (s * 1e6) as i64);
                if us.is_none_or(|us| sinks.span.holds(Timestamp::from_micros(us))) {
                    self.chunk.said.extend(said);
                }
                None
            }
            Ok(Item::Nothing) => None,
            Err(why) => {
                summary.bad(why);
                None
            }
        };
        if let Some(event) = event {
            summary.new_events += self.stream.push_at(line, &event, sinks.batch)?;
        }
        let lines = usize::try_from(line - self.chunk.lines.max(self.known)).unwrap_or(usize::MAX);
        if self.chunk.rows() >= CHUNK_ROWS_MAX || lines >= CHUNK_ROWS_MAX {
            self.flush(sinks, summary)?;
        }
        Ok(())
    }

    /// Events first: what is noted as read has been stored.
    fn flush(&mut self, sinks: &mut Sinks<'_>, summary: &mut Summary) -> anyhow::Result<()> {
        summary.new_events += self.stream.flush(sinks.batch)?;
        if summary.lines <= self.known {
            return Ok(());
        }
        let next = Chunk { log: self.chunk.log, lines: summary.lines, ..Chunk::default() };
        let mut chunk = std::mem::replace(&mut self.chunk, next);
        chunk.lines = summary.lines;
        summary.new_rows += (sinks.chunk)(chunk)?;
        Ok(())
    }
}

/// What a file name says: `conn.log`, `open_conn.18_00_00-19_00_00.log.gz`.
#[must_use]
pub fn kind_of_name(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_prefix("json_streaming_").unwrap_or(name);
    let (word, rest) = name.split_once('.')?;
    let is_log = rest.split('.').any(|part| part == "log");
    is_log.then(|| Kind::of(word)).flatten()
}

/// The logs of files and folders: names before connections, open before closed, else by
/// name. Files that were named are taken whatever they are called.
///
/// # Errors
/// When a folder cannot be read, or holds too many.
pub fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<(Option<Kind>, PathBuf)>> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            walk(path, DEPTH_MAX, &mut found)?;
        } else {
            found.push((kind_of_name(path), path.clone()));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn walk(
    folder: &Path,
    depth: usize,
    found: &mut Vec<(Option<Kind>, PathBuf)>,
) -> anyhow::Result<()> {
    let reading = || format!("reading {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        // Links to folders could lead round in a circle: Zeek's `current` is one, to logs
        // that are still being written elsewhere.
        let about = std::fs::symlink_metadata(&path).with_context(reading)?;
        if about.is_dir() && depth > 0 {
            walk(&path, depth - 1, found)?;
        } else if !about.is_dir()
            && path.is_file()
            && let Some(kind) = kind_of_name(&path)
        {
            anyhow::ensure!(found.len() < LOGS_MAX, "more than {LOGS_MAX} logs; name fewer");
            found.push((Some(kind), path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agentmon_core::wire::Batch;

    use super::*;

    /// What a hub keeps: events by (epoch, seq), rows, and lines of logs.
    #[derive(Default, PartialEq, Debug)]
    struct Store {
        events: BTreeMap<(u64, u64), Vec<u8>>,
        rows: BTreeMap<u64, Vec<Chunk>>,
        lines: BTreeMap<u64, u64>,
        /// Fails at this many chunks.
        fails_at: Option<usize>,
    }

    fn import(store: &mut Store, named: &str, text: &[u8]) -> anyhow::Result<Option<Summary>> {
        let shared = std::cell::RefCell::new(store);
        let mut batch = |batch: Batch| {
            let mut store = shared.borrow_mut();
            let before = store.events.len();
            for (seq, event) in (batch.first_seq..).zip(batch.events) {
                store.events.entry((batch.epoch, seq)).or_insert(event);
            }
            Ok((store.events.len() - before) as u64)
        };
        let mut chunk = |chunk: Chunk| {
            let mut store = shared.borrow_mut();
            let chunks: usize = store.rows.values().map(Vec::len).sum();
            anyhow::ensure!(store.fails_at != Some(chunks), "broken off");
            store.lines.insert(chunk.log, chunk.lines);
            let rows = chunk.rows() as u64;
            store.rows.entry(chunk.log).or_default().push(chunk);
            Ok(rows)
        };
        let mut known = |log: u64| Ok(shared.borrow().lines.get(&log).copied().unwrap_or(0));
        let span = Span::default();
        let mut sinks = Sinks { batch: &mut batch, chunk: &mut chunk, span, known: &mut known };
        log(&mut { text }, Kind::of(named), &mut sinks)
    }

    fn conns(n: usize) -> Vec<u8> {
        let line = |i: usize| {
            format!(
                "{{\"ts\":{}.5,\"uid\":\"C{i}\",\"id.orig_h\":\"192.168.7.2\",\
                 \"id.resp_h\":\"203.0.113.9\",\"proto\":\"tcp\"}}\n",
                1_700_000_000 + i
            )
        };
        (0..n).map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn again_changes_nothing_and_growth_adds() {
        let mut store = Store::default();
        let first = import(&mut store, "conn", &conns(10)).unwrap().unwrap();
        assert_eq!((first.lines, first.new_events, first.new_rows), (10, 10, 10));
        let again = import(&mut store, "conn", &conns(10)).unwrap().unwrap();
        assert_eq!((again.known, again.new_events, again.new_rows), (10, 0, 0));
        let grown = import(&mut store, "conn", &conns(12)).unwrap().unwrap();
        assert_eq!((grown.known, grown.new_events, grown.new_rows), (10, 2, 2));
    }

    #[test]
    fn a_broken_off_import_goes_on() {
        let text = conns(CHUNK_ROWS_MAX * 2 + 5);
        let mut straight = Store::default();
        import(&mut straight, "conn", &text).unwrap();
        let mut store = Store { fails_at: Some(1), ..Store::default() };
        assert!(import(&mut store, "conn", &text).is_err());
        store.fails_at = None;
        import(&mut store, "conn", &text).unwrap();
        assert_eq!(store.events, straight.events);
        assert_eq!(store.lines, straight.lines);
        let rows = |s: &Store| s.rows.values().flatten().map(Chunk::rows).sum::<usize>();
        assert_eq!(rows(&store), rows(&straight));
    }

    #[test]
    fn what_is_no_log_is_told_apart() {
        let mut store = Store::default();
        assert_eq!(import(&mut store, "", b"# About\nSome words.\n").unwrap(), None);
        assert_eq!(import(&mut store, "weird", &conns(2)).unwrap(), None);
        let other = b"#separator \\x09\n#path\tweird\n#fields\tts\tuid\n1\tC1\n";
        assert_eq!(import(&mut store, "conn", other).unwrap(), None);
        let quiet = b"#separator \\x09\n#path\tconn\n#fields\tts\tuid\n#close\tx\n";
        assert_eq!(import(&mut store, "", quiet).unwrap().unwrap().lines, 4);
        assert_eq!(store, Store::default());
    }

    #[test]
    fn bad_lines_are_counted_by_reason() {
        let mut text = b"{\"ts\":1\nwords\n\xff\n{\"ts\":1}\n".to_vec();
        text.extend(conns(3));
        text.extend(b"{\"ts\":17");
        let summary = import(&mut Store::default(), "conn", &text).unwrap().unwrap();
        let bad: Vec<_> = summary.bad.iter().map(|(why, n)| (*why, *n)).collect();
        let expected = [
            ("broken JSON", 1),
            ("not text", 1),
            ("without a header", 1),
            ("without addresses", 1),
        ];
        assert_eq!(bad, expected);
        assert_eq!((summary.waiting, summary.new_rows), (1, 3));
    }

    #[test]
    fn file_names_and_order() {
        let dir = tempfile::tempdir().unwrap();
        let day = dir.path().join("2026-11-23");
        std::fs::create_dir(&day).unwrap();
        for name in ["conn.log", "open_conn.17_32-18_00.log.gz", "ABOUT.md", "weird.log", "dns.log"]
        {
            std::fs::write(day.join(name), "").unwrap();
        }
        let found = find(&[dir.path().to_owned()]).unwrap();
        let kinds: Vec<_> = found.iter().filter_map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::Dns, Kind::OpenConn, Kind::Conn]);
        let named = find(&[day.join("ABOUT.md")]).unwrap();
        assert_eq!(named, [(None, day.join("ABOUT.md"))]);
    }
}
