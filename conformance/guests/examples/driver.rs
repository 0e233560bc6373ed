//! The voice of the conformance suite inside a node: says on an outlet what its configuration tells
//! it, and logs what enters its inlets, each message as one line of JSON.
//!
//! | key | meaning | default |
//! | --- | --- | --- |
//! | `say` | messages, one a line | none |
//! | `round` | anything; the messages are said again when it changes | none |
//! | `outlet` | where they are said | `out` |
//! | `every_ms` | says them again and again with this pause, until the configuration changes | once |
//! | `quiet` | `true`: what comes in is not logged | `false` |

use std::time::Duration;

use haar_guest::{
    Message, Microservice, PublishError, Rejection, Tick, config, log, publish, timers,
};

/// Characters of a body that are logged.
const TEXT_CHARACTERS_MAX: usize = 1_000;
/// The pause before another attempt when nothing can be published yet.
const NOT_READY_PAUSE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Driver {
    round: String,
    is_quiet: bool,
}

impl Microservice for Driver {
    fn start(&mut self) -> Result<(), String> {
        self.begin()
    }

    fn configuration_changed(&mut self) -> Result<(), String> {
        self.begin()
    }

    fn tick(&mut self, _tick: Tick) -> Result<(), String> {
        say()
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        if !self.is_quiet {
            log::info!("{}", self.line(&message));
        }
        Ok(())
    }
}

impl Driver {
    fn begin(&mut self) -> Result<(), String> {
        timers::cancel("say");
        self.is_quiet = config::parse("quiet")?.unwrap_or(false);
        self.round = config::get("round")?.unwrap_or_default();
        if let Some(pause_ms) = config::parse("every_ms")? {
            timers::every("say", Duration::from_millis(pause_ms))?;
        }
        say()
    }

    fn line(&self, message: &Message) -> String {
        let source = &message.source;
        let source = format!(
            "{}/{}/{}.{}",
            source.node, source.application, source.microservice, source.outlet
        );
        let headers: Vec<String> = message
            .headers
            .iter()
            .map(|(name, value)| format!("{}:{}", quoted(name), quoted(value)))
            .collect();
        format!(
            "{{\"round\":{},\"inlet\":{},\"source\":{},\"sequence\":{},\"attempt\":{},\"type\":{},\"headers\":{{{}}},\"text\":{}}}",
            quoted(&self.round),
            quoted(&message.inlet),
            quoted(&source),
            message.sequence,
            message.attempt,
            quoted(&message.content_type),
            headers.join(","),
            quoted(&String::from_utf8_lossy(&message.body))
        )
    }
}

fn say() -> Result<(), String> {
    let outlet = config::get("outlet")?.unwrap_or_else(|| "out".to_owned());
    let is_repeated = config::get("every_ms")?.is_some();
    for line in config::get("say")?.unwrap_or_default().lines() {
        match publish(&outlet, line, &[]) {
            Ok(_) => {}
            Err(PublishError::RateLimited { .. }) if is_repeated => {} // it is what attacks meet
            Err(PublishError::NotReady) => {
                timers::once("say", NOT_READY_PAUSE)?;
                break;
            }
            Err(error) => log::error!("{error}"),
        }
    }
    Ok(())
}

/// A text as JSON, cut where it is long.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars().take(TEXT_CHARACTERS_MAX) {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

haar_guest::export!(Driver);
