//! Command lines without secrets.
//!
//! In: the arguments of a process, any bytes. Out: printable, bounded arguments in which
//! what may be a secret is [`REDACTED`]: values of options that carry one (`--token X`,
//! `--token=X`, `-H "Name: X"`, `-u X`, `-pX` of mysql), assignments (`API_KEY=X`),
//! credentials and queries in URLs, and words that look like keys by their form. Pure.
//!
//! It errs on the side of hiding: what is lost is a piece of evidence, what is not hidden
//! leaves the host. Invariants: at most [`ARGUMENTS_MAX`] arguments of
//! [`ARGUMENT_BYTES_MAX`] bytes.

use agentmon_core::event::{ARGUMENT_BYTES_MAX, ARGUMENTS_MAX};
use agentmon_core::name::{cut, printable};

/// Stands for what was taken out.
pub const REDACTED: &str = "[redacted]";

/// An option or variable whose name has one of these in it carries a secret.
const SECRET_WORDS: [&str; 15] = [
    "token",
    "secret",
    "passw",
    "pwd",
    "passphrase",
    "apikey",
    "api-key",
    "api_key",
    "credential",
    "auth",
    "cookie",
    "private",
    "access-key",
    "access_key",
    "session",
];
/// Options whose value may hold anything: headers, bodies, users with passwords.
const OPAQUE: [&str; 23] = [
    "-H",
    "--header",
    "-d",
    "--data",
    "--data-raw",
    "--data-binary",
    "--data-urlencode",
    "--data-ascii",
    "--json",
    "-F",
    "--form",
    "--form-string",
    "-u",
    "--user",
    "-U",
    "--proxy-user",
    "-b",
    "--body-data",
    "--post-data",
    "--proxy-header",
    "-E",
    "--cert",
    "--key",
];
/// Programs whose `-pX` is a password.
const DASH_P: [&str; 6] =
    ["mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump", "sshpass"];
/// What keys of well-known services begin with.
const KEY_PREFIXES: [&str; 16] = [
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xox",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
];
/// A mix of letters and digits of this length is taken for a key; names are rarely so long.
const KEY_CHARACTERS: usize = 20;

/// The arguments as they may leave the host.
#[must_use]
pub fn arguments(raw: &[Vec<u8>]) -> Vec<String> {
    let program = raw.first().map(|first| file_name(first)).unwrap_or_default();
    let dash_p = DASH_P.contains(&program.as_str());
    let mut out = Vec::with_capacity(raw.len().min(ARGUMENTS_MAX));
    let mut hide_next = false;
    for (n, argument) in raw.iter().take(ARGUMENTS_MAX).enumerate() {
        // Cut before it is looked at: what is looked at is what is told.
        let text =
            String::from_utf8_lossy(argument.get(..2 * ARGUMENT_BYTES_MAX).unwrap_or(argument));
        let safe = if hide_next {
            REDACTED.to_owned()
        } else if n > 0 && dash_p && text.len() > 2 && text.starts_with("-p") {
            format!("-p{REDACTED}")
        } else {
            one(&text)
        };
        hide_next = !hide_next && n > 0 && (asks_for_secret(&text) || (dash_p && text == "-p"));
        out.push(cut(printable(safe.as_bytes(), ARGUMENT_BYTES_MAX), ARGUMENT_BYTES_MAX));
    }
    out
}

fn file_name(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.rsplit('/').next().unwrap_or_default().to_ascii_lowercase()
}

/// Whether the argument behind this one is a secret.
fn asks_for_secret(text: &str) -> bool {
    let is_option = text.starts_with('-') && !text.contains(['=', ' ']);
    OPAQUE.contains(&text) || (is_option && names_secret(text))
}

fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
        || name.trim_start_matches('-') == "key"
        || name.ends_with("-key")
        || name.ends_with("_key")
}

/// One argument that no option before it has announced.
fn one(text: &str) -> String {
    // A shell's script (`sh -c "..."`) is many arguments in one.
    if text.contains(char::is_whitespace) {
        return script(text);
    }
    for opaque in OPAQUE.iter().filter(|o| text.len() > o.len()) {
        let attached = text.strip_prefix(opaque);
        let long = opaque.starts_with("--");
        if attached.is_some_and(|rest| !long || rest.starts_with('='))
            && (long || !text.starts_with("--"))
            && is_short_with_value(text, opaque)
        {
            return format!("{opaque}{}{REDACTED}", if long { "=" } else { "" });
        }
    }
    if let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.contains("://")) {
        return if names_secret(name) {
            format!("{}={REDACTED}", word(name))
        } else {
            format!("{}={}", word(name), value_of(value))
        };
    }
    value_of(text)
}

/// `-uname:pw`, but not `-user` style words of other programs: a short option's value is
/// hidden only where it has the form of one.
fn is_short_with_value(text: &str, opaque: &str) -> bool {
    if opaque.starts_with("--") {
        return true;
    }
    let rest = text.strip_prefix(opaque).unwrap_or_default();
    rest.contains([':', '=', '@', '{', '&']) || looks_like_key(rest)
}

