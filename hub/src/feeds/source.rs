//! One list of the configuration: where it is from, how it is written, what a hit means.
//!
//! In: a table of `lists.sources`. Out: a [`Source`] in which everything is said: what was
//! not written comes from the named feed ([`super::known`]), else from the defaults.

use std::path::PathBuf;

use agentmon_core::tier0::blocklist::{About, Format, ListConfig, ListKind};
use serde::{Deserialize, Serialize};

use super::known::{KNOWN, known};
use super::parse::Form;

/// One list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Source {
    /// What findings call it.
    pub name: String,
    /// The publisher's feed that it is; empty: none of those known by name.
    pub feed: String,
    /// Where it is fetched from: https, or http.
    pub url: String,
    /// Or the file it is read from.
    pub path: PathBuf,
    /// How grave a hit is, 0 to 1.
    pub score: f64,
    /// How it is written, where it is no list of one entry a line.
    pub form: Form,
    /// As in the router's configuration.
    pub format: Format,
    /// `bad`, `allow` or `watch`.
    pub kind: ListKind,
    /// Whether `enforce` may act by it.
    pub block: bool,
    /// Of lists that say how many sources name an address: at least so many.
    pub sources_min: u32,
    /// Its licence.
    pub licence: String,
    /// How often it is fetched, in seconds.
    pub refresh_seconds: u64,
    /// Days an entry stays after it has left the feed; 0: it goes at once.
    pub keep_days: u32,
    /// A file with the key that the server wants to see in `Auth-Key`.
    pub key_file: PathBuf,
}

/// What a person writes of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    name: Option<String>,
    feed: String,
    url: Option<String>,
    path: PathBuf,
    score: Option<f64>,
    form: Option<Form>,
    format: Option<Format>,
    kind: Option<ListKind>,
    block: Option<bool>,
    sources_min: Option<u32>,
    licence: Option<String>,
    refresh_seconds: Option<u64>,
    keep_days: Option<u32>,
    key_file: PathBuf,
}

impl From<Written> for Source {
    fn from(written: Written) -> Self {
        let (list, known) = (ListConfig::default(), known(&written.feed));
        // A feed's own file, fetched by other means.
        let url =
            || known.filter(|_| written.path.as_os_str().is_empty()).map(|k| k.url.to_owned());
        Self {
            name: written.name.unwrap_or_else(|| written.feed.clone()),
            url: written.url.or_else(url).unwrap_or_default(),
            score: written.score.or(known.map(|k| k.score)).unwrap_or(list.score),
            form: written.form.or(known.map(|k| k.form)).unwrap_or_default(),
            format: written.format.unwrap_or(list.format),
            kind: written.kind.unwrap_or(list.kind),
            block: written.block.unwrap_or(list.block),
            sources_min: written.sources_min.unwrap_or(list.sources_min),
            licence: written
                .licence
                .unwrap_or_else(|| known.map(|k| k.licence).unwrap_or_default().to_owned()),
            refresh_seconds: written
                .refresh_seconds
                .or(known.map(|k| k.refresh_seconds))
                .unwrap_or(86_400),
            keep_days: written.keep_days.or(known.map(|k| k.keep_days)).unwrap_or_default(),
            key_file: written.key_file,
            feed: written.feed,
            path: written.path,
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Written::default().into()
    }
}

impl Source {
    /// Its address or file, as people see it.
    #[must_use]
    pub fn origin(&self) -> String {
        if self.url.is_empty() { self.path.display().to_string() } else { self.url.clone() }
    }

    pub(super) fn list(&self) -> ListConfig {
        ListConfig {
            name: self.name.clone(),
            path: format!("{}.txt", self.name).into(),
            score: self.score,
            format: self.format,
            kind: self.kind,
            block: self.block,
            sources_min: self.sources_min,
            licence: self.licence.clone(),
            about: About { origin: self.origin(), ..About::default() },
        }
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !self.feed.is_empty() && known(&self.feed).is_none() {
            let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
            return Err(("feed", format!("want one of {}", names.join(", "))));
        }
        // It becomes a file's name.
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(fine) {
            return Err(("name", "want 1 to 64 letters, digits, `-` and `_`".into()));
        }
        let web = ["https://", "http://"].iter().any(|scheme| self.url.starts_with(scheme));
        match (self.url.is_empty(), self.path.as_os_str().is_empty()) {
            (true, true) | (false, false) => {
                Err(("url", "want either `url` or `path`, or the name of a `feed`".into()))
            }
            (false, _) if !web => Err(("url", "want an address with https:// or http://".into())),
            (true, _) if !self.path.is_absolute() => Err(("path", "want an absolute path".into())),
            _ if !(300..=2_592_000).contains(&self.refresh_seconds) => {
                Err(("refresh_seconds", "want 300 to 2592000 seconds".into()))
            }
            _ if self.keep_days > 366 => Err(("keep_days", "want 0 to 366".into())),
            _ if self.keep_days > 0 && self.form == Form::List => {
                Err(("keep_days", "want 0 for a plain list: it tells all it has".into()))
            }
            _ if !self.key_file.as_os_str().is_empty() && !self.url.starts_with("https://") => {
                Err(("key_file", "want an https address: the key would travel in the clear".into()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(toml: &str) -> Source {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn a_name_is_enough_and_everything_can_be_said_otherwise() {
        let plain = source("feed = \"urlhaus\"");
        assert_eq!((plain.name.as_str(), plain.form), ("urlhaus", Form::Urlhaus));
        assert!(plain.url.starts_with("https://urlhaus.abuse.ch/") && plain.check().is_ok());
        assert_eq!((plain.licence.as_str(), plain.keep_days), ("CC0-1.0", 30));
        let own = source(
            "feed = \"urlhaus\"\nname = \"u\"\npath = \"/srv/u.csv\"\nscore = 0.5\nkeep_days = 0",
        );
        assert_eq!((own.name.as_str(), own.url.as_str(), own.score), ("u", "", 0.5));
        assert!(own.check().is_ok());
        let again: Source = toml::from_str(&toml::to_string(&own).unwrap()).unwrap();
        assert_eq!(again, own, "what is written out says the same");
    }

    #[test]
    fn what_is_wrong_is_named() {
        #[track_caller]
        fn check(toml: &str, key: &str) {
            assert_eq!(source(toml).check().map_err(|(key, _)| key), Err(key), "{toml}");
        }
        check("feed = \"urlhouse\"", "feed");
        check("name = \"a\"", "url");
        check("name = \"a\"\npath = \"/a\"\nurl = \"https://a.example/\"", "url");
        check("name = \"a\"\nurl = \"ftp://a.example/\"", "url");
        check("name = \"a/b\"\npath = \"/a\"", "name");
        check("name = \"a\"\npath = \"a\"", "path");
        check("feed = \"feodo\"\nkeep_days = 999", "keep_days");
        check("name = \"a\"\npath = \"/a\"\nkeep_days = 3", "keep_days");
        check("name = \"a\"\nurl = \"http://a.example/\"\nkey_file = \"/k\"", "key_file");
        assert!(toml::from_str::<Source>("nam = \"a\"").is_err());
    }

    #[test]
    fn every_known_feed_is_one() {
        for feed in KNOWN {
            let source = source(&format!("feed = \"{}\"", feed.name));
            assert_eq!(source.check(), Ok(()), "{}", feed.name);
            assert!(source.url.starts_with("https://") && !source.licence.is_empty());
            assert!((0.0..=1.0).contains(&source.score));
        }
        assert!(KNOWN.is_sorted_by_key(|known| known.name));
    }
}
