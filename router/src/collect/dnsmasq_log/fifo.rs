//! The log through a named pipe: nothing is written anywhere.
//!
//! In: a FIFO that dnsmasq's `log-facility` names. Out: as from a file. The collector's
//! thread; 136 KiB for lines, at most [`EVENTS_MAX`] events while the pipeline is behind.
//!
//! dnsmasq waits for room in a full pipe, whatever `log-async` says, and answers nobody
//! meanwhile (2.90: after 376 questions with `extra` and a pipe of 64 KiB that nobody read;
//! a pipe whose reader is *gone* does it no harm). So:
//! - the pipe is made as large as it may be (1 MiB, some 6,000 questions);
//! - this thread never waits for the pipeline: what does not fit is dropped, counted and
//!   told as a gap;
//! - a program that is frozen, not ended, still stops DNS when the pipe is full: a file on
//!   tmpfs or syslog does not have this fault and is to be preferred.
//!
//! Invariants: the pipe is held open for writing too, so that dnsmasq starts and restarts
//! without waiting; there is no place to go on from: what is in the pipe when this program
//! ends is lost to it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use agentmon_core::time::Mono;
use anyhow::Context as _;

use super::{Source, exchange};
use crate::collect::gaps::Gaps;
use crate::collect::{Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::sys;
use crate::tail::Counts as TailCounts;
use crate::tail::lines::LineBuffer;

/// What an unprivileged process may ask for, unless `fs.pipe-max-size` was changed.
const PIPE_BYTES: usize = 1024 * 1024;
/// Most events kept while the pipeline is behind.
pub(super) const EVENTS_MAX: usize = 8 * DELIVERY_EVENTS_MAX;
/// Pieces read between two looks at the clock.
const READS_MAX: usize = 8;

/// Whether a path names a pipe.
pub(super) fn is_fifo(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo())
}

fn open(path: &Path) -> io::Result<File> {
    // For reading and writing, opening a FIFO never waits, and there is always a writer:
    // no end of file between two runs of dnsmasq (fifo(7)).
    let pipe = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !pipe.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no pipe any more"));
    }
    Ok(pipe)
}

