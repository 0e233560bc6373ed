//! What a sender does in moments that the simulator seldom meets.

use haar_link::frame::Ack;
use haar_link::runs::Run;
use haar_link::sender::{Acknowledged, Sender, Settings};

const SETTINGS: Settings = Settings {
    resend_ms_min: 100,
    resend_ms_max: 1_000,
    batch_bytes: 100,
    in_flight_bytes: 300,
};

fn run(epoch: u64, upto: u64) -> Run {
    Run { epoch, upto }
}

fn sender(base: u64, head: u64) -> Sender {
    let mut sender = Sender::new(SETTINGS);
    sender.open(1, &[run(9, u64::MAX)], base, head, 0);
    sender.connected(true);
    sender
}

fn ack(stored: u64, room: u64) -> Ack {
    Ack {
        route: 1,
        epoch: 9,
        stored,
        room,
        resend: false,
    }
}

#[test]
fn a_receiver_that_has_more_than_the_log_ever_had_is_told_apart() {
    let mut sender = sender(5, 7);
    assert_eq!(sender.acknowledged(&ack(8, 100), 0), Acknowledged::Beyond);
    assert_eq!(sender.acknowledged(&ack(7, 100), 0), Acknowledged::Upto(7));
    // An old word, and one of another log, change nothing.
    assert_eq!(sender.acknowledged(&ack(6, 0), 0), Acknowledged::Nothing);
    let other = Ack {
        epoch: 8,
        ..ack(7, 0)
    };
    assert_eq!(sender.acknowledged(&other, 0), Acknowledged::Nothing);
}

#[test]
fn a_full_receiver_is_asked_now_and_then_and_gets_more_when_it_has_room() {
    let mut sender = sender(0, 3);
    let want = sender.next(0).unwrap();
    assert_eq!((want.after, want.bytes), (0, 100));
    sender.sent(&want, &[(1, 90)], 1, 0);
    assert_eq!(sender.acknowledged(&ack(1, 0), 0), Acknowledged::Upto(1));
    assert_eq!(sender.next(0), None);
    let due = sender.wake_ms().unwrap();
    assert_eq!(sender.next(due - 1), None);
    let question = sender.next(due).unwrap();
    assert_eq!((question.after, question.bytes), (1, 0));
    sender.sent(&question, &[], 1, due);
    assert_eq!(sender.next(due), None);
    assert!(sender.wake_ms().unwrap() > due, "it may be lost too");
    sender.acknowledged(&ack(1, 50), due);
    assert_eq!(sender.next(due).unwrap().bytes, 50);
}

#[test]
fn nothing_is_sent_twice_before_its_time_and_then_more_and_more_seldom() {
    let mut sender = sender(0, 1);
    let (mut now, mut times) = (0, Vec::new());
    for _ in 0..6 {
        let want = sender.next(now).unwrap();
        sender.sent(&want, &[(1, 90)], 1, now);
        assert_eq!(sender.next(now), None);
        times.push(now);
        now = sender.wake_ms().unwrap();
    }
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!(pauses[0], 100);
    assert_eq!(*pauses.last().unwrap(), 1_000);
}

#[test]
fn streams_of_a_higher_priority_come_first_and_those_of_one_priority_in_turns() {
    let mut sender = Sender::new(SETTINGS);
    for (route, priority) in [(1, 0), (2, 0), (3, 7)] {
        sender.open(route, &[run(9, u64::MAX)], 0, 10, priority);
    }
    sender.connected(true);
    let mut order = Vec::new();
    while let Some(want) = sender.next(0) {
        let next = want.from + 1;
        sender.sent(&want, &[(next, 60)], next, 0);
        order.push(want.route);
    }
    assert_eq!(order[..2], [3, 3]);
    assert_eq!(order[2..], [1, 2, 1, 2]);
}

#[test]
fn what_was_left_out_between_two_messages_is_not_waited_for() {
    let mut sender = sender(0, 9);
    let want = sender.next(0).unwrap();
    sender.sent(&want, &[(1, 10), (2, 10)], 2, 0);
    // All of what was read had expired.
    let want = sender.next(0).unwrap();
    assert_eq!((want.after, want.from), (2, 2));
    sender.sent(&want, &[], 6, 0);
    let want = sender.next(0).unwrap();
    assert_eq!((want.base, want.after, want.from), (0, 2, 6));
    sender.sent(&want, &[(9, 10)], 9, 0);
    assert_eq!(sender.acknowledged(&ack(9, 100), 0), Acknowledged::Upto(9));
}

#[test]
fn what_was_read_before_the_link_was_told_of_it_may_be_acknowledged() {
    let mut sender = sender(0, 1);
    let want = sender.next(0).unwrap();
    // The log has a second message by now.
    sender.sent(&want, &[(1, 10), (2, 10)], 2, 0);
    assert_eq!(sender.acknowledged(&ack(2, 100), 10), Acknowledged::Upto(2));
}

#[test]
fn a_run_begins_when_the_one_before_it_is_acknowledged() {
    let mut sender = Sender::new(SETTINGS);
    sender.open(1, &[run(5, 2), run(9, u64::MAX)], 0, 4, 0);
    sender.connected(true);
    let want = sender.next(0).unwrap();
    assert_eq!((want.epoch, want.from, want.upto), (5, 0, 2));
    sender.sent(&want, &[(1, 10), (2, 10)], 2, 0);
    assert_eq!(sender.next(0), None, "the next run waits");
    assert_eq!(
        sender.acknowledged(&ack(2, 100), 0),
        Acknowledged::Nothing,
        "that is the other run"
    );
    // A copy of this node has sent more of the run.
    let more = Ack {
        epoch: 5,
        ..ack(7, 0)
    };
    assert_eq!(sender.acknowledged(&more, 0), Acknowledged::Upto(2));
    // The receiver has no room: its word that it has some may speak of the run before.
    let question = sender.next(0).unwrap();
    assert_eq!((question.epoch, question.base, question.bytes), (9, 2, 0));
    sender.sent(&question, &[], 2, 0);
    sender.acknowledged(&ack(2, 100), 0);
    let want = sender.next(0).unwrap();
    assert_eq!((want.epoch, want.after, want.from), (9, 2, 2));
}

#[test]
fn runs_that_are_dropped_by_policy_are_passed() {
    let mut sender = Sender::new(SETTINGS);
    sender.open(1, &[run(5, 2), run(7, 6), run(9, u64::MAX)], 0, 8, 0);
    sender.connected(true);
    sender.skip(1, 6);
    let want = sender.next(0).unwrap();
    assert_eq!((want.epoch, want.base, want.from), (9, 6, 6));
}

#[test]
fn a_full_receiver_is_asked_also_when_its_oldest_messages_are_dropped_meanwhile() {
    let mut sender = sender(0, 9);
    let want = sender.next(0).unwrap();
    sender.sent(&want, &[(1, 90)], 1, 0);
    sender.acknowledged(&ack(1, 0), 0);
    sender.skip(1, 3);
    let due = sender.wake_ms().expect("it is asked");
    assert_eq!(sender.next(due).unwrap().bytes, 0);
}
