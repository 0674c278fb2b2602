//! The `agentmon-host` command; see [`agentmon_host::cli`].

fn main() -> std::process::ExitCode {
    agentmon_host::cli::main()
}
