//! Lists from files: kept, found again, made anew when anything about them changed.

use std::fs;
use std::path::PathBuf;

use agentmon_core::tier0::blocklist::FOOTER_BYTES;

use super::*;

struct Bench {
    dir: tempfile::TempDir,
    config: Tier0Config,
}

impl Bench {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Tier0Config::default();
        let path = dir.path().join("list.txt");
        config.blocklist.lists =
            vec![ListConfig { name: "test".into(), path, ..ListConfig::default() }];
        let bench = Self { dir, config };
        bench.write(text);
        bench
    }
    /// As list updaters do it: a new file in the place of the old one.
    fn write(&self, text: &str) {
        let path = &self.config.blocklist.lists[0].path;
        fs::write(path.with_extension("tmp"), text).unwrap();
        fs::rename(path.with_extension("tmp"), path).unwrap();
    }
    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }
    fn cache(&self) -> PathBuf {
        self.state().join(CACHE)
    }
    fn ready(&self) -> bool {
        ready(&self.config, &find(&self.config).unwrap(), &self.state()).is_some()
    }
    #[track_caller]
    fn load(&self, listed: &str) -> Blocklist {
        fs::create_dir_all(self.state()).unwrap();
        let lists = load(&self.config, &self.state()).unwrap().lists;
        assert!(has(&lists, listed), "{listed} is not listed");
        assert!(self.ready());
        lists
    }
}

fn has(lists: &Blocklist, name: &str) -> bool {
    lists.lookup(&name.parse().unwrap()).is_some()
}

#[test]
fn reads_what_is_there_and_names_what_is_not() {
    let bench = Bench::new("bad.example\n?!\n0.0.0.0 worse.example\n");
    let lists = bench.load("a.bad.example");
    assert_eq!(lists.len(), 2);
    assert!(has(&borrow(&bench.config, &bench.state()).unwrap(), "worse.example"));
    assert!(has(&borrow(&bench.config, bench.dir.path()).unwrap(), "worse.example"));
    assert_eq!(check(&bench.config).unwrap()[0].refused.len(), 1);
    fs::remove_file(&bench.config.blocklist.lists[0].path).unwrap();
    for error in [
        load(&bench.config, &bench.state()).unwrap_err(),
        borrow(&bench.config, &bench.state()).unwrap_err(),
        check(&bench.config).unwrap_err(),
    ] {
        assert!(format!("{error:#}").contains("list `test`:"), "{error:#}");
    }
    // What is off is not read.
    let mut config = bench.config.clone();
    config.blocklist.enabled = false;
    assert!(load(&config, &bench.state()).unwrap().lists.is_empty());
}

#[test]
fn the_same_files_are_not_compiled_twice() {
    let bench = Bench::new("bad.example\n");
    assert!(!bench.ready());
    bench.load("bad.example");
    let made = fs::metadata(bench.cache()).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&made.permissions()) & 0o777, 0o600);
    bench.load("bad.example");
    assert_eq!(fs::metadata(bench.cache()).unwrap().ino(), made.ino());
    assert_eq!(fs::read_dir(bench.state()).unwrap().count(), 1, "nothing else is left there");
}

#[test]
fn whatever_changes_the_set_makes_it_anew() {
    let mut bench = Bench::new("bad.example\n");
    let before = bench.load("bad.example");
    // Of the same length, at once.
    bench.write("new.example\n");
    let after = bench.load("new.example");
    assert!(!has(&after, "bad.example"));
    assert!(has(&before, "bad.example"), "who holds the old set keeps it");
    for change in [
        |config: &mut Config| config.lists[0].score = 0.5,
        |config: &mut Config| config.lists[0].name = "other".into(),
        |config: &mut Config| config.lists[0].block = true,
        |config: &mut Config| config.entries_max = 10,
    ] {
        change(&mut bench.config.blocklist);
        assert!(!bench.ready());
        bench.load("new.example");
    }
}

#[test]
fn a_damaged_file_is_made_anew() {
    let bench = Bench::new("bad.example\nworse.example\n");
    bench.load("bad.example");
    let whole = fs::read(bench.cache()).unwrap();
    let damage = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    for bytes in [
        Vec::new(),
        whole[..whole.len() / 2].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"x"].concat(),
        damage(0),
        damage(whole.len() / 2),
        damage(whole.len() - 1),
        damage(whole.len() - FOOTER_BYTES + 7),
    ] {
        fs::write(bench.cache(), bytes).unwrap();
        assert!(!bench.ready());
        bench.load("bad.example");
        assert!(fs::read(bench.cache()).unwrap() == whole);
    }
}

#[test]
fn what_cannot_be_kept_is_held() {
    let bench = Bench::new("bad.example\n");
    // No such folder: as good as a full or read-only disk.
    let lists = load(&bench.config, &bench.dir.path().join("nowhere")).unwrap().lists;
    assert!(has(&lists, "bad.example"));
    assert!(!bench.ready());
}

#[test]
fn what_can_be_read_is_used_at_the_start() {
    let mut bench = Bench::new("bad.example\n");
    fs::create_dir_all(bench.state()).unwrap();
    let path = bench.dir.path().join("gone");
    let gone = ListConfig { name: "gone".into(), path, ..ListConfig::default() };
    bench.config.blocklist.lists.push(gone);
    for _ in 0..2 {
        let AtStart { lists, later, missing } = at_start(&bench.config, &bench.state());
        assert!(has(&lists, "bad.example") && !later);
        assert!(missing.len() == 1 && format!("{:#}", missing[0]).contains("list `gone`:"));
    }
}

#[test]
fn long_lists_do_not_keep_the_start_waiting() {
    let text: String = (0..250_000).map(|i| format!("long{i}.example\n")).collect();
    let bench = Bench::new(&text);
    fs::create_dir_all(bench.state()).unwrap();
    let begin = at_start(&bench.config, &bench.state());
    assert!(begin.later && begin.lists.is_empty() && begin.missing.is_empty());
    let loaded = load_readable(&bench.config, &bench.state());
    assert!(has(&loaded.lists, "long7.example") && loaded.refused.is_empty());
    let again = at_start(&bench.config, &bench.state());
    assert!(!again.later && has(&again.lists, "a.long249999.example"));
}

#[test]
fn long_lists_are_for_later() {
    let bench = Bench::new("bad.example\n");
    assert!(!find(&bench.config).unwrap().are_long());
    let file = File::options().write(true).open(&bench.config.blocklist.lists[0].path).unwrap();
    file.set_len(AT_ONCE_BYTES_MAX + 1).unwrap();
    assert!(find(&bench.config).unwrap().are_long());
    file.set_len(LIST_BYTES_MAX + 1).unwrap();
    assert!(format!("{:#}", find(&bench.config).unwrap_err()).contains("longer than"));
}
