//! What a microservice publishes as its tests see it.

use haar_guest::testing::{Harness, message};
use haar_guest::{PublishError, Rejection, publish};

use super::{Obedient, obey};

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
#[should_panic(expected = "where there is no agent: in tests call the microservice through")]
fn publishing_outside_of_a_harness_says_what_to_do() {
    let _ = publish("out", "body", &[]);
}
