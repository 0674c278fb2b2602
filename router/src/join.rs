//! How a sensor learns which hub to trust: one line, made by `agentmon enroll` and read by
//! `agentmon-router join`.
//!
//! The line is `agentmon-join1:` and the base64url (RFC 4648 section 5, no padding) of the
//! JSON object `{v: 1, url, name, token, ca_pem}`. It is a secret: it carries the sensor's
//! token. It is read from standard input or a file, never from the command line, where
//! other users could see it. [`encode`](Join::encode) and [`decode`](Join::decode) are pure
//! and used by both programs; [`save`] and [`load`] keep it as `identity.json`, mode 0600.
//!
//! Invariants: a line is at most [`LINE_BYTES_MAX`] bytes; what [`decode`](Join::decode)
//! lets pass has an https URL, a plain name, a printable token and at least one certificate.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::disk;

/// What a join line begins with. The digit is the version of the form.
pub const PREFIX: &str = "agentmon-join1:";
/// Longest join line; a CA certificate takes about 1 KiB of it.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Longest sensor name.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest token.
pub const TOKEN_BYTES_MAX: usize = 512;
/// The only version there is.
const VERSION: u32 = 1;

/// Which hub to trust, and as whom.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Version of the object: 1.
    pub v: u32,
    /// `https://HOST:PORT`, without a path.
    pub url: String,
    /// The sensor's name at the hub.
    pub name: String,
    /// Bearer token: the sensor's only secret.
    pub token: String,
    /// The hub's own CA, the only one trusted for this hub.
    pub ca_pem: String,
}

/// Hides the token.
impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("url", &self.url)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why a text is no join line, or no identity.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nothing like it.
    #[error(
        "not a join line: it begins with `{PREFIX}`; make one with `agentmon enroll NAME` on the hub"
    )]
    NotAJoinLine,
    /// Longer than allowed.
    #[error("the join line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Cut short or altered on the way.
    #[error("the join line is damaged ({0}); copy it again, as a whole")]
    Damaged(String),
    /// Made by a newer program.
    #[error(
        "the join line is of version {0}, this program knows {VERSION}; update agentmon-router"
    )]
    Version(u32),
    /// A part makes no sense.
    #[error("`{field}` in the join line: {why}")]
    Field {
        /// Which part.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The identity file cannot be read or written.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        why: String,
    },
}

impl Join {
    /// All parts, version 1.
    #[must_use]
    pub fn new(url: String, name: String, token: String, ca_pem: String) -> Self {
        Self { v: VERSION, url, name, token, ca_pem }
    }

    /// The join line.
    #[must_use]
    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("strings and a number always serialise");
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads a join line. White space, also within (a terminal that wrapped it), is ignored.
    ///
    /// # Errors
    /// [`JoinError`] says what is wrong with the line.
    pub fn decode(line: &str) -> Result<Self, JoinError> {
        if line.len() > LINE_BYTES_MAX {
            return Err(JoinError::TooLong);
        }
        let line: String = line.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let encoded = line.strip_prefix(PREFIX).ok_or(JoinError::NotAJoinLine)?;
        let json = URL_SAFE_NO_PAD
            .decode(encoded.trim_end_matches('='))
            .map_err(|e| JoinError::Damaged(e.to_string()))?;
        Self::from_json(&json)
    }

    fn from_json(json: &[u8]) -> Result<Self, JoinError> {
        // The version first: a later form may have other fields.
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let damaged = |e: serde_json::Error| JoinError::Damaged(e.to_string());
        let Version { v } = serde_json::from_slice(json).map_err(damaged)?;
        if v != VERSION {
            return Err(JoinError::Version(v));
        }
        let join: Self = serde_json::from_slice(json).map_err(damaged)?;
        join.check()?;
        Ok(join)
    }

    fn check(&self) -> Result<(), JoinError> {
        let field = |field, why: &str| Err(JoinError::Field { field, why: why.to_owned() });
        if !is_https_base(&self.url) {
            return field("url", "want https://HOST or https://HOST:PORT");
        }
        if !is_sensor_name(&self.name) {
            return field("name", "want 1 to 64 letters, digits, dots, dashes or underscores");
        }
        let printable = self.token.bytes().all(|b| b.is_ascii_graphic());
        if self.token.is_empty() || self.token.len() > TOKEN_BYTES_MAX || !printable {
            return field("token", "want 1 to 512 printable characters");
        }
        match crate::forward::client::certificates(&self.ca_pem) {
            Ok(_) => Ok(()),
            Err(why) => field("ca_pem", &why),
        }
    }
}

