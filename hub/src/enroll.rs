//! Who may send: sensors, their tokens, and the join line that carries one.
//!
//! A token is 32 random bytes; the file keeps only its SHA-256 (random tokens need no
//! slow hash). It lets its sensor append its own events and nothing else. Enrolling a
//! name again makes a new token, the old one is refused from then on.
//! The changes run inside the writer, look-ups on the server's tasks.

use std::sync::{PoisonError, RwLock};

use agentmon_core::Timestamp;
use agentmon_router::join::{NAME_BYTES_MAX, is_sensor_name};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use duckdb::{Connection, params};
use rand::TryRngCore as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::store::StoreError;

/// Most sensors of one hub.
pub const SENSORS_MAX: usize = 1_000;
const TOKEN_BYTES: usize = 32;

/// A sensor as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// Its number in the tables.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// SHA-256 of its token.
    hash: [u8; 32],
    revoked: bool,
}

/// All sensors with a token; replaced as a whole after each change.
#[derive(Debug, Default)]
pub struct Registry {
    sensors: RwLock<Vec<Sensor>>,
}

/// Why a token lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No sensor has it.
    Unknown,
    /// Its sensor was revoked.
    Revoked,
}

impl Registry {
    /// Reads the sensors from the file.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn reload(&self, connection: &Connection) -> Result<(), StoreError> {
        let sql = "SELECT id, name, token_hash, revoked_at IS NOT NULL FROM sensors
                   WHERE token_hash IS NOT NULL ORDER BY id";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut sensors = Vec::new();
        while let Some(row) = rows.next()? {
            let Some(hash) = from_hex(&row.get::<_, String>(2)?) else { continue };
            sensors.push(Sensor { id: row.get(0)?, name: row.get(1)?, hash, revoked: row.get(3)? });
        }
        *self.sensors.write().unwrap_or_else(PoisonError::into_inner) = sensors;
        Ok(())
    }

    /// The sensor of a token. Takes the same time for every token of a length.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn find(&self, token: &str) -> Result<Sensor, Denied> {
        let hash = hash(token);
        let sensors = self.sensors.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for sensor in sensors.iter() {
            if bool::from(sensor.hash.ct_eq(&hash)) {
                found = Some(sensor);
            }
        }
        match found {
            None => Err(Denied::Unknown),
            Some(sensor) if sensor.revoked => Err(Denied::Revoked),
            Some(sensor) => Ok(sensor.clone()),
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Whether a sensor may be called that.
///
/// # Errors
/// [`StoreError::Refused`] with what is allowed.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    if is_sensor_name(name) {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "a sensor's name is 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes or underscores"
    )))
}

/// Makes or renews a sensor's token and returns it: the only time it is seen.
///
/// # Errors
/// A bad name, too many sensors, or what DuckDB says.
pub fn enroll(connection: &Connection, name: &str, now: Timestamp) -> Result<String, StoreError> {
    let mut secret = [0u8; TOKEN_BYTES];
    rand::rngs::OsRng
        .try_fill_bytes(&mut secret)
        .map_err(|e| StoreError::Db(format!("the system has no randomness: {e}")))?;
    let token = URL_SAFE_NO_PAD.encode(secret);
    let id = find_or_make(connection, name, now)?;
    connection.execute(
        "UPDATE sensors SET token_hash = ?, enrolled_at = make_timestamp(?), revoked_at = NULL
         WHERE id = ?",
        params![to_hex(&hash(&token)), now.micros(), id],
    )?;
    Ok(token)
}

/// Refuses a sensor's token from now on.
///
/// # Errors
/// No such sensor, or what DuckDB says.
pub fn revoke(connection: &Connection, name: &str, now: Timestamp) -> Result<(), StoreError> {
    let changed = connection.execute(
        "UPDATE sensors SET revoked_at = make_timestamp(?)
         WHERE name = ? AND token_hash IS NOT NULL",
        params![now.micros(), name],
    )?;
    if changed == 0 {
        let why = format!("there is no enrolled sensor `{name}`; see `agentmon sensors`");
        return Err(StoreError::Refused(why));
    }
    Ok(())
}

