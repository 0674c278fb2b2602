//! History from files: the log of Pi-hole or dnsmasq as batches for the store.
//!
//! In: a log, plain or gzip, whole or still growing. Out: wire batches of two streams, the
//! events and what tier-0 thinks of them, to whoever sends them to the hub. Runs in the
//! command line's process; memory bounded by one batch of each stream.
//!
//! Exactly once, also for a file that has grown or was rotated and renamed in between:
//! - a stream's epoch is made of the log's first line (with its date, process and name no
//!   two logs share it), and, for findings, of the lists in force;
//! - the sequence number is the place in the log: what a longer log begins with gives the
//!   same events, since nothing but the lines decides (a question without an answer is only
//!   given up once log time or, at the file's end, real time has gone on far enough).

pub mod conntrack;
pub mod ftl;
pub mod pcap;
pub mod python;
pub mod python_config;
pub mod zeek;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use agentmon_core::event::Body;
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::tier0::{Engine, Tier0Config};
use agentmon_core::wire::{self, Batch, Health};
use agentmon_core::{Event, Timestamp};
use agentmon_router::collect::dnsmasq_log::Reader;
use agentmon_router::localtime::Zone;
use anyhow::Context as _;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// Longest line read; longer ones are skipped and counted. A name has at most 1 KiB.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
/// Events in one batch: one transaction of about 0.2 s.
const BATCH_EVENTS: usize = 20_000;
/// Bytes in one batch, half of what the wire allows.
const BATCH_BYTES: usize = wire::BATCH_BYTES_MAX / 2;

/// The store, as an import sees it.
pub trait Sink {
    /// Takes a batch, stamped with the time of sending; returns how many of its events were
    /// new.
    ///
    /// # Errors
    /// When it cannot be stored.
    fn batch(&mut self, batch: Batch) -> anyhow::Result<u64>;

    /// What is stored of a log, by the times that were wanted of it each time; from then on
    /// `span` is one of them, in a stream of that epoch.
    ///
    /// # Errors
    /// When nobody answers.
    fn stored(&mut self, _log: u64, _span: Span, _epoch: u64) -> anyhow::Result<Vec<Stored>> {
        Ok(Vec::new())
    }
}

impl<F: FnMut(Batch) -> anyhow::Result<u64>> Sink for F {
    fn batch(&mut self, batch: Batch) -> anyhow::Result<u64> {
        self(batch)
    }
}

/// Where batches go.
pub type Send<'a> = &'a mut dyn Sink;

/// Part of a log that is stored: all events of those times, up to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The stream it came in.
    pub epoch: u64,
    /// Of which times.
    pub span: Span,
    /// Number of the last.
    pub seq: u64,
}

/// Events of which times are wanted. What lies outside is passed over, but has its number.
///
/// A log of which only some times are imported makes a stream of its own for them; what another
/// import has brought of the same log ([`Stored`]) is not sent again. So each event is stored
/// once, whichever times are asked for, in whichever order, and wherever an import ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Up to this time.
    pub until: Option<Timestamp>,
}

impl Span {
    /// The epoch of the stream of these times of a log.
    pub(crate) fn epoch(self, log: u64) -> u64 {
        if self == Self::default() {
            return log;
        }
        let point = |t: Option<Timestamp>| t.map_or(i64::MIN, Timestamp::micros).to_be_bytes();
        epoch(&[b"span", &log.to_be_bytes(), &point(self.since), &point(self.until)])
    }

    /// Is that time wanted?
    #[must_use]
    pub fn holds(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }
}

/// One log to import.
#[derive(Debug)]
pub struct Log<R> {
    /// Its text, unpacked.
    pub input: R,
    /// When it was last written to: tells the year of its lines.
    pub written: Timestamp,
    /// The time now: what is long over is given up.
    pub now: Timestamp,
    /// The zone its lines are written in.
    pub zone: Zone,
    /// Events of which times.
    pub span: Span,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines read.
    pub lines: u64,
    /// Lines skipped because they were longer than [`LINE_BYTES_MAX`].
    pub too_long: u64,
    /// Lines that were not understood.
    pub unknown: u64,
    /// Questions of clients.
    pub queries: u64,
    /// Questions at the end that may still be answered: left for the next import.
    pub waiting: u64,
    /// Events outside the wanted times.
    pub passed: u64,
    /// Events that the store did not have yet.
    pub new_events: u64,
    /// Findings that the store did not have yet.
    pub new_findings: u64,
}

