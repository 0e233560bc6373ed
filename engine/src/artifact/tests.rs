//! What is not wholly what was signed is refused; and with it the engine never sees it, because
//! [`crate::load::load`] takes a [`CheckedCode`] and nothing else.

use std::fs::File;
use std::io::Write as _;

use proptest::prelude::*;

use haar_protocol::module;

mod mutated;

use super::*;

const FINGERPRINT: &str = "0123456789abcdef";
const TARGET: &str = "x86_64-linux";

fn key() -> SecretKey {
    SecretKey::from_seed([3; 32])
}

fn module() -> Digest {
    Digest::of(b"module")
}

fn publisher() -> SecretKey {
    SecretKey::from_seed([5; 32])
}

/// Those of the module, by the publisher.
fn signatures() -> Signatures {
    let file = module::sign(&module::COMPONENT_HEADER, &publisher()).unwrap();
    Signatures::of(&file).unwrap()
}

fn sealed(code: &[u8]) -> Vec<u8> {
    sealed_of(&module(), FINGERPRINT, TARGET, code, &key())
}

fn sealed_of(
    module: &Digest,
    fingerprint: &str,
    target: &str,
    code: &[u8],
    key: &SecretKey,
) -> Vec<u8> {
    let origin = Origin {
        module,
        signatures: &signatures(),
        fingerprint,
        target,
    };
    seal(&origin, code, key)
}

/// What the site trusts, of a device whose owner leaves it at that.
fn of_site(of_site: &[PublicKey]) -> Publishers<'_> {
    Publishers {
        of_site,
        of_owner: None,
        later: None,
    }
}

/// Asks for the code of the module, by the key.
fn expecting<T>(ask: impl FnOnce(Expected<'_>) -> T) -> T {
    ask(Expected {
        module: &module(),
        publishers: of_site(&[publisher().public()]),
        fingerprint: FINGERPRINT,
        target: TARGET,
        trusted: &[key().public()],
    })
}

fn open(seal: &[u8]) -> Result<GoodSeal, ArtifactError> {
    expecting(|expected| expected.open(seal))
}

/// A file of code with its seal, as it lies on a disk.
fn kept(seal: &[u8], code: &[u8]) -> Vec<u8> {
    let size = u32::try_from(seal.len()).unwrap().to_le_bytes();
    [code, seal, &size].concat()
}

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// What a file comes to.
fn checked(bytes: &[u8]) -> Result<CheckedCode, ArtifactError> {
    let path = file_of(bytes).into_temp_path();
    expecting(|expected| expected.check_file(File::open(&path).unwrap()))
}

/// Unpacks what a controller sends.
fn unpacked(packed: &[u8]) -> Result<Vec<u8>, ArtifactError> {
    let mut packed = packed;
    let mut unpacking = expecting(|expected| expected.read(&mut packed))?.unpack(&mut packed)?;
    let mut code = Vec::new();
    while unpacking.next(&mut packed, &mut code)? {}
    unpacking.finish()?;
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
        let seal = sealed_of(module, fingerprint, target, code, &key());
        matches!(open(&seal), Err(ArtifactError::WrongBinding))
    };
    assert!(open(&sealed(code)).is_ok());
    assert!(wrong(&Digest::of(b"other"), FINGERPRINT, TARGET));
    assert!(wrong(&module(), "other", TARGET));
    assert!(wrong(&module(), FINGERPRINT, "pulley32"));
    let foreign = sealed_of(&module(), FINGERPRINT, TARGET, code, &other);
    assert!(matches!(open(&foreign), Err(ArtifactError::WrongSignature)));
}

#[test]
fn code_of_a_module_that_no_trusted_publisher_has_signed_is_refused() {
    let stranger = SecretKey::from_seed([6; 32]);
    let publishers = [stranger.public(), publisher().public()];
    let open = |publishers: &[PublicKey]| {
        let seal = sealed(b"code");
        expecting(|expected| {
            let expected = Expected {
                publishers: of_site(publishers),
                ..expected
            };
            expected.open(&seal)
        })
    };
    assert!(open(&publishers).is_ok());
    for publishers in [&publishers[..1], &[]] {
        let refused = open(publishers).unwrap_err();
        assert!(matches!(refused, ArtifactError::Publisher(_)), "{refused}");
    }
}

#[test]
fn code_of_a_module_that_nobody_has_signed_whom_the_owner_demands_is_refused_with_the_signer() {
    let of_site = [publisher().public()];
    let open = |of_owner: Option<&[PublicKey]>| {
        let seal = sealed(b"code");
        expecting(|expected| {
            let publishers = Publishers {
                of_site: &of_site,
                of_owner,
                later: None,
            };
            Expected {
                publishers,
                ..expected
            }
            .open(&seal)
        })
    };
    let stranger = SecretKey::from_seed([6; 32]).public();
    assert!(open(None).is_ok());
    assert!(open(Some(&[stranger, publisher().public()])).is_ok());
    for of_owner in [&[stranger][..], &[]] {
        let refused = open(Some(of_owner)).unwrap_err();
        assert!(matches!(refused, ArtifactError::Publisher(_)), "{refused}");
        let key = publisher().public().to_string();
        assert!(refused.to_string().contains(&key), "{refused}");
    }
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
    for (code, bomb) in [(100, 16 << 20), (PIECE_BYTES, 2 * PIECE_BYTES), (100, 101)] {
        let (small, bomb) = (code_of(code), vec![0; bomb]);
        let packed = [sealed(&small), pack(&[], &bomb)].concat();
        let mut rest = &packed[..];
        let seal = expecting(|expected| expected.read(&mut rest)).unwrap();
        let mut output = Vec::new();
        let outcome = seal.unpack(&mut rest).and_then(|mut unpacking| {
            while unpacking.next(&mut rest, &mut output)? {}
            unpacking.finish()
        });
        assert!(outcome.is_err());
        assert!(output.len() <= code, "{} bytes were written", output.len());
    }
}

