//! What must not allocate does not: the look-ups that every DNS name of a busy network goes
//! through. Counted by an allocator of this test program alone.

#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use agentmon_core::event::{Answer, Body, Dns, DnsStatus};
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::tier0::{Engine, Tier0Config, dga};
use agentmon_core::{Event, Name, Timestamp};

thread_local! {
    /// Allocations of this thread: tests run side by side.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: passes every call on to the system's allocator unchanged; the counter is a
// const-initialised thread-local without destructor, which itself never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

fn lists() -> Blocklist {
    let config = Tier0Config::default();
    let mut builder = config.blocklist.builder();
    let text: String = (0..1_000).map(|i| format!("listed{i}.example\n")).collect();
    assert!(builder.list("test", 0.8, text.as_bytes()).is_clean());
    builder.build()
}

fn names() -> Vec<Name> {
    let texts = ["www.wikipedia.org", "a.b.c.example.co.uk", "d111111abcdef8.cloudfront.net"];
    let odd = ["localhost", ".", "1.2.0.192.in-addr.arpa", "xkqzvwpjhtrbn.com", "x.mooo.com"];
    texts.iter().chain(&odd).map(|text| text.parse().expect("a name")).collect()
}

#[test]
fn the_counter_counts() {
    assert!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))) > 0);
}

#[test]
fn looking_up_and_scoring_allocate_nothing() {
    let (lists, names) = (lists(), names());
    let listed: Name = "x.y.listed7.example".parse().expect("a name");
    assert_eq!(lists.lookup(&listed).map(|hit| hit.entry), Some("listed7.example"));
    let count = allocations(|| {
        for name in names.iter().chain([&listed]) {
            std::hint::black_box(lists.lookup(name));
            std::hint::black_box(dga::score(name));
        }
    });
    assert_eq!(count, 0);
}

/// A name asked for again, by a client that is known, with an answer that is known.
#[test]
fn an_ordinary_exchange_allocates_nothing() {
    let mut engine = Engine::new(&Tier0Config::default(), lists());
    let mut found = Vec::new();
    let exchange = |seconds: i64| Event {
        time: Timestamp::from_secs(1_795_000_000 + seconds),
        body: Body::Dns(Dns {
            client: "192.168.1.5".parse().expect("an address"),
            mac: None,
            name: "www.wikipedia.org".parse().expect("a name"),
            qtype: 1,
            status: DnsStatus::Forwarded,
            rcode: Some(0),
            answers: vec![
                Answer::Cname("edge.example.net".parse().expect("a name")),
                Answer::Address("203.0.113.9".parse().expect("an address")),
            ],
            ttl: Some(300),
            upstream: None,
            latency_us: None,
            blocked_by: None,
            source: "test".into(),
        }),
    };
    engine.on_event(&mut exchange(0), &mut found);
    let mut again: Vec<Event> = (1..50).map(exchange).collect();
    let count = allocations(|| again.iter_mut().for_each(|e| engine.on_event(e, &mut found)));
    assert_eq!((count, found.len()), (0, 0));
}
