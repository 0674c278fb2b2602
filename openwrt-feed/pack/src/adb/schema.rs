//! Numbers of the slots in packages and indexes (apk-tools, `src/apk_adb.h`).

/// Schema word of a package file: `pckg`.
pub const PACKAGE: u32 = u32::from_le_bytes(*b"pckg");
/// Schema word of an index file: `indx`.
pub const INDEX: u32 = u32::from_le_bytes(*b"indx");

/// Slots of what describes a package.
pub mod info {
    /// Its name.
    pub const NAME: usize = 1;
    /// Its version.
    pub const VERSION: usize = 2;
    /// In a package: 20 bytes that tell it from others. In an index: SHA-256 of its ADB block.
    pub const HASHES: usize = 3;
    /// One line.
    pub const DESCRIPTION: usize = 4;
    /// `aarch64_cortex-a72` or `noarch`.
    pub const ARCH: usize = 5;
    /// SPDX.
    pub const LICENSE: usize = 6;
    /// Name of the source package.
    pub const ORIGIN: usize = 7;
    /// Who answers for it.
    pub const MAINTAINER: usize = 8;
    /// Where to read more.
    pub const URL: usize = 9;
    /// Bytes of its files.
    pub const INSTALLED_SIZE: usize = 12;
    /// Bytes of the package file; only in an index.
    pub const FILE_SIZE: usize = 13;
    /// Array of dependencies.
    pub const DEPENDS: usize = 15;
    /// Name and kind of the fields that are text, for showing.
    pub const TEXTS: [(usize, &str); 8] = [
        (NAME, "name"),
        (VERSION, "version"),
        (ARCH, "arch"),
        (DESCRIPTION, "description"),
        (LICENSE, "license"),
        (ORIGIN, "origin"),
        (MAINTAINER, "maintainer"),
        (URL, "url"),
    ];
    /// The fields that are numbers, for showing.
    pub const NUMBERS: [(usize, &str); 2] =
        [(INSTALLED_SIZE, "installed-size"), (FILE_SIZE, "file-size")];
}

/// Slots of a dependency.
pub mod dependency {
    /// Name of the package.
    pub const NAME: usize = 1;
}

/// Slots of a package.
pub mod package {
    /// What describes it.
    pub const INFO: usize = 1;
    /// Array of folders.
    pub const PATHS: usize = 2;
    /// Scripts.
    pub const SCRIPTS: usize = 3;
}

/// Slots of the scripts, with their names.
pub const SCRIPTS: [(usize, &str); 7] = [
    (1, "trigger"),
    (2, "pre-install"),
    (3, "post-install"),
    (4, "pre-deinstall"),
    (5, "post-deinstall"),
    (6, "pre-upgrade"),
    (7, "post-upgrade"),
];

/// Slots of an owner and mode.
pub mod acl {
    /// Permission bits.
    pub const MODE: usize = 1;
    /// Owner's name.
    pub const USER: usize = 2;
    /// Group's name.
    pub const GROUP: usize = 3;
}

/// Slots of a folder.
pub mod folder {
    /// Path; none is the root.
    pub const NAME: usize = 1;
    /// Owner and mode.
    pub const ACL: usize = 2;
    /// Array of files.
    pub const FILES: usize = 3;
}

/// Slots of a file.
pub mod file {
    /// Name within its folder.
    pub const NAME: usize = 1;
    /// Owner and mode.
    pub const ACL: usize = 2;
    /// Bytes.
    pub const SIZE: usize = 3;
    /// Seconds since 1970.
    pub const MTIME: usize = 4;
    /// SHA-256 of its bytes.
    pub const HASHES: usize = 5;
    /// For a link: its mode in two bytes and where it points.
    pub const TARGET: usize = 6;
}

/// Slots of an index.
pub mod index {
    /// Array of what describes each package.
    pub const PACKAGES: usize = 2;
}
