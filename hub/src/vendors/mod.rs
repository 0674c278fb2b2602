//! Which maker a MAC address belongs to: the IEEE's registry of blocks.
//!
//! In: a table of prefixes, built in or of a file a person gave. Out: a maker's name for a
//! MAC. At the hub only: the table takes 450 KB compressed, a tenth of the router's package,
//! and whoever reads names of makers sits at the hub.
//!
//! Format, as text: a first line `# ` with source and date, then `PREFIX<TAB>NAME`, where
//! PREFIX has 6, 7 or 9 hexadecimal digits (MA-L, MA-M, MA-S: blocks of 24, 28 and 36 bits). The
//! longest prefix counts.
//!
//! Source of `ieee.tsv.zst`: the public listings of the IEEE Registration Authority, as of the
//! date in its first line; the IEEE asserts no copyright in them and does not restrict their
//! distribution. Blocks whose owner is private, and those the registry keeps to divide them
//! further, are left out. A newer one: download `oui.csv`, `mam.csv` and `oui36.csv` from the
//! IEEE and run `agentmon vendors --update oui.csv mam.csv oui36.csv`; the built-in table is that
//! command's file, `zstd -19`.
//!
//! Invariants: at most [`BLOCKS_MAX`] blocks of at most [`FILE_BYTES_MAX`] bytes; names are
//! printable and at most [`NAME_BYTES_MAX`] bytes; randomised MACs have no maker.
//!
//! Memory: 2.5 MB. Budget: 0.1 us a look-up.

mod read;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use agentmon_core::event::{Mac, MacKind};
use anyhow::Context as _;

pub use read::{read_sources, write};

/// Most blocks; the registry has 54,000, and grows by 3,000 a year.
pub const BLOCKS_MAX: usize = 1_000_000;
/// Largest table, as text.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest name of a maker.
pub const NAME_BYTES_MAX: usize = 64;
/// The file in the data directory that comes before the built-in table.
pub const FILE_NAME: &str = "vendors.tsv";

static BUILT_IN: LazyLock<Arc<Vendors>> = LazyLock::new(|| {
    let mut text = String::new();
    let packed = include_bytes!("ieee.tsv.zst").as_slice();
    let read = zstd::stream::read::Decoder::new(packed)
        .and_then(|decoder| decoder.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.expect("the built-in table is whole: a test reads it");
    Arc::new(Vendors::parse(&text))
});

/// A table of makers.
#[derive(Debug, Default)]
pub struct Vendors {
    /// Source and date, as the table says.
    about: String,
    /// By digits of the prefix: 9, 7, 6. Prefix and place of the name, sorted.
    blocks: [Vec<(u64, Place)>; 3],
    names: String,
    bad: usize,
}

/// Where a name lies in [`Vendors::names`].
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u32,
    bytes: u8,
}

/// Digits of a prefix, longest first.
const DIGITS: [usize; 3] = [9, 7, 6];

impl Vendors {
    /// The table that came with this program.
    #[must_use]
    pub fn built_in() -> Arc<Self> {
        Arc::clone(&BUILT_IN)
    }

    /// The data directory's table, or the built-in one where it has none. One that cannot be
    /// read is told in the log, and passed over.
    #[must_use]
    pub fn of(data_dir: &Path) -> Arc<Self> {
        match Self::load(&file(data_dir)) {
            Ok(Some(own)) => Arc::new(own),
            Ok(None) => Self::built_in(),
            Err(error) => {
                tracing::warn!("{error:#}; going on with the built-in table of makers");
                Self::built_in()
            }
        }
    }

