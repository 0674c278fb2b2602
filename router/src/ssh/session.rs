//! A conversation with the `sftp` of another machine.
//!
//! In: questions. Out: answers, one after the other. The process is a child with pipes on its
//! standard input, output and errors; what it says of errors is kept, at most
//! [`SAID_BYTES_MAX`], and told when it ends.
//!
//! Invariants: one question is open at a time, so that no pipe can fill up; a packet of more
//! than [`PACKET_BYTES_MAX`] ends the conversation; after an error nothing more is asked.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use agentmon_core::name::printable;

use super::packet::{self, About, Answer, Ask, EOF, NO_SUCH_FILE, PACKET_BYTES_MAX, READ_BYTES};
use super::{ANSWER_SECONDS, Patience, SshError, Target};
use crate::sys::{self, Ready};

/// Most of what `ssh` says that is kept.
const SAID_BYTES_MAX: usize = 2_048;
/// Most of it that is told: its last line.
const TOLD_BYTES_MAX: usize = 200;
/// Most folder entries taken: a log's folder holds some dozens.
const ENTRIES_MAX: usize = 4_096;
/// Between two looks at the wish to stop.
const LOOK: Duration = Duration::from_millis(100);
/// How long a process that is at its end may take to say why.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Where `ssh` is looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// See the module's text.
pub(crate) struct Session {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    errors: Option<ChildStderr>,
    said: Vec<u8>,
    patience: Patience,
    id: u32,
}

/// A file that is open there.
#[derive(Debug)]
pub(crate) struct Handle(Vec<u8>);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("pid", &self.child.id()).finish_non_exhaustive()
    }
}

impl Session {
    /// Connects.
    pub(crate) fn open(target: &Target, patience: Patience) -> Result<Self, SshError> {
        is_open_ssh(&command("ssh").arg("-V").stdin(Stdio::null()).output().map_err(missing)?)?;
        let mut ssh = command("ssh");
        ssh.args(target.arguments());
        Self::start(ssh, patience)
    }

