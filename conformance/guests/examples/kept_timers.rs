//! Sets timers that outlive it, by message: `once NAME MS`, `every NAME MS`, `cancel NAME`. Logs the
//! answer to each, and every tick as `NAME missed=N`. The tick of a timer whose name begins with
//! `fatal` ends the instance after it was logged. Logs `started` at its start.

use std::time::Duration;

use haar_guest::{Message, Microservice, Rejection, Tick, log, timers};

#[derive(Default)]
struct KeptTimers;

impl Microservice for KeptTimers {
    fn start(&mut self) -> Result<(), String> {
        log::info!("started");
        Ok(())
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let command = message.text()?;
        log::info!("{command}: {}", act(command)?);
        Ok(())
    }

    fn tick(&mut self, tick: Tick) -> Result<(), String> {
        log::info!("{} missed={}", tick.name, tick.missed);
        assert!(!tick.name.starts_with("fatal"), "as it was told to");
        Ok(())
    }
}

fn act(command: &str) -> Result<String, Rejection> {
    let words: Vec<&str> = command.split(' ').collect();
    let set = match words[..] {
        ["once", name, delay] => timers::keep_once(name, milliseconds(delay)?),
        ["every", name, period] => timers::keep_every(name, milliseconds(period)?),
        ["cancel", name] => return Ok(timers::cancel(name).to_string()),
        _ => return Err(Rejection::discard("the body is no command of this guest")),
    };
    Ok(set.map_or_else(|error| error.to_string(), |()| "set".to_owned()))
}

fn milliseconds(text: &str) -> Result<Duration, Rejection> {
    text.parse()
        .map(Duration::from_millis)
        .map_err(|_| Rejection::discard(format!("`{text}` is not a number of milliseconds")))
}

haar_guest::export!(KeptTimers);
