//! The values of options in the form that the table of settings says.
//!
//! In: the text of an option or the texts of a list. Out: the value for the daemon's
//! configuration, or what would have been right. Pure.

use std::path::Path;

use agentmon_core::name::Name;
use toml::Value as Toml;

use super::schema::Form;
use super::settings::shown;
use super::syntax::Value;
use super::value::{bytes, count, flag, fraction, seconds};

/// Whether there may be several.
pub(super) const fn is_list(form: Form) -> bool {
    matches!(form, Form::Texts | Form::Paths | Form::Nets | Form::Names)
}

/// The value in its form. A list may also be written as one option with blanks between.
pub(super) fn read(form: Form, value: &Value) -> Result<Toml, String> {
    let integer = |n: u64| Toml::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    match (form, value) {
        (Form::Texts | Form::Paths | Form::Nets | Form::Names, value) => {
            let values: Vec<&str> = match value {
                Value::One(text) => text.split_whitespace().collect(),
                Value::Many(values) => values.iter().map(String::as_str).collect(),
            };
            let one = |text: &&str| match form {
                Form::Paths => path(text),
                Form::Nets => net(text),
                Form::Names => name(text),
                _ => Ok(Toml::String((*text).to_owned())),
            };
            values.iter().map(one).collect::<Result<_, _>>().map(Toml::Array)
        }
        (_, Value::Many(values)) => {
            let last = values.last().map_or("", String::as_str);
            Err(format!("one value is wanted: `option ... '{}'` in place of `list`", shown(last)))
        }
        (Form::Flag, Value::One(text)) => flag(text).map(Toml::Boolean),
        (Form::Seconds, Value::One(text)) => seconds(text).map(integer),
        (Form::Bytes, Value::One(text)) => bytes(text).map(integer),
        (Form::Count, Value::One(text)) => count(text).map(integer),
        (Form::Fraction, Value::One(text)) => fraction(text).map(Toml::Float),
        (Form::Path, Value::One(text)) => path(text),
        (Form::Text, Value::One(text)) => Ok(Toml::String(text.clone())),
    }
}

fn path(text: &str) -> Result<Toml, String> {
    let plain = !text.chars().any(char::is_control);
    if Path::new(text).is_absolute() && plain {
        return Ok(Toml::String(text.to_owned()));
    }
    Err(format!("'{}' is no absolute path; it begins with /", shown(text)))
}

/// As it is compared: in lower case, without the dot at its end.
fn name(text: &str) -> Result<Toml, String> {
    let name = Name::parse(text.as_bytes()).map_err(|error| error.to_string());
    name.map(|name| Toml::String(name.as_str().to_owned()))
}

/// A lone address is a network of one.
fn net(text: &str) -> Result<Toml, String> {
    let text = text.trim();
    match (text.parse::<std::net::IpAddr>(), text.split_once('/')) {
        (Ok(one), _) => Ok(Toml::String(format!("{one}/{}", if one.is_ipv4() { 32 } else { 128 }))),
        (_, Some((address, bits)))
            if address.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok() =>
        {
            Ok(Toml::String(text.to_owned()))
        }
        _ => Err(format!("'{}' is no address or network; use e.g. 192.168.1.0/24", shown(text))),
    }
}
