//! Any bytes as a name: printable, stable under a second reading, and its parts agree.
#![no_main]

use agentmon_core::Name;
use agentmon_core::name::{NAME_TEXT_BYTES_MAX, printable};
use agentmon_core::tier0::dga::score;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert!(printable(bytes, 64).bytes().all(|b| (b' '..=b'~').contains(&b)));
    let Ok(name) = Name::parse(bytes) else { return };
    let text = name.as_str();
    assert!(!text.is_empty() && text.len() <= NAME_TEXT_BYTES_MAX);
    assert!(text.bytes().all(|b| b.is_ascii_graphic()));
    assert_eq!(Name::parse(text.as_bytes()).as_ref(), Ok(&name));
    assert_eq!(name.suffixes().count(), name.labels().count());
    assert!(name.suffixes().all(|suffix| name.is_at_or_below(suffix)));
    assert!(name.is_at_or_below(name.domain()));
    let score = score(&name);
    assert!((0.0..=1.0).contains(&score.value));
    assert!(score.label.is_empty() || score.domain.starts_with(score.label));
});