/// Opens a log; what begins like gzip (RFC 1952) is unpacked on the way. `count` is told
/// the bytes read from the disk.
///
/// # Errors
/// When it cannot be opened or read.
pub fn open<'a>(
    path: &Path,
    count: impl FnMut(u64) + 'a,
) -> anyhow::Result<(Box<dyn BufRead + 'a>, Timestamp, u64)> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let about = file.metadata().with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(about.is_file(), "{} is not a file", path.display());
    let written = about.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    let written = written.map_or(Timestamp::EPOCH, |since| Timestamp::EPOCH.plus(since));
    let mut input = BufReader::with_capacity(256 * 1024, Counting { inner: file, count });
    let head = input.fill_buf().with_context(|| format!("reading {}", path.display()))?;
    if head.starts_with(&[0x1f, 0x8b]) {
        let unpacked = BufReader::with_capacity(256 * 1024, MultiGzDecoder::new(input));
        return Ok((Box::new(unpacked), written, about.len()));
    }
    Ok((Box::new(input), written, about.len()))
}

struct Counting<R, F> {
    inner: R,
    count: F,
}

impl<R: Read, F: FnMut(u64)> Read for Counting<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        (self.count)(u64::try_from(n).unwrap_or(0));
        Ok(n)
    }
}

/// Reads a log to its end and sends what it holds.
///
/// # Errors
/// When the log cannot be read, or `send` fails; what was sent stays, and the next import
/// goes on behind it.
pub fn pihole_log<R: BufRead>(
    mut log: Log<R>,
    config: &Tier0Config,
    lists: (Blocklist, &str),
    send: Send<'_>,
) -> anyhow::Result<Summary> {
    let mut reader = Reader::new(log.zone.clone());
    let mut engine = Engine::new(config, lists.0);
    let mut summary = Summary::default();
    let mut streams: Option<Streams> = None;
    let (mut line, mut events) = (Vec::new(), Vec::new());
    loop {
        match next_line(&mut log.input, &mut line).context("reading the log")? {
            Line::End => break,
            Line::TooLong => {
                summary.too_long += 1;
                continue;
            }
            Line::Whole => {}
        }
        let streams = streams.get_or_insert_with(|| Streams::new(&line, lists.1, log.span));
        reader.line(&line, log.written, &mut events);
        streams.take(&mut events, &mut engine, send, &mut summary)?;
    }
    if let Some(mut streams) = streams {
        // Silence since the last line is silence of the log.
        reader.idle(log.now.since(log.written), &mut events);
        streams.take(&mut events, &mut engine, send, &mut summary)?;
        streams.finish(send, &mut summary)?;
    }
    let counts = reader.counts();
    (summary.lines, summary.queries) = (counts.lines, counts.queries);
    summary.unknown = counts.unknown_lines;
    summary.waiting = u64::try_from(reader.waiting()).unwrap_or(u64::MAX);
    Ok(summary)
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// The next line without its newline. A last line without one counts only when the file
/// is complete, which nobody can know: it is left for the next import.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    input.by_ref().take(most).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Line::Whole);
    }
    if line.len() < LINE_BYTES_MAX {
        return Ok(Line::End);
    }
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(Line::End);
        }
        let end = chunk.iter().position(|b| *b == b'\n');
        let used = end.map_or(chunk.len(), |i| i + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(Line::TooLong);
        }
    }
}

/// The two streams of one log.
struct Streams {
    events: Stream,
    findings: Stream,
}

impl Streams {
    fn new(first_line: &[u8], lists: &str, span: Span) -> Self {
        Self {
            events: Stream::new(epoch(&[b"events", first_line]), span),
            findings: Stream::new(epoch(&[b"findings", first_line, lists.as_bytes()]), span),
        }
    }

