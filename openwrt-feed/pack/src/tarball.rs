//! Gzipped tar archives, the layers of an `.ipk`.
//!
//! Written as GNU tar does it with numeric owners, sorted names, one fixed time and
//! `gzip -n`; every path begins with `./`. Read with bounds: a small archive may unpack to
//! something huge.

use std::io::{Cursor, Read};
use std::num::NonZeroU64;

use anyhow::{Context as _, bail, ensure};
use flate2::read::GzDecoder;
use tar::{Archive, Builder, EntryType, Header};

use crate::member::{Kind, Member};
use crate::{ARCHIVE_BYTES_MAX, ENTRIES_MAX};

/// A tar archive of the members, all of them owned by root and last changed at `epoch`
/// (seconds since 1970). `with_root`: a first entry for the root itself, as `tar -c .` has.
///
/// # Errors
/// A path that no plain header holds.
pub fn tar<'a>(
    members: impl IntoIterator<Item = &'a Member>,
    epoch: u64,
    with_root: bool,
) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    if with_root {
        append(&mut builder, "./", &Member::folder(""), epoch)?;
    }
    for member in members {
        let slash = if member.is_leaf() { "" } else { "/" };
        append(&mut builder, &format!("./{}{slash}", member.path), member, epoch)?;
    }
    builder.into_inner().context("tar")
}

fn append(
    builder: &mut Builder<Vec<u8>>,
    name: &str,
    member: &Member,
    epoch: u64,
) -> anyhow::Result<()> {
    let mut header = Header::new_gnu();
    // By hand: the library would drop the leading `./`, by which opkg knows its files.
    let field = &mut header.as_gnu_mut().context("a GNU header")?.name;
    ensure!(name.len() <= field.len(), "`{name}`: too long for a tar header");
    field.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    header.set_mode(member.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(epoch);
    header.set_size(member.bytes().len() as u64);
    match &member.kind {
        Kind::Folder => header.set_entry_type(EntryType::Directory),
        Kind::File(_) => header.set_entry_type(EntryType::Regular),
        Kind::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_link_name(target).context("the link's target")?;
        }
    }
    header.set_cksum();
    builder.append(&header, member.bytes()).context("tar")
}

/// Compressed as `gzip -9n` does it, without name and time, but denser.
///
/// # Errors
/// None that a buffer in memory can cause.
pub fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    dense(bytes, zopfli::Format::Gzip)
}

/// Compressed by raw deflate, or the same within gzip.
pub(crate) fn dense(bytes: &[u8], format: zopfli::Format) -> anyhow::Result<Vec<u8>> {
    // One round: five take three times as long for another 0.3 %.
    let options = zopfli::Options { iteration_count: NonZeroU64::MIN, ..Default::default() };
    let mut packed = Vec::new();
    zopfli::compress(options, format, bytes, &mut packed)?;
    Ok(packed)
}

/// Decompressed again.
///
/// # Errors
/// No gzip, cut off, or more than [`ARCHIVE_BYTES_MAX`] bytes.
pub fn gunzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    read_bounded(GzDecoder::new(bytes)).context("gzip")
}

/// Everything a reader gives, up to [`ARCHIVE_BYTES_MAX`] bytes.
///
/// # Errors
/// What the reader says; too much.
pub fn read_bounded(reader: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut plain = Vec::new();
    reader.take(ARCHIVE_BYTES_MAX + 1).read_to_end(&mut plain)?;
    ensure!(plain.len() as u64 <= ARCHIVE_BYTES_MAX, "more than {ARCHIVE_BYTES_MAX} bytes");
    Ok(plain)
}

