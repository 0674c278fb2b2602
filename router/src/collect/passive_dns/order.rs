//! In which order open questions leave: by age, and when there is no room, first the asker's
//! own.
//!
//! Pure data. Invariants: every item stands here once; a client that holds more than its
//! share makes room for its own newcomers, so that a device that floods pushes out nobody
//! else's questions. Budget: the items, and 24 bytes for each.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

/// Items by age, over all and for each client.
#[derive(Debug)]
pub(super) struct Order<K> {
    all: BTreeMap<u64, (IpAddr, K)>,
    by_client: HashMap<IpAddr, VecDeque<u64>>,
    next: u64,
}

impl<K> Order<K> {
    pub(super) fn new() -> Self {
        Self { all: BTreeMap::new(), by_client: HashMap::new(), next: 0 }
    }

    pub(super) fn push(&mut self, client: IpAddr, item: K) {
        self.by_client.entry(client).or_default().push_back(self.next);
        self.all.insert(self.next, (client, item));
        self.next += 1;
    }

    pub(super) fn oldest(&self) -> Option<&K> {
        self.all.first_key_value().map(|(_, (_, item))| item)
    }

    /// Takes out the oldest of all.
    pub(super) fn pop_oldest(&mut self) -> Option<K> {
        let (_, (client, item)) = self.all.pop_first()?;
        // The oldest of all is the oldest of its client.
        self.forget_oldest_of(client);
        Some(item)
    }

    /// Takes out what has to leave for a new item of `client`: its own oldest when it holds
    /// more than `share`, else the oldest of all.
    pub(super) fn pop_for(&mut self, client: IpAddr, share: usize) -> Option<K> {
        let own = self.by_client.get(&client).filter(|own| own.len() > share);
        let Some(serial) = own.and_then(VecDeque::front).copied() else {
            return self.pop_oldest();
        };
        self.forget_oldest_of(client);
        self.all.remove(&serial).map(|(_, item)| item)
    }

    fn forget_oldest_of(&mut self, client: IpAddr) {
        if let Some(own) = self.by_client.get_mut(&client) {
            own.pop_front();
            if own.is_empty() {
                self.by_client.remove(&client);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let by_client: usize = self.by_client.values().map(VecDeque::len).sum();
        assert_eq!(by_client, self.all.len());
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_more_than_its_share_makes_room_itself() {
        let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut order = Order::new();
        order.push(ip(1), "quiet");
        for item in ["wild-1", "wild-2", "wild-3"] {
            order.push(ip(2), item);
        }
        assert_eq!(order.pop_for(ip(2), 2), Some("wild-1"));
        assert_eq!(order.pop_for(ip(2), 2), Some("quiet"), "two are its share");
        assert_eq!(order.pop_for(ip(3), 2), Some("wild-2"), "for others the oldest goes");
        assert_eq!((order.oldest(), order.len()), (Some(&"wild-3"), 1));
        assert_eq!((order.pop_oldest(), order.pop_oldest()), (Some("wild-3"), None));
    }
}
