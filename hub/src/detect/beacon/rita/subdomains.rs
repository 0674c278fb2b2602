//! Domains below which very many names were asked for: perhaps a channel by DNS.
//!
//! In: questions and connections that count, addresses that were answered. Out: rows without
//! a source. Pure; one set of names for each domain.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use super::pairs::{Asked, Connection, Row};
use super::spread::Shares;
use super::{Settings, fuse};

/// Domains that stand for one's own net, however many names are below.
const LOCAL: [&str; 2] = [".arpa", ".local"];

pub(super) fn rows(
    asked: &[&Asked],
    kept: &[&Connection],
    resolved: &BTreeSet<(String, IpAddr)>,
    shares: &Shares,
    settings: &Settings,
) -> Vec<Row> {
    let mut domains: BTreeMap<&str, (HashSet<&str>, HashSet<IpAddr>)> = BTreeMap::new();
    for a in asked {
        let Some(domain) = a.domain.as_deref() else { continue };
        // A single label is nobody's name; neither are the net's own.
        if a.name.contains('.') && !LOCAL.iter().any(|local| domain.ends_with(local)) {
            let (names, sources) = domains.entry(domain).or_default();
            names.insert(&a.name);
            sources.insert(a.src);
        }
    }
    let many = domains.into_iter().filter_map(|(domain, (names, sources))| {
        let base = fuse::bucket(names.len() as f64, fuse::SUBDOMAINS);
        (base > 0.0).then_some((domain, names.len(), sources, base))
    });
    let row = |(domain, names, sources, base): (&str, usize, HashSet<IpAddr>, f64)| {
        let answered = |ip: IpAddr| resolved.contains(&(domain.to_owned(), ip));
        let mut went = kept.iter().filter(|c| answered(c.dst));
        let indirect = went.all(|c| sources.contains(&c.src));
        let prevalence = shares.of_domain(domain);
        let modifiers = [
            fuse::prevalence(prevalence, settings.defaults),
            if indirect { fuse::INDIRECT } else { 0.0 },
        ];
        Row {
            dst: domain.to_owned(),
            prevalence,
            subdomains: names as u64,
            final_score: fuse::fuse(&[base], &modifiers),
            ..Row::default()
        }
    };
    many.map(row).collect()
}
