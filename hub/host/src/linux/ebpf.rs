//! Owners of TCP connections, told by a program in the kernel.
//!
//! In: records of `ebpf/owners.bpf.c` by its ring buffer. Out: [`Told`]: who began which
//! connection, when it is established, of every network namespace. Needs
//! root (`CAP_BPF`, `CAP_PERFMON`) and a kernel with BTF (5.8 and later). Decoding is pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agentmon_core::event::{Endpoint, unmap};
use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Ebpf, include_bytes_aligned};

/// `./dev ebpf` makes it of `owners.bpf.c`.
static OBJECT: &[u8] = include_bytes_aligned!("../ebpf/owners.bpf.o");

/// A connection with the process that began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The process.
    pub pid: u32,
    /// What it calls itself, up to the first NUL.
    pub name: [u8; 16],
    /// When that began, in nanoseconds since boot.
    pub start_ns: u64,
    /// Its end.
    pub local: Endpoint,
    /// The other one.
    pub remote: Endpoint,
}

/// Reads one record.
#[must_use]
pub fn decode(record: &[u8]) -> Option<Told> {
    let word = |at: usize| Some(u32::from_ne_bytes(record.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(record.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(record.get(at..at + 8)?.try_into().ok()?));
    let family = half(4)?;
    let ip = |at: usize| -> Option<IpAddr> {
        match family {
            2 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(record.get(at..at + 4)?).ok()?).into()),
            10 => {
                let v6 = <[u8; 16]>::try_from(record.get(at..at + 16)?).ok()?;
                Some(unmap(Ipv6Addr::from(v6).into()))
            }
            _ => None,
        }
    };
    Some(Told {
        pid: word(0)?,
        start_ns: long(8)?,
        name: record.get(56..72)?.try_into().ok()?,
        local: Endpoint::new(ip(24)?, half(16)?),
        remote: Endpoint::new(ip(40)?, half(18)?),
    })
}

/// The program in the kernel, for as long as this lives.
pub struct Owners {
    _program: Ebpf,
    records: RingBuf<MapData>,
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owners").finish_non_exhaustive()
    }
}

impl Owners {
    /// Loads and attaches.
    ///
    /// # Errors
    /// Without the right, or on a kernel without BTF or raw tracepoints.
    pub fn open() -> anyhow::Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("loading the kernel's part")?;
        let program = ebpf.program_mut("set_state").context("the object has no such program")?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load().context("the kernel refuses its part")?;
        program.attach("inet_sock_set_state").context("attaching to the kernel")?;
        let map = ebpf.take_map("records").context("the object has no such map")?;
        Ok(Self { records: RingBuf::try_from(map)?, _program: ebpf })
    }

    /// Everything since the last time.
    pub fn take(&mut self, found: &mut Vec<Told>) {
        while let Some(record) = self.records.next() {
            found.extend(decode(&record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record() {
        let mut bytes = vec![0u8; 72];
        bytes[0..4].copy_from_slice(&7u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&2u16.to_ne_bytes());
        bytes[8..16].copy_from_slice(&10u64.to_ne_bytes());
        bytes[16..18].copy_from_slice(&40_000u16.to_ne_bytes());
        bytes[18..20].copy_from_slice(&443u16.to_ne_bytes());
        bytes[24..28].copy_from_slice(&[192, 0, 2, 1]);
        bytes[40..44].copy_from_slice(&[203, 0, 113, 5]);
        let told = decode(&bytes).unwrap();
        assert_eq!((told.pid, told.start_ns), (7, 10));
        assert_eq!(format!("{} {}", told.local, told.remote), "192.0.2.1:40000 203.0.113.5:443");
        assert_eq!(decode(&bytes[..71]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            let told = decode(&bytes);
            proptest::prop_assert!(told.is_none() || bytes.len() >= 72);
        }
    }
}
