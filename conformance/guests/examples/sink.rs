//! Counts what enters its inlets and checks the order of every source. Logs the counts every
//! `report_ms` of its configuration (1000 by default) and at the end, as one line:
//!
//! `messages=N bytes=N sources=N missing=N disordered=N mean_us=N p50_us=N p99_us=N p999_us=N max_us=N`
//!
//! `missing` counts the numbers that were jumped over, `disordered` messages that came again or too
//! late. The times are from publishing to handling, for bodies of the guest `source`; percentiles are
//! of the first 20,000 of them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use haar_guest::{Message, Microservice, Rejection, Tick, config, log, timers};

#[derive(Default)]
struct Sink {
    /// The last sequence of every source, by node, application, microservice and outlet.
    last: BTreeMap<[String; 4], u64>,
    messages: u64,
    bytes: u64,
    missing: u64,
    disordered: u64,
    timed: u64,
    sum_us: u64,
    max_us: u64,
    samples_us: Vec<u64>,
}

/// Times that percentiles are made of.
const SAMPLES_MAX: usize = 20_000;

impl Microservice for Sink {
    fn start(&mut self) -> Result<(), String> {
        let report = Duration::from_millis(config::parse("report_ms")?.unwrap_or(1_000));
        Ok(timers::every("report", report)?)
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        self.messages += 1;
        self.bytes += message.body.len() as u64;
        if let Some(latency_us) = latency_us(&message.body) {
            self.timed += 1;
            self.sum_us += latency_us;
            self.max_us = self.max_us.max(latency_us);
            if self.samples_us.len() < SAMPLES_MAX {
                self.samples_us.push(latency_us);
            }
        }
        let source = &message.source;
        let last = self
            .last
            .entry([
                source.node.clone(),
                source.application.clone(),
                source.microservice.clone(),
                source.outlet.clone(),
            ])
            .or_insert(message.sequence.saturating_sub(1));
        if message.sequence <= *last {
            self.disordered += 1;
        } else {
            self.missing += message.sequence - *last - 1;
            *last = message.sequence;
        }
        Ok(())
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        self.report();
        Ok(())
    }

    fn stop(&mut self) {
        self.report();
    }
}

impl Sink {
    fn report(&mut self) {
        self.samples_us.sort_unstable();
        let percentile = |per_mille: usize| {
            let last = self.samples_us.len().saturating_sub(1);
            self.samples_us
                .get(last * per_mille / 1_000)
                .copied()
                .unwrap_or(0)
        };
        log::info!(
            "messages={} bytes={} sources={} missing={} disordered={} mean_us={} p50_us={} p99_us={} p999_us={} max_us={}",
            self.messages,
            self.bytes,
            self.last.len(),
            self.missing,
            self.disordered,
            self.sum_us.checked_div(self.timed).unwrap_or(0),
            percentile(500),
            percentile(990),
            percentile(999),
            self.max_us
        );
    }
}

/// Time since the nanoseconds in the second eight bytes of a body of the guest `source`.
fn latency_us(body: &[u8]) -> Option<u64> {
    let bytes: [u8; 8] = body.get(8..16)?.try_into().ok()?;
    let published = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::from_be_bytes(bytes));
    let latency = SystemTime::now().duration_since(published).ok()?;
    u64::try_from(latency.as_micros()).ok()
}

haar_guest::export!(Sink);
