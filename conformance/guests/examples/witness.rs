//! Writes each message that it handles, whole, as one line of JSON into `seen` in the granted
//! directory `/witness`, and publishes it again on `out` when its configuration has `repeat: true`.
//!
//! A line: `{"inlet", "source", "sequence", "attempt", "type", "headers": [[name, value]], "body"}`,
//! with the body in hexadecimal and the source as `MICROSERVICE.OUTLET`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use haar_guest::{Message, Microservice, Rejection, config, publish};
use serde_json::json;

const SEEN: &str = "/witness/seen";

#[derive(Default)]
struct Witness {
    seen: Option<File>,
    repeats: bool,
}

impl Microservice for Witness {
    fn start(&mut self) -> Result<(), String> {
        self.repeats = config::parse("repeat")?.unwrap_or(false);
        let seen = OpenOptions::new().append(true).create(true).open(SEEN);
        self.seen = Some(seen.map_err(|error| format!("{SEEN}: {error}"))?);
        Ok(())
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        self.note(&message).map_err(Rejection::retry)?;
        if self.repeats {
            let headers = message.headers.iter();
            let headers = headers.map(|(name, value)| (name.as_str(), value.as_str()));
            publish("out", &message.body, &headers.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

impl Witness {
    fn note(&mut self, message: &Message) -> Result<(), String> {
        let body: String = message
            .body
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let line = json!({
            "inlet": message.inlet.as_str(),
            "source": format!("{}.{}", message.source.microservice, message.source.outlet),
            "sequence": message.sequence,
            "attempt": message.attempt,
            "type": message.content_type.as_str(),
            "headers": message.headers,
            "body": body,
        });
        let seen = self.seen.as_mut().ok_or("the file is not open")?;
        let written = seen.write_all(format!("{line}\n").as_bytes());
        written.map_err(|error| format!("{SEEN}: {error}"))
    }
}

haar_guest::export!(Witness);
