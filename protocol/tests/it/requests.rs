//! Requests to nodes and their answers: their form, and what is refused.

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::dead_letters::{
    Base64, DeadLetter, DeadLetterPage, DeadLetterSelection, Dropped, Header, LettersOf,
    NamedLetters, RefusedReplay, Replayed, Source, WholeDeadLetter,
};
use haar_protocol::request::{
    Operation, Outcome, REQUEST_AGE_MS_MAX, Refusal, Request, RequestId, Response, Unfit,
};
use haar_protocol::signed::{EnvelopeError, open, seal};
use proptest::prelude::*;

use crate::fixtures::{NOW_MS, key, microservice_name, name, node, site};
use crate::golden;

fn request(operation: Operation) -> Request {
    Request {
        site: site(),
        node: node(2),
        id: RequestId([0xab; 16]),
        issued_ms: NOW_MS,
        operation,
    }
}

fn response(outcome: Outcome) -> Response {
    Response {
        site: site(),
        node: node(2),
        id: RequestId([0xab; 16]),
        outcome,
    }
}

fn letter(id: u64) -> DeadLetter {
    let owner: MicroserviceName = microservice_name();
    DeadLetter {
        id,
        inlet: "in".into(),
        source: Source {
            node: "gateway-07".into(),
            application: owner.application.to_string(),
            microservice: "source".into(),
            outlet: "out".into(),
        },
        owner,
        sequence: 9,
        published_ms: NOW_MS - 2,
        content_type: "text/plain".into(),
        body_bytes: 5,
        attempts: 3,
        reason: "it panicked".into(),
        died_ms: NOW_MS,
    }
}

fn operations() -> Vec<Operation> {
    vec![
        Operation::ListDeadLetters {
            application: Some(name("plant-monitor")),
            microservice: None,
            after: 7,
            limit: 100,
        },
        Operation::ShowDeadLetter { id: 8 },
        Operation::ReplayDeadLetters(DeadLetterSelection::Named(NamedLetters { ids: vec![8, 9] })),
        Operation::DropDeadLetters(DeadLetterSelection::All(LettersOf {
            application: name("plant-monitor"),
            microservice: name("sampler"),
        })),
    ]
}

fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::DeadLetters(DeadLetterPage {
            items: vec![letter(8), letter(9)],
            next_after: Some(9),
        }),
        Outcome::DeadLetter(WholeDeadLetter {
            letter: letter(8),
            headers: vec![Header {
                name: "k".into(),
                value: "v".into(),
            }],
            body: Base64(b"hello".to_vec()),
        }),
        Outcome::Replayed(Replayed {
            replayed: 1,
            refused: vec![RefusedReplay {
                id: 9,
                reason: "the inbox is full".into(),
            }],
            left: 0,
        }),
        Outcome::Dropped(Dropped { dropped: 2 }),
        Outcome::Refused {
            why: Refusal::UnknownDeadLetter,
            message: "there is no dead letter 8".into(),
        },
    ]
}

#[test]
fn requests_and_responses_keep_their_form() {
    let requests: Vec<Request> = operations().into_iter().map(request).collect();
    golden::check_json("requests.json", &requests);
    let responses: Vec<Response> = outcomes().into_iter().map(response).collect();
    golden::check_json("responses.json", &responses);
}

#[test]
fn requests_and_responses_come_out_of_their_envelopes_as_they_went_in() {
    for operation in operations() {
        let request = request(operation);
        let envelope = seal(&request, &key(1)).unwrap();
        assert_eq!(open::<Request>(&envelope, &key(1).public()), Ok(request));
    }
    for outcome in outcomes() {
        let response = response(outcome);
        let envelope = seal(&response, &key(2)).unwrap();
        assert_eq!(open::<Response>(&envelope, &key(2).public()), Ok(response));
    }
}

