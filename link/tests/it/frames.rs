//! Frames survive their encoding, and nothing else passes for one.

use haar_link::frame::{
    Ack, Batch, Frame, FrameError, LiveMessage, Message, STREAMS_MAX, decode, encode, encode_to,
};
use proptest::prelude::*;

fn message(sequence: u64, body: &[u8]) -> Message<'_> {
    Message {
        sequence,
        published_ms: 1_700_000_000_000,
        headers: vec![("name", "value"), ("", "")],
        body,
    }
}

fn batches() -> Frame<'static> {
    Frame::Batches(vec![
        Batch {
            route: u64::MAX,
            epoch: 1,
            base: 3,
            after: 5,
            messages: vec![message(6, b"six"), message(9, b"")],
        },
        Batch {
            route: 7,
            epoch: 2,
            base: 0,
            after: 0,
            messages: vec![],
        },
    ])
}

fn live() -> Frame<'static> {
    let message = |sequence| LiveMessage {
        route: 5,
        sequence,
        published_ms: 1_700_000_000_000,
        headers: vec![("name", "value")],
        body: b"live",
    };
    // Sequences of several outlets: in any order.
    Frame::Live(vec![message(9), message(6)])
}

#[test]
fn a_frame_is_read_as_it_was_written() {
    let acks = Frame::Acks(vec![Ack {
        route: 1,
        epoch: 2,
        stored: 3,
        room: 4,
        resend: true,
    }]);
    for frame in [batches(), acks, Frame::Acks(vec![]), live(), Frame::Probe] {
        let bytes = encode(&frame).unwrap();
        let behind = encode_to(&frame, b"before".to_vec()).unwrap();
        assert_eq!(behind, [b"before", bytes.as_slice()].concat());
        assert_eq!(decode(&bytes).unwrap(), frame);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        let more = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode(&more), Err(FrameError::Malformed));
    }
}

#[test]
fn sequences_that_do_not_ascend_and_versions_of_the_future_are_refused() {
    for (base, after, sequences) in [(0, 5, [5, 6]), (0, 5, [7, 7]), (6, 5, [7, 8])] {
        let messages = sequences.map(|sequence| message(sequence, b"")).to_vec();
        let frame = Frame::Batches(vec![Batch {
            route: 1,
            epoch: 1,
            base,
            after,
            messages,
        }]);
        let bytes = encode(&frame).unwrap();
        assert_eq!(decode(&bytes), Err(FrameError::Malformed));
    }
    let mut bytes = encode(&batches()).unwrap();
    bytes[0] = 2;
    assert_eq!(decode(&bytes), Err(FrameError::UnknownVersion(2)));
}

#[test]
fn a_claim_of_more_than_a_frame_may_hold_is_refused_before_memory_is_set_aside() {
    let ack = Ack {
        route: 0,
        epoch: 0,
        stored: 0,
        room: 0,
        resend: false,
    };
    let frame = Frame::Acks(vec![ack; STREAMS_MAX + 1]);
    assert_eq!(encode(&frame), Err(FrameError::TooLarge));
    // Kind, then a list of 2^32 - 1.
    for kind in [1, 2] {
        let bytes = [1, kind, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(decode(&bytes), Err(FrameError::TooLarge));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in [1, 2, 3] {
            let mut bytes = bytes.clone();
            if bytes.len() >= 2 {
                bytes[0] = 1;
                bytes[1] = kind;
            }
            if let Ok(frame) = decode(&bytes) {
                let again = encode(&frame).unwrap();
                prop_assert_eq!(decode(&again).unwrap(), frame);
            }
        }
    }
}
