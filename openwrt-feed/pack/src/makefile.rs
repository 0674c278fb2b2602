//! Reads what a feed's Makefile says: the one place where a package is described, for
//! OpenWrt's build and for this packer.
//!
//! In: the text of our own two Makefiles, which keep to a small part of make: `NAME:=value`,
//! `define NAME ... endef`, a backslash at a line's end, `$(NAME)` of plain variables, and
//! `$$` for a dollar. Out: variables and definitions, expanded when asked for.
//!
//! Invariants: what this cannot do (functions, conditions) is refused when it stands in
//! something that is asked for, never guessed. Variables of OpenWrt's build itself are
//! empty.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};

/// How deep variables may name one another.
const DEPTH_MAX: usize = 8;

/// A read Makefile.
#[derive(Debug, Default)]
pub struct Makefile {
    variables: BTreeMap<String, String>,
    definitions: BTreeMap<String, String>,
}

impl Makefile {
    /// Reads the text.
    ///
    /// # Errors
    /// A definition without an end.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let joined = text.replace("\\\n", " ");
        let mut this = Self::default();
        let mut lines = joined.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("define ") {
                let mut body = String::new();
                loop {
                    let line = lines.next().with_context(|| format!("define {name}: no endef"))?;
                    if line == "endef" {
                        break;
                    }
                    body.push_str(line);
                    body.push('\n');
                }
                this.definitions.insert(name.trim().to_owned(), body);
            } else if let Some((name, value)) = assignment(line) {
                this.variables.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(this)
    }

    /// A variable's value; empty when it is not set.
    ///
    /// # Errors
    /// What cannot be expanded.
    pub fn variable(&self, name: &str) -> anyhow::Result<String> {
        let value = self.variables.get(name).map_or("", String::as_str);
        self.expand(value, 0).with_context(|| name.to_owned())
    }

    /// A definition's text, expanded; `None` when there is none.
    ///
    /// # Errors
    /// What cannot be expanded.
    pub fn definition(&self, name: &str) -> anyhow::Result<Option<String>> {
        let body = self.definitions.get(name);
        body.map(|body| self.expand(body, 0)).transpose().with_context(|| name.to_owned())
    }

    /// The definition as it stands, for what is make's own business (recipes).
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.definitions.get(name).map(String::as_str)
    }

    /// The assignments inside a definition, such as `TITLE:=` in `define Package/agentmon`.
    ///
    /// # Errors
    /// What cannot be expanded.
    pub fn settings(&self, name: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let text = self.definition(name)?.with_context(|| format!("no `define {name}`"))?;
        let pair = |line: &str| {
            let (name, value) = assignment(line.trim())?;
            Some((name.to_owned(), value.to_owned()))
        };
        Ok(text.lines().filter_map(pair).collect())
    }

    fn expand(&self, text: &str, depth: usize) -> anyhow::Result<String> {
        ensure!(depth < DEPTH_MAX, "variables name one another in a circle");
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            let named = after.strip_prefix('(').and_then(|inside| inside.split_once(')'));
            let Some((name, after)) = named else { bail!("a `$` without `(NAME)`") };
            ensure!(is_name(name), "`$({name}` is more than a variable");
            let value = self.variables.get(name).map_or("", String::as_str);
            out.push_str(&self.expand(value, depth + 1)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `NAME:=value`, `NAME=value`, `NAME?=value` or `NAME+=value`, comments aside.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end_matches([':', '?', '+']).trim();
    is_name(name).then(|| (name, value.trim()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
# a comment
include $(TOPDIR)/rules.mk
PKG_NAME:=tool
PKG_VERSION:=1.2
FULL=$(PKG_NAME)-$(PKG_VERSION)
define Package/tool
  TITLE:=A tool = good
  DEPENDS:=$(RUST_ARCH_DEPENDS) +kmod-a \\
    +kmod-b
endef
define Package/tool/postrm
#!/bin/sh
rm -f $${IPKG_INSTROOT}/x
endef
define Build/Prepare
\t$(call Build/Default,$(1))
endef
";

    #[test]
    fn variables_and_definitions_are_read() {
        let make = Makefile::parse(TEXT).unwrap();
        assert_eq!(make.variable("FULL").unwrap(), "tool-1.2");
        assert_eq!(make.variable("NONE").unwrap(), "");
        let settings = make.settings("Package/tool").unwrap();
        assert_eq!(settings.get("TITLE").unwrap(), "A tool = good");
        let depends: Vec<_> = settings.get("DEPENDS").unwrap().split_whitespace().collect();
        assert_eq!(depends, ["+kmod-a", "+kmod-b"]);
        let script = make.definition("Package/tool/postrm").unwrap().unwrap();
        assert_eq!(script, "#!/bin/sh\nrm -f ${IPKG_INSTROOT}/x\n");
        assert_eq!(make.definition("Package/other").unwrap(), None);
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let said = match Makefile::parse(text) {
            Ok(make) => format!("{:#}", make.definition("D").unwrap_err()),
            Err(error) => format!("{error:#}"),
        };
        assert!(said.contains(why), "{said}");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        refused("define D\n$(call x,y)\nendef\n", "more than a variable");
        refused("define D\n$@\nendef\n", "without `(NAME)`");
        refused("define D\nx\n", "no endef");
        refused("A=$(B)\nB=$(A)\ndefine D\n$(A)\nendef\n", "circle");
        assert!(Makefile::parse(TEXT).unwrap().settings("Package/none").is_err());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "[ -~\n$()=:]{0,400}") {
            if let Ok(make) = Makefile::parse(&format!("define D\n{text}\nendef\n{text}")) {
                drop(make.definition("D"));
                drop(make.settings("D"));
            }
        }
    }
}
