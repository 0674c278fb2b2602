//! Packets of SFTP version 3: the questions we ask, and what an answer says.
//!
//! In: the bytes of one packet behind its length, from a machine that may be anybody's. Out:
//! [`Answer`]; any bytes give a result. Pure.
//!
//! Source: draft-ietf-secsh-filexfer-02, the version that OpenSSH speaks. All numbers are
//! big-endian; a string is its length in 32 bits and its bytes.
//!
//! Invariants: at most [`PACKET_BYTES_MAX`] of a packet are gathered, [`NAMES_MAX`] names are
//! kept of an answer; what we cannot use of an attribute is passed over.

/// Longest packet taken: OpenSSH's own limit.
pub(super) const PACKET_BYTES_MAX: usize = 256 * 1024;
/// Bytes asked for at once; every server must allow that many.
pub(crate) const READ_BYTES: u32 = 32_768;
/// Most names kept of one answer; OpenSSH sends 100.
const NAMES_MAX: usize = 1_024;
/// Longest handle; the draft allows 256.
const HANDLE_BYTES_MAX: usize = 256;

/// `SSH_FX_EOF`, `SSH_FX_NO_SUCH_FILE`, `SSH_FX_PERMISSION_DENIED`.
pub(super) const EOF: u32 = 1;
pub(super) const NO_SUCH_FILE: u32 = 2;
pub(super) const PERMISSION_DENIED: u32 = 3;

/// The version we speak.
pub(super) const VERSION: u32 = 3;

