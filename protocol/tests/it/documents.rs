//! Assignments, statuses and logs in their written form, and the signed envelope around them.

use haar_protocol::assignment::Assignment;
use haar_protocol::log::{Level, LogBatch, LogLine, Stream};
use haar_protocol::signed::{DOCUMENT_BYTES_MAX, EnvelopeError, open, seal};
use haar_protocol::status::Status;
use proptest::prelude::*;

use crate::fixtures::{NOW_MS, assignment, key, microservice_name, status};
use crate::golden;

#[test]
fn an_assignment_keeps_its_form() {
    golden::check_json("assignment.json", &assignment());
}

#[test]
fn a_status_keeps_its_form() {
    golden::check_json("status.json", &status());
}

#[test]
fn a_log_batch_keeps_its_form() {
    let line = |sequence, level, stream, context: &str, text: &str| LogLine {
        name: microservice_name(),
        sequence,
        time_ms: NOW_MS,
        level,
        stream,
        context: context.to_owned(),
        text: text.to_owned(),
        gap: None,
    };
    let lines = vec![
        line(1, Level::Info, Stream::Log, "sensor", "ready"),
        line(
            2,
            Level::Critical,
            Stream::Agent,
            "",
            "it trapped: unreachable",
        ),
        line(3, Level::Warn, Stream::Stderr, "", "late by 3 ms"),
    ];
    golden::check_json("log.json", &LogBatch { version: 1, lines });
}

#[test]
fn a_signed_envelope_keeps_its_form() {
    let envelope = seal(&status(), &key(2)).unwrap();
    golden::check("envelope.hex", &(hex::encode(&envelope) + "\n"));
    assert_eq!(open::<Status>(&envelope, &key(2).public()), Ok(status()));
}

#[test]
fn an_envelope_with_any_bit_flipped_is_refused() {
    let key = key(1);
    let mut small = assignment();
    small.microservices.clear();
    small.routes.clear();
    let envelope = seal(&small, &key).unwrap();
    let public = key.public();
    for bit in 0..envelope.len() * 8 {
        let mut flipped = envelope.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open::<Assignment>(&flipped, &public).is_err(), "bit {bit}");
    }
    for length in 0..envelope.len() {
        assert!(
            open::<Assignment>(&envelope[..length], &public).is_err(),
            "{length} bytes"
        );
    }
    let longer = [envelope.as_slice(), b" "].concat();
    assert_eq!(
        open::<Assignment>(&longer, &public),
        Err(EnvelopeError::WrongSignature("assignment"))
    );
}

#[test]
fn an_envelope_of_another_key_or_kind_is_refused() {
    let envelope = seal(&status(), &key(2)).unwrap();
    assert_eq!(
        open::<Status>(&envelope, &key(3).public()),
        Err(EnvelopeError::WrongSignature("status"))
    );
    assert_eq!(
        open::<Assignment>(&envelope, &key(2).public()),
        Err(EnvelopeError::Malformed("assignment"))
    );
    let mut disguised = envelope.clone();
    disguised[4] = 1;
    assert_eq!(
        open::<Assignment>(&disguised, &key(2).public()),
        Err(EnvelopeError::WrongSignature("assignment"))
    );
}

#[test]
fn a_document_that_no_relay_would_carry_is_not_sealed() {
    let mut large = assignment();
    large.microservices[0]
        .configuration
        .insert("k".to_owned(), "v".repeat(DOCUMENT_BYTES_MAX));
    assert!(matches!(
        seal(&large, &key(1)),
        Err(EnvelopeError::TooLarge { .. })
    ));
    let envelope = vec![0; DOCUMENT_BYTES_MAX + 71];
    assert!(matches!(
        open::<Assignment>(&envelope, &key(1).public()),
        Err(EnvelopeError::TooLarge { .. })
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_envelope(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u8..3) {
        let public = key(1).public();
        prop_assert!(open::<Assignment>(&bytes, &public).is_err());
        let dressed = [b"HAAR".as_slice(), &[kind, 1], &bytes].concat();
        prop_assert!(open::<Assignment>(&dressed, &public).is_err());
        prop_assert!(open::<Status>(&dressed, &public).is_err());
    }
}
