//! Publishes on the outlet `out`, steadily or all at once, by its configuration:
//!
//! | key | meaning | default |
//! | --- | --- | --- |
//! | `period_ms` | time between two ticks | 1000 |
//! | `messages` | how many messages per tick | 1 |
//! | `size` | bytes of a body, at least 16 | 64 |
//! | `burst` | publish so many, as fast as possible, in one tick `period_ms` after the start, and nothing more | none |
//! | `total` | stop after so many messages | none |
//!
//! A body begins with a counter from 1 up and the time in nanoseconds since 1970, each as 8 bytes,
//! big-endian. A burst ends with a log line: `burst messages=N refused=N microseconds=N`.

use std::time::{Duration, Instant, SystemTime};

use haar_guest::{Microservice, PublishError, Tick, config, log, publish, timers};

const BODY_BYTES_MIN: usize = 16;

#[derive(Default)]
struct Source {
    body: Vec<u8>,
    messages: u64,
    burst: Option<u64>,
    total: Option<u64>,
    counter: u64,
    refused: u64,
}

impl Microservice for Source {
    fn start(&mut self) -> Result<(), String> {
        let period = Duration::from_millis(config::parse("period_ms")?.unwrap_or(1_000));
        self.messages = config::parse("messages")?.unwrap_or(1);
        self.burst = config::parse("burst")?;
        self.total = config::parse("total")?;
        self.body = vec![b'.'; config::parse("size")?.unwrap_or(64).max(BODY_BYTES_MIN)];
        if self.burst.is_some() {
            timers::once("burst", period)?;
        } else {
            timers::every("publish", period)?;
        }
        Ok(())
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        if let Some(burst) = self.burst {
            return self.publish_burst(burst);
        }
        for _ in 0..self.messages {
            if self.total.is_some_and(|total| self.counter >= total) {
                timers::cancel("publish");
                break;
            }
            self.publish_one()
                .map_err(|error| format!("message {}: {error}", self.counter + 1))?;
        }
        Ok(())
    }
}

impl Source {
    fn publish_burst(&mut self, burst: u64) -> Result<(), String> {
        let began = Instant::now();
        while self.counter + self.refused < burst {
            match self.publish_one() {
                Ok(()) => {}
                Err(PublishError::RateLimited { .. } | PublishError::BacklogFull) => {
                    self.refused += 1
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        let microseconds = began.elapsed().as_micros();
        log::info!(
            "burst messages={} refused={} microseconds={microseconds}",
            self.counter,
            self.refused
        );
        Ok(())
    }

    fn publish_one(&mut self) -> Result<(), PublishError> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.body[..8].copy_from_slice(&(self.counter + 1).to_be_bytes());
        self.body[8..BODY_BYTES_MIN].copy_from_slice(&nanoseconds.to_be_bytes());
        publish("out", &self.body, &[])?;
        self.counter += 1;
        Ok(())
    }
}

haar_guest::export!(Source);
