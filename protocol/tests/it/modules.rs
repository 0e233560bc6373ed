//! Signatures inside modules: what was signed verifies, and nothing else does.

use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::module::{
    COMPONENT_HEADER, MODULE_BYTES_MAX, ModuleError, Publishers, Signatures, sign, sign_alone,
    verify,
};
use proptest::prelude::*;

use crate::fixtures::key;

/// A section as a module has it: id, length, content.
pub(crate) fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![id];
    put_varint(&mut bytes, content.len());
    bytes.extend_from_slice(content);
    bytes
}

/// A custom section.
pub(crate) fn custom(name: &str, payload: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    put_varint(&mut content, name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(payload);
    section(0, &content)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value % 0x80).unwrap();
        value /= 0x80;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

pub(crate) fn component(sections: &[Vec<u8>]) -> Vec<u8> {
    [COMPONENT_HEADER.to_vec(), sections.concat()].concat()
}

/// A small component of a custom section and a type section that defines one resource-less type.
pub(crate) fn small_component() -> Vec<u8> {
    component(&[custom("producers", b"haar"), section(7, &[1, 0x73])])
}

fn sections() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let content = || prop::collection::vec(any::<u8>(), 0..300);
    let one = prop_oneof![
        (1u8..13, content()).prop_map(|(id, content)| section(id, &content)),
        ("[a-z:.]{0,12}", content()).prop_map(|(name, payload)| custom(&name, &payload)),
    ];
    prop::collection::vec(one, 0..6)
}

fn keys(seeds: &[u8]) -> Vec<PublicKey> {
    seeds.iter().map(|seed| key(*seed).public()).collect()
}

#[test]
fn a_signed_component_keeps_its_form() {
    let signed = sign(&small_component(), &key(4)).unwrap();
    crate::golden::check("module.hex", &(hex::encode(signed) + "\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_signed_verifies_under_its_key_and_no_other(sections in sections(), seed: [u8; 32]) {
        let key = SecretKey::from_seed(seed);
        let signed = sign(&component(&sections), &key).unwrap();
        let trusted = [crate::fixtures::key(9).public(), key.public()];
        prop_assert_eq!(verify(&signed, &trusted), Ok(vec![&trusted[1]]));
        prop_assert_eq!(verify(&signed, &trusted[..1]), Err(ModuleError::Untrusted));
        prop_assert!(signed.ends_with(&sections.concat()));
    }

    #[test]
    fn a_second_signature_stands_beside_the_first_unless_it_is_to_be_alone(sections in sections()) {
        let file = component(&sections);
        let once = sign(&file, &key(4)).unwrap();
        prop_assert_eq!(&sign(&once, &key(4)).unwrap(), &once);
        let twice = sign(&once, &key(5)).unwrap();
        let trusted = keys(&[4, 5]);
        prop_assert_eq!(verify(&twice, &trusted), Ok(vec![&trusted[0], &trusted[1]]));
        let (first, both) = (Signatures::of(&once).unwrap(), Signatures::of(&twice).unwrap());
        prop_assert!(first.is_of_same_content(&both));
        prop_assert_eq!((first.count(), both.count()), (1, 2));
        prop_assert_eq!(sign_alone(&twice, &key(5)).unwrap(), sign(&file, &key(5)).unwrap());
    }

    #[test]
    fn signatures_of_other_content_are_taken_out(sections in sections(), more: u8) {
        let signed = sign(&component(&sections), &key(4)).unwrap();
        let changed = [signed, custom("more", &[more])].concat();
        let again = sign(&changed, &key(5)).unwrap();
        let trusted = keys(&[4, 5]);
        prop_assert_eq!(verify(&again, &trusted), Ok(vec![&trusted[1]]));
        prop_assert_eq!(Signatures::of(&again).unwrap().count(), 1);
    }

    #[test]
    fn no_bytes_make_verifying_panic_or_pass(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let trusted = keys(&[4]);
        prop_assert!(verify(&bytes, &trusted).is_err());
        prop_assert!(verify(&component(std::slice::from_ref(&bytes)), &trusted).is_err());
        prop_assert!(verify(&component(&[custom("signature", &bytes)]), &trusted).is_err());
        let _ = sign(&component(&[bytes]), &key(4));
    }
}

#[test]
fn every_flipped_bit_of_a_signed_file_is_refused() {
    let signed = sign(&small_component(), &key(4)).unwrap();
    let trusted = keys(&[4]);
    assert!(verify(&signed, &trusted).is_ok());
    for bit in 0..signed.len() * 8 {
        let mut flipped = signed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&flipped, &trusted).is_err(), "bit {bit}");
    }
}

