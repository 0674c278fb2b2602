//! The lab itself, before any program of ours runs in it: if these fail, no other failure
//! of the lab means anything.

#[path = "lab/ground.rs"]
mod ground;
