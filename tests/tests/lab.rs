//! The lab: real programs on a real kernel. `ground` tests the lab itself: if it fails, no
//! other failure means anything. See `agentmon_tests::lab` for how it is built.
#[path = "lab/ground.rs"]
mod ground;
