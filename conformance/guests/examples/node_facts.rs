//! Logs what it may know of its node and of time, in one line: at the start and when a message
//! comes.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Instant, SystemTime};

use haar_guest::{Message, Microservice, Rejection, log, node};

#[derive(Default)]
struct NodeFacts {
    started: Option<Instant>,
}

impl Microservice for NodeFacts {
    fn start(&mut self) -> Result<(), String> {
        tell(*self.started.insert(Instant::now()));
        Ok(())
    }

    fn handle(&mut self, _message: Message) -> Result<(), Rejection> {
        if let Some(started) = self.started {
            tell(started);
        }
        Ok(())
    }
}

fn tell(started: Instant) {
    let facts = node::facts();
    let labels: Vec<String> = facts
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let place = facts.location.map_or_else(String::new, |place| {
        format!(
            "{} {} {:?}",
            place.latitude, place.longitude, place.altitude
        )
    });
    log::info!(
        "id={} name={} site={} labels=[{}] location=[{place}] uptime_ms={} synchronised={} time_ms={} since_start_ns={} random={}",
        facts.id,
        facts.name,
        facts.site,
        labels.join(" "),
        node::uptime().as_millis(),
        node::clock_synchronised(),
        SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_millis(),
        started.elapsed().as_nanos(),
        RandomState::new().hash_one(0),
    );
}

haar_guest::export!(NodeFacts);
