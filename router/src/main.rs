//! The `agentmon-router` command; see [`agentmon_router::cli`].

fn main() -> std::process::ExitCode {
    agentmon_router::cli::main()
}
