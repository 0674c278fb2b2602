//! Query and response -> one exchange.
//!
//! In: DNS messages with who sent them to whom, and time. Out: one [`Dns`] record per
//! exchange: with its answers when the response comes, as a time-out when none came
//! within [`PATIENCE`]; a response whose query was not seen makes a record too. Pure,
//! time is an argument. Budget: at most `exchanges_max` open exchanges, about 250 bytes
//! each; one hash look-up per message.
//!
//! Invariants: the same packet seen twice (on two hooks, or sent again) gives one record;
//! when the memory is full an open question leaves as `unknown`, counted: the asker's own
//! oldest if it holds a quarter of the memory, else the oldest of all. What this
//! machine's own resolver asks on behalf of a client is that client's exchange, not one of
//! its own: a question of ours while a client's for the same waits gives no record.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Name;
use agentmon_core::dns_wire::Message;
use agentmon_core::event::{Answer, Dns, DnsStatus, Endpoint, Mac};
use agentmon_core::time::{Mono, Timestamp};

use super::SOURCE;
use super::order::Order;

/// One client may hold this part of the open questions at the cost of others.
const SHARE_DIVISOR: usize = 4;
/// How long a question may stay open. Resolvers give up after 5 s (resolv.conf(5)).
pub const PATIENCE: Duration = Duration::from_secs(5);

/// When and by whose hand a message came.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Who asks.
    pub client: Endpoint,
    /// Who answers.
    pub server: IpAddr,
    /// The client's MAC, on a query that came in by a wire.
    pub mac: Option<Mac>,
    /// When it was read.
    pub mono: Mono,
    /// When it arrived, where the kernel says so.
    pub stamp: Option<Timestamp>,
    /// A question this machine itself sends.
    pub own: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: Endpoint,
    server: IpAddr,
    id: u16,
    qtype: u16,
    name: Name,
}

#[derive(Debug)]
struct Exchange {
    asked: Mono,
    stamp: Option<Timestamp>,
    mac: Option<Mac>,
    answered: bool,
    /// Asked on behalf of a client.
    relayed: bool,
    /// Counted in `waiting`.
    waits: bool,
}

/// The open questions.
#[derive(Debug)]
pub struct Exchanges {
    map: HashMap<Key, Exchange>,
    /// Every key of `map` stands here once.
    order: Order<Key>,
    max: usize,
    /// What one client may hold before its newcomers push out its own.
    share: usize,
    /// Unanswered questions of other machines, by what they ask for.
    waiting: HashMap<(Name, u16), u32>,
    /// Questions of ours on behalf of a client.
    pub relayed: u64,
    /// Questions that had to leave before their time.
    pub crowded_out: u64,
    /// Messages seen before.
    pub repeated: u64,
}

