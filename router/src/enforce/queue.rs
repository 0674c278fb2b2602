//! The queue's thread: take a packet, judge it, give the verdict.
//!
//! In: NFQUEUE messages (`include/uapi/linux/netfilter/nfnetlink_queue.h`). Out: verdicts,
//! answers to questions, and what became of listed packets. Budget: a verdict is two system
//! calls, some 10 us; a third for an answer.
//!
//! Invariant: every packet gets a verdict before anything else is done about it, and
//! nothing on this thread waits but for the next packet.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use agentmon_core::event::Mac;
use agentmon_core::time::Clock;
use anyhow::Context as _;
use nfq::{Message, Queue, Verdict};

use super::exceptions;
use super::heart::{Fared, Heart};
use super::judge::{Judgement, Listed, Unjudged, judge};
use super::pulse::{ANSWER, REFUSE};
use super::reply::nxdomain;
use super::told::{Act, Case, Told};
use super::{Block, Config, Gate};
use crate::collect::{Context, Stop};
use crate::counters::Counter;
use crate::netlink::NetlinkError;
use crate::packet;
use crate::sys::{self, RawSender};

/// Bytes of each packet copied: headers, and the question of any DNS message.
const COPY_BYTES: u16 = 512;
/// `NF_INET_FORWARD`: there a packet may be refused, and its address is judged.
const FORWARD: u8 = 2;
const ACTION: &str = "holding packets";

/// A queue that is bound, and what its thread needs.
pub(super) struct Held {
    queue: Queue,
    config: Config,
    gate: Gate,
    heart: Arc<Heart>,
    /// `None`: questions are dropped that should be answered.
    answers: Option<RawSender>,
    told: SyncSender<Case>,
    stop: Stop,
    clock: Arc<dyn Clock>,
    counts: Counts,
}

struct Counts {
    passed: Counter,
    allowed: Counter,
    dry_run: Counter,
    stopped: [(Act, Counter); Act::ALL.len()],
    unjudged: [(Unjudged, Counter); Unjudged::ALL.len()],
    unanswered: Counter,
    overruns: Counter,
    late: Counter,
    untold: Counter,
}

/// What is to be done with a packet, and said of it.
struct Decision {
    verdict: Verdict,
    mark: Option<u32>,
    answer: Option<Vec<u8>>,
    told: Option<Told>,
    fared: Fared,
}

impl Decision {
    const fn pass(told: Option<Told>, fared: Fared) -> Self {
        Self { verdict: Verdict::Accept, mark: None, answer: None, told, fared }
    }
}

impl Held {
    /// Binds the queue, short and open when full.
    pub(super) fn open(
        config: &Config,
        context: &Context,
        gate: Gate,
        heart: Arc<Heart>,
        told: SyncSender<Case>,
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
        let answers = if config.dry_run { None } else { open_answers() };
        Ok(Self {
            queue,
            config: config.clone(),
            gate,
            heart,
            answers,
            told,
            stop: context.stop.clone(),
            clock: Arc::clone(&context.clock),
            counts: Counts::new(context),
        })
    }

    /// Whether questions can be answered.
    pub(super) const fn answers(&self) -> bool {
        self.answers.is_some()
    }

    /// Until asked to stop.
    pub(super) fn serve(mut self) -> anyhow::Result<()> {
        sys::allow_interrupts()?;
        while !self.stop.is_set() {
            let message = match self.queue.recv() {
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
            self.one(message)?;
        }
        Ok(())
    }

    /// One packet.
    fn one(&mut self, mut message: Message) -> anyhow::Result<()> {
        let mac = message.get_hw_addr().and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()).map(Mac);
        let interface = message.get_indev();
        let decision = self.decide(&message, mac);
        message.set_verdict(decision.verdict);
        if let Some(mark) = decision.mark {
            message.set_nfmark(mark);
        }
        let given = self.queue.verdict(message);
        let unanswered = decision.answer.is_some_and(|answer| !self.answer(&answer, interface));
        self.heart.end(decision.fared);
        if unanswered {
            self.counts.unanswered.inc();
        }
        if let Some(told) = decision.told {
            self.tell(told, mac);
        }
        match given {
            // The packet was gone already: the rules or the device have.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.counts.late.inc(),
            given => given.map_err(|error| NetlinkError::from_io(ACTION, error))?,
        }
        Ok(())
    }

    fn decide(&self, message: &Message, mac: Option<Mac>) -> Decision {
        let (bytes, forwarded) = (message.get_payload(), message.get_hook() == FORWARD);
        match judge(bytes, &self.gate.lists(), forwarded) {
            Judgement::Pass => {
                self.counts.passed.inc();
                Decision::pass(None, Fared::On)
            }
            Judgement::Unjudged(why) => {
                count(&self.counts.unjudged, why);
                Decision::pass(unjudged(bytes, why), Fared::On)
            }
            Judgement::Listed(listed) => {
                // Marked by us, and back here: the rule that refuses is not there.
                let refused = message.get_nfmark() == REFUSE;
                self.listed(*listed, bytes, mac, forwarded && !refused)
            }
        }
    }

