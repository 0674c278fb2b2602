//! The feeds of abuse.ch, as CSV: columns by the names in the head line, wherever they stand.
//!
//! Formats: <https://urlhaus.abuse.ch/api/#csv>, <https://threatfox.abuse.ch/export/#csv>,
//! <https://feodotracker.abuse.ch/blocklist/>, <https://sslbl.abuse.ch/blacklist/>. The head
//! line is a comment in some of them; without one, the columns stand as published in 2026.

use csv::{ReaderBuilder, StringRecord, Trim};
use serde::Deserialize;

use super::{Out, text_of};
use crate::feeds::facts::{Facts, time};

/// `ThreatFox` itself calls what is below doubtful.
const CONFIDENCE_MIN: u32 = 50;

/// Where the columns of a table are; `N` of them are wanted.
struct Table<const N: usize> {
    wanted: [&'static str; N],
    at: [Option<usize>; N],
}

impl<const N: usize> Table<N> {
    /// With the places they have where no head line tells.
    fn new(columns: [(&'static str, usize); N]) -> Self {
        Self { wanted: columns.map(|(name, _)| name), at: columns.map(|(_, at)| Some(at)) }
    }

    /// Takes the places from a head line; false: it is none.
    fn head(&mut self, record: &StringRecord) -> bool {
        let at = self
            .wanted
            .map(|name| record.iter().position(|field| bare(field).eq_ignore_ascii_case(name)));
        // The first column wanted is the one that matters.
        let found = at.first().is_some_and(Option::is_some);
        if found {
            self.at = at;
        }
        found
    }

    fn fields<'r>(&self, record: &'r StringRecord) -> [&'r str; N] {
        self.at.map(|at| at.and_then(|at| record.get(at)).map(bare).unwrap_or_default())
    }
}

/// Head lines are commented out, and quoted or not.
fn bare(field: &str) -> &str {
    field.trim_matches(|c: char| matches!(c, '#' | '"') || c.is_whitespace())
}

/// Every record of a table.
fn table<const N: usize>(
    download: &[u8],
    mut columns: Table<N>,
    mut each: impl FnMut([&str; N]),
) -> Result<(), String> {
    let text = text_of(download)?;
    if text.trim_start().starts_with(['{', '[']) {
        return Err("is JSON: an error message?".into());
    }
    // Fields are quoted, divided by a comma, or by a comma and a blank: as one line is one
    // record here, a stray quote costs one line and not the rest.
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let comment = line.starts_with('#');
        let line = if comment { line.trim_start_matches(['#', ' ']) } else { line };
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(Trim::All)
            .from_reader(line.as_bytes());
        let mut record = StringRecord::new();
        if !reader.read_record(&mut record).unwrap_or(false) {
            continue;
        }
        if !columns.head(&record) && !comment {
            each(columns.fields(&record));
        }
    }
    Ok(())
}

pub(super) fn urlhaus(download: &[u8], out: &mut Out) -> Result<(), String> {
    let columns = [("url", 2), ("dateadded", 1), ("threat", 5), ("tags", 6), ("urlhaus_link", 7)];
    table(download, Table::new(columns), |[url, added, threat, tags, link]| {
        if !url.contains("://") {
            return out.skip("not an entry");
        }
        let tags = if tags.eq_ignore_ascii_case("none") { "" } else { tags };
        let threat = [threat, tags].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>();
        let facts = Facts {
            threat: threat.join(": "),
            reference: link.to_owned(),
            first_seen: time(added),
            expires: None,
        };
        out.page(url, &facts);
    })?;
    out.is_something("pages of URLhaus")
}

pub(super) fn threatfox(download: &[u8], out: &mut Out) -> Result<(), String> {
    let columns = [
        ("ioc_value", 2),
        ("ioc_type", 3),
        ("first_seen_utc", 0),
        ("malware_printable", 7),
        ("confidence_level", 9),
        ("ioc_id", 1),
    ];
    table(download, Table::new(columns), |[value, kind, first, malware, confidence, id]| {
        if confidence.parse().is_ok_and(|c: u32| c < CONFIDENCE_MIN) {
            return out.skip("of low confidence");
        }
        let facts = Facts {
            threat: malware.to_owned(),
            reference: format!("threatfox {id}"),
            first_seen: time(first),
            expires: None,
        };
        match kind {
            "url" => out.page(value, &facts),
            "domain" | "ip:port" => out.entry(value, &facts),
            kind if kind.ends_with("_hash") => out.skip("hashes of files"),
            _ => out.skip("of another kind"),
        }
    })?;
    out.is_something("indicators of ThreatFox")
}

pub(super) fn feodo(download: &[u8], out: &mut Out) -> Result<(), String> {
    if text_of(download)?.trim_start().starts_with('[') {
        return feodo_json(download, out);
    }
    let columns = [("dst_ip", 1), ("dst_port", 2), ("first_seen_utc", 0), ("malware", 5)];
    table(download, Table::new(columns), |[ip, port, first, malware]| {
        server(ip, port, malware, first, out);
    })?;
    out.is_something("servers of Feodo Tracker")
}

#[derive(Deserialize)]
struct FeodoServer {
    ip_address: String,
    port: Option<u16>,
    malware: Option<String>,
    first_seen: Option<String>,
}

fn feodo_json(download: &[u8], out: &mut Out) -> Result<(), String> {
    let servers: Vec<FeodoServer> = super::json::read(download)?;
    for s in servers {
        let port = s.port.map(|port| port.to_string()).unwrap_or_default();
        let (malware, first) = (s.malware.unwrap_or_default(), s.first_seen.unwrap_or_default());
        server(&s.ip_address, &port, &malware, &first, out);
    }
    // It may well be empty: no server is known at present.
    Ok(())
}

pub(super) fn sslbl(download: &[u8], out: &mut Out) -> Result<(), String> {
    let columns = [("DstIP", 1), ("DstPort", 2), ("Firstseen", 0)];
    table(download, Table::new(columns), |[ip, port, first]| {
        if ip.len() == 40 && ip.bytes().all(|b| b.is_ascii_hexdigit()) {
            return out.skip("hashes of certificates");
        }
        server(ip, port, "botnet server with a known certificate", first, out);
    })?;
    out.is_something("servers of SSLBL")
}

/// An address with the port it serves.
fn server(ip: &str, port: &str, threat: &str, first: &str, out: &mut Out) {
    let Ok(ip) = ip.parse::<std::net::IpAddr>() else { return out.skip("not an entry") };
    let entry = match port.parse::<u16>() {
        Ok(port) if port > 0 => std::net::SocketAddr::new(ip, port).to_string(),
        _ => ip.to_string(),
    };
    let first_seen = time(first);
    out.entry(&entry, &Facts { threat: threat.to_owned(), first_seen, ..Facts::default() });
}