#[test]
fn every_truncation_of_a_signed_file_is_refused() {
    let signed = sign(&small_component(), &key(4)).unwrap();
    for length in 0..signed.len() {
        assert!(
            verify(&signed[..length], &keys(&[4])).is_err(),
            "{length} bytes"
        );
    }
}

#[test]
fn anything_appended_to_a_signed_file_is_refused() {
    let signed = sign(&small_component(), &key(4)).unwrap();
    let trusted = keys(&[4]);
    for more in [
        vec![0],
        custom("name", b"x"),
        section(7, &[0]),
        COMPONENT_HEADER.to_vec(),
    ] {
        assert_eq!(
            verify(&[signed.clone(), more].concat(), &trusted),
            Err(ModuleError::Untrusted)
        );
    }
}

#[test]
fn a_second_signature_section_is_refused_even_when_it_is_signed() {
    let secret = key(4);
    let inner = custom("signature", b"anything");
    // `sign` takes it out, so the file is put together as its own signature of the longer content.
    let content = [custom("producers", b"haar"), inner].concat();
    let signature = secret.sign(&message(&content));
    let file = component(&[
        custom("signature", &payload(&content, &[(b"", signature)])),
        content,
    ]);
    assert_eq!(
        verify(&file, &keys(&[4])),
        Err(ModuleError::Malformed("a second signature section"))
    );
    let signed = sign(&file, &secret).unwrap();
    assert!(
        verify(&signed, &keys(&[4])).is_ok(),
        "signing anew takes every old signature out"
    );
}

/// What a signature of `content` signs.
pub(crate) fn message(content: &[u8]) -> Vec<u8> {
    [
        b"wasmsig".as_slice(),
        &[1, 1, 1],
        haar_protocol::ids::Digest::of(content).as_bytes(),
    ]
    .concat()
}

/// The payload of a signature section with one set of signatures, each with its key's identifier.
pub(crate) fn payload(content: &[u8], signatures: &[(&[u8], [u8; 64])]) -> Vec<u8> {
    let mut set = vec![1];
    set.extend_from_slice(haar_protocol::ids::Digest::of(content).as_bytes());
    put_varint(&mut set, signatures.len());
    for (key_id, signature) in signatures {
        let mut one = Vec::new();
        put_varint(&mut one, key_id.len());
        one.extend_from_slice(key_id);
        one.extend_from_slice(&[1, 64]);
        one.extend_from_slice(signature);
        put_varint(&mut set, one.len());
        set.extend_from_slice(&one);
    }
    let mut payload = vec![1, 1, 1, 1];
    put_varint(&mut payload, set.len());
    payload.extend_from_slice(&set);
    payload
}

fn signed_by(content: &[u8], signatures: &[(&[u8], [u8; 64])]) -> Vec<u8> {
    component(&[
        custom("signature", &payload(content, signatures)),
        content.to_vec(),
    ])
}

