//! The `agentmon-router` command.
fn main() {}
