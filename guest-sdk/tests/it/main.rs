//! The SDK as a microservice's tests see it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::time::Duration;

use haar_guest::log::Level;
use haar_guest::testing::{Harness, Timer, message};
use haar_guest::{
    Message, Microservice, Outgoing, PublishError, Rejection, Tick, config, log, node, publish,
    publish_batch, timers,
};

mod request;

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
fn what_is_published_carries_outlet_headers_and_a_sequence_from_one() {
    let mut harness = Harness::new();
    obey(&mut harness, "publish");
    obey(&mut harness, "publish");
    let published = harness.published();
    assert_eq!(
        published
            .iter()
            .map(|message| message.sequence)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(published[0].outlet, "out");
    assert_eq!(
        published[0].headers,
        [("attempt".to_owned(), "1".to_owned())]
    );
    assert_eq!(
        harness.published(),
        [],
        "what was asked once is not told again"
    );
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
fn timers_count_parts_of_a_millisecond_as_whole_ones_and_go_by_name() {
    let mut harness = Harness::new();
    obey(&mut harness, "timers");
    assert_eq!(
        harness.timers()["soon"],
        Timer::Once(Duration::from_millis(2))
    );
    assert_eq!(
        harness.timers()["often"],
        Timer::Every(Duration::from_secs(2))
    );
    obey(&mut harness, "cancel");
    assert!(!harness.timers().contains_key("often"));
}

#[test]
fn a_timer_that_ticks_once_is_gone_and_time_goes_on_with_the_others() {
    let mut harness = Harness::new();
    obey(&mut harness, "timers");
    harness.tick("often").unwrap();
    harness.tick_late("often", 2).unwrap();
    harness.tick("soon").unwrap();
    assert_eq!(harness.timers().len(), 1);
    let ticks: Vec<_> = harness
        .published()
        .iter()
        .map(|message| message.text())
        .collect();
    assert_eq!(
        ticks,
        [
            "often 1700000002000 0",
            "often 1700000008000 2",
            "soon 1700000008002 0"
        ]
    );
}

#[test]
#[should_panic(expected = "no timer `never` is set")]
fn a_timer_that_is_not_set_cannot_tick() {
    let _ = Harness::<Obedient>::new().tick("never");
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
fn a_message_is_wanted_again_when_only_the_moment_kept_it_from_being_published() {
    let mut harness = Harness::<Obedient>::new();
    for (error, again) in [
        (PublishError::UnknownOutlet, false),
        (PublishError::TooLarge { limit_bytes: 10 }, false),
        (PublishError::TooMany { limit: 10 }, false),
        (PublishError::RateLimited { retry_ms: 5 }, true),
        (PublishError::BacklogFull, true),
        (PublishError::NotReady, true),
    ] {
        harness.refuse_publishing(Some(error));
        let rejection = harness.deliver(message("in", "publish")).unwrap_err();
        assert_eq!(
            matches!(rejection, Rejection::Retry(_)),
            again,
            "{rejection}"
        );
    }
    harness.refuse_publishing(None);
    obey(&mut harness, "publish");
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
fn a_batch_is_numbered_in_its_order_and_refused_as_a_whole() {
    let mut harness = Harness::new();
    obey(&mut harness, "batch");
    let published = harness.published();
    let numbered: Vec<_> = published
        .iter()
        .map(|message| (message.sequence, message.text()))
        .collect();
    let expected = [(1, "one"), (2, "two"), (3, "three")];
    assert_eq!(
        numbered,
        expected.map(|(number, text)| (number, text.to_owned()))
    );
    assert_eq!(
        published[2].headers,
        [("kind".to_owned(), "number".to_owned())]
    );
    harness.refuse_publishing(Some(PublishError::BacklogFull));
    assert!(harness.deliver(message("in", "batch")).is_err());
    assert_eq!(harness.published(), []);
}

#[test]
fn a_timer_that_is_kept_outlives_the_microservice_until_it_is_replaced_or_cancelled() {
    let mut harness = Harness::new();
    obey(&mut harness, "keep");
    harness.stop();
    let kept = [(
        "hourly".to_owned(),
        Timer::Every(Duration::from_secs(3_600)),
    )];
    assert_eq!(harness.timers(), kept.into());
    harness.tick_late("hourly", 2).unwrap();
    assert_eq!(harness.published()[0].text(), "hourly 1700010800000 2");
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
#[should_panic(expected = "where there is no agent: in tests call the microservice through")]
fn publishing_outside_of_a_harness_says_what_to_do() {
    let _ = publish("out", "body", &[]);
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

#[cfg(feature = "json")]
mod json {
    use haar_guest::json;

    use super::*;

    #[derive(Default)]
    struct Doubler;

    impl Microservice for Doubler {
        fn handle(&mut self, message: Message) -> Result<(), Rejection> {
            let numbers: Vec<i64> = message.json()?;
            json::publish(
                "out",
                &numbers.iter().map(|number| number * 2).collect::<Vec<_>>(),
            )?;
            Ok(())
        }
    }

    #[test]
    fn bodies_are_values() {
        let mut harness = Harness::<Doubler>::new();
        harness.deliver(message("in", "[1, 2]")).unwrap();
        assert_eq!(harness.published()[0].json::<Vec<i64>>(), [2, 4]);
    }

    #[test]
    fn a_body_of_another_type_is_discarded_with_the_place_of_the_mistake() {
        let rejection = Harness::<Doubler>::new()
            .deliver(message("in", r#"[1, "two"]"#))
            .unwrap_err();
        let Rejection::Discard(text) = rejection else {
            panic!("{rejection}")
        };
        assert!(text.contains("line 1 column 9"), "{text}");
    }
}