impl Exchanges {
    /// With room for so many.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            map: HashMap::new(),
            order: Order::new(),
            max: max.max(1),
            share: max / SHARE_DIVISOR,
            waiting: HashMap::new(),
            relayed: 0,
            crowded_out: 0,
            repeated: 0,
        }
    }

    /// One message. `found` gets the finished exchange, and one that had to make room.
    pub fn message(&mut self, seen: &Seen, message: Message, found: &mut Vec<Dns>) {
        let Some(question) = &message.question else { return };
        let key = Key {
            client: seen.client,
            server: seen.server,
            id: message.id,
            qtype: question.qtype,
            name: question.name.clone(),
        };
        let response = message.response;
        if response {
            found.extend(self.response(&key, seen, message));
        } else if self.map.contains_key(&key) {
            self.repeated += 1;
        }
        if !self.map.contains_key(&key) {
            // A response without its query is remembered as answered, so that its copy from
            // another hook is not told again.
            found.extend(self.open(key, seen, response));
        }
    }

    fn response(&mut self, key: &Key, seen: &Seen, message: Message) -> Option<Dns> {
        let (mac, latency_us) = match self.map.get_mut(key) {
            Some(exchange) if exchange.answered => {
                self.repeated += 1;
                return None;
            }
            Some(exchange) => {
                exchange.answered = true;
                let waited = std::mem::take(&mut exchange.waits);
                let (relayed, known) = (exchange.relayed, (exchange.mac, latency(exchange, seen)));
                if waited {
                    self.stop_waiting(key);
                }
                if relayed {
                    return None;
                }
                known
            }
            None => (None, None),
        };
        let mut dns = record(key, mac);
        dns.status = status(&message);
        dns.rcode = Some(message.rcode);
        dns.ttl = message.address_ttl();
        if message.is_kept_back()
            && let Some(Answer::Other(text)) = message.ede_answer()
        {
            dns.status = DnsStatus::Blocked;
            dns.blocked_by = Some(text);
        }
        dns.answers = message.into_answers();
        dns.latency_us = latency_us;
        Some(dns)
    }

    fn open(&mut self, key: Key, seen: &Seen, answered: bool) -> Option<Dns> {
        let made_room = if self.map.len() >= self.max {
            let leaves = self.order.pop_for(key.client.ip, self.share);
            leaves.and_then(|key| self.remove(&key))
        } else {
            None
        };
        self.crowded_out += u64::from(made_room.is_some());
        let what = (key.name.clone(), key.qtype);
        let relayed = seen.own && self.waiting.contains_key(&what);
        self.relayed += u64::from(relayed);
        let waits = !seen.own && !answered;
        if waits {
            *self.waiting.entry(what).or_default() += 1;
        }
        let (asked, stamp, mac) = (seen.mono, seen.stamp, seen.mac);
        let exchange = Exchange { asked, stamp, mac, answered, relayed, waits };
        self.order.push(key.client.ip, key.clone());
        self.map.insert(key, exchange);
        made_room
    }

    fn stop_waiting(&mut self, key: &Key) {
        let what = (key.name.clone(), key.qtype);
        if let Some(count) = self.waiting.get_mut(&what) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&what);
            }
        }
    }

    /// A key that left the order leaves the map; a record if it is still open.
    fn remove(&mut self, key: &Key) -> Option<Dns> {
        let exchange = self.map.remove(key)?;
        if exchange.waits {
            self.stop_waiting(key);
        }
        (!exchange.answered && !exchange.relayed).then(|| record(key, exchange.mac))
    }

    /// Questions that got no answer in time.
    pub fn expire(&mut self, now: Mono) -> Vec<Dns> {
        let mut late = Vec::new();
        while let Some(exchange) = self.order.oldest().and_then(|key| self.map.get(key)) {
            if now.since(exchange.asked) < PATIENCE {
                break;
            }
            let dns = self.order.pop_oldest().and_then(|key| self.remove(&key));
            late.extend(dns.map(|dns| Dns { status: DnsStatus::Timeout, ..dns }));
        }
        late
    }
}

/// By the kernel's stamps; else by the time of reading, which says nothing when both were
/// read at once.
fn latency(exchange: &Exchange, seen: &Seen) -> Option<u32> {
    let passed = match (exchange.stamp, seen.stamp) {
        (Some(asked), Some(answered)) => answered.since(asked),
        _ => seen.mono.since(exchange.asked),
    };
    u32::try_from(passed.as_micros()).ok().filter(|us| *us > 0)
}

/// A resolver that blocks a name answers with the unspecified address (Pi-hole's and
/// dnsmasq's way); nothing else does.
fn status(message: &Message) -> DnsStatus {
    let mut addresses = message.answers.iter().filter_map(|r| match &r.data {
        Answer::Address(ip) => Some(*ip),
        _ => None,
    });
    let first = addresses.next();
    let nowhere = first.is_some_and(|ip| ip.is_unspecified());
    if nowhere && addresses.all(|ip| ip.is_unspecified()) {
        DnsStatus::Blocked
    } else {
        DnsStatus::Forwarded
    }
}

