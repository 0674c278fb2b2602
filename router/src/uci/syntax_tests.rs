//! The UCI syntax, case by case.

use super::*;

/// Shows sections as `type name? option=value list=[a|b]`.
fn show(sections: &[Section]) -> String {
    let entry = |entry: &Entry| match &entry.value {
        Value::One(one) => format!(" {}={one}", entry.name),
        Value::Many(many) => format!(" {}=[{}]", entry.name, many.join("|")),
    };
    let section = |s: &Section| {
        let name = s.name.as_deref().unwrap_or("-");
        let options: String = s.options.iter().map(entry).collect();
        format!("{} {name}{options}", s.kind)
    };
    sections.iter().map(section).collect::<Vec<_>>().join("; ")
}

#[track_caller]
fn check(text: &str, expected: &str) {
    match parse(text.as_bytes()) {
        Ok(sections) => assert_eq!(show(&sections), expected),
        Err(error) => panic!("{error:?}"),
    }
}

#[track_caller]
fn refused(text: &str, line: usize, says: &str) {
    let error = parse(text.as_bytes()).unwrap_err();
    assert!(error.line == line && error.problem.contains(says), "{error:?}");
}

#[test]
fn statements() {
    check("", "");
    check("\n# nothing\n\t \n", "");
    check("config agentmon 'main'\n\toption enabled '1'\n", "agentmon main enabled=1");
    check("config x\n", "x -");
    check("package agentmon\nconfig a b\n", "a b");
    check("c a b\no n v\nl m 1\nl m 2", "a b n=v m=[1|2]");
    check("config a b; option x 1; option y 2", "a b x=1 y=2");
    check("config a b\r\noption x 1\r\n", "a b x=1");
    check("config a b\noption x", "a b x=");
    check("config a b\noption x ''", "a b x=");
}

#[test]
fn words_and_quotes() {
    check("config a b\noption x 'two words'", "a b x=two words");
    check("config a b\noption x \"two \\\"words\\\"\"", "a b x=two \"words\"");
    check("config a b\noption x 'it'\\''s'", "a b x=it's");
    check("config a b\noption x 'back\\slash'", "a b x=back\\slash");
    check("config a b\noption x two\\ words", "a b x=two words");
    check("config a b\noption x a'b c'd", "a b x=ab cd");
    check("config a b\noption x 'a\nb'\noption y 1", "a b x=a\nb y=1");
    check("config a b\noption x \\\n  1", "a b x=1");
    check("config a b\noption x '#;no comment'", "a b x=#;no comment");
    check("config a b\noption x 1 # comment's end", "a b x=1");
    check("config a b\noption x 1#2", "a b x=1");
    check("config a b\noption x 'ü'", "a b x=ü");
}

#[test]
fn what_stands_there_twice() {
    check("config a b\noption x 1\noption x 2", "a b x=2");
    check("config a b\noption x 1\nlist x 2", "a b x=[1|2]");
    check("config a b\nlist x 1\noption x 2", "a b x=2");
    check("config a b\noption x 1\nconfig a c\nconfig a b\noption y 2", "a b x=1 y=2; a c");
    check("config a\noption x 1\nconfig a\noption x 2", "a - x=1; a - x=2");
    refused("config a b\n\nconfig c b\n", 3, "type `a` already (line 1)");
}

#[test]
fn mistakes_name_their_line() {
    refused("option x 1", 1, "before the first `config`");
    refused("config a b\n\noptoin x 1", 3, "`optoin` is none of config, option, list");
    refused("config a b\noption x two words", 2, "quotes around");
    refused("config a b\noption x 'a\nb\n", 2, "never closed");
    refused("config a b\noption x \"a\n", 2, "never closed");
    refused("config a b\noption x \\", 2, "backslash");
    refused("config a b\noption 'x y' 1", 2, "no name");
    refused("config a 'b c'", 1, "no name");
    refused("config 'a b' c", 1, "no section type");
    refused("config", 1, "lacks a name");
    refused("config a b\nlist x", 2, "lacks a value");
    refused("config a b\noption x \0", 2, "NUL");
    let error = parse(b"config a b\noption x \xff\n").unwrap_err();
    assert_eq!((error.line, error.problem.contains("UTF-8")), (2, true));
}

#[test]
fn sizes_have_a_maximum() {
    refused(&"#".repeat(FILE_BYTES_MAX + 1), 1, "longer than");
    refused(&format!("config a '{}'", "x".repeat(WORD_BYTES_MAX + 2)), 1, "a word of more");
    refused(&format!("config a {}", "x".repeat(WORD_BYTES_MAX + 2)), 1, "a word of more");
    refused(&"config a\n".repeat(SECTIONS_MAX + 1), SECTIONS_MAX + 1, "sections");
    let options = |n: usize| (0..n).map(|i| format!("option o{i} 1\n")).collect::<String>();
    refused(&format!("config a\n{}", options(OPTIONS_MAX + 1)), OPTIONS_MAX + 2, "options");
    let list = format!("config a\n{}", "list l 1\n".repeat(VALUES_MAX + 1));
    refused(&list, VALUES_MAX + 2, "values");
}

proptest::proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes: Vec<u8>) {
        drop(parse(&bytes));
    }

    #[test]
    fn nearly_uci_gives_an_answer(text in "(config|option|list|[ab'\"#;\\\\\n ]){0,40}") {
        match parse(text.as_bytes()) {
            Ok(sections) => proptest::prop_assert!(sections.len() <= SECTIONS_MAX),
            Err(error) => proptest::prop_assert!(error.line <= newlines(text.as_bytes()) + 1),
        }
    }

    #[test]
    fn any_value_survives_single_quotes(value in "[^\0]{0,60}") {
        let quoted = value.replace('\'', "'\\''");
        let sections = parse(format!("config a b\n\toption x '{quoted}'\n").as_bytes()).unwrap();
        proptest::prop_assert_eq!(sections[0].text("x"), Some(value.as_str()));
    }
}
