//! Budgets: a router's flash is small, and nothing grows unnoticed.

use std::process::{Command, Stdio};

use agentmon_tests::lab::proc::binary;
use agentmon_tests::lab::world::say;

use crate::elf::{self, Elf};
use crate::router::Musl;

/// Most bytes of the stripped binary; the goal is 3 MB.
const BINARY_BYTES_MAX: u64 = 4_000_000;
/// Most bytes of a package of either format.
const PACKAGE_BYTES_MAX: u64 = 2 << 20;

#[test]
fn the_binary_is_static_stripped_and_small() {
    for musl in Musl::all() {
        let bytes = std::fs::read(&musl.file).expect("the binary is readable");
        let size = bytes.len() as u64;
        say(&format!("agentmon-router for {}: {size} bytes", musl.name));
        let expected = Elf { machine: musl.machine, interpreted: false, symbols: false };
        assert_eq!(elf::read(&bytes), expected, "{}", musl.name);
        assert!(size <= BINARY_BYTES_MAX, "{}: {size} > {BINARY_BYTES_MAX}", musl.name);
    }
}

#[test]
fn the_packages_are_small() {
    for musl in Musl::all() {
        let out = tempfile::tempdir().expect("a folder");
        let feed = concat!(env!("CARGO_MANIFEST_DIR"), "/../openwrt-feed");
        let mut pack = Command::new(binary("agentmon-pack"));
        pack.args(["feed", "--feed", feed, "--epoch", "0", "--out"]).arg(out.path());
        pack.arg("--binary").arg(format!("{}={}", musl.name, musl.file.display()));
        let done = pack.stdin(Stdio::null()).output().expect("the packer runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let mut packages = 0;
        for entry in std::fs::read_dir(out.path().join(musl.name)).expect("a feed") {
            let entry = entry.expect("a file");
            let name = entry.file_name().into_string().expect("a name");
            if name.ends_with(".ipk") || name.ends_with(".apk") {
                packages += 1;
                let size = entry.metadata().expect("a size").len();
                say(&format!("{name} for {}: {size} bytes", musl.name));
                assert!(size <= PACKAGE_BYTES_MAX, "{name}: {size} > {PACKAGE_BYTES_MAX}");
            }
        }
        assert!(packages >= 4, "only {packages} packages");
    }
}