#[test]
fn a_request_that_was_tampered_with_or_signed_by_another_is_refused() {
    let envelope = seal(&request(Operation::ShowDeadLetter { id: 8 }), &key(1)).unwrap();
    assert_eq!(
        open::<Request>(&envelope, &key(2).public()),
        Err(EnvelopeError::WrongSignature("request"))
    );
    for bit in 0..envelope.len() * 8 {
        let mut flipped = envelope.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open::<Request>(&flipped, &key(1).public()).is_err());
    }
    assert_eq!(
        open::<Response>(&envelope, &key(1).public()),
        Err(EnvelopeError::Malformed("response"))
    );
}

#[test]
fn a_request_counts_for_its_site_and_its_node_and_for_a_minute_only() {
    let request = request(Operation::ShowDeadLetter { id: 8 });
    let (site, age) = (site(), REQUEST_AGE_MS_MAX);
    assert_eq!(request.check(&site, &node(2), NOW_MS), Ok(()));
    assert_eq!(request.check(&site, &node(2), NOW_MS + age), Ok(()));
    assert_eq!(request.check(&site, &node(2), NOW_MS - age), Ok(()));
    let not_fresh = Err(Unfit::NotFresh(age + 1));
    assert_eq!(request.check(&site, &node(2), NOW_MS + age + 1), not_fresh);
    assert_eq!(request.check(&site, &node(2), NOW_MS - age - 1), not_fresh);
    let not_ours = Err(Unfit::NotOurs);
    assert_eq!(request.check(&site, &node(3), NOW_MS), not_ours);
    let other = haar_protocol::ids::SiteId::of(&key(9).public());
    assert_eq!(request.check(&other, &node(2), NOW_MS), not_ours);
}

#[test]
fn a_selection_that_says_two_things_or_none_is_refused() {
    for text in [
        "{}",
        r#"{"ids": [1], "application": "a", "microservice": "b"}"#,
        r#"{"application": "a"}"#,
        r#"{"ids": [1], "all": true}"#,
        r#"{"ids": [-1]}"#,
    ] {
        assert!(
            serde_json::from_str::<DeadLetterSelection>(text).is_err(),
            "{text}"
        );
    }
}

#[test]
fn a_reason_of_a_newer_release_is_a_failure() {
    let json = r#"{"refused": {"why": "out_of_ink", "message": "m"}}"#;
    let outcome: Outcome = serde_json::from_str(json).unwrap();
    let Outcome::Refused { why, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(why, Refusal::Failed);
}

proptest! {
    #[test]
    fn any_body_comes_out_of_base64_as_it_went_in(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let json = serde_json::to_string(&Base64(bytes.clone())).unwrap();
        prop_assert_eq!(serde_json::from_str::<Base64>(&json).unwrap().0, bytes);
    }

    #[test]
    fn no_text_makes_the_reader_of_requests_panic(text in "\\PC{0,200}") {
        let _ = serde_json::from_str::<Request>(&text);
        let _ = serde_json::from_str::<Response>(&text);
        let _ = RequestId::try_from(text);
    }
}

#[test]
fn a_number_out_of_range_is_neither_signed_nor_read() {
    for number in [1 << 53, (1 << 53) + 1, 1 << 63, u64::MAX] {
        let signing = Request {
            issued_ms: number,
            ..request(Operation::ShowDeadLetter { id: 1 })
        };
        let is_refused = |error: Option<EnvelopeError>| {
            let shown = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(shown.contains(&number.to_string()), "{shown}");
        };
        is_refused(seal(&signing, &key(1)).err());
        let asking = request(Operation::ShowDeadLetter { id: number });
        is_refused(seal(&asking, &key(1)).err());
        let mut of = letter(1);
        of.sequence = number;
        let answer = response(Outcome::DeadLetters(DeadLetterPage {
            items: vec![of],
            next_after: None,
        }));
        is_refused(seal(&answer, &key(2)).err());
        // What another program signs is refused, too.
        let json = serde_json::to_vec(&answer).unwrap();
        let covered = [b"haar signed document\n\x04\x01", json.as_slice()].concat();
        let envelope = [b"HAAR\x04\x01", key(2).sign(&covered).as_slice(), &json].concat();
        is_refused(open::<Response>(&envelope, &key(2).public()).err());
    }
}
