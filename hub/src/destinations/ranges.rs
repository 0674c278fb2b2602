//! Networks that overlap, laid out so that one binary search finds the one that counts.
//!
//! In: networks with the number of their section. Out: for an address that number. Pure.
//! Each address family is cut into stretches of one answer each; a stretch is its first
//! address and the answer, `NONE` where no network is. 17 steps for 80,000 networks.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use super::read::Section;

/// No network is there.
const NONE: u16 = u16::MAX;

/// One network: first and last address, and its section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
    pub(super) section: u16,
}

/// The stretches of both families.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    v4: Vec<(u32, u16)>,
    v6: Vec<(u128, u16)>,
}

/// What counts where networks overlap: the greatest.
type Rank = (bool, super::Class, bool, Reverse<u128>, u16);

impl Ranges {
    pub(super) fn new(networks: Vec<Network>, sections: &[Section]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            let Some(section) = sections.get(usize::from(network.section)) else { continue };
            let rank = |size: u128| -> Rank {
                (
                    section.own,
                    section.class,
                    !section.provider.is_empty(),
                    Reverse(size),
                    network.section,
                )
            };
            match (network.first, network.last) {
                (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                    let (first, last) = (u128::from(u32::from(first)), u128::from(u32::from(last)));
                    v4.push((first, last, rank(last - first)));
                }
                (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
                    let (first, last) = (u128::from(first), u128::from(last));
                    v6.push((first, last, rank(last - first)));
                }
                _ => {}
            }
        }
        let narrow = |(at, section): (u128, u16)| u32::try_from(at).ok().map(|at| (at, section));
        let mut this =
            Self { v4: flatten(v4).into_iter().filter_map(narrow).collect(), v6: flatten(v6) };
        this.v4.shrink_to_fit();
        this.v6.shrink_to_fit();
        this
    }

    /// The section of an address.
    pub(super) fn find(&self, address: IpAddr) -> Option<u16> {
        let section = match address {
            IpAddr::V4(v4) => before(&self.v4, u32::from(v4)),
            IpAddr::V6(v6) => before(&self.v6, u128::from(v6)),
        };
        section.filter(|section| *section != NONE)
    }
}

fn before<T: Ord + Copy>(stretches: &[(T, u16)], address: T) -> Option<u16> {
    let after = stretches.partition_point(|(first, _)| *first <= address);
    stretches.get(after.checked_sub(1)?).map(|(_, section)| *section)
}

/// Sweeps over all beginnings and ends; what is open at a place and ranks highest counts.
fn flatten(networks: Vec<(u128, u128, Rank)>) -> Vec<(u128, u16)> {
    let mut edges: Vec<(u128, bool, Rank)> = Vec::with_capacity(2 * networks.len());
    for (first, last, rank) in networks {
        edges.push((first, true, rank));
        // Nothing begins after the last address there is.
        if let Some(after) = last.checked_add(1) {
            edges.push((after, false, rank));
        }
    }
    edges.sort_unstable();
    let mut open: BTreeSet<(Rank, u32)> = BTreeSet::new();
    let mut count = std::collections::HashMap::<Rank, u32>::new();
    let mut stretches: Vec<(u128, u16)> = Vec::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((at, begins, rank)) = edges.next() {
        // The same network may stand twice in a section: it is open until both have ended.
        let times = count.entry(rank).or_default();
        if begins {
            *times += 1;
            open.insert((rank, 0));
        } else {
            *times -= 1;
            if *times == 0 {
                open.remove(&(rank, 0));
            }
        }
        if edges.peek().is_some_and(|(next, _, _)| *next == at) {
            continue;
        }
        let section = open.last().map_or(NONE, |((.., section), _)| *section);
        if stretches.last().map_or(NONE, |(_, last)| *last) != section {
            stretches.push((at, section));
        }
    }
    stretches
}

/// The address that a packet goes to, of one that carries another within: IPv4 mapped
/// (RFC 4291), through NAT64 (RFC 6052) or 6to4 (RFC 3056).
pub(super) fn outer(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let bits = u128::from(v6);
    let last =
        || IpAddr::V4(std::net::Ipv4Addr::from(u32::try_from(bits & 0xffff_ffff).unwrap_or(0)));
    let nat64 = u128::from(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0));
    if v6.to_ipv4_mapped().is_some() || bits & !0xffff_ffff == nat64 {
        last()
    } else if bits >> 112 == 0x2002 {
        let inner = u32::try_from(bits >> 80 & 0xffff_ffff).unwrap_or(0);
        IpAddr::V4(inner.into())
    } else {
        address
    }
}
