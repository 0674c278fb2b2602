//! The hub of agentmon as a library: what the `agentmon` command runs.
//!
//! The files follow the data: `ingest` (HTTPS, one task per sensor) -> `store` (DuckDB,
//! one writer thread) -> `correlate` -> `detect` -> `alert` -> `cli`; `feeds` gathers lists for routers.
//! [`control`] is how the command line talks to a running hub.

pub mod alert;
pub mod answer;
mod authority;
pub mod cli;
pub mod client;
pub mod collect;
pub mod config;
pub mod control;
pub mod control_server;
pub mod correlate;
pub mod deliver;
pub mod demo;
pub mod destinations;
pub mod detect;
pub mod devices;
pub mod direct;
pub mod enroll;
pub mod eval;
pub mod feeds;
pub mod import;
pub mod ingest;
pub mod listener;
pub mod llm;
mod receive;
mod running;
mod secret;
pub mod serve;
#[cfg(test)]
mod serve_tests;
pub mod server;
pub mod store;
pub mod tls;
pub mod up;
pub mod vendors;
mod web;
#[cfg(test)]
mod web_double;
