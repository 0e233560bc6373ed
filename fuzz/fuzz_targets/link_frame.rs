//! Any bytes are a frame of a link or are refused; a frame reads back after it was written again.
#![no_main]

use haar_link::frame::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = decode(bytes) {
        let again = encode(&frame).expect("the shortest form is no longer than what was read");
        assert_eq!(decode(&again).expect("what is written is read"), frame);
    }
});
