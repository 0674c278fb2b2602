//! Who may talk to whom: one model of authority for every program of agentmon.
//!
//! In: a [`Policy`] as a person writes it (TOML, see [`policy`]), what is known of a process
//! and its ancestors, a destination with the names the host had resolved it by, event time.
//! Out: a [`Decision`] that says which grant decided and how well the process is known. No
//! I/O, no clock; the same answer on router, hub and host.
//!
//! Meaning:
//! 1. The *subject* of a connection is the nearest of the process and its ancestors that a
//!    definition with `tree = true` matches; what runs below an agent counts as the agent
//!    ([`identity`]). A definition with `tree = false` is a tool: it counts only where no such
//!    subject is above it. A match by name alone never takes a process out of a subject that
//!    is known better: anything can call itself `firefox`.
//! 2. A destination is its names (the one asked for and the chain behind it), then its
//!    address. A public name that stands for a private address is never allowed by name.
//! 3. An unexpired exception wins over a denial, a denial over a grant, a grant over the
//!    subject's `otherwise`, and that over `[defaults]`.
//! 4. A grant that `require`s more than the process is known by allows nothing.
//!
//! Budget: [`Authority::decide`] below 2 us with 1,000 rules (`examples/authority_speed`);
//! [`Authority::identify`], once per process, walks all definitions. Invariants: maxima of
//! [`compile`]; nothing panics on any policy.

pub mod ancestry;
pub mod compile;
mod decide;
mod glob;
pub mod identity;
mod index;
pub mod lint;
pub mod meter;
pub mod pattern;
pub mod policy;
pub mod quantity;
#[cfg(test)]
mod tests;

pub use ancestry::Ancestry;
pub use compile::{Authority, Catalogue, Problem};
pub use decide::{Decision, Destination, Scope, Verdict};
pub use identity::{Identity, Strength};
pub use pattern::Pattern;
pub use policy::{Exception, Grant, Matcher, Mode, Policy, ProcessDef};
