//! A musl binary and how to run it; left out loudly where it is not there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use agentmon_tests::lab::need::find;
use agentmon_tests::lab::proc::binary;

use crate::elf;

/// Debian package qemu-user-static.
const EMULATOR: &str = "qemu-aarch64-static";

/// One machine's binary.
#[derive(Clone, Debug)]
pub(crate) struct Musl {
    pub(crate) name: &'static str,
    pub(crate) machine: u16,
    pub(crate) file: PathBuf,
    emulator: Option<PathBuf>,
}

impl Musl {
    /// The binary for a Raspberry Pi.
    pub(crate) fn aarch64() -> Option<Self> {
        let emulator = (!cfg!(target_arch = "aarch64")).then_some(EMULATOR);
        Self::of("aarch64", elf::AARCH64, emulator)
    }

    /// The binary for a PC.
    pub(crate) fn x86_64() -> Option<Self> {
        if !cfg!(target_arch = "x86_64") {
            return left_out("x86_64 programs do not run here");
        }
        Self::of("x86_64", elf::X86_64, None)
    }

    /// Both, as far as they are there.
    pub(crate) fn all() -> Vec<Self> {
        [Self::aarch64(), Self::x86_64()].into_iter().flatten().collect()
    }

    fn of(name: &'static str, machine: u16, emulator: Option<&str>) -> Option<Self> {
        let file = folder().join(format!("agentmon-router-{name}"));
        if !file.is_file() {
            return left_out(&format!("{} is not there (./dev musl {name})", file.display()));
        }
        let emulator = match emulator.map(|tool| (tool, find(tool))) {
            Some((tool, None)) => {
                return left_out(&format!("{tool} is missing (apt-get install qemu-user-static)"));
            }
            found => found.and_then(|(_, path)| path),
        };
        Some(Self { name, machine, file, emulator })
    }

    /// Whether it runs on another processor's emulator.
    pub(crate) fn is_emulated(&self) -> bool {
        self.emulator.is_some()
    }

    /// A command that runs it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let program = self.emulator.as_deref().unwrap_or(&self.file);
        let mut command = Command::new(program);
        if self.is_emulated() {
            command.arg(&self.file);
        }
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap_or_else(|e| panic!("{}: {e}", self.file.display()))
    }
}

/// `AGENTMON_MUSL_DIR`, else where `./dev musl` puts them: beside the build profiles.
fn folder() -> PathBuf {
    let beside = || {
        let programs = binary("agentmon-router");
        let target = programs.parent().and_then(Path::parent).expect("target/PROFILE/PROGRAM");
        target.join("musl-dist")
    };
    std::env::var_os("AGENTMON_MUSL_DIR").map_or_else(beside, PathBuf::from)
}

fn left_out<T>(why: &str) -> Option<T> {
    let line = format!("TEST LEFT OUT: static binaries: {why}");
    assert!(std::env::var("AGENTMON_REQUIRE_LAB").map_or(true, |v| v != "1"), "{line}");
    // Straight to the descriptor: the test runner would swallow a print of a passing test.
    writeln!(std::io::stderr(), "\n{line}\n").expect("standard error can be written");
    None
}
