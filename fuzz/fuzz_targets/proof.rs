//! No text passes for a proof by a key that is not in the corpus.
#![no_main]

use haar_protocol::ids::{NodeId, SiteId};
use haar_protocol::keys::SecretKey;
use haar_protocol::proof::{Audience, check, claimed_subject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let key = SecretKey::from_seed([7; 32]).public();
    let _ = claimed_subject(text);
    assert!(
        check(
            text,
            &key,
            Audience::Relay,
            &SiteId::of(&key),
            NodeId::of(&key).as_str(),
            None,
            0
        )
        .is_err()
    );
});
