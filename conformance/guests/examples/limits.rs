//! Goes to its limits, and publishes the agent's last answer on the outlet `out`. The body of a
//! message is `publish OUTLET BYTES COUNT`, `log COUNT` or `timers COUNT`. The answer is `ok` or
//! the text of the error, after the number of times that went well: `7 ok`.

use std::fmt::Display;
use std::time::Duration;

use haar_guest::{Message, Microservice, Rejection, log, publish, timers};

#[derive(Default)]
struct Limits;

impl Microservice for Limits {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let words: Vec<&str> = message.text()?.split(' ').collect();
        let answer = match words[..] {
            ["publish", outlet, bytes, count] => {
                let body = vec![b'x'; number(bytes)?];
                until_refused(number(count)?, |_| publish(outlet, &body, &[]).map(|_| ()))
            }
            ["log", count] => until_refused(number(count)?, |index| {
                log::info!("line {index}");
                Ok::<(), String>(())
            }),
            ["timers", count] => until_refused(number(count)?, |index| {
                timers::once(&format!("timer-{index}"), Duration::from_secs(3_600))
            }),
            _ => return Err(Rejection::discard("the body is no command of this guest")),
        };
        publish("out", answer, &[])?;
        Ok(())
    }
}

fn until_refused<E: Display>(count: usize, mut act: impl FnMut(usize) -> Result<(), E>) -> String {
    for index in 0..count {
        if let Err(error) = act(index) {
            return format!("{index} {error}");
        }
    }
    format!("{count} ok")
}

fn number(text: &str) -> Result<usize, Rejection> {
    text.parse()
        .map_err(|_| Rejection::discard(format!("`{text}` is not a number")))
}

haar_guest::export!(Limits);
