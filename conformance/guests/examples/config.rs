//! Publishes its configuration on the outlet `out`, at the start and whenever it changes: one
//! `key=value` in a line, sorted, with a header `because` that is `start` or `changed`.

use std::time::Duration;

use haar_guest::{Microservice, PublishError, Tick, config, publish, timers};

#[derive(Default)]
struct Config;

impl Microservice for Config {
    fn start(&mut self) -> Result<(), String> {
        tell("start")
    }

    fn configuration_changed(&mut self) -> Result<(), String> {
        tell("changed")
    }

    fn tick(&mut self, tick: Tick) -> Result<(), String> {
        tell(&tick.name)
    }
}

/// Tells the configuration now or, where routes come up after the start, a little later.
fn tell(because: &str) -> Result<(), String> {
    let mut lines: Vec<String> = config::get_all()?
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    lines.sort();
    match publish("out", lines.join("\n"), &[("because", because)]) {
        Err(PublishError::NotReady) => Ok(timers::once(because, Duration::from_millis(50))?),
        published => Ok(published.map(|_| ())?),
    }
}

haar_guest::export!(Config);
