//! A whole feed, made from this repository's own folders and a made-up binary, and read back.
//!
//! What the packages must say stands here a second time, on purpose: a Makefile changed by
//! mistake fails. Debian's `signify-openbsd` is the oracle for the signature of `Packages`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use agentmon_pack::feed::{self, Input};
use agentmon_pack::key::{EcPublic, FeedKeys, UsignPublic};
use agentmon_pack::member::{Kind, Member, Package};
use agentmon_pack::{apk, ipk, tarball};
use proptest::prelude::*;

const ARCH: &str = "aarch64_cortex-a72";
const EPOCH: u64 = 1_700_000_000;
const BINARY: &[u8] = b"\x7fELF made up";

fn feed_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("openwrt-feed").to_owned()
}

fn version() -> String {
    format!("{}-r1", env!("CARGO_PKG_VERSION"))
}

/// A feed below `out`: path to bytes.
fn build(out: &Path, keys: Option<&FeedKeys>) -> BTreeMap<String, Vec<u8>> {
    let binaries = [(ARCH.to_owned(), BINARY.to_vec()), ("x86_64".to_owned(), BINARY.to_vec())];
    let feed = feed_folder();
    let input = Input { feed: &feed, binaries: &binaries, epoch: EPOCH, keys };
    let written = feed::build(&input, out).unwrap();
    let read = |(path, size): (String, u64)| {
        let bytes = std::fs::read(out.join(&path)).unwrap();
        assert_eq!(bytes.len() as u64, size, "{path}");
        (path, bytes)
    };
    written.into_iter().map(read).collect()
}

/// One made for all tests that only read: dense compression takes its time.
fn unsigned() -> &'static BTreeMap<String, Vec<u8>> {
    static FEED: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    FEED.get_or_init(|| build(tempfile::tempdir().unwrap().path(), None))
}

/// Quick compression, for archives that are made by the hundred.
fn quick_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
    encoder.read_to_end(&mut packed).unwrap();
    packed
}

fn ipk_of(feed: &BTreeMap<String, Vec<u8>>, name: &str, arch: &str) -> Package {
    let file = format!("{ARCH}/{name}_{}_{arch}.ipk", version());
    ipk::read(feed.get(&file).unwrap_or_else(|| panic!("{file}: {:?}", feed.keys()))).unwrap()
}

fn apk_of(feed: &BTreeMap<String, Vec<u8>>, name: &str) -> Package {
    let file = format!("{ARCH}/{name}-{}.apk", version());
    apk::read(feed.get(&file).unwrap_or_else(|| panic!("{file}: {:?}", feed.keys()))).unwrap()
}

#[track_caller]
fn check_fields(package: &Package, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(package.field(name), Some(*value), "{name}");
    }
}

#[track_caller]
fn check_member(package: &Package, path: &str, mode: u32) {
    let member = package.member(path).unwrap_or_else(|| panic!("{path} is not there"));
    assert_eq!(format!("{:o}", member.mode), format!("{mode:o}"), "{path}");
}

#[track_caller]
fn check_script(package: &Package, name: &str, parts: &[&str]) {
    let found = package.scripts.iter().find(|(script, _)| script == name);
    let (_, text) = found.unwrap_or_else(|| panic!("no {name}: {:?}", package.scripts));
    assert!(text.starts_with("#!/bin/sh\n"), "{name}: {text}");
    for part in parts {
        assert!(text.contains(part), "{name} lacks `{part}`:\n{text}");
    }
}

const KMODS: [&str; 2] = ["kmod-nf-conntrack-netlink", "kmod-nfnetlink-log"];
const CONFFILES: [&str; 2] = ["/etc/agentmon/", "/etc/config/agentmon"];
const ACCOUNT: &str = "agentmon=5731:agentmon=5731";

