//! Bodies in JSON as a microservice's tests see them.

use haar_guest::testing::{Harness, message};
use haar_guest::{Message, Microservice, Rejection, json};

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
