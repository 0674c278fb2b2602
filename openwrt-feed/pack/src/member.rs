//! One file or folder of a package, whatever the format: what trees are made of and what
//! archive readers give back.

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file and its bytes.
    File(Vec<u8>),
    /// A symbolic link and where it points.
    Link(String),
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Path from the root, without a leading slash: `etc/init.d/agentmon`. Always owned by
    /// root.
    pub path: String,
    /// Permission bits, such as 0o755.
    pub mode: u32,
    /// What it is.
    pub kind: Kind,
}

impl Member {
    /// A plain file.
    #[must_use]
    pub fn file(path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), mode, kind: Kind::File(bytes.into()) }
    }

    /// A folder that everybody may list.
    #[must_use]
    pub fn folder(path: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o755, kind: Kind::Folder }
    }

    /// Bytes of a file, nothing of anything else.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.kind {
            Kind::File(bytes) => bytes,
            Kind::Folder | Kind::Link(_) => &[],
        }
    }

    /// Whether it is no folder.
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        self.kind != Kind::Folder
    }
}

/// What a package says of itself, as read back from an archive of either format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Fields in their order: `Package`, `Version`, ... (ipk) or `name`, `version`, ... (apk).
    pub fields: Vec<(String, String)>,
    /// Names of the packages it needs.
    pub depends: Vec<String>,
    /// Configuration files that survive an update.
    pub conffiles: Vec<String>,
    /// Scripts by name, such as `postinst` or `post-install`.
    pub scripts: Vec<(String, String)>,
    /// What it installs, in the archive's order.
    pub members: Vec<Member>,
    /// Whether each file's content was compared with a checksum in the archive.
    pub checked: bool,
}

impl Package {
    /// A field by its name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A member by its path.
    #[must_use]
    pub fn member(&self, path: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.path == path)
    }
}
