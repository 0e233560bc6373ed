//! Floods one thing after another, as fast as it can, for as long as it is told: `log MS`,
//! `publish MS BYTES`, `timers MS`. Logs nothing but the flood, publishes nothing but it.

use std::time::{Duration, Instant};

use haar_guest::{Message, Microservice, Rejection, Tick, log, publish, timers};

/// More timers than any limit lets pass.
const TIMERS: usize = 2_000;

#[derive(Default)]
struct Flood;

impl Microservice for Flood {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let words: Vec<&str> = message.text()?.split(' ').collect();
        match words[..] {
            ["log", time] => {
                let text = "a line of the flood, as long as lines are ".repeat(5);
                until(time, || log::info!("{text}"))
            }
            ["publish", time, bytes] => {
                let body = vec![b'x'; number(bytes)?];
                until(time, || {
                    let _ = publish("out", &body, &[]); // refusals are what a flood meets
                })
            }
            ["timers", time] => start_timers(time),
            _ => Err(Rejection::discard("the body is no command of this guest")),
        }
    }

    fn tick(&mut self, tick: Tick) -> Result<(), String> {
        if tick.name == "end" {
            for index in 0..TIMERS {
                timers::cancel(&name(index));
            }
        }
        Ok(())
    }
}

/// Sets timers until there are no more to be had, all of them as fast as can be, and one that ends
/// it.
fn start_timers(time: &str) -> Result<(), Rejection> {
    let milliseconds = number(time)?;
    let end = timers::once("end", Duration::from_millis(milliseconds as u64));
    end.map_err(|error| Rejection::discard(error.to_string()))?;
    for index in 0..TIMERS {
        if timers::every(&name(index), Duration::from_millis(1)).is_err() {
            break;
        }
    }
    Ok(())
}

fn name(index: usize) -> String {
    format!("timer-{index}")
}

fn until(time: &str, mut act: impl FnMut()) -> Result<(), Rejection> {
    let time = Duration::from_millis(number(time)? as u64);
    let began = Instant::now();
    while began.elapsed() < time {
        act();
    }
    Ok(())
}

fn number(text: &str) -> Result<usize, Rejection> {
    text.parse()
        .map_err(|_| Rejection::discard(format!("`{text}` is not a number")))
}

haar_guest::export!(Flood);
