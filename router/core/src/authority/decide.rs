//! One connection, one decision.
//!
//! In: whose authority counts, on which host and account, where to, event time. Out: the
//! verdict and what it rests on. No allocation. Budget: below 2 us with 1,000 rules.

use std::net::IpAddr;

use super::compile::{Authority, Owner, Subject};
use super::identity::{Identity, Strength};
use super::index::{By, Effect, Entry};
use super::policy::Mode;
use crate::event::is_public;
use crate::name::Name;
use crate::suffix;
use crate::time::Timestamp;

/// Where a connection goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The name that was asked for, then the chain behind it; none where nobody knows.
    pub names: &'a [Name],
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// IP protocol.
    pub proto: u8,
}

/// On which host, as whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// The host's name.
    pub host: &'a str,
    /// Groups it is in.
    pub groups: &'a [String],
    /// The account; `None` where unknown, which fits no grant that names accounts.
    pub user: Option<&'a str>,
}

/// What a policy says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A grant allows it.
    Allowed,
    /// An exception lets it through.
    Excepted,
    /// A grant denies it.
    Denied,
    /// A public name stands for a private address.
    PrivateAnswer,
    /// The subject has grants, and none allows it.
    Outside,
    /// No grant names the subject.
    NoGrant,
    /// Nobody knows the process.
    UnknownProcess,
}

impl Verdict {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Excepted => "excepted",
            Self::Denied => "denied",
            Self::PrivateAnswer => "private-answer",
            Self::Outside => "outside",
            Self::NoGrant => "no-grant",
            Self::UnknownProcess => "unknown-process",
        }
    }
}

/// A verdict and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What the policy says.
    pub verdict: Verdict,
    /// What is to be done about it.
    pub mode: Mode,
    /// Whose authority counted.
    pub subject: Option<&'a str>,
    /// By what the subject is known.
    pub strength: Option<Strength>,
    /// The pattern that decided, as written.
    pub rule: Option<&'a str>,
    /// Where that stands in the policy.
    pub place: Option<&'a str>,
    /// What its author said to it.
    pub comment: Option<&'a str>,
    /// A grant would allow it to a subject that is better known.
    pub weak: bool,
}

impl Owner {
    /// Whether the grant is for this host and account.
    pub(super) fn applies(&self, scope: &Scope<'_>) -> bool {
        let everywhere = self.hosts.is_empty() && self.groups.is_empty();
        let here = everywhere
            || self.hosts.iter().any(|h| h.matches(scope.host))
            || self.groups.iter().any(|g| scope.groups.contains(g));
        here && (self.users.is_empty()
            || scope.user.is_some_and(|user| self.users.iter().any(|u| u.matches(user))))
    }
}

/// The best of what fits.
#[derive(Default)]
struct Best {
    entry: Option<Entry>,
    /// An allowance by name that a private answer made void.
    private: bool,
    weak: bool,
}

impl Authority {
    /// Decides about one connection of a known process; `identity` is [`Authority::identify`]
    /// of it.
    #[must_use]
    pub fn decide(
        &self,
        identity: Option<Identity>,
        scope: &Scope<'_>,
        to: &Destination<'_>,
        now: Timestamp,
    ) -> Decision<'_> {
        let subject = identity.and_then(|i| self.subjects.get(i.subject as usize));
        let strength = identity.map_or(Strength::Name, |i| i.strength);
        let private = answers_privately(to);
        let mut best = Best::default();
        for subject in subject.into_iter().chain([&self.everyone]) {
            subject.index.find(to.names, to.ip, to.port, to.proto, |entry, by| {
                if best.entry.is_some_and(|now| now.effect >= entry.effect) {
                    return;
                }
                let Some(owner) = self.owners.get(entry.owner as usize) else { return };
                let over = owner.until.is_some_and(|until| until <= now);
                if over || !owner.applies(scope) {
                } else if entry.effect != Effect::Deny && private && by == By::Name {
                    best.private = true;
                } else if owner.require.is_some_and(|r| r > strength)
                    && entry.effect == Effect::Allow
                {
                    best.weak = true;
                } else {
                    best.entry = Some(*entry);
                }
            });
        }
        let (verdict, mode) = self.verdict(&best, private, subject, scope);
        let rule = best.entry.and_then(|e| self.rules.get(e.rule as usize));
        let owner = best.entry.and_then(|e| self.owners.get(e.owner as usize));
        Decision {
            verdict,
            mode,
            subject: identity.and_then(|i| self.id_of(i)),
            strength: identity.map(|i| i.strength),
            rule: rule.map(|r| r.text.as_str()),
            place: rule.map(|r| r.place.as_str()),
            comment: owner.map(|o| o.comment.as_str()).filter(|c| !c.is_empty()),
            weak: best.weak && best.entry.is_none(),
        }
    }

    /// Decides about a connection whose process nobody knows.
    #[must_use]
    pub fn decide_unknown(
        &self,
        scope: &Scope<'_>,
        to: &Destination<'_>,
        now: Timestamp,
    ) -> Decision<'_> {
        let decision = self.decide(None, scope, to, now);
        match decision.verdict {
            Verdict::NoGrant => Decision {
                verdict: Verdict::UnknownProcess,
                mode: self.defaults.unknown_process,
                ..decision
            },
            _ => decision,
        }
    }

    fn verdict(
        &self,
        best: &Best,
        private: bool,
        subject: Option<&Subject>,
        scope: &Scope<'_>,
    ) -> (Verdict, Mode) {
        match best.entry.map(|e| e.effect) {
            Some(Effect::Except) => return (Verdict::Excepted, Mode::Allow),
            Some(Effect::Deny) => return (Verdict::Denied, Mode::Alert),
            Some(Effect::Allow) => return (Verdict::Allowed, Mode::Allow),
            None => {}
        }
        let outside = subject
            .and_then(|s| self.otherwise(s, scope))
            .or_else(|| self.otherwise(&self.everyone, scope));
        match outside {
            // What the person did not grant is told as what it is: worse than outside.
            Some(mode) if private => {
                (Verdict::PrivateAnswer, mode.max(self.defaults.private_answers))
            }
            None if best.private => (Verdict::PrivateAnswer, self.defaults.private_answers),
            Some(mode) => (Verdict::Outside, mode),
            None => (Verdict::NoGrant, self.defaults.mode),
        }
    }

    /// The strictest `otherwise` of the grants that apply; `None`: none does.
    fn otherwise(&self, subject: &Subject, scope: &Scope<'_>) -> Option<Mode> {
        let mut strictest = None;
        for owner in subject.grants.iter().filter_map(|n| self.owners.get(*n as usize)) {
            if strictest < Some(owner.otherwise) && owner.applies(scope) {
                strictest = Some(owner.otherwise);
                if owner.otherwise == Mode::Alert {
                    break;
                }
            }
        }
        strictest
    }
}

/// A name of the internet that stands for an address that is none of it.
fn answers_privately(to: &Destination<'_>) -> bool {
    let public = |name: &Name| {
        !name.is_reverse() && suffix::suffix(name.as_str()).is_some_and(|s| s.kind.is_some())
    };
    !is_public(to.ip) && to.names.first().is_some_and(public)
}
