//! Beacons: what calls home again and again.
//!
//! Each profile is a folder of its own: [`rita`] is the published score of another tool, so
//! that its users can compare.

pub mod rita;