    fn take(
        &mut self,
        events: &mut Vec<Event>,
        engine: &mut Engine,
        send: Send<'_>,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        let mut found = Vec::new();
        for mut event in events.drain(..) {
            engine.on_event(&mut event, &mut found);
            summary.new_events += self.events.push(&event, send)?;
        }
        for found in found {
            let event = Event { time: found.time, body: Body::Finding(found.finding) };
            summary.new_findings += self.findings.push(&event, send)?;
        }
        Ok(())
    }

    /// What is left. Verdicts that still wait in tier-0 are about connections; a DNS log
    /// has none.
    fn finish(&mut self, send: Send<'_>, summary: &mut Summary) -> anyhow::Result<()> {
        summary.new_events += self.events.flush(send)?;
        summary.new_findings += self.findings.flush(send)?;
        summary.passed = self.events.passed;
        Ok(())
    }
}

/// Names a stream: 63 bits of SHA-256, so that it is a positive number everywhere.
pub(crate) fn epoch(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let head = digest.iter().take(8).fold(0u64, |n, b| (n << 8) | u64::from(*b));
    (head >> 1).max(1)
}

/// Events on their way, in the order of their sequence numbers.
struct Stream {
    log: u64,
    /// What is stored already, once that was asked for.
    stored: Option<Vec<Stored>>,
    next_seq: u64,
    waiting: Vec<Vec<u8>>,
    bytes: usize,
    span: Span,
    /// Events outside the span.
    passed: u64,
}

impl Stream {
    const fn new(log: u64, span: Span) -> Self {
        Self { log, stored: None, next_seq: 1, waiting: Vec::new(), bytes: 0, span, passed: 0 }
    }

    /// Has the store the event that comes next?
    fn known(&mut self, time: Timestamp, send: Send<'_>) -> anyhow::Result<bool> {
        let stored = match &self.stored {
            Some(stored) => stored,
            None => {
                let stored = send.stored(self.log, self.span, self.span.epoch(self.log))?;
                self.stored.insert(stored)
            }
        };
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        let seq = self.next_seq.saturating_add(waiting);
        Ok(stored.iter().any(|part| seq <= part.seq && part.span.holds(time)))
    }

    /// An event with a number of its own, greater than the last.
    fn push_at(&mut self, seq: u64, event: &Event, send: Send<'_>) -> anyhow::Result<u64> {
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        let mut new = 0;
        if seq != self.next_seq.saturating_add(waiting) {
            new += self.flush(send)?;
            self.next_seq = seq;
        }
        Ok(new + self.push(event, send)?)
    }

    fn push(&mut self, event: &Event, send: Send<'_>) -> anyhow::Result<u64> {
        let wanted = self.span.holds(event.time);
        if !wanted || self.known(event.time, send)? {
            self.passed += u64::from(!wanted);
            let new = self.flush(send)?;
            self.next_seq += 1;
            return Ok(new);
        }
        let encoded = wire::encode_event(event);
        self.bytes += encoded.len();
        self.waiting.push(encoded);
        if self.waiting.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES {
            return self.flush(send);
        }
        Ok(0)
    }

