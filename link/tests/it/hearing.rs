//! What a link says of the other node: when it was heard, and since when it owes an answer.

use haar_link::frame::{Ack, Batch, Frame, LiveMessage, Message};
use haar_link::link::Link;
use haar_link::runs::Run;
use haar_link::sender::Settings;
use haar_link::session::{Ends, Session};
use x25519_dalek::{PublicKey, StaticSecret};

fn link(own: (&str, u8), other: (&str, u8), boot: u8) -> Link {
    let ends = Ends {
        site: "s",
        own: own.0,
        other: other.0,
    };
    let secret = |seed: u8| StaticSecret::from([seed; 32]);
    let key = PublicKey::from(&secret(other.1));
    let session = Session::new(ends, [boot; 16], &secret(own.1), &key).unwrap();
    Link::new(session, Settings::default())
}

/// Two links, not connected.
fn links() -> (Link, Link) {
    (link(("a", 1), ("b", 2), 1), link(("b", 2), ("a", 1), 2))
}

/// Hands over everything that the two have to say beside messages.
fn talk(left: &mut Link, right: &mut Link, now_ms: u64) {
    loop {
        let (to_right, to_left) = (left.outgoing(now_ms), right.outgoing(now_ms));
        if to_right.is_none() && to_left.is_none() {
            return;
        }
        if let Some(bytes) = to_right {
            let _ = right.open(&bytes, now_ms);
        }
        if let Some(bytes) = to_left {
            let _ = left.open(&bytes, now_ms);
        }
    }
}

fn connected() -> (Link, Link) {
    let (mut left, mut right) = links();
    left.connected(true, 10);
    right.connected(true, 10);
    talk(&mut left, &mut right, 10);
    assert!(left.is_open() && right.is_open());
    (left, right)
}

fn live() -> Frame<'static> {
    Frame::Live(vec![LiveMessage {
        route: 1,
        sequence: 1,
        published_ms: 0,
        headers: vec![],
        body: b"live",
    }])
}

fn batch() -> Frame<'static> {
    Frame::Batches(vec![Batch {
        route: 1,
        epoch: 1,
        base: 0,
        after: 0,
        messages: vec![Message {
            sequence: 1,
            published_ms: 0,
            headers: vec![],
            body: b"durable",
        }],
    }])
}

#[test]
fn a_node_that_never_answers_owes_an_answer_since_the_first_hello() {
    let (mut left, _) = links();
    assert_eq!(left.unanswered_since_ms(), None);
    left.connected(true, 100);
    assert!(left.outgoing(100).is_some());
    assert!(left.outgoing(5_000).is_some(), "another hello");
    assert_eq!(left.unanswered_since_ms(), Some(100));
    assert_eq!(left.last_heard_ms(), None);
    left.connected(false, 6_000);
    assert_eq!(
        left.unanswered_since_ms(),
        None,
        "nobody can answer without a connection"
    );
}

#[test]
fn hellos_that_are_answered_leave_nothing_owed() {
    let (left, right) = connected();
    for link in [left, right] {
        assert_eq!(link.unanswered_since_ms(), None);
        assert_eq!(link.last_heard_ms(), Some(10));
    }
}

#[test]
fn a_frame_is_heard_once_and_a_repeat_or_forgery_is_not() {
    let (mut left, mut right) = connected();
    let frame = left.seal(&live(), 20).unwrap();
    assert_eq!(left.unanswered_since_ms(), None, "live asks for nothing");
    right.open(&frame, 30).unwrap();
    assert_eq!(right.last_heard_ms(), Some(30));
    assert!(right.open(&frame, 40).is_err());
    let mut forged = left.seal(&live(), 40).unwrap();
    forged[40] ^= 1;
    assert!(right.open(&forged, 50).is_err());
    assert_eq!(right.last_heard_ms(), Some(30));
}

#[test]
fn a_recorded_hello_is_not_heard() {
    let (mut left, mut right) = links();
    left.connected(true, 0);
    let hello = left.outgoing(0).unwrap();
    right.connected(true, 10);
    assert!(right.open(&hello, 20).is_ok());
    assert_eq!(right.last_heard_ms(), None);
}

