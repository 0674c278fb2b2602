//! Records of the kernel's part, as `owners.bpf.c` lays them out.
//!
//! Format: host order but for addresses; two words, kind and the count of lost records, lead
//! every one. Pure; never panics; what is shorter than its kind wants is nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agentmon_core::event::{Endpoint, Volume, unmap};

/// What the kernel told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A connection is there: established, accepted, waited for, or the first datagram to a peer.
    Began(Flow),
    /// It is over, or (UDP) the socket with all its peers is.
    Ended(Flow),
    /// A process became another program.
    Exec(Box<Exec>),
    /// A child began.
    Fork(Step),
    /// A process ended.
    Exit(Step),
}

/// Who began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// This host.
    Out,
    /// The other one.
    In,
    /// Nobody yet: it waits.
    Listens,
}

/// A connection with its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Nanoseconds since boot, sleep included.
    pub at_ns: u64,
    /// Names the socket as long as it is open.
    pub socket: u64,
    /// The name that `sock_diag` has for it; UDP only, else 0.
    pub cookie: u64,
    /// Its process, 0 where that is not known.
    pub pid: u32,
    /// When that began, in nanoseconds since boot.
    pub start_ns: u64,
    /// What it calls itself, up to the first NUL.
    pub name: [u8; 16],
    /// Inode of the network namespace.
    pub netns: u32,
    /// Account of the socket.
    pub uid: u32,
    /// IP protocol.
    pub proto: u8,
    /// Who began; of UDP that is not known.
    pub way: Way,
    /// Its end. Of UDP the address may be unspecified and the port 0 at first.
    pub local: Endpoint,
    /// The other one.
    pub remote: Endpoint,
    /// Payload and segments; at the end of TCP only.
    pub volume: Volume,
}

/// A program as it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Nanoseconds since boot, sleep included.
    pub at_ns: u64,
    /// The process.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// When the process (not this program) began.
    pub start_ns: u64,
    /// The file.
    pub inode: u64,
    /// Bytes of it.
    pub size: u64,
    /// Its disk, as `stat` has it.
    pub dev: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Account.
    pub uid: u32,
    /// What it calls itself.
    pub name: Vec<u8>,
    /// The file's name as it was given: perhaps relative, perhaps of another root.
    pub path: Vec<u8>,
    /// Arguments; without those that did not fit whole.
    pub argv: Vec<Vec<u8>>,
    /// Whether some did not.
    pub cut: bool,
}

/// A step of a process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The process.
    pub pid: u32,
    /// Its parent, of a new one.
    pub parent: u32,
    /// When it began, in nanoseconds since boot.
    pub start_ns: u64,
}

/// Bytes of `struct exec`'s parts.
const PATH_BYTES: usize = 256;
const ARGV_BYTES: usize = 512;

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }
    fn word(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_ne_bytes)
    }
    fn half(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_ne_bytes)
    }
    fn long(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_ne_bytes)
    }
    fn ip(&self, family: u16, at: usize) -> Option<IpAddr> {
        match family {
            2 => self.bytes(at).map(|v4: [u8; 4]| Ipv4Addr::from(v4).into()),
            10 => self.bytes(at).map(|v6: [u8; 16]| unmap(Ipv6Addr::from(v6).into())),
            _ => None,
        }
    }
    /// Up to the first NUL.
    fn text(&self, at: usize, most: usize) -> Option<Vec<u8>> {
        let field = self.0.get(at..at.checked_add(most)?)?;
        Some(field.split(|b| *b == 0).next().unwrap_or_default().to_vec())
    }
}

/// Reads one record, and how many the kernel had no room for so far.
#[must_use]
pub(super) fn decode(record: &[u8]) -> Option<(Told, u32)> {
    let r = Reader(record);
    let told = match r.word(0)? {
        1 => Told::Began(flow(&r)?),
        2 => Told::Ended(flow(&r)?),
        3 => Told::Exec(Box::new(exec(&r)?)),
        4 => Told::Fork(step(&r)?),
        5 => Told::Exit(step(&r)?),
        _ => return None,
    };
    Some((told, r.word(4)?))
}

fn step(r: &Reader<'_>) -> Option<Step> {
    Some(Step { pid: r.word(8)?, parent: r.word(12)?, start_ns: r.long(24)? })
}

fn flow(r: &Reader<'_>) -> Option<Flow> {
    let family = r.half(72)?;
    let [proto, way] = r.bytes(74)?;
    Some(Flow {
        at_ns: r.long(8)?,
        socket: r.long(16)?,
        cookie: r.long(24)?,
        start_ns: r.long(32)?,
        pid: r.word(40)?,
        name: r.bytes(48)?,
        netns: r.word(64)?,
        uid: r.word(68)?,
        proto,
        way: match way {
            1 => Way::In,
            2 => Way::Listens,
            _ => Way::Out,
        },
        local: Endpoint::new(r.ip(family, 80)?, r.half(76)?),
        remote: Endpoint::new(r.ip(family, 96)?, r.half(78)?),
        volume: Volume {
            bytes_out: r.long(112)?,
            bytes_in: r.long(120)?,
            packets_out: r.word(128)?.into(),
            packets_in: r.word(132)?.into(),
        },
    })
}

