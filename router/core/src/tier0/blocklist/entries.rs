//! A list's text, entry by entry, as the [`Builder`](super::Builder) takes it.
//!
//! For whoever needs to know what a list says rather than only to ask it: the hub, that looks
//! back at its history when a list has grown. In: settings and text, hostile. Out: each entry
//! that would be taken, with the comment behind it. Pure, streamed.

use super::ListConfig;
use super::address::Indicator;
use super::builder::{LINE_BYTES_MAX, covers_strangers, parse};
use super::syntax::{self, Entry, What};
use crate::name::Name;

/// What an entry names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A name and all below it.
    Name(Name),
    /// An address or network, perhaps with a port.
    Net(Indicator),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// What it names.
    pub named: Named,
    /// The list itself exempts it.
    pub allow: bool,
    /// It was the address of this page.
    pub page: Option<&'a [u8]>,
    /// The comment behind it, without its sign; empty: none.
    pub comment: &'a [u8],
}

/// Calls `each` for every entry of a list that would be taken.
pub fn entries<'a>(list: &ListConfig, text: &'a [u8], each: &mut dyn FnMut(Listed<'a>)) {
    let mut state = syntax::State::default();
    for line in text.split(|b| *b == b'\n').filter(|line| line.len() <= LINE_BYTES_MAX) {
        let comment = syntax::comment(line);
        syntax::entries(line, &mut state, &mut |entry| {
            let Ok(entry) = entry else { return };
            let few = entry.number.is_some_and(|number| number < list.sources_min);
            if few || !list.format.takes(entry.syntax) {
                return;
            }
            if let Some(named) = named(&entry) {
                each(Listed { named, allow: entry.allow, page: entry.page, comment });
            }
        });
    }
}

fn named(entry: &Entry<'_>) -> Option<Named> {
    match entry.what {
        What::Name(name) => {
            let (name, _) = parse(name).ok()?;
            (entry.allow || !covers_strangers(&name)).then_some(Named::Name(name))
        }
        What::Net(net) => {
            let meant = !net.is_too_wide() && (entry.allow || net.is_public());
            meant.then_some(Named::Net(net))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier0::blocklist::Builder;

    fn all(list: &ListConfig, text: &str) -> Vec<String> {
        let mut all = Vec::new();
        entries(list, text.as_bytes(), &mut |listed| {
            let named = match &listed.named {
                Named::Name(name) => name.as_str().to_owned(),
                Named::Net(net) => net.to_string(),
            };
            let page = listed.page.map(String::from_utf8_lossy).unwrap_or_default();
            let comment = String::from_utf8_lossy(listed.comment);
            let allow = if listed.allow { "!" } else { "" };
            all.push(format!("{allow}{named}{page} {comment}").trim_end().to_owned());
        });
        all
    }

    #[test]
    fn what_is_taken_and_nothing_else() {
        let text = "# head\n0.0.0.0 a.example b.example\r\n||c.example^\n@@||d.example^\n\
            203.0.113.9:443 # Mozi | - | - | -\nhttps://e.example/x.sh # loader\n\
            co.uk\n10.0.0.1\n1.0.0.0/7\n/regex/\n198.51.100.0/24 ; SBL1\n";
        let expected = [
            "a.example",
            "b.example",
            "c.example",
            "!d.example",
            "203.0.113.9:443 Mozi | - | - | -",
            "e.example/x.sh loader",
            "198.51.100.0/24 SBL1",
        ];
        let list = ListConfig::default();
        assert_eq!(all(&list, text), expected);
        let report = Builder::new(100).list_of(&list, text.as_bytes());
        assert_eq!(report.entries, expected.len(), "the builder takes the same");
    }

    #[test]
    fn settings_hold() {
        let few = ListConfig { sources_min: 3, ..ListConfig::default() };
        assert_eq!(all(&few, "203.0.113.9\t2\n203.0.113.10\t3\n"), ["203.0.113.10"]);
    }
}