#[test]
fn several_publishers_may_sign_and_each_trusted_one_is_told() {
    let content = custom("producers", b"haar");
    let signature = |seed| key(seed).sign(&message(&content));
    let file = signed_by(
        &content,
        &[
            (b"", signature(4)),
            (b"", signature(5)),
            (b"", signature(4)),
        ],
    );
    let trusted = keys(&[5, 6, 4]);
    assert_eq!(verify(&file, &trusted), Ok(vec![&trusted[2], &trusted[0]]));
    assert_eq!(verify(&file, &trusted[..1]), Ok(vec![&trusted[0]]));
    assert_eq!(verify(&file, &trusted[1..2]), Err(ModuleError::Untrusted));
    assert_eq!(verify(&file, &[]), Err(ModuleError::Untrusted));
}

#[test]
fn a_signature_under_the_identifier_of_another_key_does_not_count() {
    let content = custom("producers", b"haar");
    let signature = key(4).sign(&message(&content));
    let trusted = keys(&[4, 5]);
    for key_id in [b"another key!".as_slice(), b"x", &[0; 12], &[0; 300]] {
        assert_eq!(
            verify(&signed_by(&content, &[(key_id, signature)]), &trusted),
            Err(ModuleError::Untrusted)
        );
    }
    assert!(verify(&signed_by(&content, &[(b"", signature)]), &trusted).is_ok());
}

#[test]
fn more_than_16_signatures_are_refused_before_any_is_checked() {
    let content = custom("producers", b"haar");
    let signature = key(4).sign(&message(&content));
    let with = |count| signed_by(&content, &vec![(b"".as_slice(), signature); count]);
    assert!(verify(&with(16), &keys(&[4])).is_ok());
    assert_eq!(
        sign(&with(16), &key(5)),
        Err(ModuleError::TooManySignatures)
    );
    assert_eq!(sign(&with(16), &key(4)), Ok(with(16)));
    assert!(sign_alone(&with(16), &key(5)).is_ok());
    assert!(matches!(
        sign(&with(17), &key(5)),
        Err(ModuleError::UnknownSignature(_))
    ));
    assert!(matches!(
        verify(&with(17), &keys(&[4])),
        Err(ModuleError::UnknownSignature(_))
    ));
}

#[test]
fn files_that_are_no_signed_components_are_refused_by_what_they_are() {
    let trusted = keys(&[4]);
    let core = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
    assert_eq!(verify(b"", &trusted), Err(ModuleError::NotWasm));
    assert_eq!(verify(b"#!/bin/sh\n", &trusted), Err(ModuleError::NotWasm));
    assert_eq!(verify(&core, &trusted), Err(ModuleError::CoreModule));
    assert_eq!(sign(&core, &key(4)), Err(ModuleError::CoreModule));
    assert_eq!(
        verify(&COMPONENT_HEADER, &trusted),
        Err(ModuleError::Unsigned)
    );
    assert_eq!(
        verify(&small_component(), &trusted),
        Err(ModuleError::Unsigned)
    );
    let late = component(&[small_component()[8..].to_vec(), custom("signature", b"")]);
    assert_eq!(
        verify(&late, &trusted),
        Err(ModuleError::Unsigned),
        "the signature must come first"
    );
    let none = signed_by(b"", &[]);
    assert_eq!(verify(&none, &trusted), Err(ModuleError::Unsigned));
    assert!(matches!(
        sign(&[&COMPONENT_HEADER[..], &[0, 0x80]].concat(), &key(4)),
        Err(ModuleError::Malformed(_))
    ));
}

#[test]
fn files_beyond_the_limit_are_refused_unread() {
    let large = vec![0; usize::try_from(MODULE_BYTES_MAX).unwrap() + 1];
    assert_eq!(
        verify(&large, &keys(&[4])),
        Err(ModuleError::TooLarge(MODULE_BYTES_MAX + 1))
    );
    assert_eq!(
        sign(&large, &key(4)),
        Err(ModuleError::TooLarge(MODULE_BYTES_MAX + 1))
    );
}

