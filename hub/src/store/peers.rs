//! Numbers for (destination, name): a finished flow says where it went by one of them.
//!
//! In: an address and the name it was resolved by. Out: the number of the row in `peers`
//! that says so, and the rows that are new. Runs on the writer thread; [`super::commit`]
//! appends the new rows in the transaction that uses them.
//!
//! Memory: at most [`PEERS_MAX`] pairs, about 15 MB. Invariants: a number once given means
//! the same pair for ever; with the memory full it starts anew, and a pair that comes again
//! gets a second row, never somebody else's.

use std::collections::HashMap;
use std::net::IpAddr;

use duckdb::Connection;

use super::StoreError;
use super::rows::{PeerRows, Rows as _};

/// Most pairs remembered: some days of a household. A scan of many addresses fills it.
pub(crate) const PEERS_MAX: usize = 131_072;

/// The pairs known, and those not yet written.
#[derive(Debug)]
pub(crate) struct Peers {
    /// By address: the number without a name, and those with one.
    known: HashMap<IpAddr, Numbers>,
    pairs: usize,
    next: u32,
    fresh: PeerRows,
}

#[derive(Debug, Default)]
struct Numbers {
    nameless: Option<u32>,
    named: HashMap<Box<str>, u32>,
}

impl Default for Peers {
    fn default() -> Self {
        Self { known: HashMap::new(), pairs: 0, next: 1, fresh: PeerRows::default() }
    }
}

impl Peers {
    /// The newest pairs of the file.
    ///
    /// # Errors
    /// What DuckDB says.
    pub(crate) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut peers = Self::default();
        let sql = format!("SELECT id, dst, name FROM peers ORDER BY id DESC LIMIT {PEERS_MAX}");
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, dst, name): (u32, String, Option<String>) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            peers.next = peers.next.max(id.saturating_add(1));
            // A text that is no address was not written by this program: never asked for.
            if let Ok(dst) = dst.parse() {
                peers.remember(dst, name.as_deref(), id);
            }
        }
        Ok(peers)
    }

    /// The number of that pair, a new one if need be.
    pub(crate) fn number(&mut self, dst: IpAddr, name: Option<&str>) -> u32 {
        if let Some(number) = self.find(dst, name) {
            return number;
        }
        if self.pairs >= PEERS_MAX {
            self.known.clear();
            self.pairs = 0;
        }
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.remember(dst, name, number);
        self.fresh.id.append_value(number);
        self.fresh.dst.show(dst);
        self.fresh.name.option(name);
        self.fresh.rows += 1;
        number
    }

    fn find(&self, dst: IpAddr, name: Option<&str>) -> Option<u32> {
        let numbers = self.known.get(&dst)?;
        match name {
            Some(name) => numbers.named.get(name).copied(),
            None => numbers.nameless,
        }
    }

    fn remember(&mut self, dst: IpAddr, name: Option<&str>, number: u32) {
        let numbers = self.known.entry(dst).or_default();
        match name {
            Some(name) => drop(numbers.named.insert(name.into(), number)),
            None => numbers.nameless = Some(number),
        }
        self.pairs += 1;
    }

    /// Writes the new pairs.
    ///
    /// # Errors
    /// What DuckDB says; the pairs are to be loaded again then.
    pub(crate) fn flush(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.fresh.append(connection)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_pair_keeps_its_number_and_is_written_once() {
        let mut peers = Peers::default();
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let numbers = [
            peers.number(a, None),
            peers.number(a, Some("a.example")),
            peers.number(b, Some("a.example")),
            peers.number(a, Some("b.example")),
        ];
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert_eq!(peers.number(a, Some("a.example")), 2);
        assert_eq!((peers.number(a, None), peers.fresh.rows), (1, 4));
    }

    #[test]
    fn a_full_memory_gives_no_number_twice() {
        let mut peers = Peers::default();
        let address = |n: usize| IpAddr::from(Ipv4Addr::from(u32::try_from(n).unwrap()));
        for n in 0..PEERS_MAX {
            peers.number(address(n), None);
        }
        let next = u32::try_from(PEERS_MAX).unwrap() + 1;
        assert_eq!(peers.number(address(0), None), 1, "full is not over");
        assert_eq!(peers.number(address(PEERS_MAX), None), next);
        assert_eq!(peers.number(address(0), None), next + 1, "forgotten, and new");
        assert_eq!(peers.pairs, 2);
    }
}
