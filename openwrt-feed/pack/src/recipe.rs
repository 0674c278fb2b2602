//! What a package is, before it has a format: the Makefile's words and the tree of files.
//!
//! In: a package's folder in the feed (`agentmon/`, `luci-app-agentmon/`). Out: a
//! [`Recipe`], from which `ipk` and `apk` make archives.
//!
//! Invariants: the Makefile is the only source of names, dependencies, configuration files
//! and scripts; what a package keeps over a system upgrade beyond its own files
//! (`/lib/upgrade/keep.d`) follows from its list of configuration files, as in OpenWrt's
//! build.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::makefile::Makefile;
use crate::member::Member;
use crate::tree::Tree;

/// Libraries that the feed's build links to and that are inside a static binary.
const INSIDE_STATIC: [&str; 1] = ["libsqlite3"];
/// The program, in the package.
pub const PROGRAM: &str = "usr/sbin/agentmon-router";

/// What LuCI's part of OpenWrt's build adds to every page: the menu is cached, and rpcd reads
/// access lists only when told.
const LUCI_POSTINST: &str = "\
#!/bin/sh
[ -n \"${IPKG_INSTROOT}\" ] || {
\trm -f /tmp/luci-indexcache.*
\trm -rf /tmp/luci-modulecache/
\t/etc/init.d/rpcd reload 2>/dev/null
\texit 0
}
";

/// How LuCI's list of languages calls them.
const LANGUAGES: [(&str, &str); 4] = [
    ("de", "Deutsch (German)"),
    ("es", "Español (Spanish)"),
    ("fr", "Français (French)"),
    ("it", "Italiano (Italian)"),
];

/// Everything but the format.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// `agentmon`.
    pub name: String,
    /// `0.1.0-r1`.
    pub version: String,
    /// `aarch64_cortex-a72`, or `all` for what runs anywhere.
    pub arch: String,
    /// Names of the packages it needs, sorted.
    pub depends: Vec<String>,
    /// `/etc/config/agentmon`; a folder ends with a slash.
    pub conffiles: Vec<String>,
    /// `agentmon=5731:agentmon=5731`, or empty.
    pub user: String,
    /// `net`.
    pub section: String,
    /// Lines of the description.
    pub description: Vec<String>,
    /// SPDX.
    pub license: String,
    /// Where to read more.
    pub url: String,
    /// Who answers for it.
    pub maintainer: String,
    /// Own steps after installation, before removal and after removal, if there are any.
    pub scripts: Scripts,
    /// Seconds since 1970: the time of every file.
    pub epoch: u64,
    /// What it installs.
    pub tree: Tree,
}

/// Scripts beside OpenWrt's standard ones.
#[derive(Clone, Debug, Default)]
pub struct Scripts {
    /// Run after the standard steps of an installation.
    pub postinst: Option<String>,
    /// Run by the standard steps before a removal.
    pub prerm: Option<String>,
    /// Run when the files are gone.
    pub postrm: Option<String>,
}

/// The daemon's package, from its folder in the feed and a static binary.
///
/// # Errors
/// A Makefile or file that cannot be read.
pub fn agentmon(folder: &Path, binary: Vec<u8>, arch: &str, epoch: u64) -> anyhow::Result<Recipe> {
    let make = read(folder)?;
    let settings = make.settings("Package/agentmon")?;
    let set = |key: &str| settings.get(key).cloned().unwrap_or_default();
    let mut tree = Tree::default();
    tree.mirror(&folder.join("files"), "")?;
    tree.add(Member::file(PROGRAM, 0o755, binary))?;
    let lines = |text: Option<String>| -> Vec<String> {
        text.unwrap_or_default().lines().map(|l| l.trim().to_owned()).collect()
    };
    let recipe = Recipe {
        name: "agentmon".into(),
        version: version(&make)?,
        arch: arch.into(),
        depends: depends(&set("DEPENDS")),
        conffiles: lines(make.definition("Package/agentmon/conffiles")?),
        user: set("USERID"),
        section: set("SECTION"),
        description: lines(make.definition("Package/agentmon/description")?),
        license: make.variable("PKG_LICENSE")?,
        url: set("URL"),
        maintainer: make.variable("PKG_MAINTAINER")?,
        scripts: scripts(&make, "agentmon")?,
        epoch,
        tree,
    };
    recipe.finish()
}

/// The LuCI package, from its folder in the feed.
///
/// # Errors
/// A Makefile or file that cannot be read.
pub fn luci_app(folder: &Path, epoch: u64) -> anyhow::Result<Recipe> {
    let make = read(folder)?;
    let name = make.variable("PKG_NAME")?;
    let mut tree = Tree::default();
    tree.mirror(&folder.join("root"), "")?;
    tree.mirror(&folder.join("htdocs"), "www")?;
    tree.mirror(&folder.join("ucode"), "usr/share/ucode/luci")?;
    let recipe = Recipe {
        version: version(&make)?,
        arch: make.variable("LUCI_PKGARCH")?,
        depends: depends(&make.variable("LUCI_DEPENDS")?),
        conffiles: Vec::new(),
        user: String::new(),
        section: "luci".into(),
        description: vec![make.variable("LUCI_DESCRIPTION")?],
        license: make.variable("PKG_LICENSE")?,
        url: make.variable("LUCI_URL")?,
        maintainer: make.variable("PKG_MAINTAINER")?,
        scripts: Scripts { postinst: Some(LUCI_POSTINST.into()), ..Scripts::default() },
        name,
        epoch,
        tree,
    };
    recipe.finish()
}

