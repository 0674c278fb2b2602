//! Any bytes as the compiled form of lists: taken or refused, and a look-up ends. In: words
//! and everything behind the index; the index, 262 KB of nearly the same numbers, is put in
//! here and has all words in the bucket that the footer's source names.
#![no_main]

use std::sync::Arc;

use agentmon_core::Name;
use agentmon_core::tier0::blocklist::{Blocklist, Check, FOOTER_BYTES};
use libfuzzer_sys::fuzz_target;

const BUCKETS: usize = 65_536;

fuzz_target!(|bytes: &[u8]| {
    drop(Blocklist::open(Arc::new(bytes.to_vec())));
    let mut check = Check::default();
    bytes.chunks(7).for_each(|part| check.feed(part));
    std::hint::black_box(check.finish().is_ok());

    let Some(footer) = bytes.len().checked_sub(FOOTER_BYTES) else { return };
    let Some(words) = bytes[footer + 16..].first_chunk().map(|n| u64::from_le_bytes(*n)) else {
        return;
    };
    let Some(end) = usize::try_from(words).ok().and_then(|n| n.checked_mul(8)) else { return };
    if end > footer {
        return;
    }
    let mut form = bytes[..end].to_vec();
    // Behind the number of words and the bytes of the extras.
    let bucket = usize::from(bytes[footer + 32]) | usize::from(bytes[footer + 33]) << 8;
    for i in 0..=BUCKETS {
        let place = if i <= bucket { 0 } else { words };
        form.extend_from_slice(&(place as u32).to_le_bytes());
    }
    form.extend_from_slice(&bytes[end..]);
    let Ok(lists) = Blocklist::open(Arc::new(form)) else { return };
    assert_eq!(lists.len() as u64, words);
    for text in ["a.example", "x.y.b.example", "www.example.com"] {
        let name: Name = text.parse().expect("a name");
        assert!(lists.lookup(&name).is_none_or(|hit| name.is_at_or_below(hit.entry)));
    }
    for text in ["192.0.2.1", "2001:db8::1"] {
        let judged = lists.judge_address(text.parse().expect("an address"), Some(80));
        std::hint::black_box(judged.bad.map(|hit| (hit.page, hit.entry.to_string())));
    }
});
