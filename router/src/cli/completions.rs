//! `completions`: static scripts; the commands and options are few and do not change.

use super::args::Args;
use super::{Io, Outcome, Result, help, shown};

const OPTIONS: [&str; 25] = [
    "--for",
    "--list",
    "--why",
    "--open",
    "--severity",
    "--rule",
    "--device",
    "--limit",
    "--note",
    "--config",
    "--help",
    "--json",
    "--follow",
    "--last",
    "--file",
    "--offline",
    "--print-default",
    "--kernel",
    "--uci",
    "--out",
    "--state",
    "--user",
    "--rules",
    "--remove",
    "--print",
];

pub(super) fn run(args: Args, io: &mut Io<'_>) -> Result {
    let words = args.words()?;
    let commands = help::names().collect::<Vec<_>>().join(" ");
    let options = OPTIONS.join(" ");
    let script = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["bash"] => format!(
            "_agentmon_router() {{\n\
             \x20 local cur=${{COMP_WORDS[COMP_CWORD]}}\n\
             \x20 if [ \"$COMP_CWORD\" -eq 1 ]; then\n\
             \x20   COMPREPLY=($(compgen -W \"{commands}\" -- \"$cur\"))\n\
             \x20 elif [[ $cur == -* ]]; then\n\
             \x20   COMPREPLY=($(compgen -W \"{options}\" -- \"$cur\"))\n\
             \x20 else\n\
             \x20   COMPREPLY=($(compgen -f -- \"$cur\"))\n\
             \x20 fi\n\
             }}\n\
             complete -F _agentmon_router agentmon-router\n"
        ),
        ["zsh"] => format!(
            "#compdef agentmon-router\n\
             _arguments '1: :({commands})' '*: :_files' {}\n",
            OPTIONS.map(|o| format!("'{o}'")).join(" ")
        ),
        ["fish"] => {
            let long = OPTIONS
                .map(|o| format!("complete -c agentmon-router -l {}\n", o.trim_start_matches('-')));
            format!(
                "complete -c agentmon-router -n __fish_use_subcommand -f -a '{commands}'\n{}",
                long.concat()
            )
        }
        [] => anyhow::bail!("which shell: bash, zsh or fish?"),
        [other, ..] => anyhow::bail!("no completions for `{}`: bash, zsh or fish", shown(other)),
    };
    io.out.write_all(script.as_bytes())?;
    Ok(Outcome::Fine)
}