    fn listed(&self, listed: Listed, bytes: &[u8], mac: Option<Mac>, may_refuse: bool) -> Decision {
        let mac = mac.or_else(|| self.mac_of(&listed));
        let name = listed.question.as_ref().map(|question| &question.name);
        let case = exceptions::Case { name, to: listed.to.ip, client: listed.client.ip, mac };
        if let Some(exception) = self.gate.excepted(&case, self.clock.wall()) {
            self.counts.allowed.inc();
            return Decision::pass(Some(Told::Excepted(listed, exception)), Fared::Spared);
        }
        let (act, answer) = self.act(&listed, bytes, may_refuse);
        if self.config.dry_run {
            self.counts.dry_run.inc();
            return Decision::pass(Some(Told::Would(listed, act)), Fared::Spared);
        }
        count(&self.counts.stopped, act);
        let refuse = act == Act::Reject;
        Decision {
            // Once more through the same chain, whose first rule refuses what bears the mark.
            verdict: if refuse { Verdict::Repeat } else { Verdict::Drop },
            mark: refuse.then_some(REFUSE),
            answer,
            told: Some(Told::Stopped(listed, act)),
            fared: Fared::Stopped,
        }
    }

    /// What the settings want done about it, as far as it can be; and the answer.
    fn act(&self, listed: &Listed, bytes: &[u8], may_refuse: bool) -> (Act, Option<Vec<u8>>) {
        match (self.config.block_of(&listed.list), &listed.question) {
            (Block::Drop, _) => (Act::Drop, None),
            (Block::Nxdomain, None) => (if may_refuse { Act::Reject } else { Act::Drop }, None),
            (Block::Nxdomain, Some(_)) => match nxdomain(bytes) {
                Some(answer) if self.answers.is_some() || self.config.dry_run => {
                    (Act::Nxdomain, Some(answer))
                }
                _ => (Act::Drop, None),
            },
        }
    }

    fn mac_of(&self, listed: &Listed) -> Option<Mac> {
        self.gate.neighbours().snapshot().get(&listed.client.ip).map(|who| who.mac)
    }

    /// Sends an answer, without waiting.
    fn answer(&self, packet: &[u8], interface: u32) -> bool {
        let to = packet::parse(packet).map(|packet| packet.dst.ip);
        match (&self.answers, to) {
            (Some(raw), Ok(to)) => raw.send(packet, to, interface).is_ok(),
            _ => false,
        }
    }

    /// Never waits: the next packet is held meanwhile.
    fn tell(&self, told: Told, mac: Option<Mac>) {
        let case = Case { time: self.clock.wall(), mac, told };
        if self.told.try_send(case).is_err() {
            self.counts.untold.inc();
        }
    }
}

/// Without the right to send whole packets questions are dropped; that is told.
fn open_answers() -> Option<RawSender> {
    let opened = RawSender::open(ANSWER);
    opened
        .inspect_err(|error: &io::Error| {
            tracing::warn!(
                "enforce: questions are dropped and not answered: {error} (CAP_NET_RAW is needed)"
            )
        })
        .ok()
}

/// What is to be told of a packet that could not be judged: how a client gets around this.
fn unjudged(bytes: &[u8], why: Unjudged) -> Option<Told> {
    if !matches!(why, Unjudged::OverTcp | Unjudged::Encrypted) {
        return None;
    }
    let packet = packet::parse(bytes).ok()?;
    Some(Told::Unjudged(why, packet.src, packet.dst, packet.proto))
}

fn count<T: PartialEq>(counters: &[(T, Counter)], which: T) {
    if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == which) {
        counter.inc();
    }
}

impl Counts {
    fn new(context: &Context) -> Self {
        let counter = |name: &str| context.counters.counter(name);
        let stopped = |act: Act| (act, counter(&format!("enforce.stopped.{}", act.as_str())));
        let unjudged = |u: Unjudged| (u, counter(&format!("enforce.unjudged.{}", u.as_str())));
        Self {
            passed: counter("enforce.passed"),
            allowed: counter("enforce.allowed"),
            dry_run: counter("enforce.dry_run"),
            stopped: Act::ALL.map(stopped),
            unjudged: Unjudged::ALL.map(unjudged),
            unanswered: counter("enforce.unanswered"),
            overruns: counter("enforce.unjudged.overruns"),
            late: counter("enforce.verdicts_late"),
            untold: counter("drop.enforce.told_full"),
        }
    }
}
