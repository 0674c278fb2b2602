//! The kernel's part is kept as an object beside its source: they belong together.
//!
//! The sums that `./dev ebpf` writes are looked at everywhere; where clang 14 is, the object is
//! made again and compared (`./dev ebpf --check`).

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

#[test]
fn the_sums_are_those_of_source_and_object() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ebpf");
    let sums = std::fs::read_to_string(folder.join("owners.bpf.sums")).unwrap();
    let mut files = Vec::new();
    for line in sums.lines() {
        let (sum, file) = line.split_once("  ").unwrap();
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let is: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(is, sum, "{file} was changed without the other: ./dev ebpf");
        files.push(file);
    }
    assert_eq!(files, ["owners.bpf.c", "owners.bpf.o"]);
}

#[test]
fn the_object_is_what_its_source_makes() {
    if Command::new("clang-14").arg("--version").output().is_err() {
        let line = "OBJECT NOT MADE AGAIN: missing: clang-14 (./dev ebpf --check installs it)";
        writeln!(std::io::stderr(), "\n{line}\n").expect("standard error can be written");
        return;
    }
    let dev = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dev");
    let out = Command::new(dev).args(["ebpf", "--check"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
