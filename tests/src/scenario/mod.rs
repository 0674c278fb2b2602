//! Scenarios: timestamped events in, findings out, judged by a file a reviewer can read.
//!
//! ```text
//! tests/scenarios/NAME/about.md       what happens, why it must be seen (or must not)
//!                      events.ndjson  one event per line, oldest first
//!                      expect.toml    see [`Expect`]
//!                      list.txt       optional: a blocklist
//!                      messages.txt   instead of events: syslog (see `syslog`)
//! ```
//!
//! Each attack has a benign twin of the same shape whose `expect.toml` holds no finding.
//! Every scenario is also run with its events shuffled, doubled and with the clock jumped
//! ([`Variant`]): the verdict must stay the same.

mod expect;
pub mod logs;
mod run;
pub mod script;
pub mod scripts;
mod syslog;
mod variant;
mod wire;

pub use expect::{Expect, judge};
pub use run::{Scenario, all};
pub use variant::{Step, Variant};
