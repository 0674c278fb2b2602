//! Recorded DNS questions: tab-separated text with a header line, plain or packed by gzip.
//!
//! Columns, in any order, others ignored: `t_s` (seconds since some begin), `qtype` (word or
//! number) and `name` must be there; `client` (an address), `tunnel` (0 or 1), `rcode`
//! (number), `answers` (addresses, comma between them), `ttl` may be. Names are as in logs,
//! `\DDD` for odd bytes.
//!
//! Invariants: lines of at most [`LINE_BYTES_MAX`] and files of at most [`ROWS_MAX`] rows;
//! bad rows are counted, with the number of the first.

use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use agentmon_core::Name;
use agentmon_core::dns_wire::type_number;
use agentmon_core::event::{Answer, Dns, DnsStatus};
use anyhow::{Context as _, ensure};

/// Longest line that is read.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Most rows: a day of 80 busy devices is a tenth.
const ROWS_MAX: usize = 20_000_000;
/// Who asks where the file does not say.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2));

/// A recorded question.
#[derive(Debug)]
pub(super) struct Row {
    /// Since the begin of the recording.
    pub(super) at: Duration,
    /// Part of a tunnel.
    pub(super) tunnel: bool,
    pub(super) dns: Dns,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// In the order of time.
    pub(super) rows: Vec<Row>,
    pub(super) bad: usize,
}

/// Where the columns are.
#[derive(Debug)]
struct Columns {
    time: usize,
    qtype: usize,
    name: usize,
    client: Option<usize>,
    tunnel: Option<usize>,
    rcode: Option<usize>,
    answers: Option<usize>,
    ttl: Option<usize>,
}

impl Columns {
    fn of(header: &str) -> anyhow::Result<Self> {
        let at = |name: &str| header.split('\t').position(|column| column.trim() == name);
        let must = |name: &str| {
            at(name).with_context(|| format!("line 1: no column `{name}` in the header"))
        };
        Ok(Self {
            time: must("t_s")?,
            qtype: must("qtype")?,
            name: must("name")?,
            client: at("client"),
            tunnel: at("tunnel"),
            rcode: at("rcode"),
            answers: at("answers"),
            ttl: at("ttl"),
        })
    }

    /// `tunnel` says what a file without that column is.
    fn row(&self, line: &[u8], tunnel: bool) -> Option<Row> {
        let fields: Vec<&[u8]> = line.split(|b| *b == b'\t').collect();
        let bytes = |at: usize| fields.get(at).copied();
        let text = |at: usize| std::str::from_utf8(bytes(at)?).ok().map(str::trim);
        let given = |at: Option<usize>| at.and_then(text).filter(|text| !text.is_empty());
        let seconds: f64 = text(self.time)?.parse().ok()?;
        let client = match given(self.client) {
            Some(client) => client.parse().ok()?,
            None => CLIENT,
        };
        let answers = given(self.answers).unwrap_or_default().split(',');
        let answers = answers.filter_map(|a| a.trim().parse().ok()).map(Answer::Address);
        let rcode = given(self.rcode).and_then(|code| code.parse().ok());
        Some(Row {
            at: Duration::try_from_secs_f64(seconds).ok()?,
            tunnel: given(self.tunnel).map_or(tunnel, |t| t == "1"),
            dns: Dns {
                client,
                mac: None,
                name: Name::parse(bytes(self.name)?).ok()?,
                qtype: qtype(text(self.qtype)?)?,
                status: DnsStatus::Unknown,
                rcode,
                answers: answers.collect(),
                ttl: given(self.ttl).and_then(|ttl| ttl.parse().ok()),
                upstream: None,
                latency_us: None,
                blocked_by: None,
                source: "eval".into(),
            },
        })
    }
}

/// A word, or its number.
fn qtype(text: &str) -> Option<u16> {
    text.parse().ok().or_else(|| type_number(text))
}

/// Reads a whole file; `tunnel` says what its rows are where they do not say it.
pub(super) fn read(path: &Path, tunnel: bool) -> anyhow::Result<Rows> {
    let (mut input, _, _) = crate::import::open(path, |_| ())?;
    read_from(&mut input, tunnel).with_context(|| format!("reading {}", path.display()))
}

fn read_from(input: &mut dyn BufRead, tunnel: bool) -> anyhow::Result<Rows> {
    let (mut rows, mut line) = (Rows::default(), Vec::new());
    next_line(input, &mut line)?;
    let columns = Columns::of(&String::from_utf8_lossy(&line))?;
    while next_line(input, &mut line)? {
        if line.is_empty() {
            continue;
        }
        ensure!(rows.rows.len() < ROWS_MAX, "more than {ROWS_MAX} rows");
        match columns.row(&line, tunnel) {
            Some(row) => rows.rows.push(row),
            None => rows.bad += 1,
        }
    }
    ensure!(!rows.rows.is_empty(), "no row that can be read");
    rows.rows.sort_by_key(|row| row.at);
    Ok(rows)
}

/// The next line without its end; what is too long is cut, and then no row.
fn next_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let part = input.fill_buf()?;
        if part.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = part.iter().position(|b| *b == b'\n');
        let used = end.unwrap_or(part.len());
        if line.len() + used <= LINE_BYTES_MAX {
            line.extend_from_slice(part.get(..used).unwrap_or_default());
        } else {
            line.resize(1, b'?');
        }
        input.consume(used + usize::from(end.is_some()));
        if end.is_some() {
            while line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> anyhow::Result<Rows> {
        read_from(&mut text.as_bytes(), true)
    }

    #[test]
    fn columns_in_any_order_and_more_of_them() {
        let text = "name\tx\tqtype\tt_s\tclient\ttunnel\trcode\tanswers\n\
                    a\\190b.Example\t-\tTXT\t1.5\t192.0.2.7\t0\t3\t203.0.113.1,203.0.113.2\r\n\
                    b.example\t-\t65399\t0.25\t\t1\t\t\n";
        let rows = rows(text).unwrap().rows;
        assert_eq!(rows[0].at, Duration::from_millis(250), "sorted by time");
        assert_eq!((rows[0].dns.qtype, rows[0].dns.client, rows[0].tunnel), (65_399, CLIENT, true));
        let second = &rows[1];
        assert_eq!(second.dns.name.as_str(), "a\\190b.example");
        assert_eq!((second.dns.qtype, second.dns.rcode, second.tunnel), (16, Some(3), false));
        assert_eq!(second.dns.addresses().count(), 2);
    }

    #[test]
    fn bad_rows_are_counted_and_bad_files_refused() {
        let text =
            "t_s\tqtype\tname\nx\tA\ta.example\n-1\tA\ta.example\n1\tA\n1\tA\ta..b\n2\tA\tc\n";
        let read = rows(text).unwrap();
        assert_eq!((read.rows.len(), read.bad), (1, 4));
        let long = format!("t_s\tqtype\tname\n1\tA\t{}\n2\tA\tc\n", "a".repeat(200_000));
        assert_eq!(rows(&long).unwrap().bad, 1);
        for bad in ["", "t_s\tname\n1\ta\n", "t_s\tqtype\tname\n", "<html>\n"] {
            assert!(rows(bad).is_err(), "{bad}");
        }
    }
}
