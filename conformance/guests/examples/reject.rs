//! Rejects messages: `retry` asks for another delivery, `retry 3` does so for the first three
//! attempts, `discard` gives the message up. Publishes the attempt of every message that it accepts
//! on the outlet `out`, as text.

use haar_guest::{Message, Microservice, Rejection, publish};

#[derive(Default)]
struct Reject;

impl Microservice for Reject {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        match message
            .text()?
            .split_once(' ')
            .unwrap_or((message.text()?, ""))
        {
            ("discard", _) => return Err(Rejection::discard("the message asks for it")),
            ("retry", "") => return Err(Rejection::retry("the message asks for it")),
            ("retry", attempts) => {
                let attempts: u32 = attempts
                    .parse()
                    .map_err(|_| Rejection::discard("`retry` takes a number"))?;
                if message.attempt <= attempts {
                    return Err(Rejection::retry(format!(
                        "attempt {} of {attempts}",
                        message.attempt
                    )));
                }
            }
            _ => {}
        }
        publish("out", message.attempt.to_string(), &[])?;
        Ok(())
    }
}

haar_guest::export!(Reject);
