//! Stored connections with their processes, to be judged again.
//!
//! In: rows of [`SELECT`]. Out: a [`Past`] with what the core decides by. Pure.

use std::net::IpAddr;

use agentmon_core::Timestamp;
use agentmon_core::authority::{Authority, Decision, Destination, Identity, Scope};
use agentmon_core::event::{Process, Program};
use agentmon_core::name::Name;
use serde_json::Value;

/// Columns in the order [`Past::read`] wants them; the caller adds `WHERE`.
/// The process is that of the last word on it before the connection (or the first one after).
pub(crate) const SELECT: &str = "SELECT c.time, c.dst, c.dport, c.proto, c.domain, c.user_name, \
     coalesce(c.bytes_out, 0), c.id, c.name, c.src, p.host, p.os, p.exe, p.sha256, \
     to_json(p.argv)::VARCHAR, p.user_name, p.signer, p.package, p.ancestors, p.name, c.pid, p.process \
     FROM connections c LEFT JOIN LATERAL (SELECT * FROM processes q \
       WHERE q.sensor = c.sensor AND q.process = c.process \
       ORDER BY q.time > c.time, abs(epoch_us(q.time) - epoch_us(c.time)) LIMIT 1) p ON true";

/// Processes that were told of in the last days and not said to have ended, the oldest first:
/// rows for [`process`], the sensor's number in front.
pub(crate) fn running(days: u32, most: usize) -> String {
    format!(
        "FROM (SELECT sensor, process, host, os, pid, name, exe, sha256, to_json(argv)::VARCHAR,
                user_name, signer, package, ancestors, phase, time
            FROM processes WHERE time > (SELECT max(time) FROM processes) - INTERVAL {days} DAY
            QUALIFY row_number() OVER (PARTITION BY sensor, process ORDER BY time DESC) = 1)
         WHERE phase <> 'exit' ORDER BY time DESC LIMIT {most}"
    )
}

/// One row of [`running`].
///
/// # Errors
/// What DuckDB says.
pub(crate) fn process(row: &duckdb::Row<'_>) -> Result<Process, duckdb::Error> {
    let program = Program {
        id: row.get(1)?,
        pid: row.get(4)?,
        name: row.get(5)?,
        exe: row.get(6)?,
        deleted: false,
        sha256: row.get(7)?,
        argv: list(row.get(8)?),
        user: row.get(9)?,
        signer: row.get(10)?,
        package: row.get(11)?,
    };
    let ancestors = row.get::<_, Option<String>>(12)?;
    Ok(Process {
        os: row.get(3)?,
        host: row.get(2)?,
        program,
        ancestors: ancestors.and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default(),
        ..Process::default()
    })
}

fn list(text: Option<String>) -> Vec<String> {
    text.and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default()
}

/// Only these are judged.
pub(crate) const OUTWARD: &str = "c.direction = 'out' AND c.dport <> 0";

/// A connection of the past.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) time: Timestamp,
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) proto: u8,
    pub(crate) domain: Option<Name>,
    pub(crate) bytes_out: u64,
    pub(crate) id: u64,
    pub(crate) src: String,
    /// `None` where nobody was found.
    pub(crate) process: Option<Process>,
    user: Option<String>,
}

impl Past {
    /// `None` for a row that is none of ours.
    pub(crate) fn read(row: &[Value]) -> Option<Self> {
        let text = |n: usize| row.get(n).and_then(Value::as_str).map(str::to_owned);
        let number = |n: usize| {
            let value = row.get(n)?;
            value.as_u64().or_else(|| value.as_str()?.parse().ok())
        };
        let program = || Program {
            id: number(21).unwrap_or(0),
            pid: number(20).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            name: text(19).unwrap_or_default(),
            exe: text(12),
            deleted: false,
            sha256: text(13),
            argv: list(text(14)),
            user: text(15),
            signer: text(16),
            package: text(17),
        };
        let process = text(11).map(|os| Process {
            os,
            host: text(10).unwrap_or_default(),
            program: program(),
            ancestors: text(18).and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default(),
            ..Process::default()
        });
        Some(Self {
            time: crate::cli::from_answer(row.first()?.as_str()?)?,
            ip: text(1)?.parse().ok()?,
            port: u16::try_from(number(2)?).ok()?,
            proto: u8::try_from(number(3)?).ok()?,
            domain: text(4).and_then(|t| t.parse().ok()),
            bytes_out: number(6).unwrap_or(0),
            id: number(7)?,
            src: text(9).unwrap_or_default(),
            process,
            user: text(5),
        })
    }

    /// Where it went, in words.
    pub(crate) fn place(&self) -> String {
        self.domain.as_ref().map_or_else(|| self.ip.to_string(), ToString::to_string)
    }

    /// What a policy says of it.
    pub(crate) fn decide<'a>(&self, authority: &'a Authority) -> (Option<Identity>, Decision<'a>) {
        let names: Vec<Name> = self.domain.iter().cloned().collect();
        let to = Destination { names: &names, ip: self.ip, port: self.port, proto: self.proto };
        let user = self.process.as_ref().and_then(|p| p.program.user.as_deref());
        let scope = Scope {
            host: self.process.as_ref().map_or("", |p| &p.host),
            groups: &[],
            user: user.or(self.user.as_deref()),
        };
        match &self.process {
            Some(process) => {
                let identity = authority.identify(process);
                (identity, authority.decide(identity, &scope, &to, self.time))
            }
            None => (None, authority.decide_unknown(&scope, &to, self.time)),
        }
    }
}
