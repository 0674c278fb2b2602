//! OpenWrt's message bus, natively: the object `agentmon` and the event `agentmon.alert`.
//!
//! [`object`] says what can be asked and what the answers look like. [`blob`] and
//! [`message`] are the wire format, `session` is one connection; all three are pure. `client`
//! is the thread, `shared` what others see of it.

pub mod blob;
mod client;
pub mod message;
pub mod object;
mod session;
mod shared;

pub use client::{Parts, run};
pub use shared::{Config, Shared};
