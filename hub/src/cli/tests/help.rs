//! The help texts say the truth: every example in them is a command line that is accepted.

use clap::CommandFactory;

use super::*;

/// The examples of a text: lines that begin with `agentmon` below some indent, without
/// what follows in the shell or as a remark.
fn examples(text: &str) -> Vec<String> {
    let begins = |line: &&str| line.trim_start().starts_with("agentmon ") || line.contains("sudo ");
    let command = |line: &str| {
        let line = line.trim().trim_start_matches("sudo ");
        let ends = ["   ", " | ", " || ", " > ", ";  ", "  #", "  ("];
        let end = ends.iter().filter_map(|end| line.find(end)).min().unwrap_or(line.len());
        line.get(..end).unwrap_or_default().trim().to_owned()
    };
    text.lines().filter(begins).map(command).collect()
}

/// Divides as a shell would: blanks, single and double quotes.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[track_caller]
fn accepted(command: &str) {
    let command = command.replace(" ID", " 3").replace(" DIR", " /d").replace(" ...", "");
    let args = words(&command);
    let parsed = Cli::try_parse_from(filter::shield(args.into_iter().map(Into::into)));
    if let Err(error) = parsed {
        panic!("`{command}`: {error}");
    }
}

#[test]
fn every_command_has_examples_and_they_are_accepted() {
    Cli::command().debug_assert();
    let mut count = 0;
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let name = command.get_name();
        assert!(help.contains("Examples:") && help.contains("See also: "), "{name}: {help}");
        let found = examples(&help);
        assert!(
            found.iter().any(|e| words(e).get(1).is_some_and(|w| w == name)),
            "{name}: {found:?}"
        );
        found.iter().for_each(|example| accepted(example));
        count += found.len();
    }
    assert!(count > 40, "{count}");
    let top = Cli::command().get_after_help().unwrap().to_string();
    examples(&top).iter().for_each(|example| accepted(example));
}

#[test]
fn what_other_texts_advise_is_accepted() {
    let nowhere = std::path::Path::new("/no/such/dir");
    let hint = super::super::data_dir::must_hold_a_store(nowhere).unwrap_err().to_string();
    let advice: Vec<&str> =
        hint.lines().filter_map(|line| line.get(line.find("agentmon up")?..)).collect();
    assert_eq!(advice.len(), 2, "{hint}");
    advice.iter().for_each(|command| accepted(command));
    for (command, _) in crate::up::demo_day::TO_TRY {
        accepted(&format!("agentmon {command}"));
    }
}
