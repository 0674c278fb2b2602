//! The store as the rest of the hub sees it: a queue to the writer's thread, and
//! connections to read with.
//!
//! Queue: at most [`QUEUE_JOBS_MAX`] batches and [`QUEUE_EVENTS_MAX`] events; a full one
//! is refused at once, the sensor keeps its events and comes again. What has gathered
//! while a transaction ran goes into the next one together (group commit).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::StoreError;
use super::readers::Readers;
use super::staging::Outcome;
use super::writer::Writer;
use crate::ingest::Incoming;

/// Most batches that wait.
pub const QUEUE_JOBS_MAX: usize = 64;
/// Most events that wait; at about 500 bytes each 100 MB.
pub const QUEUE_EVENTS_MAX: usize = 200_000;
/// Most events of one transaction: about half a second of work.
const GROUP_EVENTS_MAX: usize = 50_000;
/// Upkeep at least this often.
const TICK: Duration = Duration::from_secs(1);

type Reply = oneshot::Sender<Result<Outcome, Arc<StoreError>>>;
type Answer = oneshot::Receiver<Result<Outcome, Arc<StoreError>>>;
type Work = Box<dyn FnOnce(&mut Writer) + Send>;

enum Job {
    Store(Box<Incoming>, Reply),
    Run(Work),
    Stop,
}

/// Why a batch was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// Too much waits already.
    #[error("the hub is busy; try again")]
    Full,
    /// The writer has stopped.
    #[error("the hub is stopping; try again")]
    Stopping,
    /// The transaction failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
}

/// A running writer. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    queue: SyncSender<Job>,
    waiting: Arc<AtomicUsize>,
    readers: Arc<Readers>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Handle {
    /// Starts the writer's thread; [`Handle::stop`] ends it, the handle to join says how.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(writer: Writer) -> std::io::Result<(Self, JoinHandle<Result<(), StoreError>>)> {
        // One more than batches may wait: room for a command and the stop.
        let (queue, jobs) = sync_channel(QUEUE_JOBS_MAX + 16);
        let waiting = Arc::new(AtomicUsize::new(0));
        let handle = Self { queue, waiting: Arc::clone(&waiting), readers: writer.readers() };
        let body = move || run(writer, &jobs, &waiting);
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(body)?;
        Ok((handle, thread))
    }

    /// Stores a batch; returns when it is committed.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn store(&self, batch: Incoming) -> Result<Outcome, Refused> {
        let answer = self.submit(batch)?;
        answer.await.map_err(|_| Refused::Stopping)?.map_err(Refused::Store)
    }

    /// The same for threads: waits as long as the queue is full.
    ///
    /// # Errors
    /// [`Refused`], but not [`Refused::Full`].
    pub fn store_blocking(&self, mut batch: Incoming) -> Result<Outcome, Refused> {
        loop {
            match self.try_submit(batch) {
                Ok(answer) => {
                    let answer = answer.blocking_recv().map_err(|_| Refused::Stopping)?;
                    return answer.map_err(Refused::Store);
                }
                Err((Refused::Full, back)) => {
                    batch = back;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err((other, _)) => return Err(other),
            }
        }
    }

    fn submit(&self, batch: Incoming) -> Result<Answer, Refused> {
        self.try_submit(batch).map_err(|(refused, _)| refused)
    }

    #[allow(clippy::result_large_err, reason = "a refused batch goes back to its owner")]
    fn try_submit(&self, batch: Incoming) -> Result<Answer, (Refused, Incoming)> {
        // An empty batch waits too.
        let events = batch.events.len() + 1;
        if self.waiting.fetch_add(events, Ordering::SeqCst) + events > QUEUE_EVENTS_MAX {
            self.waiting.fetch_sub(events, Ordering::SeqCst);
            return Err((Refused::Full, batch));
        }
        let (reply, answer) = oneshot::channel();
        let error = match self.queue.try_send(Job::Store(Box::new(batch), reply)) {
            Ok(()) => return Ok(answer),
            Err(error) => error,
        };
        self.waiting.fetch_sub(events, Ordering::SeqCst);
        let (refused, job) = match error {
            TrySendError::Full(job) => (Refused::Full, job),
            TrySendError::Disconnected(job) => (Refused::Stopping, job),
        };
        match job {
            Job::Store(batch, _) => Err((refused, *batch)),
            Job::Run(_) | Job::Stop => unreachable!("the job that was sent"),
        }
    }

    /// Runs something on the writer's thread and waits for it. Blocking.
    ///
    /// # Errors
    /// [`Refused::Stopping`].
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (done, result) = std::sync::mpsc::sync_channel(1);
        let work: Work = Box::new(move |writer| drop(done.send(work(writer))));
        self.queue.send(Job::Run(work)).map_err(|_| Refused::Stopping)?;
        result.recv().map_err(|_| Refused::Stopping)
    }

    /// Connections to read with.
    #[must_use]
    pub fn readers(&self) -> Arc<Readers> {
        Arc::clone(&self.readers)
    }

    /// Events that wait to be stored.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Asks the writer to finish what waits and close the file.
    pub fn stop(&self) {
        // Already gone is stopped too.
        drop(self.queue.send(Job::Stop));
    }
}

