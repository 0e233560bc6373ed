//! Any text is a valid manifest or gets errors; a valid one reads back from its JSON as the same.
#![no_main]

use haar_protocol::manifest::{parse, warnings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse(text, "fuzz.yaml") {
        Ok(manifest) => {
            let _ = warnings(&manifest);
            let json = serde_json::to_string(&manifest).expect("a manifest always serialises");
            assert_eq!(
                parse(&json, "fuzz.json").expect("a valid manifest stays valid"),
                manifest
            );
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
});