fn exec(r: &Reader<'_>) -> Option<Exec> {
    let (dev, all) = (r.word(48)?, r.word(60)?);
    let (path, argv) = (80, 80 + PATH_BYTES);
    let held = (all as usize).min(ARGV_BYTES - 1);
    let cut = all as usize > held;
    let bytes = r.0.get(argv..argv + ARGV_BYTES)?.get(..held)?;
    // Half an argument could be half a secret that nobody knows for one.
    let bytes = match bytes.iter().rposition(|b| *b == 0) {
        Some(end) => bytes.get(..end)?,
        None if cut => &[],
        None => bytes,
    };
    let argv = if bytes.is_empty() {
        Vec::new()
    } else {
        bytes.split(|b| *b == 0).map(<[u8]>::to_vec).collect()
    };
    Some(Exec {
        at_ns: r.long(16)?,
        pid: r.word(8)?,
        parent: r.word(12)?,
        start_ns: r.long(24)?,
        inode: r.long(32)?,
        size: r.long(40)?,
        dev: device(dev),
        netns: r.word(52)?,
        uid: r.word(56)?,
        name: r.text(64, 16)?,
        path: r.text(path, PATH_BYTES)?,
        argv,
        cut,
    })
}

/// A disk as `stat` tells it (makedev(3)); the kernel has 12 and 20 bits for its parts.
fn device(kernels: u32) -> u64 {
    let (major, minor) = (u64::from(kernels >> 20), u64::from(kernels & 0xf_ffff));
    major << 8 | (minor & !0xff) << 12 | minor & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    #[test]
    fn a_connection() {
        let mut bytes = vec![0u8; 136];
        for (at, value) in [(0, 2u32), (4, 3), (40, 7), (64, 9), (68, 1_000), (128, 5), (132, 6)] {
            put(&mut bytes, at, &value.to_ne_bytes());
        }
        for (at, value) in [(8, 50u64), (16, 0xffff_8880), (32, 10), (112, 100), (120, 200)] {
            put(&mut bytes, at, &value.to_ne_bytes());
        }
        put(&mut bytes, 48, b"curl\0junk");
        put(&mut bytes, 72, &2u16.to_ne_bytes());
        put(&mut bytes, 74, &[6, 1]);
        put(&mut bytes, 76, &40_000u16.to_ne_bytes());
        put(&mut bytes, 78, &443u16.to_ne_bytes());
        put(&mut bytes, 80, &[192, 0, 2, 1]);
        put(&mut bytes, 96, &[203, 0, 113, 5]);
        let (told, lost) = decode(&bytes).unwrap();
        let Told::Ended(flow) = told else { panic!("{told:?}") };
        assert_eq!((lost, flow.pid, flow.start_ns, flow.way), (3, 7, 10, Way::In));
        assert_eq!(format!("{} {}", flow.local, flow.remote), "192.0.2.1:40000 203.0.113.5:443");
        assert_eq!((flow.volume.bytes_out, flow.volume.packets_in), (100, 6));
        assert_eq!(decode(&bytes[..135]), None);
    }

    fn program(argv: &[u8], all: u32) -> Exec {
        let mut bytes = vec![0u8; 848];
        put(&mut bytes, 0, &3u32.to_ne_bytes());
        put(&mut bytes, 8, &7u32.to_ne_bytes());
        put(&mut bytes, 48, &(8u32 << 20 | 1).to_ne_bytes());
        put(&mut bytes, 60, &all.to_ne_bytes());
        put(&mut bytes, 64, b"curl\0\0");
        put(&mut bytes, 80, b"/usr/bin/curl\0");
        put(&mut bytes, 336, argv);
        let (Told::Exec(exec), _) = decode(&bytes).unwrap() else { panic!("no program") };
        assert_eq!((exec.pid, exec.dev, exec.path.as_slice()), (7, 0x801, &b"/usr/bin/curl"[..]));
        *exec
    }

    #[test]
    fn a_program_with_whole_arguments_only() {
        let exec = program(b"curl\0-s\0\0x\0", 11);
        assert_eq!(exec.argv, [&b"curl"[..], b"-s", b"", b"x"]);
        assert!(!exec.cut);
        // One that does not end within what was read is left out.
        let mut long = b"curl\0--token=".to_vec();
        long.resize(ARGV_BYTES, b'x');
        let exec = program(&long, 1_000_000);
        assert_eq!((exec.argv.len(), exec.cut), (1, true));
        assert_eq!(program(&vec![b'x'; ARGV_BYTES], 1_000_000).argv, Vec::<Vec<u8>>::new());
        assert_eq!(program(b"", 0).argv, Vec::<Vec<u8>>::new());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(kind in 0u32..7, rest in proptest::collection::vec(proptest::num::u8::ANY, 0..900)) {
            let bytes = [&kind.to_ne_bytes()[..], &rest].concat();
            let told = decode(&bytes);
            proptest::prop_assert!(told.is_none() || bytes.len() >= 32);
        }
    }
}