#[test]
fn the_daemons_ipk_says_what_it_must() {
    let package = ipk_of(unsigned(), "agentmon", ARCH);
    check_fields(
        &package,
        &[
            ("Package", "agentmon"),
            ("Version", &version()),
            ("Depends", &KMODS.join(", ")),
            ("Section", "net"),
            ("License", "MIT OR Apache-2.0"),
            ("Require-User", ACCOUNT),
            ("Architecture", ARCH),
            ("SourceDateEpoch", "1700000000"),
        ],
    );
    assert!(package.field("Description").unwrap().starts_with("Shows what every device"));
    assert_eq!(package.depends, KMODS);
    assert_eq!(package.conffiles, CONFFILES);
    check_common(&package);
    check_script(&package, "postinst", &["default_postinst $0 $@", "IPKG_NO_SCRIPT"]);
    check_script(&package, "prerm", &["default_prerm $0 $@"]);
    check_script(&package, "prerm-pkg", &["agentmon-router uci remove"]);
    check_script(&package, "postinst-pkg", &["chmod 600 /etc/config/agentmon"]);
    check_script(&package, "postrm", &["PKG_UPGRADE", "delete table inet agentmon"]);
}

#[test]
fn the_daemons_apk_says_what_it_must() {
    let package = apk_of(unsigned(), "agentmon");
    check_fields(
        &package,
        &[
            ("name", "agentmon"),
            ("version", &version()),
            ("arch", ARCH),
            ("license", "MIT OR Apache-2.0"),
        ],
    );
    assert_eq!(package.depends, KMODS);
    assert_eq!(package.conffiles, CONFFILES);
    assert!(package.checked);
    check_common(&package);
    check_script(&package, "post-install", &["add_group_and_user\ndefault_postinst\n"]);
    check_script(&package, "post-upgrade", &["export PKG_UPGRADE=1\n", "default_postinst"]);
    check_script(&package, "pre-deinstall", &["export pkgname=\"agentmon\"\ndefault_prerm\n"]);
    check_script(&package, "pre-deinstall", &["agentmon-router uci remove"]);
    check_script(&package, "post-deinstall", &["delete table inet agentmon"]);
    let text = |file: &str| {
        let member = package.member(&format!("lib/apk/packages/agentmon.{file}")).unwrap();
        String::from_utf8(member.bytes().to_vec()).unwrap()
    };
    assert_eq!(text("rusers"), format!("{ACCOUNT}\n"));
    assert_eq!(text("conffiles"), CONFFILES.join("\n") + "\n");
    let (path, sum) = text("conffiles_static").trim().split_once(' ').map(own).unwrap();
    assert_eq!((path.as_str(), sum.len()), ("/etc/config/agentmon", 64));
    // What the standard scripts go through: every file but the lists themselves.
    let list = text("list");
    let listed: Vec<_> = list.lines().collect();
    assert!(listed.is_sorted(), "{listed:?}");
    for member in package.members.iter().filter(|m| m.is_leaf()) {
        let path = format!("/{}", member.path);
        let own = ["list", "conffiles", "conffiles_static"];
        let own = own.iter().any(|s| path == format!("/lib/apk/packages/agentmon.{s}"));
        assert_eq!(listed.contains(&path.as_str()), !own, "{path}");
    }
}

fn own((a, b): (&str, &str)) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

/// What is the same in both formats.
fn check_common(package: &Package) {
    check_member(package, "usr/sbin/agentmon-router", 0o755);
    check_member(package, "etc/config/agentmon", 0o600);
    check_member(package, "etc/config", 0o755);
    check_member(package, "lib/upgrade/keep.d/agentmon", 0o644);
    assert_eq!(package.member("usr/sbin/agentmon-router").unwrap().bytes(), BINARY);
    assert_eq!(package.member("lib/upgrade/keep.d/agentmon").unwrap().bytes(), b"/etc/agentmon/\n");
    for member in &package.members {
        let script = member.path.starts_with("etc/init.d/");
        assert!(!script || member.mode == 0o755, "{}: {:o}", member.path, member.mode);
        assert_eq!(member.mode & 0o7022, 0, "{}: {:o}", member.path, member.mode);
    }
}

