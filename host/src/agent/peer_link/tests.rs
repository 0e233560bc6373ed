//! A link with something to send on both kinds of routes.

use std::collections::BTreeSet;
use std::sync::Arc;

use haar_link::frame::{Ack, Frame, decode};
use haar_link::link::Link;
use haar_link::sender::Settings;
use haar_link::session::{Ends, Session};
use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{NodeId, RouteId};
use haar_protocol::keys::SecretKey;

use super::leaving::{Leaving, open};
use crate::bus::log::{Held, Log, Reader};
use crate::bus::logs::{LinkPlan, OutgoingStream};
use crate::bus::message::{Message, RouteCounters};
use crate::bus::peer::{Outbound, PeerQueue};
use crate::identity::LinkSecret;
use crate::store::Store;
use crate::store::log::{Consumer, LogName, WantedLog};

const DURABLE: u64 = 1;
const MESSAGES: u64 = 5;
const BODY_BYTES: usize = 500;
/// Of one message each.
pub(super) const SETTINGS: Settings = Settings {
    resend_ms_min: 500,
    resend_ms_max: 30_000,
    batch_bytes: BODY_BYTES as u64 + 100,
    in_flight_bytes: 1 << 20,
};

pub(super) fn node() -> NodeId {
    NodeId::of(&SecretKey::from_seed([3; 32]).public())
}

/// What one of two nodes seals with.
pub(super) fn seals(own: u8, other: u8) -> Session {
    let [own_name, other_name] = [own, other].map(|seed| format!("n-{seed}"));
    let ends = Ends {
        site: "s",
        own: &own_name,
        other: &other_name,
    };
    let secret = |seed| LinkSecret::from_bytes([seed; 32]);
    secret(own)
        .session(ends, [own; 16], &secret(other).public())
        .unwrap()
}

/// Two links that have met.
pub(super) fn links(settings: Settings) -> (Link, Link) {
    let link = |own: u8, other: u8| {
        let mut link = Link::new(seals(own, other), settings);
        link.connected(true, 0);
        link
    };
    let (mut left, mut right) = (link(1, 2), link(2, 1));
    while let Some(bytes) = left.outgoing(0) {
        let _ = right.open(&bytes, 0);
        while let Some(bytes) = right.outgoing(0) {
            let _ = left.open(&bytes, 0);
        }
    }
    (left, right)
}

pub(super) fn message(sequence: u64) -> Arc<Message> {
    Arc::new(Message {
        source: Arc::default(),
        sequence,
        published_ms: 0,
        headers: vec![],
        body: vec![0; BODY_BYTES],
    })
}

/// A log with messages at hand, as a durable route to the other node.
pub(super) async fn stream(store: &Store, route: u64) -> OutgoingStream {
    stream_at_hand_from(store, route, 1).await
}

/// The same; what stands before the position `first` is on the disk only.
pub(super) async fn stream_at_hand_from(store: &Store, route: u64, first: u64) -> OutgoingStream {
    let consumer = Consumer {
        route,
        node: node(),
    };
    let owner = MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: "source".parse().unwrap(),
    };
    let wanted = WantedLog {
        owner: owner.clone(),
        name: LogName::Outlet(format!("out-{route}").parse().unwrap()),
        consumers: vec![consumer.clone()],
    };
    let owners = BTreeSet::from([owner]).into_iter().collect();
    let opened = store.open_logs(owners, vec![wanted], 1).await.unwrap();
    let log = Arc::new(Log::new(
        &opened[0],
        Arc::default(),
        u64::MAX,
        Held::default(),
    ));
    log.committed(first, (first..first + MESSAGES).map(message), None, 0);
    OutgoingStream {
        route,
        reader: Arc::new(Reader::new(log, consumer, 0, Arc::default())),
        priority: 0,
        expiry_ms: None,
        counters: Arc::new(RouteCounters::new(RouteId::from_u64(route))),
    }
}

fn ack(stored: u64) -> Ack {
    Ack {
        route: DURABLE,
        epoch: 1,
        stored,
        room: u64::MAX,
        resend: false,
    }
}

#[tokio::test]
async fn live_messages_and_those_of_logs_take_turns_and_neither_waits_for_all_of_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    let (mut link, mut other) = links(SETTINGS);
    let queue = Arc::new(PeerQueue::new(node()));
    let counters = Arc::new(RouteCounters::new(RouteId::from_u64(2)));
    let plan = LinkPlan {
        live: Some(Arc::clone(&queue)),
        outgoing: vec![stream(&store, DURABLE).await],
        ..LinkPlan::default()
    };
    open(&mut link, &plan.outgoing[0]);
    let mut leaving = Leaving::new(store);
    let mut kinds = String::new();
    for sequence in 1..=12 {
        // There is always a live message, and five times one of the log.
        queue.push(Outbound {
            message: message(sequence),
            counters: Arc::clone(&counters),
        });
        let Some(frame) = leaving.next(&mut link, &plan, 1) else {
            break;
        };
        let bytes = other.open(&frame.bytes, 1).unwrap().unwrap();
        kinds.push(match decode(&bytes).unwrap() {
            Frame::Live(_) => 'L',
            Frame::Batches(batches) => {
                let stored = batches[0].messages.last().unwrap().sequence;
                leaving.acknowledged(&mut link, &plan, &ack(stored), 1);
                'D'
            }
            Frame::Acks(_) => 'A',
            Frame::Probe => 'P',
        });
    }
    assert_eq!(kinds, "LDLDLDLDLDLL");
}

#[tokio::test]
async fn nothing_is_sent_and_the_queue_keeps_it_while_the_link_is_not_open() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    let (mut link, _) = links(SETTINGS);
    let queue = Arc::new(PeerQueue::new(node()));
    let plan = LinkPlan {
        live: Some(Arc::clone(&queue)),
        ..LinkPlan::default()
    };
    let counters = Arc::new(RouteCounters::new(RouteId::from_u64(2)));
    queue.push(Outbound {
        message: message(1),
        counters,
    });
    let mut leaving = Leaving::new(store);
    link.connected(false, 1);
    assert!(leaving.next(&mut link, &plan, 1).is_none());
    link.connected(true, 2);
    let hello = leaving.next(&mut link, &plan, 2).unwrap();
    assert!(hello.live.is_empty());
    let frame = leaving.next(&mut link, &plan, 2).unwrap();
    assert_eq!(frame.live.len(), 1);
}

#[tokio::test]
async fn a_frame_has_messages_of_as_many_streams_as_fit_into_it() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    // All messages of one stream in a batch, and two such batches in a frame; but no third one.
    let bytes = MESSAGES * (BODY_BYTES as u64 + 100);
    let (mut link, mut other) = links(Settings {
        batch_bytes: 2 * bytes,
        ..SETTINGS
    });
    let mut plan = LinkPlan::default();
    for route in 1..=3 {
        plan.outgoing.push(stream(&store, route).await);
    }
    for stream in &plan.outgoing {
        open(&mut link, stream);
    }
    let mut leaving = Leaving::new(store);
    let mut frames = Vec::new();
    while let Some(frame) = leaving.next(&mut link, &plan, 1) {
        let bytes = other.open(&frame.bytes, 1).unwrap().unwrap();
        let Frame::Batches(batches) = decode(&bytes).unwrap() else {
            panic!("only messages of logs are to be sent");
        };
        let batches = batches.iter();
        frames.push(
            batches
                .map(|batch| (batch.route, batch.messages.len() as u64))
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(
        frames,
        [vec![(1, MESSAGES), (2, MESSAGES)], vec![(3, MESSAGES)]]
    );
}