    fn flush(&mut self, send: Send<'_>) -> anyhow::Result<u64> {
        if self.waiting.is_empty() {
            return Ok(0);
        }
        let batch = Batch {
            epoch: self.span.epoch(self.log),
            first_seq: self.next_seq,
            events: std::mem::take(&mut self.waiting),
            health: Health { version: env!("CARGO_PKG_VERSION").to_owned(), ..Health::default() },
            // Whoever sends it knows when.
            sent: Timestamp::EPOCH,
        };
        self.next_seq += u64::try_from(batch.events.len()).unwrap_or(u64::MAX);
        self.bytes = 0;
        send.batch(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write as _;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// 2026-11-23T14:32:07Z.
    const WRITTEN: Timestamp = Timestamp::from_secs(1_795_444_327);

    /// What a hub keeps: by epoch the events in order. A batch that overlaps must say the
    /// same again: else a longer log would not begin with the events of a shorter one.
    #[derive(Default)]
    struct Store(HashMap<u64, Vec<Vec<u8>>>);

    impl Store {
        fn take(&mut self, batch: &Batch) -> u64 {
            let known = self.0.entry(batch.epoch).or_default();
            let mut new = 0;
            for (seq, event) in (batch.first_seq..).zip(&batch.events) {
                let at = usize::try_from(seq).unwrap() - 1;
                assert!(at <= known.len(), "a hole before {seq}");
                match known.get(at) {
                    Some(same) => assert_eq!(
                        wire::decode_event(same).unwrap(),
                        wire::decode_event(event).unwrap()
                    ),
                    None => {
                        known.push(event.clone());
                        new += 1;
                    }
                }
            }
            new
        }
        fn events(&self) -> usize {
            self.0.values().map(Vec::len).sum()
        }
    }

    fn import(store: &mut Store, text: &[u8], now: Timestamp) -> Summary {
        let span = Span::default();
        let log = Log { input: text, written: WRITTEN, now, zone: Zone::utc(), span };
        let mut config = Tier0Config::default();
        config.blocklist.repeat_seconds = 1;
        let mut builder = config.blocklist.builder();
        builder.list("test", 0.8, b"listed.example");
        let mut send = |batch: Batch| Ok(store.take(&batch));
        pihole_log(log, &config, (builder.build(), "test"), &mut send).unwrap()
    }

    /// Ten minutes of two clients, answers out of order, some missing.
    fn lines() -> Vec<String> {
        let mut lines = Vec::new();
        for i in 0..60u32 {
            let (minute, second, client) = (20 + i / 6, i % 6 * 10, 10 + i % 2);
            let head = format!(
                "Nov 23 14:{minute:02}:{second:02} dnsmasq[77]: {i} 192.168.77.{client}/4000"
            );
            let name = if i % 7 == 0 { "listed.example".into() } else { format!("n{i}.example") };
            lines.push(format!("{head} query[A] {name} from 192.168.77.{client}"));
            lines.push(format!("{head} forwarded {name} to 192.0.2.1"));
            if i % 11 != 3 {
                lines.push(format!("{head} reply {name} is 203.0.113.{}", i + 1));
            }
        }
        lines.swap(4, 6);
        lines
    }

    fn text(lines: &[String]) -> Vec<u8> {
        lines.iter().flat_map(|l| [l.as_bytes(), b"\n"].concat()).collect()
    }

    #[test]
    fn the_same_log_again_changes_nothing() {
        let (mut store, log) = (Store::default(), text(&lines()));
        let later = WRITTEN.plus(Duration::from_secs(3_600));
        let first = import(&mut store, &log, later);
        assert_eq!((first.queries, first.new_events, first.waiting), (60, 60, 0));
        assert!(first.new_findings > 0);
        let again = import(&mut store, &log, later);
        assert_eq!((again.new_events, again.new_findings), (0, 0));
        assert_eq!(store.events() as u64, first.new_events + first.new_findings);
    }

    /// Cut anywhere, also within an exchange or a line: first the head, then the whole.
    #[test]
    fn a_log_that_has_grown_adds_what_is_new() {
        let whole = text(&lines());
        let later = WRITTEN.plus(Duration::from_secs(3_600));
        let mut straight = Store::default();
        import(&mut straight, &whole, later);
        for cut in (0..whole.len()).step_by(37) {
            let mut store = Store::default();
            // While it grows, the head was written just now.
            import(&mut store, &whole[..cut], WRITTEN);
            import(&mut store, &whole, later);
            assert_eq!(store.0, straight.0, "cut at {cut}");
        }
    }

    #[test]
    fn other_logs_are_other_streams() {
        let mut store = Store::default();
        import(&mut store, &text(&lines()), WRITTEN);
        let before = store.events();
        let other: Vec<String> = lines().iter().map(|l| l.replace("Nov 23", "Nov 22")).collect();
        assert!(import(&mut store, &text(&other), WRITTEN).new_events > 0);
        assert!(store.events() > before);
    }

    #[test]
    fn garbage_is_counted_and_passed_over() {
        let mut log = b"\x00\xff garbage\n".to_vec();
        log.extend(vec![b'x'; LINE_BYTES_MAX * 3]);
        log.push(b'\n');
        log.extend(text(&lines()));
        let summary = import(&mut Store::default(), &log, WRITTEN);
        assert_eq!((summary.too_long, summary.queries), (1, 60));
        assert_eq!(import(&mut Store::default(), b"", WRITTEN), Summary::default());
    }

    #[test]
    fn gzip_is_unpacked_and_is_the_same_log() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&plain, text(&lines())).unwrap();
        let file = File::create(&packed).unwrap();
        let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gz.write_all(&text(&lines())).unwrap();
        gz.finish().unwrap();
        let read = |path: &Path| {
            let mut count = 0;
            let mut all = String::new();
            let (mut input, ..) = open(path, |n| count += n).unwrap();
            input.read_to_string(&mut all).unwrap();
            drop(input);
            assert_eq!(count, std::fs::metadata(path).unwrap().len());
            all
        };
        assert!(read(&plain) == read(&packed));
        assert!(open(dir.path(), |_| ()).err().unwrap().to_string().contains("not a file"));
    }

