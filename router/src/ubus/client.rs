//! The router's place on the bus: one thread that connects, publishes, answers, tells of
//! alerts, and comes back when ubusd was restarted.
//!
//! In: calls from ubusd, alerts from the model's news. Out: answers and events. It waits in
//! one `poll` for ubusd, for news and for the wish to stop; idle it does nothing at all.
//!
//! Invariants: nobody ever waits for this thread: news are a short queue that drops, of which
//! at most [`UNDER_WAY_MAX`] are sent before ubusd has answered; a ubusd that does not take
//! answers is asked for no more calls ([`OUT_HIGH_BYTES`]) and at last given up ([`STALLED`]).
//! Memory: one message of at most [`IN_BYTES_MAX`], and what is to be written:
//! [`OUT_HIGH_BYTES`] and one answer.
//!
//! No ubusd is no fault: that is every machine but an OpenWrt router. It is looked for again
//! after 1, 2, 4 ... 60 s, without a word in the log.

#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::time::{Clock, Mono};

use super::message::{Frame, FrameError, Inbox, Status};
use super::object;
use super::session::{Refused, Session};
use super::shared::{Config, Shared};
use crate::collect::Stop;
use crate::counters::Counters;
use crate::forward::backoff::Backoff;
use crate::ratelimit::LogLimit;
use crate::status::api::Source;
use crate::status::told_alert;
use crate::sys::{Ready, user_id, wait_any};

/// Longest message taken in; a call of ours has a few hundred bytes.
const IN_BYTES_MAX: usize = 64 * 1024;
/// While more than this waits to be written, nothing more is read or told.
const OUT_HIGH_BYTES: usize = 256 * 1024;
/// Most events that ubusd has not answered: the others wait as news, and the oldest go.
const UNDER_WAY_MAX: usize = 16;
/// Most bytes read at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Greeting and publishing may take this long.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(10);
/// A ubusd that takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// Longest sleep: whatever else fails to wake this thread, time does.
const IDLE: Duration = Duration::from_secs(60);

/// What the thread works with.
pub struct Parts {
    /// Who answers calls, and has news.
    pub source: Arc<dyn Source>,
    /// Settings and state, shared with others.
    pub shared: Arc<Shared>,
    /// When to end; [`Shared::poke`] makes it be noticed.
    pub stop: Stop,
    /// Monotonic time.
    pub clock: Arc<dyn Clock>,
    /// The program's counters.
    pub counters: Counters,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("ubusd closed the connection")]
    Closed,
    #[error("what answers there speaks no ubus: {0}")]
    Frame(#[from] FrameError),
    #[error("{0:?}")]
    Refused(Refused),
    #[error("ubusd does not answer")]
    Silent,
    #[error("ubusd takes nothing")]
    Stalled,
    /// Stop, or other settings.
    #[error("asked to")]
    Asked,
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Works until asked to stop.
pub fn run(parts: &Parts) {
    let mut backoff = Backoff::new(u64::from(std::process::id()));
    let limit = LogLimit::default();
    while !parts.stop.is_set() {
        let config = parts.shared.config();
        if !config.enabled {
            parts.shared.state.set("off: switched off (ubus.enabled)");
            parts.shared.wait(IDLE);
            continue;
        }
        let (ended, was_published) = match UnixStream::connect(&config.socket) {
            Ok(stream) => connection(parts, &config, stream),
            Err(error) => (Ended::Io(error), false),
        };
        if was_published {
            backoff.reset();
        }
        if matches!(ended, Ended::Asked) {
            continue;
        }
        let pause = backoff.after_failure();
        tell(parts, &config, &limit, &ended, was_published, pause);
        parts.shared.wait(pause);
    }
}

/// State and log: one line, with what to do about it.
fn tell(
    parts: &Parts,
    config: &Config,
    limit: &LogLimit,
    ended: &Ended,
    was_published: bool,
    pause: Duration,
) {
    let socket = config.socket.display();
    let again = format!("next attempt in {} s", pause.as_secs_f64().ceil());
    let absent = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
    };
    let line = match ended {
        Ended::Io(error) if absent(error) => {
            parts.shared.state.set(format!("off: no ubusd answers at {socket}"));
            return;
        }
        Ended::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
            format!("{socket}: permission denied: run as root, or let this user write to it")
        }
        Ended::Refused(Refused(status)) => refusal(*status, user_id()),
        other => format!("{socket}: {other}"),
    };
    parts.shared.state.set(format!("{line}; {again}"));
    parts.counters.counter("ubus.failures").inc();
    let cause = if was_published { "lost" } else { "refused" };
    if let Some(more) = limit.allow(cause, parts.clock.mono()) {
        tracing::warn!("ubus: {line}; {again}{more}");
    }
}

/// ubusd says "invalid argument" both when the rules forbid the name and when it is taken.
fn refusal(status: Status, user: u32) -> String {
    let (name, acl) = (object::NAME, object::ACL_PATH);
    let word = status.as_str();
    if user == 0 {
        return format!(
            "ubusd refuses the object {name} ({word}): is another agentmon-router running?"
        );
    }
    format!(
        "ubusd refuses the object {name} ({word}): put {acl} there for the user that runs \
         agentmon-router and reload ubusd (killall -HUP ubusd), or stop another \
         agentmon-router that has the name"
    )
}

