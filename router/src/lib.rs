//! The router part of agentmon as a library: what the `agentmon-router` binary and the
//! hub's single-machine mode run.
//!
//! The files follow the data: [`collect`] (one thread each) -> `pipeline` (tier-0, one
//! thread) -> `ring` (SQLite) -> `forward` (one thread) -> hub. `supervisor` starts
//! and restarts them; [`counters`] says what was lost and why.
//!
//! Ring, forwarder and enrolment are also the host agent's, and so are built for its systems
//! too; all that sees a network is for Linux.

#[cfg(target_os = "linux")]
pub mod cli;
pub mod collect;
#[cfg(target_os = "linux")]
pub mod config;
pub mod counters;
mod disk;
#[cfg(target_os = "linux")]
pub mod enforce;
pub mod forward;
#[cfg(all(test, target_os = "linux"))]
mod fuzz_seeds;
pub mod join;
#[cfg(target_os = "linux")]
pub mod kernel;
#[cfg(target_os = "linux")]
pub mod lists;
#[cfg(target_os = "linux")]
pub mod localtime;
pub mod logging;
#[cfg(target_os = "linux")]
pub mod model;
#[cfg(target_os = "linux")]
pub mod netlink;
#[cfg(target_os = "linux")]
pub mod own_addresses;
#[cfg(target_os = "linux")]
pub mod packet;
#[cfg(target_os = "linux")]
pub mod pipeline;
pub mod ratelimit;
pub mod ring;
#[cfg(target_os = "linux")]
pub mod show;
#[cfg(target_os = "linux")]
pub mod ssh;
#[cfg(target_os = "linux")]
pub mod status;
#[cfg(target_os = "linux")]
pub mod supervisor;
#[cfg(target_os = "linux")]
pub mod sys;
#[cfg(target_os = "linux")]
pub mod tail;
#[cfg(all(test, target_os = "linux"))]
mod testhub;
#[cfg(target_os = "linux")]
pub mod ubus;
#[cfg(target_os = "linux")]
pub mod uci;
pub mod wake;
