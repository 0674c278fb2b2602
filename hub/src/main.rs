//! The `agentmon` command; see [`agentmon_hub::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    agentmon_hub::cli::main()
}
