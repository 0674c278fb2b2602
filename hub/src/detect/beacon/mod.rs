//! Beacons: what calls home again and again.
//!
//! Our own profile: [`services`] reads what each device did with each service, [`rhythm`]
//! says whether that beats, [`rank`] how much it matters, [`find`] puts the three together,
//! for the command line and for the rounds (`detector`). [`rita`] is the published score of
//! another tool, so that its users can compare. [`synth`] makes series of known truth.

pub mod answer;
pub(super) mod detector;
pub mod find;
pub mod rank;
pub mod rhythm;
pub mod rita;
pub mod services;
pub mod synth;
