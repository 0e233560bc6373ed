//! Any bytes are a frame or are refused; a frame reads back after it was written again.
#![no_main]

use haar_protocol::frame::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(messages) = decode(bytes) {
        let again = encode(&messages).expect("the shortest form is no longer than what was read");
        assert_eq!(decode(&again).expect("what is written is read"), messages);
    }
});
