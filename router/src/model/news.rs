//! Alerts on their way to whoever tells them: a short queue and a bell.
//!
//! In: news from the pipeline thread, which never waits. Out: news for the one thread that
//! sends them on. At most [`NEWS_MAX`] wait; the oldest makes room, counted while somebody
//! listens. What nobody came for within [`FRESH`] is no news any more.

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agentmon_core::time::Mono;

use super::Told;
use crate::counters::{Counter, Counters};

/// Most news waiting.
pub const NEWS_MAX: usize = 64;
/// How long an alert is news: a bus that restarts is back by then.
pub const FRESH: Duration = Duration::from_secs(60);

/// The queue. Shared.
#[derive(Debug)]
pub struct News {
    inner: Mutex<Inner>,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<(Mono, Told)>,
    /// Written to when the first news comes; its other end is polled.
    bell: Option<UnixStream>,
}

impl News {
    /// Nobody listens yet.
    #[must_use]
    pub fn new(counters: &Counters) -> Self {
        Self { inner: Mutex::default(), dropped: counters.counter("ubus.alerts_dropped") }
    }

    /// Adds one; rings.
    pub(super) fn push(&self, told: Told, now: Mono) {
        let mut inner = self.lock();
        if inner.waiting.len() >= NEWS_MAX {
            inner.waiting.pop_front();
            self.dropped.add(u64::from(inner.bell.is_some()));
        }
        inner.waiting.push_back((now, told));
        if inner.waiting.len() == 1
            && let Some(mut bell) = inner.bell.as_ref()
        {
            // A full or closed bell is rung already, or nobody listens.
            drop(bell.write(&[1]));
        }
    }

    /// From now on there is somebody who takes them; `bell` must not block.
    pub fn listen(&self, bell: Option<UnixStream>) {
        self.lock().bell = bell;
    }

    /// The oldest that is still fresh.
    #[must_use]
    pub fn take(&self, now: Mono) -> Option<Told> {
        let mut inner = self.lock();
        while let Some((when, told)) = inner.waiting.pop_front() {
            if now.since(when) <= FRESH {
                return Some(told);
            }
        }
        None
    }

    /// How many had to make room while somebody listened.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    fn told(n: usize) -> Told {
        Told { alert: super::super::alerts::tests::sample(&format!("n{n}")), device: String::new() }
    }

    #[test]
    fn the_newest_wait_and_the_old_are_no_news() {
        let news = News::new(&Counters::default());
        (0..100).for_each(|n| news.push(told(n), at(1)));
        assert_eq!(news.dropped(), 0, "nobody listened");
        let subject = |told: Option<Told>| told.map(|t| t.alert.subject);
        assert_eq!(subject(news.take(at(2))).as_deref(), Some("n36"));
        assert_eq!(subject(news.take(at(62))), None);
    }

    #[test]
    fn the_bell_never_blocks() {
        let (mut end, bell) = UnixStream::pair().unwrap();
        bell.set_nonblocking(true).unwrap();
        let news = News::new(&Counters::default());
        news.listen(Some(bell));
        for _ in 0..10_000 {
            (0..NEWS_MAX + 1).for_each(|n| news.push(told(n), at(1)));
            assert_eq!(news.take(at(1)).map(|t| t.alert.subject).as_deref(), Some("n1"));
            while news.take(at(1)).is_some() {}
        }
        assert_eq!(news.dropped(), 10_000);
        let mut byte = [0];
        end.read_exact(&mut byte).unwrap();
        drop(end);
        news.push(told(0), at(1));
    }
}