proptest! {
    #[test]
    fn a_fetch_that_is_cut_anywhere_goes_on_from_its_last_whole_piece(
        bytes in 0..5 * PIECE_BYTES,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let code = code_of(bytes);
        let packed = pack(&sealed(&code), &code);
        let mut kept = Vec::new();
        for end in cuts.iter().map(|cut| cut.index(packed.len())).chain([packed.len()]) {
            let mut head = &packed[..];
            let seal = expecting(|expected| expected.read(&mut head)).unwrap();
            let mut unpacking = seal.unpack(&mut head).unwrap();
            let good = unpacking.resume(&kept[..]).unwrap();
            kept.truncate(usize::try_from(good).unwrap());
            prop_assert!(kept.len().is_multiple_of(PIECE_BYTES) || kept == code);
            let from = usize::try_from(unpacking.offset()).unwrap();
            let mut sent = packed.get(from..end).unwrap_or_default();
            let outcome = loop {
                match unpacking.next(&mut sent, &mut kept) {
                    Ok(true) => {}
                    outcome => break outcome,
                }
            };
            if end == packed.len() {
                prop_assert!(matches!(outcome, Ok(false)), "{outcome:?}");
                prop_assert!(unpacking.finish().is_ok());
            } else {
                // What follows a cut is written behind whole pieces, whatever stood there.
                kept.extend(b"torn");
            }
        }
        prop_assert_eq!(kept, code);
    }

    #[test]
    fn what_was_kept_of_other_code_does_not_pass(byte in any::<u8>(), at in 0..PIECE_BYTES) {
        let code = code_of(3 * PIECE_BYTES);
        let packed = pack(&sealed(&code), &code);
        let mut kept = code[..PIECE_BYTES].to_vec();
        kept[at] = byte;
        let mut head = &packed[..];
        let seal = expecting(|expected| expected.read(&mut head)).unwrap();
        let mut unpacking = seal.unpack(&mut head).unwrap();
        unpacking.resume(&kept[..]).unwrap();
        let mut rest = &packed[usize::try_from(unpacking.offset()).unwrap()..];
        while unpacking.next(&mut rest, &mut kept).unwrap() {}
        prop_assert_eq!(unpacking.finish().is_ok(), kept == code);
    }
}

/// A file that somebody has open for writing is read first, and what was read is checked.
#[test]
fn a_file_that_may_change_is_checked_in_memory() {
    let code = code_of(1_000);
    let file = file_of(&kept(&sealed(&code), &code));
    let check = || {
        let file = File::open(file.path()).unwrap();
        expecting(|expected| expected.check_file(file)).unwrap()
    };
    match check().0 {
        Where::Memory(bytes) => assert_eq!(bytes, code, "without the seal"),
        Where::File(_) => panic!("somebody may write to it"),
    }
    let path = file.into_temp_path();
    let closed = expecting(|expected| expected.check_file(File::open(&path).unwrap())).unwrap();
    assert!(matches!(closed.0, Where::File(_)), "no leases here?");
}

/// Whoever wants to write to a checked file waits until it is mapped.
#[test]
fn a_checked_file_can_not_be_opened_for_writing() {
    use std::os::unix::fs::OpenOptionsExt as _;
    let code = code_of(1_000);
    let path = file_of(&kept(&sealed(&code), &code)).into_temp_path();
    let checked = expecting(|expected| expected.check_file(File::open(&path).unwrap())).unwrap();
    let mut without_waiting = File::options();
    without_waiting.write(true).custom_flags(libc::O_NONBLOCK);
    let refused = without_waiting.open(&path).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    drop(checked);
    let mut now = without_waiting.open(&path).unwrap();
    now.write_all(b"x").unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[0], b'x');
}

/// The trailer that is written is the one that is read.
#[test]
fn a_file_with_its_trailer_is_good() {
    let code = code_of(10);
    let mut file = code.clone();
    let seal = open(&sealed(&code)).unwrap();
    seal.write_trailer(&mut file).unwrap();
    assert!(checked(&file).is_ok());
    assert!(file.len() <= code.len() + TRAILER_BYTES_MAX);
}

/// As many signatures as a module may have fit into a seal.
#[test]
fn a_seal_takes_all_signatures_of_a_module() {
    let most = Signatures::from_bytes(&[&[7; 32][..], &[1; 16 * 77]].concat()).unwrap();
    let origin = Origin {
        module: &module(),
        signatures: &most,
        fingerprint: &"f".repeat(64),
        target: &"t".repeat(32),
    };
    let seal = seal(&origin, b"code", &key());
    assert!(seal.len() <= SEAL_BYTES_MAX, "{} bytes", seal.len());
}
