//! Which addresses' records keep having a twin: by how often they had one and had none.
//!
//! Pure data, at most [`ADDRESSES_MAX`] addresses. Where no known one is at hand, an address
//! hardly seen yet gets the benefit of the doubt, so that the first look-up is told once
//! too; one that had a twin by coincidence soon has more records without.

use std::collections::HashMap;
use std::net::IpAddr;

/// Most addresses counted: the resolvers of a home, several times over.
const ADDRESSES_MAX: usize = 64;
/// So many records without a twin weigh as much as one with: a resolver has questions of
/// its own, and a log may be late.
const MISSES_PER_HIT: u32 = 2;
/// Fewer records than this say nothing.
const DOUBT_LEAST: u32 = 3;
/// Counts are halved here, so that what changed is noticed.
const COUNT_MAX: u32 = 1_000;

/// Hits and misses by address.
#[derive(Debug, Default)]
pub(super) struct Hits(HashMap<IpAddr, (u32, u32)>);

impl Hits {
    /// Records of these addresses may be twins of one look-up: those that are believed.
    pub(super) fn judge(&mut self, candidates: &[IpAddr]) -> Vec<IpAddr> {
        let mut good: Vec<_> = candidates.iter().copied().filter(|ip| self.knows(*ip)).collect();
        if good.is_empty() {
            good = candidates.iter().copied().filter(|ip| !self.is_out(*ip)).collect();
        }
        candidates.iter().for_each(|ip| self.count(*ip, true));
        good
    }

    /// A record of that address turned out to have no twin.
    pub(super) fn miss(&mut self, ip: IpAddr) {
        self.count(ip, false);
    }

    fn count(&mut self, ip: IpAddr, hit: bool) {
        if self.0.len() >= ADDRESSES_MAX && !self.0.contains_key(&ip) {
            self.0.retain(|_, counts| trusted(*counts));
            if self.0.len() >= ADDRESSES_MAX {
                return;
            }
        }
        let (hits, misses) = self.0.entry(ip).or_default();
        let count = if hit { &mut *hits } else { &mut *misses };
        *count += 1;
        if *count >= COUNT_MAX {
            (*hits, *misses) = (*hits / 2, *misses / 2);
        }
    }

    /// Whether enough is known to say that its records have no twins.
    fn is_out(&self, ip: IpAddr) -> bool {
        let enough = |(hits, misses): (u32, u32)| hits + misses >= DOUBT_LEAST;
        self.0.get(&ip).is_some_and(|counts| enough(*counts) && !trusted(*counts))
    }

    /// Whether its records have twins often enough.
    pub(super) fn knows(&self, ip: IpAddr) -> bool {
        self.0.get(&ip).is_some_and(|counts| trusted(*counts))
    }
}

const fn trusted((hits, misses): (u32, u32)) -> bool {
    hits > 0 && hits * MISSES_PER_HIT >= misses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0xc000_0200 + n).into()
    }

    #[test]
    fn coincidence_is_found_out() {
        let mut hits = Hits::default();
        assert_eq!(hits.judge(&[ip(1), ip(2)]), [ip(1), ip(2)], "nothing is known yet");
        (0..3).for_each(|_| hits.miss(ip(1)));
        assert_eq!(hits.judge(&[ip(2)]), [ip(2)]);
        assert_eq!(hits.judge(&[ip(1), ip(2)]), [ip(2)]);
        (0..3).for_each(|_| hits.miss(ip(1)));
        assert!(hits.judge(&[ip(1)]).is_empty());
        assert_eq!(hits.judge(&[ip(7), ip(2)]), [ip(2)], "a known one is there");
        (0..3).for_each(|_| hits.miss(ip(8)));
        assert!(hits.judge(&[ip(8)]).is_empty(), "was without before");
    }

    #[test]
    fn trust_lost_while_a_log_stood_still_comes_back() {
        let mut hits = Hits::default();
        (0..10).for_each(|_| drop(hits.judge(&[ip(1)])));
        (0..100).for_each(|_| hits.miss(ip(1)));
        assert!(hits.judge(&[ip(1)]).is_empty());
        // Not believed, each is counted as a miss too.
        for _ in 0..100 {
            hits.judge(&[ip(1)]);
            hits.miss(ip(1));
        }
        assert_eq!(hits.judge(&[ip(1)]), [ip(1)]);
    }

    #[test]
    fn bounded() {
        let mut hits = Hits::default();
        for n in 0..10_000 {
            hits.judge(&[ip(n)]);
            hits.miss(ip(n));
        }
        assert!(hits.0.len() <= ADDRESSES_MAX);
    }
}
