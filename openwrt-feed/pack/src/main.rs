//! `agentmon-pack`: makes OpenWrt packages and feeds, reads packages, makes keys.
//!
//! In: arguments. Out: files; for `show` and `verify` text on standard output. Exit code 0
//! fine, 2 it failed.
#![allow(clippy::print_stdout, reason = "a command line talks to its user")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agentmon_pack::feed::{self, Input};
use agentmon_pack::key::{EcPublic, FeedKeys, UsignPublic};
use agentmon_pack::member::{Kind, Package};
use agentmon_pack::{ARCHIVE_BYTES_MAX, apk, ipk, tarball};
use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Makes and reads OpenWrt packages (.ipk, .apk) and feed indexes")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pack binaries, files and pages into a feed.
    Feed {
        /// The repository's folder `openwrt-feed`.
        #[arg(long)]
        feed: PathBuf,
        /// A static binary, as `aarch64_cortex-a72=PATH`; may be given more than once.
        #[arg(long = "binary", value_name = "ARCH=PATH", required = true)]
        binaries: Vec<String>,
        /// Folder of the feed's keys (see `keygen`); nothing is signed without.
        #[arg(long)]
        keys: Option<PathBuf>,
        /// Time of every file in a package, in seconds since 1970.
        #[arg(long, env = "SOURCE_DATE_EPOCH")]
        epoch: u64,
        /// Where the feed goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make the keys of a feed; keep the folder where nobody else can read it.
    Keygen {
        /// A folder that has none yet.
        folder: PathBuf,
    },
    /// Show what packages say of themselves, and the packages of an apk index.
    Show {
        /// `.ipk`, `.apk` or `packages.adb` files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Check the signature of an `.apk`, a `packages.adb`, or a `Packages` beside its `.sig`.
    Verify {
        /// Public key: `keys/agentmon.pem` of the feed, or the other one for `Packages`.
        #[arg(long)]
        key: PathBuf,
        /// The signed file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agentmon-pack: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Feed { feed, binaries, keys, epoch, out } => {
            let keys = keys.map(|folder| FeedKeys::load(&folder)).transpose()?;
            let binaries =
                binaries.iter().map(|word| binary(word)).collect::<Result<Vec<_>, _>>()?;
            let input = Input { feed: &feed, binaries: &binaries, epoch, keys: keys.as_ref() };
            for (path, size) in feed::build(&input, &out)? {
                say(&format!("{size:>9} {path}\n"))?;
            }
            Ok(())
        }
        Command::Keygen { folder } => {
            let keys = FeedKeys::generate(&folder)?;
            say(&format!(
                "keys of feed {} in {}\n",
                keys.usign.public().file_name(),
                folder.display()
            ))
        }
        Command::Show { files } => files.iter().try_for_each(|file| show(file)),
        Command::Verify { key, file } => verify(&key, &file),
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

fn binary(word: &str) -> anyhow::Result<(String, Vec<u8>)> {
    let (arch, path) = word.split_once('=').context("want --binary ARCH=PATH")?;
    let bytes = load(Path::new(path))?;
    ensure!(bytes.starts_with(b"\x7fELF"), "{path}: no ELF program");
    Ok((arch.to_owned(), bytes))
}

fn load(file: &Path) -> anyhow::Result<Vec<u8>> {
    let context = || file.display().to_string();
    let opened = std::fs::File::open(file).with_context(context)?;
    ensure!(
        opened.metadata().with_context(context)?.len() <= ARCHIVE_BYTES_MAX,
        "{}: too large",
        context()
    );
    tarball::read_bounded(opened).with_context(context)
}

fn show(file: &Path) -> anyhow::Result<()> {
    let bytes = load(file)?;
    let context = || file.display().to_string();
    if bytes.starts_with(b"ADB") {
        if let Ok(packages) = apk::read_index(&bytes) {
            return packages.iter().try_for_each(|package| say(&described(package)));
        }
        return say(&described(&apk::read(&bytes).with_context(context)?));
    }
    say(&described(&ipk::read(&bytes).with_context(context)?))
}

fn described(package: &Package) -> String {
    let mut text = String::new();
    for (name, value) in &package.fields {
        text.push_str(&format!(
            "{name}: {}\n",
            value.replace('\n', "\n ").escape_debug().to_string().replace("\\n", "\n")
        ));
    }
    for name in &package.depends {
        text.push_str(&format!("needs {}\n", name.escape_debug()));
    }
    for name in &package.conffiles {
        text.push_str(&format!("keeps {}\n", name.escape_debug()));
    }
    for (name, script) in &package.scripts {
        text.push_str(&format!("script {name}:\n"));
        script.lines().for_each(|line| text.push_str(&format!("  | {}\n", line.escape_debug())));
    }
    for member in &package.members {
        let (kind, more) = match &member.kind {
            Kind::Folder => ('d', String::new()),
            Kind::File(bytes) => ('-', format!(" {} bytes", bytes.len())),
            Kind::Link(to) => ('l', format!(" -> {}", to.escape_debug())),
        };
        text.push_str(&format!("{kind}{:04o} /{}{more}\n", member.mode, member.path));
    }
    text.push('\n');
    text
}

fn verify(key: &Path, file: &Path) -> anyhow::Result<()> {
    let text = String::from_utf8(load(key)?).context("the key")?;
    let bytes = load(file)?;
    if text.starts_with("untrusted comment:") {
        let mut name = file.as_os_str().to_owned();
        name.push(".sig");
        let signature = load(Path::new(&name)).or_else(|_| load(&file.with_extension("sig")))?;
        UsignPublic::parse(&text)?.verify(&bytes, &String::from_utf8(signature)?)?;
    } else if bytes.starts_with(b"ADB") {
        let (schema, adb, signatures) = apk::signed_parts(&bytes)?;
        EcPublic::parse(&text)?.verify_adb(schema, &adb, &signatures)?;
    } else {
        bail!("{}: this key is for .apk and packages.adb files", file.display());
    }
    say(&format!("{}: signed by this key\n", file.display()))
}
