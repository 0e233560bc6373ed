//! Never returns from a message whose body is `spin`: burns its fuel and its time. Logs any other
//! message, so that one can see it alive.

use haar_guest::{Message, Microservice, Rejection, log};

#[derive(Default)]
struct Spin;

impl Microservice for Spin {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        if message.body == b"spin" {
            loop {
                std::hint::black_box(&message.sequence);
            }
        }
        log::info!("handled {}", message.text()?);
        Ok(())
    }
}

haar_guest::export!(Spin);
