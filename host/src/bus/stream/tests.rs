//! A stream loses nothing that an instance took and did not finish.

use haar_protocol::assignment::MicroserviceName;
use haar_protocol::ids::{NodeId, RouteId};
use haar_protocol::keys::SecretKey;

use super::*;
use crate::bus::log::{Bases, Held, Log};
use crate::bus::message::{Headers, RouteCounters, Source};
use crate::store::log::{Consumer, LogName, WantedLog};

/// A stream from a log with five messages, numbered from 1.
async fn scene() -> (tempfile::TempDir, Store, Arc<Stream>) {
    scene_with(Arc::default()).await
}

async fn scene_with(bases: Arc<Bases>) -> (tempfile::TempDir, Store, Arc<Stream>) {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    let consumer = Consumer {
        route: 1,
        node: NodeId::of(&SecretKey::from_seed([7; 32]).public()),
    };
    let owner = MicroserviceName {
        application: "app".parse().unwrap(),
        microservice: "source".parse().unwrap(),
    };
    let wanted = WantedLog {
        owner: owner.clone(),
        name: LogName::Outlet("out".parse().unwrap()),
        consumers: vec![consumer.clone()],
    };
    let opened = store.open_logs(vec![owner], vec![wanted], 1).await.unwrap();
    let source = Arc::new(Source::default());
    let log = Arc::new(Log::new(&opened[0], source, u64::MAX, Held::default()));
    let reader = Reader::new(Arc::clone(&log), consumer, 0, bases);
    let counters = Arc::new(RouteCounters::new(RouteId::from_u64(1)));
    let entry = Arc::new(Entry {
        origin: counters.origin,
        inlet: "in".into(),
        content_type: "text/plain".into(),
        message_bytes_max: 10,
        expiry_ms: None,
        counters,
        history: None,
    });
    let stream = Arc::new(Stream::new(Arc::new(reader), entry));
    let bodies = (1..=5).map(|number| (vec![], vec![number])).collect();
    let committed = move |first: u64, messages: Vec<(Headers, Vec<u8>)>| {
        let source = Arc::clone(&log.source);
        let messages = (first..).zip(messages).map(|(sequence, (headers, body))| {
            Arc::new(crate::bus::message::Message {
                source: Arc::clone(&source),
                sequence,
                published_ms: 0,
                headers,
                body,
            })
        });
        let messages: Vec<_> = messages.collect();
        log.committed(first, messages, None, 0);
    };
    store
        .append(opened[0].id, 0, bodies, committed)
        .await
        .unwrap();
    (directory, store, stream)
}

async fn take(stream: &Arc<Stream>, store: &Store, most: usize) -> VecDeque<Delivery> {
    let mut batch = VecDeque::new();
    stream.take(store, &mut batch, most).await.unwrap();
    batch
}

fn told(batch: &VecDeque<Delivery>) -> Vec<(u64, u32)> {
    let told = |one: &Delivery| (one.message.sequence, one.attempt);
    batch.iter().map(told).collect()
}

#[tokio::test]
async fn what_an_instance_took_with_it_comes_again_to_the_next_one() {
    let (_directory, store, stream) = scene().await;
    let batch = take(&stream, &store, 4).await;
    assert_eq!(told(&batch), [(1, 1), (2, 1), (3, 1), (4, 1)]);
    stream.done(1);
    drop(batch); // the task was ended by force
    stream.begin();
    let batch = take(&stream, &store, 9).await;
    assert_eq!(told(&batch), [(2, 2), (3, 2), (4, 2), (5, 2)]);
    for position in 2..=5 {
        stream.done(position);
    }
    stream.begin();
    assert!(stream.is_empty() && !stream.is_ready(Instant::now()));
}

#[tokio::test]
async fn what_an_instance_gave_back_keeps_its_attempts() {
    let (_directory, store, stream) = scene().await;
    let mut batch: Vec<_> = take(&stream, &store, 2).await.into();
    batch[0].attempt = 3;
    stream.put_back(batch, None);
    stream.begin();
    let batch = take(&stream, &store, 9).await;
    assert_eq!(told(&batch), [(1, 3), (2, 1), (3, 1), (4, 1), (5, 1)]);
}

#[tokio::test]
async fn a_message_that_waits_holds_the_others_back_until_its_time() {
    let (_directory, store, stream) = scene().await;
    let batch: Vec<_> = take(&stream, &store, 1).await.into();
    let due = Instant::now() + std::time::Duration::from_secs(3_600);
    stream.put_back(batch, Some(due));
    assert!(!stream.is_ready(Instant::now()) && stream.is_ready(due));
    assert_eq!(stream.paused_until(), Some(due));
    assert_eq!(told(&take(&stream, &store, 9).await), []);
}

#[tokio::test]
async fn what_its_only_consumer_has_passed_is_not_held_in_memory() {
    let bases = Arc::<Bases>::default();
    let (_directory, store, stream) = scene_with(Arc::clone(&bases)).await;
    let reader = &stream.reader;
    let held = |after| Some(reader.log.at_hand(after, u64::MAX)?.len());
    assert_eq!(held(0), Some(5));
    reader.advance(3);
    bases.store(&store).await.unwrap();
    assert_eq!((held(2), held(3)), (None, Some(2)));
    reader.advance(5);
    bases.store(&store).await.unwrap();
    assert_eq!(held(4), None);
}

/// The rest of a damaged database.
#[tokio::test]
async fn a_log_whose_last_messages_are_lost_has_nothing_more() {
    let (_directory, store, stream) = scene().await;
    stream.reader.log.committed(8, [], None, 0);
    assert_eq!(take(&stream, &store, 10).await.len(), 5);
    assert!(stream.is_ready(Instant::now()), "it is not known yet");
    assert_eq!(take(&stream, &store, 10).await.len(), 0);
    assert!(!stream.is_ready(Instant::now()));
}

#[tokio::test]
async fn what_is_lost_of_a_log_does_not_wait() {
    for done_before in [true, false] {
        let (_directory, store, stream) = scene().await;
        stream.reader.log.committed(8, [], None, 0);
        let batch = take(&stream, &store, 10).await;
        if done_before {
            (1..=5).for_each(|position| stream.done(position));
            assert_eq!(stream.len(), 2);
        }
        assert_eq!(take(&stream, &store, 10).await.len(), 0);
        if !done_before {
            assert_eq!(stream.len(), 7, "what was taken is not done with");
            (1..=5).for_each(|position| stream.done(position));
        }
        assert!(stream.is_empty());
        drop(batch);
        stream.begin();
        assert!(!stream.is_ready(Instant::now()));
    }
}
