//! No bytes pass for a signed document: the key is not in the corpus.
#![no_main]

use haar_protocol::assignment::Assignment;
use haar_protocol::keys::SecretKey;
use haar_protocol::request::{Request, Response};
use haar_protocol::signed::open;
use haar_protocol::status::Status;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let key = SecretKey::from_seed([7; 32]).public();
    assert!(open::<Assignment>(bytes, &key).is_err());
    assert!(open::<Status>(bytes, &key).is_err());
    assert!(open::<Request>(bytes, &key).is_err());
    assert!(open::<Response>(bytes, &key).is_err());
});
