//! Frames of live routes: they read back as they were written, and no bytes do harm.

use haar_protocol::frame::{
    FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, FrameError, LiveMessage, decode, encode, encoded_bytes_max,
};
use proptest::prelude::*;

use crate::fixtures::NOW_MS;
use crate::golden;

/// A message that owns its parts.
#[derive(Debug, Clone)]
struct Owned {
    numbers: (u64, u64, u64),
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Owned {
    fn borrowed(&self) -> LiveMessage<'_> {
        LiveMessage {
            route: self.numbers.0,
            sequence: self.numbers.1,
            published_ms: self.numbers.2,
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            body: &self.body,
        }
    }
}

fn messages() -> impl Strategy<Value = Vec<Owned>> {
    let headers = prop::collection::vec((".{0,12}", ".{0,200}"), 0..5);
    let one = (
        any::<(u64, u64, u64)>(),
        headers,
        prop::collection::vec(any::<u8>(), 0..400),
    )
        .prop_map(|(numbers, headers, body)| Owned {
            numbers,
            headers,
            body,
        });
    prop::collection::vec(one, 0..8)
}

#[test]
fn a_frame_keeps_its_form() {
    let messages = [
        LiveMessage {
            route: crate::fixtures::route_id().to_u64(),
            sequence: 1,
            published_ms: NOW_MS,
            headers: vec![("trace", "abc"), ("unit", "°C")],
            body: br#"{"t":21.5}"#,
        },
        LiveMessage {
            route: 1,
            sequence: u64::MAX,
            published_ms: 0,
            headers: vec![],
            body: b"",
        },
    ];
    let frame = encode(&messages).unwrap();
    golden::check("frame.hex", &(hex::encode(&frame) + "\n"));
    assert_eq!(decode(&frame).unwrap(), messages);
}

proptest! {
    #[test]
    fn a_frame_reads_back_as_it_was_written(messages in messages()) {
        let borrowed: Vec<LiveMessage<'_>> = messages.iter().map(Owned::borrowed).collect();
        let frame = encode(&borrowed).unwrap();
        prop_assert_eq!(decode(&frame).unwrap(), borrowed);
        let bound: usize = messages.iter().map(|message| encoded_bytes_max(&message.headers, message.body.len())).sum();
        prop_assert!(frame.len() <= bound + 4);
    }

    #[test]
    fn a_cut_or_lengthened_frame_is_refused(messages in messages(), at: prop::sample::Index, more: u8) {
        let borrowed: Vec<LiveMessage<'_>> = messages.iter().map(Owned::borrowed).collect();
        let frame = encode(&borrowed).unwrap();
        prop_assert!(decode(&frame[..at.index(frame.len())]).is_err());
        let longer = [frame.as_slice(), &[more]].concat();
        prop_assert_eq!(decode(&longer), Err(FrameError::Malformed));
    }

    #[test]
    fn no_bytes_make_decoding_panic_or_reserve_more_than_they_justify(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let frame = [&[1], bytes.as_slice()].concat();
        let _ = decode(&bytes);
        if let Ok(messages) = decode(&frame) {
            prop_assert!(messages.capacity() <= frame.len() / 5);
            for message in messages {
                prop_assert!(message.headers.capacity() <= frame.len() / 2);
            }
        }
    }
}

#[test]
fn a_frame_that_claims_more_than_it_holds_is_refused() {
    let claims_messages = [1, 0x80, 0x20]; // 4096 messages, none there
    let claims_headers = [&[1, 1, 1, 1, 1][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    let claims_body = [&[1, 1, 1, 1, 1, 0][..], &[0xff; 9], &[0x01]].concat();
    for frame in [&claims_messages[..], &claims_headers, &claims_body] {
        assert_eq!(decode(frame), Err(FrameError::Malformed), "{frame:?}");
    }
    assert_eq!(
        decode(&[1, 0x81, 0x20]),
        Err(FrameError::TooLarge),
        "4097 messages"
    );
}

#[test]
fn frames_beyond_the_limits_are_neither_written_nor_read() {
    let message = LiveMessage {
        route: 1,
        sequence: 1,
        published_ms: 1,
        headers: vec![],
        body: b"",
    };
    assert!(encode(&vec![message.clone(); FRAME_MESSAGES_MAX]).is_ok());
    assert_eq!(
        encode(&vec![message; FRAME_MESSAGES_MAX + 1]),
        Err(FrameError::TooLarge)
    );
    let body = vec![0; FRAME_BYTES_MAX];
    let large = LiveMessage {
        route: 1,
        sequence: 1,
        published_ms: 1,
        headers: vec![],
        body: &body,
    };
    assert_eq!(encode(&[large]), Err(FrameError::TooLarge));
    assert_eq!(
        decode(&vec![1; FRAME_BYTES_MAX + 1]),
        Err(FrameError::TooLarge)
    );
}

#[test]
fn frames_of_another_version_are_named_as_such() {
    assert_eq!(decode(&[2, 0]), Err(FrameError::UnknownVersion(2)));
    assert_eq!(decode(&[]), Err(FrameError::Malformed));
}
