//! The queue's thread: take a packet, judge it, give the verdict.
//!
//! In: NFQUEUE messages (`include/uapi/linux/netfilter/nfnetlink_queue.h`). Out: verdicts,
//! and records of what was dropped. Budget: a verdict is two system calls, some 10 us.
//!
//! Invariant: every packet gets a verdict before anything else is done with it, and nothing
//! on this thread waits but for the next packet.

use std::sync::Arc;

use agentmon_core::event::Body;
use agentmon_core::time::Clock;
use anyhow::Context as _;
use nfq::{Queue, Verdict};

use super::heart::Heart;
use super::judge::{Judgement, Stopped, judge};
use super::{Config, Gate};
use crate::collect::neighbours::Neighbours;
use crate::collect::{Context, Delivery, Outbox, Stop};
use crate::counters::Counter;
use crate::netlink::NetlinkError;
use crate::sys;

/// Bytes of each packet copied: headers, and the question of any DNS message.
const COPY_BYTES: u16 = 512;
const ACTION: &str = "holding DNS questions";

/// A queue that is bound, and what its thread needs.
pub(super) struct Held {
    queue: Queue,
    gate: Gate,
    score_min: f64,
    neighbours: Neighbours,
    heart: Arc<Heart>,
    outbox: Outbox,
    stop: Stop,
    clock: Arc<dyn Clock>,
    counts: Counts,
}

struct Counts {
    passed: Counter,
    stopped: Counter,
    unreadable: Counter,
    overruns: Counter,
    late: Counter,
    untold: Counter,
}

impl Held {
    /// Binds the queue, short and open when full.
    pub(super) fn open(
        config: &Config,
        context: &Context,
        gate: Gate,
        neighbours: Neighbours,
        heart: Arc<Heart>,
    ) -> anyhow::Result<Self> {
        let number = config.queue;
        let bind = || {
            let mut queue = Queue::open()?;
            queue.bind(number)?;
            queue.set_queue_max_len(number, config.length)?;
            queue.set_fail_open(number, true)?;
            queue.set_copy_range(number, COPY_BYTES)?;
            Ok(queue)
        };
        let queue = bind()
            .map_err(|error| NetlinkError::from_io(ACTION, error))
            .with_context(|| format!("queue {number}"))?;
        let counter = |name: &str| context.counters.counter(name);
        Ok(Self {
            queue,
            gate,
            score_min: config.score_min,
            neighbours,
            heart,
            outbox: context.outbox.clone(),
            stop: context.stop.clone(),
            clock: Arc::clone(&context.clock),
            counts: Counts {
                passed: counter("enforce.passed"),
                stopped: counter("enforce.stopped"),
                unreadable: counter("enforce.unreadable"),
                overruns: counter("enforce.overruns"),
                late: counter("enforce.verdicts_late"),
                untold: counter("drop.enforce.pipeline_full"),
            },
        })
    }

    /// Until asked to stop.
    pub(super) fn serve(mut self) -> anyhow::Result<()> {
        sys::allow_interrupts()?;
        while !self.stop.is_set() {
            let mut message = match self.queue.recv() {
                Ok(message) => message,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN) => continue,
                    Some(libc::ENOBUFS) => {
                        self.counts.overruns.inc();
                        continue;
                    }
                    _ => return Err(NetlinkError::from_io(ACTION, error).into()),
                },
            };
            self.heart.begin();
            let judgement = judge(message.get_payload(), &self.gate.lists(), self.score_min);
            let stopped = matches!(judgement, Judgement::Stop(_));
            message.set_verdict(if stopped { Verdict::Drop } else { Verdict::Accept });
            let given = self.queue.verdict(message);
            self.heart.end(stopped);
            self.count(judgement);
            match given {
                // The packet was gone already: the rules or the device have.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.counts.late.inc(),
                given => given.map_err(|error| NetlinkError::from_io(ACTION, error))?,
            }
        }
        Ok(())
    }

    fn count(&self, judgement: Judgement) {
        match judgement {
            Judgement::Pass => self.counts.passed.inc(),
            Judgement::Unreadable => self.counts.unreadable.inc(),
            Judgement::Stop(stopped) => {
                self.counts.stopped.inc();
                self.tell(stopped);
            }
        }
    }

    /// Never waits: the next question is held meanwhile.
    fn tell(&self, stopped: Stopped) {
        let mac = self.neighbours.snapshot().get(&stopped.client.ip).map(|who| who.mac);
        let mut event = stopped.event(self.clock.wall());
        if let Body::Dns(dns) = &mut event.body {
            dns.mac = mac;
        }
        let delivery = Delivery { events: vec![event], checkpoint: None };
        if self.outbox.try_send(delivery).is_err() {
            self.counts.untold.inc();
        }
    }
}
