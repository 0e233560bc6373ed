//! Reads one file again and again while somebody else swaps what its path means. The body of a
//! message is `PATH TIMES`; the answer on the outlet `out` counts what was read, as
//! `errors=N TEXT=N TEXT=N`, with the texts in order.

use std::collections::BTreeMap;
use std::fs;

use haar_guest::{Message, Microservice, Rejection, publish};

#[derive(Default)]
struct Race;

impl Microservice for Race {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let (path, times) = message
            .text()?
            .split_once(' ')
            .ok_or_else(|| Rejection::discard("write `PATH TIMES`"))?;
        let times: u32 = times
            .parse()
            .map_err(|_| Rejection::discard(format!("`{times}` is not a number")))?;
        let mut errors = 0;
        let mut texts: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..times {
            match fs::read_to_string(path) {
                Ok(text) => *texts.entry(text.trim().to_owned()).or_default() += 1,
                Err(_) => errors += 1,
            }
        }
        let mut answer = format!("errors={errors}");
        for (text, count) in texts {
            answer.push_str(&format!(" {text}={count}"));
        }
        publish("out", answer, &[])?;
        Ok(())
    }
}

haar_guest::export!(Race);