/// One package for each language of the LuCI package: `luci-i18n-agentmon-de`.
///
/// # Errors
/// A translation that cannot be read.
pub fn translations(app: &Recipe, folder: &Path) -> anyhow::Result<Vec<Recipe>> {
    let po = folder.join("po");
    let Ok(listed) = std::fs::read_dir(&po) else { return Ok(Vec::new()) };
    let mut languages: Vec<String> = listed
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != "templates")
        .collect();
    languages.sort();
    let topic = app.name.strip_prefix("luci-app-").unwrap_or(&app.name);
    let mut recipes = Vec::new();
    for language in languages {
        let file = po.join(&language).join(format!("{topic}.po"));
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let catalogue = crate::lmo::compile(&text).with_context(|| file.display().to_string())?;
        let name = format!("luci-i18n-{topic}-{language}");
        let mut tree = Tree::default();
        let path = format!("usr/lib/lua/luci/i18n/{topic}.{language}.lmo");
        tree.add(Member::file(&path, 0o644, catalogue))?;
        let key = language.replace('-', "_");
        let title = LANGUAGES.iter().find(|(code, _)| *code == language);
        let title = title.map_or(language.as_str(), |(_, title)| title);
        let choose = format!("uci set luci.languages.{key}='{title}'; uci commit luci\n");
        tree.add(Member::file(&format!("etc/uci-defaults/{name}"), 0o644, choose))?;
        recipes.push(Recipe {
            name,
            depends: vec![app.name.clone()],
            description: vec![format!("Translation for {} - {language}", app.name)],
            scripts: Scripts::default(),
            tree,
            ..app.clone()
        });
    }
    Ok(recipes)
}

impl Recipe {
    /// Adds what follows from the rest and looks for what cannot be meant.
    fn finish(mut self) -> anyhow::Result<Self> {
        for (what, text) in [("name", &self.name), ("version", &self.version), ("arch", &self.arch)]
        {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-+~".contains(&b);
            ensure!(!text.is_empty() && text.bytes().all(fits), "{what}: `{text}`");
        }
        ensure!(self.description.iter().any(|l| !l.is_empty()), "{}: no description", self.name);
        self.conffiles.retain(|line| !line.is_empty());
        self.conffiles.sort();
        let mut kept = String::new();
        for file in &self.conffiles {
            ensure!(file.starts_with('/'), "conffiles: `{file}` does not begin with a slash");
            if !self.tree.has_file(file.trim_start_matches('/')) {
                kept.push_str(file);
                kept.push('\n');
            }
        }
        if !kept.is_empty() {
            let path = format!("lib/upgrade/keep.d/{}", self.name);
            self.tree.add(Member::file(&path, 0o644, kept))?;
        }
        Ok(self)
    }
}

fn read(folder: &Path) -> anyhow::Result<Makefile> {
    let file = folder.join("Makefile");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Makefile::parse(&text).with_context(|| file.display().to_string())
}

fn version(make: &Makefile) -> anyhow::Result<String> {
    Ok(format!("{}-r{}", make.variable("PKG_VERSION")?, make.variable("PKG_RELEASE")?))
}

/// `+a @condition +b` as names.
fn depends(words: &str) -> Vec<String> {
    let words = words.split_whitespace().filter_map(|word| word.strip_prefix('+'));
    let mut names: Vec<String> =
        words.filter(|name| !INSIDE_STATIC.contains(name)).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

fn scripts(make: &Makefile, name: &str) -> anyhow::Result<Scripts> {
    let script = |which: &str| make.definition(&format!("Package/{name}/{which}"));
    Ok(Scripts {
        postinst: script("postinst")?,
        prerm: script("prerm")?,
        postrm: script("postrm")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_are_names() {
        let names = depends("@(aarch64||x86_64) +libsqlite3 +kmod-b +kmod-a +kmod-b");
        assert_eq!(names, ["kmod-a", "kmod-b"]);
    }

    fn sample(conffiles: &[&str]) -> anyhow::Result<Recipe> {
        let mut tree = Tree::default();
        tree.add(Member::file("etc/config/x", 0o600, "a"))?;
        let recipe = Recipe {
            name: "x".into(),
            version: "1-r1".into(),
            arch: "all".into(),
            depends: Vec::new(),
            conffiles: conffiles.iter().map(|&c| c.to_owned()).collect(),
            user: String::new(),
            section: "net".into(),
            description: vec!["x".into()],
            license: String::new(),
            url: String::new(),
            maintainer: String::new(),
            scripts: Scripts::default(),
            epoch: 0,
            tree,
        };
        recipe.finish()
    }

    #[test]
    fn what_is_no_file_of_the_package_is_kept_over_an_upgrade_all_the_same() {
        let recipe = sample(&["/etc/x/", "/etc/config/x"]).unwrap();
        let keep = recipe.tree.get("lib/upgrade/keep.d/x").unwrap();
        assert_eq!(keep.bytes(), b"/etc/x/\n");
        assert!(sample(&["/etc/config/x"]).unwrap().tree.get("lib/upgrade/keep.d/x").is_none());
        assert!(sample(&["etc/config/x"]).is_err());
    }
}