/// Words of a script one by one; a word that announces a secret hides the next.
fn script(text: &str) -> String {
    let mut out = Vec::new();
    let mut hide: Option<Quote> = None;
    let mut secret_before = false;
    for piece in text.split_whitespace() {
        let bare = piece.trim_matches(['"', '\'', '`', '(', ')', ';', ',']);
        let scheme =
            ["bearer", "basic", "digest", "token"].iter().any(|s| bare.eq_ignore_ascii_case(s));
        let assigns = secret_before && matches!(bare, "=" | ":" | "=>" | ":=" | "==");
        secret_before = names_secret(bare);
        if let Some(open) = hide.take() {
            out.push(REDACTED.to_owned());
            // `Authorization: Bearer X`: the word between is no secret, what follows is.
            hide = open.after(piece).or(scheme.then_some(Quote(None)));
            continue;
        }
        out.push(if bare.is_empty() {
            piece.to_owned()
        } else {
            piece.replacen(bare, &one(bare), 1)
        });
        let header = bare.ends_with(':') && names_secret(bare);
        if assigns || asks_for_secret(bare) || header || scheme {
            hide = Some(Quote(None));
        }
    }
    out.join(" ")
}

/// Whether a hidden value goes on behind a blank, because its quote is still open.
#[derive(Clone, Copy)]
struct Quote(Option<char>);

impl Quote {
    fn after(self, piece: &str) -> Option<Self> {
        let open = self.0.or_else(|| piece.chars().next().filter(|c| matches!(c, '"' | '\'')));
        let quote = open?;
        let from = usize::from(self.0.is_none());
        let closed = piece.chars().skip(from).any(|c| c == quote);
        (!closed).then_some(Self(Some(quote)))
    }
}

/// A value: an address without credentials and query, or a word.
fn value_of(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return word(text) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let host = authority
        .rsplit_once('@')
        .map_or_else(|| word(authority), |(_, host)| format!("{REDACTED}@{}", word(host)));
    let (path, query) = match tail.find(['?', '#']) {
        Some(at) => (tail.get(..at).unwrap_or_default(), true),
        None => (tail, false),
    };
    let path: Vec<String> = path.split('/').map(word).collect();
    let query = if query { format!("?{REDACTED}") } else { String::new() };
    format!("{}://{host}{}{query}", word(scheme), path.join("/"))
}

/// Parts of a word that look like keys are hidden; paths are looked at piece by piece.
fn word(text: &str) -> String {
    if let Some((user, host)) = text.rsplit_once('@').filter(|(user, _)| user.contains(':')) {
        let user = user.split(':').next().unwrap_or_default();
        return format!("{}:{REDACTED}@{}", pieces(user), pieces(host));
    }
    pieces(text)
}

fn pieces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(['/', ',', ':', ';', '=', '&', '"', '\'', '{', '}']) {
        let end = piece.len()
            - piece
                .chars()
                .next_back()
                .filter(|c| "/,:;=&\"'{}".contains(*c))
                .map_or(0, char::len_utf8);
        let (body, mark) = piece.split_at_checked(end).unwrap_or((piece, ""));
        out.push_str(if looks_like_key(body) { REDACTED } else { body });
        out.push_str(mark);
    }
    out
}

