//! A person's own databases of countries and autonomous systems, in MaxMind's format.
//!
//! In: `*.mmdb` files of `DATA/destinations`, as several providers give them to who registers,
//! under licences that do not allow shipping them here. Out: country, number and name of the
//! autonomous system of an address. Format: MaxMind DB 2.0, read by the crate `maxminddb`.
//!
//! Invariants: at most [`FILES_MAX`] files of at most [`BYTES_MAX`] bytes each; one that is
//! none is told and passed over; a database that lies about an address yields nothing for it.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use maxminddb::Reader;

/// Most databases.
const FILES_MAX: usize = 4;
/// Largest database: those of cities have 70 MB.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The databases found.
#[derive(Debug, Default)]
pub(super) struct Databases(Vec<Reader<Vec<u8>>>);

/// What they say of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said<'a> {
    pub(super) country: Option<&'a str>,
    pub(super) asn: Option<u32>,
    pub(super) owner: Option<&'a str>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Country<'a>>,
    /// The flat form some providers use.
    #[serde(borrow)]
    country_code: Option<&'a str>,
    autonomous_system_number: Option<u32>,
    #[serde(borrow)]
    autonomous_system_organization: Option<&'a str>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Country<'a> {
    #[serde(borrow)]
    iso_code: Option<&'a str>,
}

impl Databases {
    /// All of a folder, in the order of their names.
    pub(super) fn load(folder: &Path) -> Self {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("mmdb")))
            .collect();
        paths.sort();
        let mut this = Self::default();
        for path in paths.iter().take(FILES_MAX) {
            match open(path) {
                Ok(reader) => this.0.push(reader),
                Err(error) => tracing::warn!("{error:#}; it is passed over"),
            }
        }
        this
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the first database that knows says.
    pub(super) fn of(&self, address: IpAddr) -> Said<'_> {
        let mut said = Said::default();
        for reader in &self.0 {
            let Ok(found) = reader.lookup(address) else { continue };
            let Ok(Some(record)) = found.decode::<Record<'_>>() else { continue };
            let country = record.country.and_then(|c| c.iso_code).or(record.country_code);
            said.country = said.country.or(country.filter(|c| is_country(c)));
            said.asn = said.asn.or(record.autonomous_system_number);
            said.owner = said.owner.or(record.autonomous_system_organization);
        }
        said
    }

    /// Kind and date of each.
    pub(super) fn about(&self) -> Vec<String> {
        self.0.iter().map(|reader| super::provider(&reader.metadata().database_type)).collect()
    }
}

fn is_country(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase())
}

fn open(path: &Path) -> anyhow::Result<Reader<Vec<u8>>> {
    let shown = || path.display().to_string();
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(shown)?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).with_context(shown)?;
    anyhow::ensure!(bytes.len() as u64 <= BYTES_MAX, "{}: larger than {BYTES_MAX}", shown());
    Reader::from_source(bytes).with_context(shown)
}
