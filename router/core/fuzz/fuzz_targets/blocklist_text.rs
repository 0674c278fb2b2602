//! Any bytes as a list: nothing panics, the report is printable, a hit covers the name, and
//! stands in a line of the text.
#![no_main]

use agentmon_core::Name;
use agentmon_core::tier0::blocklist::{Builder, LineFinder, no_list};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let mut builder = Builder::new(1_000);
    let report = builder.list("fuzz", 0.5, text);
    assert!(report.to_string().is_ascii());
    let lists = builder.build();
    assert!(lists.len() <= report.entries);
    std::hint::black_box(no_list(text));
    for line in text.split(|b| *b == b'\n').take(50) {
        if let Ok(name) = Name::parse(line) {
            let Some(hit) = lists.lookup(&name) else { continue };
            assert!(name.is_at_or_below(hit.entry));
            let mut finder = LineFinder::new(hit.entry);
            finder.feed(text);
            assert!(finder.end().is_some());
        }
    }
});
