//! Any text is an enrolment token or is refused; a token reads back as it is written.
#![no_main]

use haar_protocol::token::EnrolmentToken;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(token) = text.parse::<EnrolmentToken>() {
        let again = token.to_string();
        // What is written may be longer than what was read, and then too long.
        assert!(again.len() > 4_096 || again.parse() == Ok(token));
    }
});
