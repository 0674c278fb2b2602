//! Feeds that are no lists -> lists: what each publisher's own form says, one entry a line.
//!
//! In: a whole download, hostile. Out: the text of a list ([`super::facts`] behind each
//! entry), and what of the download says nothing about names and addresses, by reason. Pure;
//! streamed but for STIX and MISP, whose documents are read whole (their readers borrow from
//! the text). Invariants: a download that is not of the feed's form is an error, never an
//! empty list; one bad record never loses the rest.

mod abuse_ch;
mod json;
mod misp;
mod stix;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use agentmon_core::tier0::blocklist::{SNIFF_BYTES, no_list};
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::shared_hosts;

/// How a feed is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A list of entries, one a line: see `format`.
    #[default]
    List,
    /// `URLhaus`, CSV.
    Urlhaus,
    /// `ThreatFox`, CSV.
    Threatfox,
    /// Feodo Tracker, CSV or JSON.
    Feodo,
    /// `SSLBL`, CSV of addresses.
    Sslbl,
    /// Spamhaus DROP, a JSON object a line.
    SpamhausDrop,
    /// CERT Polska's warning list, JSON.
    CertPl,
    /// Addresses of pages, one a line, some of them on platforms that many share.
    Pages,
    /// A STIX 2.1 bundle (or 2.0), JSON.
    Stix,
    /// A MISP event, or an answer with several, JSON.
    Misp,
}

impl Form {
    /// The list that a download of this form amounts to; `None`: it is one.
    ///
    /// # Errors
    /// What it is instead, in words that follow the feed's name.
    pub(super) fn list(self, download: &[u8]) -> Option<Result<Out, String>> {
        let mut out = Out::default();
        let read = match self {
            Self::List => return None,
            Self::Urlhaus => abuse_ch::urlhaus(download, &mut out),
            Self::Threatfox => abuse_ch::threatfox(download, &mut out),
            Self::Feodo => abuse_ch::feodo(download, &mut out),
            Self::Sslbl => abuse_ch::sslbl(download, &mut out),
            Self::SpamhausDrop => json::spamhaus_drop(download, &mut out),
            Self::CertPl => json::cert_pl(download, &mut out),
            Self::Pages => pages(download, &mut out),
            Self::Stix => stix::bundle(download, &mut out),
            Self::Misp => misp::events(download, &mut out),
        };
        Some(read.map(|()| out))
    }
}

/// A list in the making.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// Its text.
    pub(super) text: String,
    entries: usize,
    skipped: BTreeMap<&'static str, usize>,
}

impl Out {
    /// An entry in a list's own words: a name, an address, `address:port`, a network, a page.
    fn entry(&mut self, entry: &str, facts: &Facts) {
        let entry = entry.trim();
        // Whatever could be another entry, another line or a comment.
        if entry.is_empty()
            || entry.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control())
        {
            return self.skip("not an entry");
        }
        self.entries += 1;
        for part in [entry, " # ", &facts.comment(), "\n"] {
            self.text.push_str(part);
        }
    }

    /// A page: of a platform that many share, only those who see the whole address could say
    /// anything.
    fn page(&mut self, page: &str, facts: &Facts) {
        if shared_hosts::is_shared(page) {
            self.skip("pages of platforms that many share");
        } else {
            self.entry(&page.replace(' ', "%20"), facts);
        }
    }

    /// A record that says nothing here.
    fn skip(&mut self, why: &'static str) {
        *self.skipped.entry(why).or_default() += 1;
    }

    /// What was left out, for people; empty: nothing.
    pub(super) fn left_out(&self) -> String {
        let parts = self.skipped.iter().map(|(why, count)| format!("{count} {why}"));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// Nothing of it could be read: it is something else.
    fn is_something(&self, what: &str) -> Result<(), String> {
        if self.entries == 0 && self.skipped.is_empty() {
            return Err(format!("holds no {what}"));
        }
        Ok(())
    }
}

/// Text, if it is any.
fn text_of(download: &[u8]) -> Result<std::borrow::Cow<'_, str>, String> {
    match no_list(download.get(..SNIFF_BYTES).unwrap_or(download)) {
        Some(what) if !what.starts_with("JSON") => Err(format!("is {what}")),
        _ => {
            Ok(String::from_utf8_lossy(download.strip_prefix(b"\xef\xbb\xbf").unwrap_or(download)))
        }
    }
}

/// Pages, one a line.
fn pages(download: &[u8], out: &mut Out) -> Result<(), String> {
    let text = text_of(download)?;
    for line in text.lines().map(str::trim) {
        match line.as_bytes().first() {
            None | Some(b'#' | b';') => {}
            Some(_) => out.page(line, &Facts::default()),
        }
    }
    out.is_something("pages")
}