fn record(key: &Key, mac: Option<Mac>) -> Dns {
    Dns {
        client: key.client.ip,
        mac,
        name: key.name.clone(),
        qtype: key.qtype,
        status: DnsStatus::Unknown,
        rcode: None,
        answers: Vec::new(),
        ttl: None,
        upstream: Some(key.server.to_string()),
        latency_us: None,
        blocked_by: None,
        source: SOURCE.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentmon_core::dns_wire::{Question, Record};
    use proptest::prelude::*;

    fn seen(ms: u64) -> Seen {
        Seen {
            client: Endpoint::new([192, 0, 2, 9].into(), 40_000),
            server: [192, 0, 2, 1].into(),
            mac: Some(Mac([0, 0, 0x5e, 0, 0x53, 1])),
            mono: Mono::from_nanos(1_000_000_000 + ms * 1_000_000),
            stamp: None,
            own: false,
        }
    }
    fn query(id: u16) -> Message {
        Message {
            id,
            response: false,
            truncated: false,
            ede: None,
            rcode: 0,
            question: Some(Question {
                name: "www.example.com".parse().unwrap(),
                qtype: 1,
                qclass: 1,
            }),
            answers: Vec::new(),
            incomplete: false,
        }
    }
    fn answer(id: u16, addresses: &[[u8; 4]]) -> Message {
        let record = |a: &[u8; 4]| Record {
            name: "www.example.com".parse().unwrap(),
            rtype: 1,
            ttl: 300,
            data: Answer::Address((*a).into()),
        };
        Message { response: true, answers: addresses.iter().map(record).collect(), ..query(id) }
    }

    /// The one record that this message brings, if it does.
    fn tell(open: &mut Exchanges, seen: &Seen, message: Message) -> Option<Dns> {
        let mut found = Vec::new();
        open.message(seen, message, &mut found);
        assert!(found.len() <= 1, "{found:?}");
        found.pop()
    }

    #[test]
    fn query_and_response_are_one_exchange() {
        let mut open = Exchanges::new(10);
        assert_eq!(tell(&mut open, &seen(0), query(7)), None);
        let dns = tell(&mut open, &seen(12), answer(7, &[[203, 0, 113, 9]])).unwrap();
        assert_eq!((dns.status, dns.rcode, dns.ttl), (DnsStatus::Forwarded, Some(0), Some(300)));
        assert_eq!((dns.latency_us, dns.mac.is_some()), (Some(12_000), true));
        assert_eq!(dns.upstream.as_deref(), Some("192.0.2.1"));
        assert_eq!(open.expire(seen(60_000).mono), []);
    }

    #[test]
    fn what_a_resolver_keeps_back_is_blocked() {
        let mut open = Exchanges::new(10);
        let ede = |code, text: &str| Some((code, text.to_owned()));
        let told = Message { rcode: 5, ede: ede(17, "malware"), ..answer(7, &[]) };
        let dns = tell(&mut open, &seen(0), told).unwrap();
        assert_eq!((dns.status, dns.rcode), (DnsStatus::Blocked, Some(5)));
        assert_eq!(dns.blocked_by.as_deref(), Some("EDE: filtered: malware"));
        let told = Message { rcode: 2, ede: ede(6, ""), ..answer(8, &[]) };
        let dns = tell(&mut open, &seen(0), told).unwrap();
        assert_eq!((dns.status, dns.blocked_by), (DnsStatus::Forwarded, None));
        assert_eq!(dns.answers, [Answer::Other("EDE: DNSSEC bogus".into())]);
    }

    #[test]
    fn the_same_packet_on_two_hooks_is_one() {
        let mut open = Exchanges::new(10);
        for _ in 0..2 {
            assert_eq!(tell(&mut open, &seen(0), query(7)), None);
        }
        assert!(tell(&mut open, &seen(1), answer(7, &[])).is_some());
        assert_eq!(tell(&mut open, &seen(1), answer(7, &[])), None);
        // Without its query as well.
        assert!(tell(&mut open, &seen(2), answer(8, &[])).is_some());
        assert_eq!(tell(&mut open, &seen(2), answer(8, &[])), None);
        assert_eq!((open.repeated, open.crowded_out), (3, 0));
    }

    #[test]
    fn no_answer_is_a_timeout() {
        let mut open = Exchanges::new(10);
        tell(&mut open, &seen(0), query(7));
        tell(&mut open, &seen(3_000), query(8));
        assert_eq!(open.expire(seen(4_999).mono), []);
        let late = open.expire(seen(5_000).mono);
        assert_eq!((late.len(), late[0].status, late[0].rcode), (1, DnsStatus::Timeout, None));
        assert_eq!(open.expire(seen(8_000).mono).len(), 1);
        assert!(open.map.is_empty() && open.order.len() == 0);
    }

    #[test]
    fn kernel_stamps_give_the_latency() {
        let mut open = Exchanges::new(10);
        let stamp = |us: i64| Some(Timestamp::from_micros(1_795_444_327_000_000 + us));
        tell(&mut open, &Seen { stamp: stamp(0), ..seen(0) }, query(7));
        let dns = tell(&mut open, &Seen { stamp: stamp(850), ..seen(0) }, answer(7, &[])).unwrap();
        assert_eq!(dns.latency_us, Some(850));
        // Read at once, without stamps: not known.
        tell(&mut open, &seen(1), query(8));
        assert_eq!(tell(&mut open, &seen(1), answer(8, &[])).unwrap().latency_us, None);
    }

    #[test]
    fn the_unspecified_address_means_blocked() {
        let check = |addresses: &[[u8; 4]], expected| {
            let dns = tell(&mut Exchanges::new(1), &seen(0), answer(7, addresses)).unwrap();
            assert_eq!(dns.status, expected);
        };
        check(&[[0, 0, 0, 0]], DnsStatus::Blocked);
        check(&[[0, 0, 0, 0], [203, 0, 113, 9]], DnsStatus::Forwarded);
        check(&[], DnsStatus::Forwarded);
    }

    #[test]
    fn another_server_client_or_name_is_another_exchange() {
        let mut open = Exchanges::new(10);
        tell(&mut open, &seen(0), query(7));
        let elsewhere = Seen { server: [192, 0, 2, 2].into(), ..seen(1) };
        let dns = tell(&mut open, &elsewhere, answer(7, &[])).unwrap();
        assert_eq!((dns.latency_us, dns.mac), (None, None));
        assert_eq!(open.expire(seen(5_000).mono).len(), 1);
    }

    #[test]
    fn what_our_resolver_asks_for_a_client_is_the_clients() {
        let server = IpAddr::from([192, 0, 2, 53]);
        let client = Endpoint::new([192, 0, 2, 1].into(), 50_000);
        let ours = |ms| Seen { client, server, own: true, ..seen(ms) };
        let mut open = Exchanges::new(10);
        tell(&mut open, &seen(0), query(7));
        assert_eq!(tell(&mut open, &ours(1), query(9)), None);
        assert_eq!(tell(&mut open, &ours(2), answer(9, &[[203, 0, 113, 9]])), None);
        let dns = tell(&mut open, &seen(3), answer(7, &[[203, 0, 113, 9]])).unwrap();
        assert_eq!((dns.client, open.relayed), (seen(0).client.ip, 1));
        assert!(open.waiting.is_empty());
        // Without a client that waits it is a question of our own.
        tell(&mut open, &ours(4), query(10));
        let dns = tell(&mut open, &ours(5), answer(10, &[])).unwrap();
        assert_eq!(dns.client, client.ip);
        // Two that nobody answers: one time-out, the client's.
        tell(&mut open, &seen(6), query(11));
        tell(&mut open, &ours(7), query(12));
        let late = open.expire(seen(9_000).mono);
        assert_eq!(late.iter().map(|d| d.client).collect::<Vec<_>>(), [seen(0).client.ip]);
        assert!(open.waiting.is_empty());
    }

    #[test]
    fn a_full_memory_tells_the_oldest_as_unknown() {
        let mut open = Exchanges::new(2);
        assert_eq!(tell(&mut open, &seen(0), query(1)), None);
        assert_eq!(tell(&mut open, &seen(0), query(2)), None);
        assert_eq!(tell(&mut open, &seen(0), query(3)).unwrap().status, DnsStatus::Unknown);
        assert_eq!((open.map.len(), open.order.len(), open.crowded_out), (2, 2, 1));
    }

    #[test]
    fn a_flood_pushes_out_its_own_questions() {
        let mut open = Exchanges::new(8);
        assert_eq!(tell(&mut open, &seen(0), query(1)), None);
        let wild = Endpoint::new([192, 0, 2, 66].into(), 40_000);
        for id in 2..100 {
            let left = tell(&mut open, &Seen { client: wild, ..seen(1) }, query(id));
            assert!(left.is_none_or(|dns| dns.client == wild.ip));
        }
        let answered = tell(&mut open, &seen(2), answer(1, &[[203, 0, 113, 9]])).unwrap();
        assert_eq!((answered.latency_us, open.crowded_out), (Some(2_000), 91));
    }

    proptest! {
        /// Every question is told exactly once, whatever happens to it.
        #[test]
        fn conservation(steps in proptest::collection::vec((0u16..6, any::<bool>(), 0u64..3_000), 0..60), max in 1usize..5) {
            let mut open = Exchanges::new(max);
            let (mut asked, mut told, mut ms, mut unasked) = (0, 0, 0, 0);
            for (id, response, wait) in steps {
                ms += wait;
                told += open.expire(seen(ms).mono).len();
                let known = open.map.len();
                let was_open = open.map.iter().any(|(k, e)| k.id == id && !e.answered);
                let was_known = open.map.keys().any(|k| k.id == id);
                if !response && !was_known { asked += 1; }
                if response && !was_open && !was_known { unasked += 1; }
                let message = if response { answer(id, &[]) } else { query(id) };
                let mut found = Vec::new();
                open.message(&seen(ms), message, &mut found);
                told += found.len();
                prop_assert!(open.map.len() <= max && open.map.len() == open.order.len());
                prop_assert!(known <= max);
            }
            told += open.expire(seen(ms + 10_000).mono).len();
            prop_assert_eq!(told, asked + unasked);
        }
    }
}
