//! Sets timers by message: `once NAME MS`, `every NAME MS`, `cancel NAME`; `busy MS` keeps it from
//! being called for so long. Publishes on the outlet `out` every tick as `NAME missed=N`, and what
//! came of every message as text with a header `answer`.

use std::thread::sleep;
use std::time::Duration;

use haar_guest::{Message, Microservice, Rejection, Tick, publish, timers};

#[derive(Default)]
struct Timers;

impl Microservice for Timers {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let answer = act(message.text()?)?;
        publish("out", answer, &[("answer", message.text()?)])?;
        Ok(())
    }

    fn tick(&mut self, tick: Tick) -> Result<(), String> {
        publish("out", format!("{} missed={}", tick.name, tick.missed), &[])?;
        Ok(())
    }
}

fn act(command: &str) -> Result<String, Rejection> {
    let words: Vec<&str> = command.split(' ').collect();
    let answer = match words[..] {
        ["once", name, delay] => {
            timers::once(name, milliseconds(delay)?).map(|()| "set".to_owned())
        }
        ["every", name, period] => {
            timers::every(name, milliseconds(period)?).map(|()| "set".to_owned())
        }
        ["cancel", name] => Ok(timers::cancel(name).to_string()),
        ["busy", time] => {
            sleep(milliseconds(time)?);
            Ok("was busy".to_owned())
        }
        _ => {
            return Err(Rejection::discard(format!(
                "`{command}` is no command of this guest"
            )));
        }
    };
    Ok(answer.unwrap_or_else(|error| error.to_string()))
}

fn milliseconds(text: &str) -> Result<Duration, Rejection> {
    text.parse()
        .map(Duration::from_millis)
        .map_err(|_| Rejection::discard(format!("`{text}` is not a number of milliseconds")))
}

haar_guest::export!(Timers);
