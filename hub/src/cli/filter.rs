//! Filter words: `src:192.0.2.7 -domain:example.com severity:>=high`.
//!
//! In: words from the command line. Out: [`Word`]s, still without meaning for a table
//! (see [`super::condition`]). Pure. Words of the same key are alternatives, words of
//! different keys must all hold, a word with a leading `-` or `!` must not hold. A comma
//! divides alternatives within one word: `port:80,443`.

use super::owners::Known;

/// Most words in one command.
pub(crate) const WORDS_MAX: usize = 64;
/// Most alternatives over all words of one command.
pub(crate) const ALTERNATIVES_MAX: usize = 256;

/// What a word is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Src,
    Dst,
    Client,
    Device,
    Domain,
    Name,
    Port,
    Proto,
    Proc,
    Rule,
    Severity,
    Status,
    Sensor,
    Type,
    Kind,
    Class,
    Ip,
}

impl Key {
    const ALL: [(Self, &'static str); 17] = [
        (Self::Src, "src"),
        (Self::Dst, "dst"),
        (Self::Client, "client"),
        (Self::Device, "device"),
        (Self::Domain, "domain"),
        (Self::Name, "name"),
        (Self::Port, "port"),
        (Self::Proto, "proto"),
        (Self::Proc, "proc"),
        (Self::Rule, "rule"),
        (Self::Severity, "severity"),
        (Self::Status, "status"),
        (Self::Sensor, "sensor"),
        (Self::Type, "type"),
        (Self::Kind, "kind"),
        (Self::Class, "class"),
        (Self::Ip, "ip"),
    ];

    /// The word as typed.
    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(k, _)| *k == self).map_or("?", |(_, word)| word)
    }

    fn read(text: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(_, word)| word.eq_ignore_ascii_case(text));
        known.map(|(key, _)| *key)
    }
}

/// One filter word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) key: Key,
    pub(crate) negated: bool,
    /// One or more; none is empty.
    pub(crate) values: Vec<String>,
    /// Of `device:`, once it has been looked up.
    pub(crate) known: Option<Known>,
}

impl Word {
    /// One value that must match.
    pub(crate) fn of(key: Key, value: String) -> Self {
        Self { key, negated: false, values: vec![value], known: None }
    }

    /// Its first value, as typed.
    pub(crate) fn text(&self) -> &str {
        self.values.first().map_or("", String::as_str)
    }
}

/// Reads all words of a command.
///
/// # Errors
/// A sentence naming the word and what is allowed.
pub(crate) fn parse(words: &[String]) -> Result<Vec<Word>, String> {
    if words.len() > WORDS_MAX {
        return Err(format!("{} filter words are too many; at most {WORDS_MAX}", words.len()));
    }
    let words = words.iter().map(|w| read(w)).collect::<Result<Vec<_>, _>>()?;
    let alternatives: usize = words.iter().map(|w| w.values.len()).sum();
    if alternatives > ALTERNATIVES_MAX {
        return Err(format!("more than {ALTERNATIVES_MAX} values in the filter"));
    }
    Ok(words)
}

fn read(text: &str) -> Result<Word, String> {
    let (negated, rest) = match text.strip_prefix(['-', '!']) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let Some((key, value)) = rest.split_once(':') else {
        return Err(format!("`{text}` is no filter word; {}", hint(rest)));
    };
    let Some(key) = Key::read(key) else {
        return Err(format!("`{key}:` is no filter word; {}", hint(rest)));
    };
    let values: Vec<String> =
        value.split(',').map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect();
    if values.is_empty() {
        return Err(format!("`{text}` has no value; write {}:VALUE", key.as_str()));
    }
    Ok(Word { key, negated, values, known: None })
}

/// What the person may have meant.
fn hint(text: &str) -> String {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return format!("for an address write client:{text} or device:{text}");
    }
    if text.contains('.') && !text.contains(':') {
        return format!("for a name write domain:{text}");
    }
    let all: Vec<String> = Key::ALL.iter().map(|(_, word)| format!("{word}:")).collect();
    format!("there are {}", all.join(" "))
}

/// Rewrites `-key:value` arguments to `!key:value`, so that the command line parser does
/// not take them for options. Nothing after `--` is touched.
pub(crate) fn shield(args: impl Iterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let mut open = true;
    args.map(|arg| {
        let shielded = arg.to_str().and_then(|text| {
            open &= text != "--";
            let (key, _) = text.strip_prefix('-')?.split_once(':')?;
            (open && Key::read(key).is_some()).then(|| text.replacen('-', "!", 1))
        });
        shielded.map_or(arg, Into::into)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(key: Key, negated: bool, values: &[&str]) -> Word {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        Word { key, negated, values, known: None }
    }

    #[test]
    fn words() {
        #[track_caller]
        fn check(text: &str, expected: Word) {
            assert_eq!(parse(&[text.to_owned()]).unwrap(), [expected]);
        }
        check("src:192.0.2.7", word(Key::Src, false, &["192.0.2.7"]));
        check("src:2001:db8::7", word(Key::Src, false, &["2001:db8::7"]));
        check("-domain:example.com", word(Key::Domain, true, &["example.com"]));
        check("!domain:example.com", word(Key::Domain, true, &["example.com"]));
        check("port:80,443, 8080", word(Key::Port, false, &["80", "443", "8080"]));
        check("SEVERITY:>=high", word(Key::Severity, false, &[">=high"]));
        check("device:aa:bb:cc:dd:ee:ff", word(Key::Device, false, &["aa:bb:cc:dd:ee:ff"]));
    }

    #[test]
    fn what_is_no_word_is_refused_with_a_hint() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let error = parse(&[text.to_owned()]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        check("example.com", "domain:example.com");
        check("192.0.2.7", "client:192.0.2.7");
        check("2001:db8::7", "device:2001:db8::7");
        check("dest:192.0.2.7", "there are src: dst:");
        check("port:", "write port:VALUE");
        check("-port:,", "write port:VALUE");
        check("", "is no filter word");
        check(&format!("port:{}", vec!["1"; 300].join(",")), "256");
    }

    #[test]
    fn negations_are_shielded_from_the_option_parser() {
        let args = ["agentmon", "dns", "-domain:x", "-n5", "--json", "-x:y", "--", "-domain:z"];
        let got = shield(args.iter().map(Into::into));
        assert_eq!(
            got,
            ["agentmon", "dns", "!domain:x", "-n5", "--json", "-x:y", "--", "-domain:z"]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_words_never_panic(words in proptest::collection::vec(".{0,20}", 0..5)) {
            drop(parse(&words));
        }
    }
}
