//! `config/router.toml` is the default configuration, written out in full and explained.

use agentmon_router::config::Config;

const EXAMPLE: &str = include_str!("../../config/router.toml");

#[test]
fn the_example_equals_the_default() {
    assert_eq!(Config::parse(EXAMPLE).expect("the example is valid"), Config::default());
}

#[test]
fn the_example_names_every_key() {
    let default = Config::default().to_toml().expect("the default can be written");
    let keys = |text: &str| keys("", &text.parse::<toml::Table>().expect("TOML"));
    assert_eq!(keys(EXAMPLE), keys(&default));
}

#[test]
fn the_example_explains_every_key() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let is_key = |line: &str| line.contains(" = ") && !line.starts_with(['#', ' ']);
    let explained = |line: &str| line.starts_with("# ") || is_key(line);
    for pair in lines.windows(2).filter(|pair| is_key(pair[1])) {
        assert!(explained(pair[0]), "no comment above `{}`", pair[1]);
    }
}

/// Every key with its sections, sorted.
fn keys(prefix: &str, table: &toml::Table) -> Vec<String> {
    let mut all = Vec::new();
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => {
                all.extend(keys(&format!("{path}."), inner));
            }
            _ => all.push(path),
        }
    }
    all.sort();
    all
}
