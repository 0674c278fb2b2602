//! `.ipk` packages for OpenWrt 24.10 and older.
//!
//! A gzipped tar of `./debian-binary`, `./data.tar.gz` and `./control.tar.gz`, in this
//! order; control fields and members as OpenWrt's own build writes them.
//!
//! Invariants: the same recipe gives the same bytes; what is read is bounded, see `tarball`.

use anyhow::{Context as _, ensure};

use crate::member::{Member, Package};
use crate::recipe::Recipe;
use crate::tarball::{gunzip, gzip, tar, untar};

/// The only version of the format there is.
const FORMAT: &str = "2.0\n";

/// The file's name.
#[must_use]
pub fn file_name(recipe: &Recipe) -> String {
    format!("{}_{}_{}.ipk", recipe.name, recipe.version, recipe.arch)
}

/// The package as bytes.
///
/// # Errors
/// A path that is too long.
pub fn write(recipe: &Recipe) -> anyhow::Result<Vec<u8>> {
    let data = tar(recipe.tree.members(), recipe.epoch, true)?;
    let control = control(recipe, data.len());
    let mut members = vec![Member::file("control", 0o644, control)];
    if !recipe.conffiles.is_empty() {
        members.push(Member::file("conffiles", 0o644, recipe.conffiles.join("\n") + "\n"));
    }
    members.extend(scripts(recipe));
    members.sort_by(|a, b| a.path.cmp(&b.path));
    let control = tar(&members, recipe.epoch, true)?;
    let outer = [
        Member::file("debian-binary", 0o644, FORMAT),
        Member::file("data.tar.gz", 0o644, gzip(&data)?),
        Member::file("control.tar.gz", 0o644, gzip(&control)?),
    ];
    gzip(&tar(&outer, recipe.epoch, false)?)
}

/// The control file; `installed` is the length of the unpacked data archive.
fn control(recipe: &Recipe, installed: usize) -> String {
    let epoch = recipe.epoch.to_string();
    let (depends, source) = (recipe.depends.join(", "), format!("feeds/agentmon/{}", recipe.name));
    let installed = installed.to_string();
    let fields = [
        ("Package", recipe.name.as_str()),
        ("Version", &recipe.version),
        ("Depends", &depends),
        ("Source", &source),
        ("SourceName", &recipe.name),
        ("License", &recipe.license),
        ("Section", &recipe.section),
        ("Require-User", &recipe.user),
        ("SourceDateEpoch", &epoch),
        ("URL", &recipe.url),
        ("Maintainer", &recipe.maintainer),
        ("Architecture", &recipe.arch),
        ("Installed-Size", &installed),
    ];
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text + &format!("Description:  {}\n", recipe.description.join("\n "))
}

/// OpenWrt's standard steps, and the package's own where they run them.
fn scripts(recipe: &Recipe) -> Vec<Member> {
    let stub = |name: &str, guard: &str, call: &str| {
        let text = format!(
            "#!/bin/sh\n{guard}[ -s ${{IPKG_INSTROOT}}/lib/functions.sh ] || exit 0\n\
             . ${{IPKG_INSTROOT}}/lib/functions.sh\n{call} $0 $@\n"
        );
        Member::file(name, 0o755, text)
    };
    let skip = "[ \"${IPKG_NO_SCRIPT}\" = \"1\" ] && exit 0\n";
    let mut members =
        vec![stub("postinst", skip, "default_postinst"), stub("prerm", "", "default_prerm")];
    let own = [
        ("postinst-pkg", &recipe.scripts.postinst),
        ("prerm-pkg", &recipe.scripts.prerm),
        ("postrm", &recipe.scripts.postrm),
    ];
    for (name, script) in own {
        members.extend(script.as_ref().map(|text| Member::file(name, 0o755, text.as_str())));
    }
    members
}

/// Reads a package back.
///
/// # Errors
/// No package, or a broken one.
pub fn read(bytes: &[u8]) -> anyhow::Result<Package> {
    let outer = untar(&gunzip(bytes)?)?;
    let part = |name: &str| {
        let member = outer.iter().find(|member| member.path == name);
        member.map(Member::bytes).with_context(|| format!("no {name}"))
    };
    ensure!(part("debian-binary")? == FORMAT.as_bytes(), "another version of the format");
    let control = untar(&gunzip(part("control.tar.gz")?)?).context("control.tar.gz")?;
    let mut package = Package {
        members: untar(&gunzip(part("data.tar.gz")?)?).context("data.tar.gz")?,
        ..Package::default()
    };
    for member in control {
        let text = String::from_utf8(member.bytes().to_vec()).context(member.path.clone())?;
        match member.path.as_str() {
            "control" => package.fields = fields(&text)?,
            "conffiles" => package.conffiles = text.lines().map(str::to_owned).collect(),
            _ => package.scripts.push((member.path, text)),
        }
    }
    let depends = package.field("Depends").unwrap_or_default().to_owned();
    let names = depends.split(',').map(str::trim).filter(|name| !name.is_empty());
    package.depends = names.map(str::to_owned).collect();
    Ok(package)
}

/// `Name: value`, with further lines that begin with a space.
pub(crate) fn fields(text: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(more) = line.strip_prefix(' ') {
            let (_, value) = fields.last_mut().context("a control file that begins with more")?;
            value.push('\n');
            value.push_str(more.trim());
        } else {
            let (name, value) = line.split_once(':').context("a control line without a name")?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    Ok(fields)
}
