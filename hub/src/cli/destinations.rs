//! `agentmon destinations`: what kind of network an address is in, by which lists; newer or
//! more lists.
//!
//! Needs no store: the tables are files of the data directory, or the one built in.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use serde_json::Value;

use super::args::FormatArgs;
use super::context::Look;
use super::directory::Directory;
use super::places::{self, Part};
use super::print::Printer;
use super::sheet::{Column, Kind, Sheet};
use super::{text, units, when};
use crate::destinations::{self, Destinations, Source};

/// What `destinations` takes.
#[derive(Args, Debug)]
pub(crate) struct DestinationsArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// Addresses to look up
    #[arg(value_name = "ADDRESS", conflicts_with = "update")]
    pub(crate) addresses: Vec<IpAddr>,
    /// Takes lists in, as CLASS=FILE or CLASS:PROVIDER=FILE
    #[arg(long, value_name = "CLASS=FILE", num_args = 1..)]
    pub(crate) update: Vec<Source>,
    /// Source, licence and date of these lists, kept with them
    #[arg(long, value_name = "TEXT", requires = "update")]
    pub(crate) about: Option<String>,
}

const FOUND: &[Column] = &[
    Column::new("ADDRESS", |r, _| r.plain("address")),
    Column::new("CLASS", |r, _| r.plain("class")),
    Column::new("PROVIDER", |r, _| r.plain("provider")),
    Column::new("COUNTRY", |r, _| r.plain("country")),
    Column::new("AS", |r, _| r.plain("asn")),
];

const SECTIONS: &[Column] = &[
    Column::new("CLASS", |r, _| r.plain("class")),
    Column::new("PROVIDER", |r, _| r.plain("provider")),
    Column::new("NETWORKS", |r, _| r.count("networks")).right(),
    Column::new("FROM", |r, _| r.plain("from")),
    Column::new("ABOUT", |r, _| r.plain("about")),
];

pub(crate) fn run(
    args: &DestinationsArgs,
    data_dir: &Path,
    look: &Look,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<()> {
    if !args.update.is_empty() {
        return update(args, data_dir, look, err);
    }
    let table = Destinations::of_dir(data_dir);
    let (sheet, rows) =
        if args.addresses.is_empty() { sections(&table) } else { found(&table, &args.addresses) };
    let mut printer = Printer::new(args.format.format(), &sheet, look, out);
    for row in rows {
        printer.record(&sheet.record(row, &Directory::default()))?;
    }
    printer.finish()
}

type Rows = (Sheet, Vec<Vec<Value>>);

fn found(table: &Destinations, addresses: &[IpAddr]) -> Rows {
    let row = |address: &IpAddr| {
        let of = table.of(*address);
        let parts = [Part::Class, Part::Provider, Part::Country, Part::Asn];
        let said = parts.map(|part| places::value(&of, part));
        [vec![address.to_string().into()], said.to_vec()].concat()
    };
    let keys = ["address", "class", "provider", "country", "asn"].map(|key| (key, Kind::Plain));
    (Sheet::new(&keys, FOUND), addresses.iter().map(row).collect())
}

fn sections(table: &Destinations) -> Rows {
    let lists = table.sections().iter().map(|section| {
        let from = if section.own { "added" } else { "built in" };
        vec![
            section.class.as_str().into(),
            section.provider.clone().into(),
            section.networks.into(),
            from.into(),
            section.about.clone().into(),
        ]
    });
    let databases = table.databases().into_iter().map(|about| {
        vec!["country, AS".into(), "".into(), Value::Null, "database".into(), about.into()]
    });
    let keys = ["class", "provider", "networks", "from", "about"].map(|key| (key, Kind::Plain));
    (Sheet::new(&keys, SECTIONS), lists.chain(databases).collect())
}

fn update(
    args: &DestinationsArgs,
    data_dir: &Path,
    look: &Look,
    err: &mut dyn Write,
) -> anyhow::Result<()> {
    let read = || format!("read {}", when::long(look.now, &look.zone));
    let about = args.about.clone().unwrap_or_else(read);
    let place = destinations::file(data_dir);
    let before = std::fs::read_to_string(&place).unwrap_or_default();
    let after = destinations::update(&before, &args.update, &about)?;
    destinations::write(&place, &after)?;
    let own = Destinations::parse("", &after);
    let networks: usize = own.sections().iter().map(|section| section.networks).sum();
    let networks = units::count(u64::try_from(networks).unwrap_or(u64::MAX));
    let place = text::safe(&place.display().to_string()).into_owned();
    // A closed stderr stops nothing.
    drop(writeln!(err, "{networks} networks of your own in {place}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use agentmon_core::Timestamp;
    use clap::Parser;
    use jiff::tz::TimeZone;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DestinationsArgs,
    }

    #[track_caller]
    fn check(dir: &Path, line: &[&str], expected: &str) {
        let line = Line::try_parse_from([&["x", "--json"], line].concat()).unwrap();
        let now = Timestamp::from_secs(1_795_444_327);
        let look = Look { zone: TimeZone::UTC, now, width: None, color: false };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let done = run(&line.args, dir, &look, &mut out, &mut err);
        let failed = done.err().map(|error| format!("{error:#}")).unwrap_or_default();
        let shown = String::from_utf8([out, err].concat()).unwrap() + &failed;
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn look_ups_and_lists_of_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("exits.txt");
        std::fs::write(&list, "80.128.0.0/16\n").unwrap();
        let tor = format!("tor={}", list.display());
        check(dir.path(), &["80.128.0.1"], r#""class":"residential""#);
        check(dir.path(), &["2606:4700::1"], r#""provider":"cloudflare""#);
        check(dir.path(), &[], "CC0-1.0");
        check(dir.path(), &["--update", &tor, "--about", "mine; free; 2026"], "1 networks");
        check(dir.path(), &["80.128.0.1"], r#""class":"tor""#);
        check(dir.path(), &[], "mine; free; 2026");
        check(dir.path(), &["--update", "tor=/nonexistent/x"], "/nonexistent/x");
        assert!(Line::try_parse_from(["x", "--update", "onion=x"]).is_err());
        assert!(Line::try_parse_from(["x", "nonsense"]).is_err());
    }
}
