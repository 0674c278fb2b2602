//! What a process costs, read from `/proc` (proc(5)), and time.
//!
//! CPU time comes in clock ticks of 10 ms: precise in the sum (the kernel scales ticks to
//! its own nanosecond account), so measured stretches are seconds long.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use agentmon_core::time::{Clock as _, Mono, SystemClock};
use anyhow::{Context as _, anyhow};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Measures elapsed time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Mono);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(SystemClock.mono())
    }
    pub(crate) fn elapsed(self) -> Duration {
        SystemClock.mono().since(self.0)
    }
}

/// CPU time used by a process or thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    /// Seconds in both modes.
    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }
    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

/// All threads of a process, those that have ended included; also of a process that has
/// ended and is not yet waited for.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Cpu> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    parse_stat(&text).ok_or_else(|| anyhow!("{path}: {text:?}"))
}

/// What a child has used when it ends by itself; still to be waited for.
pub(crate) fn cpu_until_end(child: &Child) -> anyhow::Result<Cpu> {
    let pid = Pid::from_child(child);
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    cpu(child.id())
}

/// Fields 14 and 15 (utime, stime), counted after the name in brackets, which may hold
/// spaces and brackets itself.
fn parse_stat(text: &str) -> Option<Cpu> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let mut next = || Some(fields.next()?.parse::<u64>().ok()? as f64 / per_second);
    Some(Cpu { user: next()?, system: next()? })
}

/// A `Name: value kB` line of `/proc/PID/status`, in bytes. `VmHWM` is the largest
/// resident size so far.
pub(crate) fn status_bytes(pid: u32, name: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let find = |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned);
    let value = text.lines().find_map(find);
    let value = value.with_context(|| format!("{path} has no {name}"))?;
    let kib = value.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path}: {name}: {value}"))? * 1_024)
}

/// Bytes a process has caused to be written to disks (RAM disks do not count).
pub(crate) fn written_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/io");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let bytes = text.lines().find_map(|l| l.strip_prefix("write_bytes: ")?.trim().parse().ok());
    bytes.with_context(|| format!("{path} has no write_bytes"))
}

/// Time this thread had a processor, whatever else ran beside it (`sched-stats.rst`).
pub(crate) fn thread_ns() -> anyhow::Result<u64> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).context(path)?;
    let number = text.split(' ').next().and_then(|n| n.parse().ok());
    number.with_context(|| format!("{path}: {text:?}"))
}

/// A part of nanoseconds, in microseconds: 0.5 for the median, 1 for the longest.
pub(crate) fn quantile_us(times: &mut [u64], part: f64) -> f64 {
    times.sort_unstable();
    let index = (times.len() as f64 * part) as usize;
    times.get(index.min(times.len().saturating_sub(1))).map_or(0.0, |ns| *ns as f64 / 1e3)
}

/// A tool of the system; `/usr/sbin` is looked at too, it is not on every user's path.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

/// One line about where and how the figures came about.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let build =
        if cfg!(debug_assertions) { "DEBUG BUILD: figures mean nothing" } else { "release" };
    format!("{cores} x {model}, Linux {}, load {load}, {build}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let text = "7 (a ) (b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse_stat(text), Some(Cpu { user: 2.5, system: 0.5 }));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let me = std::process::id();
        assert!(status_bytes(me, "VmHWM").unwrap() > 100_000);
        assert!(cpu(me).is_ok());
    }
}
