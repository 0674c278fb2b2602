//! A source read from a timer, or followed, by `agentmon collect`: exactly once, over any
//! number of passes.
//!
//! In: a collector of the router. Out: wire batches for the hub, as an import sends them, and
//! where to go on next time. Runs in the command line's process; the collector on a thread of
//! its own; memory bounded by [`DELIVERIES_MAX`](agentmon_router::collect::DELIVERIES_MAX)
//! deliveries.
//!
//! [`Memory`] is a file for each source and sensor: an epoch, the next sequence number, the
//! collector's checkpoint. A delivery is first written there whole, with the checkpoint behind
//! it, then sent, then struck out. Whoever ends in between sends the very same batch again the
//! next time, and the hub takes it once. Two passes over one source at a time are refused.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use agentmon_core::event::Body;
use agentmon_core::tier0::Engine;
use agentmon_core::time::Clock;
use agentmon_core::wire::{self, Batch, Health};
use agentmon_core::{Event, Timestamp};
use agentmon_router::collect::{Collector, Context, Delivery, Outbox, State, Stop};
use agentmon_router::counters::Counters;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::import::{Send, epoch};

/// Folder below the data directory.
const FOLDER: &str = "collect";
/// Longest memory read: a delivery of 1,024 events and a checkpoint.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How often to look whether the end is reached.
const STEP: Duration = Duration::from_millis(50);

/// What is kept between two passes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// Of whom this is: a hash may lie.
    sensor: String,
    source: String,
    epoch: u64,
    next_seq: u64,
    /// The collector's own, in base64.
    checkpoint: Option<String>,
    /// A batch on its way, in base64: sent again as it is.
    pending: Vec<String>,
}

/// The memory of one source; nobody else has it open.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    kept: Kept,
    /// Locked until dropped.
    _lock: File,
}

impl Memory {
    /// Of a source, below the data directory.
    ///
    /// # Errors
    /// When it cannot be read or written, or another pass has it open.
    pub fn open(data: &Path, sensor: &str, source: &str, now: Timestamp) -> anyhow::Result<Self> {
        let folder = data.join(FOLDER);
        crate::store::make_private_dir(data)?;
        crate::store::make_private_dir(&folder)?;
        let name = format!("{:016x}", epoch(&[b"collect", sensor.as_bytes(), source.as_bytes()]));
        let (path, lock) =
            (folder.join(format!("{name}.json")), folder.join(format!("{name}.lock")));
        let lock = File::create(&lock).with_context(|| format!("opening {}", lock.display()))?;
        lock.try_lock().with_context(|| format!("{source} is being read by another `collect`"))?;
        let kept = read(&path).with_context(|| format!("reading {}", path.display()))?;
        let kept = match kept.filter(|kept| kept.sensor == sensor && kept.source == source) {
            Some(kept) => kept,
            None => Kept {
                sensor: sensor.to_owned(),
                source: source.to_owned(),
                epoch: epoch(&[name.as_bytes(), &now.nanos().to_be_bytes()]),
                next_seq: 1,
                ..Kept::default()
            },
        };
        Ok(Self { path, kept, _lock: lock })
    }

    /// Where the collector is to go on.
    fn checkpoint(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.kept.checkpoint.as_ref()?).ok()
    }

    /// Sends what an earlier pass could not, or was not sure of.
    fn resend(&mut self, send: Send<'_>) -> anyhow::Result<u64> {
        if self.kept.pending.is_empty() {
            return Ok(0);
        }
        let decode = |event: &String| STANDARD.decode(event);
        let events: Result<Vec<_>, _> = self.kept.pending.iter().map(decode).collect();
        let events = events.with_context(|| format!("{} is damaged", self.path.display()))?;
        let n = events.len() as u64;
        let new = send.batch(self.batch(events))?;
        self.kept.next_seq += n;
        self.kept.pending.clear();
        self.save()?;
        Ok(new)
    }

    fn batch(&self, events: Vec<Vec<u8>>) -> Batch {
        Batch {
            epoch: self.kept.epoch,
            first_seq: self.kept.next_seq,
            events,
            health: Health { version: env!("CARGO_PKG_VERSION").to_owned(), ..Health::default() },
            // Whoever sends it knows when.
            sent: Timestamp::EPOCH,
        }
    }

    /// Keeps and sends a delivery; returns how many of its events were new.
    fn take(
        &mut self,
        events: &[Event],
        checkpoint: Option<Vec<u8>>,
        send: Send<'_>,
    ) -> anyhow::Result<u64> {
        self.kept.pending =
            events.iter().map(|event| STANDARD.encode(wire::encode_event(event))).collect();
        if let Some(checkpoint) = checkpoint {
            self.kept.checkpoint = Some(STANDARD.encode(checkpoint));
        }
        self.save()?;
        self.resend(send)
    }

    /// Whole or not at all.
    fn save(&self) -> anyhow::Result<()> {
        let about = || format!("writing {}", self.path.display());
        let text = serde_json::to_vec(&self.kept).with_context(about)?;
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside).with_context(about)?;
        file.write_all(&text).with_context(about)?;
        file.sync_all().with_context(about)?;
        std::fs::rename(&beside, &self.path).with_context(about)
    }
}

