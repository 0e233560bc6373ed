//! The bus on its own: what is full drops the oldest, frames hold what was published, and nothing
//! enters without a route.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use haar_link::frame::{Frame, decode, encode};
use haar_protocol::ids::{NodeId, RouteId};
use haar_protocol::keys::SecretKey;
use proptest::prelude::*;

use super::inbox::Inbox;
use super::message::{Delivery, Entry, Message, RouteCounters, Source};
use super::peer::{Outbound, PeerQueue};
use super::{Bus, PortCache, UnknownOutlet};

fn source() -> Arc<Source> {
    let text = |word: &str| word.to_owned();
    Arc::new(Source {
        site: text("site"),
        node: text("node"),
        application: text("app"),
        microservice: text("source"),
        outlet: text("out"),
    })
}

fn message(sequence: u64, body: Vec<u8>) -> Arc<Message> {
    let headers = vec![("key".to_owned(), sequence.to_string())];
    Arc::new(Message {
        source: source(),
        sequence,
        published_ms: sequence,
        headers,
        body,
    })
}

fn node() -> NodeId {
    NodeId::of(&SecretKey::from_seed([7; 32]).public())
}

#[test]
fn a_full_inbox_lets_the_oldest_go_and_counts_it() {
    let counters = Arc::new(RouteCounters::new(RouteId::from_u64(1)));
    let entry = Arc::new(Entry {
        origin: counters.origin,
        inlet: "in".into(),
        content_type: "text/plain".into(),
        message_bytes_max: 10,
        expiry_ms: None,
        counters: Arc::clone(&counters),
        history: None,
    });
    let inbox = Inbox::new(3);
    for sequence in 1..=5 {
        let message = message(sequence, vec![]);
        inbox.push(Delivery {
            message,
            entry: Arc::clone(&entry),
            attempt: 1,
            place: None,
            taken_ms: None,
        });
    }
    let mut batch = VecDeque::new();
    assert_eq!(inbox.take(&mut batch, 2), 2);
    let taken: Vec<u64> = batch
        .iter()
        .map(|delivery| delivery.message.sequence)
        .collect();
    assert_eq!(taken, [3, 4]);
    assert_eq!(counters.dropped.load(Ordering::Relaxed), 2);
    assert_eq!(inbox.len(), 1);
    inbox.clear();
    assert_eq!(counters.dropped.load(Ordering::Relaxed), 3);
}

#[test]
fn an_inbox_of_large_messages_is_full_before_it_has_many() {
    const MESSAGES: u64 = 100;
    let counters = Arc::new(RouteCounters::new(RouteId::from_u64(1)));
    let entry = Arc::new(Entry {
        origin: counters.origin,
        inlet: "in".into(),
        content_type: "text/plain".into(),
        message_bytes_max: 1 << 20,
        expiry_ms: None,
        counters: Arc::clone(&counters),
        history: None,
    });
    let inbox = Inbox::new(1_000);
    for sequence in 1..=MESSAGES {
        inbox.push(Delivery {
            message: message(sequence, vec![0; 1 << 20]),
            entry: Arc::clone(&entry),
            attempt: 1,
            place: None,
            taken_ms: None,
        });
        assert!((1..=4).contains(&inbox.len()));
    }
    let mut batch = VecDeque::new();
    inbox.take(&mut batch, 64);
    let newest = batch.back().unwrap();
    assert_eq!(newest.message.sequence, MESSAGES);
    let dropped = counters.dropped.load(Ordering::Relaxed);
    assert_eq!(dropped + batch.len() as u64, MESSAGES);
    inbox.put_back(batch);
    assert!(inbox.len() <= 4);
}

#[test]
fn without_a_table_nothing_can_be_published_and_nothing_arrives() {
    let bus = Bus::default();
    let name = haar_protocol::assignment::MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: "source".parse().unwrap(),
    };
    let mut cache = PortCache::default();
    let published = bus.publish(&mut cache, &name, "out", vec![], vec![], 1);
    assert_eq!(published, Err(UnknownOutlet));
    let stray = message(1, vec![]);
    let counters = Arc::new(RouteCounters::new(RouteId::from_u64(9)));
    let stray = Outbound {
        message: stray,
        counters,
    };
    bus.receive(&node(), &[stray.wire()], |_| true);
    assert_eq!(bus.frames_refused(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is published while nobody takes frames: the newest messages come out, in order,
    /// whole, and what is missing is counted.
    #[test]
    fn frames_hold_the_newest_messages_in_order(sizes in proptest::collection::vec(0..300_000usize, 1..40)) {
        let queue = PeerQueue::new(node());
        let counters = Arc::new(RouteCounters::new(RouteId::from_u64(9)));
        for (index, size) in sizes.iter().enumerate() {
            let message = message(index as u64 + 1, vec![0; *size]);
            queue.push(Outbound { message, counters: Arc::clone(&counters) });
        }
        let mut seen = Vec::new();
        loop {
            let taken = queue.take();
            if taken.is_empty() {
                break;
            }
            let bytes = encode(&Frame::Live(taken.iter().map(Outbound::wire).collect())).unwrap();
            let Ok(Frame::Live(messages)) = decode(&bytes) else {
                panic!("a frame of live messages");
            };
            prop_assert_eq!(messages.len(), taken.len());
            for live in messages {
                prop_assert_eq!(live.route, 9);
                prop_assert_eq!(live.body.len(), sizes[usize::try_from(live.sequence).unwrap() - 1]);
                seen.push(live.sequence);
            }
        }
        let dropped = counters.dropped.load(Ordering::Relaxed);
        let expected: Vec<u64> = (dropped + 1..=sizes.len() as u64).collect();
        prop_assert_eq!(seen, expected);
    }
}