const INIT: u8 = 1;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const FSTAT: u8 = 8;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const STAT: u8 = 17;
const GREETING: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
/// `pflags` of a file opened for reading.
const FOR_READING: u32 = 1;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask<'a> {
    Open(&'a [u8]),
    Close(&'a [u8]),
    Read { handle: &'a [u8], offset: u64, length: u32 },
    StatOpen(&'a [u8]),
    Stat(&'a [u8]),
    OpenFolder(&'a [u8]),
    ReadFolder(&'a [u8]),
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Status(u32),
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<(Vec<u8>, About)>),
    About(About),
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// Bytes.
    pub(crate) size: u64,
    /// Last change, seconds since 1970.
    pub(crate) changed: u32,
    /// Type and rights as in `st_mode`, where the server says them.
    pub(crate) mode: Option<u32>,
}

impl About {
    /// Whether it is a file: a pipe would block the server, a device never ends.
    pub(crate) fn is_file(&self) -> bool {
        self.mode.is_none_or(|mode| mode & 0o170_000 == 0o100_000)
    }
}

/// The first packet of a conversation.
pub(super) fn greeting() -> Vec<u8> {
    framed(&[&[INIT][..], &VERSION.to_be_bytes()].concat())
}

/// Whether the packet is the server's answer to [`greeting`], of a version we speak.
pub(super) fn is_greeting(packet: &[u8]) -> bool {
    let mut rest = packet;
    byte(&mut rest) == Some(GREETING) && number(&mut rest).is_some_and(|v| v >= VERSION)
}

/// A question, ready to be sent.
pub(super) fn question(id: u32, ask: Ask<'_>) -> Vec<u8> {
    let (kind, subject) = match ask {
        Ask::Open(path) => (OPEN, path),
        Ask::Close(handle) => (CLOSE, handle),
        Ask::Read { handle, .. } => (READ, handle),
        Ask::StatOpen(handle) => (FSTAT, handle),
        Ask::Stat(path) => (STAT, path),
        Ask::OpenFolder(path) => (OPENDIR, path),
        Ask::ReadFolder(handle) => (READDIR, handle),
    };
    let mut body = vec![kind];
    body.extend(id.to_be_bytes());
    body.extend(u32::try_from(subject.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend(subject);
    match ask {
        Ask::Open(_) => body.extend([FOR_READING.to_be_bytes(), 0u32.to_be_bytes()].concat()),
        Ask::Read { offset, length, .. } => {
            body.extend(offset.to_be_bytes());
            body.extend(length.to_be_bytes());
        }
        _ => {}
    }
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], body].concat()
}

/// Bytes that were read from any packet, whatever it is: for fuzzing.
pub(super) fn taken(packet: &[u8]) -> usize {
    let greets = usize::from(is_greeting(packet));
    greets
        + match answer(packet) {
            Some((_, Answer::Handle(bytes) | Answer::Data(bytes))) => bytes.len(),
            Some((_, Answer::Names(names))) => names.iter().map(|(name, _)| name.len()).sum(),
            Some((_, Answer::Status(_) | Answer::About(_))) | None => 0,
        }
}

/// The number of the question, and the answer.
pub(super) fn answer(packet: &[u8]) -> Option<(u32, Answer)> {
    let mut rest = packet;
    let kind = byte(&mut rest)?;
    let id = number(&mut rest)?;
    let answer = match kind {
        STATUS => Answer::Status(number(&mut rest)?),
        HANDLE => {
            let handle = string(&mut rest)?;
            (handle.len() <= HANDLE_BYTES_MAX).then(|| Answer::Handle(handle.to_vec()))?
        }
        DATA => Answer::Data(string(&mut rest)?.to_vec()),
        NAME => Answer::Names(names(&mut rest)?),
        ATTRS => Answer::About(about(&mut rest)?),
        _ => return None,
    };
    Some((id, answer))
}

fn names(rest: &mut &[u8]) -> Option<Vec<(Vec<u8>, About)>> {
    let count = number(rest)?;
    let mut names = Vec::new();
    for _ in 0..count {
        let name = string(rest)?.to_vec();
        // For a person's eyes.
        string(rest)?;
        let about = about(rest)?;
        if names.len() < NAMES_MAX {
            names.push((name, about));
        }
    }
    Some(names)
}

fn about(rest: &mut &[u8]) -> Option<About> {
    let flags = number(rest)?;
    let mut about = About::default();
    if flags & 1 != 0 {
        about.size = u64::from_be_bytes(take(rest, 8)?.try_into().ok()?);
    }
    if flags & 2 != 0 {
        take(rest, 8)?;
    }
    if flags & 4 != 0 {
        about.mode = Some(number(rest)?);
    }
    if flags & 8 != 0 {
        number(rest)?;
        about.changed = number(rest)?;
    }
    if flags & 0x8000_0000 != 0 {
        for _ in 0..number(rest)? {
            string(rest)?;
            string(rest)?;
        }
    }
    Some(about)
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    take(rest, 1)?.first().copied()
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    take(rest, length)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

/// What an answer of each kind looks like: for the fuzz target to begin with.
#[cfg(test)]
pub(crate) fn examples() -> [(&'static str, Vec<u8>); 6] {
    let attrs = b"\x80\0\0\x0f\0\0\0\0\0\0\x01\x02\0\0\0\x01\0\0\0\x01\0\0\x81\xa4\
                  \0\0\0\x08\0\0\0\x09\0\0\0\x01\0\0\0\x01e\0\0\0\0";
    let name = b"\x68\0\0\0\x07\0\0\0\x01\0\0\0\x01n\0\0\0\x02ln";
    [
        ("greeting", b"\x02\0\0\0\x03\0\0\0\x01x\0\0\0\x01y".to_vec()),
        ("status", b"\x65\0\0\0\x07\0\0\0\x02\0\0\0\x01x\0\0\0\0".to_vec()),
        ("handle", b"\x66\0\0\0\x07\0\0\0\x02hh".to_vec()),
        ("data", b"\x67\0\0\0\x07\0\0\0\x03abc".to_vec()),
        ("attributes", [b"\x69\0\0\0\x07", &attrs[..]].concat()),
        ("names", [&name[..], &attrs[..]].concat()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn asks(ask: Ask<'_>, expected: &[u8]) {
        assert_eq!(question(7, ask), expected);
    }

    #[test]
    fn questions() {
        assert_eq!(greeting(), b"\0\0\0\x05\x01\0\0\0\x03");
        asks(Ask::Open(b"/a"), b"\0\0\0\x13\x03\0\0\0\x07\0\0\0\x02/a\0\0\0\x01\0\0\0\0");
        asks(Ask::Close(b"h"), b"\0\0\0\x0a\x04\0\0\0\x07\0\0\0\x01h");
        let read = Ask::Read { handle: b"h", offset: 0x1_0000_0002, length: 9 };
        asks(read, b"\0\0\0\x16\x05\0\0\0\x07\0\0\0\x01h\0\0\0\x01\0\0\0\x02\0\0\0\x09");
        asks(Ask::Stat(b"/a b;c"), b"\0\0\0\x0f\x11\0\0\0\x07\0\0\0\x06/a b;c");
    }

    #[track_caller]
    fn says(packet: &[u8], expected: Option<Answer>) {
        assert_eq!(answer(packet), expected.map(|answer| (7, answer)));
        // Each packet cut short says nothing.
        for end in 0..packet.len() {
            let cut = answer(&packet[..end]);
            assert!(cut.is_none() || matches!(cut, Some((_, Answer::Status(_)))), "{end}");
        }
    }

    #[test]
    fn answers() {
        let [greeting, status, handle, data, attributes, names] =
            examples().map(|(_, bytes)| bytes);
        assert!(is_greeting(&greeting));
        assert!(!is_greeting(b"\x02\0\0\0\x02") && !is_greeting(b"hello") && !is_greeting(b""));
        says(&status, Some(Answer::Status(2)));
        says(&handle, Some(Answer::Handle(b"hh".to_vec())));
        says(&data, Some(Answer::Data(b"abc".to_vec())));
        let about = About { size: 258, changed: 9, mode: Some(0o100_644) };
        says(&attributes, Some(Answer::About(about)));
        says(&names, Some(Answer::Names(vec![(b"n".to_vec(), about)])));
        says(b"\x70\0\0\0\x07", None);
        assert!(about.is_file() && !About { mode: Some(0o010_644), ..about }.is_file());
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let one = b"\0\0\0\x01n\0\0\0\0\0\0\0\0";
        let mut packet = b"\x68\0\0\0\x07\0\0\x10\0".to_vec();
        (0..4_096).for_each(|_| packet.extend(one));
        let Some((_, Answer::Names(names))) = answer(&packet) else { panic!("no names") };
        assert_eq!(names.len(), NAMES_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes(packet in proptest::collection::vec(any::<u8>(), 0..600), kind in 100u8..107) {
            let _ = is_greeting(&packet);
            let _ = answer(&packet);
            let _ = answer(&[&[kind], &packet[..]].concat());
        }
    }
}
