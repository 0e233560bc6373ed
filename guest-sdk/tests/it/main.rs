//! The SDK as a microservice's tests see it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod publishing;
mod ticking;
mod storing;
mod request;
#[cfg(feature = "json")]
mod json;

use std::time::Duration;

use haar_guest::log::Level;
use haar_guest::testing::{Harness, message};
use haar_guest::{
    Message, Microservice, Outgoing, Rejection, Tick, config, log, node, publish, publish_batch,
    timers,
};

/// Does what the text of a message says.
#[derive(Default)]
struct Obedient {
    changes: u32,
}

impl Microservice for Obedient {
    fn start(&mut self) -> Result<(), String> {
        match config::get("fail")? {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        match message.text()? {
            "publish" => {
                publish(
                    "out",
                    &message.body,
                    &[("attempt", &message.attempt.to_string())],
                )?;
            }
            "log" => {
                log::info!("from {}", message.source.node);
                log::warn!(context: "sensor", "{:.1} degrees", 21.55);
            }
            "timers" => {
                timers::once("soon", Duration::from_micros(1_500)).unwrap();
                timers::every("often", Duration::from_secs(2)).unwrap();
            }
            "cancel" => assert!(timers::cancel("often") && !timers::cancel("never")),
            "batch" => {
                let bodies = ["one", "two", "three"];
                let batch = bodies.map(|body| Outgoing {
                    body: body.as_bytes(),
                    headers: &[("kind", "number")],
                });
                let first = publish_batch("out", &batch)?;
                assert_eq!(publish_batch("out", &[])?, first + 3);
            }
            "node" => {
                let (facts, minutes) = (node::facts(), node::uptime().as_secs() / 60);
                let line = facts.label("line").unwrap_or("none").to_owned();
                let synchronised = node::clock_synchronised();
                publish(
                    "out",
                    format!("{} {line} {minutes} {synchronised}", facts.name),
                    &[],
                )?;
            }
            "keep" => {
                timers::keep_every("hourly", Duration::from_secs(3_600)).unwrap();
                timers::keep_once("later", Duration::from_secs(5)).unwrap();
                timers::once("later", Duration::from_secs(6)).unwrap();
            }
            "changes" => {
                publish("out", self.changes.to_string(), &[])?;
            }
            other => return Err(Rejection::retry(format!("`{other}` is not understood yet"))),
        }
        Ok(())
    }

    fn tick(&mut self, tick: Tick) -> Result<(), String> {
        publish(
            "out",
            format!("{} {} {}", tick.name, tick.scheduled_ms, tick.missed),
            &[],
        )?;
        Ok(())
    }

    fn configuration_changed(&mut self) -> Result<(), String> {
        self.changes = config::parse("changes")?.unwrap_or_default();
        Ok(())
    }

    fn stop(&mut self) {
        log::critical!("stopped");
    }
}

haar_guest::export!(Obedient);

#[derive(Default)]
struct Silent;

impl Microservice for Silent {}

fn obey(harness: &mut Harness<Obedient>, command: &str) {
    harness.deliver(message("in", command)).unwrap();
}

#[test]
fn logs_carry_level_context_and_text() {
    let mut harness = Harness::new();
    obey(&mut harness, "log");
    harness.stop();
    let lines: Vec<_> = harness
        .logs()
        .into_iter()
        .map(|line| (line.level, line.context, line.text))
        .collect();
    let expected = [
        (Level::Info, "", "from node-1"),
        (Level::Warn, "sensor", "21.6 degrees"),
        (Level::Critical, "", "stopped"),
    ];
    assert_eq!(
        lines,
        expected.map(|(level, context, text)| (level, context.to_owned(), text.to_owned()))
    );
}

#[test]
fn configuration_changes_live() {
    let mut harness = Harness::new().configure("changes", "1");
    harness.reconfigure("changes", "2").unwrap();
    obey(&mut harness, "changes");
    assert_eq!(harness.published()[0].text(), "2");
}

#[test]
fn a_value_that_cannot_be_parsed_is_named_with_its_key() {
    let error = Harness::<Obedient>::new()
        .reconfigure("changes", "some")
        .unwrap_err();
    assert_eq!(
        error,
        "the configuration `changes` cannot be `some`: invalid digit found in string"
    );
}

#[test]
fn a_start_that_fails_says_why() {
    assert_eq!(
        Harness::<Obedient>::new()
            .configure("fail", "no sensor")
            .start()
            .unwrap_err(),
        "no sensor"
    );
}

#[test]
#[should_panic(expected = "the microservice did not start: no sensor")]
fn a_call_into_a_microservice_that_does_not_start_fails_the_test() {
    obey(&mut Harness::new().configure("fail", "no sensor"), "log");
}

#[test]
fn a_body_that_is_no_text_is_discarded() {
    let rejection = Harness::<Obedient>::new()
        .deliver(message("in", [0xff]))
        .unwrap_err();
    assert!(matches!(rejection, Rejection::Discard(_)), "{rejection}");
}

#[test]
fn defaults_name_what_they_did_not_expect() {
    let mut harness = Harness::<Silent>::new();
    let rejection = harness.deliver(message("in", "")).unwrap_err();
    let expected =
        Rejection::discard("this microservice handles no messages, and got one on the inlet `in`");
    assert_eq!(rejection, expected);
    harness.reconfigure("any", "value").unwrap();
    harness.stop();
}

#[test]
fn after_a_stop_the_next_call_starts_a_new_one() {
    let mut harness = Harness::new();
    harness.reconfigure("changes", "3").unwrap();
    obey(&mut harness, "timers");
    harness.stop();
    assert!(harness.timers().is_empty());
    obey(&mut harness, "changes");
    assert_eq!(harness.published()[0].text(), "0");
}

#[test]
fn a_test_says_what_the_node_is() {
    let mut harness = Harness::new();
    obey(&mut harness, "keep");
    harness.tick("hourly").unwrap();
    harness.published();
    obey(&mut harness, "node");
    harness.set_node(node::Facts {
        id: "n-1".to_owned(),
        name: "hall".to_owned(),
        site: "s-1".to_owned(),
        labels: vec![("line".to_owned(), "7".to_owned())],
        location: None,
    });
    harness.set_clock_synchronised(false);
    obey(&mut harness, "node");
    let told: Vec<_> = harness.published().iter().map(|one| one.text()).collect();
    assert_eq!(told, ["node-1 none 60 true", "hall 7 60 false"]);
}

#[test]
fn headers_are_found_by_name_the_first_one_first() {
    let headers = [("a", "1"), ("b", "2"), ("b", "3")];
    let headers = headers
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    let message = Message {
        headers,
        ..message("in", "")
    };
    assert_eq!(
        (message.header("b"), message.header("c")),
        (Some("2"), None)
    );
}