impl Source {
    /// Reads the pipe until asked to stop.
    pub(super) fn run_fifo(&mut self, context: &Context) -> anyhow::Result<()> {
        let path = self.path.clone();
        let what = || format!("the pipe {} (may this user read and write it?)", path.display());
        let mut pipe = open(&path).with_context(what)?;
        // Refused where the limit is lower: then it is as large as it was.
        let _size = sys::set_pipe_size(pipe.as_fd(), PIPE_BYTES);
        let (mut lines, mut gaps) = (LineBuffer::new(), Gaps::of(exchange::SOURCE, "pipe-behind"));
        let lost = context.counters.counter("drop.dnsmasq_log.pipe_behind");
        let mut last_line: Mono = context.clock.mono();
        let poll = Duration::from_millis(self.config.poll_ms);
        while !context.stop.is_set() {
            if sys::wait_readable(pipe.as_fd(), poll).with_context(what)? {
                self.read_pipe(&mut pipe, &mut lines, context).with_context(what)?;
                last_line = context.clock.mono();
            }
            let now = context.clock.mono();
            self.reader.idle(now.since(last_line), &mut self.events);
            let dropped = self.offer(context);
            lost.add(dropped);
            gaps.note(dropped, context.clock.wall());
            if self.events.len() < EVENTS_MAX {
                self.events.extend(gaps.take(context.clock.wall(), now));
            }
            self.say_unknown(now);
            self.count_with(&context.counters, tail_counts(&lines));
            context.state.set(format!(
                "ok: {} (a pipe), {} questions waiting",
                path.display(),
                self.reader.waiting()
            ));
            anyhow::ensure!(is_fifo(&path), "the pipe {} was taken away", path.display());
        }
        self.reader.finish(&mut self.events);
        self.events.extend(gaps.take(context.clock.wall(), context.clock.mono()));
        while !self.events.is_empty() {
            let rest = self.events.split_off(self.events.len().min(DELIVERY_EVENTS_MAX));
            let events = std::mem::replace(&mut self.events, rest);
            if context.outbox.send(Delivery { events, checkpoint: None }).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What is in the pipe, or some of it.
    fn read_pipe(
        &mut self,
        pipe: &mut File,
        lines: &mut LineBuffer,
        context: &Context,
    ) -> io::Result<()> {
        let now = context.clock.wall();
        for _ in 0..READS_MAX {
            match pipe.read(lines.space()) {
                Ok(n) => lines.filled(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            while let Some(line) = lines.next_line() {
                self.reader.line(lines.get(line), now, &mut self.events);
            }
        }
        Ok(())
    }

    /// Hands over what the pipeline has room for; how many events had to be dropped.
    fn offer(&mut self, context: &Context) -> u64 {
        while !self.events.is_empty() {
            let rest = self.events.split_off(self.events.len().min(DELIVERY_EVENTS_MAX));
            let events = std::mem::replace(&mut self.events, rest);
            if let Err(mut back) = context.outbox.try_send(Delivery { events, checkpoint: None }) {
                back.events.append(&mut self.events);
                self.events = back.events;
                break;
            }
        }
        let over = self.events.len().saturating_sub(EVENTS_MAX);
        self.events.truncate(EVENTS_MAX);
        over as u64
    }
}

fn tail_counts(lines: &LineBuffer) -> TailCounts {
    TailCounts { lines: lines.counts(), ..TailCounts::default() }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;
    use std::sync::mpsc::Receiver;

    use agentmon_core::event::Body;
    use agentmon_core::time::SystemClock;

    use super::super::Config;
    use super::*;
    use crate::collect::{Collector as _, DELIVERIES_MAX, Outbox, State, Stop};
    use crate::counters::Counters;

    fn start(path: &Path) -> (Context, Receiver<Delivery>, std::thread::JoinHandle<()>) {
        let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success() && is_fifo(path));
        let (outbox, deliveries) = Outbox::channel();
        let context = Context {
            outbox,
            stop: Stop::default(),
            clock: Arc::new(SystemClock),
            counters: Counters::default(),
            state: State::default(),
        };
        let config = Config { enabled: true, paths: vec![path.into()], ..Config::default() };
        let own = context.clone();
        let thread = std::thread::spawn(move || Source::new(config).run(&own).unwrap());
        (context, deliveries, thread)
    }

    fn until(context: &Context, what: &str, is: impl Fn() -> bool) {
        for _ in 0..6_000 {
            if is() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("never: {what}; {:?}", context.counters.snapshot());
    }

    fn counted(context: &Context, name: &str) -> u64 {
        context.counters.snapshot().get(name).copied().unwrap_or(0)
    }

    #[test]
    fn lines_through_a_pipe_and_a_writer_that_comes_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dns.fifo");
        let (context, deliveries, thread) = start(&path);
        until(&context, "open", || context.state.get().contains("a pipe"));
        for n in 0..3 {
            // As dnsmasq opens it.
            let mut pipe = File::options().append(true).open(&path).unwrap();
            let line = format!("Nov 23 14:00:00 dnsmasq[7]: query[A] n{n}.example from 192.0.2.31");
            pipe.write_all(line.as_bytes()).unwrap();
            pipe.write_all(&[b"\n", &vec![b'x'; 20_000][..], b"\n"].concat()).unwrap();
        }
        until(&context, "three lines", || counted(&context, "dnsmasq_log.queries") == 3);
        until(&context, "long lines", || counted(&context, "drop.tail.line_too_long") == 3);
        context.stop.stop();
        thread.join().unwrap();
        drop(context);
        let events = deliveries.iter().flat_map(|d| d.events);
        let names = events.filter_map(|event| match event.body {
            Body::Dns(dns) => Some(dns.name.as_str().to_owned()),
            _ => None,
        });
        assert_eq!(names.collect::<Vec<_>>(), ["n0.example", "n1.example", "n2.example"]);
    }

    #[test]
    fn a_pipeline_that_hangs_does_not_stop_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dns.fifo");
        let (context, deliveries, thread) = start(&path);
        let mut pipe = File::options().append(true).open(&path).unwrap();
        // More than the queue, the buffer and the pipe hold together.
        let total = DELIVERIES_MAX * DELIVERY_EVENTS_MAX + 4 * EVENTS_MAX;
        for n in 0..total {
            let text = "query[A] x.example from 192.0.2.31";
            writeln!(pipe, "Nov 23 14:00:00 dnsmasq[7]: {n} 192.0.2.31/5 {text}").unwrap();
        }
        until(&context, "all lines", || counted(&context, "dnsmasq_log.queries") == total as u64);
        until(&context, "losses", || counted(&context, "drop.dnsmasq_log.pipe_behind") > 0);
        let lost = context.counters.counter("drop.dnsmasq_log.pipe_behind");
        context.stop.stop();
        let mut asked = 0;
        let mut told = 0;
        let own = context.clone();
        drop(context);
        let mut take = |delivery: Delivery| {
            for event in delivery.events {
                match event.body {
                    Body::Dns(_) => asked += 1,
                    Body::Gap(gap) => told += gap.lost.unwrap(),
                    _ => {}
                }
            }
        };
        while !thread.is_finished() {
            deliveries.recv_timeout(Duration::from_millis(50)).map(&mut take).unwrap_or_default();
        }
        thread.join().unwrap();
        drop(own);
        deliveries.iter().for_each(take);
        assert_eq!(asked + lost.get(), total as u64, "seen or counted");
        assert!(told > 0 && told <= lost.get());
    }
}
