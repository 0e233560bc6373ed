//! How long messages are of use that leave for another node.

use super::*;
use crate::bus::message::Message;

fn logged(expiry: &str) -> Logged {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Logged {
        position: 1,
        stored_ms: 10_000,
        message: Arc::new(Message {
            source: Arc::default(),
            sequence: 1,
            published_ms: 0,
            headers: vec![header("unit", "C"), header(EXPIRY_HEADER, expiry)],
            body: Vec::new(),
        }),
    }
}

#[test]
fn a_message_leaves_with_the_time_that_is_left_to_it() {
    for (said, now_ms, left) in [
        ("60", 10_000, "60"),
        ("60", 15_500, "55"),
        ("60", 69_999, "1"),
        ("soon", 15_500, "soon"),
    ] {
        let leaves = leaves(logged(said), now_ms);
        let headers = wire(&leaves).headers;
        assert_eq!(headers, [("unit", "C"), (EXPIRY_HEADER, left)]);
    }
}

#[test]
fn the_shorter_of_the_expiries_of_route_and_publisher_counts() {
    let message = logged("60");
    for (of_route_ms, age_ms, is_expired) in [
        (None, 60_000, false),
        (None, 60_001, true),
        (Some(1_000), 1_001, true),
        (Some(90_000), 60_001, true),
    ] {
        let now_ms = message.stored_ms + age_ms;
        assert_eq!(
            message::is_expired(&message, of_route_ms, now_ms),
            is_expired,
            "{of_route_ms:?} {age_ms}"
        );
    }
}
