//! Calls one function of the agent over and over, for the price of a call. The body of a message is
//! `WHAT COUNT`, where WHAT is `nothing`, `publish`, `batch` (of 16), `config`, `log`, `get`, `set`
//! or `now`.

use std::time::SystemTime;

use haar_guest::key_value::{self, Bucket};
use haar_guest::{Message, Microservice, Outgoing, Rejection, config, log, publish, publish_batch};

#[derive(Default)]
struct Costs {
    /// Opened when it is needed first.
    bucket: Option<Bucket>,
}

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
            self.call(what, index).map_err(Rejection::discard)?;
        }
        Ok(())
    }
}

impl Costs {
    fn bucket(&mut self) -> Result<&Bucket, String> {
        match &mut self.bucket {
            Some(bucket) => Ok(bucket),
            empty => Ok(empty.insert(key_value::open("")?)),
        }
    }

    fn call(&mut self, what: &str, index: u32) -> Result<(), String> {
        match what {
            "batch" => {
                let message = Outgoing {
                    body: &BODY,
                    headers: &[],
                };
                publish_batch("out", &[message; 16])?;
            }
            "get" => {
                self.bucket()?.get("key")?;
            }
            "set" => self.bucket()?.set("key", BODY)?,
            _ => return call(what, index),
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
