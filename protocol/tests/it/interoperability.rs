//! The tool `wasmsign2` verifies what we sign, and we verify what it signs. Keys go both ways too.

use std::collections::HashSet;

use haar_protocol::keys::{PublicKey, SecretKey};
use haar_protocol::module::{ModuleError, sign, verify};
use wasm_encoder::{
    Component, ComponentTypeSection, CustomSection, ModuleSection, PrimitiveValType,
};

use crate::fixtures::key;
use crate::modules::small_component;

/// A component with a core module inside, as a compiler makes them.
fn real_component() -> Vec<u8> {
    let mut types = ComponentTypeSection::new();
    types
        .function()
        .params([("celsius", PrimitiveValType::F64)])
        .result(Some(PrimitiveValType::Bool.into()));
    let mut component = Component::new();
    component.section(&types);
    component.section(&ModuleSection(&wasm_encoder::Module::new()));
    component.section(&CustomSection {
        name: "producers".into(),
        data: vec![0; 200].into(),
    });
    component.finish()
}

fn theirs(secret: &SecretKey) -> (wasmsign2::SecretKey, wasmsign2::PublicKey) {
    let public = wasmsign2::PublicKey::from_pem(&secret.public().to_pem()).unwrap();
    (
        wasmsign2::SecretKey::from_pem(&secret.to_pem()).unwrap(),
        public,
    )
}

fn signed_by_them(file: &[u8], secret: &SecretKey, key_id: Option<&Vec<u8>>) -> Vec<u8> {
    let module = wasmsign2::Module::deserialize(&mut &*file).unwrap();
    let mut signed = Vec::new();
    theirs(secret)
        .0
        .sign(module, key_id)
        .unwrap()
        .serialize(&mut signed)
        .unwrap();
    signed
}

#[test]
fn wasmsign2_verifies_what_we_sign() {
    let (_, public) = theirs(&key(4));
    let (_, foreign) = theirs(&key(5));
    for file in [real_component(), small_component()] {
        let signed = sign(&file, &key(4)).unwrap();
        public.verify(&mut signed.as_slice(), None).unwrap();
        assert!(foreign.verify(&mut signed.as_slice(), None).is_err());

        let with_id = public.clone().attach_default_key_id();
        let set = wasmsign2::PublicKeySet::new(HashSet::from([with_id.clone(), foreign.clone()]));
        assert_eq!(
            set.verify(&mut signed.as_slice(), None).unwrap(),
            HashSet::from([&with_id])
        );
    }
}

#[test]
fn we_verify_what_wasmsign2_signs_with_and_without_key_id() {
    let secret = key(4);
    let trusted = [key(5).public(), secret.public()];
    let key_id = theirs(&secret).1.attach_default_key_id().key_id().cloned();
    assert!(key_id.is_some());
    for file in [real_component(), small_component()] {
        for key_id in [None, key_id.as_ref()] {
            let signed = signed_by_them(&file, &secret, key_id);
            assert_eq!(
                verify(&signed, &trusted),
                Ok(vec![&trusted[1]]),
                "{key_id:?}"
            );
            assert_eq!(
                verify(&signed, &trusted[..1]),
                Err(ModuleError::Untrusted),
                "{key_id:?}"
            );
        }
    }
}

#[test]
fn both_sides_write_the_same_bytes() {
    let file = real_component();
    assert_eq!(
        hex::encode(sign(&file, &key(4)).unwrap()),
        hex::encode(signed_by_them(&file, &key(4), None))
    );
}

#[test]
fn a_flipped_bit_in_a_file_that_wasmsign2_signed_with_key_id_is_refused() {
    let secret = key(4);
    let key_id = theirs(&secret).1.attach_default_key_id().key_id().cloned();
    let signed = signed_by_them(&small_component(), &secret, key_id.as_ref());
    let trusted = [secret.public()];
    for bit in 0..signed.len() * 8 {
        let mut flipped = signed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&flipped, &trusted).is_err(), "bit {bit}");
    }
}

#[test]
fn a_signature_of_ours_stands_beside_one_of_theirs_and_both_sides_take_both() {
    let file = real_component();
    let key_id = theirs(&key(4)).1.attach_default_key_id().key_id().cloned();
    for key_id in [None, key_id.as_ref()] {
        let both = sign(&signed_by_them(&file, &key(4), key_id), &key(5)).unwrap();
        let trusted = [key(4).public(), key(5).public()];
        assert_eq!(verify(&both, &trusted), Ok(vec![&trusted[0], &trusted[1]]));
        for one in [4, 5] {
            theirs(&key(one))
                .1
                .verify(&mut both.as_slice(), None)
                .unwrap();
        }
        // They add as we do, and write the same bytes.
        let module = wasmsign2::Module::deserialize(&mut &*signed_by_them(&file, &key(4), key_id));
        let (added, _) = theirs(&key(5))
            .0
            .sign_multi(module.unwrap(), None, false, false)
            .unwrap();
        let mut theirs = Vec::new();
        added.serialize(&mut theirs).unwrap();
        assert_eq!(hex::encode(&both), hex::encode(theirs));
    }
    let trusted = [key(4).public()];
    let theirs = signed_by_them(&sign(&file, &key(5)).unwrap(), &key(4), None);
    assert_eq!(verify(&theirs, &trusted), Ok(vec![&trusted[0]]));
}

#[test]
fn a_signature_that_names_another_key_does_not_count_as_signed() {
    let file = real_component();
    let other = theirs(&key(5)).1.attach_default_key_id().key_id().cloned();
    let misnamed = signed_by_them(&file, &key(4), other.as_ref());
    let trusted = [key(4).public()];
    assert_eq!(verify(&misnamed, &trusted), Err(ModuleError::Untrusted));
    let signed = sign(&misnamed, &key(4)).unwrap();
    assert_eq!(verify(&signed, &trusted), Ok(vec![&trusted[0]]));
}

#[test]
fn keys_are_read_by_the_other_side() {
    let secret = key(4);
    let (their_secret, their_public) = theirs(&secret);
    assert_eq!(
        PublicKey::from_pem(&their_public.to_pem()),
        Ok(secret.public())
    );
    assert_eq!(
        SecretKey::from_pem(&their_secret.to_pem())
            .unwrap()
            .public(),
        secret.public()
    );
    assert_eq!(&their_public.to_bytes()[1..], secret.public().as_bytes());
}

#[test]
fn key_files_of_the_tool_wasmsign2_are_written_and_read() {
    let secret = key(4);
    let their_secret = wasmsign2::SecretKey::from_bytes(&secret.to_wasmsign2()).unwrap();
    let their_public = wasmsign2::PublicKey::from_bytes(&secret.public().to_wasmsign2()).unwrap();
    assert_eq!(their_secret.to_bytes(), secret.to_wasmsign2());
    assert_eq!(their_public.to_bytes(), secret.public().to_wasmsign2());
    let read = SecretKey::from_wasmsign2(&their_secret.to_bytes()).unwrap();
    assert_eq!(read.public(), secret.public());
    assert_eq!(
        PublicKey::from_wasmsign2(&their_public.to_bytes()),
        Ok(secret.public())
    );
    assert!(PublicKey::from_wasmsign2(&secret.to_wasmsign2()).is_err());
    assert!(SecretKey::from_wasmsign2(&secret.to_wasmsign2()[..64]).is_err());
}

#[test]
fn keys_in_pem_keep_their_form() {
    crate::golden::check("key.pem", &(key(4).to_pem() + &key(4).public().to_pem()));
}
