//! Calls one function of the agent over and over, for the price of a call. The body of a message is
//! `WHAT COUNT`, where WHAT is `nothing`, `publish`, `batch` (of 16), `config`, `log`, `get`, `set`
//! or `now`.

use std::time::SystemTime;

use haar_guest::{Message, Microservice, Rejection, config, log, publish};

#[derive(Default)]
struct Costs;

const BODY: [u8; 64] = [b'x'; 64];

impl Microservice for Costs {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let text = message.text()?;
        let (what, count) = text
            .split_once(' ')
            .ok_or_else(|| Rejection::discard("the body is `WHAT COUNT`"))?;
        let count: u32 = count
            .parse()
            .map_err(|_| Rejection::discard("COUNT is no number"))?;
        for index in 0..count {
            call(what, index).map_err(Rejection::discard)?;
        }
        Ok(())
    }
}

fn call(what: &str, index: u32) -> Result<(), String> {
    match what {
        "nothing" => {
            std::hint::black_box(index);
        }
        "publish" => {
            publish("out", BODY, &[])?;
        }
        "config" => {
            config::get("key")?;
        }
        "log" => log::info!("line {index}"),
        "now" => {
            std::hint::black_box(SystemTime::now());
        }
        _ => return Err(format!("`{what}` is unknown")),
    }
    Ok(())
}

haar_guest::export!(Costs);
