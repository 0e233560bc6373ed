//! Logs a line of every level ten times a second, on standard output and standard error too. Each
//! says its level, or the stream that it goes to.

use std::time::Duration;

use haar_guest::{Microservice, Tick, log, timers};

#[derive(Default)]
struct Levels;

impl Microservice for Levels {
    fn start(&mut self) -> Result<(), String> {
        Ok(timers::every("log", Duration::from_millis(100))?)
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        log::trace!("trace");
        log::debug!("debug");
        log::info!("info");
        log::warn!("warn");
        log::error!("error");
        log::critical!("critical");
        println!("stdout");
        eprintln!("stderr");
        Ok(())
    }
}

haar_guest::export!(Levels);