fn looks_like_key(text: &str) -> bool {
    let known = text.len() >= 12 && KEY_PREFIXES.iter().any(|prefix| text.starts_with(prefix));
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let letters = text.bytes().filter(u8::is_ascii_alphabetic).count();
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+.~".contains(&b));
    // Dots and dashes divide names and versions into pieces that are short by themselves.
    let longest = text.split(['-', '_', '.']).map(str::len).max().unwrap_or(0);
    let mixed = plain && text.len() >= KEY_CHARACTERS && digits >= 3 && letters >= 3;
    known || (mixed && longest >= 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &[&str], expected: &[&str]) {
        let raw: Vec<Vec<u8>> = line.iter().map(|a| a.as_bytes().to_vec()).collect();
        assert_eq!(arguments(&raw), expected);
    }

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        check(&["x", "--token", "abc", "go"], &["x", "--token", REDACTED, "go"]);
        check(&["x", "--token=abc"], &["x", "--token=[redacted]"]);
        check(&["x", "--api-key", "abc"], &["x", "--api-key", REDACTED]);
        check(&["env", "OPENAI_API_KEY=abc", "y"], &["env", "OPENAI_API_KEY=[redacted]", "y"]);
        check(
            &["curl", "-H", "Authorization: Bearer abc", "https://a.example/x?k=v"],
            &["curl", "-H", REDACTED, "https://a.example/x?[redacted]"],
        );
        check(
            &["curl", "-u", "me:pw", "-d", "{\"a\":1}"],
            &["curl", "-u", REDACTED, "-d", REDACTED],
        );
        check(
            &["curl", "-ume:pw", "https://me:pw@a.example/"],
            &["curl", "-u[redacted]", "https://[redacted]@a.example/"],
        );
        check(&["mysql", "-phunter2", "db"], &["mysql", "-p[redacted]", "db"]);
        check(&["sshpass", "-p", "hunter2", "ssh", "h"], &["sshpass", "-p", REDACTED, "ssh", "h"]);
        check(&["x", "ghp_abcdefghijklmnop"], &["x", REDACTED]);
        check(&["x", "sk-ant-REDACTED"], &["x", REDACTED]);
        check(&["x", "a8f5f167f44f4964e6c998dee827110c"], &["x", REDACTED]);
        check(
            &["sh", "-c", "curl -H 'X-Key: v1 v2' --token abc https://a.example"],
            &[
                "sh",
                "-c",
                "curl -H [redacted] [redacted] [redacted] --token [redacted] https://a.example",
            ],
        );
        check(
            &["sh", "-c", "A_TOKEN=abc run; echo Authorization: Bearer zzz"],
            &["sh", "-c", "A_TOKEN=[redacted] run; echo Authorization: [redacted] [redacted]"],
        );
    }

    #[test]
    fn what_is_no_secret_stays() {
        check(
            &["node", "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js"],
            &["node", "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js"],
        );
        check(
            &["git", "clone", "https://git.example/a/b.git"],
            &["git", "clone", "https://git.example/a/b.git"],
        );
        check(&["python3", "-m", "http.server", "8000"], &["python3", "-m", "http.server", "8000"]);
        check(
            &["claude", "--dangerously-skip-permissions"],
            &["claude", "--dangerously-skip-permissions"],
        );
        check(&["x", "--output=/tmp/a.txt", "-p", "80"], &["x", "--output=/tmp/a.txt", "-p", "80"]);
        check(&["a\x1b[2Jb\n"], &["a\\x1b[2Jb"]);
    }

    #[test]
    fn a_line_of_a_megabyte_is_cut() {
        let raw = vec![vec![b'a'; 1 << 20]; 100];
        let out = arguments(&raw);
        assert_eq!(out.len(), ARGUMENTS_MAX);
        assert!(out.iter().all(|a| a.len() <= ARGUMENT_BYTES_MAX));
    }

    proptest::proptest! {
        /// A secret in any of the places secrets stand in does not come out.
        #[test]
        fn no_secret_comes_out(secret in "[A-Za-z0-9!#%^*]{6,40}", form in 0usize..20, before in "[a-z]{1,8}", after in "[a-z]{1,8}") {
            let secret = format!("Zq9{secret}");
            let s = &secret;
            let line: Vec<String> = match form {
                0 => vec!["--token".into(), s.clone()],
                1 => vec![format!("--password={s}")],
                2 => vec![format!("AWS_SECRET_ACCESS_KEY={s}")],
                3 => vec!["-H".into(), format!("Authorization: Bearer {s}")],
                4 => vec!["-u".into(), format!("alice:{s}")],
                5 => vec![format!("https://alice:{s}@a.example/")],
                6 => vec![format!("https://a.example/x?key={s}&b=1")],
                7 => vec!["--data".into(), format!("{{\"password\":\"{s}\"}}")],
                8 => vec!["-c".into(), format!("curl --token {s} https://a.example")],
                9 => vec!["-c".into(), format!("export API_KEY={s}; run")],
                10 => vec![format!("--client-secret={s}")],
                11 => vec!["--header".into(), format!("X-Api-Key: {s}")],
                12 => vec!["-c".into(), format!("curl -H \"Authorization: Basic {s}\" x")],
                13 => vec![format!("postgres://u:{s}@db.example/x")],
                15 => vec!["-c".into(), format!("echo Authorization: Bearer {s} | nc")],
                16 => vec!["-c".into(), format!("password = \"{s}\"; go()")],
                17 => vec!["-c".into(), format!("post(headers={{\"X-Api-Key\": \"{s}\"}})")],
                18 => vec!["-c".into(), format!("DB_PASSWORD='{s}' ./run")],
                14 => vec!["--key".into(), s.clone()],
                _ => vec![format!("--auth-token={s}")],
            };
            let mut raw = vec![b"prog".to_vec(), before.into_bytes()];
            raw.extend(line.into_iter().map(String::into_bytes));
            raw.push(after.into_bytes());
            let out = arguments(&raw).join(" ");
            proptest::prop_assert!(!out.contains(s.as_str()), "{}", out);
        }

        #[test]
        fn any_bytes_become_bounded_printable_text(raw in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..60), 0..80)) {
            let out = arguments(&raw);
            proptest::prop_assert!(out.len() <= ARGUMENTS_MAX);
            proptest::prop_assert!(out.iter().all(|a| a.len() <= ARGUMENT_BYTES_MAX && a.bytes().all(|b| (b' '..=b'~').contains(&b))));
        }
    }
}
