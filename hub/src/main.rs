//! The `agentmon` command.
fn main() {}
