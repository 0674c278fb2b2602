//! `agentmon vendors`: who made a device, by which table; a newer table.
//!
//! Needs no store: the table is a file of the data directory, or the one built in.

use std::io::Write;
use std::path::Path;

use agentmon_core::event::Mac;
use anyhow::Context as _;
use serde_json::Value;

use super::args::VendorsArgs;
use super::context::Look;
use super::directory::Directory;
use super::print::Printer;
use super::sheet::{Column, Kind, Sheet};
use super::{text, units, when};
use crate::vendors::{self, Vendors};

const MADE: &[Column] = &[
    Column::new("MAC", |r, _| r.plain("mac")),
    Column::new("KIND", |r, _| r.plain("mac_kind")),
    Column::new("MAKER", |r, _| r.plain("vendor")),
];

const TABLE: &[Column] = &[
    Column::new("TABLE", |r, _| r.plain("table")),
    Column::new("OF", |r, _| r.plain("about")),
    Column::new("MA-L", |r, _| r.count("ma_l")).right(),
    Column::new("MA-M", |r, _| r.count("ma_m")).right(),
    Column::new("MA-S", |r, _| r.count("ma_s")).right(),
];

pub(crate) fn run(
    args: &VendorsArgs,
    data_dir: &Path,
    look: &Look,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<()> {
    if !args.update.is_empty() {
        return update(args, data_dir, look, err);
    }
    let table = Vendors::of(data_dir);
    let (sheet, rows) =
        if args.macs.is_empty() { about(&table, data_dir) } else { made(&table, &args.macs)? };
    let mut printer = Printer::new(args.format.format(), &sheet, look, out);
    for row in rows {
        printer.record(&sheet.record(row, &Directory::default()))?;
    }
    printer.finish()
}

type Rows = (Sheet, Vec<Vec<Value>>);

fn about(table: &Vendors, data_dir: &Path) -> Rows {
    let own = vendors::file(data_dir);
    let place = if own.exists() { own.display().to_string() } else { "built in".to_owned() };
    let [large, medium, small] = table.blocks();
    let row = vec![place.into(), table.about().into(), large.into(), medium.into(), small.into()];
    let keys = ["table", "about", "ma_l", "ma_m", "ma_s"].map(|key| (key, Kind::Plain));
    (Sheet::new(&keys, TABLE), vec![row])
}

fn made(table: &Vendors, macs: &[String]) -> anyhow::Result<Rows> {
    let row = |text: &String| -> anyhow::Result<Vec<Value>> {
        let mac: Mac = text.parse().with_context(|| format!("`{}`", text::safe(text)))?;
        Ok(vec![
            mac.to_string().into(),
            mac.kind().as_str().into(),
            table.of_mac(mac).map(Value::from).unwrap_or_default(),
        ])
    };
    let rows = macs.iter().map(row).collect::<Result<_, _>>()?;
    let keys = ["mac", "mac_kind", "vendor"].map(|key| (key, Kind::Plain));
    Ok((Sheet::new(&keys, MADE), rows))
}

fn update(
    args: &VendorsArgs,
    data_dir: &Path,
    look: &Look,
    err: &mut dyn Write,
) -> anyhow::Result<()> {
    let today = when::long(look.now, &look.zone);
    let about = format!("IEEE Registration Authority, read {today}");
    let text = vendors::read_sources(&args.update, &about)?;
    let blocks = Vendors::parse(&text).len();
    std::fs::create_dir_all(data_dir).with_context(|| data_dir.display().to_string())?;
    let place = vendors::file(data_dir);
    vendors::write(&place, &text)?;
    let blocks = units::count(u64::try_from(blocks).unwrap_or(u64::MAX));
    // A closed stderr stops nothing.
    drop(writeln!(err, "{blocks} blocks in {}", text::safe(&place.display().to_string())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use agentmon_core::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::cli::args::FormatArgs;

    fn look() -> Look {
        let now = Timestamp::from_secs(1_795_444_327);
        Look { zone: TimeZone::UTC, now, width: None, color: false }
    }

    #[track_caller]
    fn check(macs: &[&str], update: &[&Path], dir: &Path, expected: Result<&str, &str>) {
        let args = VendorsArgs {
            format: FormatArgs { json: true, csv: false },
            macs: macs.iter().map(|m| (*m).into()).collect(),
            update: update.iter().map(|p| (*p).into()).collect(),
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let done = run(&args, dir, &look(), &mut out, &mut err);
        let shown = String::from_utf8([out, err].concat()).unwrap();
        match (done, expected) {
            (Ok(()), Ok(part)) => assert!(shown.contains(part), "{shown}"),
            (Err(error), Err(part)) => assert!(format!("{error:#}").contains(part), "{error:#}"),
            (done, _) => panic!("{done:?}: {shown}"),
        }
    }

    #[test]
    fn makers_and_a_newer_table() {
        let dir = tempfile::tempdir().unwrap();
        let (csv, page) = (dir.path().join("oui.csv"), dir.path().join("page.html"));
        let lines: String = (0..1_500).map(|n| format!("MA-L,{n:06X},Maker {n},x\n")).collect();
        std::fs::write(&csv, lines).unwrap();
        std::fs::write(&page, "<html>").unwrap();
        check(&[], &[], dir.path(), Ok("built in"));
        check(&["00-00-0C-00-00-01"], &[], dir.path(), Ok("Cisco"));
        check(&["da:a1:19:00:00:01"], &[], dir.path(), Ok(r#""random","vendor":null"#));
        check(&["nonsense\x1b[2J"], &[], dir.path(), Err("nonsense\\x1b"));
        check(&[], &[&page], dir.path(), Err("no block"));
        check(&["00:00:0c:00:00:01"], &[], dir.path(), Ok("Cisco"));
        check(&[], &[&csv], dir.path(), Ok("1,500 blocks"));
        check(&["00:00:0c:00:00:01"], &[], dir.path(), Ok("Maker 12"));
        check(&[], &[], dir.path(), Ok("2026"));
    }
}
