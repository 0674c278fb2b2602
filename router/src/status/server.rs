//! The server side of the status socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::wire::decode_event;
use anyhow::Context as _;

use super::api::{self, Source};
use super::{CONNECTIONS_MAX, Config, PATIENCE, REQUEST_BYTES_MAX, Request, TAIL_MAX};
use crate::collect::Stop;
use crate::pipeline;
use crate::pipeline::recent::Seen;
use crate::supervisor::{join_within, spawn};
use crate::sys::wait_readable;

/// How often `tail` looks for new events: the pipeline commits once a second.
const TAIL_EVERY: Duration = Duration::from_millis(200);

/// The listening socket; removed when the server stops.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

struct Answers {
    source: Arc<dyn Source>,
    pipeline: Arc<pipeline::Shared>,
    stop: Stop,
}

impl Server {
    /// Listens at the configured path. A socket left behind by a process that was killed is
    /// replaced; one that still answers is not.
    ///
    /// # Errors
    /// When the path cannot be bound, or another router answers there.
    pub fn start(
        config: &Config,
        source: Arc<dyn Source>,
        pipeline: Arc<pipeline::Shared>,
    ) -> anyhow::Result<Self> {
        let path = config.socket.clone();
        let listener = bind(&path, config.group_may_ask)
            .with_context(|| format!("status socket {}", path.display()))?;
        let stop = Stop::default();
        let answers = Arc::new(Answers { source, pipeline, stop: stop.clone() });
        let thread = spawn("status", move || accept(&listener, &answers))?;
        Ok(Self { path, stop, thread: Some(thread) })
    }

    /// Stops listening and removes the socket.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.stop.stop();
        // Wakes the accepting thread. Should that fail, nobody waits for it either.
        if UnixStream::connect(&self.path).is_ok() {
            join_within(thread, Duration::from_secs(1));
        }
        drop(std::fs::remove_file(&self.path));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn bind(path: &Path, group_may_ask: bool) -> anyhow::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        anyhow::bail!("another agentmon-router answers there");
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Until here the state directory's own mode keeps others out.
    let mode = if group_may_ask { 0o660 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, answers: &Arc<Answers>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if answers.stop.is_set() {
            return;
        }
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: not a reason to spin.
            if answers.stop.sleep(Duration::from_millis(100)) {
                return;
            }
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (answers, guard) = (Arc::clone(answers), Guard(Arc::clone(&open)));
        let spawned = spawn("status-peer", move || {
            // A peer that goes away is no news.
            drop(answer(&stream, &answers));
            drop(guard);
        });
        if let Err(error) = spawned {
            tracing::warn!("{error:#}");
        }
    }
}

/// Counts a connection down, also when its thread could not be started or panicked.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn answer(stream: &UnixStream, answers: &Answers) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::new(stream).take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line)?;
    let mut out = std::io::BufWriter::new(stream);
    match serde_json::from_slice(&line) {
        Ok(Request::Status) => {
            serde_json::to_writer(&mut out, &answers.source.status())?;
            out.write_all(b"\n")?;
        }
        Ok(Request::Call { method, arguments }) => {
            let answer = match api::call(answers.source.as_ref(), &method, &arguments) {
                Ok(answer) => serde_json::json!({ "answer": answer }),
                Err(refusal) => serde_json::json!({ "error": refusal.to_string() }),
            };
            writeln!(out, "{answer}")?;
        }
        Ok(Request::Tail { last, follow }) => {
            tail(&mut out, last, follow, stream.as_fd(), answers)?
        }
        Err(error) => {
            let error = serde_json::json!({ "error": format!("bad request: {error}") });
            writeln!(out, "{error}")?;
        }
    }
    out.flush()?;
    Ok(())
}

fn tail(
    out: &mut impl Write,
    last: usize,
    follow: bool,
    peer: BorrowedFd<'_>,
    answers: &Answers,
) -> anyhow::Result<()> {
    let recent = &answers.pipeline.recent;
    let mut seen = recent.last(last.min(TAIL_MAX));
    loop {
        write_events(out, &seen)?;
        if !follow || answers.stop.is_set() {
            return Ok(());
        }
        out.flush()?;
        // A peer says nothing more: readable means that it has gone.
        if wait_readable(peer, TAIL_EVERY)? {
            return Ok(());
        }
        seen = recent.after(seen.cursor);
    }
}

/// One JSON line per event; `{"missed":N}` where the reader was too slow.
fn write_events(out: &mut impl Write, seen: &Seen) -> anyhow::Result<()> {
    if seen.missed > 0 {
        writeln!(out, "{}", serde_json::json!({ "missed": seen.missed }))?;
    }
    for event in seen.events.iter().filter_map(|bytes| decode_event(bytes).ok()) {
        serde_json::to_writer(&mut *out, &event)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
