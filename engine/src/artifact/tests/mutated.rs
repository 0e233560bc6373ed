//! Artifacts that were changed on their way, by chance: none passes.

use proptest::prelude::*;

use super::*;

/// A change of one artifact on the disk.
#[derive(Debug, Clone)]
enum Mutation {
    FlipInSeal(usize, u8),
    FlipInCode(usize, u8),
    CutSeal(usize),
    CutCode(usize),
    AppendToSeal(Vec<u8>),
    AppendToCode(Vec<u8>),
    OtherCode(Vec<u8>),
    SwapHalves,
    SealOfOther,
    SignedByOther,
    SealTwice,
    WithoutSize,
    OtherSize(u32),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let position = any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    let bytes = || proptest::collection::vec(any::<u8>(), 1..64);
    prop_oneof![
        (position.clone(), 0..8u8).prop_map(|(at, bit)| Mutation::FlipInSeal(at, bit)),
        (position.clone(), 0..8u8).prop_map(|(at, bit)| Mutation::FlipInCode(at, bit)),
        position.clone().prop_map(Mutation::CutSeal),
        position.prop_map(Mutation::CutCode),
        bytes().prop_map(Mutation::AppendToSeal),
        bytes().prop_map(Mutation::AppendToCode),
        bytes().prop_map(Mutation::OtherCode),
        Just(Mutation::SwapHalves),
        Just(Mutation::SealOfOther),
        Just(Mutation::SignedByOther),
        Just(Mutation::SealTwice),
        Just(Mutation::WithoutSize),
        any::<u32>().prop_map(Mutation::OtherSize),
    ]
}

/// The file after the mutation.
fn mutated(code: &[u8], mutation: Mutation) -> Vec<u8> {
    let (mut seal, mut code) = (sealed(code), code.to_vec());
    match mutation {
        Mutation::FlipInSeal(at, bit) => {
            let at = at % seal.len();
            seal[at] ^= 1 << bit;
        }
        Mutation::FlipInCode(at, bit) => {
            let at = at % code.len();
            code[at] ^= 1 << bit;
        }
        Mutation::CutSeal(at) => seal.truncate(at % seal.len()),
        Mutation::CutCode(at) => code.truncate(at % code.len()),
        Mutation::AppendToSeal(bytes) => seal.extend(bytes),
        Mutation::AppendToCode(bytes) => code.extend(bytes),
        Mutation::OtherCode(bytes) => code = bytes,
        Mutation::SwapHalves => {
            let half = code.len() / 2;
            code.rotate_left(half);
        }
        Mutation::SealOfOther => seal = sealed(b"other code"),
        Mutation::SignedByOther => {
            let other = SecretKey::from_seed([9; 32]);
            seal = sealed_of(&module(), FINGERPRINT, TARGET, &code, &other);
        }
        Mutation::SealTwice => seal = kept(&seal, &seal),
        Mutation::WithoutSize => return [code, seal].concat(),
        Mutation::OtherSize(size) => {
            // The real one, for once in four thousand million times.
            let size = if size as usize == seal.len() { 0 } else { size };
            return [code, seal, size.to_le_bytes().to_vec()].concat();
        }
    }
    kept(&seal, &code)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn none_of_10_000_mutated_artifacts_passes(mutation in mutation()) {
        let code = code_of(5_000);
        prop_assert!(checked(&kept(&sealed(&code), &code)).is_ok());
        prop_assert!(checked(&mutated(&code, mutation)).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(open(&bytes).is_err());
        prop_assert!(unpacked(&bytes).is_err());
        let disguised = [MAGIC.as_slice(), &[VERSION], &bytes].concat();
        prop_assert!(unpacked(&disguised).is_err());
        let code = code_of(1_000);
        let garbled = [&sealed(&code)[..], &bytes].concat();
        prop_assert!(unpacked(&garbled).is_err());
        prop_assert!(checked(&bytes).is_err());
        prop_assert!(checked(&[&garbled[..], &bytes].concat()).is_err());
    }
}
