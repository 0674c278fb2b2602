//! What is written, who owns it, and what is refused.

use super::*;
use crate::uci::settings;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn at(&self) -> Where {
        Where {
            out: self.path("etc/agentmon"),
            state: Some(self.path("run/agentmon")),
            owner: None,
            trusted: Some(5731),
        }
    }
    fn settings(&self, more: &str) -> Settings {
        let ring = self.path("tmp/agentmon/ring.db");
        let text = format!("config ring\n\toption path '{}'\n{more}", ring.display());
        settings::parse(text.as_bytes()).unwrap()
    }
    fn place(&self, more: &str) -> anyhow::Result<Placed> {
        place(&self.settings(more), &self.at())
    }
    /// An identity's parts as files.
    fn hub(&self) -> (Join, String) {
        let ca = rcgen::generate_simple_self_signed(["hub.example".to_owned()]).unwrap();
        let (url, name) = ("https://192.0.2.10:8743", "attic");
        let join = Join::new(url.into(), name.into(), "t0k3n".into(), ca.cert.pem());
        fs::write(self.path("token"), "t0k3n\n").unwrap();
        fs::write(self.path("ca.pem"), ca.cert.pem()).unwrap();
        let uci = format!(
            "config hub\n\toption url '{url}'\n\toption name '{name}'\n\
             \toption token_file '{}'\n\toption ca '{}'\n",
            self.path("token").display(),
            self.path("ca.pem").display()
        );
        (join, uci)
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_is_written_is_what_was_set() {
    let bench = Bench::new();
    let placed =
        bench.place("config collector 'conntrack'\n\toption dump_interval '30s'\n").unwrap();
    assert!(placed.changed);
    let config = Config::load(&placed.toml).unwrap();
    assert_eq!(config.collect.conntrack.dump_seconds, 30);
    assert_eq!(config.state_dir, bench.path("run/agentmon"));
    assert_eq!(
        config.resolved(),
        config_of(&bench, "config collector 'conntrack'\n\toption dump_interval '30s'\n")
    );
    assert_eq!(mode(&placed.toml), 0o644);
    assert_eq!(mode(&bench.path("run/agentmon")), 0o750);
    assert_eq!(mode(&bench.path("tmp/agentmon")), 0o750);
    assert_eq!(placed.writes, [bench.path("run/agentmon"), bench.path("tmp/agentmon")]);
    // The bench is in /tmp itself, and what is below a folder comes with it.
    assert_eq!(placed.reads, [PathBuf::from("/etc/agentmon"), PathBuf::from("/tmp")]);
}

fn config_of(bench: &Bench, more: &str) -> Config {
    config(&bench.settings(more), &bench.at())
}

#[test]
fn only_a_change_is_told_as_one() {
    let bench = Bench::new();
    let first = bench.place("").unwrap();
    let again = bench.place("").unwrap();
    assert!(first.changed && !again.changed);
    assert_eq!(again, Placed { changed: false, ..first.clone() });
    let level = bench.place("config agentmon\n\toption log_level debug\n").unwrap();
    assert!(level.changed && level.restart_key == first.restart_key, "taken over while running");
    let moved = place(
        &settings::parse(
            format!("config ring\n\toption path '{}'\n", bench.path("x/agentmon/r.db").display())
                .as_bytes(),
        )
        .unwrap(),
        &bench.at(),
    );
    assert_ne!(moved.unwrap().restart_key, first.restart_key, "needs a new start");
}

#[test]
fn names_in_the_settings_become_a_list() {
    let bench = Bench::new();
    let uci = "config list 'mine'\n\tlist domain 'bad.example'\n\tlist domain 'worse.example'\n";
    let placed = bench.place(uci).unwrap();
    let config = Config::load(&placed.toml).unwrap();
    let path = &config.tier0.blocklist.lists[0].path;
    assert_eq!(fs::read_to_string(path).unwrap(), "bad.example\nworse.example\n");
    let lists = crate::lists::borrow(&config.tier0, &config.state_dir).unwrap();
    assert!(lists.lookup(&"a.bad.example".parse().unwrap()).is_some());
    let more = bench.place(&uci.replace("worse", "other")).unwrap();
    assert!(more.changed, "the list changed, though not the configuration");
    bench.place("").unwrap();
    assert!(!path.exists(), "what no setting names is gone");
}

#[test]
fn the_hub_is_a_line_or_four_options() {
    let bench = Bench::new();
    let (join, options) = bench.hub();
    let identity = bench.path("run/agentmon/identity.json");
    bench.place("").unwrap();
    assert!(!identity.exists());
    assert_eq!(config_of(&bench, "").forward.identity, Path::new("/etc/agentmon/identity.json"));
    bench.place(&options).unwrap();
    assert_eq!(join::load(&identity).unwrap().as_ref(), Some(&join));
    assert_eq!(mode(&identity), 0o600);
    assert_eq!(config_of(&bench, &options).forward.identity, identity);
    let line = format!("config hub\n\toption join '{}'\n", join.encode());
    bench.place(&line).unwrap();
    assert_eq!(join::load(&identity).unwrap().as_ref(), Some(&join));
    bench.place(&format!("{line}\toption url 'https://hub.example:1'\n")).unwrap();
    assert_eq!(join::load(&identity).unwrap().unwrap().url, "https://hub.example:1");
}

#[track_caller]
fn refused(bench: &Bench, uci: &str, says: &str) {
    let before = fs::read(bench.path("etc/agentmon/router.toml")).ok();
    let error = format!("{:#}", bench.place(uci).unwrap_err());
    assert!(error.contains(says), "{error}");
    assert_eq!(fs::read(bench.path("etc/agentmon/router.toml")).ok(), before, "the old one stays");
}

#[test]
fn half_a_hub_is_refused() {
    let bench = Bench::new();
    let (_, options) = bench.hub();
    let without = |option: &str| -> String {
        options.lines().filter(|l| !l.contains(option)).map(|l| format!("{l}\n")).collect()
    };
    refused(&bench, &without("token_file"), "agentmon.hub.token_file: is wanted too");
    refused(&bench, &without("name"), "agentmon.hub.name: is wanted too");
    refused(&bench, &options.replace("/token", "/tokem"), "agentmon.hub.token_file: ");
    refused(&bench, &options.replace("https://", "http://"), "agentmon.hub: `url`");
    fs::write(bench.path("ca.pem"), "no certificate").unwrap();
    refused(&bench, &options, "agentmon.hub: `ca_pem`");
    fs::write(bench.path("token"), "x".repeat(70_000)).unwrap();
    refused(&bench, &options, "longer than 65536");
}

#[test]
fn a_folder_that_is_a_link_is_refused() {
    let bench = Bench::new();
    fs::create_dir(bench.path("tmp")).unwrap();
    fs::create_dir(bench.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(bench.path("elsewhere"), bench.path("tmp/agentmon")).unwrap();
    refused(&bench, "", "is no folder (a link?)");
    fs::remove_file(bench.path("tmp/agentmon")).unwrap();
    fs::write(bench.path("tmp/agentmon"), "").unwrap();
    refused(&bench, "", "is no folder");
}

#[test]
fn folders_and_files_go_to_the_user() {
    let bench = Bench::new();
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        assert!(std::env::var_os("AGENTMON_REQUIRE_LAB").is_none(), "needs root");
        eprintln!("SKIPPED: giving files to another user needs root");
        return;
    }
    fs::create_dir_all(bench.path("tmp/agentmon")).unwrap();
    fs::write(bench.path("tmp/agentmon/ring.db"), "").unwrap();
    let (_, options) = bench.hub();
    let at = Where { owner: Some(Owner { uid: 5731, gid: 5732 }), ..bench.at() };
    let placed = place(&bench.settings(&options), &at).unwrap();
    for name in
        ["tmp/agentmon", "tmp/agentmon/ring.db", "run/agentmon", "run/agentmon/identity.json"]
    {
        let found = fs::metadata(bench.path(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (5731, 5732), "{name}");
    }
    assert_eq!(fs::metadata(placed.toml).unwrap().uid(), 0);
    place(&bench.settings(&options), &bench.at()).unwrap();
    assert_eq!(fs::metadata(bench.path("tmp/agentmon/ring.db")).unwrap().uid(), 0, "taken back");
    // A folder of a third person is not.
    lchown(bench.path("tmp/agentmon"), Some(77), None).unwrap();
    refused(&bench, "", "belongs to user 77");
}

#[test]
fn users_are_looked_up() {
    let bench = Bench::new();
    let passwd = bench.path("passwd");
    fs::write(&passwd, "root:x:0:0:root:/root:/bin/ash\nodd\nagentmon:x:5731:5731:agentmon:/var/run/agentmon:/bin/false\n").unwrap();
    assert_eq!(owner("agentmon", &passwd).unwrap(), Owner { uid: 5731, gid: 5731 });
    assert!(owner("nobody", &passwd).unwrap_err().to_string().contains("no user `nobody`"));
}

#[test]
fn what_a_collector_reads_is_named_while_it_is_on() {
    let bench = Bench::new();
    let of = |more: &str| bench.place(more).unwrap();
    let dir = |name: &str| PathBuf::from("/srv").join(name);
    for (section, files) in [
        ("pihole", "\toption certificate '/srv/x/c'\n"),
        ("pihole_ftl", "\toption path '/srv/x/pihole-FTL.db'\n"),
        ("pihole_ssh", "\toption key '/srv/x/key'\n"),
        ("pihole_ssh", "\toption known_hosts '/srv/x/known'\n"),
        ("adguard", "\toption path '/srv/x/querylog.json'\n"),
        ("syslog", "\toption tls_client_ca '/srv/x/ca'\n"),
        ("dnsmasq_log", "\tlist path '/srv/x/dnsmasq.log'\n"),
    ] {
        let collector =
            |on: u8| of(&format!("config collector '{section}'\n\toption enabled {on}\n{files}"));
        assert!(collector(1).reads.contains(&dir("x")), "{section}");
        assert!(!collector(0).reads.contains(&dir("x")), "{section}");
    }
    let other = "config collector 'pihole'\n\toption enabled 1\n\
                 config other_pihole 'a'\n\toption url 'https://192.0.2.3'\n\
                 \toption certificate '/srv/y/c'\n";
    assert!(of(other).reads.contains(&dir("y")));
    let copied = bench.path("copies/agentmon");
    let database = format!(
        "config collector 'pihole_ssh'\n\toption enabled 1\n\toption database '/db'\n\
         \toption copy_folder '{}'\n",
        copied.display()
    );
    assert!(of(&database).writes.contains(&copied));
}
