//! What is not wholly what was signed is refused; and with it the engine never sees it, because
//! [`crate::load::load`] takes a [`CheckedCode`] and nothing else.

use std::io::Read as _;

use proptest::prelude::*;

use super::*;

const FINGERPRINT: &str = "0123456789abcdef";
const TARGET: &str = "x86_64-linux";

fn key() -> SecretKey {
    SecretKey::from_seed([3; 32])
}

fn module() -> Digest {
    Digest::of(b"module")
}

fn sealed(code: &[u8]) -> Vec<u8> {
    seal(&module(), FINGERPRINT, TARGET, code, &key())
}

/// Asks for the code of the module, by the key.
fn expecting<T>(ask: impl FnOnce(Expected<'_>) -> T) -> T {
    ask(Expected {
        module: &module(),
        fingerprint: FINGERPRINT,
        target: TARGET,
        trusted: &[key().public()],
    })
}

fn open(seal: &[u8]) -> Result<GoodSeal, ArtifactError> {
    expecting(|expected| expected.open(seal))
}

/// What a seal and a file of code come to.
fn checked(seal: &[u8], code: &[u8]) -> Result<CheckedCode, ArtifactError> {
    let seal = open(seal)?;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(code).unwrap();
    let (_, path) = file.into_parts();
    seal.check_file(File::open(path).unwrap())
}

/// Unpacks what a controller sends.
fn unpacked(packed: &[u8]) -> Result<Vec<u8>, ArtifactError> {
    let mut packed = packed;
    let seal = expecting(|expected| expected.read(&mut packed))?;
    let mut code = Vec::new();
    seal.unpack(packed, &mut code)?;
    Ok(code)
}

fn code_of(bytes: usize) -> Vec<u8> {
    (0..251_u8)
        .map(|byte| byte.wrapping_mul(7))
        .cycle()
        .take(bytes)
        .collect()
}

#[test]
fn code_of_another_module_engine_target_or_maker_is_refused() {
    let other = SecretKey::from_seed([4; 32]);
    let code = b"code";
    let wrong = |module: &Digest, fingerprint: &str, target: &str| {
        let seal = seal(module, fingerprint, target, code, &key());
        matches!(open(&seal), Err(ArtifactError::WrongBinding))
    };
    assert!(open(&sealed(code)).is_ok());
    assert!(wrong(&Digest::of(b"other"), FINGERPRINT, TARGET));
    assert!(wrong(&module(), "other", TARGET));
    assert!(wrong(&module(), FINGERPRINT, "pulley32"));
    let foreign = seal(&module(), FINGERPRINT, TARGET, code, &other);
    assert!(matches!(open(&foreign), Err(ArtifactError::WrongSignature)));
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_seal_is_refused() {
    let good = sealed(b"machine code");
    for index in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[index] ^= 1 << bit;
            assert!(open(&bad).is_err(), "bit {bit} of byte {index}");
        }
        assert!(open(&good[..index]).is_err(), "cut at {index}");
    }
    assert!(open(&[&good[..], &[0]].concat()).is_err());
}

#[test]
fn what_was_packed_is_unpacked() {
    for bytes in [0, 1, PIECE_BYTES, 3 * PIECE_BYTES + 1] {
        let code = code_of(bytes);
        let packed = pack(&sealed(&code), &code);
        assert_eq!(unpacked(&packed).unwrap(), code, "{bytes} bytes");
        assert!(unpacked(&packed[..packed.len() - 1]).is_err());
    }
}

#[test]
fn more_than_was_signed_is_not_unpacked() {
    let (small, bomb) = (code_of(100), vec![0; 16 << 20]);
    let packed = pack(&sealed(&small), &bomb);
    let mut rest = &packed[..];
    let seal = expecting(|expected| expected.read(&mut rest)).unwrap();
    let mut output = Vec::new();
    assert!(seal.unpack(rest, &mut output).is_err());
    assert!(output.len() <= 100, "{} bytes were written", output.len());
}

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
    ]
}

/// The seal and the code after the mutation.
fn mutated(code: &[u8], mutation: Mutation) -> (Vec<u8>, Vec<u8>) {
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
            seal = super::seal(&module(), FINGERPRINT, TARGET, &code, &other);
        }
    }
    (seal, code)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn none_of_10_000_mutated_artifacts_passes(mutation in mutation()) {
        let code = code_of(5_000);
        prop_assert!(checked(&sealed(&code), &code).is_ok());
        let (seal, mutant) = mutated(&code, mutation);
        prop_assert!(checked(&seal, &mutant).is_err());
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
    }
}

/// A file that somebody has open for writing is read first, and what was read is checked.
#[test]
fn a_file_that_may_change_is_checked_in_memory() {
    let code = code_of(1_000);
    let seal = open(&sealed(&code)).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&code).unwrap();
    let open_for_writing = seal.check_file(File::open(file.path()).unwrap()).unwrap();
    assert!(matches!(open_for_writing.0, Where::Memory(_)));
    let path = file.into_temp_path();
    let closed = seal.check_file(File::open(&path).unwrap()).unwrap();
    assert!(matches!(closed.0, Where::File(_)), "no leases here?");
}

/// Whoever wants to write to a checked file waits until it is mapped.
#[test]
fn a_checked_file_can_not_be_opened_for_writing() {
    use std::os::unix::fs::OpenOptionsExt as _;
    let code = code_of(1_000);
    let seal = open(&sealed(&code)).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&code).unwrap();
    let path = file.into_temp_path();
    let checked = seal.check_file(File::open(&path).unwrap()).unwrap();
    let mut without_waiting = File::options();
    without_waiting.write(true).custom_flags(libc::O_NONBLOCK);
    let refused = without_waiting.open(&path).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    drop(checked);
    let mut now = without_waiting.open(&path).unwrap();
    now.write_all(b"x").unwrap();
    let mut content = Vec::new();
    File::open(&path)
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    assert_eq!(content[0], b'x');
}