fn run(mut writer: Writer, jobs: &Receiver<Job>, waiting: &AtomicUsize) -> Result<(), StoreError> {
    let mut next = None;
    loop {
        let job = match next.take() {
            Some(job) => Ok(job),
            None => jobs.recv_timeout(TICK),
        };
        match job {
            Ok(Job::Store(batch, reply)) => {
                let mut group = vec![(*batch, reply)];
                next = gather(jobs, &mut group);
                waiting.fetch_sub(
                    group.iter().map(|(batch, _)| batch.events.len() + 1).sum(),
                    Ordering::SeqCst,
                );
                store(&mut writer, group);
            }
            Ok(Job::Run(work)) => work(&mut writer),
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return writer.close(),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(error) = writer.tick() {
            tracing::error!(%error, "upkeep of the store failed; trying again");
        }
    }
}

/// Adds to the group what waits already; returns the job that ends it.
fn gather(jobs: &Receiver<Job>, group: &mut Vec<(Incoming, Reply)>) -> Option<Job> {
    let mut events: usize = group.iter().map(|(batch, _)| batch.events.len()).sum();
    while events < GROUP_EVENTS_MAX {
        match jobs.try_recv() {
            Ok(Job::Store(batch, reply)) => {
                events += batch.events.len();
                group.push((*batch, reply));
            }
            other => return other.ok(),
        }
    }
    None
}

fn store(writer: &mut Writer, group: Vec<(Incoming, Reply)>) {
    let (batches, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
    // A sender that has hung up sends again; its batch is then a repetition.
    match writer.store(batches) {
        Ok(outcomes) => {
            for (outcome, reply) in outcomes.into_iter().zip(replies) {
                drop(reply.send(Ok(outcome)));
            }
        }
        Err(error) => {
            tracing::error!(%error, "a transaction failed; nothing of it was stored, the sensors keep their events");
            let error = Arc::new(error);
            replies.into_iter().for_each(|reply| drop(reply.send(Err(Arc::clone(&error)))));
        }
    }
}

#[cfg(test)]
mod tests {
    use agentmon_core::Event;
    use agentmon_core::event::{Body, Gap};
    use agentmon_core::time::{Clock, SystemClock};
    use agentmon_core::wire::{self, Batch, Health};
    use agentmon_router::counters::Counters;

    use super::*;
    use crate::store::Limits;

    fn batch(first_seq: u64, events: usize) -> Incoming {
        let now = SystemClock.wall();
        let gap = Gap { collector: "c".into(), from: now, reason: "restart".into(), lost: None };
        let event = wire::encode_event(&Event { time: now, body: Body::Gap(gap) });
        let events = vec![event; events];
        let batch = Batch { epoch: 1, first_seq, events, health: Health::default(), sent: now };
        Incoming::from_batch(&batch, 1, now, None)
    }

    fn start(dir: &std::path::Path) -> (Handle, JoinHandle<Result<(), StoreError>>) {
        let clock = Arc::new(SystemClock);
        let writer = Writer::open(dir, &Limits::default(), Counters::default(), clock).unwrap();
        Handle::start(writer).unwrap()
    }

    /// Keeps the writer's thread busy until the sender is dropped.
    fn hold(handle: &Handle) -> (std::sync::mpsc::Sender<()>, JoinHandle<()>) {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (begun, begin) = std::sync::mpsc::channel();
        let handle = handle.clone();
        let thread = std::thread::spawn(move || {
            let wait = move |_: &mut Writer| {
                begun.send(()).unwrap();
                held.recv().unwrap_err();
            };
            handle.run(wait).unwrap();
        });
        begin.recv().unwrap();
        (release, thread)
    }

    #[test]
    fn a_full_queue_refuses_and_what_waited_is_stored_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (handle, writer) = start(dir.path());
        let (release, held) = hold(&handle);
        let mut answers = Vec::new();
        let refused = loop {
            match handle.submit(batch(1 + 10 * answers.len() as u64, 10)) {
                Ok(answer) => answers.push(answer),
                Err(refused) => break refused,
            }
        };
        assert!(matches!(refused, Refused::Full));
        assert!(
            (QUEUE_JOBS_MAX..QUEUE_JOBS_MAX + 32).contains(&answers.len()),
            "{}",
            answers.len()
        );
        drop(release);
        held.join().unwrap();
        for answer in answers {
            let outcome = answer.blocking_recv().unwrap().unwrap();
            assert_eq!((outcome.stored, outcome.repeated), (10, 0));
        }
        assert_eq!(handle.waiting(), 0);
        handle.stop();
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn events_that_wait_are_bounded_too() {
        let dir = tempfile::tempdir().unwrap();
        let (handle, writer) = start(dir.path());
        let (release, held) = hold(&handle);
        let size = QUEUE_EVENTS_MAX / 4;
        let taken: Vec<_> =
            (0..5u64).map(|n| handle.submit(batch(1 + n * size as u64, size))).collect();
        assert_eq!(
            taken.iter().filter(|t| t.is_ok()).count(),
            3,
            "each counts one more than its events"
        );
        drop(release);
        held.join().unwrap();
        handle.stop();
        writer.join().unwrap().unwrap();
        assert!(matches!(handle.submit(batch(1, 1)), Err(Refused::Stopping)));
    }
}
