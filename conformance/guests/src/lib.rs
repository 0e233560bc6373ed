//! The guests are the files in `examples/`, each a component of its own. Here is what two of them
//! must agree on: the messages of `numbering` as `journal` expects them.

/// Eight bytes of `bytes` from `at` on as a number, big-endian; 0 where there are fewer.
pub fn number_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + 8).unwrap_or_default();
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// An entry of a journal: each number as 8 bytes, big-endian.
pub fn entry(numbers: &[u64]) -> Vec<u8> {
    let bytes = numbers.iter().flat_map(|number| number.to_be_bytes());
    bytes.collect()
}

/// The body of a message: source, number, and a filling that follows from both, 24 to 112 bytes.
pub fn body(source: u64, number: u64) -> Vec<u8> {
    let filling = mix(source ^ mix(number));
    let times = 1 + filling % 12;
    let mut numbers = vec![source, number];
    numbers.extend((0..times).map(|_| filling));
    entry(&numbers)
}

/// Spreads the bits of a number (SplitMix64).
pub fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