    fn load(path: &Path) -> anyhow::Result<Option<Self>> {
        let shown = || path.display().to_string();
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(shown),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).with_context(shown)?;
        let table = Self::parse(&String::from_utf8_lossy(&bytes));
        anyhow::ensure!(table.len() > 0, "{}: no block of a maker in it", path.display());
        Ok(Some(table))
    }

    /// Reads a table's text; lines that are none are counted.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut table = Self::default();
        let mut known = std::collections::HashMap::<&str, Place>::new();
        for line in text.lines() {
            if let Some(about) = line.strip_prefix('#') {
                if table.about.is_empty() {
                    table.about = read::name(about).unwrap_or_default();
                }
                continue;
            }
            let block = line.split_once('\t').and_then(|(prefix, name)| {
                let list = DIGITS.iter().position(|digits| *digits == prefix.len())?;
                Some((list, u64::from_str_radix(prefix, 16).ok()?, read::is_name(name)?))
            });
            let Some((list, prefix, name)) = block.filter(|_| table.len() < BLOCKS_MAX) else {
                table.bad += usize::from(!line.is_empty());
                continue;
            };
            let place = *known.entry(name).or_insert_with(|| table.keep(name));
            if let Some(list) = table.blocks.get_mut(list) {
                list.push((prefix, place));
            }
        }
        for list in &mut table.blocks {
            list.sort_by_key(|(prefix, _)| *prefix);
            list.dedup_by_key(|(prefix, _)| *prefix);
            list.shrink_to_fit();
        }
        table
    }

    fn keep(&mut self, name: &str) -> Place {
        let at = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push_str(name);
        Place { at, bytes: u8::try_from(name.len()).unwrap_or(u8::MAX) }
    }

    /// The maker of a device; the software's for virtual ones; `None` for a randomised MAC and
    /// for blocks nobody knows.
    #[must_use]
    pub fn of_mac(&self, mac: Mac) -> Option<&str> {
        match mac.kind() {
            MacKind::Random => return None,
            MacKind::Virtual(whose) => return Some(whose),
            MacKind::Registered => {}
        }
        let bits = mac.0.iter().fold(0u64, |bits, octet| bits << 8 | u64::from(*octet));
        self.blocks.iter().zip(DIGITS).find_map(|(list, digits)| {
            let prefix = bits >> (48 - 4 * digits);
            let at = list.binary_search_by_key(&prefix, |(prefix, _)| *prefix).ok()?;
            let place = list.get(at)?.1;
            let begin = usize::try_from(place.at).ok()?;
            self.names.get(begin..begin + usize::from(place.bytes))
        })
    }

    /// Source and date.
    #[must_use]
    pub fn about(&self) -> &str {
        &self.about
    }

    /// Blocks: MA-L, MA-M, MA-S.
    #[must_use]
    pub fn blocks(&self) -> [usize; 3] {
        let [small, medium, large] = self.blocks.each_ref().map(Vec::len);
        [large, medium, small]
    }

    /// All blocks.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "an empty table is refused before")]
    pub fn len(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }

    /// Lines that were no block.
    #[must_use]
    pub const fn bad(&self) -> usize {
        self.bad
    }
}

/// The data directory's table.
#[must_use]
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(table: &Vendors, mac: &str, expected: Option<&str>) {
        assert_eq!(table.of_mac(mac.parse().unwrap()), expected, "{mac}");
    }

    #[test]
    fn the_built_in_table_is_whole() {
        let table = Vendors::built_in();
        let [large, medium, small] = table.blocks();
        assert!(large > 39_000 && medium > 6_000 && small > 7_000, "{:?}", table.blocks());
        assert_eq!(table.bad(), 0);
        assert!(table.about().contains("IEEE") && table.about().contains("202"));
        check(&table, "00:00:0c:00:00:01", Some("Cisco Systems, Inc"));
        check(&table, "b8:27:eb:00:00:01", Some("Raspberry Pi Foundation"));
        // Parts of one block of the registry's own (MA-M, MA-S).
        check(&table, "00:55:da:00:00:01", Some("Shinko Technos co.,ltd."));
        check(&table, "70:b3:d5:00:10:01", Some("SOREDI touch systems GmbH"));
        check(&table, "70:b3:d5:ff:ff:ff", None);
        check(&table, "02:42:ac:11:00:02", Some("Docker"));
        check(&table, "da:a1:19:00:00:01", None);
        check(&table, "02:60:8c:00:00:01", Some("3COM"));
    }

    #[test]
    fn local_blocks_of_the_registry_are_known_to_be_registered() {
        let table = Vendors::built_in();
        for (prefix, _) in &table.blocks[2] {
            let [.., a, b, c] = prefix.to_be_bytes();
            let mac = Mac([a, b, c, 0x99, 0, 1]);
            assert_ne!(mac.kind(), MacKind::Random, "{mac}");
        }
    }

    #[test]
    fn the_longest_prefix_counts_and_nonsense_is_counted() {
        let table = Vendors::parse(
            "# here\n00005E\tlarge\n00005E0\tmedium\n00005E053\tsmall\nxyz\n00005E\n00\tx\n1\t2\n\n",
        );
        assert_eq!((table.len(), table.bad(), table.about()), (3, 4, "here"));
        check(&table, "00:00:5e:ff:00:01", Some("large"));
        check(&table, "00:00:5e:0f:00:01", Some("medium"));
        check(&table, "00:00:5e:05:3f:01", Some("small"));
        check(&table, "00:00:5f:00:00:01", None);
    }

    #[test]
    fn a_file_of_its_own_comes_first_and_nonsense_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Vendors::of(dir.path()).len() > 50_000);
        std::fs::write(file(dir.path()), "# mine\n00000C\tmine\n").unwrap();
        check(&Vendors::of(dir.path()), "00:00:0c:00:00:01", Some("mine"));
        std::fs::write(file(dir.path()), "<html>Not found</html>\n").unwrap();
        assert!(Vendors::of(dir.path()).len() > 50_000);
    }

    proptest::proptest! {
        #[test]
        fn any_text_and_any_mac(text in "([0-9A-F]{5,10}\t[a-zé\\PC]{0,9}\n?){0,9}", mac: [u8; 6]) {
            let table = Vendors::parse(&text);
            if let Some(name) = table.of_mac(Mac(mac)) {
                proptest::prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX);
            }
        }
    }
}