/// Every file of the mirror tree is in both packages, and nothing else but what is known.
#[test]
fn both_formats_hold_the_mirror_tree() {
    let feed = unsigned();
    let mut tree = agentmon_pack::tree::Tree::default();
    tree.mirror(&feed_folder().join("agentmon/files"), "").unwrap();
    let registered = |path: &str| path.starts_with("lib/apk") || path.starts_with("lib/upgrade");
    for package in [ipk_of(feed, "agentmon", ARCH), apk_of(feed, "agentmon")] {
        for member in tree.members() {
            assert_eq!(package.member(&member.path), Some(member));
        }
        let more = package.members.iter().filter(|m| m.is_leaf() && !registered(&m.path));
        let more: Vec<_> = more.map(|m| &m.path).filter(|path| tree.get(path).is_none()).collect();
        assert_eq!(more, ["usr/sbin/agentmon-router"]);
    }
}

#[test]
fn the_pages_are_for_any_architecture() {
    let feed = unsigned();
    let package = ipk_of(feed, "luci-app-agentmon", "all");
    check_fields(&package, &[("Architecture", "all"), ("Section", "luci")]);
    assert_eq!(package.depends, ["agentmon", "luci-base"]);
    check_script(&package, "postinst-pkg", &["rpcd reload"]);
    let package = apk_of(feed, "luci-app-agentmon");
    check_fields(&package, &[("arch", "noarch")]);
    assert_eq!(package.depends, ["agentmon", "luci-base"]);
    check_script(&package, "post-install", &["rpcd reload"]);
}

#[test]
fn the_versions_are_the_programs_version() {
    for makefile in ["agentmon/Makefile", "luci-app-agentmon/Makefile"] {
        let text = std::fs::read_to_string(feed_folder().join(makefile)).unwrap();
        let line = format!("PKG_VERSION:={}", env!("CARGO_PKG_VERSION"));
        assert!(text.lines().any(|l| l == line), "{makefile}: want {line}");
    }
}

/// What only OpenWrt's own build reads of the Makefile must say the same as the packer does.
#[test]
fn the_feeds_recipe_installs_the_same() {
    let text = std::fs::read_to_string(feed_folder().join("agentmon/Makefile")).unwrap();
    let make = agentmon_pack::makefile::Makefile::parse(&text).unwrap();
    let install = make.raw("Package/agentmon/install").unwrap();
    for step in [
        "$(INSTALL_BIN) $(PKG_INSTALL_DIR)/bin/agentmon-router $(1)/usr/sbin/",
        "$(CP) ./files/. $(1)/",
        // INSTALL_CONF is mode 0600.
        "$(INSTALL_CONF) ./files/etc/config/agentmon $(1)/etc/config/",
    ] {
        assert!(install.contains(step), "no `{step}` in\n{install}");
    }
    assert!(text.contains("+libsqlite3"), "the dynamic build needs the feed's SQLite");
    assert!(text.contains("--no-default-features"), "or SQLite is compiled in");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let keys = tempfile::tempdir().unwrap();
    let keys = FeedKeys::generate(keys.path()).unwrap();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = build(one.path(), Some(&keys));
    // Anew over the first, and in another place.
    std::fs::write(one.path().join(ARCH).join("stale.ipk"), "x").unwrap();
    assert!(first == build(one.path(), Some(&keys)), "another run differs");
    assert!(first == build(two.path(), Some(&keys)), "another place differs");
    assert!(!one.path().join(ARCH).join("stale.ipk").exists());
    assert_eq!(first.keys().filter(|path| path.starts_with("keys/")).count(), 2);
}

