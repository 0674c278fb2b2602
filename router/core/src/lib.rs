//! What all agentmon programs share: events, their wire format, time, names and the
//! tier-0 detectors. Pure: no I/O, no clock, no randomness, no globals; events and time
//! are arguments. It compiles into the router, the hub and the host agent, so its
//! dependency list is short on purpose.
//!
//! Three words that are never mixed: an [`event::Event`] was *seen*, a
//! [`finding::Finding`] is one detector's *opinion* with score and evidence, an *alert*
//! (hub only) is what a person is *told*.
//!
//! Reading order: [`event`] -> [`wire`] -> [`tier0`].

pub mod authority;
pub mod dns_wire;
pub mod event;
pub mod finding;
pub mod name;
pub mod names;
#[cfg(any(test, feature = "test-support"))]
pub mod sample;
pub mod service;
pub mod suffix;
pub mod tier0;
pub mod time;
pub mod wire;

pub use event::Event;
pub use finding::Finding;
pub use name::Name;
pub use time::Timestamp;
