//! What kind of network the other end is in: a column of lists, and the word `class:`.
//!
//! In: addresses of an answer. Out: `class`, `provider`, `country`, `asn` by
//! [`crate::destinations`]. The store knows no classes, so that a newer table changes what is
//! told of the past too: a list with the word asks first which addresses there are.

use std::sync::Arc;

use serde_json::Value;

use super::backend::query;
use super::condition::Condition;
use super::context::Context;
use super::filter::{Key, Word};
use crate::destinations::{Class, Destination, Destinations};

/// Most addresses asked about for the word `class:`; a home talks to 20,000 in a month.
const ADDRESSES_MAX: usize = 1_000_000;

/// Which part of what is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Class,
    Provider,
    Country,
    Asn,
}

/// That part, as a value of a record.
pub(crate) fn value(found: &Destination<'_>, part: Part) -> Value {
    match part {
        Part::Class => found.class.as_str().into(),
        Part::Provider => found.provider.into(),
        Part::Country => found.country.into(),
        Part::Asn => found.asn.into(),
    }
}

/// For a cell: `cloud amazon US`.
pub(crate) fn short(class: &str, provider: &str, country: &str) -> String {
    let said = [class, provider, country].into_iter().filter(|text| !text.is_empty());
    // What needs no telling: devices of this network, and what nothing is known of.
    if matches!(class, "local" | "reserved") && provider.is_empty() {
        return String::new();
    }
    said.collect::<Vec<_>>().join(" ")
}

/// Does the address answer to the word: a class, a provider (with `*`), a country's code, or
/// `AS13335`?
fn answers(found: &Destination<'_>, word: &str) -> bool {
    let same = |text: &str| text.eq_ignore_ascii_case(word);
    let provider = |name: &str| match word.strip_suffix('*') {
        Some(start) => name.get(..start.len()).is_some_and(|n| n.eq_ignore_ascii_case(start)),
        None => same(name),
    };
    same(found.class.as_str())
        || found.provider.is_some_and(provider)
        || found.country.is_some_and(same)
        || found.asn.is_some_and(|asn| same(&format!("AS{asn}")))
}

/// A word nothing can answer to is a slip of the hand.
fn known(table: &Destinations, word: &str) -> Result<(), String> {
    let by_database = !table.databases().is_empty();
    let provider = |name: &str| !name.is_empty() && name.eq_ignore_ascii_case(word);
    if by_database
        || word.ends_with('*')
        || Class::of_word(word).is_some()
        || table.sections().iter().any(|section| provider(&section.provider))
    {
        return Ok(());
    }
    let classes: Vec<&str> = Class::ALL.iter().map(|class| class.as_str()).collect();
    Err(format!(
        "class: `{word}` is no class ({}) and no provider (see agentmon destinations)",
        classes.join(", ")
    ))
}

/// Adds what the words `class:` mean for the column `column` of `from`, once the rest of the
/// condition is there.
pub(crate) fn narrow(
    context: &mut Context<'_>,
    words: &[Word],
    from: &str,
    column: &str,
    condition: &mut Condition,
) -> anyhow::Result<()> {
    let words: Vec<&Word> = words.iter().filter(|word| word.key == Key::Class).collect();
    if words.is_empty() {
        return Ok(());
    }
    let table: Arc<Destinations> = context.hub.destinations();
    let mut values = words.iter().flat_map(|word| &word.values);
    values.try_for_each(|value| known(&table, value)).map_err(anyhow::Error::msg)?;
    let wanted = |found: &Destination<'_>| {
        let any = |negated: bool| {
            let mut of = words.iter().filter(|word| word.negated == negated).peekable();
            let none = of.peek().is_none();
            (none, of.any(|word| word.values.iter().any(|value| answers(found, value))))
        };
        let ((free, yes), (_, no)) = (any(false), any(true));
        (free || yes) && !no
    };
    let sql = format!(
        "SELECT DISTINCT {column} FROM {from} WHERE {} LIMIT {ADDRESSES_MAX}",
        condition.sql
    );
    let mut addresses = Vec::new();
    query(context.hub, &sql, condition.params.clone(), &mut |row| {
        if let Some(Value::String(address)) = row.into_iter().next()
            && table.of_text(&address).is_some_and(|found| wanted(&found))
        {
            addresses.push(address);
        }
        Ok(())
    })?;
    let sql = format!("{column} IN (SELECT unnest(string_split(?, ' ')))");
    condition.and(&sql, [addresses.join(" ").into()]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_an_address_answers_to() {
        #[track_caller]
        fn check(address: &str, word: &str, expected: bool) {
            let table = Destinations::built_in();
            assert_eq!(answers(&table.of_text(address).unwrap(), word), expected, "{word}");
        }
        check("104.16.0.1", "cdn", true);
        check("104.16.0.1", "CloudFlare", true);
        check("104.16.0.1", "cloud*", true);
        check("104.16.0.1", "cloud", false);
        check("80.128.0.1", "residential", true);
        check("80.128.0.1", "AS3320", false);
        let known = |word| known(&Destinations::built_in(), word);
        assert!(known("telegram").is_ok() && known("vpn").is_ok());
        assert!(known("vnp").unwrap_err().contains("is no class (local, "));
    }

    #[test]
    fn cells_say_only_what_is_worth_it() {
        assert_eq!(short("cloud", "amazon", "US"), "cloud amazon US");
        assert_eq!(short("local", "", ""), "");
        assert_eq!(short("residential", "", ""), "residential");
    }
}
