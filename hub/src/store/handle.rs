//! The store as the rest of the hub sees it: a queue to the writer's thread, and
//! connections to read with.
//!
//! Queue: at most [`QUEUE_JOBS_MAX`] batches and [`QUEUE_EVENTS_MAX`] events; a full one
//! is refused at once, the sensor keeps its events and comes again. What has gathered
//! while a transaction ran goes into the next one together (group commit).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use duckdb::{Connection, InterruptHandle};
use tokio::sync::oneshot;

use super::StoreError;
use super::staging::Outcome;
use super::writer::Writer;
use crate::ingest::Incoming;

/// Most batches that wait.
pub const QUEUE_JOBS_MAX: usize = 64;
/// Most events that wait; at about 500 bytes each 100 MB.
pub const QUEUE_EVENTS_MAX: usize = 200_000;
/// Most events of one transaction: about half a second of work.
const GROUP_EVENTS_MAX: usize = 50_000;
/// Most queries at a time.
pub const READERS_MAX: usize = 16;
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

/// Connections for reading, cloned from one root; they can all be ended, so that the file
/// can be closed.
pub struct Readers {
    inner: Mutex<Inner>,
    gone: Condvar,
}

struct Inner {
    root: Option<Connection>,
    running: HashMap<u64, Arc<InterruptHandle>>,
    next: u64,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    pub(super) fn new(root: Connection) -> Self {
        let inner = Inner { root: Some(root), running: HashMap::new(), next: 0 };
        Self { inner: Mutex::new(inner), gone: Condvar::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of one's own, until dropped.
    ///
    /// # Errors
    /// When [`READERS_MAX`] read already, or the store is closed.
    pub fn get(self: &Arc<Self>) -> Result<Reader, StoreError> {
        let mut inner = self.lock();
        if inner.running.len() >= READERS_MAX {
            let why = format!("{READERS_MAX} queries run already; try again when one has ended");
            return Err(StoreError::Refused(why));
        }
        let root = inner.root.as_ref();
        let root = root.ok_or_else(|| StoreError::Refused("the store is being closed".into()))?;
        let connection = root.try_clone()?;
        let number = inner.next;
        inner.next += 1;
        inner.running.insert(number, connection.interrupt_handle());
        Ok(Reader { connection: Some(connection), number, readers: Arc::clone(self) })
    }

    /// Ends all queries and lets go of the file; returns when the last has ended.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.root = None;
        while !inner.running.is_empty() {
            inner.running.values().for_each(|handle| handle.interrupt());
            // Again and again: an interrupt between two steps of a statement is lost.
            let wait = Duration::from_millis(20);
            inner = self.gone.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn open(&self, root: Connection) {
        self.lock().root = Some(root);
    }
}

/// A reading connection.
pub struct Reader {
    connection: Option<Connection>,
    number: u64,
    readers: Arc<Readers>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("number", &self.number).finish_non_exhaustive()
    }
}

impl std::ops::Deref for Reader {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("taken only by drop")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // First the connection, then the mark: who waits for the mark opens the file anew.
        drop(self.connection.take());
        self.readers.lock().running.remove(&self.number);
        self.readers.gone.notify_all();
    }
}
