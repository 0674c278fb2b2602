//! A little state for each client, bounded by a number of clients.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::time::Mono;

/// Most clients a detector follows: a home has fewer than 100, an office floor a few
/// hundred; beyond that addresses are forged.
pub(super) const CLIENTS_MAX: usize = 1_024;

/// State by client. When full, the client that was quiet longest makes room, counted.
#[derive(Debug)]
pub(super) struct Clients<S> {
    map: HashMap<IpAddr, (Mono, S)>,
    evicted: u64,
}

impl<S: Default> Clients<S> {
    pub(super) fn new() -> Self {
        Self { map: HashMap::new(), evicted: 0 }
    }

    /// The client's state, new if it has none.
    pub(super) fn state(&mut self, client: IpAddr, now: Mono) -> &mut S {
        if !self.map.contains_key(&client) && self.map.len() >= CLIENTS_MAX {
            let quietest = self.map.iter().min_by_key(|(ip, (last, _))| (*last, **ip));
            if let Some(quietest) = quietest.map(|(ip, _)| *ip) {
                self.map.remove(&quietest);
                self.evicted += 1;
            }
        }
        let (last, state) = self.map.entry(client).or_default();
        *last = now;
        state
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &S)> {
        self.map.iter().map(|(client, (_, state))| (*client, state))
    }

    /// Clients followed.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }
    /// Clients forgotten because there were too many.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_quietest_makes_room() {
        let mut clients = Clients::<u32>::new();
        let ip = |i: u32| IpAddr::from(Ipv4Addr::from(i));
        let max = u32::try_from(CLIENTS_MAX).unwrap();
        for i in 0..max {
            *clients.state(ip(i), Mono::from_nanos(u64::from(i))) = i;
        }
        *clients.state(ip(0), Mono::from_nanos(9_999)) += 7;
        clients.state(ip(max), Mono::from_nanos(10_000));
        assert_eq!((clients.len(), clients.evicted()), (CLIENTS_MAX, 1));
        let now = Mono::from_nanos(10_001);
        assert_eq!(*clients.state(ip(0), now), 7, "was heard of again");
        assert_eq!(*clients.state(ip(1), now), 0, "was forgotten");
    }
}