#[test]
fn the_indexes_tell_of_every_package() {
    let feed = unsigned();
    let index = feed.get(&format!("{ARCH}/Packages")).unwrap();
    assert_eq!(&tarball::gunzip(feed.get(&format!("{ARCH}/Packages.gz")).unwrap()).unwrap(), index);
    let index = String::from_utf8(index.clone()).unwrap();
    let entries: Vec<_> = index.split("\n\n").filter(|entry| !entry.trim().is_empty()).collect();
    let ipks: Vec<_> = feed.keys().filter(|p| p.starts_with(ARCH) && p.ends_with(".ipk")).collect();
    assert_eq!(entries.len(), ipks.len());
    for (path, entry) in ipks.iter().zip(&entries) {
        let (bytes, name) = (feed.get(*path).unwrap(), path.rsplit('/').next().unwrap());
        let sum = ring::digest::digest(&ring::digest::SHA256, bytes);
        let sum = format!("SHA256sum: {}", apk::hex(sum.as_ref()));
        for line in [&format!("Filename: {name}"), &format!("Size: {}", bytes.len()), &sum] {
            assert!(entry.lines().any(|l| l == line), "no `{line}` in\n{entry}");
        }
    }
    let packages = apk::read_index(feed.get(&format!("{ARCH}/packages.adb")).unwrap()).unwrap();
    let apks: Vec<_> = feed.keys().filter(|p| p.starts_with(ARCH) && p.ends_with(".apk")).collect();
    assert_eq!(packages.len(), apks.len());
    for package in &packages {
        let file = format!("{ARCH}/{}-{}.apk", package.field("name").unwrap(), version());
        let bytes = feed.get(&file).unwrap();
        assert_eq!(package.field("file-size"), Some(bytes.len().to_string().as_str()));
        let (_, adb, _) = apk::signed_parts(bytes).unwrap();
        let sum = ring::digest::digest(&ring::digest::SHA256, &adb);
        assert_eq!(package.field("hash"), Some(apk::hex(sum.as_ref()).as_str()));
        assert_eq!(package.depends, apk::read(bytes).unwrap().depends);
    }
}

#[test]
fn signatures_fit_the_public_keys_of_the_feed_alone() {
    let folder = tempfile::tempdir().unwrap();
    let keys = FeedKeys::generate(&folder.path().join("a")).unwrap();
    let other = FeedKeys::generate(&folder.path().join("b")).unwrap();
    let feed = build(&folder.path().join("out"), Some(&keys));
    let usign = feed.get(&format!("keys/{}", keys.usign.public().file_name())).unwrap();
    let usign = UsignPublic::parse(str::from_utf8(usign).unwrap()).unwrap();
    let index = feed.get(&format!("{ARCH}/Packages")).unwrap();
    let signature = str::from_utf8(feed.get(&format!("{ARCH}/Packages.sig")).unwrap()).unwrap();
    usign.verify(index, signature).unwrap();
    assert!(other.usign.public().verify(index, signature).is_err());
    let public = feed.get("keys/agentmon.pem").unwrap();
    let public = EcPublic::parse(str::from_utf8(public).unwrap()).unwrap();
    for (path, bytes) in feed.iter().filter(|(p, _)| p.ends_with(".apk") || p.ends_with(".adb")) {
        let (schema, adb, signatures) = apk::signed_parts(bytes).unwrap();
        public.verify_adb(schema, &adb, &signatures).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(other.ec.public().verify_adb(schema, &adb, &signatures).is_err());
    }
}

#[test]
fn private_keys_are_private_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    FeedKeys::generate(folder.path()).unwrap();
    for file in ["feed.sec", "feed-private.pem"] {
        let mode = std::fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let refused = FeedKeys::generate(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("never overwritten"), "{refused}");
}

