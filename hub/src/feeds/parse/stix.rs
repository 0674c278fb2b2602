//! STIX 2.x bundles (OASIS STIX 2.1, sections 4.7 and 9): indicators whose pattern says that
//! a name, an address, a network or a page is bad by itself.
//!
//! Understood: `[a = 'x']`, `IN ('x', 'y')`, any of them joined by OR, within a bracket or
//! between brackets, and `[network-traffic:dst_ref.value = 'ip' AND network-traffic:dst_port = n]`.
//! What asks for more at once (AND, FOLLOWEDBY, WITHIN ..) would be taken for less than it
//! says, so it is left out and counted, as is what was revoked.

use serde::Deserialize;

use super::{Out, json};
use crate::feeds::facts::{Facts, time};

#[derive(Deserialize)]
struct Bundle {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    pattern: String,
    #[serde(default = "stix")]
    pattern_type: String,
    #[serde(default)]
    revoked: bool,
    valid_from: Option<String>,
    valid_until: Option<String>,
    #[serde(default)]
    indicator_types: Vec<String>,
    /// Of 2.0.
    #[serde(default)]
    labels: Vec<String>,
}

fn stix() -> String {
    "stix".into()
}

pub(super) fn bundle(download: &[u8], out: &mut Out) -> Result<(), String> {
    let bundle: Bundle = json::read(download)?;
    if bundle.kind != "bundle" {
        return Err("is no STIX bundle".into());
    }
    for object in bundle.objects.iter().filter(|object| object.kind == "indicator") {
        if object.revoked {
            out.skip("revoked");
        } else if object.pattern_type != "stix" {
            out.skip("of another pattern language");
        } else {
            take(object, out);
        }
    }
    out.is_something("indicators")
}

fn take(object: &Object, out: &mut Out) {
    let kinds = object.indicator_types.iter().chain(&object.labels).cloned().collect::<Vec<_>>();
    let facts = Facts {
        threat: if object.name.is_empty() { kinds.join(", ") } else { object.name.clone() },
        reference: object.id.clone(),
        first_seen: object.valid_from.as_deref().and_then(time),
        expires: object.valid_until.as_deref().and_then(time),
    };
    match alternatives(&object.pattern) {
        None => out.skip("patterns with conditions"),
        Some(all) => {
            for (path, value) in all {
                match path.as_str() {
                    "domain-name:value" | "ipv4-addr:value" | "ipv6-addr:value" | "endpoint" => {
                        out.entry(&value, &facts);
                    }
                    "url:value" => out.page(&value, &facts),
                    _ => out.skip("of another kind"),
                }
            }
        }
    }
}

/// A word of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// Paths and values, each of which is bad by itself; `None`: the pattern says something else.
fn alternatives(pattern: &str) -> Option<Vec<(String, String)>> {
    let tokens = tokens(pattern)?;
    let mut all = Vec::new();
    let mut rest = tokens.as_slice();
    loop {
        let end = rest.iter().position(|t| *t == Token::Sign(']'))?;
        let (inner, after) = rest.split_at_checked(end)?;
        observation(inner.strip_prefix(&[Token::Sign('[')])?, &mut all)?;
        rest = after.get(1..)?;
        match rest {
            [] => return Some(all),
            [Token::Word(or), more @ ..] if or == "OR" => rest = more,
            _ => return None,
        }
    }
}

/// What stands in brackets.
fn observation(tokens: &[Token], all: &mut Vec<(String, String)>) -> Option<()> {
    if let Some(endpoint) = endpoint(tokens) {
        all.push(("endpoint".into(), endpoint));
        return Some(());
    }
    let mut rest = tokens;
    loop {
        let [Token::Word(path), more @ ..] = rest else { return None };
        rest = match more {
            [Token::Sign('='), Token::Text(value), more @ ..] => {
                all.push((path.clone(), value.clone()));
                more
            }
            [Token::Word(word), Token::Sign('('), more @ ..] if word == "IN" => {
                let end = more.iter().position(|t| *t == Token::Sign(')'))?;
                let (values, after) = more.split_at_checked(end)?;
                all.extend(values.iter().filter_map(|token| match token {
                    Token::Text(value) => Some((path.clone(), value.clone())),
                    _ => None,
                }));
                after.get(1..)?
            }
            _ => return None,
        };
        match rest {
            [] => return Some(()),
            [Token::Word(or), more @ ..] if or == "OR" => rest = more,
            _ => return None,
        }
    }
}

/// An address and the port it is bad at.
fn endpoint(tokens: &[Token]) -> Option<String> {
    use Token::{Sign, Text, Word};
    let [Word(a), Sign('='), Text(ip), Word(and), Word(b), Sign('='), Word(port)] = tokens else {
        return None;
    };
    let known = a == "network-traffic:dst_ref.value" && b == "network-traffic:dst_port";
    let at = std::net::SocketAddr::new(ip.parse().ok()?, port.parse().ok()?);
    (known && and == "AND").then(|| at.to_string())
}

/// The words of a pattern; `None`: a text without an end.
fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let mut text = String::new();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        '\\' => text.push(chars.next()?),
                        c => text.push(c),
                    }
                }
                tokens.push(Token::Text(text));
            }
            c if c.is_whitespace() || c == ',' => {}
            '[' | ']' | '(' | ')' | '=' => tokens.push(Token::Sign(c)),
            c => {
                let mut word = c.to_string();
                let more = |c: &char| !c.is_whitespace() && !"[]()=',".contains(*c);
                while let Some(c) = chars.next_if(more) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Some(tokens)
}
