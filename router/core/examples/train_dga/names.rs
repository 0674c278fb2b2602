//! Names from files, as the score sees them.

use std::io::Read;
use std::path::Path;

use agentmon_core::Name;
use agentmon_core::tier0::dga::{Front, score};
use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;

/// What counts of a name.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) label: String,
    pub(crate) front: Front,
}

impl Named {
    fn of(name: &Name) -> Option<Self> {
        let score = score(name);
        let judged = !score.label.is_empty();
        judged.then(|| Self { label: score.label.to_owned(), front: score.front })
    }
}

/// The output of one generator.
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) names: Vec<Named>,
}

impl Family {
    pub(crate) fn read(path: &str) -> Result<Self> {
        let file = Path::new(path).file_name().context("a file name")?.to_string_lossy();
        let name = file.split('.').next().unwrap_or_default().to_owned();
        Ok(Self { name, names: read(path)? })
    }

    /// Variants of a family share a number.
    pub(crate) fn number(&self, all: &[Self]) -> u64 {
        let stem = |f: &Self| f.name.split('_').next().unwrap_or_default().to_owned();
        let mut stems: Vec<String> = all.iter().map(stem).collect();
        stems.sort();
        stems.dedup();
        stems.iter().position(|s| *s == stem(self)).unwrap_or(0) as u64
    }
}

fn text(path: &str) -> Result<String> {
    if !path.ends_with(".gz") {
        return Ok(std::fs::read_to_string(path)?);
    }
    let mut text = String::new();
    MultiGzDecoder::new(std::fs::File::open(path)?).read_to_string(&mut text)?;
    Ok(text)
}

/// The names of several files, divided by `,`.
pub(crate) fn read(paths: &str) -> Result<Vec<Named>> {
    let mut names = Vec::new();
    for path in paths.split(',') {
        let text = text(path).with_context(|| format!("reading {path}"))?;
        let mut add = |line: &str| {
            let name = line.split('\t').next().unwrap_or_default().trim_matches(['*', '.']);
            names.extend(name.parse().ok().as_ref().and_then(Named::of));
        };
        if path.ends_with(".json") {
            let list: serde_json::Value = serde_json::from_str(&text)?;
            let list = list["list"].as_array().context("a MISP warning list")?;
            list.iter().filter_map(|name| name.as_str()).for_each(&mut add);
        } else {
            text.lines().for_each(&mut add);
        }
    }
    Ok(names)
}