    /// A store of one source that ends an import after some batches.
    #[derive(Default)]
    struct Spans {
        /// By epoch: its span, and how far it is stored.
        parts: HashMap<u64, (Span, u64)>,
        /// How often each event was stored, by its number in the log.
        events: HashMap<u64, u32>,
        left: usize,
    }

    impl Sink for Spans {
        fn batch(&mut self, batch: Batch) -> anyhow::Result<u64> {
            self.left = self.left.checked_sub(1).context("broken off")?;
            let part = self.parts.entry(batch.epoch).or_default();
            let mut new = 0;
            for seq in (batch.first_seq..).take(batch.events.len()) {
                if seq > part.1 {
                    part.1 = seq;
                    *self.events.entry(seq).or_default() += 1;
                    new += 1;
                }
            }
            Ok(new)
        }

        fn stored(&mut self, log: u64, span: Span, epoch: u64) -> anyhow::Result<Vec<Stored>> {
            assert_eq!(epoch == log, span == Span::default());
            self.parts.entry(epoch).or_insert((span, 0)).0 = span;
            let part = |(epoch, (span, seq)): (&u64, &(Span, u64))| Stored {
                epoch: *epoch,
                span: *span,
                seq: *seq,
            };
            Ok(self.parts.iter().map(part).collect())
        }
    }

    proptest! {
        /// Whatever times of a log are imported, in whatever order, wherever it ends, and
        /// however it has grown: each wanted event is there, and once.
        #[test]
        fn each_event_once_whichever_times_are_asked_for(
            times in prop::collection::vec(0i64..50, 1..60),
            imports in prop::collection::vec((prop::option::of(0i64..50), prop::option::of(0i64..50), 0usize..6, 1usize..60), 0..6),
        ) {
            let at = |t: i64| Timestamp::from_secs(1_700_000_000 + t);
            let mut store = Spans::default();
            let mut wanted = std::collections::HashSet::new();
            let all = (None, None, usize::MAX, usize::MAX);
            for (since, until, left, length) in imports.into_iter().chain([all]) {
                store.left = left;
                let span = Span { since: since.map(at), until: until.map(at) };
                let mut stream = Stream::new(7, span);
                let mut read = || -> anyhow::Result<()> {
                    for (n, t) in times.iter().enumerate().take(length) {
                        let gap = agentmon_core::event::Gap { collector: String::new(), from: at(*t), reason: String::new(), lost: None };
                        let event = Event { time: at(*t), body: Body::Gap(gap) };
                        stream.push(&event, &mut store)?;
                        if n % 7 == 0 {
                            stream.flush(&mut store)?;
                        }
                    }
                    stream.flush(&mut store).map(drop)
                };
                if read().is_ok() {
                    let of = times.iter().take(length).enumerate().filter(|(_, t)| span.holds(at(**t)));
                    wanted.extend(of.map(|(n, _)| n as u64 + 1));
                }
                prop_assert!(wanted.iter().all(|n| store.events.contains_key(n)));
                prop_assert!(store.events.values().all(|times| *times == 1));
            }
            prop_assert_eq!(store.events.len(), times.len());
        }
    }
}
