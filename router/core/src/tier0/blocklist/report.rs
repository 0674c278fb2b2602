//! What became of a list: how much was taken, and what was not, by reason.
//!
//! Invariants: a bounded report of a list of any length: the reasons are counted, and of each
//! the first lines are named.

use std::fmt;

use serde::Serialize;

use super::syntax::Format;

/// Most lines named for each reason.
const LINES_MAX: usize = 3;

/// Why an entry of a list is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Why {
    NoName,
    NotAName,
    Number,
    MoreWords,
    AddressAlone,
    NoSink,
    Label,
    Script,
    LineTooLong,
    Suffix,
    Private,
    Wide,
    Regex,
    PathAlone,
    Conditions,
    Pattern,
    PageContent,
    Leads,
    ClientRule,
    Setting,
    OtherFormat,
    OverLimit,
    ManyLists,
}

/// What kind of reason it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not understood.
    Bad,
    /// Understood, and nothing that can be told by names and addresses.
    Unsupported,
    /// It would cover too much, or the reader's own network.
    Refused,
    /// Beyond a maximum.
    OverLimit,
}

impl Why {
    /// In words that read on from "refused:".
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoName => "no name",
            Self::NotAName => "not a domain name",
            Self::Number => "an address, not a name",
            Self::MoreWords => "more than one word",
            Self::AddressAlone => "an address without a name",
            Self::NoSink => "an address that is no sink",
            Self::Label => "label or name too long, or a label empty",
            Self::Script => "no name in any script (want UTF-8)",
            Self::LineTooLong => "line too long",
            Self::Suffix => "a public suffix, not a name somebody registered",
            Self::Private => "an address of no public network",
            Self::Wide => "a network that is too wide",
            Self::Regex => "a regular expression",
            Self::PathAlone => "a path without a host",
            Self::Conditions => "a rule with conditions",
            Self::Pattern => "a pattern within a label",
            Self::PageContent => "a rule about what a page shows",
            Self::Leads => "leads somewhere, so it blocks nothing",
            Self::ClientRule => "a rule about clients or name servers",
            Self::Setting => "a setting that lists nothing",
            Self::OtherFormat => "not of this list's format",
            Self::OverLimit => "more entries than `entries_max`",
            Self::ManyLists => "more lists than there may be",
        }
    }

    /// Whether a person should mend the list, or the program cannot use the entry.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Regex
            | Self::PathAlone
            | Self::Conditions
            | Self::Pattern
            | Self::PageContent
            | Self::Leads
            | Self::ClientRule
            | Self::Setting => Kind::Unsupported,
            Self::Suffix | Self::Private | Self::Wide => Kind::Refused,
            Self::OverLimit | Self::ManyLists => Kind::OverLimit,
            _ => Kind::Bad,
        }
    }
}

/// Entries refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub why: Why,
    /// How many.
    pub count: usize,
    /// The first lines they stand in, from 1.
    pub lines: Vec<usize>,
}

/// What became of one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListReport {
    /// The list's name.
    pub name: String,
    /// Lines read.
    pub lines: usize,
    /// Names and addresses taken, doubles included.
    pub entries: usize,
    /// Of them: addresses and networks.
    pub addresses: usize,
    /// Of them: exceptions.
    pub exceptions: usize,
    /// Of them: reduced from the address of a page to its host.
    pub pages: usize,
    /// Names in other scripts, taken in their ASCII form (`xn--`).
    pub translated: usize,
    /// Scored entries that too few sources name.
    pub below: usize,
    /// Of which syntax most entries are.
    pub format: Option<Format>,
    /// What was not taken, in the order met.
    pub refused: Vec<Refused>,
    /// Entries by syntax.
    pub(super) of_format: [usize; Format::ALL.len()],
}

impl ListReport {
    pub(super) fn refuse(&mut self, why: Why) {
        self.refuse_many(why, 1);
    }

    fn refuse_many(&mut self, why: Why, count: usize) {
        let at = self.refused.iter().position(|refused| refused.why == why);
        let at = at.unwrap_or_else(|| {
            self.refused.push(Refused { why, count: 0, lines: Vec::new() });
            self.refused.len() - 1
        });
        let Some(refused) = self.refused.get_mut(at) else { return };
        refused.count += count;
        if refused.lines.len() < LINES_MAX {
            refused.lines.push(self.lines);
        }
    }

    /// How many were refused for reasons of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> usize {
        self.refused.iter().filter(|r| r.why.kind() == kind).map(|r| r.count).sum()
    }

    /// Whether all of the list was understood and taken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.refused.is_empty()
    }

    /// Says of which syntax the list is.
    pub(super) fn settle(&mut self) {
        let most = Format::ALL.iter().zip(self.of_format).filter(|(_, count)| *count > 0);
        self.format = most.max_by_key(|(_, count)| *count).map(|(format, _)| *format);
    }
}

/// `phishing: 190214 entries in 190230 lines (domains); refused: 2 not a domain name (lines 7, 9)`
impl fmt::Display for ListReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} entries in {} lines", self.name, self.entries, self.lines)?;
        if let Some(format) = self.format {
            write!(f, " ({})", format.as_str())?;
        }
        for (count, what) in [
            (self.addresses, "addresses"),
            (self.exceptions, "exceptions"),
            (self.pages, "reduced from pages to their hosts"),
            (self.translated, "from other scripts"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.below > 0 {
            write!(f, "; {} that too few sources name", self.below)?;
        }
        for (i, refused) in self.refused.iter().enumerate() {
            let (before, text) = (if i == 0 { "; refused: " } else { ", " }, refused.why.text());
            write!(f, "{before}{} {text} (line", refused.count)?;
            for (i, line) in refused.lines.iter().enumerate() {
                write!(f, "{}{line}", if i == 0 { " " } else { ", " })?;
            }
            f.write_str(if refused.count > refused.lines.len() { ", ...)" } else { ")" })?;
        }
        Ok(())
    }
}

impl Serialize for Why {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.text())
    }
}