/// What a sensor may be called.
#[must_use]
pub fn is_sensor_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// `https://HOST[:PORT]` with nothing behind it, so that paths can be appended.
fn is_https_base(url: &str) -> bool {
    let Some(authority) = url.strip_prefix("https://") else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".:-[]".contains(&b);
    (1..=300).contains(&authority.len()) && authority.bytes().all(plain)
}

/// Writes the identity: as a whole or not at all, readable by its owner alone.
///
/// # Errors
/// [`JoinError::File`].
pub fn save(path: &Path, join: &Join) -> Result<(), JoinError> {
    let file = |error: io::Error| JoinError::File { path: path.to_owned(), why: error.to_string() };
    let mut json = serde_json::to_vec_pretty(join).expect("strings and a number always serialise");
    json.push(b'\n');
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(file)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // A left-over of an earlier attempt may have another mode or be a link: never reused.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut out = disk::private(options.write(true).create_new(true)).open(&new).map_err(file)?;
    out.write_all(&json).and_then(|()| out.sync_all()).map_err(file)?;
    fs::rename(&new, path).map_err(file)?;
    // The new name must survive a power cut too.
    disk::sync_folder(parent).map_err(file)
}

/// Reads the identity; `None` when there is none yet.
///
/// # Errors
/// [`JoinError`]: unreadable, or not what [`save`] wrote.
pub fn load(path: &Path) -> Result<Option<Join>, JoinError> {
    let file = |error: io::Error| JoinError::File { path: path.to_owned(), why: error.to_string() };
    let opened = match fs::File::open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file(error)),
    };
    let mut json = Vec::new();
    opened.take(LINE_BYTES_MAX as u64 + 1).read_to_end(&mut json).map_err(file)?;
    if json.len() > LINE_BYTES_MAX {
        return Err(JoinError::TooLong);
    }
    Join::from_json(&json).map(Some).map_err(|error| JoinError::File {
        path: path.to_owned(),
        why: format!("{error}; join again"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn sample() -> Join {
        let ca = rcgen::generate_simple_self_signed(["hub.example".to_owned()]).unwrap();
        Join::new(
            "https://192.0.2.10:8743".into(),
            "attic-router".into(),
            "t0k3n".into(),
            ca.cert.pem(),
        )
    }

    #[test]
    fn a_line_round_trips_even_when_wrapped() {
        let join = sample();
        let line = join.encode();
        assert!(line.starts_with(PREFIX) && !line.contains(['\n', ' ', '=', '+', '/']));
        assert_eq!(Join::decode(&line).unwrap(), join);
        let wrapped: String = line
            .chars()
            .collect::<Vec<_>>()
            .chunks(70)
            .map(|c| c.iter().collect::<String>() + "\r\n")
            .collect();
        assert_eq!(Join::decode(&wrapped).unwrap(), join);
        assert!(!format!("{join:?}").contains("t0k3n"));
    }

    #[track_caller]
    fn refused(line: &str, says: &str) {
        let error = Join::decode(line).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn bad_lines_are_refused_with_a_reason() {
        let line = sample().encode();
        refused("", "agentmon enroll");
        refused("hello", "agentmon enroll");
        refused(line.get(..line.len() - 9).unwrap(), "copy it again");
        refused(&format!("{PREFIX}!!!"), "copy it again");
        refused(&"x".repeat(LINE_BYTES_MAX + 1), "longer than");
        let with = |change: &dyn Fn(&mut Join)| {
            let mut join = sample();
            change(&mut join);
            join.encode()
        };
        refused(&with(&|j| j.v = 2), "version 2");
        refused(&with(&|j| j.url = "http://192.0.2.1".into()), "`url`");
        refused(&with(&|j| j.url = "https://192.0.2.1/x".into()), "`url`");
        refused(&with(&|j| j.url = "https://me@192.0.2.1".into()), "`url`");
        refused(&with(&|j| j.name = "a b".into()), "`name`");
        refused(&with(&|j| j.token = "a\nb".into()), "`token`");
        refused(&with(&|j| j.ca_pem = "no certificate".into()), "`ca_pem`");
    }

    #[test]
    fn the_identity_file_is_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/identity.json");
        assert_eq!(load(&path).unwrap(), None);
        let join = sample();
        save(&path, &join).unwrap();
        save(&path, &join).unwrap();
        assert_eq!(load(&path).unwrap(), Some(join));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::write(&path, b"{}").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("join again"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_never_panics(text in "\\PC{0,200}") {
            drop(Join::decode(&text));
            drop(Join::decode(&format!("{PREFIX}{text}")));
        }
    }
}
