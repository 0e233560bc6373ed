//! Whatever stands behind a component's header, looking into it ends with an answer.
#![no_main]

use haar_engine::inspect::inspect;
use haar_protocol::module::COMPONENT_HEADER;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = [&COMPONENT_HEADER[..], bytes].concat();
    if let Ok(inspected) = inspect(&file) {
        assert_eq!(inspected.bytes, file.len() as u64);
    }
});