/// The members of a tar archive, without the root's own entry.
///
/// # Errors
/// A broken header, a kind of entry no package has, a path out of the root, too many.
pub fn untar(bytes: &[u8]) -> anyhow::Result<Vec<Member>> {
    let mut members = Vec::new();
    let mut archive = Archive::new(Cursor::new(bytes));
    for entry in archive.entries().context("tar")? {
        let mut entry = entry.context("tar")?;
        let path = String::from_utf8(entry.path_bytes().into_owned()).context("a path")?;
        let path = path.strip_prefix("./").unwrap_or(&path).trim_end_matches('/').to_owned();
        let header = entry.header();
        let mode = header.mode().context("a mode")? & 0o7777;
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => {
                let target = entry.link_name_bytes().context("a link without a target")?;
                Kind::Link(String::from_utf8(target.into_owned()).context("a link's target")?)
            }
            EntryType::Regular | EntryType::Continuous => Kind::File(read_bounded(&mut entry)?),
            other => bail!("`{path}`: an entry of kind {other:?}"),
        };
        if path.is_empty() || path == "." {
            continue;
        }
        ensure!(crate::tree::is_plain(&path), "`{}`: leads out", path.escape_debug());
        members.push(Member { path, mode, kind });
        ensure!(members.len() <= ENTRIES_MAX, "more than {ENTRIES_MAX} entries");
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some() -> Vec<Member> {
        let link = Member { path: "a/l".into(), mode: 0o777, kind: Kind::Link("b".into()) };
        vec![Member::folder("a"), Member::file("a/b", 0o600, "text"), link]
    }

    #[test]
    fn what_was_written_is_read() {
        let tar = tar(&some(), 1_700_000_000, true).unwrap();
        assert_eq!(untar(&gunzip(&gzip(&tar).unwrap()).unwrap()).unwrap(), some());
    }

    #[test]
    fn names_begin_as_opkg_wants_them() {
        let tar = tar(&some(), 0, true).unwrap();
        let names: Vec<_> = [0, 512, 1024].map(|at| tar.get(at..at + 7).unwrap().to_vec()).into();
        assert_eq!(names, [b"./\0\0\0\0\0", b"./a/\0\0\0", b"./a/b\0\0"]);
    }

    #[test]
    fn gzip_keeps_no_time_and_no_name() {
        let packed = gzip(b"x").unwrap();
        assert_eq!(packed.get(..10).unwrap(), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3]);
    }

    #[test]
    fn a_bomb_is_refused() {
        let zeros = std::io::repeat(0).take(ARCHIVE_BYTES_MAX + 1);
        let mut bomb = Vec::new();
        flate2::read::GzEncoder::new(zeros, flate2::Compression::fast())
            .read_to_end(&mut bomb)
            .unwrap();
        assert!(bomb.len() < 1_000_000, "{} bytes", bomb.len());
        let refused = format!("{:#}", gunzip(&bomb).unwrap_err());
        assert!(refused.contains("more than"), "{refused}");
    }

    #[test]
    fn a_path_out_of_the_root_is_refused() {
        let out = Member::file("../etc/passwd", 0o644, "");
        let refused = untar(&tar([&out], 0, false).unwrap()).unwrap_err().to_string();
        assert!(refused.contains("leads out"), "{refused}");
    }

    #[test]
    fn a_device_is_refused() {
        let mut bytes = tar([&Member::file("null", 0o644, "")], 0, false).unwrap();
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Char);
        header.set_path("null").unwrap();
        header.set_mode(0o666);
        header.set_size(0);
        header.set_cksum();
        bytes.get_mut(..512).unwrap().copy_from_slice(header.as_bytes());
        assert!(untar(&bytes).unwrap_err().to_string().contains("kind"));
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            drop(untar(&bytes));
            drop(gunzip(&bytes));
        }

        #[test]
        fn a_broken_archive_is_read_or_refused(at in 0usize..4096, to in any::<u8>()) {
            let mut bytes = tar(&some(), 7, true).unwrap();
            let at = at % bytes.len();
            *bytes.get_mut(at).unwrap() = to;
            drop(untar(&bytes));
        }
    }
}
