//! A secret where it is kept: a file, or an environment variable.
//!
//! In: the names in the configuration. Out: the value, for as long as one message takes;
//! never part of an error, a log line or a configuration. Read anew each time, so that a
//! changed one needs no restart.

use std::path::Path;

use anyhow::{Context as _, bail};

/// Longest secret or secret address.
const BYTES_MAX: u64 = 4_096;

/// A value that prints as nothing.
pub(crate) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(...)")
    }
}

impl Secret {
    /// The value itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// Reads it; `None` where neither is named.
///
/// # Errors
/// Which file or variable, and what is wrong with it; never what it holds.
pub(crate) fn read(file: &Path, env: &str) -> anyhow::Result<Option<Secret>> {
    let text = if !file.as_os_str().is_empty() {
        let size = std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
        if size > BYTES_MAX {
            bail!("{}: longer than {BYTES_MAX} bytes", file.display());
        }
        std::fs::read_to_string(file).with_context(|| file.display().to_string())?
    } else if !env.is_empty() {
        match std::env::var(env) {
            Ok(value) if value.len() as u64 <= BYTES_MAX => value,
            Ok(_) => bail!("${env}: longer than {BYTES_MAX} bytes"),
            Err(_) => bail!("${env}: not set in the hub's environment, or no text"),
        }
    } else {
        return Ok(None);
    };
    let value = text.trim();
    let source = || if env.is_empty() { file.display().to_string() } else { format!("${env}") };
    if value.is_empty() {
        bail!("{}: empty", source());
    }
    if value.chars().any(char::is_control) {
        bail!("{}: more than one line", source());
    }
    Ok(Some(Secret(value.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: &str, want: Result<&str, &str>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        match (read(file.path(), ""), want) {
            (Ok(Some(secret)), Ok(want)) => assert_eq!(secret.expose(), want),
            (Err(error), Err(want)) => {
                let text = format!("{error:#}");
                assert!(text.contains(want), "{text}");
                assert!(!text.contains("s3cret"), "{text}");
            }
            (got, want) => panic!("{got:?}, want {want:?}"),
        }
    }

    #[test]
    fn files() {
        check("s3cret\n", Ok("s3cret"));
        check("  \n", Err("empty"));
        check("s3cret\nmore\n", Err("more than one line"));
        check(&"s3cret".repeat(1_000), Err("longer than"));
        assert!(read(Path::new("/nonexistent/x"), "").is_err());
        assert!(read(Path::new(""), "AGENTMON_NO_SUCH_VARIABLE").is_err());
        assert!(read(Path::new(""), "").unwrap().is_none());
        let shown = format!("{:?}", Secret("s3cret".into()));
        assert!(!shown.contains("s3cret"));
    }
}
