//! Arguments, read by hand: `--name value`, `--name=value`, `--flag`, words. After `--`
//! everything is a word. What nobody asked for is an error.

/// The arguments not yet taken.
#[derive(Debug)]
pub(super) struct Args {
    /// Before `--`.
    options: Vec<String>,
    /// After `--`.
    rest: Vec<String>,
}

impl Args {
    pub(super) fn new(mut arguments: Vec<String>) -> Self {
        let end = arguments.iter().position(|a| a == "--").unwrap_or(arguments.len());
        let mut rest = arguments.split_off(end);
        if !rest.is_empty() {
            rest.remove(0);
        }
        Self { options: arguments, rest }
    }

    /// Whether a flag is there; takes it.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let before = self.options.len();
        self.options.retain(|a| a != name);
        self.options.len() < before
    }

    /// Whether an option is there; takes nothing.
    pub(super) fn has(&self, name: &str) -> bool {
        let inline = |a: &String| a.strip_prefix(name).is_some_and(|r| r.starts_with('='));
        self.options.iter().any(|a| a == name || inline(a))
    }

    /// The value of an option; takes both.
    pub(super) fn value(&mut self, name: &str) -> anyhow::Result<Option<String>> {
        let inline = |a: &String| a.strip_prefix(name).and_then(|r| r.strip_prefix('=')).is_some();
        let Some(at) = self.options.iter().position(|a| a == name || inline(a)) else {
            return Ok(None);
        };
        let option = self.options.remove(at);
        if let Some((_, value)) = option.split_once('=') {
            return Ok(Some(value.to_owned()));
        }
        anyhow::ensure!(at < self.options.len(), "`{name}` wants a value");
        Ok(Some(self.options.remove(at)))
    }

    /// The value of an option as a number.
    pub(super) fn number<T: std::str::FromStr>(&mut self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(value) = self.value(name)? else { return Ok(None) };
        let number = value.parse();
        number
            .map(Some)
            .map_err(|_| anyhow::anyhow!("`{name}` wants a number, not `{}`", super::shown(&value)))
    }

    /// The first word, if the next argument is one; takes it.
    pub(super) fn word(&mut self) -> Option<String> {
        match self.options.first() {
            Some(first) if !is_option(first) => Some(self.options.remove(0)),
            _ => None,
        }
    }

    /// All words; nothing else may be left.
    pub(super) fn words(self) -> anyhow::Result<Vec<String>> {
        match self.options.iter().find(|a| is_option(a)) {
            Some(option) => anyhow::bail!("unknown option `{}`", super::shown(option)),
            None => Ok(self.options.into_iter().chain(self.rest).collect()),
        }
    }

    /// Nothing may be left.
    pub(super) fn done(self) -> anyhow::Result<()> {
        match self.words()?.first() {
            Some(word) => anyhow::bail!("unexpected argument `{}`", super::shown(word)),
            None => Ok(()),
        }
    }
}

/// A lone dash is a word: standard input.
fn is_option(argument: &str) -> bool {
    argument.starts_with('-') && argument != "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn options_flags_and_words() {
        let mut a = args("score --config x.toml --json a.example --n=3 -- -odd");
        assert_eq!(a.word().as_deref(), Some("score"));
        assert!(a.flag("--json") && !a.flag("--json"));
        assert!(a.has("--config") && a.has("--n") && !a.has("--con"));
        assert_eq!(a.value("--config").unwrap().as_deref(), Some("x.toml"));
        assert_eq!(a.number::<u8>("--n").unwrap(), Some(3));
        assert_eq!(a.words().unwrap(), ["a.example", "-odd"]);
    }

    #[test]
    fn mistakes_are_named() {
        let problem = |e: anyhow::Error| e.to_string();
        assert_eq!(problem(args("--x").done().unwrap_err()), "unknown option `--x`");
        assert_eq!(problem(args("x").done().unwrap_err()), "unexpected argument `x`");
        assert_eq!(problem(args("--n").value("--n").unwrap_err()), "`--n` wants a value");
        let wrong = args("--n many").number::<u8>("--n").unwrap_err();
        assert_eq!(problem(wrong), "`--n` wants a number, not `many`");
    }
}
