//! No bytes pass for a module of a publisher whose key is not in the corpus; what can be signed
//! verifies afterwards.
#![no_main]

use haar_protocol::keys::SecretKey;
use haar_protocol::module::{COMPONENT_HEADER, Signatures, sign, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let key = SecretKey::from_seed([7; 32]);
    let trusted = [key.public()];
    let file = [&COMPONENT_HEADER[..], bytes].concat();
    assert!(verify(bytes, &trusted).is_err());
    assert!(verify(&file, &trusted).is_err());
    let apart = Signatures::from_bytes(bytes);
    assert!(apart.is_none_or(|signatures| signatures.verify(&trusted).is_err()));
    if let Ok(signed) = sign(&file, &key) {
        assert!(verify(&signed, &trusted).is_ok());
    }
});
