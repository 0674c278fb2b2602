//! A second opinion: language models are asked about alerts, and advise.
//!
//! ```text
//! open alerts -> cases (facts of our own) -> question -> endpoint -> checked answer -> opinions
//!                                        tier 1: one's own model; tier 2: somebody else's
//! ```
//!
//! In: alerts in the store. Out: rows of `llm_calls` (every question and answer) and
//! `llm_opinions`; a finding where a model sees something worse. One thread; nothing else
//! waits for it, and everything works without it.
//!
//! Invariants: no opinion makes an alert smaller or hides it ([`advise`]); what comes from
//! the network is data in a question, never words of it ([`case`]); an answer is checked
//! whatever was promised, and thrown away when it is wrong about what is known ([`prompt`]);
//! nothing leaves the house unless the second tier is switched on, and then no name or
//! address of the house; each tier has a budget for a day that a restart does not forget.

mod advise;
mod answer;
mod book;
mod breaker;
mod case;
mod client;
pub mod config;
mod prompt;
mod service;
#[cfg(test)]
mod tests;
mod wire;

pub use config::Config;
pub use service::{Replayed, Service, Status};
