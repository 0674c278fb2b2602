//! The destinations of one subject, to be found quickly.
//!
//! In: patterns with what they mean. Out: those that a destination touches: one look-up for
//! each label of each name, one for each length of network that is used, and a short list of
//! what has neither.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use xxhash_rust::xxh3::xxh3_64;

use super::pattern::{Pattern, Place};
use crate::event::is_public;
use crate::name::Name;

/// What a pattern that fits means; ordered as they win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Effect {
    Allow,
    Deny,
    Except,
}

/// One pattern of one grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) effect: Effect,
    /// Number of the grant, or of the exception.
    pub(super) owner: u32,
    /// Number of the pattern as written, among all.
    pub(super) rule: u32,
    ports: (u16, u16),
    proto: Option<u8>,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    At,
    Below,
    Both,
    Any,
    Lan,
    Loopback,
}

/// How a destination was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Name,
    Address,
}

/// Keys are already hashes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AsIs(u64);

impl std::hash::Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

type Hashed<V> = HashMap<u64, V, std::hash::BuildHasherDefault<AsIs>>;

/// All patterns of one subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// By the 64-bit hash of the name: a policy's own names, of which no two of a million
    /// share one but once in 40 million policies.
    names: Hashed<Vec<Entry>>,
    /// For each length of network that is used, longest first.
    nets: Vec<(u8, HashMap<IpNet, Vec<Entry>>)>,
    rest: Vec<Entry>,
}

impl Index {
    /// Classes are opened by the caller.
    pub(super) fn add(&mut self, pattern: &Pattern, effect: Effect, owner: u32, rule: u32) {
        let ports = pattern.ports.unwrap_or((0, u16::MAX));
        let entry = |shape| Entry { effect, owner, rule, ports, proto: pattern.proto, shape };
        let name = |name: &Name| xxh3_64(name.as_str().as_bytes());
        match &pattern.place {
            Place::Any => self.rest.push(entry(Shape::Any)),
            Place::Lan => self.rest.push(entry(Shape::Lan)),
            Place::Loopback => self.rest.push(entry(Shape::Loopback)),
            // What is denied is denied with all below it.
            Place::Exact(n) if effect == Effect::Deny => {
                self.names.entry(name(n)).or_default().push(entry(Shape::Both));
            }
            Place::Exact(n) => self.names.entry(name(n)).or_default().push(entry(Shape::At)),
            Place::Below(n) => self.names.entry(name(n)).or_default().push(entry(Shape::Below)),
            Place::AtOrBelow(n) => self.names.entry(name(n)).or_default().push(entry(Shape::Both)),
            Place::Net(net) => self.net(*net).push(entry(Shape::Any)),
            Place::Class(_) => {}
        }
    }

    fn net(&mut self, net: IpNet) -> &mut Vec<Entry> {
        let length = net.prefix_len();
        let at = self.nets.partition_point(|(l, _)| *l > length);
        if self.nets.get(at).is_none_or(|(l, _)| *l != length) {
            self.nets.insert(at, (length, HashMap::new()));
        }
        let (_, nets) = &mut self.nets[at];
        nets.entry(net).or_default()
    }

    /// Hands over every entry that fits, and by what.
    pub(super) fn find(
        &self,
        names: &[Name],
        ip: IpAddr,
        port: u16,
        proto: u8,
        mut each: impl FnMut(&Entry, By),
    ) {
        let fits = |e: &Entry| {
            (e.ports.0..=e.ports.1).contains(&port) && e.proto.is_none_or(|p| p == proto)
        };
        if !self.names.is_empty() {
            for name in names {
                for (depth, suffix) in name.suffixes().enumerate() {
                    let Some(list) = self.names.get(&xxh3_64(suffix.as_bytes())) else { continue };
                    let unfit = if depth == 0 { Shape::Below } else { Shape::At };
                    let hits = list.iter().filter(|e| e.shape != unfit && fits(e));
                    hits.for_each(|e| each(e, By::Name));
                }
            }
        }
        for (length, nets) in &self.nets {
            let list = IpNet::new(ip, *length).ok().and_then(|net| nets.get(&net.trunc()));
            list.into_iter().flatten().filter(|e| fits(e)).for_each(|e| each(e, By::Address));
        }
        let of_shape = |e: &&Entry| match e.shape {
            Shape::Lan => !is_public(ip),
            Shape::Loopback => ip.is_loopback(),
            _ => true,
        };
        self.rest.iter().filter(|e| fits(e)).filter(of_shape).for_each(|e| each(e, By::Address));
    }
}
