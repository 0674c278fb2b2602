//! Makes and reads OpenWrt packages: `.ipk` for OpenWrt 24.10 and older, `.apk` (version 3)
//! for 25.12 and newer, and the signed index of a feed for each.
//!
//! In: the feed's Makefiles (the one place where name, dependencies, configuration files,
//! user and scripts are written down), the tree of files beside them, and built binaries.
//! Out: archives; or, the other way round, what an archive says. Runs at build time, on any
//! machine: nothing of OpenWrt's or Alpine's own tools is needed.
//!
//! ```text
//! Makefile -> makefile -> recipe --+
//! files/, binary -> tree ----------+-> ipk, apk -> feed (Packages, packages.adb) <- key
//! ```
//!
//! Invariants:
//! - The same input gives the same bytes: order is sorted, time is an argument, signatures
//!   are deterministic.
//! - Readers take anything at all: they neither panic nor take more memory than the limits
//!   below.

pub mod adb;
pub mod apk;
pub mod feed;
pub mod ipk;
pub mod key;
pub mod lmo;
pub mod makefile;
pub mod member;
pub mod recipe;
pub mod tarball;
pub mod tree;

/// Largest archive that is read, and largest content after decompression.
pub const ARCHIVE_BYTES_MAX: u64 = 64 << 20;
/// Most files and folders in an archive or a tree.
pub const ENTRIES_MAX: usize = 10_000;
/// Longest path inside a package: what a plain tar header holds, with the leading `./`.
pub const PATH_BYTES_MAX: usize = 97;
