//! What a detector is worth on labelled data: `agentmon eval`.
//!
//! In: files of the user, of what should be found and what should not. Out: figures. The
//! thing measured is the detector's own code as router or hub run it, nothing rebuilt for the
//! measurement. Runs in the command line's process; needs no store of the user's.

pub mod beacon;
pub mod day;
pub mod dga;
pub mod names;
pub mod roc;
mod tsv;
pub mod tunnel;
