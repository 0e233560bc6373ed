//! Acknowledges every message and does nothing else: what a call costs without work.

use haar_guest::{Message, Microservice, Rejection};

#[derive(Default)]
struct Quiet;

impl Microservice for Quiet {
    fn handle(&mut self, _message: Message) -> Result<(), Rejection> {
        Ok(())
    }
}

haar_guest::export!(Quiet);