#[test]
fn what_is_not_signed_has_one_spelling() {
    let signed = sign(&small_component(), &key(4)).unwrap();
    // One more byte for the section's length, without changing it.
    assert!(signed[9] < 0x80);
    let longer = [&signed[..9], &[signed[9] | 0x80, 0], &signed[10..]].concat();
    assert_eq!(
        verify(&longer, &keys(&[4])),
        Err(ModuleError::Malformed(
            "a number is not in its shortest form"
        ))
    );
}

#[test]
fn a_module_needs_a_publisher_of_the_site_and_one_of_the_owner_where_the_owner_names_some() {
    let once = sign(&small_component(), &key(4)).unwrap();
    let check = |file: &[u8], of_site: &[u8], of_owner: Option<&[u8]>| {
        let (of_site, of_owner) = (keys(of_site), of_owner.map(keys));
        Signatures::of(file).unwrap().check(Publishers {
            of_site: &of_site,
            of_owner: of_owner.as_deref(),
            later: None,
        })
    };
    assert_eq!(check(&once, &[4, 6], None), Ok(()));
    assert_eq!(check(&once, &[4, 6], Some(&[7, 4])), Ok(()));
    let signers = keys(&[4]);
    let not_allowed = Err(ModuleError::NotAllowed { signers });
    assert_eq!(check(&once, &[4, 6], Some(&[6])), not_allowed);
    assert_eq!(check(&once, &[4], Some(&[])), not_allowed);
    // The owner's word does not stand for the site's.
    assert_eq!(check(&once, &[6], Some(&[4])), Err(ModuleError::Untrusted));
}

#[test]
fn signatures_that_came_after_the_file_count_like_those_in_it() {
    let file = sign(&small_component(), &key(4)).unwrap();
    let later = Signatures::of(&sign_alone(&file, &key(5)).unwrap()).unwrap();
    let later = Signatures::from_text(&later.to_text()).unwrap();
    let other = Signatures::of(&sign(&component(&[custom("x", b"")]), &key(5)).unwrap()).unwrap();
    let check = |of_site: &[u8], of_owner: Option<&[u8]>, later: Option<&Signatures>| {
        let (of_site, of_owner) = (keys(of_site), of_owner.map(keys));
        Signatures::of(&file).unwrap().check(Publishers {
            of_site: &of_site,
            of_owner: of_owner.as_deref(),
            later,
        })
    };
    assert_eq!(check(&[5], None, None), Err(ModuleError::Untrusted));
    assert_eq!(check(&[5], None, Some(&later)), Ok(()));
    assert_eq!(check(&[4], Some(&[5]), Some(&later)), Ok(()));
    assert_eq!(check(&[6], None, Some(&later)), Err(ModuleError::Untrusted));
    // Those of another module are not taken for it.
    assert_eq!(check(&[5], None, Some(&other)), Err(ModuleError::Untrusted));
}

proptest! {
    #[test]
    fn signatures_apart_from_their_file_say_the_same_and_no_others_pass(
        signer in 1u8..9, trusted in prop::collection::vec(1u8..9, 0..4),
        at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let file = sign(&small_component(), &key(signer)).unwrap();
        let trusted = keys(&trusted);
        let apart = Signatures::of(&file).unwrap();
        prop_assert_eq!(apart.verify(&trusted), verify(&file, &trusted));
        let bytes = apart.to_bytes();
        prop_assert_eq!(Signatures::from_bytes(&bytes), Some(apart));
        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= 1 << bit;
        let flipped = Signatures::from_bytes(&flipped);
        prop_assert!(flipped.is_none_or(|others| others.verify(&keys(&[signer])).is_err()));
        let cut = Signatures::from_bytes(&bytes[..at.index(bytes.len())]);
        prop_assert!(cut.is_none_or(|fewer| fewer.verify(&keys(&[signer])).is_err()));
    }

    #[test]
    fn arbitrary_bytes_are_no_signatures_of_anybody(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Some(signatures) = Signatures::from_bytes(&bytes) {
            prop_assert_eq!(signatures.to_bytes(), bytes);
            prop_assert!(signatures.verify(&keys(&[1, 2])).is_err());
        }
    }
}
