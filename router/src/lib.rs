//! The router part of agentmon as a library: what the `agentmon-router` binary and the
//! hub's single-machine mode run.
//!
//! The files follow the data: [`collect`] (one thread each) -> `pipeline` (tier-0, one
//! thread) -> `ring` (SQLite) -> `forward` (one thread) -> hub. `supervisor` starts
//! and restarts them; [`counters`] says what was lost and why.

pub mod collect;
pub mod counters;
pub mod localtime;
pub mod netlink;
pub mod ring;
pub mod sys;
pub mod tail;