#[test]
fn messages_of_durable_routes_ask_for_an_answer() {
    let (mut left, mut right) = connected();
    let run = Run { epoch: 1, upto: 1 };
    left.sender.open(1, &[run], 0, 1, 0);
    right.receiver.open(1, [], 1_000);
    left.seal(&batch(), 50).unwrap();
    left.seal(&batch(), 60).unwrap();
    assert_eq!(left.unanswered_since_ms(), Some(50));
    let ack = Ack {
        route: 1,
        epoch: 1,
        stored: 1,
        room: 1_000,
        resend: false,
    };
    left.acknowledged(&ack, 70);
    assert_eq!(left.unanswered_since_ms(), None);
}

#[test]
fn a_node_that_was_restarted_unheard_is_found_soon_by_the_frames_that_it_refuses() {
    let (mut left, _) = connected();
    let mut right = link(("b", 2), ("a", 1), 3);
    right.connected(true, 1_000);
    let mut now_ms = 1_000;
    // Its hellos are lost until they are rare.
    while now_ms < 60_000 {
        let _lost = right.outgoing(now_ms);
        now_ms = right.wake_ms().unwrap();
    }
    let refused_ms = now_ms - 20_000;
    let frame = left.seal(&live(), refused_ms).unwrap();
    assert!(right.open(&frame, refused_ms).is_err());
    assert!(right.wake_ms().unwrap() <= refused_ms + 500);
    talk(&mut left, &mut right, refused_ms + 500);
    assert!(right.is_open());
}

#[test]
fn who_sends_live_messages_only_asks_now_and_then_whether_anybody_is_there() {
    let (mut left, mut right) = connected();
    left.set_probes(true);
    left.seal(&live(), 20).unwrap();
    assert!(left.outgoing(20).is_none(), "it was heard just now");
    let probe = left.outgoing(6_000).expect("it was not heard for long");
    assert!(left.outgoing(6_000).is_none(), "once is enough");
    assert_eq!(left.unanswered_since_ms(), Some(6_000));
    let frame = right.open(&probe, 6_010).unwrap().unwrap();
    assert_eq!(haar_link::frame::decode(&frame), Ok(Frame::Probe));
    right.asked();
    let answer = right.outgoing(6_010).expect("who is asked answers");
    assert!(right.outgoing(6_010).is_none());
    left.open(&answer, 6_020).unwrap();
    assert_eq!(left.unanswered_since_ms(), None);
    assert_eq!(left.last_heard_ms(), Some(6_020));
}

#[test]
fn where_there_is_one_way_only_nobody_asks() {
    let (mut left, _right) = connected();
    left.seal(&live(), 20).unwrap();
    assert!(left.outgoing(60_000).is_none());
}

#[test]
fn what_a_relay_held_back_is_stale_once_newer_frames_of_its_route_came_over_another() {
    let (mut left, mut right) = connected();
    let seal = |left: &mut Link| left.seal(&live(), 20).unwrap();
    let (held, other, newer) = (seal(&mut left), seal(&mut left), seal(&mut left));
    right.open(&other, 30).unwrap();
    assert!(right.is_newest(2));
    right.open(&newer, 30).unwrap();
    assert!(right.is_newest(1) && right.is_newest(1), "all of a frame");
    right.open(&held, 40).unwrap();
    assert!(!right.is_newest(1) && !right.is_newest(2));
    assert!(right.is_newest(3), "nothing newer came of this route");
    // The other way between the two: the same session goes on, and so does its order.
    left.connected(true, 50);
    talk(&mut left, &mut right, 50);
    right.open(&left.seal(&live(), 60).unwrap(), 60).unwrap();
    assert!(right.is_newest(1));
    // The sender starts again and counts from zero.
    let mut left = link(("a", 1), ("b", 2), 9);
    left.connected(true, 70);
    talk(&mut left, &mut right, 70);
    right.open(&left.seal(&live(), 80).unwrap(), 80).unwrap();
    assert!(right.is_newest(1) && right.is_newest(2));
}
