//! An answer that is being printed, line by line.
//!
//! Pure data of the joiner; serialised into the checkpoint while it is open.

use agentmon_core::event::{Answer as Told, TEXT_BYTES_MAX};
use agentmon_core::name::printable;
use agentmon_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::exchange::{Outcome, name_of};
use super::join::Place;
use super::line::{Answer, Origin};
use super::value::{Value, bare_rcode};

/// Most questions that one answer is given to by `duplicate` lines.
const FOLLOWERS_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The process that prints it, and the serial number it prints.
    pub(super) pid: u32,
    pub(super) id: u32,
    pub(super) origin: Origin,
    /// The question it answers; `None` while several would do, or none is known.
    pub(super) leader: Option<u64>,
    /// The question was for any type, so that answers of several types belong together.
    #[serde(default)]
    pub(super) any: bool,
    /// Questions that `duplicate` lines put to this answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) followers: Vec<u64>,
    /// The first name, and the last one.
    pub(super) asked: u64,
    last: u64,
    /// The last line said that there is an alias: the next has the name it points to.
    pub(super) after_cname: bool,
    /// The type its values are of, once that shows.
    pub(super) kind: Option<u16>,
    /// An error or "no data" ends an answer.
    closed: bool,
    /// The resolver found it forged or broken, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bogus: Option<String>,
    pub(super) outcome: Outcome,
    /// The last line's time.
    pub(super) time: Timestamp,
    pub(super) fine: bool,
}

impl Run {
    /// An answer that begins with this line.
    pub(super) fn new(
        at: Place,
        answer: &Answer<'_>,
        (key, name, value): (u64, &[u8], Value<'_>),
    ) -> Self {
        let mut run = Self {
            pid: at.pid,
            id: at.id,
            origin: answer.origin,
            leader: None,
            any: false,
            followers: Vec::new(),
            asked: key,
            last: key,
            after_cname: false,
            kind: None,
            closed: false,
            bogus: None,
            outcome: Outcome::of(answer.origin, answer.source),
            time: at.time,
            fine: at.fine,
        };
        run.add(at, answer, (key, name, value));
        run
    }

    /// Whether a line from the same process and with the same serial number goes on with
    /// this answer.
    pub(super) fn takes(&self, origin: Origin, key: u64, value: Value<'_>) -> bool {
        if self.closed || (origin != self.origin && !self.after_cname) {
            return false;
        }
        if self.id != 0 {
            return true;
        }
        if self.after_cname {
            return true;
        }
        // More values for the same name; of another type they answer another question.
        let sorted = matches!(value, Value::Address(_) | Value::Text(_));
        key == self.last && sorted && (self.any || value.record_type() == self.kind)
    }

    /// Whether the line says that Pi-hole refuses what was printed so far: it looks into
    /// the aliases, and then prints the name that was asked for once more.
    pub(super) fn is_refused_by(&self, origin: Origin, key: u64) -> bool {
        origin == Origin::Blocked
            && matches!(self.origin, Origin::Upstream | Origin::Cache)
            && (self.id != 0 || key == self.asked)
    }

    /// Begins anew, blocked.
    pub(super) fn refuse(&mut self, at: Place, answer: &Answer<'_>, line: (u64, &[u8], Value<'_>)) {
        self.outcome = Outcome::of(answer.origin, answer.source);
        self.origin = answer.origin;
        self.after_cname = false;
        self.add(at, answer, line);
    }

    /// The next line.
    pub(super) fn add(
        &mut self,
        at: Place,
        answer: &Answer<'_>,
        (key, name, value): (u64, &[u8], Value<'_>),
    ) {
        if self.after_cname && key != self.last && bare_rcode(name, value).is_none() {
            self.outcome.push(Told::Cname(name_of(name).0));
        }
        self.last = key;
        self.after_cname = matches!(value, Value::Cname);
        self.kind = self.kind.or(value.record_type());
        self.closed =
            matches!(value, Value::NoData(_) | Value::NxDomain | Value::Rcode(_) | Value::Blocked);
        self.outcome.add(bare_rcode(name, value).map_or(value, Value::Rcode));
        if let Some(ede) = answer.ede {
            let text = printable(ede, TEXT_BYTES_MAX - 5);
            self.outcome.push(Told::Other(format!("EDE: {text}")));
        }
        self.time = at.time;
        self.fine = at.fine;
    }

    /// A `duplicate` line: one more question has this answer.
    pub(super) fn follow(&mut self, seq: u64) -> bool {
        let room = self.followers.len() < FOLLOWERS_MAX;
        if room {
            self.followers.push(seq);
        }
        room
    }

    /// The question may still be asked again: of another server after an error, or for
    /// what an alias points to.
    pub(super) fn may_be_asked_again(&self) -> bool {
        self.after_cname || self.outcome.is_failure()
    }
}
