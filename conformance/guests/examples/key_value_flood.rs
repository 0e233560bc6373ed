//! Stores as much as it can, as fast as it can: every 10 ms up to a thousand values of `bytes`
//! (1000 by default) under new keys, until it is refused. Logs each kind of refusal once.

use std::collections::BTreeSet;
use std::time::Duration;

use haar_guest::key_value::{self, Bucket, KeyValueError};
use haar_guest::{Microservice, Tick, config, log, timers};

#[derive(Default)]
struct KeyValueFlood {
    bytes: usize,
    bucket: Option<Bucket>,
    stored: u64,
    refusals: BTreeSet<String>,
}

impl Microservice for KeyValueFlood {
    fn start(&mut self) -> Result<(), String> {
        self.bucket = Some(key_value::open("")?);
        self.bytes = config::parse("bytes")?.unwrap_or(1_000);
        Ok(timers::every("flood", Duration::from_millis(10))?)
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        if let Err(error) = self.flood() {
            let text = error.to_string();
            let kind: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
            if self.refusals.insert(kind) {
                log::info!("refused after {}: {text}", self.stored);
            }
        }
        Ok(())
    }
}

impl KeyValueFlood {
    fn flood(&mut self) -> Result<(), KeyValueError> {
        let Some(bucket) = &self.bucket else {
            return Ok(());
        };
        for _ in 0..1_000 {
            bucket.set(&self.stored.to_string(), vec![0; self.bytes])?;
            self.stored += 1;
        }
        Ok(())
    }
}

haar_guest::export!(KeyValueFlood);
