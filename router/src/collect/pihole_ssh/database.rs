//! DNS queries of a Pi-hole elsewhere, by SSH: its long-term database, copied from time to time.
//!
//! In: `pihole-FTL.db` there. Out: as of [`pihole_ftl`], which reads the copy: one DNS event per
//! row, devices from the network table, gaps. One thread; memory below 1 MB; on disk the copy,
//! at most `copy_bytes_max`, in a folder of its own that only this user can enter, and that goes
//! with the collector.
//!
//! Invariants: a copy is read only when nothing had changed while it was made; each row is told
//! once, since the checkpoint is that of [`pihole_ftl`]; a database that has not changed since
//! is not copied again.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::time::Mono;
use anyhow::Context as _;

use super::Config;
use crate::collect::{Collector, Context, pihole_ftl};
use crate::ssh::{COPY_PAUSE, Copy, CopyError, Mark, Patience, Session, SshError, copy};

/// What status and counters call it.
const NAME: &str = "pihole-ssh-ftl";
/// A database that has not changed for so long holds no row that is left for later.
const SETTLED: Duration = Duration::from_secs(120);

/// The collector of one Pi-hole's database.
#[derive(Debug)]
pub struct Source {
    config: Config,
    inner: pihole_ftl::Source,
    /// The database when it was copied last, and when it was first seen like that.
    last: Option<(Mark, Mono)>,
    /// It was copied once more when its youngest rows had settled.
    settled: bool,
}

impl Source {
    /// For the database of one Pi-hole. Nothing is opened yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let key = format!("{NAME}:{}:{}", config.target().shown(), config.database);
        let ftl = pihole_ftl::Config {
            enabled: true,
            from_start: config.from_start,
            ..pihole_ftl::Config::default()
        };
        Self { inner: pihole_ftl::Source::of_copies(ftl, key), config, last: None, settled: false }
    }

    /// Copies and reads until asked to stop or until that fails.
    fn follow(&mut self, folder: &Folder, context: &Context) -> anyhow::Result<()> {
        let there = format!("{}, {}", self.config.target().shown(), self.config.database);
        let to = folder.0.join("pihole-FTL.db");
        loop {
            let copied = self.copy(&to, context).with_context(|| format!("{there}, by ssh"))?;
            if context.stop.is_set() {
                return Ok(());
            }
            if copied {
                context.counters.counter("pihole_ssh.copies").inc();
                let looked = self.inner.look_once(&to, context);
                folder.empty();
                looked.with_context(|| format!("a copy of {there}"))?;
            }
            context.state.set(format!("ok: {there}, read up to row {}", self.inner.row()));
            context.state.caught_up();
            if context.stop.sleep(Duration::from_secs(self.config.copy_seconds)) {
                return Ok(());
            }
        }
    }

    /// Whether there is a new copy. The connection is for the copy alone.
    fn copy(&mut self, to: &Path, context: &Context) -> Result<bool, CopyError> {
        let patience = Patience { stop: context.stop.clone(), clock: context.clock.clone() };
        let (path, bytes_max) = (&self.config.database, self.config.copy_bytes_max);
        let what = Copy { path, to, bytes_max, pause: COPY_PAUSE };
        let last = self.last.as_ref().filter(|_| self.settled).map(|(mark, _)| mark);
        let done = Session::open(&self.config.target(), patience)
            .map_err(CopyError::from)
            .and_then(|mut session| copy(&mut session, what, last, &context.stop));
        match done {
            Ok(None) => Ok(false),
            Ok(Some(mark)) => {
                let now = context.clock.mono();
                let seen = self.last.take().filter(|(last, _)| *last == mark);
                let first = seen.map_or(now, |(_, first)| first);
                self.settled = now.since(first) >= SETTLED;
                self.last = Some((mark, first));
                Ok(true)
            }
            Err(CopyError::Ssh(SshError::Stopped)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Collector for Source {
    fn name(&self) -> &str {
        NAME
    }

    fn checkpoint_key(&self) -> Option<String> {
        self.inner.checkpoint_key()
    }

    fn restore(&mut self, value: &[u8]) {
        self.inner.restore(value);
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        let folder = Folder::new(&self.config.copy_folder)?;
        // What an earlier run copied is gone, and may not have been read to its end.
        (self.last, self.settled) = (None, false);
        self.follow(&folder, context)
    }
}

/// A folder that nobody else can enter, and that goes with this.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new(parent: &Path) -> anyhow::Result<Self> {
        let parent = match parent.as_os_str().is_empty() {
            true => std::env::temp_dir(),
            false => parent.to_owned(),
        };
        let path = parent.join(format!("agentmon-ftl-{}", std::process::id()));
        for n in 0..64 {
            let path = path.with_extension(n.to_string());
            // Fails for what is there already, be it a link of somebody's.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(e).with_context(|| format!("a folder {}", path.display()));
                }
            }
        }
        anyhow::bail!("{}.0 to .63 are there already: remove them", path.display())
    }
}

impl Folder {
    /// Removes the files in it: on OpenWrt they take memory.
    fn empty(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(file = %entry.path().display(), %error, "removing the copy");
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "removing the copy");
        }
    }
}
