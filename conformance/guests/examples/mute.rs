//! Does not start, and says why in as many bytes as its configuration `bytes` wants.

use haar_guest::{Microservice, config};

#[derive(Default)]
struct Mute;

impl Microservice for Mute {
    fn start(&mut self) -> Result<(), String> {
        let bytes: usize = config::parse("bytes")?.unwrap_or(0);
        Err("x".repeat(bytes))
    }
}

haar_guest::export!(Mute);
