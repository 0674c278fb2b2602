//! Lists into a real store, and what is found in its history, with the thread that fetches.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentmon_core::Timestamp;
use agentmon_core::time::{SimClock, SystemClock};
use agentmon_router::counters::Counters;

use super::keep::{self, Feed};
use super::*;
use crate::store::handle::Handle;
use crate::store::writer::Writer;
use crate::store::{Limits, StoreError};

/// 2026-11-24T00:00:00Z.
const NOW: Timestamp = Timestamp::from_secs(1_795_478_400);

struct Hub {
    dir: tempfile::TempDir,
    store: Handle,
    folder: PathBuf,
}

impl Hub {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimClock::at(NOW));
        let writer =
            Writer::open(dir.path(), &Limits::default(), Counters::default(), clock).unwrap();
        let (store, _) = Handle::start(writer).unwrap();
        let folder = keep::folder(dir.path());
        fs::create_dir_all(&folder).unwrap();
        Self { dir, store, folder }
    }

    /// Keeps a download of this source as the service does, and brings the store up to it.
    fn take(&self, source: &Source, download: &str, at: Timestamp) -> usize {
        let config = Config { sources: vec![source.clone()], ..Config::default() };
        let mut feed = Feed { name: source.name.clone(), ..keep::read(&self.folder, &source.name) };
        let ms = at.nanos() / 1_000_000;
        keep::take(&self.folder, source, &config, &mut feed, download.as_bytes(), ms).unwrap();
        assert_eq!(feed.error, "");
        keep::write(&self.folder, &feed).unwrap();
        table::sync(&self.store, &self.folder, source, &feed, at).unwrap()
    }

    fn rows(&self, sql: &str) -> Vec<String> {
        let reader = self.store.readers().get().unwrap();
        let mut statement = reader.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

const ALL: &str = "SELECT concat_ws(' ', list, kind, value, port, domain, page, threat, \
    strftime(first_seen, '%Y-%m-%d'), CASE WHEN gone IS NOT NULL THEN 'gone' END) \
    FROM indicators ORDER BY list, entry";

fn later(hours: i64) -> Timestamp {
    Timestamp::from_secs(NOW.secs() + hours * 3_600)
}

#[test]
fn what_a_list_says_comes_goes_and_comes_again() {
    let hub = Hub::start();
    let source = Source { name: "it's".replace('\'', "_"), path: "/x".into(), ..Source::default() };
    let first = "a.example # Mozi\nb.sub.example.co.uk\n203.0.113.9:443\n198.51.100.0/24\nhttps://c.example/x.sh\n@@||ok.example^\n";
    assert_eq!(hub.take(&source, first, NOW), 5);
    assert_eq!(
        hub.rows(ALL),
        [
            "it_s network 198.51.100.0/24",
            "it_s address 203.0.113.9 443",
            "it_s name a.example a.example Mozi",
            "it_s name b.sub.example.co.uk example.co.uk",
            "it_s name c.example c.example /x.sh",
        ]
    );
    assert_eq!(hub.take(&source, first, later(1)), 0, "the same says nothing new");
    assert_eq!(hub.take(&source, "b.sub.example.co.uk\nd.example\n", later(2)), 1);
    let gone = "SELECT value FROM indicators WHERE gone IS NOT NULL ORDER BY value";
    assert_eq!(hub.rows(gone), ["198.51.100.0/24", "203.0.113.9", "a.example", "c.example"]);
    assert_eq!(hub.take(&source, "a.example\nd.example\n", later(3)), 1, "back again");
    assert_eq!(hub.rows("SELECT list FROM indicators WHERE value = 'a.example'").len(), 1);
    hub.take(&source, "d.example\n", later(24 * 100));
    assert_eq!(hub.rows("SELECT value FROM indicators ORDER BY 1"), ["a.example", "d.example"]);
    assert_eq!(hub.left(), ["it_s.json", "it_s.txt"], "files of comparisons go");
}

#[test]
fn a_list_that_is_no_longer_set_says_nothing() {
    let hub = Hub::start();
    let source = Source { name: "mine".into(), path: "/x".into(), ..Source::default() };
    hub.take(&source, "a.example\n", NOW);
    let watch = Source { kind: agentmon_core::tier0::blocklist::ListKind::Watch, ..source.clone() };
    let watch = Source { name: "watch".into(), ..watch };
    assert_eq!(hub.take(&watch, "w.example\n", NOW), 0, "watching is no accusation");
    table::forget_others(&hub.store, &Config::default(), later(1)).unwrap();
    assert_eq!(hub.rows(ALL), ["mine name a.example a.example gone"]);
    assert_eq!(hub.rows("SELECT list FROM indicator_lists"), Vec::<String>::new());
}

/// Killed between the files and the rows, or within a comparison: the next one is whole.
#[test]
fn a_comparison_that_failed_is_made_again() {
    let hub = Hub::start();
    let source = Source { name: "mine".into(), path: "/x".into(), ..Source::default() };
    let added = hub.folder.join("mine.added");
    fs::create_dir(&added).unwrap();
    fs::write(added.join("in the way"), "").unwrap();
    let config = Config::default();
    let mut feed = Feed { name: "mine".into(), ..Feed::default() };
    keep::take(&hub.folder, &source, &config, &mut feed, b"a.example\n", NOW.nanos() / 1_000_000)
        .unwrap();
    assert!(table::sync(&hub.store, &hub.folder, &source, &feed, NOW).is_err());
    assert_eq!(hub.rows(ALL), Vec::<String>::new());
    fs::remove_dir_all(&added).unwrap();
    assert_eq!(table::sync(&hub.store, &hub.folder, &source, &feed, later(1)).unwrap(), 1);
}

fn write(path: &Path, text: &str) {
    fs::write(path.with_extension("tmp"), text).unwrap();
    fs::rename(path.with_extension("tmp"), path).unwrap();
}

/// A feed in its publisher's form, by the thread of the lists: routers are served what it
/// says, and the store knows where from.
#[test]
fn a_feed_reaches_routers_and_the_store() {
    let hub = Hub::start();
    let path = hub.dir.path().join("feodo.csv");
    write(
        &path,
        "first_seen_utc,dst_ip,dst_port,c2_status,last_online,malware\n2026-11-20 10:00:00,203.0.113.4,443,online,2026-11-24,Emotet\n",
    );
    let source: Source =
        toml::from_str(&format!("feed = \"feodo\"\npath = \"{}\"", path.display())).unwrap();
    let config = Config { sources: vec![source], ..Config::default() };
    config.validate().unwrap();
    let service =
        Service::start(config, hub.dir.path(), Some(hub.store.clone()), Arc::new(SystemClock))
            .unwrap();
    tests::eventually("it is in the store", || {
        hub.rows(ALL) == ["feodo address 203.0.113.4 443 Emotet 2026-11-20"]
    });
    assert!(service.served().is_some());
    write(&path, "{\"error\": \"come again\"}");
    tests::eventually("what came instead is refused", || {
        let feeds = all(hub.dir.path()).unwrap();
        feeds.first().is_some_and(|feed| feed.error.contains("JSON"))
    });
    assert_eq!(hub.rows(ALL).len(), 1, "the last good one stays");
}

#[test]
fn an_end_is_an_end() {
    let hub = Hub::start();
    let source: Source = toml::from_str("name = \"isac\"\nform = \"stix\"\npath = \"/x\"").unwrap();
    let text = r#"{"type":"bundle","objects":[
        {"type":"indicator","id":"i1","name":"N","pattern":"[domain-name:value='a.example']","valid_until":"2026-11-24T10:00:00Z"},
        {"type":"indicator","id":"i2","name":"N","pattern":"[domain-name:value='b.example']"}]}"#;
    assert_eq!(hub.take(&source, text, NOW), 2);
    let mut feed = keep::read(&hub.folder, "isac");
    assert!(!keep::expire(&hub.folder, &mut feed, later(9).nanos() / 1_000_000).unwrap());
    assert!(keep::expire(&hub.folder, &mut feed, later(11).nanos() / 1_000_000).unwrap());
    table::sync(&hub.store, &hub.folder, &source, &feed, later(11)).unwrap();
    let known = "SELECT value FROM indicators WHERE gone IS NULL";
    assert_eq!(hub.rows(known), ["b.example"]);
}

/// The store's own errors are errors here.
#[test]
fn a_stopped_store_is_said() {
    let hub = Hub::start();
    let source = Source { name: "mine".into(), path: "/x".into(), ..Source::default() };
    hub.take(&source, "a.example\n", NOW);
    hub.store
        .run(|writer| {
            writer.change(|c| -> Result<(), StoreError> {
                c.execute_batch("DROP TABLE indicators")?;
                Ok(())
            })
        })
        .unwrap()
        .unwrap();
    let mut feed = keep::read(&hub.folder, "mine");
    feed.list += 1;
    assert!(table::sync(&hub.store, &hub.folder, &source, &feed, NOW).is_err());
}