    /// With the program that speaks SFTP on its standard input and output.
    pub(super) fn start(mut command: Command, patience: Patience) -> Result<Self, SshError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(missing)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), errors) = pipes else {
            return Err(io::Error::other("no pipes").into());
        };
        let said = Vec::new();
        let mut session = Self { child, input, output, errors, said, patience, id: 0 };
        session.send(&packet::greeting())?;
        if !packet::is_greeting(&session.receive()?) {
            return Err(SshError::NoSftp("no greeting of version 3"));
        }
        Ok(session)
    }

    /// Opens a regular file for reading; `None` when there is none of that name.
    pub(crate) fn file(&mut self, path: &str) -> Result<Option<Handle>, SshError> {
        // Opening a pipe would block the server.
        let Some(about) = self.about(path)? else { return Ok(None) };
        if !about.is_file() {
            return Err(SshError::NoFile(shown(path)));
        }
        match self.ask(Ask::Open(path.as_bytes()))? {
            Answer::Handle(handle) => Ok(Some(Handle(handle))),
            Answer::Status(NO_SUCH_FILE) => Ok(None),
            other => Err(refused("opening", path, &other)),
        }
    }

    /// What is known of a file; `None` when there is none of that name.
    pub(crate) fn about(&mut self, path: &str) -> Result<Option<About>, SshError> {
        match self.ask(Ask::Stat(path.as_bytes()))? {
            Answer::About(about) => Ok(Some(about)),
            Answer::Status(NO_SUCH_FILE) => Ok(None),
            other => Err(refused("looking at", path, &other)),
        }
    }

    /// What is known of an open file.
    pub(crate) fn about_open(&mut self, file: &Handle) -> Result<About, SshError> {
        match self.ask(Ask::StatOpen(&file.0))? {
            Answer::About(about) => Ok(about),
            other => Err(refused("looking at", "the open file", &other)),
        }
    }

    /// At most [`READ_BYTES`] from `offset` on; none at the file's end.
    pub(crate) fn read(
        &mut self,
        file: &Handle,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, SshError> {
        let length = length.min(READ_BYTES);
        match self.ask(Ask::Read { handle: &file.0, offset, length })? {
            Answer::Data(data) if data.len() <= length as usize => Ok(data),
            Answer::Data(_) => Err(SshError::NoSftp("more bytes than were asked for")),
            Answer::Status(EOF) => Ok(Vec::new()),
            other => Err(refused("reading", "the open file", &other)),
        }
    }

    /// The names in a folder, at most [`ENTRIES_MAX`].
    pub(crate) fn list(&mut self, folder: &str) -> Result<Vec<(Vec<u8>, About)>, SshError> {
        let handle = match self.ask(Ask::OpenFolder(folder.as_bytes()))? {
            Answer::Handle(handle) => handle,
            other => return Err(refused("listing", folder, &other)),
        };
        let mut all = Vec::new();
        while all.len() < ENTRIES_MAX {
            match self.ask(Ask::ReadFolder(&handle))? {
                // A server that gives nothing and no end would keep us here.
                Answer::Names(names) if names.is_empty() => break,
                Answer::Names(names) => all.extend(names),
                Answer::Status(EOF) => break,
                other => return Err(refused("listing", folder, &other)),
            }
        }
        all.truncate(ENTRIES_MAX);
        self.close(Handle(handle))?;
        Ok(all)
    }

    /// Closes a file.
    pub(crate) fn close(&mut self, file: Handle) -> Result<(), SshError> {
        match self.ask(Ask::Close(&file.0))? {
            Answer::Status(_) => Ok(()),
            _ => Err(SshError::NoSftp("no status")),
        }
    }

    fn ask(&mut self, ask: Ask<'_>) -> Result<Answer, SshError> {
        self.id = self.id.wrapping_add(1);
        self.send(&packet::question(self.id, ask))?;
        let received = self.receive()?;
        match packet::answer(&received) {
            Some((id, answer)) if id == self.id => Ok(answer),
            Some(_) => Err(SshError::NoSftp("an answer to another question")),
            None => Err(SshError::NoSftp("an unknown packet")),
        }
    }

    fn send(&mut self, packet: &[u8]) -> Result<(), SshError> {
        // It is empty, and holds more than a question: this does not wait.
        match self.input.write_all(packet) {
            // It has ended; what it said before that is read next.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    fn receive(&mut self) -> Result<Vec<u8>, SshError> {
        let begun = self.patience.clock.mono();
        let mut length = [0u8; 4];
        self.fill(&mut length, begun)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > PACKET_BYTES_MAX {
            return Err(SshError::NoSftp("a packet of no sensible length"));
        }
        let mut packet = vec![0; length];
        self.fill(&mut packet, begun)?;
        Ok(packet)
    }

    fn fill(&mut self, space: &mut [u8], begun: agentmon_core::time::Mono) -> Result<(), SshError> {
        let mut done = 0;
        while let Some(rest) = space.get_mut(done..).filter(|rest| !rest.is_empty()) {
            if !self.wait()? {
                if self.patience.stop.is_set() {
                    return Err(SshError::Stopped);
                }
                let waited = self.patience.clock.mono().since(begun);
                if waited >= Duration::from_secs(ANSWER_SECONDS) {
                    return Err(SshError::Silent);
                }
                continue;
            }
            match self.output.read(rest) {
                Ok(0) => return Err(self.ended()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Whether there is something to read; takes what is said of errors meanwhile.
    fn wait(&mut self) -> io::Result<bool> {
        let read = Ready { read: true, write: false };
        let output = (self.output.as_fd(), read);
        let Some(errors) = &self.errors else {
            let [output] = sys::wait_any([output], LOOK)?;
            return Ok(output.read);
        };
        let [output, errors] = sys::wait_any([output, (errors.as_fd(), read)], LOOK)?;
        if errors.read {
            self.take_said();
        }
        Ok(output.read)
    }

    /// Reads once what there is; false at its end.
    fn take_said(&mut self) -> bool {
        let mut space = [0u8; SAID_BYTES_MAX];
        let read = self.errors.as_mut().map_or(Ok(0), |errors| errors.read(&mut space));
        let n = read.unwrap_or_default();
        let room = SAID_BYTES_MAX.saturating_sub(self.said.len());
        self.said.extend(space.get(..n.min(room)).unwrap_or_default());
        if n == 0 {
            self.errors = None;
        }
        n > 0
    }

    /// The process has closed its output: what it said.
    fn ended(&mut self) -> SshError {
        while let Some(errors) = &self.errors {
            if !sys::wait_readable(errors.as_fd(), LAST_WORDS).unwrap_or(false) || !self.take_said()
            {
                break;
            }
        }
        SshError::Ended(explained(&self.said))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Killed at once: nothing of ours waits there, and a hung one would keep us here.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            tracing::debug!(%error, "ending ssh");
        }
    }
}

/// The last line of what `ssh` says, or plainer words, and what to do about it.
fn explained(said: &[u8]) -> String {
    let remedies: [(&[u8], &str); 5] = [
        (
            b"IDENTIFICATION HAS CHANGED",
            "it has another key than `known_hosts` says: somebody may stand between; where it was \
             set up anew, write its new key there",
        ),
        (b"verification failed", "write its key into `known_hosts` (ssh-keyscan, then compare)"),
        (b"UNPROTECTED PRIVATE KEY", "chmod 600 the key's file"),
        (b"Permission denied", "put the public key into the user's authorized_keys there"),
        (b"subsystem request failed", "switch the subsystem sftp on in the sshd there"),
    ];
    let last = said.trim_ascii().rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let told = match printable(last.trim_ascii(), TOLD_BYTES_MAX) {
        nothing if nothing.is_empty() => "it said nothing".to_owned(),
        told => told,
    };
    let remedy = remedies.iter().find(|(words, _)| memchr::memmem::find(said, words).is_some());
    remedy.map_or(told.clone(), |(_, remedy)| format!("{told} {remedy}"))
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    // No agent, no askpass, no proxy of whoever started us.
    command.env_clear().env("PATH", PATH);
    command
}

fn missing(error: io::Error) -> SshError {
    if error.kind() == io::ErrorKind::NotFound { SshError::Missing } else { error.into() }
}

fn is_open_ssh(output: &std::process::Output) -> Result<(), SshError> {
    let both = [output.stderr.trim_ascii(), output.stdout.trim_ascii()].concat();
    if memchr::memmem::find(&both, b"OpenSSH").is_some() {
        return Ok(());
    }
    Err(SshError::NotOpenSsh(printable(&both, 60)))
}

fn refused(what: &'static str, path: &str, answer: &Answer) -> SshError {
    match answer {
        Answer::Status(status) => SshError::Refused { what, path: shown(path), status: *status },
        _ => SshError::NoSftp("an answer of the wrong kind"),
    }
}

fn shown(path: &str) -> String {
    printable(path.as_bytes(), 200)
}
