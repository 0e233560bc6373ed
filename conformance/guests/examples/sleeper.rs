//! Sleeps for as many milliseconds as the body of a message says: parked in a function of the host,
//! where no fuel burns. Publishes `slept` on the outlet `out` when it wakes.

use std::time::Duration;

use haar_guest::{Message, Microservice, Rejection, publish};

#[derive(Default)]
struct Sleeper;

impl Microservice for Sleeper {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let milliseconds = message
            .text()?
            .parse()
            .map_err(|_| Rejection::discard("the body is not a number of milliseconds"))?;
        std::thread::sleep(Duration::from_millis(milliseconds));
        publish("out", "slept", &[])?;
        Ok(())
    }
}

haar_guest::export!(Sleeper);
