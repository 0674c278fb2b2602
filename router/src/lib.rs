//! The router part of agentmon as a library: what the `agentmon-router` binary and the
//! hub's single-machine mode run.
//!
//! The files follow the data: [`collect`] (one thread each) -> `pipeline` (tier-0, one
//! thread) -> `ring` (SQLite) -> `forward` (one thread) -> hub. `supervisor` starts
//! and restarts them; [`counters`] says what was lost and why.

pub mod cli;
pub mod collect;
pub mod config;
pub mod counters;
pub mod enforce;
pub mod forward;
#[cfg(test)]
mod fuzz_seeds;
pub mod join;
pub mod kernel;
pub mod lists;
pub mod localtime;
pub mod logging;
pub mod model;
pub mod netlink;
pub mod own_addresses;
pub mod packet;
pub mod pipeline;
pub mod ratelimit;
pub mod ring;
pub mod show;
pub mod ssh;
pub mod status;
pub mod supervisor;
pub mod sys;
pub mod tail;
#[cfg(test)]
mod testhub;
pub mod ubus;
pub mod uci;
pub mod wake;
