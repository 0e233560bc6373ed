//! A well-behaved neighbour that measures how it is served: sends itself a message over a route
//! through an echo every few milliseconds, and takes the time until it handles the answer. What it
//! measured is one log line of JSON for each phase:
//!
//! `{"phase":"…","samples":N,"lost":N,"p50_ns":N,"p99_ns":N,"max_ns":N,"spread":{"…":N}}`
//!
//! `spread` says how many took how long, so that phases can be put together: a key K stands for
//! 1.02 to the power of K nanoseconds.
//!
//! | key | meaning | default |
//! | --- | --- | --- |
//! | `phase` | what is measured; when it changes, measuring begins anew. Nothing is measured without | none |
//! | `samples` | messages of a phase | 500 |
//! | `period_ms` | time between two messages | 2 |

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use haar_guest::{
    Message, Microservice, PublishError, Rejection, Tick, config, log, publish, timers,
};

/// Steps of the spread: 2 %.
const STEP: f64 = 1.02;

/// Messages at the beginning of a phase that are not counted: the change of the configuration
/// itself disturbs them.
const WARM_UP: usize = 25;

#[derive(Default)]
struct Probe {
    epoch: Option<Instant>,
    phase: Option<String>,
    /// Counts the phases, so that late answers of another one are told apart.
    number: u64,
    wanted: usize,
    sent: usize,
    warm: usize,
    samples_ns: Vec<u64>,
}

impl Microservice for Probe {
    fn start(&mut self) -> Result<(), String> {
        self.epoch = Some(Instant::now());
        let period_ms = config::parse("period_ms")?.unwrap_or(2);
        timers::every("send", Duration::from_millis(period_ms))?;
        self.configuration_changed()
    }

    fn configuration_changed(&mut self) -> Result<(), String> {
        let phase = config::get("phase")?;
        if phase != self.phase {
            self.phase = phase;
            self.number += 1;
            self.sent = 0;
            self.warm = 0;
            self.samples_ns.clear();
        }
        self.wanted = config::parse("samples")?.unwrap_or(500);
        Ok(())
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        if self.phase.is_none() || self.samples_ns.len() >= self.wanted {
            return Ok(());
        }
        let mut body = [0; 16];
        body[..8].copy_from_slice(&self.number.to_be_bytes());
        body[8..].copy_from_slice(&self.now_ns().to_be_bytes());
        match publish("out", body, &[]) {
            Ok(_) => self.sent += 1,
            Err(PublishError::NotReady) => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let now_ns = self.now_ns();
        let [Some(number), Some(sent_ns)] = [0, 8].map(|at| number(&message.body, at)) else {
            return Err(Rejection::discard("not a message of the probe"));
        };
        if number != self.number || self.phase.is_none() || self.samples_ns.len() >= self.wanted {
            return Ok(());
        }
        if self.warm < WARM_UP {
            self.warm += 1;
            return Ok(());
        }
        self.samples_ns.push(now_ns.saturating_sub(sent_ns));
        if self.samples_ns.len() == self.wanted {
            self.report();
        }
        Ok(())
    }
}

impl Probe {
    fn now_ns(&self) -> u64 {
        let elapsed = self.epoch.map(|epoch| epoch.elapsed()).unwrap_or_default();
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    fn report(&mut self) {
        let mut sorted = self.samples_ns.clone();
        sorted.sort_unstable();
        let percentile = |percent: usize| {
            let last = sorted.len().saturating_sub(1);
            sorted.get(last * percent / 100).copied().unwrap_or(0)
        };
        let answered = self.warm + self.samples_ns.len();
        log::info!(
            "{{\"phase\":\"{}\",\"samples\":{},\"lost\":{},\"p50_ns\":{},\"p99_ns\":{},\"max_ns\":{},\"spread\":{{{}}}}}",
            self.phase.as_deref().unwrap_or_default(),
            sorted.len(),
            self.sent.saturating_sub(answered),
            percentile(50),
            percentile(99),
            sorted.last().copied().unwrap_or(0),
            spread(&sorted)
        );
    }
}

/// The step of two percent that a time lies next to.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a logarithm of a time is small and not negative"
)]
fn step(ns: u64) -> u32 {
    (ns.max(1) as f64).log(STEP).round() as u32
}

/// How many took how long, as members of a JSON object.
fn spread(samples_ns: &[u64]) -> String {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for ns in samples_ns {
        let key = step(*ns);
        *counts.entry(key).or_default() += 1;
    }
    let members: Vec<String> = counts
        .iter()
        .map(|(key, count)| format!("\"{key}\":{count}"))
        .collect();
    members.join(",")
}

fn number(body: &[u8], at: usize) -> Option<u64> {
    let bytes = body.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

haar_guest::export!(Probe);
