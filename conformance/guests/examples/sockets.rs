//! Imports `wasi:sockets`, which no grant of this release offers: it must be refused before it runs.
//! Where it does run, it connects to the `ADDRESS:PORT` in the body of a message and logs the
//! outcome.

use std::net::TcpStream;

use haar_guest::{Message, Microservice, Rejection, log};

#[derive(Default)]
struct Sockets;

impl Microservice for Sockets {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        match TcpStream::connect(message.text()?) {
            Ok(_) => log::error!("connected, without a grant"),
            Err(error) => log::info!("refused: {error}"),
        }
        Ok(())
    }
}

haar_guest::export!(Sockets);
