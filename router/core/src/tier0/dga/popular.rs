//! Labels that look generated and are popular all the same.
//!
//! Some much-used domains have names like keyboard noise: an advertiser's, a company's
//! initials. No look at their letters tells them from generated ones, but that they are
//! popular is known. A filter (Bloom 1970) of one megabit holds those labels of public
//! lists of popular names which the weights alone would count as suspicious; being in it
//! lowers the odds, it silences nothing: popular names may be malware's.
//!
//! In: a label. Out: whether it is in. For 7 in 1,000 others it says so
//! wrongly, which costs as many generated names. Made by `examples/train_dga`. Budget: one hash; nothing allocated.

use xxhash_rust::xxh3::xxh3_64;

/// Bits of the filter; a power of two.
const BITS: usize = 1 << 20;
/// Bytes of the filter.
pub const POPULAR_BYTES: usize = BITS / 8;
/// Bits for each label.
const PROBES: u64 = 7;

/// Puts a label in. For the program that makes the filter.
pub fn insert(filter: &mut [u8], label: &str) {
    for bit in places(label) {
        if let Some(byte) = filter.get_mut(bit / 8) {
            *byte |= 1 << (bit % 8);
        }
    }
}

/// Whether a label is in (or, seldom, seems so).
#[must_use]
pub fn contains(filter: &[u8], label: &str) -> bool {
    places(label).all(|bit| filter.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0))
}

/// Double hashing (Kirsch and Mitzenmacher 2006).
fn places(label: &str) -> impl Iterator<Item = usize> {
    let hash = xxh3_64(label.as_bytes());
    let step = (hash >> 32) | 1;
    (0..PROBES).map(move |i| hash.wrapping_add(step.wrapping_mul(i)) as usize % BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        let mut filter = vec![0; POPULAR_BYTES];
        let label = |i: u32| format!("label{i}");
        (0..100_000).for_each(|i| insert(&mut filter, &label(i)));
        assert!((0..100_000).all(|i| contains(&filter, &label(i))));
        let wrong = (100_000..200_000).filter(|i| contains(&filter, &label(*i))).count();
        assert!(wrong < 1_000, "{wrong} of 100,000");
        assert!(!contains(&[], "label1"));
    }
}
