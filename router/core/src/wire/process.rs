//! Processes and their connections to the wire and back.

use super::field::{clean, endpoint, some_text, text, to_endpoint, to_name};
use super::flow::{phase_number, to_phase, to_volume, volume};
use super::{WireError, pb};
use crate::event::{
    ANCESTORS_MAX, ARGUMENT_BYTES_MAX, ARGUMENTS_MAX, Connection, Direction, PATH_BYTES_MAX,
    Process, ProcessPhase, Program, Resolved, TEXT_BYTES_MAX,
};
use crate::time::Timestamp;

/// A SHA-256 in hexadecimal.
const HASH_CHARACTERS: usize = 64;

impl From<&Program> for pb::Program {
    fn from(p: &Program) -> Self {
        Self {
            id: p.id,
            pid: p.pid,
            name: p.name.clone(),
            exe: text(p.exe.as_ref()),
            deleted: p.deleted,
            sha256: text(p.sha256.as_ref()),
            argv: p.argv.iter().take(ARGUMENTS_MAX).cloned().collect(),
            user: text(p.user.as_ref()),
            signer: text(p.signer.as_ref()),
            package: text(p.package.as_ref()),
        }
    }
}

impl From<pb::Program> for Program {
    fn from(p: pb::Program) -> Self {
        let argv = p.argv.into_iter().take(ARGUMENTS_MAX);
        let is_hash = |h: &String| {
            h.len() == HASH_CHARACTERS
                && h.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        Self {
            id: p.id,
            pid: p.pid,
            name: clean(p.name, TEXT_BYTES_MAX),
            exe: (!p.exe.is_empty()).then(|| clean(p.exe, PATH_BYTES_MAX)),
            deleted: p.deleted,
            sha256: Some(p.sha256).filter(is_hash),
            argv: argv.map(|a| clean(a, ARGUMENT_BYTES_MAX)).collect(),
            user: some_text(p.user),
            signer: some_text(p.signer),
            package: some_text(p.package),
        }
    }
}

impl From<&Process> for pb::Process {
    fn from(p: &Process) -> Self {
        Self {
            phase: p.phase as u32,
            os: p.os.clone(),
            host: p.host.clone(),
            program: Some((&p.program).into()),
            start_ns: p.start.map(Timestamp::nanos),
            ancestors: p.ancestors.iter().take(ANCESTORS_MAX).map(Into::into).collect(),
            container: text(p.container.as_ref()),
        }
    }
}

impl TryFrom<pb::Process> for Process {
    type Error = WireError;
    fn try_from(p: pb::Process) -> Result<Self, WireError> {
        let ancestors = p.ancestors.into_iter().take(ANCESTORS_MAX);
        Ok(Self {
            phase: match p.phase {
                1 => ProcessPhase::Start,
                2 => ProcessPhase::Exec,
                3 => ProcessPhase::Exit,
                _ => ProcessPhase::Running,
            },
            os: clean(p.os, TEXT_BYTES_MAX),
            host: clean(p.host, TEXT_BYTES_MAX),
            program: p.program.ok_or(WireError::Field("program"))?.into(),
            start: p.start_ns.map(Timestamp::from_nanos),
            ancestors: ancestors.map(Into::into).collect(),
            container: some_text(p.container),
        })
    }
}

impl From<&Connection> for pb::Connection {
    fn from(c: &Connection) -> Self {
        Self {
            id: c.id,
            phase: phase_number(c.phase),
            process: c.process,
            pid: c.pid,
            name: text(c.name.as_ref()),
            proto: u32::from(c.proto),
            local: Some(endpoint(c.local)),
            remote: Some(endpoint(c.remote)),
            direction: c.direction as u32,
            start_ns: c.start.map(Timestamp::nanos),
            duration_ms: c.duration_ms,
            volume: c.volume.map(volume),
            user: text(c.user.as_ref()),
            container: text(c.container.as_ref()),
            how: c.how.clone(),
            resolved_name: c.resolved.as_ref().map(|r| r.name.to_string()).unwrap_or_default(),
            resolved_age_ms: c.resolved.as_ref().map_or(0, |r| r.age_ms),
        }
    }
}

impl TryFrom<pb::Connection> for Connection {
    type Error = WireError;
    fn try_from(c: pb::Connection) -> Result<Self, WireError> {
        let resolved = match c.resolved_name.as_str() {
            "" => None,
            name => Some(Resolved { name: to_name(name, "name")?, age_ms: c.resolved_age_ms }),
        };
        Ok(Self {
            id: c.id,
            phase: to_phase(c.phase),
            process: c.process,
            pid: c.pid,
            name: some_text(c.name),
            proto: u8::try_from(c.proto).map_err(|_| WireError::Field("proto"))?,
            local: to_endpoint(c.local, "local")?,
            remote: to_endpoint(c.remote, "remote")?,
            direction: match c.direction {
                1 => Direction::In,
                2 => Direction::Listen,
                _ => Direction::Out,
            },
            start: c.start_ns.map(Timestamp::from_nanos),
            duration_ms: c.duration_ms,
            volume: c.volume.map(to_volume),
            user: some_text(c.user),
            container: some_text(c.container),
            how: clean(c.how, TEXT_BYTES_MAX),
            resolved,
        })
    }
}
