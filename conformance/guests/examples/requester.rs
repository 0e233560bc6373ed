//! Sends requests and tells what came of them. The configuration `questions` is how many numbers it
//! asks for at the start, one request each, on the outlet `requests`; `timeout_ms` is how long it
//! waits for replies. Logs `NUMBER: REPLY` for each reply on the inlet `replies`, `NUMBER: no reply`
//! when its time has passed, and `not ours` for every other message.

use std::time::{Duration, Instant};

use haar_guest::request::Requests;
use haar_guest::{Message, Microservice, Rejection, Tick, config, log, timers};

struct Requester(Requests<u32>);

impl Default for Requester {
    fn default() -> Self {
        Self(Requests::new("requests"))
    }
}

impl Microservice for Requester {
    fn start(&mut self) -> Result<(), String> {
        let questions = config::parse("questions")?.unwrap_or(1);
        let timeout = Duration::from_millis(config::parse("timeout_ms")?.unwrap_or(60_000));
        timers::every("expire", Duration::from_millis(50))?;
        for number in 1..=questions {
            self.0.send(number.to_string(), &[], number, timeout)?;
        }
        Ok(())
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        match self.0.take_reply(&message) {
            Some(number) => log::info!("{number}: {}", message.text()?),
            None => log::info!("not ours"),
        }
        Ok(())
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        for number in self.0.expire(Instant::now()) {
            log::info!("{number}: no reply");
        }
        Ok(())
    }
}

haar_guest::export!(Requester);
