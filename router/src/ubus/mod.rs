//! OpenWrt's message bus, natively: the object `agentmon` and the event `agentmon.alert`.
//!
//! [`object`] says what can be asked and what the answers look like. [`blob`] and
//! [`message`] are the wire format; both pure.

pub mod blob;
pub mod message;
pub mod object;
