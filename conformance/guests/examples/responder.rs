//! Replies on the outlet `replies` to every request with the square of its number.

use haar_guest::request::reply;
use haar_guest::{Message, Microservice, Rejection};

#[derive(Default)]
struct Responder;

impl Microservice for Responder {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let number: u64 = message
            .text()?
            .parse()
            .map_err(|_| Rejection::discard("the body is no number"))?;
        reply(&message, "replies", (number * number).to_string(), &[])?;
        Ok(())
    }
}

haar_guest::export!(Responder);
