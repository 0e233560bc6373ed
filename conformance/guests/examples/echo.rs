//! Publishes every message of the inlet `in` on the outlet `out`, with the same body and headers.

use haar_guest::{Message, Microservice, Rejection, publish};

#[derive(Default)]
struct Echo;

impl Microservice for Echo {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let headers: Vec<_> = message
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        publish("out", &message.body, &headers)?;
        Ok(())
    }
}

haar_guest::export!(Echo);
