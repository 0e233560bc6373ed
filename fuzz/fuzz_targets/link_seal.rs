//! Bytes that nobody sealed open nothing.
#![no_main]

use haar_link::session::{Ends, Session};
use libfuzzer_sys::fuzz_target;
use x25519_dalek::{PublicKey, StaticSecret};

fuzz_target!(|bytes: &[u8]| {
    let (own, other) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
    let ends = Ends {
        site: "s",
        own: "a",
        other: "b",
    };
    let mut session = Session::new(ends, [3; 16], &own, &PublicKey::from(&other)).expect("a key");
    assert!(session.open(bytes, true).is_err());
    assert!(!session.is_open());
});
