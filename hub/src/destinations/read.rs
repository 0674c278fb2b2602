//! Tables as text, and how one is written of lists that others publish.
//!
//! In: our own form, or lists of networks as `CLASS[:PROVIDER]=FILE`: one network, address or
//! `FIRST-LAST` a line, comments after `#` or `;`, also gzip (RFC 1952). Out: sections and
//! networks. A list that is an error page or empty is refused, so that it never takes a good
//! one's place.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use flate2::read::MultiGzDecoder;
use ipnet::IpNet;

use super::ranges::Network;
use super::{Class, FILE_BYTES_MAX, NETWORKS_MAX, SECTIONS_MAX, provider};

/// Longest account of a source.
const ABOUT_BYTES_MAX: usize = 200;

/// Networks of one class and provider, from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What they are.
    pub class: Class,
    /// Whose; empty: nobody in particular.
    pub provider: String,
    /// Source, licence and date.
    pub about: String,
    /// How many.
    pub networks: usize,
    /// Of the person's own table.
    pub own: bool,
}

impl Section {
    fn is(&self, class: Class, provider: &str) -> bool {
        self.class == class && self.provider == provider
    }
}

/// Reads a table; sections that `hidden` has too are left out. Returns how many lines were no
/// network.
pub(super) fn table(
    text: &str,
    own: bool,
    hidden: &[Section],
    sections: &mut Vec<Section>,
    networks: &mut Vec<Network>,
) -> usize {
    let (mut bad, mut at) = (0, None);
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("@\t") {
            at = None;
            match self::head(head, own) {
                Some(s) if hidden.iter().any(|h| h.is(s.class, &s.provider)) => {}
                Some(section) if sections.len() < SECTIONS_MAX => {
                    at = u16::try_from(sections.len()).ok();
                    sections.push(section);
                }
                _ => bad += 1,
            }
            continue;
        }
        let Some(section) = at else { continue };
        match network(line) {
            Ok(None) => {}
            Ok(Some((first, last))) if networks.len() < NETWORKS_MAX => {
                networks.push(Network { first, last, section });
                if let Some(section) = sections.get_mut(usize::from(section)) {
                    section.networks += 1;
                }
            }
            _ => bad += 1,
        }
    }
    bad
}

fn head(text: &str, own: bool) -> Option<Section> {
    let mut parts = text.split('\t');
    let class = Class::of_word(parts.next()?)?;
    let name = provider(parts.next().unwrap_or_default());
    let about = agentmon_core::name::printable(
        parts.next().unwrap_or_default().as_bytes(),
        ABOUT_BYTES_MAX,
    );
    Some(Section { class, provider: name, about, networks: 0, own })
}

/// First and last address of a line; none where it says nothing.
fn network(line: &str) -> Result<Option<(IpAddr, IpAddr)>, ()> {
    let text = line.split(['#', ';']).next().unwrap_or_default().trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(net) = IpNet::from_str(text) {
        return Ok(Some((net.network(), net.broadcast())));
    }
    if let Ok(address) = text.parse() {
        return Ok(Some((address, address)));
    }
    let (first, last) = text.split_once('-').ok_or(())?;
    let (first, last) = (first.trim().parse(), last.trim().parse());
    match (first, last) {
        (Ok(first @ IpAddr::V4(_)), Ok(last @ IpAddr::V4(_)))
        | (Ok(first @ IpAddr::V6(_)), Ok(last @ IpAddr::V6(_)))
            if first <= last =>
        {
            Ok(Some((first, last)))
        }
        _ => Err(()),
    }
}

/// The person's own table; empty where there is none.
pub(super) fn own_text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(text),
        file => {
            let file = file.with_context(|| path.display().to_string())?;
            let mut limited = file.take(FILE_BYTES_MAX);
            limited.read_to_string(&mut text).with_context(|| path.display().to_string())?;
            Ok(text)
        }
    }
}

/// A list to be taken in: `vpn:example=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) class: Class,
    pub(crate) provider: String,
    pub(crate) path: PathBuf,
}

impl FromStr for Source {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}`: want CLASS=FILE or CLASS:PROVIDER=FILE");
        let (what, path) = text.split_once('=').ok_or_else(form)?;
        let (word, name) = what.split_once(':').unwrap_or((what, ""));
        let class = Class::of_word(word).ok_or_else(|| {
            let words: Vec<&str> = Class::ALL.iter().map(|class| class.as_str()).collect();
            format!("`{word}` is no class; there are {}", words.join(", "))
        })?;
        if path.is_empty() {
            return Err(form());
        }
        Ok(Self { class, provider: provider(name), path: path.into() })
    }
}

/// Sections of these lists beside those of `text`, which keep their place unless a list is of
/// the same class and provider. Several lists of one class and provider are one section.
pub(crate) fn update(text: &str, sources: &[Source], about: &str) -> anyhow::Result<String> {
    let mut fresh: Vec<(Class, &str, Vec<String>)> = Vec::new();
    for source in sources {
        let lines = list(&source.path)?;
        let same = |(class, name, _): &&mut (Class, &str, _)| {
            *class == source.class && *name == source.provider
        };
        match fresh.iter_mut().find(same) {
            Some((_, _, all)) => all.extend(lines),
            None => fresh.push((source.class, &source.provider, lines)),
        }
    }
    let mut kept = false;
    let mut out: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("@\t") {
            let section = self::head(head, true);
            let again = |s: &Section| fresh.iter().any(|(class, name, _)| s.is(*class, name));
            kept = section.is_some_and(|section| !again(&section));
        }
        if kept {
            out.push(line.to_owned());
        }
    }
    let about = agentmon_core::name::printable(about.as_bytes(), ABOUT_BYTES_MAX);
    for (class, name, lines) in fresh {
        out.push(format!("@\t{}\t{name}\t{about}", class.as_str()));
        out.extend(lines);
    }
    out.push(String::new());
    Ok(out.join("\n"))
}

/// The networks of one list, each as it stands there.
fn list(path: &Path) -> anyhow::Result<Vec<String>> {
    let shown = || path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path).with_context(shown)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    if bytes.starts_with(b"\x1f\x8b") {
        let mut plain = Vec::new();
        let unpacked = MultiGzDecoder::new(bytes.as_slice()).take(FILE_BYTES_MAX);
        { unpacked }.read_to_end(&mut plain).with_context(shown)?;
        bytes = plain;
    }
    let (mut good, mut bad) = (Vec::new(), 0);
    for line in String::from_utf8_lossy(&bytes).lines() {
        match network(line) {
            Ok(None) => {}
            Ok(Some((first, last))) if first == last => good.push(first.to_string()),
            Ok(Some(_)) => {
                let text = line.split(['#', ';']).next().unwrap_or_default();
                good.push(text.trim().to_owned());
            }
            Err(()) => bad += 1,
        }
    }
    if good.is_empty() {
        bail!("{}: no network in it; the table stays as it was", shown());
    }
    ensure!(
        bad <= good.len(),
        "{}: {bad} of its lines are no networks, {} are: that is no list; the table stays as it was",
        shown(),
        good.len()
    );
    ensure!(good.len() <= NETWORKS_MAX, "{}: more than {NETWORKS_MAX} networks", shown());
    Ok(good)
}

/// Puts a table in its place, as a whole.
///
/// # Errors
/// What cannot be written; the table of before is still there.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(shown)?;
    }
    let beside = path.with_extension("new");
    drop(fs::remove_file(&beside));
    let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside);
    let mut file = options.with_context(|| beside.display().to_string())?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
    fs::rename(&beside, path).with_context(shown)
}
