//! Budgets: a router's flash is small, and nothing grows unnoticed.

use std::process::{Command, Stdio};

use agentmon_tests::lab::proc::binary;
use agentmon_tests::lab::world::say;

use crate::elf::{self, Elf};
use crate::router::Musl;

/// Most bytes of a stripped binary (the goal is 3 MB) and of a package of either format, which
/// the tables of the DGA score, being noise to a packer, weigh on most (0.2 MB).
struct Budget {
    binary: u64,
    package: u64,
}

fn budget(machine: u16) -> Budget {
    match machine {
        elf::AARCH64 => Budget { binary: 4_000_000, package: 2_500_000 },
        // Its code is longer, and a PC has more room than a router's flash. Rustup's own standard
        // library makes 20 kB more of it than one that is built along.
        _ => Budget { binary: 4_850_000, package: 2_800_000 },
    }
}

#[test]
fn the_binary_is_static_stripped_and_small() {
    for musl in Musl::all() {
        let bytes = std::fs::read(&musl.file).expect("the binary is readable");
        let size = bytes.len() as u64;
        say(&format!("agentmon-router for {}: {size} bytes", musl.name));
        let expected = Elf { machine: musl.machine, interpreted: false, symbols: false };
        assert_eq!(elf::read(&bytes), expected, "{}", musl.name);
        let most = budget(musl.machine).binary;
        assert!(size <= most, "{}: {size} > {most}", musl.name);
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
                let most = budget(musl.machine).package;
                assert!(size <= most, "{name}: {size} > {most}");
            }
        }
        assert!(packages >= 4, "only {packages} packages");
    }
}
