//! Key-value data and histories as a microservice's tests see them.

use haar_guest::history::{HistoryError, Query};
use haar_guest::testing::{Harness, message};
use haar_guest::{Message, Microservice, Rejection, key_value, publish};

/// Counts messages by body, and answers `history` with what came before.
#[derive(Default)]
struct Counter;

impl Microservice for Counter {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        let bucket = key_value::open("")?;
        match message.text()? {
            "history" => {
                let query = Query {
                    newest_first: true,
                    ..Query::inlet("in")
                };
                for earlier in query.messages().skip(1) {
                    let earlier = earlier.map_err(|error| Rejection::retry(error.to_string()))?;
                    publish("out", &earlier.body, &[])?;
                }
            }
            "swap" => {
                assert!(!bucket.compare_and_swap("a", None, "never")?);
                assert!(bucket.compare_and_swap("a", Some(b"2"), "swapped")?);
                assert!(bucket.increment("a", 1).is_err());
            }
            "batch" => {
                bucket.set_many(&[("x", b"1"), ("y", b"2")])?;
                let got = bucket.get_many(&["y", "none", "x"])?;
                assert_eq!(got, [Some(b"2".to_vec()), None, Some(b"1".to_vec())]);
                bucket.delete_many(&["x", "none"])?;
                assert!(!bucket.exists("x")? && bucket.exists("y")?);
                bucket.delete("y")?;
            }
            other => {
                bucket.increment(other, 1)?;
            }
        }
        Ok(())
    }
}

#[test]
fn pairs_are_kept_over_a_restart_and_seen_by_the_test() {
    let mut harness = Harness::<Counter>::new().store("default", "a", "1");
    harness.deliver(message("in", "a")).unwrap();
    harness.stop();
    harness.deliver(message("in", "swap")).unwrap();
    harness.deliver(message("in", "batch")).unwrap();
    harness.deliver(message("in", "b")).unwrap();
    let pairs = harness.pairs("");
    assert_eq!(pairs["a"], b"swapped");
    assert_eq!(pairs["b"], b"1");
    assert_eq!(pairs.len(), 2);
}

#[test]
fn what_was_delivered_and_published_is_remembered() {
    let mut harness = Harness::<Counter>::new();
    for body in ["a", "b", "history"] {
        harness.deliver(message("in", body)).unwrap();
    }
    let published: Vec<String> = harness.published().iter().map(|one| one.text()).collect();
    assert_eq!(published, ["b", "a"]);
}

#[derive(Default)]
struct Asker;

impl Microservice for Asker {
    fn handle(&mut self, message: Message) -> Result<(), Rejection> {
        publish("out", &message.body, &[("k", "v")])?;
        let query = Query {
            first_sequence: Some(2),
            microservice: Some("application/microservice".to_owned()),
            ..Query::outlet("out")
        };
        let page = query.read(None).unwrap();
        assert_eq!(query.read(Some("x")), Err(HistoryError::BadToken));
        for found in page.messages {
            assert_eq!((found.attempt, found.header("k")), (0, Some("v")));
            publish("found", found.sequence.to_string(), &[])?;
        }
        Ok(())
    }
}

#[test]
fn a_query_narrows() {
    let mut harness = Harness::<Asker>::new();
    harness.deliver(message("in", "a")).unwrap();
    harness.deliver(message("in", "b")).unwrap();
    let found: Vec<String> = harness
        .published()
        .iter()
        .filter(|one| one.outlet == "found")
        .map(|one| one.text())
        .collect();
    assert_eq!(found, ["2"]);
}
