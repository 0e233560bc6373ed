//! Takes its time to stop: as many milliseconds as the configuration `stop_ms` says. Logs `stopping`
//! before and `stopped` after.

use std::time::Duration;

use haar_guest::{Microservice, config, log};

#[derive(Default)]
struct Stopper {
    stop: Duration,
}

impl Microservice for Stopper {
    fn start(&mut self) -> Result<(), String> {
        self.stop = Duration::from_millis(config::parse("stop_ms")?.unwrap_or_default());
        Ok(())
    }

    fn stop(&mut self) {
        log::info!("stopping");
        std::thread::sleep(self.stop);
        log::info!("stopped");
    }
}

haar_guest::export!(Stopper);