#[test]
fn openbsds_signify_accepts_the_signature() {
    let Ok(found) = Command::new("signify-openbsd").output() else {
        let line = "TEST LEFT OUT: signify-openbsd is missing (apt-get install signify-openbsd)";
        assert!(std::env::var("AGENTMON_REQUIRE_LAB").map_or(true, |v| v != "1"), "{line}");
        writeln!(std::io::stderr(), "\n{line}\n").unwrap();
        return;
    };
    drop(found);
    let folder = tempfile::tempdir().unwrap();
    let keys = FeedKeys::generate(&folder.path().join("keys")).unwrap();
    build(&folder.path().join("out"), Some(&keys));
    let index = folder.path().join("out").join(ARCH).join("Packages");
    let verify = || {
        let mut command = Command::new("signify-openbsd");
        command.args(["-V", "-q", "-p"]).arg(folder.path().join("keys/feed.pub"));
        command.arg("-x").arg(index.with_extension("sig")).arg("-m").arg(&index);
        command.output().unwrap()
    };
    let said = verify();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    std::fs::OpenOptions::new().append(true).open(&index).unwrap().write_all(b"x").unwrap();
    assert!(!verify().status.success(), "a changed index is accepted");
}

/// Lays a file of any bytes where the archive's content is, so that the layers below the
/// compression are reached.
fn broken_ipk(inner: &[u8], which: usize) -> Vec<u8> {
    let gzipped = quick_gzip(inner);
    let control = tarball::tar([&Member::file("control", 0o644, "Package: x\n")], 0, true).unwrap();
    let control = quick_gzip(&control);
    let data = quick_gzip(&tarball::tar([], 0, true).unwrap());
    let (data, control) = if which == 0 { (gzipped, control) } else { (data, gzipped) };
    let members = [
        Member::file("debian-binary", 0o644, "2.0\n"),
        Member::file("data.tar.gz", 0o644, data),
        Member::file("control.tar.gz", 0o644, control),
    ];
    quick_gzip(&tarball::tar(&members, 0, false).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        drop((ipk::read(&bytes), apk::read(&bytes), apk::read_index(&bytes)));
        drop((ipk::read(&broken_ipk(&bytes, 0)), ipk::read(&broken_ipk(&bytes, 1))));
    }

    #[test]
    fn a_damaged_control_file_is_read_or_refused(text in "[ -~\n:]{0,200}") {
        let control = tarball::tar([&Member::file("control", 0o644, text)], 0, true).unwrap();
        drop(ipk::read(&broken_ipk(&control, 1)));
    }

    #[test]
    fn a_damaged_apk_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let package = sample_apk();
        let file = agentmon_pack::adb::read::File::parse(package).unwrap();
        drop(file);
        let mut plain = inflated(package);
        for (at, to) in changes {
            let at = at.index(plain.len());
            *plain.get_mut(at).unwrap() = to;
        }
        if let Ok(read) = apk::read(&plain) {
            // Whatever was changed: what is read never leads out, and has its checksum.
            for member in &read.members {
                prop_assert!(agentmon_pack::tree::is_plain(&member.path));
                prop_assert!(matches!(member.kind, Kind::File(_) | Kind::Folder | Kind::Link(_)));
            }
        }
    }
}

fn sample_apk() -> &'static [u8] {
    let file = format!("{ARCH}/agentmon-{}.apk", version());
    unsigned().get(&file).unwrap()
}

/// The package without its compression, which apk reads as well.
fn inflated(package: &[u8]) -> Vec<u8> {
    let packed = package.strip_prefix(b"ADBd").unwrap();
    tarball::read_bounded(flate2::read::DeflateDecoder::new(packed)).unwrap()
}

#[test]
fn a_changed_file_is_noticed() {
    let mut plain = inflated(sample_apk());
    let at = plain.windows(BINARY.len()).position(|w| w == BINARY).unwrap();
    *plain.get_mut(at + 5).unwrap() ^= 1;
    let refused = format!("{:#}", apk::read(&plain).unwrap_err());
    assert!(refused.contains("another checksum"), "{refused}");
}
