//! Who else goes there, and with what: how many of one's own hosts went to a destination, and
//! the programs that a source showed to one destination alone.
//!
//! In: connections and questions that count. Out: [`Shares`], [`Signs`]. Pure; one entry for
//! each host and destination, and each source and program.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::Settings;
use super::pairs::{Asked, Connection, Target, names_of};

/// How many of one's own hosts went where. A host that only asked DNS for a name counts, and so
/// does the resolver or the proxy of one's own that it asked.
pub(super) struct Shares {
    hosts: usize,
    to: BTreeMap<Target, HashSet<IpAddr>>,
    domains: HashMap<String, HashSet<IpAddr>>,
}

impl Shares {
    pub(super) fn of(kept: &[&Connection], asked: &[&Asked], settings: &Settings) -> Self {
        let mut hosts = HashSet::new();
        let mut shares = Self { hosts: 0, to: BTreeMap::new(), domains: HashMap::new() };
        for c in kept {
            hosts.extend(own(c.src, Some(c.dst), settings));
            let ends = if settings.is_internal(c.src) { (c.src, c.dst) } else { (c.dst, c.src) };
            if settings.keeps(c.src, c.dst, false) {
                shares.to.entry(Target::Address(ends.1)).or_default().insert(ends.0);
            }
            for name in names_of(c, settings) {
                shares.add(name, registrable(name), own(c.src, Some(c.dst), settings));
            }
        }
        for a in asked {
            hosts.extend(own(a.src, a.dst, settings));
            shares.add(&a.name, a.domain.clone(), own(a.src, a.dst, settings));
        }
        shares.hosts = hosts.len();
        shares
    }

    fn add(&mut self, name: &str, domain: Option<String>, hosts: impl Iterator<Item = IpAddr>) {
        let hosts: Vec<IpAddr> = hosts.collect();
        self.to.entry(Target::Name(name.to_owned())).or_default().extend(&hosts);
        if let Some(domain) = domain {
            self.domains.entry(domain).or_default().extend(&hosts);
        }
    }

    pub(super) fn of_target(&self, target: &Target) -> f64 {
        self.part(self.to.get(target))
    }

    pub(super) fn of_domain(&self, domain: &str) -> f64 {
        self.part(self.domains.get(domain))
    }

    fn part(&self, hosts: Option<&HashSet<IpAddr>>) -> f64 {
        let hosts = hosts.map_or(0, HashSet::len);
        if self.hosts == 0 { 0.0 } else { hosts as f64 / self.hosts as f64 }
    }
}

fn registrable(name: &str) -> Option<String> {
    let host = name.split(':').next().unwrap_or_default();
    let name = agentmon_core::name::Name::parse(host.as_bytes()).ok()?;
    name.registrable().map(str::to_owned)
}

/// Those of the two that are one's own.
fn own(
    src: IpAddr,
    dst: Option<IpAddr>,
    settings: &Settings,
) -> impl Iterator<Item = IpAddr> + use<'_> {
    [Some(src), dst].into_iter().flatten().filter(|ip| settings.is_internal(*ip))
}

/// Programs that a source showed to one destination alone.
pub(super) struct Signs(HashSet<(IpAddr, Target)>);

#[derive(Default)]
struct Shown {
    names: HashSet<String>,
    addresses: HashSet<IpAddr>,
    targets: HashSet<Target>,
}

impl Signs {
    pub(super) fn of(kept: &[&Connection], settings: &Settings) -> Self {
        let mut shown: HashMap<(IpAddr, u64), Shown> = HashMap::new();
        for c in kept.iter().filter(|c| !c.open) {
            let names = names_of(c, settings);
            for (name, sign) in &c.signs {
                let known = shown.entry((c.src, *sign)).or_default();
                if name.is_empty() {
                    known.targets.insert(Target::Address(c.dst));
                } else if names.contains(name) {
                    known.names.insert(name.clone());
                    known.targets.insert(Target::Name(name.clone()));
                }
                known.addresses.insert(c.dst);
            }
        }
        let rare = shown.into_iter().flat_map(|((src, _), shown)| {
            let (names, addresses) = (shown.names.len(), shown.addresses.len());
            let rare = move |target: &Target| match target {
                Target::Name(_) => names == 1,
                Target::Address(_) => addresses == 1,
            };
            shown.targets.into_iter().filter(rare).map(move |target| (src, target))
        });
        Self(rare.collect())
    }

    pub(super) fn is_rare(&self, src: IpAddr, target: &Target) -> bool {
        self.0.contains(&(src, target.clone()))
    }
}
