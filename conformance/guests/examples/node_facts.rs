//! Logs what it may know of its node, in one line: at the start and when a message comes.

use haar_guest::{Message, Microservice, Rejection, log, node};

#[derive(Default)]
struct NodeFacts;

impl Microservice for NodeFacts {
    fn start(&mut self) -> Result<(), String> {
        tell();
        Ok(())
    }

    fn handle(&mut self, _message: Message) -> Result<(), Rejection> {
        tell();
        Ok(())
    }
}

fn tell() {
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
        "id={} name={} site={} labels=[{}] location=[{place}] uptime_ms={} synchronised={}",
        facts.id,
        facts.name,
        facts.site,
        labels.join(" "),
        node::uptime().as_millis(),
        node::clock_synchronised(),
    );
}

haar_guest::export!(NodeFacts);