/// One connection from greeting to end; whether the object was published on it.
fn connection(parts: &Parts, config: &Config, stream: UnixStream) -> (Ended, bool) {
    let mut link = Link {
        parts,
        config,
        stream,
        inbox: Inbox::new(IN_BYTES_MAX),
        session: Session::new(&parts.counters),
        progress: parts.clock.mono(),
        heard: parts.clock.mono(),
        published: false,
    };
    let ended = match link.serve() {
        Ok(never) => match never {},
        Err(ended) => ended,
    };
    parts.source.model().news.listen(None);
    (ended, link.published)
}

struct Link<'a> {
    parts: &'a Parts,
    config: &'a Config,
    stream: UnixStream,
    inbox: Inbox,
    session: Session,
    /// When ubusd last took something, or there was nothing to take.
    progress: Mono,
    /// When ubusd last said something, or had nothing to answer.
    heard: Mono,
    published: bool,
}

impl Link<'_> {
    fn serve(&mut self) -> Result<std::convert::Infallible, Ended> {
        self.stream.set_nonblocking(true)?;
        let mut bell = self.parts.shared.bell()?;
        let begun = self.parts.clock.mono();
        loop {
            self.answer()?;
            self.tell_news();
            self.write()?;
            let now = self.parts.clock.mono();
            if self.parts.stop.is_set() || self.parts.shared.config() != *self.config {
                return Err(Ended::Asked);
            }
            let timeout = self.timeout(begun, now)?;
            let waits = self.session.out.len();
            let want = Ready { read: waits <= OUT_HIGH_BYTES, write: waits > 0 };
            let ring = Ready { read: true, write: false };
            let fds = [(self.stream.as_fd(), want), (bell.as_fd(), ring)];
            let [ready, rung] = wait_any(fds, timeout)?;
            if rung.read {
                empty(&mut bell);
            }
            if ready.read && want.read {
                self.read()?;
            }
        }
    }

    /// How long to wait, or that it has been too long.
    fn timeout(&self, begun: Mono, now: Mono) -> Result<Duration, Ended> {
        let left = |since: Mono, most: Duration| most.checked_sub(now.since(since));
        let mut timeout = IDLE;
        if !self.published {
            timeout = timeout.min(left(begun, PUBLISH_PATIENCE).ok_or(Ended::Silent)?);
        }
        if !self.session.out.is_empty() {
            timeout = timeout.min(left(self.progress, STALLED).ok_or(Ended::Stalled)?);
        }
        if self.session.under_way() > 0 {
            timeout = timeout.min(left(self.heard, STALLED).ok_or(Ended::Silent)?);
        }
        Ok(timeout)
    }

    /// Answers what is there, as long as the answers find room.
    fn answer(&mut self) -> Result<(), Ended> {
        while self.session.out.len() <= OUT_HIGH_BYTES {
            match self.inbox.next_frame()? {
                Some(Frame::Message(message)) => {
                    self.session.message(&message, self.parts.source.as_ref())?;
                }
                Some(Frame::TooLong(header)) => self.session.too_long(header),
                None => break,
            }
            if self.session.is_published() && !self.published {
                self.now_published()?;
            }
        }
        Ok(())
    }

    fn now_published(&mut self) -> Result<(), Ended> {
        self.published = true;
        self.parts.shared.state.set(format!("ok: object {}", object::NAME));
        self.parts.counters.counter("ubus.connections").inc();
        self.parts.source.model().news.listen(Some(self.parts.shared.ringer()?));
        Ok(())
    }

    fn tell_news(&mut self) {
        let news = &self.parts.source.model().news;
        let now = self.parts.clock.mono();
        if self.session.under_way() == 0 {
            self.heard = now;
        }
        while self.published && self.session.under_way() < UNDER_WAY_MAX {
            let Some(told) = news.take(now) else { break };
            self.session.event(object::ALERT_EVENT, &told_alert(&told));
        }
    }

    fn write(&mut self) -> Result<(), Ended> {
        let out = &mut self.session.out;
        let mut done = 0;
        let ended = loop {
            let rest = out.get(done..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            match self.stream.write(rest) {
                Ok(0) => break Err(Ended::Closed),
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error.into()),
            }
        };
        out.drain(..done);
        if done > 0 || out.is_empty() {
            self.progress = self.parts.clock.mono();
        }
        if out.is_empty() {
            out.shrink_to(PIECE_BYTES);
        }
        ended
    }

    fn read(&mut self) -> Result<(), Ended> {
        let mut piece = [0; PIECE_BYTES];
        match self.stream.read(&mut piece) {
            Ok(0) => Err(Ended::Closed),
            Ok(n) => {
                self.heard = self.parts.clock.mono();
                self.inbox.push(piece.get(..n).unwrap_or_default());
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes the rings out of the bell.
fn empty(bell: &mut UnixStream) {
    let mut rings = [0; 256];
    while matches!(bell.read(&mut rings), Ok(n) if n > 0) {}
}