fn read(path: &Path) -> anyhow::Result<Option<Kept>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text).context("remove it to begin anew")?))
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// Events read.
    pub events: u64,
    /// Findings made of them.
    pub findings: u64,
    /// Events and findings that the hub did not have yet.
    pub new: u64,
    /// What the collector said last of itself.
    pub state: String,
    /// Whether it read all there was.
    pub caught_up: bool,
    /// Losses and oddities, by name.
    pub counters: std::collections::BTreeMap<String, u64>,
}

/// Reads a source: up to its end when `longest` is given, at most for so long; else until it
/// fails.
///
/// # Errors
/// What made the source unreadable, or the hub unreachable; what was sent stays, and the next
/// pass goes on behind it.
pub fn pass(
    mut source: Box<dyn Collector>,
    memory: &mut Memory,
    engine: &mut Engine,
    (clock, longest): (Arc<dyn Clock>, Option<Duration>),
    send: Send<'_>,
) -> anyhow::Result<Passed> {
    let mut passed = Passed { new: memory.resend(send)?, ..Passed::default() };
    if let Some(checkpoint) = memory.checkpoint() {
        source.restore(&checkpoint);
    }
    let (outbox, receiver) = Outbox::channel();
    let (stop, state, counters) = (Stop::default(), State::default(), Counters::default());
    let context = Context {
        outbox,
        stop: stop.clone(),
        clock: Arc::clone(&clock),
        counters: counters.clone(),
        state: state.clone(),
    };
    let begun = clock.mono();
    let outcome = std::thread::scope(|scope| {
        // The context goes with it: its end is the end of the deliveries.
        let thread = scope.spawn(move || {
            let context = context;
            source.run(&context)
        });
        let mut taken = Ok(());
        loop {
            match receiver.recv_timeout(STEP) {
                Ok(delivery) if taken.is_ok() => {
                    taken = take(delivery, memory, engine, &mut passed, send);
                    if taken.is_err() {
                        stop.stop();
                    }
                }
                // Read again the next time, since its checkpoint is not kept.
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // A source that never rests is read for a pass's length.
            let waited = clock.mono().since(begun);
            if longest.is_some_and(|most| state.is_caught_up() || waited >= most) {
                stop.stop();
            }
        }
        let ran = thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("internal error")));
        taken.and(ran)
    });
    outcome?;
    (passed.state, passed.caught_up) = (state.get(), state.is_caught_up());
    passed.counters = counters.snapshot().into_iter().filter(|(_, n)| *n > 0).collect();
    Ok(passed)
}

fn take(
    delivery: Delivery,
    memory: &mut Memory,
    engine: &mut Engine,
    passed: &mut Passed,
    send: Send<'_>,
) -> anyhow::Result<()> {
    let (mut events, mut found) = (Vec::with_capacity(delivery.events.len()), Vec::new());
    for mut event in delivery.events {
        engine.on_event(&mut event, &mut found);
        events.push(event);
        passed.events += 1;
        for found in found.drain(..) {
            passed.findings += 1;
            events.push(Event { time: found.time, body: Body::Finding(found.finding) });
        }
    }
    let checkpoint = delivery.checkpoint.map(|checkpoint| checkpoint.value);
    passed.new += memory.take(&events, checkpoint, send)?;
    Ok(())
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
