//! Detectors over history: what a single event cannot show.
//!
//! In: rows of the store, chosen by a statement. Out: scored rows, later findings. Pure: no
//! I/O, no clock; the statement's reader is the caller's. One folder or file per detector.

pub mod beacon;
