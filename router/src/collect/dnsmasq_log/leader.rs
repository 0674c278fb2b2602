//! Which question an answer belongs to.
//!
//! In: the first line of an answer (or, where that does not tell, the whole) and the open
//! questions. Out: one of them. Pure part of the joiner.

use super::exchange::{Exchange, key_of, reverse_name};
use super::join::{ERRORS_MAX, Joiner, Place};
use super::line::Origin;
use super::run::Run;
use super::value::{Value, address};

/// Which question an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    /// None that is known.
    Unknown,
    /// One of several: the end of the chain of aliases will tell.
    Later,
    /// This one.
    One(u64),
}

impl Joiner {
    /// Which question the first line of an answer belongs to.
    pub(super) fn leader(
        &self,
        at: Place,
        origin: Origin,
        name: &[u8],
        value: Value<'_>,
    ) -> Leader {
        if at.id != 0 {
            let found = self.open.iter().rev().find(|e| e.id == at.id);
            return found.map_or(Leader::Unknown, |e| Leader::One(e.seq));
        }
        let key = key_of(name);
        let named = |e: &&Exchange| e.pid == at.pid && e.is_named(name, key);
        if origin != Origin::Upstream {
            // Answered at once: the newest of that name, or under whatever name it is
            // printed here the last question.
            let kind = value.record_type();
            let of_type = |e: &&Exchange| named(e) && kind.is_none_or(|t| t == e.qtype);
            let newest = self.open.iter().rev().find(of_type);
            let newest = newest.or_else(|| self.open.iter().rev().find(named));
            let last = || self.open.iter().rev().find(|e| e.pid == at.pid);
            let found = newest.or_else(|| last().filter(|e| e.upstream.is_none()));
            return found.map_or(Leader::Unknown, |e| Leader::One(e.seq));
        }
        match self.pick(value, named) {
            Leader::Unknown => {}
            found => return found,
        }
        // Reverse look-ups print the address, not the name that was asked for.
        let Some(ip) = address(name) else { return Leader::Unknown };
        let reverse = reverse_name(ip);
        let key = key_of(reverse.as_bytes());
        self.pick(value, |e| e.pid == at.pid && e.is_named(reverse.as_bytes(), key))
    }

    /// The oldest question that such a value can answer.
    fn pick(&self, value: Value<'_>, fits: impl Fn(&&Exchange) -> bool) -> Leader {
        let mut fitting = self.open.iter().filter(&fits);
        let Some(oldest) = fitting.next() else { return Leader::Unknown };
        if fitting.next().is_none() {
            return Leader::One(oldest.seq);
        }
        let of_type = |test: &dyn Fn(u16) -> bool| {
            self.open.iter().filter(&fits).find(|e| test(e.qtype)).unwrap_or(oldest).seq
        };
        match (value, value.record_type()) {
            // An alias fits any type.
            (Value::Cname, _) => Leader::Later,
            (_, Some(kind)) => Leader::One(of_type(&|t| t == kind)),
            // For A and AAAA dnsmasq says which of them has no data; text is of other types.
            (Value::NoData(None) | Value::Text(_), _) => {
                Leader::One(of_type(&|t| t != 1 && t != 28))
            }
            _ => Leader::One(oldest.seq),
        }
    }

    /// `error is SERVFAIL` without a serial number. From a server it belongs to the only
    /// question on its way; of several, to none for now. An error of the resolver's own
    /// follows its question at once.
    pub(super) fn leader_of_error(&mut self, at: Place, origin: Origin, code: u16) -> Leader {
        let mut own = self.open.iter().filter(|e| e.pid == at.pid);
        if origin != Origin::Upstream {
            return own.next_back().map_or(Leader::Unknown, |e| Leader::One(e.seq));
        }
        let mut forwarded = own.filter(|e| e.upstream.is_some());
        match (forwarded.next(), forwarded.next()) {
            (Some(only), None) => Leader::One(only.seq),
            (None, _) => Leader::Unknown,
            _ => {
                if self.errors.len() >= ERRORS_MAX {
                    self.errors.pop_front();
                }
                self.errors.push_back((at.time, code));
                Leader::Unknown
            }
        }
    }

    /// Of several questions for a name with an alias, the one whose type the end of the
    /// chain is of; a chain without an end answers a question for some rare type.
    pub(super) fn leader_by_kind(&self, run: &Run) -> Option<u64> {
        let mut own = self.open.iter().filter(|e| e.pid == run.pid && e.key == run.asked);
        let of_kind = own.clone().find(|e| run.kind == Some(e.qtype));
        let rare = own.clone().find(|e| e.qtype != 1 && e.qtype != 28);
        of_kind.or(rare).or_else(|| own.next()).map(|e| e.seq)
    }
}
