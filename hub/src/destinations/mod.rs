//! What kind of network an address is in: cloud, hosting, CDN, VPN, Tor, a home.
//!
//! In: a table of networks, built in, with what a person added in `DATA/destinations`. Out:
//! for an address its [`Class`], the company's name where one is known, and, by a database of
//! the person's own, country and autonomous system. One call, [`Destinations::of`], for lists,
//! detectors and filter words alike. At the hub only.
//!
//! Table, as text: sections `@<TAB>CLASS<TAB>PROVIDER<TAB>ABOUT`, where ABOUT is source,
//! licence and date, each followed by its networks, one a line. Where networks overlap, a
//! person's own counts, then the telling class (Tor before VPN before a named company before
//! `hosting`), then the smaller network.
//!
//! The built-in table, `networks.tsv.zst`, was made by `agentmon destinations --update` of
//! these lists, as of the date in its sections:
//! - providers, VPN exits and Apple's relays: `lord-alfred/ipranges`, CC0-1.0. Lists of
//!   crawlers and monitoring probes are left out: nobody connects to those.
//! - data centres and VPNs: `X4BNet/lists_vpn`, MIT (`LICENSE.X4BNet`).
//! - the addresses of Tor's directory authorities, which every Tor client starts from; relays
//!   change by the hour, so a list of them is for the person to add.
//!
//! No free list of home networks is known: what is announced and in no section counts as
//! [`Class::Residential`]. That is an inference and findings say "seems".
//!
//! Invariants: at most [`NETWORKS_MAX`] networks and [`SECTIONS_MAX`] sections; a file that
//! cannot be read is told and passed over, the rest is used; look-ups neither allocate nor
//! fail. Budget: 0.2 us a look-up without a person's database, 1 us with; 3 MB.

mod class;
mod mmdb;
mod ranges;
mod read;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use agentmon_core::name::printable;

pub use class::Class;
use mmdb::Databases;
use ranges::Ranges;
pub use read::{Section, write};
pub(crate) use read::{Source, update};

/// Most networks of all sections.
pub const NETWORKS_MAX: usize = 4_000_000;
/// Most sections.
pub const SECTIONS_MAX: usize = 4_096;
/// Largest table, as text.
pub const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Longest name of a provider.
pub const PROVIDER_BYTES_MAX: usize = 48;
/// The folder in the data directory with what a person added.
pub const FOLDER: &str = "destinations";
/// The table in it.
pub const FILE_NAME: &str = "networks.tsv";

static BUILT_IN_TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::new();
    let packed = include_bytes!("networks.tsv.zst").as_slice();
    let read = zstd::stream::read::Decoder::new(packed)
        .and_then(|decoder| decoder.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.expect("the built-in table is whole: a test reads it");
    text
});

static BUILT_IN: LazyLock<Arc<Destinations>> =
    LazyLock::new(|| Arc::new(Destinations::parse(&BUILT_IN_TEXT, "")));

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// What kind of network it is in.
    pub class: Class,
    /// Whose, where a list says so: `amazon`; else the autonomous system's name.
    pub provider: Option<&'a str>,
    /// ISO 3166 code, by the person's own database.
    pub country: Option<&'a str>,
    /// Autonomous system's number, by the person's own database.
    pub asn: Option<u32>,
}

/// The tables.
#[derive(Debug, Default)]
pub struct Destinations {
    ranges: Ranges,
    sections: Vec<Section>,
    databases: Databases,
    bad: usize,
}

impl Destinations {
    /// The table that came with this program.
    #[must_use]
    pub fn built_in() -> Arc<Self> {
        Arc::clone(&BUILT_IN)
    }

    /// The built-in table with what a person added. What cannot be read is told in the log.
    #[must_use]
    pub fn of_dir(data_dir: &Path) -> Arc<Self> {
        let databases = Databases::load(&data_dir.join(FOLDER));
        let own = read::own_text(&file(data_dir)).unwrap_or_else(|error| {
            tracing::warn!("{error:#}; going on with the built-in table of networks");
            String::new()
        });
        if own.is_empty() && databases.is_empty() {
            return Self::built_in();
        }
        Arc::new(Self { databases, ..Self::parse(&BUILT_IN_TEXT, &own) })
    }

    /// Reads a table's text, and one whose sections stand in place of those of the same class
    /// and provider. Lines that are no network are counted.
    #[must_use]
    pub fn parse(text: &str, own: &str) -> Self {
        let mut this = Self::default();
        let mut networks = Vec::new();
        for (text, is_own) in [(own, true), (text, false)] {
            let before = this.sections.clone();
            this.bad += read::table(text, is_own, &before, &mut this.sections, &mut networks);
        }
        this.ranges = Ranges::new(networks, &this.sections);
        this
    }

    /// What is known of an address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Destination<'_> {
        let address = ranges::outer(address);
        let nowhere = class::reserved(address);
        let section = self.ranges.find(address).and_then(|at| self.sections.get(usize::from(at)));
        // Published lists hold networks that are nobody's; only a person may say what theirs are.
        let section = section.filter(|section| section.own || nowhere.is_none());
        let class = section.map_or(nowhere.unwrap_or(Class::Residential), |section| section.class);
        let named = section.map(|s| s.provider.as_str()).filter(|name| !name.is_empty());
        let said = match nowhere {
            Some(_) => mmdb::Said::default(),
            None => self.databases.of(address),
        };
        Destination { class, provider: named.or(said.owner), country: said.country, asn: said.asn }
    }

    /// As [`Self::of`], for an address as the store has it.
    #[must_use]
    pub fn of_text(&self, address: &str) -> Option<Destination<'_>> {
        Some(self.of(address.parse().ok()?))
    }

    /// The sections, a person's own first.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// What the person's databases are, as they say themselves.
    #[must_use]
    pub fn databases(&self) -> Vec<String> {
        self.databases.about()
    }

    /// Lines that were no network.
    #[must_use]
    pub const fn bad(&self) -> usize {
        self.bad
    }
}

/// The person's own table.
#[must_use]
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER).join(FILE_NAME)
}

/// Tables that follow their files: who asks every round gets a new one when a file changed.
#[derive(Debug)]
pub struct Following {
    data_dir: PathBuf,
    seen: Vec<(PathBuf, Option<SystemTime>)>,
    table: Arc<Destinations>,
}

impl Following {
    /// Of a data directory.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        let table = Destinations::of_dir(data_dir);
        Self { data_dir: data_dir.to_owned(), seen: stamps(data_dir), table }
    }

    /// The table as its files are now.
    pub fn now(&mut self) -> Arc<Destinations> {
        let stamps = stamps(&self.data_dir);
        if stamps != self.seen {
            self.seen = stamps;
            self.table = Destinations::of_dir(&self.data_dir);
        }
        Arc::clone(&self.table)
    }
}

fn stamps(data_dir: &Path) -> Vec<(PathBuf, Option<SystemTime>)> {
    let entries = std::fs::read_dir(data_dir.join(FOLDER)).into_iter().flatten().flatten();
    let stamp = |entry: std::fs::DirEntry| {
        (entry.path(), entry.metadata().ok().and_then(|meta| meta.modified().ok()))
    };
    let mut stamps: Vec<_> = entries.take(64).map(stamp).collect();
    stamps.sort();
    stamps
}

/// A name as it may stand in a table.
fn provider(text: &str) -> String {
    printable(text.trim().as_bytes(), PROVIDER_BYTES_MAX)
}