/// The number of a local source (an import, this very machine), which has no token.
///
/// # Errors
/// A bad name, one of an enrolled sensor, or what DuckDB says.
pub fn local_source(
    connection: &Connection,
    name: &str,
    now: Timestamp,
) -> Result<i32, StoreError> {
    let sql = "SELECT count(*) FROM sensors WHERE name = ? AND token_hash IS NOT NULL";
    if connection.query_row(sql, [name], |row| row.get::<_, i64>(0))? > 0 {
        let why = format!("`{name}` is an enrolled sensor; give the import another name");
        return Err(StoreError::Refused(why));
    }
    find_or_make(connection, name, now)
}

fn find_or_make(connection: &Connection, name: &str, now: Timestamp) -> Result<i32, StoreError> {
    check_name(name)?;
    let id = "SELECT max(id) FROM sensors WHERE name = ?";
    if let Some(id) = connection.query_row(id, [name], |row| row.get::<_, Option<i32>>(0))? {
        return Ok(id);
    }
    let count = "SELECT count(*) FROM sensors";
    let count: i64 = connection.query_row(count, [], |row| row.get(0))?;
    if usize::try_from(count).unwrap_or(usize::MAX) >= SENSORS_MAX {
        return Err(StoreError::Refused(format!("there are {SENSORS_MAX} sensors already")));
    }
    let next = "SELECT coalesce(max(id), 0) + 1 FROM sensors";
    let id: i32 = connection.query_row(next, [], |row| row.get(0))?;
    connection.execute(
        "INSERT INTO sensors (id, name, enrolled_at) VALUES (?, ?, make_timestamp(?))",
        params![id, name, now.micros()],
    )?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, open_write};

    const NOW: Timestamp = Timestamp::from_secs(1_795_444_327);

    #[test]
    fn a_token_opens_for_its_sensor_until_renewed_or_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let c = open_write(dir.path(), &Limits::default()).unwrap();
        let registry = Registry::default();
        let first = enroll(&c, "attic", NOW).unwrap();
        let other = enroll(&c, "cellar", NOW).unwrap();
        registry.reload(&c).unwrap();
        assert_eq!(registry.find(&first).map(|s| (s.id, s.name)), Ok((1, "attic".into())));
        assert_eq!(registry.find(&other).map(|s| s.id), Ok(2));
        assert_eq!(registry.find("nonsense"), Err(Denied::Unknown));
        let stored: String =
            c.query_row("SELECT token_hash FROM sensors WHERE id = 1", [], |r| r.get(0)).unwrap();
        assert!(stored.len() == 64 && !stored.contains(&first), "only the hash is kept");
        assert_eq!(registry.find(&stored), Err(Denied::Unknown), "the hash is no token");

        let renewed = enroll(&c, "attic", NOW).unwrap();
        registry.reload(&c).unwrap();
        assert_eq!(registry.find(&first), Err(Denied::Unknown));
        assert_eq!(registry.find(&renewed).map(|s| s.id), Ok(1), "the same sensor");

        revoke(&c, "attic", NOW).unwrap();
        registry.reload(&c).unwrap();
        assert_eq!(registry.find(&renewed), Err(Denied::Revoked));
        let again = enroll(&c, "attic", NOW).unwrap();
        registry.reload(&c).unwrap();
        assert_eq!(registry.find(&again).map(|s| s.id), Ok(1));
    }

    #[test]
    fn names_are_plain_and_local_sources_apart() {
        let dir = tempfile::tempdir().unwrap();
        let c = open_write(dir.path(), &Limits::default()).unwrap();
        for bad in ["", "a b", "a/b", "ä", "'; DROP TABLE dns; --", &"x".repeat(65)] {
            assert!(matches!(enroll(&c, bad, NOW), Err(StoreError::Refused(_))), "{bad}");
        }
        enroll(&c, "attic", NOW).unwrap();
        assert!(local_source(&c, "attic", NOW).is_err());
        let local = local_source(&c, "old-log", NOW).unwrap();
        assert_eq!(local_source(&c, "old-log", NOW).unwrap(), local);
        assert!(revoke(&c, "old-log", NOW).is_err(), "has no token to revoke");
        assert!(revoke(&c, "nobody", NOW).is_err());
    }

    #[test]
    fn sensors_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let c = open_write(dir.path(), &Limits::default()).unwrap();
        c.execute_batch("INSERT INTO sensors (id, name, enrolled_at) SELECT i, 's' || i, now()::TIMESTAMP FROM range(1, 1001) t(i)").unwrap();
        assert!(matches!(enroll(&c, "more", NOW), Err(StoreError::Refused(_))));
        enroll(&c, "s7", NOW).unwrap();
    }
}
